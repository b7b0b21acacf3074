"""One turn of the engine: what time it is, and what has to be done when it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from backbeat.client.engine.effects import Emit, Settle, StartTimer, StopTimer, Timer

if TYPE_CHECKING:
    from collections.abc import Callable

    from backbeat.client.engine.effects import Effect
    from backbeat.client.events import Event
    from backbeat.client.settings import ClientSettings

__all__ = ["Now", "Turn"]


class Now(NamedTuple):
    """What the clocks say.

    Attributes:
        steady: seconds of a clock nobody sets; it may stand still while the machine sleeps.
        wall: seconds since the epoch, as `exp` counts them.
    """

    steady: float
    wall: float


class Turn:
    """The time of the current turn, and the effects collected in it.

    Args:
        settings: the client's settings.
        random: returns numbers from 0 to 1, for jitter.
    """

    def __init__(self, settings: ClientSettings, random: Callable[[], float]) -> None:
        self.settings = settings
        self.now = Now(0.0, 0.0)
        self._random = random
        self._effects: list[Effect] = []

    def do(self, effect: Effect) -> None:
        """Have something done."""
        self._effects.append(effect)

    def emit(self, event: Event, *, channel: int | None = None, bindings: tuple[int, ...] = ()) -> None:
        """Tell the user something.

        Args:
            event: what happened.
            channel: the channel it happened on.
            bindings: which change bindings of the channel it matches.
        """
        self._effects.append(Emit(event, channel, bindings))

    def settle(self, ticket: int, value: Any = None) -> None:
        """End the wait for a ticket with a result."""
        self.do(Settle(ticket, value, None))

    def fail(self, ticket: int, error: Exception) -> None:
        """End the wait for a ticket with an error."""
        self.do(Settle(ticket, None, error))

    def start(self, timer: Timer, delay: float) -> None:
        """Start a timer, anew if it is running.

        Args:
            timer: its name.
            delay: seconds.
        """
        self.do(StartTimer(timer, max(delay, 0.0)))

    def stop(self, timer: Timer) -> None:
        """Stop a timer, if it is running."""
        self.do(StopTimer(timer))

    def back_off(self, attempt: int, *, at_least: float = 0.0) -> float:
        """How long to wait before the next attempt, in seconds.

        Args:
            attempt: how many have failed in a row, from 1.
            at_least: the shortest wait, for limits.
        """
        delays = self.settings.backoff
        delay = max(delays[min(attempt, len(delays)) - 1], at_least)
        spread = self.settings.jitter * (2 * self._random() - 1)
        # Nobody comes back early after a limit; everybody comes back at different times.
        return delay * (1 + (abs(spread) if at_least else spread))

    def take(self) -> list[Effect]:
        """The effects collected so far; the next turn begins."""
        effects, self._effects = self._effects, []
        return effects
