"""Subscribers from whom changes are withheld, because something that decides about them fails."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable

__all__ = ["QUIET", "Withheld"]

QUIET: Final = 5.0
"""Seconds without a failure after which it is over: what fails for one row in ten is not told for each."""


@dataclass(slots=True)
class _Missing:
    """What one subscriber misses: since when, and when each cause failed last."""

    since: float
    failing: dict[Hashable, float] = field(default_factory=dict)


class Withheld:
    """Remembers since when subscribers miss changes, so that each is told once, and once when it is over.

    A cause is what fails: a filter, or the policies of a table for somebody. A subscriber may miss changes
    for several; it is over when none of them is left. Times are seconds on any clock that never goes back.
    """

    def __init__(self) -> None:
        self._missing: dict[Hashable, _Missing] = {}

    def __repr__(self) -> str:
        return f"<Withheld subscribers={len(self)}>"

    def __len__(self) -> int:
        return len(self._missing)

    def fails(self, subscriber: Hashable, cause: Hashable, *, since: float, now: float) -> bool:
        """Note that a change was withheld from a subscriber.

        Args:
            subscriber: who misses it.
            cause: what failed.
            since: a time before that change, in seconds since 1970.
            now: the time.

        Returns:
            Whether nobody knew of that cause.
        """
        failing = self._missing.setdefault(subscriber, _Missing(since)).failing
        known = cause in failing
        failing[cause] = now
        return not known

    def works(self, causes: Collection[Hashable], *, now: float) -> list[tuple[Hashable, float]]:
        """Note that what may have failed before did not fail.

        Args:
            causes: what that is.
            now: the time.

        Returns:
            Who gets everything again, and since when it did not.
        """
        over: list[tuple[Hashable, float]] = []
        for subscriber, missing in list(self._missing.items()):
            missing.failing = {
                cause: last
                for cause, last in missing.failing.items()
                if now - last < QUIET or cause not in causes
            }
            if not missing.failing:
                over.append((subscriber, missing.since))
                self.forget(subscriber)
        return over

    def forget(self, subscriber: Hashable) -> float | None:
        """Forget somebody who left or has other filters; tell since when it misses changes, if it does."""
        missing = self._missing.pop(subscriber, None)
        return None if missing is None else missing.since
