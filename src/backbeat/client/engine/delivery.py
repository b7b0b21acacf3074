"""What a joined channel gives its user: broadcasts, row changes, presence, and what the server says."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from backbeat.client import events
from backbeat.client.engine.changes import hint_for, read_change
from backbeat.client.engine.continuity import Continuity
from backbeat.client.engine.presence import PresenceView
from backbeat.client.engine.wire import json_object, json_value
from backbeat.errors import ProtocolError
from backbeat.protocol.messages import Event, Message, UserBroadcast

if TYPE_CHECKING:
    from backbeat.client.config import ChannelConfig
    from backbeat.client.engine.answers import System
    from backbeat.client.engine.turn import Turn
    from backbeat.errors import Refusal

__all__ = ["Delivery"]


class Delivery:
    """Turns messages of one channel into events.

    Args:
        turn: the engine's current turn.
        channel: the number of the channel.
        topic: its topic, without the prefix.

    Attributes:
        presence: who is present.
        continuity: what was missed.
    """

    def __init__(self, turn: Turn, channel: int, topic: str) -> None:
        self._turn = turn
        self._channel = channel
        self._topic = topic
        self._numbers: dict[int, tuple[int, ...]] = {}
        self._incomplete: set[tuple[str, str, tuple[str, ...]]] = set()
        self.presence = PresenceView(topic)
        self.continuity = Continuity(turn, channel, topic)

    def begin(self, numbers: dict[int, tuple[int, ...]]) -> None:
        """The channel is joined.

        Args:
            numbers: the indexes of its change bindings, by the server's numbers.
        """
        self._numbers = numbers
        self._incomplete.clear()
        self.presence.expect_state()

    def forget(self) -> None:
        """Know nothing any more of what this identity was told."""
        self._numbers = {}
        self.presence.forget()
        self.continuity.forget()

    def user_broadcast(self, message: UserBroadcast) -> None:
        """Turn a binary broadcast into an event.

        Raises:
            ProtocolError: it makes no sense.
        """
        payload = json_value(message.payload) if message.is_json else message.payload
        meta = json_object(message.metadata) if message.metadata else {}
        self._broadcast(message.user_event, payload, meta)

    def receive(self, message: Message, config: ChannelConfig) -> None:
        """Turn a message into events.

        Raises:
            ProtocolError: it makes no sense.
        """
        now = self._turn.now.wall
        if message.event == Event.BROADCAST:
            self._text_broadcast(json_object(message.payload))
        elif message.event == Event.POSTGRES_CHANGES:
            self._change(message.payload, config)
        elif message.event == Event.PRESENCE_STATE:
            self._emit_all(self.presence.take_state(message.payload, now))
        elif message.event == Event.PRESENCE_DIFF and config.presence:
            self._emit_all(self.presence.take_diff(message.payload, now))

    def _emit_all(self, found: list[events.PresenceEvent]) -> None:
        for event in found:
            self._turn.emit(event, channel=self._channel)

    def _text_broadcast(self, message: dict[str, Any]) -> None:
        event, meta = message.get("event"), message.get("meta")
        if not isinstance(event, str):
            raise ProtocolError("A broadcast names its event.")
        self._broadcast(event, message.get("payload"), meta if isinstance(meta, dict) else {})

    def _broadcast(self, event: str, payload: object, meta: dict[str, Any]) -> None:
        if not meta or self.continuity.is_new(meta):
            self._turn.emit(
                events.BroadcastEvent(
                    at=self._turn.now.wall, topic=self._topic, event=event, payload=payload, meta=meta
                ),
                channel=self._channel,
            )

    def _change(self, payload: bytes, config: ChannelConfig) -> None:
        numbers, change = read_change(payload, topic=self._topic, at=self._turn.now.wall)
        matched = {index for number in numbers for index in self._numbers.get(number, ())}
        bindings = tuple(
            sorted(index for index in matched if config.changes[index].event in ("*", change.type))
        )
        if bindings:
            if change.errors:
                self._say_incomplete(change)
            self._turn.emit(change, channel=self._channel, bindings=bindings)

    def _say_incomplete(self, change: events.ChangeEvent[Any]) -> None:
        which = change.schema, change.table, change.errors
        if which in self._incomplete:
            return
        self._incomplete.add(which)
        self._turn.emit(
            events.ChangeIncomplete(
                at=change.at,
                topic=self._topic,
                schema=change.schema,
                table=change.table,
                errors=change.errors,
                hint=hint_for(change.errors),
            ),
            channel=self._channel,
        )

    def system(self, system: System, refusal: Refusal | None) -> None:
        """Pass on what the server says, and the gap it tells of."""
        now = self._turn.now.wall
        self._turn.emit(
            events.SystemEvent(
                at=now,
                topic=self._topic,
                extension=system.extension,
                status=system.status,
                message=system.message,
                error=refusal,
            ),
            channel=self._channel,
        )
        since, until = _seconds(system.gap_since), _seconds(system.gap_until)
        if since is not None and until is not None:
            self.continuity.told_of_gap(since, until)


def _seconds(text: str | None) -> float | None:
    """A time the server wrote, in seconds since the epoch."""
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
