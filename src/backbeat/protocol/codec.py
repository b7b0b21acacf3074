"""How messages are written: vsn 1.0.0 (JSON objects), vsn 2.0.0 (JSON arrays), and binary broadcasts.

Server specification, section 2. Payloads are JSON text that is spliced through, never decoded and encoded
again; whatever comes in is checked once, here, so that nothing broken is ever passed on to others: its
structure, its nesting depth and, for binary frames, UTF-8. (Text frames arrive with their UTF-8 checked by
the frame parser.)
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Protocol

import msgspec

from backbeat.errors import ProtocolError
from backbeat.protocol.messages import BinaryBroadcast, Message, UserBroadcast

__all__ = [
    "USER_BROADCAST",
    "USER_BROADCAST_PUSH",
    "V1",
    "V2",
    "Serializer",
    "decode_user_broadcast",
    "encode_user_broadcast",
    "encode_user_broadcast_push",
    "json_text",
    "serializer",
]

USER_BROADCAST_PUSH: Final = 3
USER_BROADCAST: Final = 4
MAX_REMEMBERED: Final = 128
"""Longer texts are not worth their memory: clients choose them."""

MAX_HEADER: Final = 255
"""Binary headers count their strings' lengths in one byte."""


class _Array(msgspec.Struct, array_like=True, frozen=True):
    join_ref: str | None
    ref: str | None
    topic: str
    event: str
    payload: msgspec.Raw


class _Object(msgspec.Struct, frozen=True):
    topic: str
    event: str
    payload: msgspec.Raw
    ref: str | None
    join_ref: str | None = None


_array = msgspec.json.Decoder(_Array)
_object = msgspec.json.Decoder(_Object)
_raw = msgspec.json.Decoder(msgspec.Raw)


def json_text(value: str) -> bytes:
    """The JSON text of a topic or an event; the same few return all the time."""
    if len(value) <= MAX_REMEMBERED:
        return _remembered(value)
    return msgspec.json.encode(value)


@lru_cache(maxsize=4096)
def _remembered(value: str) -> bytes:
    return msgspec.json.encode(value)


def _ref_text(value: str | None) -> bytes:
    """The JSON text of a ref: clients count, so the same one hardly returns, and has nothing to escape."""
    if value is None:
        return b"null"
    if value.isalnum() and value.isascii():
        return b'"%b"' % value.encode()
    return msgspec.json.encode(value)


class Serializer(Protocol):
    """One version of the text protocol."""

    vsn: str
    binary: bool
    """Whether this version has binary broadcasts."""

    def decode(self, data: bytes) -> Message:
        """Read one text frame.

        Raises:
            ProtocolError: it is not a message of this version.
        """

    def decode_binary(self, data: bytes) -> BinaryBroadcast:
        """Read one binary frame.

        Raises:
            ProtocolError: it is not a broadcast, or this version has no binary frames.
        """

    def encode(self, join_ref: str | None, ref: str | None, topic: str, event: str, payload: bytes) -> bytes:
        """Write one message of the server; `payload` is JSON text of an object."""

    def encode_heartbeat_reply(self, ref: str | None) -> bytes:
        """Write the reply to a heartbeat: of most connections, all they ever hear."""

    def encode_push(
        self, join_ref: str | None, ref: str | None, topic: str, event: str, payload: bytes
    ) -> bytes:
        """Write one message of a client; `payload` is JSON text of an object."""


class _V1:
    vsn = "1.0.0"
    binary = False

    def decode(self, data: bytes) -> Message:
        return _message(_object, data)

    def decode_binary(self, data: bytes) -> BinaryBroadcast:
        del data
        raise ProtocolError("Binary frames need vsn 2.0.0.")

    def encode(self, join_ref: str | None, ref: str | None, topic: str, event: str, payload: bytes) -> bytes:
        del join_ref  # vsn 1 has no place for it
        return b'{"topic":%b,"event":%b,"payload":%b,"ref":%b}' % (
            json_text(topic),
            json_text(event),
            payload,
            _ref_text(ref),
        )

    def encode_heartbeat_reply(self, ref: str | None) -> bytes:
        return (
            b'{"topic":"phoenix","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":%b}'
            % _ref_text(ref)
        )

    def encode_push(
        self, join_ref: str | None, ref: str | None, topic: str, event: str, payload: bytes
    ) -> bytes:
        text = self.encode(None, ref, topic, event, payload)
        return b'%b,"join_ref":%b}' % (text[:-1], _ref_text(join_ref))


class _V2:
    vsn = "2.0.0"
    binary = True

    def decode(self, data: bytes) -> Message:
        return _message(_array, data)

    def decode_binary(self, data: bytes) -> BinaryBroadcast:
        return _user_broadcast_push(data)

    def encode(self, join_ref: str | None, ref: str | None, topic: str, event: str, payload: bytes) -> bytes:
        return b"[%b,%b,%b,%b,%b]" % (
            _ref_text(join_ref),
            _ref_text(ref),
            json_text(topic),
            json_text(event),
            payload,
        )

    def encode_heartbeat_reply(self, ref: str | None) -> bytes:
        return b'[null,%b,"phoenix","phx_reply",{"status":"ok","response":{}}]' % _ref_text(ref)

    encode_push = encode


V1: Final[Serializer] = _V1()
V2: Final[Serializer] = _V2()


def serializer(vsn: str | None) -> Serializer | None:
    """Choose by the `vsn` of the connection; absent means 1.0.0, and None an unknown version."""
    if vsn is None:
        return V1
    major, _, rest = vsn.partition(".")
    minor, _, patch = rest.partition(".")
    if minor == "0" and patch.isdecimal():
        return {"1": V1, "2": V2}.get(major)
    return None


def _message(decoder: msgspec.json.Decoder[_Array] | msgspec.json.Decoder[_Object], data: bytes) -> Message:
    try:
        read = decoder.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProtocolError("The text frame is not a message of this protocol version.") from error
    # The payload is a view that would keep the whole frame alive wherever it is stored.
    return Message(read.join_ref, read.ref, read.topic, read.event, bytes(read.payload))


def _user_broadcast_push(data: bytes) -> BinaryBroadcast:
    """Read one binary frame: a user broadcast push, the only kind stock clients send (section 2.3).

    Raises:
        ProtocolError: it is truncated, of another kind, or its parts are not what they claim to be.
    """
    if len(data) < 7 or data[0] != USER_BROADCAST_PUSH:
        raise ProtocolError("The binary frame is truncated, or not a broadcast push (kind 3).")
    start = 7
    parts: list[bytes] = []
    for length in data[1:6]:
        parts.append(data[start : start + length])
        start += length
    if start > len(data):
        raise ProtocolError("The binary frame is truncated.")
    is_json, payload = data[6] != 0, data[start:]
    try:
        join_ref, ref, topic, user_event, metadata = (part.decode() for part in parts)
        if metadata:
            msgspec.json.decode(metadata, type=dict[str, msgspec.Raw])
        if is_json:
            payload.isascii() or payload.decode()
            _raw.decode(payload)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise ProtocolError("A part of the binary frame is not the text or JSON it should be.") from error
    return BinaryBroadcast(join_ref or None, ref or None, topic, user_event, payload, is_json)


def decode_user_broadcast(data: bytes) -> UserBroadcast:
    """Read one binary frame: a user broadcast (kind 4), the only kind stock servers send (section 2.3).

    Whether payload and metadata are what they claim to be is left to whoever reads them.

    Raises:
        ProtocolError: it is truncated, of another kind, or topic or event are no text.
    """
    if len(data) < 5 or data[0] != USER_BROADCAST:
        raise ProtocolError("The binary frame is truncated, or not a broadcast (kind 4).")
    event_at = 5 + data[1]
    metadata_at = event_at + data[2]
    payload_at = metadata_at + data[3]
    if payload_at > len(data):
        raise ProtocolError("The binary frame is truncated.")
    try:
        topic, user_event = data[5:event_at].decode(), data[event_at:metadata_at].decode()
    except UnicodeDecodeError as error:
        raise ProtocolError("A part of the binary frame is not the text it should be.") from error
    return UserBroadcast(topic, user_event, data[payload_at:], data[4] != 0, data[metadata_at:payload_at])


def encode_user_broadcast(
    topic: str, user_event: str, payload: bytes, *, is_json: bool, metadata: bytes = b""
) -> bytes:
    """Write a user broadcast (kind 4).

    Raises:
        ProtocolError: topic, event or metadata is longer than the 255 bytes a header can count.
    """
    header = topic.encode(), user_event.encode(), metadata
    return _write_binary(USER_BROADCAST, header, payload, is_json=is_json)


def encode_user_broadcast_push(
    join_ref: str, ref: str, topic: str, user_event: str, payload: bytes, *, is_json: bool
) -> bytes:
    """Write a user broadcast push (kind 3).

    Raises:
        ProtocolError: topic or event is longer than the 255 bytes a header can count.
    """
    header = join_ref.encode(), ref.encode(), topic.encode(), user_event.encode(), b""
    return _write_binary(USER_BROADCAST_PUSH, header, payload, is_json=is_json)


def _write_binary(kind: int, header: tuple[bytes, ...], payload: bytes, *, is_json: bool) -> bytes:
    lengths = [len(part) for part in header]
    if max(lengths) > MAX_HEADER:
        raise ProtocolError("A binary broadcast's topic, event and metadata are limited to 255 bytes each.")
    return b"".join((bytes((kind, *lengths, is_json)), *header, payload))
