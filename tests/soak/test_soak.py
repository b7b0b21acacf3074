"""A server in mixed traffic loses nothing, doubles nothing, and keeps nothing of those who are gone.

`make soak SECONDS=600 SEED=1` goes on for as long as one likes.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SECONDS = int(os.environ.get("BACKBEAT_SOAK", "60"))
SEED = int(os.environ.get("BACKBEAT_SOAK_SEED", "1"))


@pytest.mark.timeout(3 * SECONDS + 120)
def test_mixed_traffic_leaves_nothing_out_and_nothing_behind(capsys: pytest.CaptureFixture[str]) -> None:
    """In a process of its own, for it counts the objects of the whole process."""
    command = [sys.executable, "-m", "tests.soak", "--seconds", str(SECONDS), "--seed", str(SEED)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3 * SECONDS + 90, check=False)
    *_, last = done.stdout.strip().split("\n\n")
    with capsys.disabled():
        # Why it failed, too: nobody may have the rest of what pytest says, and it may not happen again.
        print(f"\n{last}\n{done.stderr}".rstrip())
    assert done.returncode == 0, f"{done.stdout.splitlines()[0]}\n{done.stderr}"
