"""Clocks that only a test moves."""

from __future__ import annotations

import asyncio
from itertools import count

TURNS = 20
"""How often the others get a turn after each step: a sleeper that wakes up may take several to act."""


class VirtualClock:
    """Wall and monotonic time that pass when the test says so, or as soon as somebody sleeps.

    Args:
        now: seconds since the epoch.
        flies: whether a sleep passes at once.
    """

    def __init__(self, now: float = 1_700_000_000.0, *, flies: bool = False) -> None:
        self._wall = now
        self._monotonic = 5_000.0
        self._flies = flies
        self._numbers = count()
        self._sleepers: dict[int, tuple[float, asyncio.Future[None]]] = {}
        self.slept: list[float] = []

    def wall(self) -> float:
        """Seconds since the epoch."""
        return self._wall

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        """Wait until the test has moved the clock so far."""
        self.slept.append(seconds)
        if self._flies:
            self._pass(seconds)
            await asyncio.sleep(0)
            return
        number, woken = next(self._numbers), asyncio.get_running_loop().create_future()
        self._sleepers[number] = (self._monotonic + seconds, woken)
        try:
            await woken
        finally:
            self._sleepers.pop(number, None)

    def set_wall(self, now: float) -> None:
        """Put the wall clock right, or wrong."""
        self._wall = now

    async def advance(self, seconds: float) -> None:
        """Let time pass: whoever sleeps wakes up when it is time, one after the other."""
        end = self._monotonic + seconds
        await self.settle()
        while due := [each for each in self._sleepers.values() if each[0] <= end]:
            when, woken = min(due, key=lambda each: each[0])
            self._pass(max(0.0, when - self._monotonic))
            if not woken.done():
                woken.set_result(None)
            await self.settle()
        self._pass(end - self._monotonic)
        await self.settle()

    async def suspend(self, seconds: float) -> None:
        """Close the laptop: the wall clock goes on, the monotonic one stands still."""
        self._wall += seconds
        await self.settle()

    async def settle(self) -> None:
        """Let everybody do what there is to do now."""
        for _ in range(TURNS):
            await asyncio.sleep(0)

    def _pass(self, seconds: float) -> None:
        self._wall += seconds
        self._monotonic += seconds
