"""What a channel sends: broadcasts, and its own presence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backbeat.client.engine.classify import reply_refusal
from backbeat.client.engine.pushes import Push, Pushes
from backbeat.client.engine.tracking import Tracking
from backbeat.errors import NoReply, NotSubscribed
from backbeat.protocol.messages import TOPIC_PREFIX, Event

if TYPE_CHECKING:
    from backbeat.client.config import ChannelConfig
    from backbeat.client.engine.answers import Reply
    from backbeat.client.engine.inputs import Broadcast, Track
    from backbeat.client.engine.link import Link
    from backbeat.client.engine.turn import Turn
    from backbeat.errors import BackbeatError

__all__ = ["Sender"]


class Sender:
    """Sends for one channel, as soon as it is joined.

    Args:
        turn: the engine's current turn.
        link: the connection.
        channel: the number of the channel.
        topic: its topic, without the prefix.
    """

    def __init__(self, turn: Turn, link: Link, channel: int, topic: str) -> None:
        self._turn = turn
        self._link = link
        self._channel = channel
        self._topic = topic
        self._wire_topic = TOPIC_PREFIX + topic
        self._join_ref: str | None = None
        """Names the join, once it was accepted."""
        self._pushes = Pushes(turn, channel, topic)
        self._tracking = Tracking(turn, channel)

    def __len__(self) -> int:
        return len(self._pushes)

    def broadcast(self, command: Broadcast, config: ChannelConfig) -> None:
        """Send a broadcast; settle the ticket when it is sent, or answered if the channel wants that."""
        hint = ""
        if config.private:
            hint = (
                "Supabase's server is silent when no INSERT policy on realtime.messages is true for this "
                "topic and role."
            )
        wants_reply = config.ack and command.wait
        push = Push(
            f"broadcast {command.event!r}",
            [command.ticket],
            self._turn.now.steady + command.timeout,
            lambda: self._write_broadcast(command, wants_reply=wants_reply),
            wants_reply=wants_reply,
            hint=hint,
        )
        if self._join_ref is not None:
            self._pushes.send(push)
        elif command.hold:
            self._pushes.hold(push)
        else:
            error = NotSubscribed(f"The channel {self._topic!r} is not joined yet.", topic=self._topic)
            self._pushes.refuse(push, error)

    def _write_broadcast(self, command: Broadcast, *, wants_reply: bool) -> str:
        assert self._join_ref is not None
        ref = self._link.next_ref()
        frame = self._link.wire.broadcast(
            self._join_ref, ref, self._wire_topic, command.event, command.payload, is_json=command.is_json
        )
        receipt = None if wants_reply else (self._channel, ref)
        self._link.send(lambda: frame, size=len(frame), receipt=receipt)
        return ref

    def track(self, command: Track) -> None:
        """Track a presence, or untrack it; settle the ticket when the server answered."""
        self._tracking.call(command.payload, command.ticket, command.timeout)
        self._track_due()

    def _track_due(self) -> None:
        if self._join_ref is None:
            return
        call = self._tracking.due()
        if call is None:
            return
        payload: dict[str, Any] = {"type": "presence", "event": "untrack"}
        if call.payload is not None:
            payload |= {"event": "track", "payload": call.payload}
        latest = self._turn.now.steady + self._turn.settings.push_timeout
        self._pushes.send(
            Push(
                payload["event"],
                list(call.waiting),
                min(call.waiting.values(), default=latest),
                lambda: self._link.push(self._join_ref, self._wire_topic, Event.PRESENCE, payload),
                wants_reply=True,
            )
        )

    def joined(self, join_ref: str) -> None:
        """The channel is joined: track again, and send what waited."""
        self._join_ref = join_ref
        self._tracking.rejoined()
        self._track_due()
        self._pushes.release()

    def interrupted(self, error: BackbeatError) -> None:
        """The channel is not joined any more: what was sent may have arrived, or not."""
        self._join_ref = None
        self._pushes.lose_sent(error)

    def drop(self, error: BackbeatError) -> None:
        """Forget everything that was to be sent, and what was tracked."""
        self._join_ref = None
        self._pushes.drop(error)
        for ticket in self._tracking.forget():
            self._turn.fail(ticket, error)

    def replied(self, ref: str, reply: Reply, *, context: str) -> None:
        """Take the reply to a push.

        Args:
            ref: which push.
            reply: the reply.
            context: which token the server went by, for the hint of a refusal.
        """
        push = self._pushes.replied(ref)
        if push is None:
            return  # It came late, or twice.
        if reply.ok:
            self._pushes.settle(push)
        else:
            self._pushes.refuse(push, reply_refusal(reply.reason, topic=self._topic, context=context))

    def written(self, ref: str) -> None:
        """A push that wants no reply is on the wire."""
        self._pushes.written(ref)

    def fired(self, name: str) -> None:
        """Handle one of this sender's timers."""
        if name == "push":
            self._pushes.expire()
        elif name == "presence":
            self._track_due()
        elif name == "track":
            self._track_late()

    def _track_late(self) -> None:
        why = "the channel was joined" if self._join_ref is None else "it was its turn"
        error = NoReply(
            f"The time was over before {why}.",
            hint="Servers allow few presence calls; it is sent as soon as it may be.",
            topic=self._topic,
        )
        for ticket in self._tracking.late():
            self._turn.fail(ticket, error)
