"""Programs written for `realtime` run with `backbeat.compat`: only the name of the import is another."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.interop.conftest import PYTHON, Stage
from tests.interop.test_realtime_py import SCENARIOS


@pytest.fixture(scope="module")
def ported(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The script with all the scenarios, ported."""
    script = tmp_path_factory.mktemp("ported") / "play.py"
    script.write_text(Path(PYTHON[1]).read_text().replace("from realtime", "from backbeat.compat"))
    return sys.executable, str(script)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_ported_program_does_what_it_did(stage: Stage, ported: tuple[str, str], scenario: str) -> None:
    """What the scenario says about `realtime` is true of ours."""
    stage.play(ported, scenario)


def test_callbacks_are_given_the_same(stage: Stage, ported: tuple[str, str]) -> None:
    """One of everything, as `realtime` gives it and as ours does: the same values of the same types."""
    stage.notes.clear()
    for script in (PYTHON, ported):
        stage.play(script, "callbacks.shapes")
    theirs, ours = stage.notes
    assert ours == theirs
