"""What is on its way to the members of a room: encoded once for each serializer, not once for each member."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from enum import IntFlag
from typing import TYPE_CHECKING, Protocol

from backbeat.errors import ProtocolError
from backbeat.protocol.codec import V2, encode_user_broadcast, json_text
from backbeat.protocol.messages import Event
from backbeat.websocket.frames import binary_frame, text_frame

if TYPE_CHECKING:
    from backbeat.protocol.codec import Serializer

__all__ = ["Delivery", "Hears", "Member", "TextDelivery", "UserBroadcast"]


class Hears(IntFlag):
    """What a member is allowed to receive in a room; also, what kind a delivery is."""

    NOTHING = 0
    BROADCAST = 1
    PRESENCE = 2


class Member(Hashable, Protocol):
    """A joined channel, as far as a room is concerned."""

    serializer: Serializer
    hears: Hears
    write: Callable[[bytes], None]
    """Writes whole frames to the socket at once; never blocks, never raises."""


class Delivery:
    """Something on its way to the members of a room; subclasses know how it is written.

    Args:
        audience: which members it is for.
        sender: the member that must not receive it, if any.
        stored_as: the id of the stored message it comes from, if it comes from one.
    """

    __slots__ = ("_frames", "audience", "sender", "stored_as")

    def __init__(self, audience: Hears, sender: Member | None = None, stored_as: str | None = None) -> None:
        self.audience = int(audience)
        self.sender = sender
        self.stored_as = stored_as
        self._frames: dict[str, bytes] = {}

    def frame(self, serializer: Serializer, topic: str) -> bytes:
        """The WebSocket frame for one serializer, encoded at most once; empty when it has none."""
        frame = self._frames.get(serializer.vsn)
        if frame is None:
            frame = self._frames[serializer.vsn] = self._encode(serializer, topic)
        return frame

    def _encode(self, serializer: Serializer, topic: str) -> bytes:
        raise NotImplementedError


class TextDelivery(Delivery):
    """An event with a JSON payload: a text broadcast or a presence diff.

    Args:
        event: the event on the wire.
        payload: JSON text of an object.
        audience: which members it is for.
        sender: the member that must not receive it, if any.
    """

    __slots__ = ("_event", "_payload")

    def __init__(
        self, event: str, payload: bytes, *, audience: Hears = Hears.BROADCAST, sender: Member | None = None
    ) -> None:
        super().__init__(audience, sender)
        self._event = event
        self._payload = payload

    def _encode(self, serializer: Serializer, topic: str) -> bytes:
        return text_frame(serializer.encode(None, None, topic, self._event, self._payload))


class UserBroadcast(Delivery):
    """A broadcast whose payload is opaque: binary to vsn 2; to vsn 1 as text, if it is JSON (section 2.4).

    Args:
        user_event: the event the application chose.
        payload: JSON text, or any bytes.
        is_json: which of the two.
        metadata: JSON text of an object, or nothing.
        sender: the member that must not receive it, if any.
        stored_as: the id of the stored message it comes from, if it comes from one.

    Raises:
        ProtocolError: event or metadata does not fit a binary header. Raised here, at the sender, and not
            while others are being served.
    """

    __slots__ = ("_is_json", "_metadata", "_payload", "_user_event")

    def __init__(
        self,
        user_event: str,
        payload: bytes,
        *,
        is_json: bool,
        metadata: bytes = b"",
        sender: Member | None = None,
        stored_as: str | None = None,
    ) -> None:
        super().__init__(Hears.BROADCAST, sender, stored_as)
        encode_user_broadcast("", user_event, b"", is_json=is_json, metadata=metadata)
        self._user_event = user_event
        self._payload = payload
        self._is_json = is_json
        self._metadata = metadata

    def _encode(self, serializer: Serializer, topic: str) -> bytes:
        try:
            if serializer.binary:
                frame = encode_user_broadcast(
                    topic, self._user_event, self._payload, is_json=self._is_json, metadata=self._metadata
                )
                return binary_frame(frame)
        except ProtocolError:
            # A topic too long for a binary header: whoever joined it reads the same broadcast as text.
            serializer = V2
        if not self._is_json:
            return b""
        meta = b',"meta":' + self._metadata if self._metadata else b""
        payload = b'{"event":%b,"payload":%b,"type":"broadcast"%b}' % (
            json_text(self._user_event),
            self._payload,
            meta,
        )
        return text_frame(serializer.encode(None, None, topic, Event.BROADCAST, payload))
