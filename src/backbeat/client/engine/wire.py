"""What a client reads and writes: server messages in, pushes out, in one protocol version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from backbeat.errors import ConfigurationError, ProtocolError
from backbeat.protocol.codec import decode_user_broadcast, encode_user_broadcast_push, json_text, serializer
from backbeat.protocol.messages import Event

if TYPE_CHECKING:
    from backbeat.protocol.messages import Message, UserBroadcast

__all__ = ["Wire", "json_object", "json_value"]


class Wire:
    """One protocol version, from a client's side.

    Args:
        vsn: `1.0.0` or `2.0.0`.
        max_frame_bytes: the largest frame.
    """

    def __init__(self, vsn: str, *, max_frame_bytes: int) -> None:
        chosen = serializer(vsn)
        if chosen is None:
            raise ConfigurationError(f"Unsupported serializer version: {vsn}")
        self._serializer = chosen
        self._max = max_frame_bytes

    def read(self, data: str | bytes) -> Message | UserBroadcast:
        """Read one frame.

        Raises:
            ProtocolError: it is too large, or no message of this version.
        """
        if len(data) > self._max:
            raise ProtocolError(f"The frame is larger than {self._max} bytes.")
        if isinstance(data, str):
            return self._serializer.decode(data.encode(errors="surrogatepass"))
        if not self._serializer.binary:
            raise ProtocolError("Binary frames need vsn 2.0.0.")
        return decode_user_broadcast(data)

    def push(self, join_ref: str | None, ref: str | None, topic: str, event: str, payload: Any) -> str:
        """Write a push whose payload is made of plain values."""
        return self._text(join_ref, ref, topic, event, msgspec.json.encode(payload))

    def broadcast(
        self, join_ref: str, ref: str, topic: str, event: str, payload: bytes, *, is_json: bool
    ) -> str | bytes:
        """Write a broadcast: binary where the version has that, as stock clients do.

        Raises:
            ProtocolError: the event is too long, or the version cannot carry bytes.
        """
        if self._serializer.binary:
            return encode_user_broadcast_push(join_ref, ref, topic, event, payload, is_json=is_json)
        if not is_json:
            raise ProtocolError("Bytes need vsn 2.0.0; send an object, or choose that version.")
        text = b'{"type":"broadcast","event":%b,"payload":%b}' % (json_text(event), payload)
        return self._text(join_ref, ref, topic, Event.BROADCAST, text)

    def _text(self, join_ref: str | None, ref: str | None, topic: str, event: str, payload: bytes) -> str:
        return self._serializer.encode_push(join_ref, ref, topic, event, payload).decode()


def json_value(text: bytes) -> Any:
    """Read a payload.

    Raises:
        ProtocolError: it is not JSON, or nested too deeply.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProtocolError("The payload is not JSON.") from error


def json_object(text: bytes) -> dict[str, Any]:
    """Read a payload that has to be an object.

    Raises:
        ProtocolError: it is something else.
    """
    value = json_value(text)
    if not isinstance(value, dict):
        raise ProtocolError("The payload is not an object.")
    return value
