"""The rows of the table, and the sockets they need."""

from __future__ import annotations

from backbeat.load.workload import ROWS, Kind, Stage, Workload, fitted, scaled, stages


def test_the_table_has_the_rows_of_the_full_benchmark() -> None:
    """In its words."""
    assert [row.label for row in ROWS] == [
        "deliveries: one topic, 1,000 members, 1 in flight",
        "deliveries: one topic, 1,000 members, 8 in flight",
        "deliveries: one topic, 5,000 members, 4 in flight",
        "deliveries: one topic, 100 members, 32 in flight",
        "deliveries: 1,000 topics x 10 members",
        "heartbeats and replies: 1,000 sockets",
        "handshakes with a join: 1,000 sockets",
        "latency p50 / p99 in ms: 1,000 members",
    ]


def test_sockets_are_opened_once_for_all_rows_that_need_the_same() -> None:
    """Joins first, for they happen first; latency last, for its rate follows from the others."""
    opened = [(stage, [row.kind for row in rows]) for stage, rows in stages(ROWS, ())]
    assert opened == [
        (Stage(1, 1000), [Kind.JOINS, Kind.HEARTBEATS, Kind.FANOUT, Kind.FANOUT, Kind.LATENCY]),
        (Stage(1, 5000), [Kind.FANOUT]),
        (Stage(1, 100), [Kind.FANOUT]),
        (Stage(1000, 10), [Kind.TOPICS]),
    ]


def test_only_what_is_wanted_is_opened() -> None:
    """By kind."""
    opened = list(stages(ROWS, {Kind.HEARTBEATS, Kind.TOPICS}))
    assert [stage.sockets for stage, _ in opened] == [10_000, 1000]


def test_rows_are_scaled_in_proportion() -> None:
    """And none to nothing."""
    assert [row.stage.sockets for row in scaled(ROWS, 50)] == [50, 50, 250, 5, 500, 50, 50, 50]
    assert min(row.stage.sockets for row in scaled(ROWS, 1)) == 1


def test_rows_are_made_smaller_to_fit() -> None:
    """A topic loses members; many topics lose topics, and those that stay are whole."""
    rows = [Workload(Kind.FANOUT, Stage(1, 5000)), Workload(Kind.TOPICS, Stage(1000, 10))]
    assert [row.stage for row in fitted(rows, 2005)] == [Stage(1, 2005), Stage(200, 10)]


def test_members_of_one_topic_are_spread_over_processes() -> None:
    """None is left over."""
    assert Stage(1, 10).shares(3) == [Stage(1, 3), Stage(1, 3), Stage(1, 4)]


def test_many_topics_stay_whole_in_their_process() -> None:
    """Each process sends to its own."""
    assert Stage(5, 10).shares(2) == [Stage(2, 10), Stage(3, 10)]


def test_a_process_without_work_is_not_asked() -> None:
    """One member is in one process."""
    assert Stage(1, 1).shares(4) == [Stage(1, 1)]
