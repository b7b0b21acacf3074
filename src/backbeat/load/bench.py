"""A run: which sockets are opened where, and what is measured with them, in turns."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from backbeat.load.crew import Crew
from backbeat.load.orders import Answer, Close, Closed, Open, Opened, Order, Ran, Run, Settle, Settled
from backbeat.load.processes import cpu_seconds
from backbeat.load.refusals import Refusals
from backbeat.load.report import Figure, Report, Row
from backbeat.load.workload import Kind, Stage, Workload, stages

__all__ = ["Bench", "Options", "Side"]

WARM: Final = 0.3
"""The part of the measured time that passes before it."""
HEADSTART: Final = 50_000_000
"""Nanoseconds until all processes begin together."""
MAX_PACE: Final = 100.0
"""Messages per second at which latency is measured, at most: 100,000 deliveries to 1,000 members."""
PILOT: Final = 0.5
"""Seconds to find out what a server can do, where that was not measured."""

_SENDING: Final = (Kind.FANOUT, Kind.TOPICS, Kind.LATENCY)
"""What a limit on messages forbids."""

_A = TypeVar("_A", bound=Answer)


@dataclass(frozen=True, slots=True)
class Side:
    """A server that is measured.

    Attributes:
        name: `server` or `baseline`.
        url: of its socket, with the key.
        pids: its processes, if they are known.
    """

    name: str
    url: str = field(repr=False)
    pids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Options:
    """What is wanted.

    Attributes:
        rows: what to measure.
        only: the kinds that are wanted; none stands for all.
        seconds: how long each row takes, at each server.
        private: whether policies decide about the channels.
        token: a user's token.
        patience: seconds to wait for one socket.
        settle: seconds without any progress after which messages are missing.
        start: the command that starts a server of ours.
    """

    rows: Sequence[Workload]
    only: frozenset[Kind] = frozenset()
    seconds: float = 1.5
    private: bool = False
    token: str = field(default="", repr=False)
    patience: float = 10.0
    settle: float = 2.0
    start: str = "backbeat dev"


@dataclass(frozen=True, slots=True)
class _Seats:
    """Who has joined: topics and members of each, by process."""

    stage: Stage
    shares: tuple[Stage, ...]
    figure: Figure


class Bench:
    """One run.

    Args:
        crew: the processes that make the load.
        target: the server.
        baseline: the plainest server there can be; None to do without.
        options: what is wanted.
        report: where to write what was measured.
        progress: called with what is done next, and which part of everything is done.
    """

    def __init__(
        self,
        crew: Crew,
        target: Side,
        baseline: Side | None,
        *,
        options: Options,
        report: Report,
        progress: Callable[[str, float], None],
    ) -> None:
        self._crew = crew
        self._target = target
        self._sides = [side for side in (target, baseline) if side is not None]
        self._options = options
        self._report = report
        self._progress = progress
        self._stages = list(stages(options.rows, options.only))
        self._steps = sum(len(self._sides) * (1 + len(rows)) for _, rows in self._stages)
        self._step = 0
        self._room: int | None = None
        self._mute = ""
        self._rate = 0.0
        report.planned = sum(len(rows) for _, rows in self._stages)

    async def run(self) -> None:
        """Measure everything.

        Raises:
            StartError: not one socket could join.
        """
        await self._probe()
        for stage, rows in self._stages:
            if self._room is not None and stage.sockets > self._room:
                for row in rows:
                    self._skip(row, f"not tried: it takes {self._room:,} sockets")
                continue
            if self._mute and all(row.kind in _SENDING for row in rows):
                for row in rows:
                    self._skip(row, self._mute)
                continue
            # Several rows are measured in turns, and the pace of a latency follows from both servers; for
            # any other single row, the sockets of both need not be there at the same time.
            apart = len(rows) == 1 and rows[0].kind is not Kind.LATENCY
            batches = [[side] for side in self._sides] if apart else [self._sides]
            seated = stage
            for sides in batches:
                seated = await self._measure(seated, rows, sides)

    async def _probe(self) -> None:
        """See whether one socket can join at all."""
        stage = Stage(1, 1)
        (opened,) = await self._ask({0: self._opening(self._target, stage, 0, "probe")}, Opened)
        await self._crew.ask({0: Close(self._target.name)})
        refusals = Refusals()
        refusals.update(opened.refusals)
        if not opened.joined[0]:
            raise refusals.error(self._report.url, self._options.start)

    async def _measure(self, stage: Stage, rows: Sequence[Workload], sides: Sequence[Side]) -> Stage:
        """Open a stage, measure its rows, and close it; return how much of it there was."""
        seats: dict[str, _Seats] = {}
        for side in sides:
            self._advance(f"{stage.sockets:,} sockets to the {side.name}")
            if stage.sockets:
                seats[side.name] = await self._open(side, stage)
                # Where not everybody could join, the next one gets no more.
                stage = seats[side.name].stage
        for row in rows:
            for side in sides:
                self._advance(f"{row.label}, {side.name}")
                if side.name in seats:
                    await self._row(row, side, seats)
        for name, each in seats.items():
            closed = await self._ask({number: Close(name) for number in range(len(each.shares))}, Closed)
            if name == self._target.name:
                for answer in closed:
                    self._report.refusals.update(answer.refusals)
        return stage

    def _advance(self, what: str) -> None:
        self._progress(what, self._step / self._steps)
        self._step += 1

    # Opening ------------------------------------------------------------------------------------------------

    async def _open(self, side: Side, stage: Stage) -> _Seats:
        shares = stage.shares(self._crew.size)
        name = secrets.token_hex(4)
        before = cpu_seconds(side.pids)
        opened = await self._ask(
            {number: self._opening(side, share, number, name) for number, share in enumerate(shares)}, Opened
        )
        after = cpu_seconds(side.pids)
        seconds = max(each.seconds for each in opened)
        refusals = Refusals()
        for each in opened:
            refusals.update(each.refusals)
        if refusals and side is self._target:
            self._report.refusals.update(refusals.items())
            self._report.asked += stage.sockets
        joined = sum(sum(each.joined) for each in opened)
        if side is self._target and joined < stage.sockets:
            self._room = joined
        figure = Figure(
            rate=joined / seconds,
            client_cpu=max(each.cpu / each.seconds for each in opened),
            server_cpu=(after - before) / seconds if after is not None and before is not None else None,
        )
        if stage.topics == 1:
            seated = tuple(Stage(1, each.joined[0]) for each in opened)
            return _Seats(Stage(1, joined), seated, figure)
        complete = [sum(count == stage.members for count in each.joined) for each in opened]
        seated = tuple(Stage(count, stage.members) for count in complete)
        return _Seats(Stage(sum(complete), stage.members), seated, figure)

    def _opening(self, side: Side, share: Stage, process: int, name: str) -> Open:
        # Members of one topic are spread over processes; many topics are not.
        suffixes = [""] if share.topics == 1 else [f"-{process}-{number}" for number in range(share.topics)]
        return Open(
            side=side.name,
            url=side.url,
            topics=[f"realtime:bench-{name}{suffix}" for suffix in suffixes],
            members=share.members,
            private=self._options.private and side is self._target,
            token=self._options.token if side is self._target else "",
            patience=self._options.patience,
        )

    # Rows ---------------------------------------------------------------------------------------------------

    async def _row(self, workload: Workload, side: Side, all_seats: dict[str, _Seats]) -> None:
        """Measure one row at one server."""
        seats = all_seats[side.name]
        if not seats.stage.sockets or not seats.shares[0].sockets:
            self._skip(workload, "nobody could join")
            return
        if self._mute and workload.kind in _SENDING:
            self._skip(workload, self._mute)
            return
        row = self._place(workload, seats.stage if side is self._target else None)
        if side is not self._target and row.target is None:
            return
        if workload.kind is Kind.JOINS:
            figure: Figure | None = seats.figure
        elif workload.kind is Kind.LATENCY:
            if side is self._target:
                self._rate = await self._pace(all_seats)
            rate = self._rate
            figure = await self._figure(workload, side, seats, self._options.seconds, rate) if rate else None
        else:
            figure = await self._figure(workload, side, seats, self._options.seconds)
        if side is self._target:
            row.target = figure
            if figure is None:
                row.note = "broken off"
        else:
            row.baseline = figure

    def _place(self, workload: Workload, stage: Stage | None = None) -> Row:
        """The row of a workload, in the order of the table."""
        order = [self._index(row.workload) for row in self._report.rows]
        index = self._index(workload)
        if index not in order:
            self._report.rows.append(Row(workload))
            self._report.rows.sort(key=lambda row: self._index(row.workload))
            order = sorted([*order, index])
        row = self._report.rows[order.index(index)]
        if stage is not None:
            row.workload = replace(workload, stage=stage)
        return row

    def _index(self, workload: Workload) -> int:
        """Where a workload stands in the table, with however many members."""
        same = [(row.kind, row.window, row.stage.topics == 1) for row in self._options.rows]
        return same.index((workload.kind, workload.window, workload.stage.topics == 1))

    def _skip(self, workload: Workload, note: str) -> None:
        row = self._place(workload)
        if row.target is None and not row.note:
            row.note = note

    async def _pace(self, all_seats: dict[str, _Seats]) -> float:
        """Messages per second that each server can do: half of what the slower one does at most."""
        fastest: list[float] = []
        for side in self._sides:
            if side.name not in all_seats:
                return 0.0
            seats = all_seats[side.name]
            known = [
                figure.rate
                for row in self._report.rows
                if row.workload.kind is Kind.FANOUT and row.workload.stage == seats.stage
                for figure in [row.target if side is self._target else row.baseline]
                if figure is not None
            ]
            if not known:
                pilot = Workload(Kind.FANOUT, seats.stage, 8)
                figure = await self._figure(pilot, side, seats, PILOT)
                if figure is None:
                    return 0.0
                known = [figure.rate]
            fastest.append(max(known) / seats.stage.members)
        return max(1.0, min(MAX_PACE, min(fastest) / 2))

    async def _figure(
        self, workload: Workload, side: Side, seats: _Seats, seconds: float, rate: float = 0.0
    ) -> Figure | None:
        """Measure, and account for everything; None if the server refused something meanwhile."""
        kind, shares = workload.kind, seats.shares
        run = secrets.token_hex(4)
        begin = time.monotonic_ns() + HEADSTART
        alone = kind is Kind.TOPICS
        orders: dict[int, Order] = {
            number: Run(
                side=side.name,
                kind=kind,
                run=run,
                begin=begin,
                warm=seconds * WARM,
                seconds=seconds,
                window=max(1, workload.window * share.topics // seats.stage.topics)
                if alone
                else workload.window,
                members=[share.members] if alone else [each.members for each in shares],
                process=number,
                rate=rate,
                pids=list(side.pids),
            )
            for number, share in enumerate(shares)
            if share.sockets
        }
        ran = await self._ask(orders, Ran)
        sent = None if kind in (Kind.TOPICS, Kind.HEARTBEATS) else ran[0].sent
        settled: list[Settled] = []
        if not any(each.refusals for each in ran):
            settled = await self._ask(
                {number: Settle(side.name, sent, self._options.settle) for number in orders}, Settled
            )
        refusals = Refusals()
        for counted in [each.refusals for each in ran] + [each.refusals for each in settled]:
            refusals.update(counted)
        if not refusals:
            return Figure.of(ran, settled)
        if side is self._target:
            self._report.refusals.update(refusals.items())
            self._mute = "not tried after that"
        return None

    async def _ask(self, orders: Mapping[int, Order], kind: type[_A]) -> list[_A]:
        answers = await self._crew.ask(orders)
        return [answer for answer in answers if isinstance(answer, kind)]
