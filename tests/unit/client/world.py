"""The engine and a server in memory, joined by a clock that only the test moves: no event loop."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, TypeVar

from backbeat.client import events
from backbeat.client.config import ChannelConfig
from backbeat.client.engine import Engine, effects, inputs
from backbeat.client.engine.membership import Membership
from backbeat.client.engine.turn import Now
from backbeat.client.settings import ClientSettings
from backbeat.errors import UpgradeRefused
from backbeat.testing import MemoryConnection, MemoryServer
from backbeat.tokens.verifier import sign

SECRET = "a secret of at least thirty-two bytes"
START = 1_700_000_000.0

E = TypeVar("E", bound=events.Event)

_serial = count(1)


def jwt(sub: str = "eric", *, lives: float = 3600.0, now: float = START, role: str = "authenticated") -> str:
    """A user's token, another one at each call."""
    claims = {"role": role, "sub": sub, "exp": now + lives, "iat": now, "jti": next(_serial)}
    return sign(claims, SECRET)


@dataclass
class Outcome:
    """How a command ended."""

    value: Any = None
    error: Exception | None = None


class World:
    """Everything a client needs, without time and without a network.

    Args:
        token: the client's static token.
        source: whether there is a token source; it answers with `answer`, or the test does.
        answer: what the source says at once; `...` lets the test say it.
        **settings: attributes of `ClientSettings`.
    """

    def __init__(
        self, *, token: str | None = None, source: bool = False, answer: Any = ..., **settings: Any
    ) -> None:
        self.settings = ClientSettings(**{"jitter": 0.0} | settings)
        self.steady, self.wall = 1000.0, START
        self.server = MemoryServer()
        self.engine = Engine(self.settings, static=token, can_ask=source, random=lambda: 0.5)
        self.answer = answer
        self.asked: list[int] = []
        self.refused_asked: list[int] = []
        self.cancelled: list[int] = []
        self.events: list[tuple[events.Event, int | None]] = []
        self.bindings: list[tuple[int, ...]] = []
        self.outcomes: dict[int, Outcome] = {}
        self.sent: list[str | bytes] = []
        self.opens = 0
        self.open_sockets = 0
        self.most_open_sockets = 0
        self.slow_upgrades = False
        self._inbox: deque[inputs.Input] = deque()
        self._timers: dict[effects.Timer, tuple[float, int]] = {}
        self._due: list[tuple[float, int, effects.Timer]] = []
        self._order = count()
        self._tickets = count(1)
        self._channels = count(1)
        self._connections: dict[int, MemoryConnection] = {}
        self._busy = False

    # Telling ------------------------------------------------------------------------------------------------

    def tell(self, given: inputs.Input) -> None:
        """Tell the engine something, and carry out everything that follows at once."""
        self._inbox.append(given)
        if self._busy:
            return
        self._busy = True
        try:
            while self._inbox:
                for effect in self.engine.handle(self._inbox.popleft(), Now(self.steady, self.wall)):
                    self._carry_out(effect)
        finally:
            self._busy = False

    def command(self, make: Callable[[int], inputs.Input]) -> int:
        """Give a command; return its ticket."""
        ticket = next(self._tickets)
        self.tell(make(ticket))
        return ticket

    def outcome(self, ticket: int) -> Outcome:
        """How a command ended; it is an error if it has not."""
        return self.outcomes[ticket]

    def settled(self, ticket: int) -> bool:
        """Whether a command ended."""
        return ticket in self.outcomes

    def advance(self, seconds: float) -> None:
        """Let time pass, and timers run out on the way."""
        end = self.steady + seconds
        while self._due and self._due[0][0] <= end:
            at, order, timer = heapq.heappop(self._due)
            if self._timers.get(timer) != (at, order):
                continue
            del self._timers[timer]
            self._pass(max(at - self.steady, 0.0))
            self.tell(inputs.TimerFired(timer))
        self._pass(end - self.steady)

    def sleep(self, seconds: float) -> None:
        """Let the machine sleep: the wall clock goes on, the steady clock and all timers stand still."""
        self.wall += seconds

    def _pass(self, seconds: float) -> None:
        self.steady += seconds
        self.wall += seconds

    @property
    def timers(self) -> set[effects.Timer]:
        """The timers that run."""
        return set(self._timers)

    def forget(self) -> None:
        """Let go of what is remembered for the test alone: what was sent, told and settled."""
        for memory in (self.events, self.bindings, self.outcomes, self.sent, self.asked):
            memory.clear()
        self.server.received.clear()
        self._due = [entry for entry in self._due if self._timers.get(entry[2]) == entry[:2]]
        heapq.heapify(self._due)

    # What tests say often -----------------------------------------------------------------------------------

    def subscribe(
        self,
        topic: str = "room",
        *,
        channel: int | None = None,
        ready: Literal["joined", "streaming"] = "joined",
        timeout: float = 10.0,
        **config: Any,
    ) -> tuple[int, int]:
        """Subscribe a channel; return its number and the ticket."""
        number = next(self._channels) if channel is None else channel
        ticket = self.command(
            lambda ticket: inputs.Subscribe(ticket, number, topic, ChannelConfig(**config), ready, timeout)
        )
        return number, ticket

    def joined(self, topic: str = "room", **config: Any) -> int:
        """Subscribe a channel, and check that it is joined."""
        number, ticket = self.subscribe(topic, **config)
        assert self.outcome(ticket).error is None
        return number

    def unsubscribe(self, channel: int) -> int:
        """Leave a channel."""
        return self.command(lambda ticket: inputs.Unsubscribe(ticket, channel))

    def remove(self, channel: int) -> None:
        """Leave a channel and forget it."""
        self.unsubscribe(channel)
        self.tell(inputs.RemoveChannel(channel))

    def set_auth(self, token: str, *, pin: bool = True) -> int:
        """Give a token."""
        return self.command(lambda ticket: inputs.SetAuth(ticket, token, pin))

    def use_source(self) -> int:
        """Go back to the source."""
        return self.command(inputs.UseSource)

    def clear_auth(self) -> int:
        """Be nobody."""
        return self.command(inputs.ClearAuth)

    def resolve(self, value: str | None, request: int | None = None) -> None:
        """Let the source answer the newest question, or another one."""
        self.tell(inputs.TokenResolved(self.asked[-1] if request is None else request, value))

    def fail_token(self, error: Exception, request: int | None = None) -> None:
        """Let the source raise."""
        self.tell(inputs.TokenFailed(self.asked[-1] if request is None else request, error))

    def broadcast(self, channel: int, event: str = "hi", **options: Any) -> int:
        """Send a broadcast."""
        settings: dict[str, Any] = {"payload": b"{}", "is_json": True, "timeout": 10.0} | options
        return self.command(lambda ticket: inputs.Broadcast(ticket, channel, event, **settings))

    def track(self, channel: int, payload: dict[str, Any] | None, *, timeout: float = 10.0) -> int:
        """Track a presence."""
        return self.command(lambda ticket: inputs.Track(ticket, channel, payload, timeout))

    def membership(self, channel: int) -> Membership:
        """A channel, as the engine sees it."""
        return self.engine.channels[channel]

    def state(self, channel: int) -> str:
        """The state of a channel."""
        return self.membership(channel).state.value

    def of(self, kind: type[E], channel: int | None = None) -> list[E]:
        """The events of a kind, in order."""
        return [
            event for event, number in self.events if isinstance(event, kind) and channel in (None, number)
        ]

    def join_tokens(self, topic: str | None = None) -> list[str | None]:
        """The token of each join, in order."""
        return [join.get("access_token") for join in self.server.joins(topic)]

    def pushed_tokens(self, topic: str | None = None) -> list[object]:
        """The payload of each `access_token` push, in order."""
        return [each.payload for each in self.server.of("access_token", topic)]

    # The other side -----------------------------------------------------------------------------------------

    def open_socket(self, connection: int | None = None) -> None:
        """Let a slow upgrade come to its end."""
        number = self.opens if connection is None else connection
        try:
            self.server.admit()
        except UpgradeRefused as refused:
            self._ended(
                number, inputs.SocketRefused(number, refused.status, refused.body, refused.retry_after)
            )
        except OSError as error:
            self._ended(number, inputs.SocketFailed(number, str(error)))
        else:
            self._connections[number] = self.server.connect(
                self.settings.vsn,
                write=lambda frame: self.tell(inputs.FramesReceived(number, [frame])),
                hang_up=lambda code, reason: self._ended(number, inputs.SocketClosed(number, code, reason)),
            )
            self.tell(inputs.SocketOpened(number, self.server.server_time))

    def _ended(self, number: int, end: inputs.Input) -> None:
        self.open_sockets -= 1
        self._connections.pop(number, None)
        self.tell(end)

    def _carry_out(self, effect: effects.Effect) -> None:
        if isinstance(effect, effects.OpenSocket):
            self.opens += 1
            self.open_sockets += 1
            self.most_open_sockets = max(self.most_open_sockets, self.open_sockets)
            if not self.slow_upgrades:
                self.open_socket(effect.connection)
        elif isinstance(effect, effects.CloseSocket):
            connection = self._connections.get(effect.connection)
            if connection is not None:
                connection.close(effect.code, effect.reason)
            else:
                self._ended(effect.connection, inputs.SocketClosed(effect.connection))
        elif isinstance(effect, effects.Send):
            self._send(effect)
        elif isinstance(effect, effects.StartTimer):
            entry = self.steady + effect.delay, next(self._order)
            self._timers[effect.timer] = entry
            heapq.heappush(self._due, (*entry, effect.timer))
        elif isinstance(effect, effects.StopTimer):
            self._timers.pop(effect.timer, None)
        elif isinstance(effect, effects.AskToken):
            self.asked.append(effect.request)
            if effect.refused:
                self.refused_asked.append(effect.request)
            if self.answer is not ...:
                answer = self.answer() if callable(self.answer) else self.answer
                self.tell(inputs.TokenResolved(effect.request, answer))
        elif isinstance(effect, effects.StopAsking):
            self.cancelled.append(effect.request)
        elif isinstance(effect, effects.Settle):
            assert effect.ticket not in self.outcomes, "a ticket was settled twice"
            self.outcomes[effect.ticket] = Outcome(effect.value, effect.error)
        else:
            self.events.append((effect.event, effect.channel))
            if effect.bindings:
                self.bindings.append(effect.bindings)

    def _send(self, effect: effects.Send) -> None:
        connection = self._connections.get(effect.connection)
        if connection is None:
            return
        frame = effect.compose()
        if frame is not None:
            self.sent.append(frame)
            connection.receive(frame)
            if effect.receipt is not None:
                self.tell(inputs.FrameWritten(effect.connection, *effect.receipt))
