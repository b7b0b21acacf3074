"""What was measured, and what there is to say about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from backbeat.load.histogram import Histogram
from backbeat.load.orders import Ran, Settled
from backbeat.load.refusals import Refusals
from backbeat.load.workload import Kind, Workload

__all__ = ["BUSY", "Figure", "Report", "Row"]

BUSY: Final = 0.9
"""The share of a processor from which on the client may be what limits."""

AT_LEAST: Final = "≥ "
AT_MOST: Final = "≤ "


@dataclass(frozen=True, slots=True)
class Figure:
    """One measurement at one server.

    Attributes:
        rate: deliveries, replies or sockets per second.
        client_cpu: the share of a processor that the busiest process of the client used.
        server_cpu: the same of the server, if it is known.
        expected: how many deliveries or replies there should have been, the warm-up included.
        missing: how many of them did not come.
        repeated: how many came again.
        p50: milliseconds that half of the deliveries did not exceed.
        p99: milliseconds that 99 % of them did not exceed.
    """

    rate: float
    client_cpu: float
    server_cpu: float | None = None
    expected: int = 0
    missing: int = 0
    repeated: int = 0
    p50: float | None = None
    p99: float | None = None

    @classmethod
    def of(cls, ran: Sequence[Ran], settled: Sequence[Settled]) -> Figure:
        """Add up what processes have measured."""
        histogram = Histogram()
        for each in settled:
            histogram.update(each.latencies)
        server_cpu = ran[0].server_cpu
        return cls(
            rate=sum(each.count / each.seconds for each in ran),
            client_cpu=max(each.cpu / each.seconds for each in ran),
            server_cpu=None if server_cpu is None else server_cpu / ran[0].seconds,
            expected=sum(each.expected for each in settled),
            missing=sum(each.missing for each in settled),
            repeated=sum(each.repeated for each in settled),
            p50=histogram.percentile(0.5) if len(histogram) else None,
            p99=histogram.percentile(0.99) if len(histogram) else None,
        )

    @property
    def per_cpu_second(self) -> float | None:
        """What a second of the server's processor time is enough for."""
        return self.rate / self.server_cpu if self.server_cpu else None

    @property
    def right(self) -> bool:
        """Whether everything came, once."""
        return not self.missing and not self.repeated

    @property
    def bounded(self) -> bool:
        """Whether the client had no time for more, so that the server might have done more."""
        return self.client_cpu >= BUSY


@dataclass(slots=True)
class Row:
    """One row of the table.

    Attributes:
        workload: what was measured, with as many members as there were.
        target: the figure of the server; None if there is none.
        baseline: that of the plainest server, if it was measured.
        note: why there is none.
    """

    workload: Workload
    target: Figure | None = None
    baseline: Figure | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """The figure of the server by that of the baseline; of a latency, the median.

        None where both are limits of the client: that ratio would be 1, whatever the servers can do.
        """
        target, baseline = self.target, self.baseline
        if target is None or baseline is None:
            return None
        if self.workload.kind is Kind.LATENCY:
            return _ratio(target.p50, baseline.p50)
        return None if target.bounded and baseline.bounded else _ratio(target.rate, baseline.rate)

    @property
    def cpu_ratio(self) -> float | None:
        """The same of what a second of their processor time is enough for."""
        if self.target is None or self.baseline is None or self.workload.kind is Kind.LATENCY:
            return None
        return _ratio(self.target.per_cpu_second, self.baseline.per_cpu_second)

    def cells(self) -> list[str]:
        """The row as people read it: what, server, baseline, ratio, per CPU second, its ratio, client CPU."""
        per_cpu = None
        if self.target is not None and self.workload.kind is not Kind.LATENCY:
            per_cpu = self.target.per_cpu_second
        return [
            self.workload.label,
            self._value(self.target) or self.note,
            self._value(self.baseline),
            self._ratio(),
            "" if per_cpu is None else f"{per_cpu:,.0f}",
            "" if self.cpu_ratio is None else f"{self.cpu_ratio:.2f}",
            "" if self.target is None else f"{self.target.client_cpu:.0%}",
        ]

    def _value(self, figure: Figure | None) -> str:
        if figure is None:
            return ""
        if figure.p50 is not None and figure.p99 is not None:
            return f"{figure.p50:.2f} / {figure.p99:.2f}"
        return f"{AT_LEAST if figure.bounded else ''}{figure.rate:,.0f}"

    def _ratio(self) -> str:
        if self.ratio is None or self.target is None or self.baseline is None:
            return ""
        if self.workload.kind is Kind.LATENCY or self.target.bounded == self.baseline.bounded:
            return f"{self.ratio:.2f}"
        return f"{AT_LEAST if self.target.bounded else AT_MOST}{self.ratio:.2f}"

    def remarks(self) -> Iterable[str]:
        """What is to be known about the row."""
        for name, figure in (("the server", self.target), ("the baseline", self.baseline)):
            if figure is not None and not figure.right:
                yield (
                    f"{self.workload.label}: of {figure.expected:,} messages that {name} should have sent, "
                    f"{figure.missing:,} did not arrive, and {figure.repeated:,} arrived again. The figure "
                    "is worth nothing."
                )
        if self.workload.kind is Kind.LATENCY and self.target is not None:
            yield f"Latency is that of {self.target.rate:,.0f} deliveries per second; a low ratio is good."

    def as_json(self) -> dict[str, Any]:
        """The row for machines."""
        return {
            "kind": self.workload.kind.value,
            "label": self.workload.label,
            "topics": self.workload.stage.topics,
            "members": self.workload.stage.members,
            "window": self.workload.window,
            "unit": self.workload.unit,
            "server": _figure_json(self.target),
            "baseline": _figure_json(self.baseline),
            "ratio": self.ratio,
            "cpu_ratio": self.cpu_ratio,
            "note": self.note,
        }


@dataclass(slots=True)
class Report:
    """All that a run told.

    Attributes:
        url: where the server is, without the key.
        planned: how many rows there should be.
        rows: those there are, in the order of the table.
        refusals: what the server refused.
        asked: how many sockets it was asked for, where it refused some.
        notes: what else is to be known.
        interrupted: whether somebody ended it.
    """

    url: str
    planned: int = 0
    rows: list[Row] = field(default_factory=list)
    refusals: Refusals = field(default_factory=Refusals)
    asked: int = 0
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False

    @property
    def complete(self) -> bool:
        """Whether every row is there, nothing was refused, lost or repeated."""
        figures = [figure for row in self.rows for figure in (row.target, row.baseline) if figure is not None]
        whole = len(self.rows) == self.planned and all(row.target is not None for row in self.rows)
        return whole and not self.refusals and all(figure.right for figure in figures)

    def remarks(self, start: str) -> list[str]:
        """What there is to say below the table.

        Args:
            start: the command that starts a server of ours.
        """
        lines = list(self.notes)
        for row in self.rows:
            lines += row.remarks()
        if any("≥" in cell or "≤" in cell for row in self.rows for cell in row.cells()):
            lines.append(
                f"≥ The client was busy for {BUSY:.0%} of the time or more: the figure is its limit, not "
                "that of the server. More processes (--processes) measure more, where there are processors "
                "for them. Of two such figures there is no ratio; the one per CPU second holds all the same."
            )
        checked = sum(row.target.expected for row in self.rows if row.target is not None and row.target.right)
        if checked:
            lines.append(f"Every message arrived exactly once where it should: {checked:,} were counted.")
        if self.refusals:
            lines += self.refusals.lines("the server", self.asked)
            lines.append(self.refusals.advice(start))
        if self.interrupted:
            measured = sum(row.target is not None for row in self.rows)
            lines.append(f"Interrupted: {measured} of {self.planned} rows were measured.")
        return lines

    def as_json(self) -> dict[str, Any]:
        """The report for machines."""
        refusals = [
            {
                "step": refusal.step.value,
                "status": refusal.status or None,
                "text": refusal.text,
                "count": count,
            }
            for refusal, count in self.refusals.items()
        ]
        return {
            "url": self.url,
            "complete": self.complete,
            "interrupted": self.interrupted,
            "rows": [row.as_json() for row in self.rows],
            "refusals": refusals,
            "notes": self.notes,
        }


def _ratio(of: float | None, by: float | None) -> float | None:
    return of / by if of is not None and by else None


def _figure_json(figure: Figure | None) -> dict[str, Any] | None:
    if figure is None:
        return None
    return {
        "per_second": figure.rate,
        "per_server_cpu_second": figure.per_cpu_second,
        "server_cpu": figure.server_cpu,
        "client_cpu": figure.client_cpu,
        "client_is_the_limit": figure.bounded,
        "p50_ms": figure.p50,
        "p99_ms": figure.p99,
        "expected": figure.expected,
        "missing": figure.missing,
        "repeated": figure.repeated,
    }
