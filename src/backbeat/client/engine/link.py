"""The connection: when to open it, when to give it up, when to try again (client specification, 1.2 to 1.7).

There is one socket at most. One that is being closed counts until the driver says that it is gone.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol

from backbeat.client import events
from backbeat.client.engine.classify import connect_refusal
from backbeat.client.engine.effects import CloseSocket, OpenSocket, Send, Timer
from backbeat.client.engine.heartbeat import BEAT, SILENCE, HeartbeatMonitor
from backbeat.errors import BackbeatError, ClientClosed, ConnectFailed, ConnectionLost, Retry
from backbeat.protocol.messages import PHOENIX, Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from backbeat.client.engine.turn import Turn
    from backbeat.client.engine.wire import Wire

__all__ = ["Link", "LinkState", "LinkUser"]

OPENING: Final = Timer("opening")
RECONNECT: Final = Timer("reconnect")
STABLE: Final = Timer("stable")
IDLE: Final = Timer("idle")
TIMERS: Final = (OPENING, RECONNECT, STABLE, IDLE, BEAT, SILENCE)

RESTART_CODES: Final = frozenset({1001, 1012})
"""Close codes of a server that goes away in good order (RFC 6455, 7.4.1; IANA registry)."""


class LinkState(Enum):
    """Where in its life the connection is."""

    IDLE = "idle"
    """Nobody needs it."""

    CONNECTING = "connecting"
    OPEN = "open"
    DRAINING = "draining"
    """The socket is being closed; what comes next is decided."""

    BACKOFF = "backoff"
    """The next attempt comes after a while."""

    FATAL = "fatal"
    """The server said no, and will say it again."""

    CLOSED = "closed"
    """The end."""


MOVES: Final = {
    LinkState.IDLE: {LinkState.CONNECTING, LinkState.CLOSED},
    LinkState.CONNECTING: {LinkState.OPEN, LinkState.BACKOFF, LinkState.FATAL, LinkState.DRAINING},
    LinkState.OPEN: {LinkState.DRAINING, LinkState.BACKOFF, LinkState.FATAL},
    LinkState.DRAINING: {LinkState.CONNECTING, LinkState.BACKOFF, LinkState.IDLE, LinkState.CLOSED},
    LinkState.BACKOFF: {LinkState.CONNECTING, LinkState.IDLE, LinkState.CLOSED},
    LinkState.FATAL: {LinkState.CONNECTING, LinkState.IDLE, LinkState.CLOSED},
    LinkState.CLOSED: set[LinkState](),
}
"""The legal moves."""


class LinkUser(Protocol):
    """Whoever wants to know how the connection is."""

    def link_connecting(self) -> None:
        """A socket is about to be opened."""

    def link_opened(self) -> None:
        """Frames may be sent."""

    def link_lost(self, error: BackbeatError) -> None:
        """Frames cannot be sent any more; the connection will come back."""

    def link_failed(self, error: BackbeatError) -> None:
        """The connection will not come back by itself."""


class Link:
    """The connection to the server.

    Args:
        turn: the engine's current turn.
        wire: writes frames.
        user: is told how the connection is.

    Attributes:
        state: where in its life it is.
        connection: the number of the newest socket.
        error: why the connection is not open.
        opened: how many sockets have been open.
        heard_at: when the last frame came, in seconds since the epoch.
        skew: by how many seconds the server's clock is ahead, as far as that is known.
    """

    def __init__(self, turn: Turn, wire: Wire, user: LinkUser) -> None:
        self._turn = turn
        self._user = user
        self.wire = wire
        self.state = LinkState.IDLE
        self.connection = 0
        self.error: BackbeatError | None = None
        self.opened = 0
        self.heard_at = 0.0
        self.skew = 0.0
        self.next_attempt_at: float | None = None
        self._after = LinkState.IDLE
        """What follows when the socket that is being closed is gone."""
        self._attempts = 0
        self._refs = 0
        self._waiting: list[int] = []
        self._leaving: list[int] = []
        self.heartbeat = HeartbeatMonitor(turn, self._send_heartbeat)

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent."""
        return self.state is LinkState.OPEN

    # Wanting it ---------------------------------------------------------------------------------------------

    def want(self) -> None:
        """Have the connection opened, if it is not open or about to be."""
        self._turn.stop(IDLE)
        if self.state in (LinkState.IDLE, LinkState.FATAL):
            self._attempts = 0
            self._open()
        elif self.state is LinkState.DRAINING and self._after is LinkState.IDLE:
            self._after = LinkState.CONNECTING

    def connect(self, ticket: int) -> None:
        """Have the connection opened; settle the ticket when it is, or when it cannot be."""
        self._waiting.append(ticket)
        self.want()
        if self.is_open:
            self._settle_waiting()

    def disconnect(self, ticket: int, code: int, reason: str) -> None:
        """Close the connection; settle the ticket when it is closed."""
        self._leaving.append(ticket)
        self._let_go(LinkState.IDLE, code, reason, ConnectionLost("The client disconnected."))

    def close(self, ticket: int) -> None:
        """Close the connection for good; settle the ticket when it is closed."""
        self._leaving.append(ticket)
        self._let_go(LinkState.CLOSED, 1000, "", ClientClosed("The client was closed."))

    def not_needed(self) -> None:
        """Close the connection after a while, unless somebody wants it (client specification, X-4)."""
        if self.state not in (LinkState.CLOSED, LinkState.FATAL):
            self._turn.start(IDLE, self._turn.settings.idle_disconnect_after)

    def _let_go(self, after: LinkState, code: int, reason: str, error: BackbeatError) -> None:
        for timer in TIMERS:
            self._turn.stop(timer)
        if self.state in (LinkState.OPEN, LinkState.CONNECTING):
            self._drain(after, code, reason, error)
        elif self.state is LinkState.DRAINING:
            self._after = after
        elif self.state is not LinkState.CLOSED:
            self._rest(after, error)
        else:
            self._settle_leaving()

    # The socket ---------------------------------------------------------------------------------------------

    def _open(self) -> None:
        self.connection += 1
        self._refs = 0
        self.next_attempt_at = None
        self._move(LinkState.CONNECTING)
        self._turn.start(OPENING, self._turn.settings.open_timeout)
        self._turn.do(OpenSocket(self.connection))
        self._user.link_connecting()

    def socket_opened(self, connection: int, server_time: float | None) -> None:
        """The socket is open."""
        if connection != self.connection or self.state is not LinkState.CONNECTING:
            return
        self._turn.stop(OPENING)
        self.error = None
        self.opened += 1
        self.heard_at = self._turn.now.wall
        if server_time is not None:
            self.skew = server_time - self._turn.now.wall
        self._move(LinkState.OPEN)
        self._turn.start(STABLE, self._turn.settings.stable_after)
        self.heartbeat.begin()
        self._settle_waiting()
        self._user.link_opened()

    def socket_refused(self, connection: int, status: int, body: bytes, retry_after: float | None) -> None:
        """The server said no to the upgrade."""
        if connection != self.connection or self.state is not LinkState.CONNECTING:
            return
        refusal = connect_refusal(status, body)
        self._lose(refusal, at_least=retry_after or 0.0)

    def socket_failed(self, connection: int, reason: str) -> None:
        """There was no answer."""
        if connection == self.connection and self.state is LinkState.CONNECTING:
            self._lose(ConnectFailed(f"The server cannot be reached: {reason}"))

    def socket_closed(self, connection: int, code: int, reason: str) -> None:
        """The socket is gone."""
        if connection != self.connection:
            return
        if self.state is LinkState.DRAINING:
            self._drained()
        elif self.state in (LinkState.OPEN, LinkState.CONNECTING):
            said = f" ({reason})" if reason else ""
            self._lose(
                ConnectionLost(
                    f"The socket was closed: {code}{said}.",
                    code="ServerRestart" if code in RESTART_CODES else None,
                )
            )

    def _lose(self, error: BackbeatError, *, at_least: float = 0.0) -> None:
        """The socket is gone and nobody wanted that: try again later, or never."""
        for timer in TIMERS:
            self._turn.stop(timer)
        was_open = self.is_open
        self.error = error
        self.heartbeat.end(error)
        if error.retry is Retry.NEVER or (error.retry is Retry.REFRESH):
            self._move(LinkState.FATAL)
            self._fail_waiting(error)
            self._user.link_failed(error)
            return
        self._back_off(error, at_least=at_least)
        if was_open:
            self._user.link_lost(error)

    def _back_off(self, error: BackbeatError, *, at_least: float = 0.0) -> None:
        self._attempts += 1
        if error.retry is Retry.SLOW:
            at_least = max(at_least, self._turn.settings.limited_backoff)
        delay = self._turn.back_off(self._attempts, at_least=at_least)
        self.next_attempt_at = self._turn.now.wall + delay
        self._move(LinkState.BACKOFF, error, delay)
        self._turn.start(RECONNECT, delay)

    def _drain(
        self, after: LinkState, code: int, reason: str, error: BackbeatError, *, silent: bool = False
    ) -> None:
        for timer in TIMERS:
            self._turn.stop(timer)
        was_open = self.is_open
        self.error = error
        self._after = after
        self.heartbeat.end(error)
        self._move(LinkState.DRAINING, error)
        self._turn.do(CloseSocket(self.connection, code, reason, silent=silent))
        if was_open:
            self._user.link_lost(error)

    def _drained(self) -> None:
        error = self.error or ConnectionLost("The socket was closed.")
        if self._after is LinkState.CONNECTING:
            self._open()
            self._settle_leaving()
        elif self._after is LinkState.BACKOFF:
            self._back_off(error)
        else:
            self._rest(self._after, error)

    def _rest(self, state: LinkState, error: BackbeatError) -> None:
        if self.state is not state:
            self._move(state)
        self.next_attempt_at = None
        self._fail_waiting(error)
        self._settle_leaving()
        if state is LinkState.IDLE:
            self._attempts = 0

    def give_up(self, error: BackbeatError) -> None:
        """Close a socket that cannot be relied on, and open another."""
        if self.is_open:
            self._drain(LinkState.BACKOFF, 1000, error.message, error, silent=True)

    # Frames -------------------------------------------------------------------------------------------------

    def next_ref(self) -> str:
        """The ref of the next push."""
        self._refs = self._refs + 1 if self._refs < 2**53 else 1
        return str(self._refs)

    def send(
        self,
        compose: Callable[[], str | bytes | None],
        *,
        size: int = 0,
        receipt: tuple[int, str] | None = None,
    ) -> None:
        """Have a frame written that is composed then."""
        self._turn.do(Send(self.connection, compose, size, receipt))

    def push(self, join_ref: str | None, topic: str, event: str, payload: Any) -> str:
        """Have a push written.

        Returns:
            Its ref.
        """
        ref = self.next_ref()
        frame = self.wire.push(join_ref, ref, topic, event, payload)
        self.send(lambda: frame)
        return ref

    def _send_heartbeat(self) -> str:
        return self.push(None, PHOENIX, Event.HEARTBEAT, {})

    def heartbeat_answered(self, ref: str | None) -> None:
        """Take the reply to a heartbeat: the connection is stable."""
        if self.heartbeat.answered(ref):
            self._attempts = 0

    # Timers -------------------------------------------------------------------------------------------------

    def fired(self, timer: Timer) -> None:
        """Handle one of the connection's timers."""
        if timer == OPENING and self.state is LinkState.CONNECTING:
            error = ConnectFailed(
                f"The server did not open a socket within {self._turn.settings.open_timeout:g} s.",
                hint="It took the connection and said nothing: look at what stands in between.",
            )
            self._drain(LinkState.BACKOFF, 1000, "", error, silent=True)
        elif timer == RECONNECT and self.state is LinkState.BACKOFF:
            self._open()
        elif timer == STABLE:
            self._attempts = 0
        elif timer == IDLE:
            self._let_go(LinkState.IDLE, 1000, "", ConnectionLost("There was no channel left."))
        elif timer == BEAT and self.is_open:
            self.heartbeat.beat()
        elif timer == SILENCE and self.is_open:
            self._turn.emit(events.Heartbeat(at=self._turn.now.wall, status="timeout"))
            self.give_up(ConnectionLost("heartbeat timeout", code="HeartbeatTimeout"))

    def woke(self) -> None:
        """Do not trust what was there before the machine slept."""
        if self.is_open:
            self.heartbeat.probe()
        elif self.state is LinkState.BACKOFF and self._worth_trying():
            self._turn.stop(RECONNECT)
            self._open()

    def _worth_trying(self) -> bool:
        return self.error is None or self.error.retry is not Retry.SLOW

    # Telling ------------------------------------------------------------------------------------------------

    def _move(
        self, state: LinkState, error: BackbeatError | None = None, retry_in: float | None = None
    ) -> None:
        assert state in MOVES[self.state], (self.state, state)
        self.state = state
        if state is LinkState.FATAL:
            error = self.error
        self._turn.emit(
            events.ConnectionChanged(
                at=self._turn.now.wall, state=state.value, error=error, retry_in=retry_in
            )
        )

    def _settle_waiting(self) -> None:
        for ticket in self._waiting:
            self._turn.settle(ticket)
        self._waiting.clear()

    def _fail_waiting(self, error: BackbeatError) -> None:
        for ticket in self._waiting:
            self._turn.fail(ticket, error)
        self._waiting.clear()

    def _settle_leaving(self) -> None:
        for ticket in self._leaving:
            self._turn.settle(ticket)
        self._leaving.clear()
