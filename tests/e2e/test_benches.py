"""The benchmarks run: as small as they can be, and without a look at their figures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"

BENCHES = {
    "changes": ("--subscribers", "20", "--seconds", "0.05"),
    "channels": ("--channels", "20", "--rounds", "1"),
    "dev": ("--changes", "5"),
    "client": ("--messages", "2000", "--trips", "20", "--channels", "20", "--rounds", "1"),
    "drain": ("--sockets", "20", "--rounds", "1"),
    "fanout": (
        *("--rounds", "1", "--seconds", "0.05", "--scale", "0.02"),
        *("--only", "eight", "heartbeats", "joins", "mixed"),
    ),
    "frames": (),
    "joins": ("--joins", "20", "--rounds", "1"),
    "storm": ("--connections", "200", "--rooms", "20", "--rounds", "1"),
    "slow_reader": ("--messages", "500", "--rounds", "1"),
}
"""Each with the options that make it short."""


def test_every_benchmark_is_tried() -> None:
    """A new one is added above."""
    assert {path.stem for path in BENCH.glob("*.py")} == BENCHES.keys()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", BENCHES)
def test_a_benchmark_prints_its_figures(name: str) -> None:
    """What the server is made of changes; what measures it has to keep up."""
    command = [sys.executable, str(BENCH / f"{name}.py"), *BENCHES[name]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    assert any(character.isdigit() for character in done.stdout)
