"""`backbeat bench` before it does anything: what it refuses, and what it plans."""

from __future__ import annotations

import pytest

from backbeat.cli.bench import bench, command_for, is_here, kinds_of, others_are_busy, plan
from backbeat.errors import BackbeatError, ConfigurationError
from backbeat.load.workload import ROWS, Kind


def test_a_server_elsewhere_is_not_loaded_without_a_word() -> None:
    """It may be somebody's money."""
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1 is not this machine") as caught:
        bench("https://192.0.2.1")
    assert "--yes-load-this-server" in caught.value.hint


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost"])
def test_loopback_is_this_machine(host: str) -> None:
    """By number or by name."""
    assert is_here(f"ws://{host}:1/socket/websocket")


def test_rows_are_chosen_by_their_kind() -> None:
    """Several, with commas."""
    assert kinds_of("fanout, heartbeats") == {Kind.FANOUT, Kind.HEARTBEATS}


def test_an_unknown_row_is_refused() -> None:
    """With those there are."""
    with pytest.raises(ConfigurationError, match="'speed'") as caught:
        kinds_of("joins,speed")
    assert "fanout, topics, heartbeats, joins, latency" in caught.value.hint


@pytest.mark.parametrize("arguments", [{"seconds": 0.0}, {"members": 0}, {"processes": -1}])
def test_numbers_that_make_no_sense_are_refused(arguments: dict[str, float]) -> None:
    """Before anything is opened."""
    with pytest.raises(BackbeatError, match="--"):
        bench(**arguments)  # type: ignore[arg-type]


def test_a_process_that_is_not_there_is_refused() -> None:
    """Its processor time would be missing without a word."""
    with pytest.raises(ConfigurationError, match="no process 1073741824"):
        bench(pid=2**30)


def test_rows_shrink_to_the_files_that_may_be_open() -> None:
    """And that is said."""
    rows, (note,) = plan(1000, processes=1, files=1064)
    assert [row.stage.sockets for row in rows] == [500, 500, 500, 100, 1000, 500, 500, 500]
    assert "1,064 files" in note


def test_nothing_shrinks_where_there_is_room() -> None:
    """As on most machines, or with more processes."""
    assert plan(1000, processes=1, files=20_000) == (list(ROWS), [])
    assert plan(1000, processes=4, files=5000) == (list(ROWS), [])


def test_a_busy_machine_is_told() -> None:
    """Figures are lower then."""
    assert others_are_busy(2.0, 2) == []
    (note,) = others_are_busy(5.25, 2)
    assert "5.2 on 2 processors" in note


def test_the_command_to_paste_names_the_port() -> None:
    """Where it is not the usual one."""
    assert command_for("ws://127.0.0.1:54321/x") == "backbeat dev"
    assert command_for("ws://127.0.0.1:5000/x") == "backbeat dev --port 5000"
