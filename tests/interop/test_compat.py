"""Programs written for `realtime` run with `backbeat.compat`: only the name of the import is another."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from tests.examples import blocks
from tests.guides import Reader
from tests.interop.conftest import HERE, PYTHON, Stage
from tests.interop.test_realtime_py import SCENARIOS

from backbeat.compat import AsyncRealtimeClient, RealtimeSubscribeStates
from backbeat.errors import NotSubscribed


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


async def test_the_examples_of_its_documentation_run(stage: Stage) -> None:
    """Each block of its page; the one that forgets to subscribe is told so, as it is there."""
    (page,) = HERE.glob(".venv/lib/*/site-packages/realtime-*.dist-info/METADATA")
    programs = [block for block in blocks(page) if block.language == "python"]
    url = f"{stage.url}/realtime/v1"
    places = {
        "from realtime import": "from backbeat.compat import",
        "ws://localhost:4000/websocket": url,
        "1234567890": stage.key,
        "print(": "note(",
    }
    printed: list[object] = []
    names = {"RealtimeSubscribeStates": RealtimeSubscribeStates, "note": lambda *words: printed.extend(words)}
    reader = Reader(names, sql=pytest.fail, places=places)
    forgetful = []
    async with asyncio.timeout(30):
        for program in programs:
            client = reader.names["client"] = AsyncRealtimeClient(url, stage.key)
            reader.names["channel"] = client.channel("setup")
            try:
                await reader.run(program)
            except NotSubscribed:
                forgetful.append(program)
            await client.remove_all_channels()
        await reader.names["main"]()
    assert "Connected!" in printed
    assert "Ready to receive database changes!" in printed
    assert ["track" in program.text for program in forgetful] == [True]
    assert len(programs) > 8
