"""What is measured: the rows of the table, and the sockets each of them needs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

__all__ = ["ROWS", "Kind", "Stage", "Workload", "fitted", "scaled", "stages"]


class Kind(StrEnum):
    """What a row tells."""

    FANOUT = "fanout"
    TOPICS = "topics"
    HEARTBEATS = "heartbeats"
    JOINS = "joins"
    LATENCY = "latency"


@dataclass(frozen=True, slots=True)
class Stage:
    """Sockets, each of which has joined one topic.

    Attributes:
        topics: how many topics there are.
        members: how many sockets have joined each of them.
    """

    topics: int
    members: int

    @property
    def sockets(self) -> int:
        """All of them."""
        return self.topics * self.members

    def shares(self, processes: int) -> list[Stage]:
        """Deal the sockets out among processes, no more than there is work for.

        One topic is divided; of many topics each stays in one process.
        """
        whole = self.members if self.topics == 1 else self.topics
        processes = min(processes, whole)
        parts = [(whole + number) // processes for number in range(processes)]
        return [Stage(1, part) if self.topics == 1 else Stage(part, self.members) for part in parts]


@dataclass(frozen=True, slots=True)
class Workload:
    """One row.

    Attributes:
        kind: what is measured.
        stage: with which sockets.
        window: messages in flight; for all topics together.
    """

    kind: Kind
    stage: Stage
    window: int = 1

    @property
    def label(self) -> str:
        """What the row is called."""
        match self.kind:
            case Kind.FANOUT:
                return f"deliveries: one topic, {self.stage.members:,} members, {self.window} in flight"
            case Kind.TOPICS:
                return f"deliveries: {self.stage.topics:,} topics x {self.stage.members} members"
            case Kind.HEARTBEATS:
                return f"heartbeats and replies: {self.stage.sockets:,} sockets"
            case Kind.JOINS:
                return f"handshakes with a join: {self.stage.sockets:,} sockets"
            case Kind.LATENCY:
                return f"latency p50 / p99 in ms: {self.stage.members:,} members"

    @property
    def unit(self) -> str:
        """What is counted for each second."""
        match self.kind:
            case Kind.HEARTBEATS:
                return "replies/s"
            case Kind.JOINS:
                return "sockets/s"
            case _:
                return "deliveries/s"


_THOUSAND: Final = Stage(1, 1000)

ROWS: Final = (
    Workload(Kind.FANOUT, _THOUSAND, 1),
    Workload(Kind.FANOUT, _THOUSAND, 8),
    Workload(Kind.FANOUT, Stage(1, 5000), 4),
    Workload(Kind.FANOUT, Stage(1, 100), 32),
    Workload(Kind.TOPICS, Stage(1000, 10), 512),
    Workload(Kind.HEARTBEATS, _THOUSAND),
    Workload(Kind.JOINS, _THOUSAND),
    Workload(Kind.LATENCY, _THOUSAND),
)
"""The rows, in the order of the table."""

_ORDER: Final = (Kind.JOINS, Kind.HEARTBEATS, Kind.FANOUT, Kind.TOPICS, Kind.LATENCY)
"""The order in which the rows of one stage are measured: joins are counted while it opens, and the rate at
which latency is measured follows from what was measured before."""


def scaled(rows: Sequence[Workload], members: int) -> list[Workload]:
    """The rows with so many members where there would be 1,000, and all others in proportion.

    Args:
        rows: the rows.
        members: at least 1.
    """
    return [replace(row, stage=_scaled(row.stage, members)) for row in rows]


def _scaled(stage: Stage, members: int) -> Stage:
    if stage.topics == 1:
        return Stage(1, max(1, stage.members * members // 1000))
    return Stage(max(2, stage.topics * members // 1000), stage.members)


def fitted(rows: Sequence[Workload], sockets: int) -> list[Workload]:
    """The rows, with stages made smaller that need more than so many sockets."""
    return [replace(row, stage=_fitted(row.stage, sockets)) for row in rows]


def _fitted(stage: Stage, sockets: int) -> Stage:
    if stage.sockets <= sockets:
        return stage
    if stage.topics == 1:
        return Stage(1, max(1, sockets))
    return Stage(max(1, sockets // stage.members), stage.members)


def stages(rows: Sequence[Workload], only: Collection[Kind]) -> Iterator[tuple[Stage, list[Workload]]]:
    """The stages in the order they are opened, each with what is measured in it.

    Args:
        rows: the rows.
        only: the kinds that are wanted; none stands for all.
    """
    wanted = [row for row in rows if not only or row.kind in only]
    for stage in dict.fromkeys(row.stage for row in wanted):
        rows_here = [row for row in wanted if row.stage == stage]
        yield stage, sorted(rows_here, key=lambda row: _ORDER.index(row.kind))
