"""What the table says, and what is said below it."""

from __future__ import annotations

from backbeat.load.orders import Ran, Settled
from backbeat.load.refusals import Refusal, Step
from backbeat.load.report import Figure, Report, Row
from backbeat.load.workload import Kind, Stage, Workload

FANOUT = Workload(Kind.FANOUT, Stage(1, 10), 4)
LATENCY = Workload(Kind.LATENCY, Stage(1, 10))
IDLE, BUSY = 0.5, 0.95


def figure(rate: float, client_cpu: float = IDLE, **others: float) -> Figure:
    """A measurement."""
    return Figure(rate, client_cpu, **others)  # type: ignore[arg-type]


def report(*rows: Row) -> Report:
    """A report of these rows."""
    return Report("ws://h.test", planned=len(rows), rows=list(rows))


def remarks(*rows: Row) -> str:
    """What is said below the table."""
    return "\n".join(report(*rows).remarks("backbeat dev"))


def test_a_row_compares_with_the_baseline() -> None:
    """By the clock, and by what a second of processor time is enough for."""
    row = Row(FANOUT, figure(3000, server_cpu=1.0), figure(1000, server_cpu=0.5))
    assert row.cells()[1:] == ["3,000", "1,000", "3.00", "3,000", "1.50", "50%"]


def test_the_limit_of_the_client_is_no_figure_of_the_server() -> None:
    """It could do more, and so the ratio is a bound; or there is none."""
    assert Row(FANOUT, figure(3000, BUSY), figure(1000)).cells()[1:4] == [
        "≥ 3,000",
        "1,000",
        "≥ 3.00",
    ]
    assert Row(FANOUT, figure(3000), figure(1000, BUSY)).cells()[3] == "≤ 3.00"
    both = Row(FANOUT, figure(3000, BUSY, server_cpu=1.0), figure(1000, BUSY, server_cpu=1.0))
    assert (both.cells()[3], both.cells()[5]) == ("", "3.00")
    assert "the figure is its limit" in remarks(both)


def test_without_a_baseline_there_is_no_ratio() -> None:
    """And without a known process no processor time."""
    assert Row(FANOUT, figure(3000)).cells()[2:6] == ["", "", "", ""]


def test_latencies_are_percentiles() -> None:
    """The ratio is that of the medians."""
    row = Row(LATENCY, figure(5000, p50=1.5, p99=4.0), figure(5000, p50=1.0, p99=2.0))
    assert row.cells()[1:4] == ["1.50 / 4.00", "1.00 / 2.00", "1.50"]
    assert "5,000 deliveries per second" in remarks(row)


def test_what_is_lost_or_repeated_is_said_and_costs_the_verdict() -> None:
    """With how many of how many."""
    row = Row(FANOUT, figure(3000, expected=1000, missing=2, repeated=1))
    assert (
        "of 1,000 messages that the server should have sent, 2 did not arrive, and 1 arrived again"
        in remarks(row)
    )
    assert "exactly once" not in remarks(row)
    assert not report(row).complete


def test_what_arrived_is_said_with_its_number() -> None:
    """So that nobody has to believe it."""
    rows = Row(FANOUT, figure(3000, expected=1000)), Row(LATENCY, figure(10, expected=500, p50=1, p99=1))
    assert "exactly once where it should: 1,500 were counted." in remarks(*rows)
    assert report(*rows).complete


def test_refusals_and_interruptions_are_not_complete() -> None:
    """Nor is a row without a figure."""
    refused, interrupted, whole = (report(Row(FANOUT, figure(1))) for _ in range(3))
    refused.refusals.add(Refusal(Step.JOIN, "no"))
    interrupted.planned = 2
    interrupted.interrupted = True
    assert [each.complete for each in (refused, interrupted, whole)] == [False, False, True]
    assert not report(Row(FANOUT)).complete
    assert "1 of 2 rows were measured" in "\n".join(interrupted.remarks("backbeat dev"))


def test_the_note_of_a_row_stands_where_its_figure_would() -> None:
    """Why there is none."""
    assert Row(FANOUT, note="broken off").cells()[1] == "broken off"


def test_processes_are_added_up() -> None:
    """Rates and losses are sums; the busiest process counts; latencies are put together."""
    ran = [
        Ran(count=100, seconds=2.0, cpu=1.0, server_cpu=1.5, sent=5, refusals=[]),
        Ran(count=300, seconds=2.0, cpu=1.8, server_cpu=None, sent=0, refusals=[]),
    ]
    settled = [Settled(100, 1, 0, {10: 1}, []), Settled(300, 0, 2, {30: 2}, [])]
    assert Figure.of(ran, settled) == Figure(
        rate=200.0,
        client_cpu=0.9,
        server_cpu=0.75,
        expected=400,
        missing=1,
        repeated=2,
        p50=0.030,
        p99=0.030,
    )


def test_machines_read_the_same() -> None:
    """Numbers without their commas."""
    told = report(Row(FANOUT, figure(3000, server_cpu=1.5), figure(1000))).as_json()
    (row,) = told["rows"]
    assert (row["kind"], row["members"], row["server"]["per_second"], row["ratio"]) == (
        "fanout",
        10,
        3000,
        3.0,
    )
    assert row["server"]["per_server_cpu_second"] == 2000
