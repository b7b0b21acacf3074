"""How long sockets and channels live, what ends them, and what does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from backbeat.postgres.authorize import Permissions
from backbeat.server.limits import LimitSettings
from backbeat.websocket.frames import Opcode

ROOM = "realtime:room"
OK = {"status": "ok", "response": {}}
VERSIONS = pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])

Start = Callable[..., Any]


def split(client: Any) -> tuple[list[Any], int]:
    """The messages that have arrived, and the code of the close frame behind them."""
    *frames, (opcode, close) = client.frames()
    assert opcode == Opcode.CLOSE
    return [json.loads(data) for _, data in frames], int.from_bytes(close[:2], "big")


def payload(message: Any) -> Any:
    """The payload of a message of either version."""
    return message["payload"] if isinstance(message, dict) else message[4]


# Join refs --------------------------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize("join_ref", ["1", None], ids=["stale", "missing"])
async def test_a_track_under_another_join_ref_counts(server: Any, vsn: str, join_ref: str | None) -> None:
    """Older clients send so: it is announced, and answered under the channel's own join ref."""
    client = server.client(vsn)
    client.join(ROOM, ref="3", presence={"enabled": True, "key": "eric"})
    client.messages()
    client.push(ROOM, "presence", {"event": "track", "payload": {}}, ref="4", join_ref=join_ref)
    diff, reply = client.messages()
    assert list(diff[4]["joins"]) == ["eric"]
    assert reply == ["3" if vsn == "2.0.0" else None, "4", ROOM, "phx_reply", OK]


@VERSIONS
@pytest.mark.parametrize("join_ref", ["1", None], ids=["stale", "missing"])
async def test_a_broadcast_under_another_join_ref_counts(server: Any, vsn: str, join_ref: str | None) -> None:
    """It is delivered and acknowledged, under the channel's own join ref."""
    client, listener = server.client(vsn), server.client(vsn)
    client.join(ROOM, ref="3", broadcast={"ack": True})
    listener.join(ROOM)
    client.messages()
    listener.messages()
    client.push(ROOM, "broadcast", {"n": 1}, ref="4", join_ref=join_ref)
    assert client.messages() == [["3" if vsn == "2.0.0" else None, "4", ROOM, "phx_reply", OK]]
    assert await listener.settled() == [[None, None, ROOM, "broadcast", {"n": 1}]]


@VERSIONS
async def test_a_leave_without_a_join_ref_counts(server: Any, vsn: str) -> None:
    """It is meant for whatever is joined."""
    client = server.client(vsn)
    client.join(ROOM, ref="3")
    client.messages()
    client.push(ROOM, "phx_leave", {}, ref="4", join_ref=None)
    assert [message[3] for message in client.messages()] == ["phx_reply", "phx_close"]


# The server goes --------------------------------------------------------------------------------------------


@VERSIONS
async def test_every_channel_is_told_that_the_server_goes(server: Any, vsn: str) -> None:
    """One system message each, then one close frame that means: come back."""
    client = server.client(vsn)
    for number in range(2):
        client.join(f"{ROOM}{number}")
    client.messages()
    client.socket.shutdown()
    messages, code = split(client)
    assert [payload(message) for message in messages] == [
        {
            "channel": f"room{number}",
            "extension": "system",
            "message": "Server requested disconnect",
            "status": "ok",
        }
        for number in range(2)
    ]
    assert code == 1012


async def test_a_server_that_goes_says_so_once(server: Any) -> None:
    """Being told to stop again changes nothing."""
    client = server.client()
    client.join(ROOM)
    client.socket.shutdown()
    client.frames()
    client.socket.shutdown()
    assert client.frames() == []


async def test_a_waiting_join_is_not_told_that_the_server_goes(server: Any) -> None:
    """It is no channel yet; the close frame is enough."""
    server.policies.open.clear()
    client = server.client()
    client.join(ROOM, private=True)
    client.socket.shutdown()
    assert split(client) == ([], 1012)


# Sockets that nobody uses -----------------------------------------------------------------------------------


async def test_a_socket_whose_joins_all_failed_is_closed_later(server: Any) -> None:
    """It tried, and holds nothing: as good as one that left everything."""
    server.policies.answers["room"] = Permissions.none()
    client = server.client()
    client.join(ROOM, private=True)
    await client.settled()
    client.socket.alone_since -= server.realtime.settings.alone_timeout + 1
    server.realtime._sweep()
    assert split(client) == ([], 1000)


async def test_one_join_that_succeeds_keeps_the_socket(server: Any) -> None:
    """However many others failed, before and after it."""
    server.policies.answers["room"] = Permissions.none()
    client = server.client()
    client.join(ROOM, private=True)
    await client.settled()
    client.socket.alone_since -= server.realtime.settings.alone_timeout + 1
    client.join("realtime:open", ref="2")
    client.join(ROOM, ref="3", private=True)
    await client.settled()
    server.realtime._sweep()
    assert client.frames() == []


async def test_a_socket_that_left_all_but_one_channel_is_kept(server: Any) -> None:
    """Channels are counted for each socket."""
    client = server.client()
    for number in range(2):
        client.join(f"{ROOM}{number}", ref=str(number))
    client.push(f"{ROOM}0", "phx_leave", {}, ref="5", join_ref="0")
    client.messages()
    assert client.socket.alone_since > server.realtime.loop.time()


async def test_a_join_that_is_being_decided_keeps_the_socket(server: Any) -> None:
    """A slow policy does not cost the connection."""
    server.policies.open.clear()
    client = server.client()
    client.join("realtime:first")
    client.push("realtime:first", "phx_leave", {}, ref="2")
    client.join(ROOM, ref="3", private=True)
    assert client.socket.alone_since > server.realtime.loop.time()


# Limits -----------------------------------------------------------------------------------------------------


@VERSIONS
async def test_one_user_too_many_cannot_join(start: Start, vsn: str) -> None:
    """The join is refused with the reason; the socket stays, for there may be room later."""
    server = start(limits=LimitSettings(max_concurrent_users=1))
    first, second = server.client(vsn), server.client(vsn)
    first.join(ROOM)
    second.join(ROOM)
    response = {"reason": "ConnectionRateLimitReached: Too many connected users"}
    assert second.messages()[0][4] == {"status": "error", "response": response}
    assert not second.transport.is_closing()


@VERSIONS
async def test_one_channel_too_many_is_refused(start: Start, vsn: str) -> None:
    """Leaving one makes room again."""
    client = start(max_channels=1).client(vsn)
    client.join(f"{ROOM}1", ref="1")
    client.join(f"{ROOM}2", ref="2")
    client.push(f"{ROOM}1", "phx_leave", {}, ref="3", join_ref="1")
    client.join(f"{ROOM}2", ref="4")
    replies = {message[1]: message[4] for message in client.messages() if message[3] == "phx_reply"}
    assert replies["2"]["response"] == {"reason": "ChannelRateLimitReached: Too many channels"}
    assert replies["4"]["status"] == "ok"


@VERSIONS
async def test_joining_a_topic_again_needs_no_free_channel(start: Start, vsn: str) -> None:
    """The new channel takes the place of the old one."""
    client = start(max_channels=1).client(vsn)
    client.join(ROOM, ref="1")
    client.join(ROOM, ref="2")
    replies = [message for message in client.messages() if message[3] == "phx_reply"]
    assert [reply[4]["status"] for reply in replies] == ["ok", "ok"]


@VERSIONS
async def test_too_many_joins_close_the_socket(start: Start, vsn: str) -> None:
    """The last join is answered with the reason; then the connection ends with 1001."""
    server = start(limits=LimitSettings(max_joins_per_second=1))
    client = server.client(vsn)
    number = 0
    while client.socket._closing is None:
        client.join(f"{ROOM}{number}")
        number += 1
    messages, code = split(client)
    response = {"reason": "ClientJoinRateLimitReached: Too many joins per second"}
    assert payload(messages[-1]) == {"status": "error", "response": response}
    assert code == 1001


@VERSIONS
async def test_too_many_messages_shut_the_channel_down(start: Start, vsn: str) -> None:
    """A system message with the reason, then `phx_close`; the socket and its other channels stay."""
    client = start(limits=LimitSettings(max_events_per_second=1)).client(vsn)
    client.join(ROOM)
    client.join("realtime:other", ref="2")
    client.messages()
    for number in range(50):
        client.push(ROOM, "broadcast", {"n": number}, ref=None)
    system, close = client.messages()[:2]
    assert system[4] == {
        "channel": "room",
        "extension": "system",
        "message": "Too many messages per second",
        "status": "error",
    }
    assert close[3] == "phx_close"
    assert list(client.socket.channels) == ["realtime:other"]
