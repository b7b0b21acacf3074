"""A primary dies and its standby is promoted: it is told, it heals, and nothing comes twice."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import psycopg
import pytest
from tests.faults import FaultyLine
from tests.integration.server.conftest import (
    CONFIRMED,
    NEWS,
    PATIENCE,
    SECRET,
    RawClient,
    Running,
    headline,
    login_to,
    ready,
    running,
    system,
    unready,
    with_news,
)
from tests.standby import demote, promote, standby_of

from backbeat.local.postgres import EmbeddedPostgres
from backbeat.server.settings import Settings

Connection: TypeAlias = psycopg.AsyncConnection[Any]

SLOT = "failover"

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def primary() -> Iterator[EmbeddedPostgres]:
    """A cluster of its own, with a published table."""
    with EmbeddedPostgres.ephemeral() as postgres:
        with_news(postgres)
        yield postgres


@pytest.fixture
def standby(primary: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    """A standby that follows it."""
    with standby_of(primary) as postgres:
        yield postgres


def either(first: str, second: str) -> str:
    """The address of two servers: whichever is the primary."""
    other = urlsplit(second)
    return first.replace("/postgres", f",{other.hostname}:{other.port}/postgres")


def kill(postgres: EmbeddedPostgres) -> None:
    """End a server at once: it says good-bye to nobody, and writes nothing."""
    assert postgres.pid is not None
    os.kill(postgres.pid, signal.SIGQUIT)
    postgres.stop()


@asynccontextmanager
async def owner_of(postgres: EmbeddedPostgres) -> AsyncIterator[Connection]:
    """Connect as the owner of the tables."""
    async with await psycopg.AsyncConnection.connect(postgres.url, autocommit=True) as connection:
        yield connection


async def write(postgres: EmbeddedPostgres, number: int) -> None:
    """Insert a row, which is its own headline."""
    async with owner_of(postgres) as owner:
        await owner.execute("insert into news values (%s, %s)", (number, str(number)))


async def is_ready(server: Running) -> dict[str, Any]:
    """Wait until the server is ready; what it says about its stream."""
    async with asyncio.timeout(PATIENCE):
        while (answer := await ready(server))[0] != 200:
            await asyncio.sleep(0.02)
    stream: dict[str, Any] = answer[1]["stream"]
    return stream


@asynccontextmanager
async def subscribed(url: str, **settings: Any) -> AsyncIterator[tuple[Running, RawClient]]:
    """A server, and a client that gets every change of the news."""
    async with (
        running(Settings(database_url=url, jwt_secret=SECRET, **settings)) as server,
        server.client() as client,
    ):
        await client.subscribed("realtime:x", [NEWS], token=server.token())
        yield server, client


@pytest.mark.parametrize("slot", ["", SLOT])
async def test_a_promotion_is_told_and_healed(
    primary: EmbeddedPostgres, standby: EmbeddedPostgres, slot: str
) -> None:
    """The slot died with the primary, so there is a gap; what was delivered before it does not come again."""
    url = either(login_to(primary), standby.url)
    async with subscribed(url, durable_slot=slot) as (server, client):
        await write(primary, 1)
        assert await headline(client) == "1"
        kill(primary)
        await system(client, "error")
        assert (await unready(server))["phase"] in {"lost", "connecting"}
        assert "backbeat_stream_up 0" in server.realtime.metrics.exposition()
        promote(standby)
        restored = await system(client, "ok")
        assert restored["gap_since"] <= restored["gap_until"]
        await write(standby, 2)
        assert await headline(client) == "2"
        assert "gap_since" in await is_ready(server)
        assert "backbeat_stream_up 1" in server.realtime.metrics.exposition()


async def test_a_slot_that_survives_a_promotion_leaves_no_gap(
    primary: EmbeddedPostgres, standby: EmbeddedPostgres
) -> None:
    """The copy of the slot is older than what was delivered: that does not come again, nothing is lost."""
    line = FaultyLine(login_to(primary))
    async with (
        line.laid() as url,
        subscribed(either(url, standby.url), durable_slot=SLOT) as (_, client),
    ):
        await write(primary, 1)
        assert await headline(client) == "1"
        await copy_slot(primary, standby)
        await write(primary, 2)
        assert await headline(client) == "2"
        line.cut()
        await system(client, "error")
        await write(primary, 3)
        await caught_up(primary, standby)
        kill(primary)
        promote(standby)
        assert await system(client, "ok") == CONFIRMED
        assert await headline(client) == "3"
        await write(standby, 4)
        assert await headline(client) == "4"


async def test_what_a_standby_never_got_is_told_as_a_gap(
    primary: EmbeddedPostgres, standby: EmbeddedPostgres
) -> None:
    """The server delivered a row that has never happened on the new primary."""
    async with subscribed(either(login_to(primary), standby.url), durable_slot=SLOT) as (_, client):
        await copy_slot(primary, standby)
        await detach(standby)
        await write(primary, 1)
        assert await headline(client) == "1"
        kill(primary)
        promote(standby)
        assert "gap_since" in await system(client, "ok")
        await write(standby, 2)
        assert await headline(client) == "2"


async def test_a_standby_is_named_and_waited_for(standby: EmbeddedPostgres) -> None:
    """Channels are joined meanwhile, and hear when it has become a primary."""
    settings = Settings(database_url=login_to(standby), jwt_secret=SECRET)
    async with running(settings) as server, server.client() as client:
        await client.join("realtime:x", token=server.token(), postgres_changes=[NEWS])
        assert (await client.message())[4]["status"] == "ok"
        await system(client, "error")
        stream = await unready(server)
        assert stream["error"]["hint"].startswith("Promote it, or name the primary")
        promote(standby)
        assert await system(client, "ok") == CONFIRMED
        await write(standby, 1)
        assert await headline(client) == "1"
        await is_ready(server)


async def test_a_primary_that_comes_back_as_a_standby_keeps_nobody(
    primary: EmbeddedPostgres, standby: EmbeddedPostgres
) -> None:
    """No connection settles there; all of them follow when the address leads to the new primary."""
    line = FaultyLine(login_to(primary))
    async with line.laid() as url, subscribed(url) as (server, client):
        await write(primary, 1)
        assert await headline(client) == "1"
        await asyncio.to_thread(primary.stop)
        promote(standby)
        demote(primary)
        await system(client, "error")
        while "Promote it" not in (await unready(server)).get("error", {}).get("hint", ""):
            await asyncio.sleep(0.02)
        line.lead(standby.url)
        assert "gap_since" in await system(client, "ok")
        await write(standby, 2)
        assert await headline(client) == "2"
        await is_ready(server)


async def copy_slot(primary: EmbeddedPostgres, standby: EmbeddedPostgres) -> None:
    """Have the standby copy the slot of the server, as it does by itself with `sync_replication_slots`."""
    async with owner_of(primary) as owner, owner_of(standby) as follower, asyncio.timeout(PATIENCE):
        while True:
            # A copy counts when the standby has come as far as the slot.
            await owner.execute("select pg_log_standby_snapshot()")
            await follower.execute("select pg_sync_replication_slots()")
            cursor = await follower.execute(
                "select from pg_replication_slots where slot_name = %s and not temporary", (SLOT,)
            )
            if await cursor.fetchone() is not None:
                return
            await asyncio.sleep(0.05)


async def caught_up(primary: EmbeddedPostgres, standby: EmbeddedPostgres) -> None:
    """Wait until the standby has everything."""
    async with owner_of(primary) as owner, owner_of(standby) as follower, asyncio.timeout(PATIENCE):
        ((end,),) = await (await owner.execute("select pg_current_wal_lsn()")).fetchall()
        arrived = "select pg_last_wal_replay_lsn() >= %s"
        while await (await follower.execute(arrived, (end,))).fetchone() != (True,):
            await asyncio.sleep(0.02)


async def detach(standby: EmbeddedPostgres) -> None:
    """Have the standby follow nobody any more."""
    async with owner_of(standby) as follower, asyncio.timeout(PATIENCE):
        await follower.execute("alter system set primary_conninfo = ''")
        await follower.execute("select pg_reload_conf()")
        while await (await follower.execute("select from pg_stat_wal_receiver")).fetchone() is not None:
            await asyncio.sleep(0.02)
