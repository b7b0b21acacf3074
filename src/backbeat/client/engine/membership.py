"""One channel of a client: from `subscribe` to `unsubscribe`, over every interruption in between.

What a join carries is put together when its frame is written, from the newest token; a ledger keeps which
token the server was told last. While a channel leaves, and whenever its identity goes, it delivers nothing.

The rules are those of the client specification: 1.7 and 1.11 to 1.17 for the states, 2.4 and 2.5 for tokens.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from backbeat.client import events
from backbeat.client.engine.bindings import match_bindings
from backbeat.client.engine.changes import read_change
from backbeat.client.engine.classify import join_refusal, reply_refusal, system_refusal
from backbeat.client.engine.continuity import Continuity
from backbeat.client.engine.effects import Timer
from backbeat.client.engine.presence import PresenceView
from backbeat.client.engine.pushes import Push, Pushes
from backbeat.client.engine.tracking import Tracking
from backbeat.client.engine.wire import json_object
from backbeat.errors import (
    BackbeatError,
    BindingMismatch,
    ConnectionLost,
    Denied,
    NoReply,
    NotSubscribed,
    ProtocolError,
    PushDropped,
    Refusal,
    Retry,
    TokenRefused,
    TokenUnavailable,
)
from backbeat.protocol.messages import TOPIC_PREFIX, Event, Message, UserBroadcast
from backbeat.protocol.reasons import REPLAY_FAILED
from backbeat.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backbeat.client.config import ChannelConfig
    from backbeat.client.engine.inputs import Broadcast, Subscribe, Track
    from backbeat.client.engine.keeper import TokenKeeper
    from backbeat.client.engine.link import Link
    from backbeat.client.engine.roster import Roster
    from backbeat.client.engine.tokens import ResolvedToken
    from backbeat.client.engine.turn import Turn

__all__ = ["ChannelState", "Membership"]


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


REFRESH_PAUSE: Final = 30.0
"""Seconds between two times that a refused token is replaced at once."""

FAREWELL: Final = 2.0
"""Seconds within which an error message explains the closing that follows it."""


class _Waiter:
    """Somebody who waits for a subscription."""

    __slots__ = ("deadline", "ready", "ticket")

    def __init__(self, ticket: int, ready: Literal["joined", "streaming"], deadline: float) -> None:
        self.ticket = ticket
        self.ready = ready
        self.deadline = deadline


class _Reply(msgspec.Struct):
    status: str
    response: Any = None


class _System(msgspec.Struct):
    extension: str = ""
    status: str = ""
    message: str = ""
    gap_since: str | None = None


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
        self.attempts = 0
        self.joins = 0
        self._wire_topic = TOPIC_PREFIX + topic
        self._turn = turn
        self._link = link
        self._keeper = keeper
        self._roster = roster
        self._join_ref: str | None = None
        self._leave_ref: str | None = None
        self._told: ResolvedToken | None = None
        """The token the server was told last: with the join, or after it."""
        self._telling = False
        self._written = False
        self._barrier = 0
        self._refreshed_at = -math.inf
        self._mismatches = 0
        self._away_since: float | None = None
        self._farewell: tuple[Refusal, float] | None = None
        self._numbers: dict[int, tuple[int, ...]] = {}
        self._waiters: list[_Waiter] = []
        self._leavers: list[int] = []
        self._armed = math.inf
        self._pushes = Pushes(turn, number, topic)
        self._tracking = Tracking(turn, number)
        self._presence = PresenceView(topic)
        self._continuity = Continuity(turn, number, topic)

    def __repr__(self) -> str:
        return f"<Membership {self.number} {self.topic!r} {self.state.value}>"

    @property
    def presences(self) -> Mapping[str, tuple[Mapping[str, Any], ...]]:
        """Who is present, as far as is known."""
        return self._presence.public()

    @property
    def told(self) -> ResolvedToken | None:
        """The token the server was told last; None stands for the API key."""
        return self._told

    @property
    def pending(self) -> int:
        """How many pushes wait for something."""
        return len(self._pushes)

    # Subscribing --------------------------------------------------------------------------------------------

    def subscribe(self, command: Subscribe) -> None:
        """Join, unless that is done or under way; settle the ticket when it is done."""
        waiter = _Waiter(command.ticket, command.ready, self._turn.now.steady + command.timeout)
        self._waiters.append(waiter)
        self._arm(waiter.deadline)
        self.wanted = True
        if self.state is ChannelState.JOINED:
            self._settle_waiters()
            return
        if self.state in (ChannelState.CLOSED, ChannelState.DENIED):
            self.config = command.config
            self._begin_anew()
        elif self.state is ChannelState.LEAVING:
            self.config = command.config
        self._link.want()

    def _begin_anew(self) -> None:
        self.attempts = 0
        self._mismatches = 0
        self._refreshed_at = -math.inf
        self._begin()

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
        if self._keeper.usable is None and (lack := self._lack()) is not None:
            self._wait_for_token(lack)
            return True
        if not self._roster.may_join(self):
            return False
        self._send_join()
        return True

    def _lack(self) -> TokenUnavailable | None:
        """Why it cannot be joined without a token, if it cannot."""
        settings = self._turn.settings
        expected = self._keeper.expects_user and (self.config.private or not settings.anon_fallback)
        required = settings.require_user_token and self.config.guarded
        if not expected and not required:
            return None
        return self._no_token()

    def _no_token(self) -> TokenUnavailable:
        keeper = self._keeper
        if keeper.signed_out:
            why, hint = "nobody is signed in", "It is joined as soon as somebody signs in."
        elif keeper.last_error is not None:
            kind = type(keeper.last_error).__name__
            why, hint = f"the token source failed ({kind}: {keeper.last_error})", "It is asked again."
        elif keeper.current is not None:
            token = keeper.current.describe(self._turn.now.wall)
            why, hint = f"the {token} has ended", "Give a fresh one to `set_auth`."
        else:
            why, hint = "there is none", "Give the client a `token`, or call `set_auth`."
        return TokenUnavailable(
            f"The channel {self.topic!r} needs a user's token, and {why}.", hint=hint, topic=self.topic
        )

    def _wait_for_token(self, error: TokenUnavailable) -> None:
        """Stay away until there is a token: a join with the API key would be refused, or hear nothing."""
        self._interrupt(error, retry_in=None)
        if not self._keeper.asks:
            # Whoever could give one is perhaps waiting for this very subscription.
            self._fail_waiters(error)

    def _send_join(self) -> None:
        ref = self._link.next_ref()
        self._join_ref = ref
        self._farewell = None
        self._telling = self._written = False
        self.joins += 1
        self._link.send(lambda: self._compose_join(ref))
        self._turn.start(Timer("join", self.number), self._turn.settings.join_timeout)

    def _compose_join(self, ref: str) -> str | None:
        if self._join_ref != ref:
            return None
        token = self._keeper.usable
        self._told, self._written = token, True
        replay = self._continuity.replay(self.config, skew=self._link.skew)
        payload: dict[str, Any] = {"config": self.config.wire(replay), "version": f"backbeat-py/{VERSION}"}
        if token is not None:
            payload["access_token"] = token.value
        return self._link.wire.push(ref, ref, self._wire_topic, Event.JOIN, payload)

    def _join_replied(self, reply: _Reply) -> None:
        self._turn.stop(Timer("join", self.number))
        if reply.status == "ok":
            self._joined(reply.response if isinstance(reply.response, dict) else {})
            return
        text = _reason(reply.response)
        self._refused(join_refusal(text, topic=self.topic, context=self._asked_with()))

    def _joined(self, response: Mapping[str, Any]) -> None:
        try:
            self._numbers = match_bindings(self.config.changes, response, topic=self.topic)
        except BindingMismatch as error:
            self._mismatched(error)
            return
        self._move(ChannelState.JOINED)
        self.attempts = 0
        self.last_error = None
        self.streaming = not self.config.changes
        self._mismatches = 0
        self._presence.expect_state()
        self._tell_joined()
        self._settle_waiters()
        self._tracking.rejoined()
        self._track_due()
        self._pushes.release()
        self.reconcile()

    def _tell_joined(self) -> None:
        as_user = self._told is not None
        now = self._turn.now.wall
        if not as_user and self.config.changes:
            tables = tuple(f"{each.schema}.{each.table}" for each in self.config.changes)
            self._turn.emit(events.JoinedAsAnon(at=now, topic=self.topic, tables=tables), channel=self.number)
        since, self._away_since = self._away_since, None
        status: events.StatusEvent
        if since is None:
            status = events.Subscribed(at=now, topic=self.topic, as_user=as_user)
        else:
            status = events.Resumed(at=now, topic=self.topic, downtime=now - since, as_user=as_user)
        self._turn.emit(status, channel=self.number)
        self._continuity.rejoined(self.config)

    # Being refused ------------------------------------------------------------------------------------------

    def _refused(self, error: BackbeatError) -> None:
        """The server said no, to the join or later: try again in the way that may help, or not at all."""
        if error.code == REPLAY_FAILED.code and self._continuity.asked:
            self._continuity.replay_refused()
            self._interrupt(error, retry_in=0.0)
            self._begin()
        elif isinstance(error, TokenRefused) and self._may_refresh():
            self._refreshed_at = self._turn.now.steady
            self._interrupt(error, retry_in=0.0)
            self._keeper.ask(anew=True, refused=True)
            self._begin()
        elif error.retry is Retry.NEVER:
            self._deny(error)
        else:
            self._suspect_clock(error)
            self._retry_later(error)

    def _may_refresh(self) -> bool:
        """Whether a new token may help: once, and only if the refused one came from a source to ask."""
        pause = self._turn.now.steady - self._refreshed_at
        return pause >= REFRESH_PAUSE and self._keeper.asks and self._told is not None

    def _suspect_clock(self, error: BackbeatError) -> None:
        token = self._told
        if error.retry is Retry.REFRESH and token is not None and token.expires_at is not None:
            left = token.expires_at - self._turn.now.wall
            if left > 0:
                self._turn.emit(events.ClockSkewSuspected(at=self._turn.now.wall, seconds_left=left))

    def _retry_later(self, error: BackbeatError) -> None:
        self.attempts += 1
        limited = error.retry is Retry.SLOW
        delay = self._turn.back_off(
            self.attempts, at_least=self._turn.settings.limited_backoff if limited else 0.0
        )
        self._interrupt(error, retry_in=delay)
        self._turn.start(Timer("rejoin", self.number), delay)
        # Whoever cannot wait that long is told now.
        self._fail_waiters(error, within=delay)

    def _deny(self, error: BackbeatError) -> None:
        self._note_absence(self._turn.now.wall)
        self._end_join()
        self.last_error = error
        self._move(ChannelState.DENIED)
        self._turn.emit(
            events.ChannelDenied(at=self._turn.now.wall, topic=self.topic, error=error), channel=self.number
        )
        self._fail_waiters(error)
        self._drop_pushes(error)

    def _mismatched(self, error: BindingMismatch) -> None:
        """The server subscribed something else: leave, try once more, then give up."""
        self._mismatches += 1
        self._send_leave()
        self._end_join()
        if self._mismatches == 1:
            self._retry_later(error)
        else:
            self._deny(error)

    def _interrupt(self, error: BackbeatError, *, retry_in: float | None) -> None:
        self._note_absence(self._turn.now.wall)
        self._end_join()
        self.last_error = error
        self._move(ChannelState.ERRORED)
        self._turn.emit(
            events.Interrupted(at=self._turn.now.wall, topic=self.topic, error=error, retry_in=retry_in),
            channel=self.number,
        )

    def _note_absence(self, since: float) -> None:
        if self.state is ChannelState.JOINED and self._away_since is None:
            self._away_since = since
            self._continuity.interrupted(since)

    def _end_join(self) -> None:
        """The join that was under way, or had been accepted, counts no more."""
        self._turn.stop(Timer("join", self.number))
        self._join_ref = None
        self._telling = False
        self.streaming = False
        self._numbers = {}
        self._pushes.lose_sent(ConnectionLost("The channel was interrupted.", topic=self.topic))

    def _asked_with(self) -> str:
        """Say which token the server went by, for a hint."""
        token = self._told
        if token is None:
            return "Asked with the API key alone: the join carried no user's token."
        return f"Asked with the {token.describe(self._turn.now.wall)}."

    # Leaving ------------------------------------------------------------------------------------------------

    def unsubscribe(self, ticket: int) -> None:
        """Leave; settle the ticket with whether the server acknowledged that."""
        self._leavers.append(ticket)
        self.wanted = False
        dropped = PushDropped("The channel was left.", code="ChannelLeft", topic=self.topic)
        self._fail_waiters(dropped)
        self._forget_identity(dropped)
        self._away_since = None
        if self.state is ChannelState.LEAVING:
            return
        if self._leave():
            return
        self._closed(acknowledged=False)

    def _leave(self) -> bool:
        """Send a leave, if the server knows of a join; tell whether an answer will come."""
        self._turn.stop(Timer("rejoin", self.number))
        self._turn.stop(Timer("join", self.number))
        if self._join_ref is None or not self._link.is_open:
            return False
        self._leave_ref = self._send_leave()
        self._move(ChannelState.LEAVING)
        self._end_join()
        self._turn.start(Timer("leave", self.number), self._turn.settings.leave_timeout)
        return True

    def _send_leave(self) -> str:
        return self._link.push(self._join_ref, self._wire_topic, Event.LEAVE, {})

    def _left(self, *, acknowledged: bool) -> None:
        """The server let go of the channel, or does not answer."""
        self._turn.stop(Timer("leave", self.number))
        self._leave_ref = None
        if self.wanted:
            self._settle_leavers(acknowledged=acknowledged)
            self._move(ChannelState.ERRORED)
            self._roster.release(self)
            self._begin()
        else:
            self._closed(acknowledged=acknowledged)

    def _closed(self, *, acknowledged: bool) -> None:
        self._end_join()
        self._told = None
        self._roster.release(self)
        if self.state is not ChannelState.CLOSED:
            self._move(ChannelState.CLOSED)
            self._turn.emit(
                events.ChannelClosed(at=self._turn.now.wall, topic=self.topic, acknowledged=acknowledged),
                channel=self.number,
            )
        self._settle_leavers(acknowledged=acknowledged)

    def _settle_leavers(self, *, acknowledged: bool) -> None:
        for ticket in self._leavers:
            self._turn.settle(ticket, acknowledged)
        self._leavers.clear()

    def close(self, error: BackbeatError) -> None:
        """End at once, without a word to the server."""
        self.wanted = False
        for name in ("join", "leave", "rejoin", "subscribe", "push"):
            self._turn.stop(Timer(name, self.number))
        self._fail_waiters(error)
        self._forget_identity(error)
        self._closed(acknowledged=False)

    def _forget_identity(self, error: BackbeatError) -> None:
        """Drop what was to be said, and what is known, in the name of whoever this was."""
        self._drop_pushes(error)
        self._presence.forget()
        self._continuity.forget()

    def _drop_pushes(self, error: BackbeatError) -> None:
        self._pushes.drop(error)
        for ticket in self._tracking.forget():
            self._turn.fail(ticket, error)

    # Tokens -------------------------------------------------------------------------------------------------

    def token_changed(self) -> None:
        """Another token is in use, or a question for one was answered."""
        if not self.wanted:
            return
        usable = self._keeper.usable
        if self.state is ChannelState.DENIED:
            if usable is not None and not _same(usable, self._told) and _may_differ(self.last_error):
                self._begin_anew()
        elif self.state is ChannelState.ERRORED and isinstance(self.last_error, TokenUnavailable):
            if usable is not None or self._lack() is None:
                self._begin()
        else:
            self.reconcile()

    def reconcile(self) -> None:
        """Let the server know the newest token; or leave, if the old one was another user's."""
        held, token = self._told, self._keeper.current
        if self._join_ref is not None and not self._written:
            self._check_unwritten()
            return
        if self._join_ref is None or _same(held, token):
            return
        if token is not None and token.is_expired(self._turn.now.wall):
            return
        if token is None or (held is not None and not held.same_identity(token)):
            if held is not None and self.config.guarded:
                self._change_identity()
            elif token is not None and token.is_jwt:
                self._tell_token()
        else:
            self._tell_token()

    def _check_unwritten(self) -> None:
        """A join that still waits to be written carries the newest token; if there is none, it may not go."""
        if self._keeper.usable is None and (lack := self._lack()) is not None:
            self._wait_for_token(lack)

    def _tell_token(self) -> None:
        """Push the newest token, behind the reply to the join: before it, servers may not look."""
        if self.state is not ChannelState.JOINED or self._telling:
            return
        self._telling = True
        join_ref = self._join_ref
        self._link.send(lambda: self._compose_token(join_ref))

    def _compose_token(self, join_ref: str | None) -> str | None:
        token = self._keeper.usable
        if self._join_ref != join_ref:
            return None
        self._telling = False
        if token is None or _same(token, self._told):
            return None
        self._told = token
        payload = {"access_token": token.value}
        ref = self._link.next_ref()
        return self._link.wire.push(join_ref, ref, self._wire_topic, Event.ACCESS_TOKEN, payload)

    def _change_identity(self) -> None:
        """Leave at once, and come back as whoever is there now.

        Servers ignore a token that is taken away: until it ended, they would go on sending what its user may
        see. From here on, nothing is delivered until the new join is answered.
        """
        error = TokenUnavailable(
            "Another user, or nobody, is signed in now.",
            code="IdentityChanged",
            hint="The channel is joined again as whoever is signed in.",
            topic=self.topic,
        )
        self._forget_identity(error)
        if self.state is ChannelState.JOINED and self._away_since is None:
            self._away_since = self._turn.now.wall
        leaving = self._leave()
        self._told = None
        self.last_error = error
        self._turn.emit(
            events.Interrupted(at=self._turn.now.wall, topic=self.topic, error=error, retry_in=0.0),
            channel=self.number,
        )
        if not leaving:
            self._end_join()
            self._move(ChannelState.ERRORED)
            self._begin()

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
            self._turn.stop(Timer("leave", self.number))
            if self.wanted:
                self._leave_ref = None
                self._settle_leavers(acknowledged=False)
                self._roster.release(self)
                self._move(ChannelState.ERRORED)
            else:
                self._closed(acknowledged=False)
        elif self.state is ChannelState.JOINED or self._join_ref is not None:
            self._note_absence(since)
            self._interrupt(error, retry_in=None)

    def link_failed(self, error: BackbeatError) -> None:
        """The connection will not come back by itself."""
        if self.wanted and self.state is not ChannelState.DENIED:
            if self.state is ChannelState.LEAVING:
                self._left(acknowledged=False)
            self._deny(error)
        elif self.state is ChannelState.LEAVING:
            self._closed(acknowledged=False)

    # Timers -------------------------------------------------------------------------------------------------

    def fired(self, name: str) -> None:
        """Handle one of the channel's timers."""
        if name == "join" and self.state is ChannelState.JOINING and self._join_ref is not None:
            self._send_leave()
            self._retry_later(
                NoReply(
                    f"The join of {self.topic!r} was not answered within "
                    f"{self._turn.settings.join_timeout:g} s.",
                    hint="Supabase's server answers a refused join after 5 s: wait longer than that."
                    if self._turn.settings.join_timeout < 7
                    else "",
                    topic=self.topic,
                )
            )
        elif name == "leave" and self.state is ChannelState.LEAVING:
            self._left(acknowledged=False)
        elif name == "rejoin" and self.state is ChannelState.ERRORED:
            self._begin()
        elif name == "subscribe":
            self._expire_waiters()
        elif name == "push":
            self._pushes.expire()
        elif name == "presence":
            self._track_due()
        elif name == "track":
            self._track_late()

    # Those who wait for the subscription --------------------------------------------------------------------

    def _settle_waiters(self) -> None:
        waiting, self._waiters = self._waiters, []
        for waiter in waiting:
            if waiter.ready == "joined" or self.streaming:
                self._turn.settle(waiter.ticket)
            else:
                self._waiters.append(waiter)

    def _fail_waiters(self, error: BackbeatError, *, within: float = math.inf) -> None:
        """Give up on behalf of those whose time ends before a moment that lies so many seconds ahead."""
        limit = self._turn.now.steady + within
        waiting, self._waiters = self._waiters, []
        for waiter in waiting:
            if waiter.deadline <= limit:
                self._turn.fail(waiter.ticket, error)
            else:
                self._waiters.append(waiter)

    def _expire_waiters(self) -> None:
        self._armed = math.inf
        self._fail_waiters(self._why_not_ready(), within=0.0)
        self._arm(min((waiter.deadline for waiter in self._waiters), default=math.inf))

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

    def _arm(self, deadline: float) -> None:
        if deadline < self._armed:
            self._armed = deadline
            self._turn.start(Timer("subscribe", self.number), deadline - self._turn.now.steady)

    # Sending ------------------------------------------------------------------------------------------------

    def broadcast(self, command: Broadcast) -> None:
        """Send a broadcast; settle the ticket when it is sent, or answered if the channel wants that."""
        hint = ""
        if self.config.private:
            hint = (
                "Supabase's server is silent when no INSERT policy on realtime.messages is true for this "
                "topic and role."
            )
        push = Push(
            f"broadcast {command.event!r}",
            [command.ticket],
            self._turn.now.steady + command.timeout,
            lambda: self._send_broadcast(command),
            wants_reply=self.config.ack and command.wait,
            hint=hint,
        )
        self._push(push, hold=command.hold)

    def _send_broadcast(self, command: Broadcast) -> str:
        ref, join_ref = self._link.next_ref(), self._join_ref
        assert join_ref is not None
        frame = self._link.wire.broadcast(
            join_ref, ref, self._wire_topic, command.event, command.payload, is_json=command.is_json
        )
        self._link.send(lambda: frame, size=len(frame))
        return ref

    def _push(self, push: Push, *, hold: bool = True) -> None:
        if not self.wanted:
            self._pushes.refuse(push, self._not_subscribed(push.name))
        elif self.state is ChannelState.JOINED:
            self._pushes.send(push)
        elif self.state is ChannelState.DENIED and self.last_error is not None:
            self._pushes.refuse(push, self.last_error)
        elif hold:
            self._pushes.hold(push)
        else:
            error = self.last_error or NotSubscribed(
                f"The channel {self.topic!r} is not joined yet.", topic=self.topic
            )
            self._pushes.refuse(push, error)

    def _not_subscribed(self, name: str) -> NotSubscribed:
        return NotSubscribed(
            f"tried to push '{name}' to '{self.topic}' before joining.",
            hint="Use channel.subscribe() before pushing events",
            topic=self.topic,
        )

    def track(self, command: Track) -> None:
        """Track a presence, or untrack it; settle the ticket when the server answered."""
        if not self.wanted:
            self._turn.fail(command.ticket, self._not_subscribed("presence"))
            return
        if self.state is ChannelState.DENIED and self.last_error is not None:
            self._turn.fail(command.ticket, self.last_error)
            return
        self._tracking.call(command.payload, command.ticket, command.timeout)
        self._track_due()

    def _track_due(self) -> None:
        if self.state is not ChannelState.JOINED:
            return
        call = self._tracking.due()
        if call is None:
            return
        payload: dict[str, Any] = {"type": "presence", "event": "untrack"}
        if call.payload is not None:
            payload |= {"event": "track", "payload": call.payload}
        soonest = self._turn.now.steady + self._turn.settings.push_timeout
        push = Push(
            payload["event"],
            list(call.waiting),
            min(call.waiting.values(), default=soonest),
            lambda: self._link.push(self._join_ref, self._wire_topic, Event.PRESENCE, payload),
            wants_reply=True,
        )
        self._pushes.send(push)

    def _track_late(self) -> None:
        why = "the channel is not joined" if self.state is not ChannelState.JOINED else "it was its turn"
        error = NoReply(
            f"The presence could not be sent before {why}.",
            hint="Servers allow few presence calls; it is sent as soon as it may be.",
            topic=self.topic,
        )
        for ticket in self._tracking.late():
            self._turn.fail(ticket, error)

    # Receiving ----------------------------------------------------------------------------------------------

    def receive(self, message: Message | UserBroadcast) -> None:
        """Handle a message for this topic.

        Raises:
            ProtocolError: it makes no sense.
        """
        if isinstance(message, UserBroadcast):
            self._receive_user_broadcast(message)
        elif message.event == Event.REPLY:
            self._receive_reply(message)
        elif message.join_ref is not None and message.join_ref != self._join_ref:
            pass  # It belongs to a join that counts no more.
        elif message.event in (Event.CLOSE, Event.ERROR):
            self._receive_end(message)
        elif self.state is ChannelState.JOINED:
            self._receive_event(message)

    def _receive_reply(self, message: Message) -> None:
        try:
            reply = msgspec.json.decode(message.payload, type=_Reply)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ProtocolError("The payload is not a reply.") from error
        ref = message.ref
        if ref is None:
            return
        if self.state is ChannelState.LEAVING:
            if ref == self._leave_ref:
                self._left(acknowledged=reply.status == "ok")
        elif ref == self._join_ref:
            if self.state is ChannelState.JOINING:
                self._join_replied(reply)
        elif (push := self._pushes.replied(ref)) is not None:
            if reply.status == "ok":
                self._pushes.settle(push, reply.response)
            else:
                text = _reason(reply.response)
                self._pushes.refuse(push, reply_refusal(text, topic=self.topic, context=self._asked_with()))

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

    def _receive_event(self, message: Message) -> None:
        now = self._turn.now.wall
        if message.event == Event.BROADCAST:
            self._receive_broadcast(json_object(message.payload))
        elif message.event == Event.POSTGRES_CHANGES:
            self._receive_change(message)
        elif message.event == Event.PRESENCE_STATE:
            self._emit_all(self._presence.take_state(message.payload, now))
        elif message.event == Event.PRESENCE_DIFF:
            if self.config.presence:
                self._emit_all(self._presence.take_diff(message.payload, now))
        elif message.event == Event.SYSTEM:
            self._receive_system(message)

    def _emit_all(self, found: list[events.PresenceEvent]) -> None:
        for event in found:
            self._turn.emit(event, channel=self.number)

    def _receive_broadcast(self, payload: dict[str, Any]) -> None:
        event, meta = payload.get("event"), payload.get("meta")
        if not isinstance(event, str):
            raise ProtocolError("A broadcast names its event.")
        self._deliver(event, payload.get("payload"), meta if isinstance(meta, dict) else {})

    def _receive_user_broadcast(self, message: UserBroadcast) -> None:
        if self.state is not ChannelState.JOINED:
            return
        payload = msgspec.json.decode(message.payload) if message.is_json else message.payload
        meta = json_object(message.metadata) if message.metadata else {}
        self._deliver(message.user_event, payload, meta)

    def _deliver(self, event: str, payload: object, meta: dict[str, Any]) -> None:
        if self._continuity.is_new(meta):
            self._turn.emit(
                events.BroadcastEvent(
                    at=self._turn.now.wall, topic=self.topic, event=event, payload=payload, meta=meta
                ),
                channel=self.number,
            )

    def _receive_change(self, message: Message) -> None:
        numbers, change = read_change(message.payload, topic=self.topic, at=self._turn.now.wall)
        bindings = tuple(
            sorted(
                {
                    index
                    for number in numbers
                    for index in self._numbers.get(number, ())
                    if self.config.changes[index].event in ("*", change.type)
                }
            )
        )
        if bindings:
            self._turn.emit(change, channel=self.number, bindings=bindings)

    def _receive_system(self, message: Message) -> None:
        try:
            system = msgspec.json.decode(message.payload, type=_System)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ProtocolError("The payload is not a system message.") from error
        refusal = None
        if system.status == "error":
            refusal = system_refusal(system.message, topic=self.topic, context=self._asked_with())
        self._turn.emit(
            events.SystemEvent(
                at=self._turn.now.wall,
                topic=self.topic,
                extension=system.extension,
                status=system.status,
                message=system.message,
                error=refusal,
            ),
            channel=self.number,
        )
        if system.extension != Event.POSTGRES_CHANGES:
            if refusal is not None:
                self._farewell = refusal, self._turn.now.steady
        elif refusal is None:
            self._changes_stream()
        else:
            self._changes_stopped(refusal)

    def _changes_stream(self) -> None:
        self.streaming = True
        self._continuity.streaming(self.config)
        self._settle_waiters()

    def _changes_stopped(self, refusal: Refusal) -> None:
        """Row changes do not arrive; the channel stays. What the server tries again may be waited for."""
        self.streaming = False
        self._continuity.changes_stopped()
        if refusal.retry is Retry.NEVER:
            self._fail_waiters(refusal)

    # States -------------------------------------------------------------------------------------------------

    def _move(self, state: ChannelState) -> None:
        if state is self.state:
            return
        assert state in MOVES[self.state], (self.topic, self.state, state)
        self.state = state


def _same(one: ResolvedToken | None, other: ResolvedToken | None) -> bool:
    return (one and one.value) == (other and other.value)


def _may_differ(error: BackbeatError | None) -> bool:
    """Whether another token may change what the server said."""
    return isinstance(error, TokenRefused | Denied | TokenUnavailable)


def _reason(response: object) -> str:
    """The text of an error reply, whatever form it has."""
    if isinstance(response, dict):
        reason = response.get("reason")
        if isinstance(reason, str):
            return reason
        return ", ".join(str(value) for value in response.values()) or "error"
    return response if isinstance(response, str) and response else "error"
