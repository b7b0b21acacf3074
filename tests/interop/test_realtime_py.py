"""`realtime` from PyPI as people install it: `realtime_py/play.py` says what each scenario is about."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from tests.interop.conftest import NODE, PYTHON, Stage

SCENARIOS = [
    "broadcast.both_ways",
    "broadcast.oneself",
    "broadcast.acknowledged",
    "broadcast.in_order",
    "broadcast.left_and_joined_anew",
    "private.members",
    "private.refused",
    "private.listeners",
    "presence.come_and_go",
    "presence.disconnecting",
    "changes.events",
    "changes.own_rows",
    "session.outlives_its_token",
    "reconnect.cut",
    "reconnect.restarted",
    "database.sent",
    "database.replayed",
    "http.sent",
    "http.private",
    "callbacks.shapes",
]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(stage: Stage, scenario: str) -> None:
    """A stock client sees what the scenario says."""
    stage.play(PYTHON, scenario)


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
def test_two_languages_in_one_room(stage: Stage, vsn: str) -> None:
    """A client in Python and one in JavaScript see and understand each other."""
    topic = f"room-{uuid4()}"
    with ThreadPoolExecutor() as pool:
        plays = [
            pool.submit(stage.play, NODE, "together.asks", vsn=vsn, topic=topic),
            pool.submit(stage.play, PYTHON, "together.answers", topic=topic),
        ]
    for play in plays:
        play.result()


def test_every_scenario_is_played() -> None:
    """None is forgotten in the list above."""
    listed = subprocess.run([*PYTHON, "--list"], capture_output=True, check=True)
    assert set(json.loads(listed.stdout)) == {*SCENARIOS, "together.answers"}
