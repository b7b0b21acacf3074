"""Both serializers and the binary broadcasts."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbeat.errors import ProtocolError
from backbeat.protocol.codec import (
    V1,
    V2,
    Serializer,
    decode_user_broadcast,
    encode_user_broadcast,
    encode_user_broadcast_push,
    serializer,
)
from backbeat.protocol.messages import BinaryBroadcast, Message, UserBroadcast

PUSH = bytes.fromhex("03 01 01 0a 02 00 01") + b"17realtime:ahi" + b'{"x":1}'


@pytest.mark.parametrize(
    ("vsn", "expected"),
    [
        (None, V1),
        ("1.0.0", V1),
        ("1.0.9", V1),
        ("2.0.0", V2),
        ("3.0.0", None),
        ("2.1.0", None),
        ("2", None),
        ("", None),
    ],
)
def test_the_version_chooses_the_serializer(vsn: str | None, expected: Serializer | None) -> None:
    """Absent means 1.0.0; whatever is not 1.0.x or 2.0.x is spoken by nobody here."""
    assert serializer(vsn) is expected


def test_v1_reads_objects() -> None:
    """A vsn 1 message is an object; its join_ref is optional."""
    data = b'{"topic":"realtime:a","event":"phx_join","payload":{"config":{}},"ref":"1","join_ref":"1"}'
    assert V1.decode(data) == Message("1", "1", "realtime:a", "phx_join", b'{"config":{}}')


def test_v2_reads_arrays() -> None:
    """A vsn 2 message is an array; what follows its five parts is ignored."""
    data = b'["1","2","realtime:a","broadcast",{"n":1},"more"]'
    assert V2.decode(data) == Message("1", "2", "realtime:a", "broadcast", b'{"n":1}')


@pytest.mark.parametrize(
    ("version", "data"),
    [
        (V1, b""),
        (V1, b"{}"),
        (V1, b'{"topic":"t","event":"e","ref":"1"}'),
        (V1, b'["1","1","t","e",{}]'),
        (V2, b""),
        (V2, b'["1","1","t","e"]'),
        (V2, b'{"topic":"t","event":"e","payload":{},"ref":"1"}'),
        (V2, b'[1,"1","t","e",{}]'),
        (V2, b'["1","1","t","e",{"a":NaN}]'),
        (V2, b'["1","1","t","e",' + b"[" * 100_000 + b"]" * 100_000 + b"]"),
    ],
)
def test_what_is_no_message_is_refused(version: Serializer, data: bytes) -> None:
    """Broken structure, wrong shapes and bottomless nesting are protocol errors, nothing else."""
    with pytest.raises(ProtocolError):
        version.decode(data)


def test_v1_writes_without_join_ref() -> None:
    """Vsn 1 has four keys, always in this order."""
    assert V1.encode("9", "1", "realtime:ä", "phx_reply", b"{}") == (
        '{"topic":"realtime:ä","event":"phx_reply","payload":{},"ref":"1"}'.encode()
    )


def test_v2_writes_arrays() -> None:
    """Vsn 2 has five parts; an absent ref is null."""
    assert V2.encode("9", None, 'realtime:"', "system", b'{"a":1}') == (
        b'["9",null,"realtime:\\"","system",{"a":1}]'
    )


@given(
    st.none() | st.text(), st.none() | st.text(), st.text(), st.text(), st.dictionaries(st.text(), st.text())
)
def test_v2_reads_what_it_writes(
    join_ref: str | None, ref: str | None, topic: str, event: str, payload: dict[str, str]
) -> None:
    """Any message survives being written and read."""
    raw = json.dumps(payload).encode()
    assert V2.decode(V2.encode(join_ref, ref, topic, event, raw)) == Message(join_ref, ref, topic, event, raw)


def test_a_broadcast_push_is_read() -> None:
    """The worked example of the specification."""
    assert V2.decode_binary(PUSH) == BinaryBroadcast("1", "7", "realtime:a", "hi", b'{"x":1}', is_json=True)


def test_opaque_bytes_are_passed_as_they_are() -> None:
    """Encoding 0 is nobody's business but the applications'."""
    push = bytes((3, 0, 0, 1, 1, 0, 0)) + b"te" + b"\xff\x00"
    assert V2.decode_binary(push) == BinaryBroadcast(None, None, "t", "e", b"\xff\x00", is_json=False)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        PUSH[:6],
        PUSH[:12],
        b"\x00" + PUSH[1:],
        b"\x09" + PUSH[1:],
        PUSH[:-1],
        PUSH[:-7] + b'"\xff"',
        bytes((3, 0, 0, 1, 1, 0, 0)) + b"\xffe",
        bytes((3, 0, 0, 1, 1, 2, 0)) + b"te[]",
    ],
    ids=[
        "empty",
        "cut head",
        "cut strings",
        "kind 0",
        "unknown kind",
        "cut JSON",
        "not UTF-8",
        "topic",
        "metadata",
    ],
)
def test_broken_binary_frames_are_refused(data: bytes) -> None:
    """What is truncated, of another kind, or not the text or JSON it claims to be, is a protocol error."""
    with pytest.raises(ProtocolError):
        V2.decode_binary(data)


def test_v1_has_no_binary_frames() -> None:
    """A binary frame on a vsn 1 socket is a protocol error."""
    with pytest.raises(ProtocolError):
        V1.decode_binary(PUSH)


def test_a_user_broadcast_is_written() -> None:
    """Kind 4: topic, event, metadata, encoding, payload."""
    frame = encode_user_broadcast("realtime:a", "hi", b'{"x":1}', is_json=True, metadata=b'{"id":"1"}')
    assert frame == bytes.fromhex("04 0a 02 0a 01") + b'realtime:ahi{"id":"1"}{"x":1}'


@pytest.mark.parametrize("part", ["topic", "event", "metadata"])
def test_headers_are_limited_to_255_bytes(part: str) -> None:
    """A header counts its strings in one byte; the sender hears of it, not the room."""
    parts = {"topic": "t", "event": "e", "metadata": b""} | {
        part: b"x" * 256 if part == "metadata" else "ä" * 128
    }
    with pytest.raises(ProtocolError):
        encode_user_broadcast(
            str(parts["topic"]),
            str(parts["event"]),
            b"",
            is_json=False,
            metadata=bytes(parts["metadata"]),  # type: ignore[arg-type]
        )


@given(st.binary(max_size=64))
def test_random_binary_frames_harm_nobody(data: bytes) -> None:
    """Whatever bytes come, the answer is a broadcast or a protocol error."""
    with contextlib.suppress(ProtocolError):
        V2.decode_binary(data)


def test_a_client_writes_what_a_server_reads() -> None:
    """Pushes of both versions, and binary broadcasts, with refs, in both directions."""
    for version in (V1, V2):
        text = version.encode_push("1", "2", "realtime:a", "broadcast", b'{"n":1}')
        assert version.decode(text) == Message("1", "2", "realtime:a", "broadcast", b'{"n":1}')
    assert encode_user_broadcast_push("1", "7", "realtime:a", "hi", b'{"x":1}', is_json=True) == PUSH
    answer = encode_user_broadcast("realtime:a", "hi", b"\xff", is_json=False, metadata=b'{"id":"1"}')
    assert decode_user_broadcast(answer) == UserBroadcast("realtime:a", "hi", b"\xff", False, b'{"id":"1"}')


@given(st.binary(max_size=40))
def test_reading_a_broadcast_accepts_or_refuses_any_bytes(data: bytes) -> None:
    """Nothing but a ProtocolError ever comes out."""
    with contextlib.suppress(ProtocolError):
        decode_user_broadcast(b"\x04" + data)


@pytest.mark.parametrize("version", [V1, V2])
@pytest.mark.parametrize("ref", [None, "7", "a b", 'quoted "ref"', "ü"])
def test_the_reply_to_a_heartbeat_is_a_reply_like_any_other(version: Serializer, ref: str | None) -> None:
    """It is only written in a shorter way."""
    ok = b'{"status":"ok","response":{}}'
    assert version.encode_heartbeat_reply(ref) == version.encode(None, ref, "phoenix", "phx_reply", ok)
