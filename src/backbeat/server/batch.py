"""Bytes on their way to many members, some of them a turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from backbeat.server.delivery import Member
    from backbeat.server.metrics import Metrics

__all__ = ["Batch", "Write", "cost", "write_each"]

log = structlog.get_logger("backbeat.batch")

Write = Callable[[bytes], None]

WRITE_BYTES: Final = 16_384
"""Bytes that are as much work to copy into a socket as the call is."""


def cost(data: bytes) -> int:
    """What one write costs, in writes of a small message.

    Args:
        data: what is written.
    """
    return 1 + len(data) // WRITE_BYTES


def write_each(writes: Iterable[Write], data: bytes, metrics: Metrics) -> None:
    """Write the same to many; one that cannot be written to costs nobody else anything.

    Args:
        writes: how to write to each.
        data: whole frames.
        metrics: counts failures.
    """
    for write in writes:
        try:
            write(data)
        except Exception:
            metrics.handler_failures += 1
            log.exception("write failed", bytes=len(data))


def _nothing(_: bytes) -> None:
    """In place of a write that was done already."""


class Batch:
    """The same bytes for each of many members.

    Args:
        data: whole frames.
        members: for whom, and how to write to each.
        metrics: counts failures.
    """

    __slots__ = ("_data", "_members", "_metrics", "_next", "_positions", "_writes")

    def __init__(self, data: bytes, members: Mapping[Member, Write], metrics: Metrics) -> None:
        self._data = data
        self._metrics = metrics
        self._members = list(members)
        self._writes = list(members.values())
        self._next = 0
        self._positions: dict[Member, int] | None = None

    def __repr__(self) -> str:
        return f"<Batch bytes={len(self._data)} left={len(self._writes) - self._next}>"

    @property
    def size(self) -> int:
        """Bytes that are kept for it."""
        return len(self._data)

    @property
    def done(self) -> bool:
        """Whether everybody has it."""
        return self._next >= len(self._writes)

    def send(self, budget: float) -> int:
        """Write to the next members.

        Args:
            budget: about how much it may cost; at least one write is done.

        Returns:
            What it cost.
        """
        first, each = self._next, cost(self._data)
        most = len(self._writes) - first
        count = most if budget >= most * each else max(1, int(budget) // each)
        write_each(self._writes[first : first + count], self._data, self._metrics)
        self._next = first + count
        return count * each

    def catch_up(self, member: Member) -> None:
        """Write to one member now, unless it has it already.

        Args:
            member: who; nothing happens to one whom it is not for.
        """
        if self._positions is None:
            self._positions = {each: position for position, each in enumerate(self._members)}
        position = self._positions.get(member)
        if position is not None and position >= self._next:
            write_each((self._writes[position],), self._data, self._metrics)
            self._writes[position] = _nothing
