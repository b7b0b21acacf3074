"""Subscribers whose filters Postgres cannot evaluate, because they take too long or fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable

    from backbeat.protocol.filters import Comparison

__all__ = ["Unfiltered"]


class Unfiltered:
    """Remembers since when subscribers get nothing, so that each is told once, and once when it is over.

    A subscriber may have several filters; it gets everything again when all of them can be evaluated.
    """

    def __init__(self) -> None:
        self._failing: dict[Hashable, set[Comparison]] = {}
        self._since: dict[Hashable, float] = {}

    def __repr__(self) -> str:
        return f"<Unfiltered subscribers={len(self._since)}>"

    def __len__(self) -> int:
        return len(self._since)

    def fails(self, subscriber: Hashable, comparison: Comparison, since: float) -> bool:
        """Note that a comparison could not be made for a subscriber.

        Args:
            subscriber: who misses a change.
            comparison: what failed.
            since: a time before that change, in seconds since 1970.

        Returns:
            Whether nobody knew.
        """
        failing = self._failing.setdefault(subscriber, set())
        known = comparison in failing
        failing.add(comparison)
        self._since.setdefault(subscriber, since)
        return not known

    def works(self, comparisons: Collection[Comparison]) -> list[tuple[Hashable, float]]:
        """Note that comparisons could be made.

        Returns:
            Who gets everything again, and since when it did not.
        """
        over: list[tuple[Hashable, float]] = []
        for subscriber, failing in list(self._failing.items()):
            failing.difference_update(comparisons)
            if not failing:
                over.append((subscriber, self._since[subscriber]))
                self.forget(subscriber)
        return over

    def forget(self, subscriber: Hashable) -> None:
        """Forget somebody who left, or subscribed anew."""
        self._failing.pop(subscriber, None)
        self._since.pop(subscriber, None)
