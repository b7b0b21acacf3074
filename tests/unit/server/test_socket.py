"""Connecting, framing, heartbeats, and messages for nobody."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from backbeat.websocket.frames import Opcode, client_frame

OK = {"status": "ok", "response": {}}


def body(client: Any) -> dict[str, str]:
    """The JSON body of a refused upgrade."""
    return dict(json.loads(client.response.split(b"\r\n\r\n", 1)[1]))


def status(client: Any) -> int:
    """The HTTP status of the answer to the upgrade."""
    return int(client.response.split(b" ", 2)[1])


@pytest.mark.parametrize("path", ["/socket/websocket", "/realtime/v1/websocket"])
async def test_both_paths_open_a_socket(server: Any, path: str) -> None:
    """The server's own path and the gateway's both work."""
    assert status(server.client(path=path)) == 101


async def test_a_jwt_key_opens_a_socket(server: Any) -> None:
    """Any JWT that verifies is an API key."""
    assert status(server.client(apikey=server.token(role="anon", sub=None))) == 101


async def test_the_key_may_come_in_a_header(server: Any) -> None:
    """`x-api-key` wins over the query, and policies never see it."""
    client = server.client(apikey="nonsense", headers=f"x-api-key: {server.token()}\r\nx-device: 7\r\n")
    assert status(client) == 101
    assert client.socket.headers == {"x-device": "7"}


async def test_policies_see_no_forwarded_address_of_a_client(server: Any) -> None:
    """It could be anybody's; only a trusted proxy's is passed on."""
    client = server.client(headers="x-forwarded-for: 10.0.0.1\r\nx-real-ip: 10.0.0.1\r\nx-device: 7\r\n")
    assert client.socket.headers == {"x-device": "7"}


@pytest.mark.parametrize(
    ("offered", "chosen"), [("phoenix, x", True), ("x", False)], ids=["phoenix", "something else"]
)
async def test_of_the_subprotocols_a_client_offers_phoenix_is_chosen(
    server: Any, offered: str, chosen: bool
) -> None:
    """Or none, which RFC 6455 allows and browsers do not like."""
    client = server.client(headers=f"Sec-WebSocket-Protocol: {offered}\r\n")
    assert status(client) == 101
    assert (b"Sec-WebSocket-Protocol: phoenix\r\n" in client.response) is chosen


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("", "API key is missing"),
        ("garbage", "The token provided is not a valid JWT"),
        ("sb_publishable_other", "Invalid API key"),
    ],
)
async def test_a_bad_key_is_refused_with_its_reason(server: Any, key: str, text: str) -> None:
    """The upgrade is answered with 401 and the exact text."""
    client = server.client(apikey=key)
    assert (status(client), body(client)) == (401, {"error": text})


async def test_an_expired_key_is_refused_without_a_number(server: Any) -> None:
    """At connect, the text has no seconds in it."""
    client = server.client(apikey=server.token(exp=5))
    assert (status(client), body(client)["error"]) == (401, "Token has expired")


async def test_a_key_that_expired_since_is_refused(server: Any) -> None:
    """A key that was verified before is not believed for ever."""
    key = server.token()
    assert status(server.client(apikey=key)) == 101
    server.clock.now += 61
    assert status(server.client(apikey=key)) == 401


async def test_a_refusal_explains_itself_when_it_may(start: Callable[..., Any]) -> None:
    """With `explain`, the body carries code and hint."""
    assert body(start(explain=True).client(apikey="")).keys() == {"error", "code", "hint"}


async def test_an_unknown_version_is_refused(server: Any) -> None:
    """Neither 1.0.x nor 2.0.x: 403."""
    assert status(server.client("3.0.0")) == 403


async def test_an_unknown_path_is_refused(server: Any) -> None:
    """There is no socket elsewhere."""
    assert status(server.client(path="/elsewhere")) == 404


async def test_a_refused_connection_is_closed(server: Any) -> None:
    """Nothing more is read from it."""
    client = server.client(apikey="")
    assert client.transport.closed
    assert server.realtime.metrics.connections == 0


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
async def test_heartbeats_are_answered(server: Any, vsn: str) -> None:
    """The ref comes back, on the topic of the connection."""
    client = server.client(vsn)
    client.push("phoenix", "heartbeat", {}, ref="9", join_ref=None)
    assert client.messages() == [[None, "9", "phoenix", "phx_reply", OK]]


async def test_frames_behind_the_head_are_read(server: Any) -> None:
    """A client need not wait for the handshake's answer."""
    client = server.client()
    client.socket.data_received(client_frame(Opcode.PING, b"x", b"mask") * 2)
    assert client.frames() == [(Opcode.PONG, b"x")] * 2


async def test_a_message_for_a_topic_never_joined_is_refused(server: Any) -> None:
    """The reply says so, with a null join ref."""
    client = server.client()
    client.push("realtime:room", "broadcast", {}, ref="5", join_ref="1")
    assert client.messages() == [
        [
            None,
            "5",
            "realtime:room",
            "phx_reply",
            {"status": "error", "response": {"reason": "unmatched topic"}},
        ]
    ]


async def test_leaving_a_topic_never_joined_is_fine(server: Any) -> None:
    """There is nothing to leave, and nothing wrong."""
    client = server.client()
    client.push("realtime:room", "phx_leave", {}, ref="5")
    assert client.messages() == [[None, "5", "realtime:room", "phx_reply", OK]]


async def test_topics_without_the_prefix_cannot_be_joined(server: Any) -> None:
    """Internal names cannot be reached: every topic starts with `realtime:`."""
    client = server.client()
    client.join("postgres:todos")
    assert client.messages()[0][4]["response"]["reason"] == "unmatched topic"


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'"x"', b'["1","1","t","e"]', b'{"topic":"t"}'])
async def test_a_malformed_message_costs_nothing_but_itself(server: Any, data: bytes) -> None:
    """It is dropped and counted; the connection lives."""
    client = server.client()
    client.send(Opcode.TEXT, data)
    client.push("phoenix", "heartbeat", {})
    assert len(client.messages()) == 1
    assert server.realtime.metrics.frames_dropped["MalformedWebSocketMessage"] == 1


async def test_a_binary_frame_on_vsn_1_is_dropped(server: Any) -> None:
    """Vsn 1 has no binary frames."""
    client = server.client("1.0.0")
    client.send(Opcode.BINARY, b"\x03\x00\x00\x01\x01\x00\x00te")
    assert client.frames() == []
    assert server.realtime.metrics.frames_dropped["MalformedWebSocketMessage"] == 1


async def test_an_oversized_frame_closes_with_1009(start: Callable[..., Any]) -> None:
    """The limit is on the message, and the close code says so."""
    client = start(max_frame_bytes=100).client()
    client.send(Opcode.TEXT, b"x" * 101)
    assert client.frames()[0][1][:2] == (1009).to_bytes(2, "big")


async def test_text_that_is_not_utf_8_closes_with_1007(server: Any) -> None:
    """It could not be passed on to others without closing theirs."""
    client = server.client()
    client.send(Opcode.TEXT, b'["1","1","t","e","\xff"]')
    assert client.frames()[0][1][:2] == (1007).to_bytes(2, "big")


async def test_an_oversized_frame_harms_no_other_socket(start: Callable[..., Any]) -> None:
    """Others on the same topic keep receiving."""
    server = start(max_frame_bytes=200)
    bad, sender, listener = server.client(), server.client(), server.client()
    for client in (bad, sender, listener):
        client.join("realtime:room")
        client.messages()
    bad.send(Opcode.TEXT, b"x" * 201)
    sender.push("realtime:room", "broadcast", {"n": 1})
    assert await listener.settled() == [[None, None, "realtime:room", "broadcast", {"n": 1}]]


async def test_a_close_is_echoed(server: Any) -> None:
    """RFC 6455, section 5.5.1."""
    client = server.client()
    client.send(Opcode.CLOSE, (1000).to_bytes(2, "big"))
    assert client.frames() == [(Opcode.CLOSE, (1000).to_bytes(2, "big"))]
    assert client.transport.closed


async def test_stopping_closes_with_1012(server: Any) -> None:
    """Clients know to come back."""
    client = server.client()
    client.socket.shutdown()
    assert client.frames()[0][1][:2] == (1012).to_bytes(2, "big")


async def test_a_draining_server_refuses_connects(server: Any) -> None:
    """503, and a text that says to come back."""
    server.realtime.drain()
    client = server.client()
    assert (status(client), body(client)["error"]) == (503, "Realtime is restarting, please standby")


async def test_a_slow_reader_is_dropped(server: Any) -> None:
    """Its transport says that too much waits; the connection is cut, and counted."""
    client = server.client()
    client.join("realtime:room")
    client.socket.pause_writing()
    await client.settled()
    assert client.transport.aborted
    assert server.realtime.metrics.slow_readers == 1
    assert server.realtime.metrics.channels == 0


async def test_a_failure_of_ours_costs_one_channel(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client hears `phx_error` for that topic, joins again by itself, and nothing else notices."""
    client = server.client()
    client.join("realtime:a", ref="1")
    client.join("realtime:b", ref="2")
    client.messages()

    def explode(*_: object) -> None:
        raise RuntimeError("a typo")

    monkeypatch.setattr("backbeat.server.room.Room.publish", explode)
    client.push("realtime:a", "broadcast", {"n": 1})
    monkeypatch.undo()
    client.push("realtime:b", "access_token", {"access_token": None}, join_ref="2")
    assert client.messages() == [["1", "1", "realtime:a", "phx_error", {"reason": "channel_crash"}]]
    assert list(client.socket.channels) == ["realtime:b"]
    assert server.realtime.metrics.handler_failures == 1
