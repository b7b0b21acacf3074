"""What one channel says to its client: replies, system messages, closings; in the order things happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from backbeat.protocol.messages import TOPIC_PREFIX, Event
from backbeat.protocol.reasons import explained
from backbeat.websocket.frames import text_frame

if TYPE_CHECKING:
    from backbeat.errors import Refusal
    from backbeat.protocol.codec import Serializer
    from backbeat.server.delivery import Member
    from backbeat.server.room import Room

__all__ = ["OK", "Line", "Outbox", "error_response"]

OK: Final = b'{"status":"ok","response":{}}'


class Line(Protocol):
    """A connection, as far as an outbox is concerned."""

    serializer: Serializer

    def send(self, data: bytes) -> None:
        """Write whole frames."""


class Outbox:
    """Writes the messages of one channel.

    Args:
        line: the connection.
        topic: the topic, prefix included.
        join_ref: names the join that every message belongs to.
        explain: whether refusals carry hints.
    """

    __slots__ = ("_explain", "_line", "_member", "_room", "join_ref", "topic")

    def __init__(self, line: Line, topic: str, join_ref: str | None, *, explain: bool) -> None:
        self._line = line
        self._explain = explain
        self._room: Room | None = None
        self.topic = topic
        self.join_ref = join_ref

    @property
    def serializer(self) -> Serializer:
        """How this client writes."""
        return self._line.serializer

    def enter(self, room: Room, member: Member) -> None:
        """From now on, what is on its way from the room goes out before anything else of this channel.

        Args:
            room: where the channel is.
            member: who it is there.
        """
        self._room = room
        self._member = member
        self.topic = room.topic

    def send(
        self, event: str, payload: bytes, *, ref: str | None = None, join_ref: str | None = None
    ) -> None:
        """Write one message.

        Args:
            event: the event.
            payload: JSON text of an object.
            ref: what it answers.
            join_ref: the join it belongs to, if not this one.
        """
        text = self._line.serializer.encode(join_ref or self.join_ref, ref, self.topic, event, payload)
        self.frames(text_frame(text))

    def frames(self, frames: bytes) -> None:
        """Write whole frames."""
        if self._room is not None and self._room.waiting:
            self._room.catch_up(self._member)
        self._line.send(frames)

    def reply_ok(self, ref: str | None) -> None:
        """Say yes."""
        self.send(Event.REPLY, OK, ref=ref)

    def reply_error(self, refusal: Refusal, ref: str | None, *, text: str | None = None) -> None:
        """Say no, and why.

        Args:
            refusal: why.
            ref: what it answers.
            text: the reason on the wire, if it is not the refusal's message.
        """
        response = error_response(refusal, text or refusal.message, explain=self._explain)
        self.send(Event.REPLY, b'{"status":"error","response":%b}' % response, ref=ref)

    def system(self, message: str, *, extension: str = "system", status: str = "ok") -> None:
        """Say something nobody asked for.

        Args:
            message: the text on the wire.
            extension: what it is about.
            status: `ok` or `error`.
        """
        payload = {
            "channel": self.topic.removeprefix(TOPIC_PREFIX),
            "extension": extension,
            "message": message,
            "status": status,
        }
        self.send(Event.SYSTEM, msgspec.json.encode(payload))

    def system_error(self, refusal: Refusal, *, extension: str = "system") -> None:
        """Say that something does not work, and why.

        Args:
            refusal: why.
            extension: what it is about.
        """
        message = explained(refusal.message, refusal, explain=self._explain)
        self.system(message, extension=extension, status="error")

    def close(self) -> None:
        """Say that the channel is over; stock clients stay away until they are told to join again."""
        self.send(Event.CLOSE, b"{}", ref=self.join_ref)


def error_response(refusal: Refusal, text: str, *, explain: bool) -> bytes:
    """Write the `response` of an error reply: nothing but the reason, for stock clients show all they find.

    Args:
        refusal: why.
        text: the reason on the wire, which clients match on.
        explain: whether to add what explains it.
    """
    return msgspec.json.encode({"reason": explained(text, refusal, explain=explain)})
