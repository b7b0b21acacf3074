"""Which sockets are opened where, and what is measured with them; the processes answer as they are told."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from backbeat.errors import StartError
from backbeat.load.bench import Bench, Options, Side
from backbeat.load.crew import Crew
from backbeat.load.orders import Answer, Close, Closed, Open, Opened, Order, Ran, Run, Settle, Settled
from backbeat.load.refusals import Refusal, Step
from backbeat.load.report import Report
from backbeat.load.workload import ROWS, Kind, scaled

FULL = Refusal(Step.UPGRADE, "Too many connected users", 429)
FLOOD = Refusal(Step.MESSAGE, "Too many messages per second")


class Players(Crew):
    """Processes that measure nothing.

    Args:
        size: how many.
        room: sockets the server takes.
        messages: whether it takes messages.
        rates: deliveries of a second, by side.
    """

    def __init__(
        self,
        size: int = 1,
        *,
        room: int = 10**6,
        messages: bool = True,
        rates: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(size)
        self._room = room
        self._messages = messages
        self._rates = rates or {}
        self.orders: list[tuple[int, Order]] = []

    async def ask(self, orders: Mapping[int, Order]) -> list[Answer]:
        """Answer at once."""
        self.orders += orders.items()
        return [self._answer(order) for order in orders.values()]

    def _answer(self, order: Order) -> Answer:
        match order:
            case Open():
                room = self._room if order.side == "server" else 10**6
                wanted = order.members * len(order.topics)
                joined = [
                    max(0, min(order.members, room - n * order.members)) for n in range(len(order.topics))
                ]
                refused = wanted - sum(joined)
                return Opened(joined, 1.0, 0.5, [(FULL, refused)] if refused else [])
            case Run():
                refusals = [] if self._messages or order.kind is Kind.HEARTBEATS else [(FLOOD, 1)]
                return Ran(self._rates.get(order.side, 100), 1.0, 0.5, None, 7, refusals)
            case Settle():
                return Settled(70, 0, 0, {5: 1}, [])
            case Close():
                return Closed([])

    def opened(self, side: str) -> list[int]:
        """The sockets of each stage at one side, without the first one, which is a trial."""
        opened = [order for _, order in self.orders if isinstance(order, Open) and order.side == side]
        sockets = [order.members * len(order.topics) for order in opened]
        return sockets[1:] if side == "server" else sockets

    def runs(self, kind: Kind) -> list[Run]:
        """What was measured."""
        return [order for _, order in self.orders if isinstance(order, Run) and order.kind is kind]


async def report_of(players: Players, *only: Kind, members: int = 1000) -> Report:
    """What is reported of a run beside a baseline."""
    report = Report("ws://h.test")
    options = Options(scaled(ROWS, members), frozenset(only), seconds=1.0)
    sides = Side("server", "ws://h.test"), Side("baseline", "ws://b.test")
    told: list[float] = []
    await Bench(
        players, *sides, options=options, report=report, progress=lambda _, part: told.append(part)
    ).run()
    assert told == sorted(told)
    assert told[-1] < 1
    return report


async def test_every_row_is_measured_at_both_servers() -> None:
    """In the order of the table, however they are measured."""
    players = Players()
    report = await report_of(players)
    assert [row.workload for row in report.rows] == list(ROWS)
    assert report.complete
    assert all(row.target and row.baseline for row in report.rows)
    assert players.opened("server") == players.opened("baseline") == [1000, 5000, 100, 10_000]


async def test_rows_of_the_same_sockets_are_measured_in_turns() -> None:
    """A minute that is slow is slow for both."""
    players = Players()
    await report_of(players, Kind.HEARTBEATS, Kind.FANOUT)
    assert [run.side for run in players.runs(Kind.FANOUT)][:4] == ["server", "baseline"] * 2


async def test_nobody_can_join_is_an_error() -> None:
    """With the words of the server."""
    with pytest.raises(StartError, match="Too many connected users"):
        await report_of(Players(room=0))


async def test_a_server_that_takes_fewer_is_measured_with_those() -> None:
    """The baseline gets as many, larger rows are not tried, and the refusals are told."""
    players = Players(room=200)
    report = await report_of(players)
    assert players.opened("server") == [1000, 100]
    assert players.opened("baseline") == [200, 100]
    notes = {row.workload.label: row.note for row in report.rows if row.target is None}
    assert notes == {
        "deliveries: one topic, 5,000 members, 4 in flight": "not tried: it takes 200 sockets",
        "deliveries: 1,000 topics x 10 members": "not tried: it takes 200 sockets",
    }
    assert report.rows[0].workload.stage.members == 200
    assert report.refusals.items() == [(FULL, 800)]
    assert not report.complete


async def test_only_whole_topics_are_loaded() -> None:
    """A topic that lacks members would never be done."""
    players = Players(room=25)
    report = await report_of(players, Kind.TOPICS, members=10)
    (row,) = report.rows
    assert row.workload.label == "deliveries: 2 topics x 10 members"


async def test_no_more_is_sent_to_a_server_that_refused_it() -> None:
    """Heartbeats are measured all the same, and the first row says why there is none."""
    players = Players(messages=False)
    report = await report_of(players)
    assert len(players.runs(Kind.FANOUT)) == 1
    assert players.runs(Kind.TOPICS) == players.runs(Kind.LATENCY) == []
    assert len(players.runs(Kind.HEARTBEATS)) == 2
    assert report.rows[0].note == "broken off"
    assert {row.note for row in report.rows[1:] if row.target is None} == {"not tried after that"}


@pytest.mark.parametrize(
    ("rates", "messages"),
    [({"server": 20_000, "baseline": 90_000}, 10.0), ({"server": 900_000, "baseline": 800_000}, 100.0)],
)
async def test_latency_is_measured_at_what_both_can_do(rates: dict[str, int], messages: float) -> None:
    """Half of what the slower one does, and at most 100 messages a second; measured before, or tried out."""
    for kinds in ((Kind.LATENCY,), (Kind.FANOUT, Kind.LATENCY)):
        players = Players(rates=rates)
        await report_of(players, *kinds)
        assert [run.rate for run in players.runs(Kind.LATENCY)] == [messages, messages]


async def test_one_topic_is_sent_to_by_one_process() -> None:
    """The others account for what that one has sent."""
    players = Players(3)
    await report_of(players, Kind.FANOUT, members=10)
    first = [(number, order) for number, order in players.orders if isinstance(order, Run)][:3]
    assert [(number, run.process, run.members) for number, run in first] == [
        (n, n, [3, 3, 4]) for n in range(3)
    ]
    assert [order.sent for _, order in players.orders if isinstance(order, Settle)][:3] == [7, 7, 7]


async def test_many_topics_are_sent_to_by_their_processes() -> None:
    """Each knows what it has sent, and has its part of what is in flight."""
    players = Players(2)
    await report_of(players, Kind.TOPICS)
    runs = players.runs(Kind.TOPICS)[:2]
    assert [(run.members, run.window) for run in runs] == [([10], 256)] * 2
    assert {order.sent for _, order in players.orders if isinstance(order, Settle)} == {None}
