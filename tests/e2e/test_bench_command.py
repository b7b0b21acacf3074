"""`backbeat bench` at `backbeat dev`, both as installed: small, and without a look at the figures."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator

import psutil
import pytest
from tests.e2e.conftest import BACKBEAT, Dev

from backbeat.load.refusals import UNLIMITED

SMALL = ("--members", "10", "--seconds", "0.1")


@pytest.fixture(scope="module")
def unlimited() -> Iterator[Dev]:
    """A project without limits."""
    with Dev("--ephemeral", *UNLIMITED.split()) as dev:
        yield dev


@pytest.fixture(scope="module")
def limited() -> Iterator[Dev]:
    """A project with the limits it has when nobody says anything."""
    with Dev("--ephemeral") as dev:
        yield dev


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command until it ends."""
    return subprocess.run(
        [BACKBEAT, "bench", *arguments], capture_output=True, text=True, timeout=50, check=False
    )


def test_the_table_has_every_row_and_the_counts_are_right(unlimited: Dev) -> None:
    """With a ratio, and the processor time of the server, which was found by its port."""
    done = bench(unlimited.url, *SMALL)
    assert done.returncode == 0, done.stderr
    assert "deliveries: one topic, 10 members, 8 in flight" in done.stdout
    assert "deliveries: 10 topics x 10 members" in done.stdout
    assert "Every message arrived exactly once where it should" in done.stdout
    assert f"that of process {unlimited.pid} (backbeat)." in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("processes", ["1", "2"])
def test_machines_read_json(unlimited: Dev, processes: str) -> None:
    """Nothing else on standard output; with several processes nothing is lost or counted twice."""
    done = bench(unlimited.url, *SMALL, "--json", "--processes", processes)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    kinds = [row["kind"] for row in told["rows"]]
    assert kinds == ["fanout"] * 4 + ["topics", "heartbeats", "joins", "latency"]
    for row in told["rows"]:
        for side in ("server", "baseline"):
            assert (row[side]["missing"], row[side]["repeated"]) == (0, 0)
            assert row[side]["expected"] > 0 or row["kind"] in ("heartbeats", "joins")
    assert told["complete"] is True


def test_rows_can_be_chosen(unlimited: Dev) -> None:
    """Also without a baseline."""
    done = bench(unlimited.url, *SMALL, "--only", "heartbeats,joins", "--no-baseline", "--json")
    assert [row["kind"] for row in json.loads(done.stdout)["rows"]] == ["heartbeats", "joins"]
    assert "absolute figures" in done.stderr


def test_a_server_with_limits_says_which_and_how_to_start_it_without(limited: Dev) -> None:
    """The command is ready to paste; what could be measured is there."""
    done = bench(limited.url, "--seconds", "0.1")
    assert done.returncode == 1
    assert "of 1,000 handshakes: HTTP 429 'Too many joins per second'" in done.stdout
    assert f"backbeat dev --port {limited.port} {UNLIMITED}\n" in done.stdout
    assert "heartbeats and replies" in done.stdout


def test_a_wrong_key_is_one_clear_message(unlimited: Dev) -> None:
    """The key itself is not in it."""
    done = bench(unlimited.url, "--api-key", "sb_publishable_of_somebody_else")
    assert done.returncode == 1
    assert "HTTP 401" in done.stderr
    assert "--api-key" in done.stderr
    assert "somebody_else" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_shows_what_was_measured(unlimited: Dev) -> None:
    """And no process stays."""
    command = [BACKBEAT, "bench", unlimited.url, "--members", "10", "--seconds", "20"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        family = _helpers(process.pid)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    assert "Interrupted: 1 of 8 rows were measured." in stdout
    assert "Traceback" not in stderr
    assert psutil.wait_procs(family, timeout=10)[1] == []


def _helpers(pid: int) -> list[psutil.Process]:
    """The processes of a benchmark, once they measure."""
    parent = psutil.Process(pid)
    while True:
        family = parent.children()
        # The members of the first rows are there, at both servers.
        if len(family) == 2 and any(len(each.net_connections()) >= 20 for each in family):
            return family
        time.sleep(0.02)


def test_a_killed_benchmark_leaves_nothing_running(unlimited: Dev) -> None:
    """Its processes end when nobody gives them orders."""
    command = [BACKBEAT, "bench", unlimited.url, "--members", "10", "--seconds", "1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        family = _helpers(process.pid)
        process.kill()
    assert psutil.wait_procs(family, timeout=20)[1] == []


def test_a_server_that_dies_is_told() -> None:
    """With the rows that were measured before."""
    with Dev("--ephemeral", *UNLIMITED.split()) as dev:
        command = [BACKBEAT, "bench", dev.url, "--members", "10", "--seconds", "1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            _helpers(process.pid)
            dev.stop(signal.SIGTERM)
            stdout, stderr = process.communicate(timeout=50)
    assert process.returncode == 1, stderr
    assert re.search(r"The server closed \d+ open connections?: 1012 'Realtime is restarting'\.", stdout)
    assert "Traceback" not in stderr
