"""Random tables, policies, users and writes: what is sent is what a plain SELECT would have shown.

Everything comes from a seed, and a failure prints it with all SQL. `make fuzz CASES=1000000` goes on for as
long as one likes, and cuts a failing script down to the steps that matter.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import TypeAlias

import psycopg
import pytest
from tests.clusters import Cluster
from tests.differential.run import Difference, Report, play, remove_roles
from tests.differential.script import make
from tests.integration.conftest import TEMPLATE, logged_in, with_database

from backbeat.postgres.visibility import Visibility

CASES = int(os.environ.get("BACKBEAT_FUZZ", "5000"))
"""How many pairs of change and subscriber a test decides."""
SEED = int(os.environ.get("BACKBEAT_FUZZ_SEED", "1"))

_numbers = itertools.count(1)

Play: TypeAlias = Callable[[int, bool], Awaitable[Report]]

pytestmark = pytest.mark.timeout(60 + CASES // 25)


@pytest.fixture
async def play_seed(postgres: Cluster) -> AsyncIterator[Play]:
    """Plays the script of a seed on a database of its own."""
    async with await psycopg.AsyncConnection.connect(postgres.url, autocommit=True) as server:

        async def once(seed: int, calm: bool) -> Report:
            name = f"differential_{next(_numbers)}"
            url = with_database(postgres.url, name)
            await server.execute(f"create database {name} template {TEMPLATE}".encode())
            script = make(seed, calm=calm)
            try:
                return await play(script, url, logged_in(url), calm=calm)
            except Difference as difference:
                pytest.fail(f"{difference}\n{script}", pytrace=False)
            finally:
                await server.execute(f"drop database {name} with (force)".encode())

        yield once
        await remove_roles(server)


async def decide(play_seed: Play, *, calm: bool) -> Report:
    """Play one seed after the other until enough cases are decided."""
    total = Report()
    for seed in itertools.count(SEED):
        total += await play_seed(seed, calm)
        if total.cases >= CASES:
            break
    return total


async def test_in_calm_everybody_is_sent_exactly_what_a_select_would_show(
    play_seed: Play, capsys: pytest.CaptureFixture[str]
) -> None:
    """With every transaction handled before the next begins, nothing is too many and nothing missing."""
    report = await decide(play_seed, calm=True)
    with capsys.disabled():
        print(f"\n{report}")
    assert report.cases >= CASES


async def test_in_a_hurry_nobody_is_sent_what_no_select_would_have_shown(
    play_seed: Play, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows, policies and subscriptions change while changes wait; only what changed again may be missing."""
    report = await decide(play_seed, calm=False)
    with capsys.disabled():
        print(f"\n{report}")
    assert report.cases >= CASES


async def test_two_runs_of_the_same_transactions_give_the_same_frames(play_seed: Play) -> None:
    """In calm, for every subscriber, in order."""
    for seed in range(SEED, SEED + 5):
        first, second = [await play_seed(seed, True) for _ in range(2)]
        assert first.frames == second.frames


async def test_a_check_that_lets_old_versions_pass_is_found_out(
    play_seed: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison itself works: with one safeguard taken away, it finds differences."""

    async def credulous(*arguments: Collection[object]) -> dict[object, bool]:
        return dict.fromkeys(arguments[-1], True)

    monkeypatch.setattr(Visibility, "_compare", credulous)

    async def many() -> None:
        for seed in range(1, 100):
            await play_seed(seed, True)

    with pytest.raises(pytest.fail.Exception, match="not theirs to see"):
        await many()
