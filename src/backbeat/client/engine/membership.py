"""One channel of a client: from `subscribe` to `unsubscribe`, over every interruption in between.

What a join carries is put together when its frame is written, from the newest token; a ledger keeps which
token the server was told last. While a channel leaves, and whenever its identity goes, it delivers nothing.

The rules are those of the client specification: 1.7 and 1.11 to 1.13 for the states, 2.4 and 2.5 for tokens.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from backbeat.client import events
from backbeat.client.engine.answers import Reply, read_reply, read_system
from backbeat.client.engine.bindings import match_bindings
from backbeat.client.engine.classify import join_refusal, system_refusal
from backbeat.client.engine.delivery import Delivery
from backbeat.client.engine.effects import Timer
from backbeat.client.engine.ledger import Ledger, Verdict, same_token
from backbeat.client.engine.recovery import Recovery, Remedy
from backbeat.client.engine.sender import Sender
from backbeat.client.engine.subscribers import Subscribers
from backbeat.client.settings import SHORTEST_JOIN
from backbeat.errors import (
    BackbeatError,
    BindingMismatch,
    ConnectionLost,
    Denied,
    NoReply,
    NotSubscribed,
    PushDropped,
    Refusal,
    Retry,
    TokenRefused,
    TokenUnavailable,
)
from backbeat.protocol.messages import TOPIC_PREFIX, Event, Message, UserBroadcast
from backbeat.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backbeat.client.config import ChannelConfig
    from backbeat.client.engine.inputs import Broadcast, Subscribe, Track
    from backbeat.client.engine.keeper import TokenKeeper
    from backbeat.client.engine.link import Link
    from backbeat.client.engine.roster import Roster
    from backbeat.client.engine.turn import Turn

__all__ = ["MOVES", "ChannelState", "Membership"]

FAREWELL: Final = 2.0
"""Seconds within which an error message explains the closing that follows it."""


class ChannelState(Enum):
    """Where in its life a channel is."""

    CLOSED = "closed"
    JOINING = "joining"
    JOINED = "joined"
    ERRORED = "errored"
    """Not joined; it will be, as soon as the connection, the token or a wait allows it."""

    DENIED = "denied"
    """Refused, until the token or the configuration changes."""

    LEAVING = "leaving"


MOVES: Final = {
    ChannelState.CLOSED: {ChannelState.JOINING},
    ChannelState.JOINING: {
        ChannelState.JOINED,
        ChannelState.ERRORED,
        ChannelState.DENIED,
        ChannelState.LEAVING,
        ChannelState.CLOSED,
    },
    ChannelState.JOINED: {
        ChannelState.ERRORED,
        ChannelState.DENIED,
        ChannelState.LEAVING,
        ChannelState.CLOSED,
    },
    ChannelState.ERRORED: {ChannelState.JOINING, ChannelState.DENIED, ChannelState.CLOSED},
    ChannelState.DENIED: {ChannelState.JOINING, ChannelState.CLOSED},
    ChannelState.LEAVING: {ChannelState.CLOSED, ChannelState.ERRORED},
}
"""The legal moves."""


class Membership:
    """A channel, as the engine sees it.

    Args:
        number: the channel's number.
        topic: its topic, without the prefix.
        config: what it asks for.
        turn: the engine's current turn.
        link: the connection.
        keeper: the tokens.
        roster: the other channels.

    Attributes:
        state: where in its life it is.
        wanted: whether the user wants it joined.
        last_error: why it is not joined, or was not, the last time.
        streaming: whether row changes arrive, or none were asked for.
        joins: how many joins were sent.
    """

    def __init__(
        self,
        number: int,
        topic: str,
        config: ChannelConfig,
        *,
        turn: Turn,
        link: Link,
        keeper: TokenKeeper,
        roster: Roster,
    ) -> None:
        self.number = number
        self.topic = topic
        self.config = config
        self.state = ChannelState.CLOSED
        self.wanted = False
        self.last_error: BackbeatError | None = None
        self.streaming = False
        self.joins = 0
        self._wire_topic = TOPIC_PREFIX + topic
        self._turn = turn
        self._link = link
        self._keeper = keeper
        self._roster = roster
        self._join_ref: str | None = None
        """Names the join that is under way, or was accepted."""
        self._leave_ref: str | None = None
        self._barrier = 0
        """The question to the token source that the next join waits for."""
        self._away_since: float | None = None
        self._farewell: tuple[Refusal, float] | None = None
        self._leavers: list[int] = []
        self._ledger = Ledger()
        self._recovery = Recovery(turn, keeper, self._ledger)
        self._subscribers = Subscribers(turn, number)
        self._sender = Sender(turn, link, number, topic)
        self._delivery = Delivery(turn, number, topic)

    def __repr__(self) -> str:
        return f"<Membership {self.number} {self.topic!r} {self.state.value}>"

    @property
    def presences(self) -> Mapping[str, tuple[Mapping[str, Any], ...]]:
        """Who is present, as far as is known."""
        return self._delivery.presence.public()

    @property
    def ledger(self) -> Ledger:
        """Which token the server was told."""
        return self._ledger

    @property
    def pending(self) -> int:
        """How many pushes wait for something."""
        return len(self._sender)

    # Joining ------------------------------------------------------------------------------------------------

    def subscribe(self, command: Subscribe) -> None:
        """Join, unless that is done or under way; settle the ticket when it is done."""
        self._subscribers.add(command.ticket, command.ready, command.timeout)
        self.wanted = True
        if self.state is ChannelState.JOINED:
            self._subscribers.settle(streaming=self.streaming)
            return
        if self.state in (ChannelState.CLOSED, ChannelState.DENIED):
            self.config = command.config
            self._recovery.begin()
            self._begin()
        elif self.state is ChannelState.LEAVING:
            self.config = command.config
        self._link.want()

    def _begin(self, *, asked: bool = False) -> None:
        """Join as soon as nothing stands in the way: the connection, the token, the topic, the pace.

        Args:
            asked: whether the token source was asked for this join already.
        """
        self._turn.stop(Timer("rejoin", self.number))
        if not asked:
            self._barrier = self._keeper.ask()
        self._move(ChannelState.JOINING)
        self._roster.await_turn(self)

    def proceed(self) -> bool:
        """Send the join if nothing stands in the way.

        Returns:
            Whether this channel need not be asked again until something changes for it.
        """
        if self.state is not ChannelState.JOINING or self._join_ref is not None:
            return True
        if not self._link.is_open or self._keeper.decided < self._barrier:
            return False
        if not self._may_join_now():
            return True
        if not self._roster.may_join(self):
            return False
        self._send_join()
        return True

    def _may_join_now(self) -> bool:
        """Whether the token there is will do; if not, wait for another.

        A join with the API key alone would be refused, or hear nothing of what is somebody's.
        """
        settings = self._turn.settings
        expected = self._keeper.expects_user and (self.config.private or not settings.anon_fallback)
        required = settings.require_user_token and self.config.guarded
        if self._keeper.usable is not None or not (expected or required):
            return True
        error = self._keeper.lack(self.topic)
        self._interrupt(error, retry_in=None)
        if not self._keeper.asks:
            # Whoever could give one may be waiting for this very subscription.
            self._subscribers.fail(error)
        return False

    def _send_join(self) -> None:
        ref = self._link.next_ref()
        self._join_ref = ref
        self._farewell = None
        self._ledger.join_queued()
        self.joins += 1
        self._link.send(lambda: self._compose_join(ref))
        self._turn.start(Timer("join", self.number), self._turn.settings.join_timeout)

    def _compose_join(self, ref: str) -> str | None:
        if self._join_ref != ref:
            return None
        token = self._keeper.usable
        self._ledger.wrote(token)
        replay = self._delivery.continuity.replay(self.config, skew=self._link.skew)
        payload: dict[str, Any] = {"config": self.config.wire(replay), "version": f"backbeat-py/{VERSION}"}
        if token is not None:
            payload["access_token"] = token.value
        return self._link.wire.push(ref, ref, self._wire_topic, Event.JOIN, payload)

    def _join_replied(self, reply: Reply) -> None:
        self._turn.stop(Timer("join", self.number))
        if not reply.ok:
            self._refused(join_refusal(reply.reason, topic=self.topic, context=self._asked_with()))
            return
        response = reply.response if isinstance(reply.response, dict) else {}
        try:
            numbers = match_bindings(self.config.changes, response, topic=self.topic)
        except BindingMismatch as error:
            self._send_leave()  # it is joined, but not as it was meant
            self._refused(error)
            return
        self._joined(numbers)

    def _joined(self, numbers: dict[int, tuple[int, ...]]) -> None:
        assert self._join_ref is not None
        self._move(ChannelState.JOINED)
        self._recovery.joined()
        self.last_error = None
        self.streaming = not self.config.changes
        self._delivery.begin(numbers)
        self._tell_joined()
        self._subscribers.settle(streaming=self.streaming)
        self._sender.joined(self._join_ref)
        self.reconcile()

    def _tell_joined(self) -> None:
        as_user = self._ledger.told is not None
        now = self._turn.now.wall
        if not as_user and self.config.changes:
            tables = tuple(f"{each.schema}.{each.table}" for each in self.config.changes)
            self._tell(events.JoinedAsAnon(at=now, topic=self.topic, tables=tables))
        since, self._away_since = self._away_since, None
        if since is None:
            self._tell(events.Subscribed(at=now, topic=self.topic, as_user=as_user))
        else:
            self._tell(events.Resumed(at=now, topic=self.topic, downtime=now - since, as_user=as_user))
        self._delivery.continuity.rejoined(self.config)

    # Being refused ------------------------------------------------------------------------------------------

    def _refused(self, error: BackbeatError) -> None:
        """The server said no, to the join or later: try again in the way that may help, or not at all."""
        continuity = self._delivery.continuity
        remedy = self._recovery.remedy(error, replaying=continuity.asked)
        if remedy is Remedy.NOTHING:
            self._deny(error)
        elif remedy is Remedy.LATER:
            self._retry_later(error)
        else:
            self._interrupt(error, retry_in=0.0)
            if remedy is Remedy.REFRESH:
                self._keeper.ask(anew=True, refused=True)
            else:
                continuity.replay_refused()
            self._begin()

    def _retry_later(self, error: BackbeatError) -> None:
        delay = self._recovery.wait(error)
        self._interrupt(error, retry_in=delay)
        self._turn.start(Timer("rejoin", self.number), delay)
        # Whoever cannot wait that long is told now.
        self._subscribers.fail(error, within=delay)

    def _deny(self, error: BackbeatError) -> None:
        self._note_absence(self._turn.now.wall)
        self._end_join()
        self.last_error = error
        self._move(ChannelState.DENIED)
        self._tell(events.ChannelDenied(at=self._turn.now.wall, topic=self.topic, error=error))
        self._subscribers.fail(error)
        self._sender.drop(error)

    def _interrupt(self, error: BackbeatError, *, retry_in: float | None) -> None:
        self._note_absence(self._turn.now.wall)
        self._end_join()
        self.last_error = error
        self._move(ChannelState.ERRORED)
        self._tell(
            events.Interrupted(at=self._turn.now.wall, topic=self.topic, error=error, retry_in=retry_in)
        )

    def _note_absence(self, since: float) -> None:
        if self.state is ChannelState.JOINED and self._away_since is None:
            self._away_since = since
            self._delivery.continuity.interrupted(since)

    def _end_join(self) -> None:
        """The join that was under way, or had been accepted, counts no more."""
        self._turn.stop(Timer("join", self.number))
        self._join_ref = None
        self.streaming = False
        self._sender.interrupted(ConnectionLost("The channel was interrupted.", topic=self.topic))

    def _asked_with(self) -> str:
        return self._ledger.describe(self._turn.now.wall)

    # Leaving ------------------------------------------------------------------------------------------------

    def unsubscribe(self, ticket: int) -> None:
        """Leave; settle the ticket with whether the server acknowledged that."""
        self._leavers.append(ticket)
        self.wanted = False
        self._away_since = None
        dropped = PushDropped("The channel was left.", code="ChannelLeft", topic=self.topic)
        self._subscribers.close(dropped)
        self._forget_identity(dropped)
        if self.state is not ChannelState.LEAVING and not self._leave():
            self._closed(acknowledged=False)

    def _leave(self) -> bool:
        """Send a leave, if the server knows of a join; tell whether an answer will come."""
        self._turn.stop(Timer("rejoin", self.number))
        if self._join_ref is None or not self._link.is_open:
            return False
        self._leave_ref = self._send_leave()
        self._move(ChannelState.LEAVING)
        self._end_join()
        self._turn.start(Timer("leave", self.number), self._turn.settings.leave_timeout)
        return True

    def _send_leave(self) -> str:
        return self._link.push(self._join_ref, self._wire_topic, Event.LEAVE, {})

    def _left(self, *, acknowledged: bool, rejoin: bool = True) -> None:
        """The server let go of the channel, or will not say so.

        Args:
            acknowledged: whether it said so.
            rejoin: whether a channel that is wanted may join again now.
        """
        self._turn.stop(Timer("leave", self.number))
        self._leave_ref = None
        if not self.wanted:
            self._closed(acknowledged=acknowledged)
            return
        self._settle_leavers(acknowledged=acknowledged)
        self._ledger.forget()
        self._roster.release(self)
        self._move(ChannelState.ERRORED)
        if rejoin:
            self._begin()

    def _closed(self, *, acknowledged: bool) -> None:
        self._end_join()
        self._ledger.forget()
        self._roster.release(self)
        if self.state is not ChannelState.CLOSED:
            self._move(ChannelState.CLOSED)
            self._tell(
                events.ChannelClosed(at=self._turn.now.wall, topic=self.topic, acknowledged=acknowledged)
            )
        self._settle_leavers(acknowledged=acknowledged)

    def _settle_leavers(self, *, acknowledged: bool) -> None:
        leavers, self._leavers = self._leavers, []
        for ticket in leavers:
            self._turn.settle(ticket, acknowledged)

    def close(self, error: BackbeatError) -> None:
        """End at once, without a word to the server."""
        self.wanted = False
        for name in ("join", "leave", "rejoin"):
            self._turn.stop(Timer(name, self.number))
        self._subscribers.close(error)
        self._forget_identity(error)
        self._closed(acknowledged=False)

    def _forget_identity(self, error: BackbeatError) -> None:
        """Drop what was to be said, and what is known, in the name of whoever this was."""
        self._sender.drop(error)
        self._delivery.forget()

    # Tokens -------------------------------------------------------------------------------------------------

    def token_changed(self) -> None:
        """Another token is in use, or a question for one was answered."""
        usable = self._keeper.usable
        if not self.wanted:
            return
        if self.state is ChannelState.DENIED:
            changed = usable is not None and not same_token(usable, self._ledger.told)
            if changed and isinstance(self.last_error, TokenRefused | Denied):
                self._recovery.begin()
                self._begin()
        elif self.state is ChannelState.ERRORED:
            if isinstance(self.last_error, TokenUnavailable) and usable is not None:
                self._begin(asked=True)
        else:
            self.reconcile()

    def reconcile(self) -> None:
        """Let the server know the newest token; or leave, if the old one was another user's."""
        if self._join_ref is None:
            return
        if not self._ledger.written:
            # It will carry the newest token; if there is none by now, it may not go.
            self._may_join_now()
            return
        verdict = self._ledger.compare(
            self._keeper.current, guarded=self.config.guarded, now=self._turn.now.wall
        )
        if verdict is Verdict.LEAVE:
            self._change_identity()
        elif verdict is Verdict.TELL and self.state is ChannelState.JOINED:
            # Not before the reply to the join: a server may not look at it until then.
            join_ref = self._join_ref
            self._link.send(lambda: self._compose_token(join_ref))

    def _compose_token(self, join_ref: str) -> str | None:
        token = self._keeper.usable
        if self._join_ref != join_ref or token is None or same_token(token, self._ledger.told):
            return None
        self._ledger.wrote(token)
        ref = self._link.next_ref()
        payload = {"access_token": token.value}
        return self._link.wire.push(join_ref, ref, self._wire_topic, Event.ACCESS_TOKEN, payload)

    def _change_identity(self) -> None:
        """Leave at once, and come back as whoever is there now; from here on, nothing is delivered."""
        error = TokenUnavailable(
            "Another user, or nobody, is signed in now.",
            code="IdentityChanged",
            hint="The channel is joined again as whoever is signed in.",
            topic=self.topic,
        )
        if self.state is ChannelState.JOINED and self._away_since is None:
            self._away_since = self._turn.now.wall
        self._forget_identity(error)
        self.last_error = error
        self._leave()
        self._tell(events.Interrupted(at=self._turn.now.wall, topic=self.topic, error=error, retry_in=0.0))

    # The connection -----------------------------------------------------------------------------------------

    def link_connecting(self) -> None:
        """A socket is being opened: ask for a token meanwhile."""
        if self.wanted and self.state in (ChannelState.JOINING, ChannelState.ERRORED):
            self._barrier = self._keeper.ask()

    def link_opened(self) -> None:
        """Join again, with the token that was asked for meanwhile."""
        if self.wanted and self.state is ChannelState.ERRORED:
            self._begin(asked=True)

    def link_lost(self, error: BackbeatError, since: float) -> None:
        """The connection is gone.

        Args:
            error: why.
            since: when it was last known to be there, in seconds since the epoch.
        """
        if self.state is ChannelState.LEAVING:
            self._left(acknowledged=False, rejoin=False)
        elif self._join_ref is not None:
            self._note_absence(since)
            self._interrupt(error, retry_in=None)

    def link_failed(self, error: BackbeatError) -> None:
        """The connection will not come back by itself."""
        if self.state is ChannelState.LEAVING:
            self._left(acknowledged=False, rejoin=False)
        if self.wanted and self.state is not ChannelState.DENIED:
            self._deny(error)

    # Timers -------------------------------------------------------------------------------------------------

    def fired(self, name: str) -> None:
        """Handle one of the channel's timers."""
        if name == "join" and self._join_ref is not None:
            self._send_leave()
            self._retry_later(self._no_reply())
        elif name == "leave" and self.state is ChannelState.LEAVING:
            self._left(acknowledged=False)
        elif name == "rejoin" and self.state is ChannelState.ERRORED:
            self._begin()
        elif name == "subscribe":
            self._subscribers.expire(self._why_not_ready())
        else:
            self._sender.fired(name)

    def _no_reply(self) -> NoReply:
        timeout = self._turn.settings.join_timeout
        hint = ""
        if timeout < SHORTEST_JOIN:
            hint = "Supabase's server answers a refused join after 5 s: wait longer than that."
        return NoReply(
            f"The join of {self.topic!r} was not answered within {timeout:g} s.", hint=hint, topic=self.topic
        )

    def _why_not_ready(self) -> BackbeatError:
        if self.state is ChannelState.JOINED:
            return NoReply(
                f"The channel {self.topic!r} is joined, but its row changes do not arrive yet.",
                code="ChangesNotReady",
                hint="The server did not say whether it subscribed to them: is the table published?",
                topic=self.topic,
            )
        if self.last_error is not None:
            return self.last_error
        if not self._link.is_open:
            return self._link.error or NoReply("The connection was not opened in time.", topic=self.topic)
        if self._keeper.decided < self._barrier:
            return NoReply("The token source has not answered yet.", topic=self.topic)
        return NoReply(f"The join of {self.topic!r} was not answered in time.", topic=self.topic)

    # Sending ------------------------------------------------------------------------------------------------

    def broadcast(self, command: Broadcast) -> None:
        """Send a broadcast; settle the ticket when it is sent, or answered if the channel wants that."""
        if (error := self._why_no_push(command.event)) is not None:
            self._turn.fail(command.ticket, error)
        else:
            self._sender.broadcast(command, self.config)

    def track(self, command: Track) -> None:
        """Track a presence, or untrack it; settle the ticket when the server answered."""
        if (error := self._why_no_push(Event.PRESENCE)) is not None:
            self._turn.fail(command.ticket, error)
        else:
            self._sender.track(command)

    def _why_no_push(self, name: str) -> BackbeatError | None:
        if not self.wanted:
            return NotSubscribed(
                f"tried to push '{name}' to '{self.topic}' before joining.",
                hint="Use channel.subscribe() before pushing events",
                topic=self.topic,
            )
        return self.last_error if self.state is ChannelState.DENIED else None

    def written(self, ref: str) -> None:
        """A push that wants no reply is on the wire."""
        self._sender.written(ref)

    # Receiving ----------------------------------------------------------------------------------------------

    def receive(self, message: Message | UserBroadcast) -> None:
        """Handle a message for this topic; what belongs to a join that counts no more is dropped.

        Raises:
            ProtocolError: it makes no sense.
        """
        if isinstance(message, UserBroadcast):
            if self.state is ChannelState.JOINED:
                self._delivery.user_broadcast(message)
        elif message.event == Event.REPLY:
            self._receive_reply(message)
        elif message.join_ref is not None and message.join_ref != self._join_ref:
            return
        elif message.event in (Event.CLOSE, Event.ERROR):
            self._receive_end(message)
        elif self.state is ChannelState.JOINED:
            if message.event == Event.SYSTEM:
                self._receive_system(message)
            else:
                self._delivery.receive(message, self.config)

    def _receive_reply(self, message: Message) -> None:
        reply, ref = read_reply(message.payload), message.ref
        if ref is None:
            return
        if ref == self._leave_ref:
            self._left(acknowledged=reply.ok)
        elif ref == self._join_ref:
            if self.state is ChannelState.JOINING:
                self._join_replied(reply)
        else:
            self._sender.replied(ref, reply, context=self._asked_with())

    def _receive_end(self, message: Message) -> None:
        """The server ended the channel, or it broke."""
        if self._join_ref is None or message.ref not in (None, self._join_ref):
            return
        if message.event == Event.ERROR:
            error: BackbeatError = ConnectionLost(
                "The channel broke on the server.", code="ChannelCrash", topic=self.topic
            )
        elif self._farewell is not None and self._turn.now.steady - self._farewell[1] <= FAREWELL:
            error = self._farewell[0]
        else:
            error = ConnectionLost("The server closed the channel.", code="ChannelClosed", topic=self.topic)
        self._refused(error)

    def _receive_system(self, message: Message) -> None:
        system = read_system(message.payload)
        refusal = None
        if system.status == "error":
            refusal = system_refusal(system.message, topic=self.topic, context=self._asked_with())
        self._delivery.system(system, refusal)
        if system.extension != Event.POSTGRES_CHANGES:
            self._farewell = None if refusal is None else (refusal, self._turn.now.steady)
        elif refusal is None:
            self.streaming = True
            self._delivery.continuity.streaming(self.config)
            self._subscribers.settle(streaming=True)
        else:
            self.streaming = False
            self._delivery.continuity.changes_stopped()
            if refusal.retry is Retry.NEVER:
                # The channel stays; but what the server does not try again need not be waited for.
                self._subscribers.fail(refusal)

    def _tell(self, event: events.ChannelEvent) -> None:
        self._turn.emit(event, channel=self.number)

    def _move(self, state: ChannelState) -> None:
        if state is not self.state:
            assert state in MOVES[self.state], (self.topic, self.state, state)
            self.state = state
