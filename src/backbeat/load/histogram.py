"""How often something took how long: exact below 128 microseconds, within 1.6 % above."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

__all__ = ["Histogram"]

_BITS = 7
"""Significant bits that are kept."""


class Histogram:
    """Durations, counted in buckets that grow with them.

    Args:
        counts: buckets of another one, as `counts` gives them.
    """

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts: Counter[int] = Counter(counts or {})

    def __len__(self) -> int:
        return self.counts.total()

    def add(self, nanoseconds: int) -> None:
        """Count a duration."""
        microseconds = max(0, nanoseconds // 1000)
        surplus = max(0, microseconds.bit_length() - _BITS)
        self.counts[microseconds >> surplus << surplus] += 1

    def update(self, counts: Mapping[int, int]) -> None:
        """Add what another one has counted."""
        self.counts.update(counts)

    def percentile(self, share: float) -> float:
        """The duration that this share of all does not exceed, in milliseconds.

        Args:
            share: from 0 to 1.

        Raises:
            ValueError: nothing was counted.
        """
        if not self.counts:
            raise ValueError("nothing was counted")
        left = share * len(self)
        bucket = 0
        for bucket in sorted(self.counts):
            left -= self.counts[bucket]
            if left <= 0:
                break
        surplus = max(0, bucket.bit_length() - _BITS)
        return (bucket + ((1 << surplus) - 1) / 2) / 1000
