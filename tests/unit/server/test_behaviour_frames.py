"""What becomes of frames that are no message, and how messages are written byte for byte."""

from __future__ import annotations

import json
from math import inf
from typing import Any

import pytest
from structlog.testing import capture_logs

from backbeat.protocol.codec import V2, encode_user_broadcast
from backbeat.protocol.messages import BinaryBroadcast
from backbeat.websocket.frames import Opcode

ROOM = "realtime:room"
VERSIONS = pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
HEARTBEAT = [None, "9", "phoenix", "phx_reply", {"status": "ok", "response": {}}]

NO_MESSAGE = {
    "nothing": b"",
    "no JSON": b"{oops",
    "text": b'"text"',
    "number": b"5",
    "null": b"null",
    "short array": b'["1","1","realtime:room"]',
    "empty array": b"[]",
    "empty object": b"{}",
    "wrong types": b'[{},[],5,null,"x"]',
    "object without payload": b'{"topic":"realtime:room","event":"broadcast","ref":"1"}',
}


@VERSIONS
@pytest.mark.parametrize("data", NO_MESSAGE.values(), ids=NO_MESSAGE.keys())
async def test_a_text_that_is_no_message_is_dropped(server: Any, vsn: str, data: bytes) -> None:
    """One log line with its code, and the connection lives."""
    client = server.client(vsn)
    with capture_logs() as lines:
        client.send(Opcode.TEXT, data)
    client.push("phoenix", "heartbeat", {}, ref="9", join_ref=None)
    assert client.messages() == [HEARTBEAT]
    assert [(line["event"], line["code"]) for line in lines] == [
        ("frame dropped", "MalformedWebSocketMessage")
    ]


@pytest.mark.parametrize(
    ("vsn", "message"),
    [
        ("2.0.0", {"topic": "phoenix", "event": "heartbeat", "payload": {}, "ref": "1"}),
        ("1.0.0", [None, "1", "phoenix", "heartbeat", {}]),
    ],
)
async def test_a_message_of_the_other_version_is_dropped(server: Any, vsn: str, message: object) -> None:
    """A socket speaks the version it was opened with, and no other."""
    client = server.client(vsn)
    client.send(Opcode.TEXT, json.dumps(message).encode())
    assert client.messages() == []


async def test_a_dropped_frame_is_not_logged_itself(server: Any) -> None:
    """It may hold a token, or anything."""
    client = server.client()
    with capture_logs() as lines:
        client.send(Opcode.TEXT, b'{"access_token":"eyJ.secret.token"')
    assert "eyJ" not in str(lines)


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\x03\x01", b"\xff" * 40], ids=["0", "kind", "cut", "kind 255"]
)
async def test_a_binary_frame_that_is_no_broadcast_is_dropped(server: Any, data: bytes) -> None:
    """The connection lives."""
    client = server.client()
    client.send(Opcode.BINARY, data)
    client.push("phoenix", "heartbeat", {}, ref="9", join_ref=None)
    assert client.messages() == [HEARTBEAT]


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
async def test_a_failure_of_ours_while_reading_costs_one_frame(
    server: Any, monkeypatch: pytest.MonkeyPatch, opcode: Opcode
) -> None:
    """It is reported with a traceback, and the connection lives."""
    client = server.client()

    class Broken:
        def decode(self, _: bytes) -> None:
            raise RuntimeError("a typo")

        decode_binary = decode

    monkeypatch.setattr(client.socket, "serializer", Broken())
    with capture_logs() as lines:
        client.send(opcode, b"x")
    monkeypatch.undo()
    client.push("phoenix", "heartbeat", {}, ref="9", join_ref=None)
    assert client.messages() == [HEARTBEAT]
    assert [line["log_level"] for line in lines] == ["error"]
    assert server.realtime.metrics.handler_failures == 1


@pytest.mark.parametrize("is_json", [True, False])
@pytest.mark.parametrize("metadata", [b"", b'{"id":"1"}'])
def test_a_binary_broadcast_is_written_byte_for_byte(is_json: bool, metadata: bytes) -> None:
    """Kind, three lengths, encoding, then topic, event, metadata and payload."""
    payload = b'{"x":1}' if is_json else b"\x00\xff"
    frame = encode_user_broadcast("realtime:a", "hi", payload, is_json=is_json, metadata=metadata)
    assert frame == bytes((4, 10, 2, len(metadata), is_json)) + b"realtime:ahi" + metadata + payload


@pytest.mark.parametrize("part", ["topic", "event", "metadata"])
def test_255_bytes_of_a_header_can_be_written(part: str) -> None:
    """The limit is inclusive."""
    parts = {"topic": "t", "event": "e", "metadata": "{}"} | {part: "x" * 255}
    frame = encode_user_broadcast(
        parts["topic"], parts["event"], b"", is_json=True, metadata=parts["metadata"].encode()
    )
    assert max(frame[1:4]) == 255


@pytest.mark.parametrize("encoding", [1, 2, 255])
def test_every_encoding_but_zero_is_json(encoding: int) -> None:
    """Clients of the future may count on it."""
    push = bytes((3, 1, 1, 1, 1, 0, encoding)) + b"12te" + b"{}"
    assert V2.decode_binary(push) == BinaryBroadcast("1", "2", "t", "e", b"{}", is_json=True)


@pytest.mark.parametrize(("encoding", "payload"), [(1, b'{"x":1}'), (0, b"\x00\xff")])
async def test_metadata_of_a_client_is_left_out(server: Any, encoding: int, payload: bytes) -> None:
    """It is read, for it has to be an object, and reaches nobody: only stored messages carry some."""
    sender, listener = server.client(), server.client()
    for client in (sender, listener):
        client.join(ROOM)
        client.messages()
    strings = [b"1", b"2", ROOM.encode(), b"hi", b'{"trace":"7"}']
    sender.send(Opcode.BINARY, bytes((3, *map(len, strings), encoding)) + b"".join(strings) + payload)
    server.realtime.hub.find(ROOM, private=False).send(inf)
    header = bytes((4, len(ROOM), 2, 0, encoding)) + ROOM.encode() + b"hi"
    assert listener.frames() == [(Opcode.BINARY, header + payload)]
