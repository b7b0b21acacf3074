"""The guides do what they say: every code block is run, on a project that `backbeat dev` runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from tests.e2e.conftest import ROOT, Dev
from tests.examples import blocks
from tests.guides import Reader

from backbeat import AuthContext
from backbeat.local.project import DEFAULT_PUBLISHABLE_KEY

GUIDES = ["first-channel", "auth", "private-channels", "row-changes", "presence", "porting"]
PATIENCE = 30.0

SONGS = """
drop table if exists songs;
create table songs (band_id int primary key, title text);
grant select on songs to authenticated;
alter publication supabase_realtime add table songs;
"""


@pytest.fixture
def reader(dev: Dev, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """Somebody who reads a guide, with the project of the tests instead of one on the usual ports."""
    monkeypatch.setenv("HOME", str(tmp_path))
    names = {"url": dev.url, "apikey": DEFAULT_PUBLISHABLE_KEY}
    places = {"127.0.0.1:54321": f"127.0.0.1:{dev.port}", "127.0.0.1:54322": f"127.0.0.1:{dev.database_port}"}
    return Reader(names, sql=sql(dev), places=places)


def sql(dev: Dev) -> Callable[[str], None]:
    """What runs statements."""

    def run(statements: str) -> None:
        with psycopg.connect(dev.database_url, autocommit=True) as database:
            database.execute(statements)

    return run


@pytest.mark.parametrize("guide", GUIDES)
async def test_a_guide_does_what_it_says(reader: Reader, guide: str) -> None:
    """From the first block to the last, and what it prints is what stands there."""
    assert await reader.read(ROOT / "docs" / f"{guide}.md") > 0


async def test_the_readme_does_what_it_says(reader: Reader, dev: Dev) -> None:
    """Its program signs in, subscribes, and prints a row when it comes."""
    sql(dev)(SONGS)
    email, password = "ada@example.com", "correct horse"
    async with AuthContext(dev.url, DEFAULT_PUBLISHABLE_KEY) as auth:
        await auth.sign_up(email, password)
    (program,) = [block for block in blocks(ROOT / "README.md") if block.language == "python"]
    reader.names |= {"email": email, "password": password, "band_id": 7}
    running = asyncio.create_task(reader.run(program))
    try:
        async with asyncio.timeout(PATIENCE):
            while "channel" not in reader.names or not reader.names["channel"].explain().streaming:
                assert not running.done(), running
                await asyncio.sleep(0.01)
            sql(dev)("insert into songs values (8, 'Not This One'), (7, 'New Song')")
            while not reader.printed:
                await asyncio.sleep(0.01)
        assert reader.printed == "INSERT {'band_id': 7, 'title': 'New Song'}\n"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
