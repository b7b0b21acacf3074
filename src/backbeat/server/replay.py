"""Stored messages on their way to somebody who has just joined (server specification, section 6.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from backbeat.errors import ProtocolError
from backbeat.protocol.codec import encode_user_broadcast, json_text
from backbeat.protocol.messages import Event
from backbeat.websocket.frames import binary_frame, text_frame

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from backbeat.postgres.messages import StoredMessage
    from backbeat.protocol.codec import Serializer
    from backbeat.server.delivery import Delivery, Member
    from backbeat.server.room import Room

__all__ = ["Replayed"]

log = structlog.get_logger("backbeat.replay")

IN_FLIGHT: Final = 60.0
"""Seconds after a replay in which the same messages may still arrive from the stream."""


class Replayed:
    """Stored messages for a new member, each once: read, passed meanwhile, or still on its way.

    Args:
        loop: tells when copies can no longer come.
        room: where the member has just entered.
        member: who.
    """

    __slots__ = ("_loop", "_member", "_room", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, room: Room, member: Member) -> None:
        self._loop = loop
        self._room = room
        self._member = member
        self._timer: asyncio.TimerHandle | None = None

    def begin(
        self, messages: Sequence[StoredMessage], passing: Sequence[Delivery], join_ref: str | None
    ) -> bytes:
        """Write the frames; from now on copies of the messages are left out for the member, for a while.

        Args:
            messages: what was read for the member, oldest first.
            passing: stored messages that passed meanwhile.
            join_ref: the join it belongs to.
        """
        serializer, topic = self._member.serializer, self._room.topic
        ids = frozenset(message.id for message in messages)
        frames = [_frame(message, serializer, topic, join_ref) for message in messages]
        frames += [each.frame(serializer, topic) for each in passing if each.stored_as not in ids]
        if ids:
            self._room.already_heard(self._member, ids)
            self._timer = self._loop.call_later(IN_FLIGHT, self.end)
        return b"".join(frames)

    def end(self) -> None:
        """Expect no more copies: they cannot come any more, or the member has left the room."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._room.already_heard(self._member, frozenset())


def _frame(message: StoredMessage, serializer: Serializer, topic: str, join_ref: str | None) -> bytes:
    """Write a stored message as a replay: marked as one, and for one channel.

    Args:
        message: the stored message.
        serializer: how the client writes.
        topic: the topic on the wire.
        join_ref: the join it belongs to.

    Returns:
        The frame; empty for a message that cannot be written for this client.
    """
    try:
        return _written(message, serializer, topic, join_ref)
    except ProtocolError as error:
        log.warning("stored message not replayed", topic=topic, id=message.id, reason=error.message)
        return b""


def _written(message: StoredMessage, serializer: Serializer, topic: str, join_ref: str | None) -> bytes:
    meta = {"replayed": True, "id": message.id}
    if message.payload is None:
        if not serializer.binary:
            return b""
        metadata = msgspec.json.encode(meta)
        data = encode_user_broadcast(
            topic, message.event, message.binary or b"", is_json=False, metadata=metadata
        )
        return binary_frame(data)
    payload = b'{"payload":%b,"event":%b,"type":"broadcast","meta":%b}' % (
        message.payload,
        json_text(message.event),
        msgspec.json.encode(meta),
    )
    return text_frame(serializer.encode(join_ref, None, topic, Event.BROADCAST, payload))
