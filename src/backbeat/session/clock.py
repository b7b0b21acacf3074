"""The clocks of this machine, behind an interface that a test can replace."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from backbeat.session.policy import ServerTime

__all__ = ["Clock", "ServerClock", "SystemClock"]


class Clock(Protocol):
    """Tells the time, and lets it pass."""

    def wall(self) -> float:
        """Seconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds since some moment; never set, but it may stand still while the machine sleeps."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The real clocks."""

    def wall(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class ServerClock:
    """What time it is at the auth service, as far as its answers have told.

    Args:
        clock: the clocks here.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._time = ServerTime()

    def learn(self, date: float | None) -> None:
        """Note what time an answer says it is, in seconds since the epoch; None for one that does not."""
        if date is not None:
            self._time.learn(date, wall=self._clock.wall(), monotonic=self._clock.monotonic())

    def now(self) -> float:
        """Seconds since the epoch, there."""
        return self._time.now(wall=self._clock.wall(), monotonic=self._clock.monotonic())
