"""Which messages of a run have reached one member: each must, exactly once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backbeat.load.wire import Digest

__all__ = ["Receipts"]


class Receipts:
    """The messages that one member has got.

    Messages of one sender come in order almost always, so a number is kept instead of a set; what comes in
    another order is accounted for one by one.

    Attributes:
        upcoming: the number after the highest one that came.
        skipped: numbers below it that did not come.
        repeated: how often something came again.
    """

    __slots__ = ("repeated", "skipped", "upcoming")

    def __init__(self) -> None:
        self.upcoming = 0
        self.skipped: set[int] = set()
        self.repeated = 0

    def take(self, digest: Digest) -> int:
        """Note what came; return how many messages were new."""
        if digest.first == self.upcoming and digest.solid:
            self.upcoming = digest.after
            return len(digest.numbers)
        return sum(map(self._one, digest.numbers))

    def _one(self, number: int) -> bool:
        if number >= self.upcoming:
            self.skipped.update(range(self.upcoming, number))
            self.upcoming = number + 1
        elif number in self.skipped:
            self.skipped.remove(number)
        else:
            self.repeated += 1
            return False
        return True

    def missing(self, sent: int) -> int:
        """How many of so many messages did not come."""
        return len(self.skipped) + max(0, sent - self.upcoming)
