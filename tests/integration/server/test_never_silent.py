"""Whatever keeps row changes from arriving is noticed, told to whom it concerns, and healed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, TypeAlias

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
    running,
    slot_is_active,
    system,
    unready,
    with_news,
)
from tests.slow_pattern import ENDLESS, LETTERS
from tests.wal import write_wal

from backbeat.local.postgres import EmbeddedPostgres
from backbeat.server.settings import Settings
from backbeat.server.subscription import ChangeSubscription

Connection: TypeAlias = psycopg.AsyncConnection[Any]
MakeSettings: TypeAlias = Callable[..., Settings]

PLANS = {"event": "*", "schema": "public", "table": "plans"}
SLOT = "never_silent"

pytestmark = pytest.mark.usefixtures("quick")


@asynccontextmanager
async def serving(database: Connection, settings: Settings) -> AsyncIterator[Running]:
    """Run a server until the block ends, and leave no slot behind."""
    async with running(settings) as server:
        yield server
    async with asyncio.timeout(PATIENCE):
        while await slot_is_active(database):
            await asyncio.sleep(0.02)
    await database.execute(
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots"
        " where database = current_database() and not temporary"
    )


@asynccontextmanager
async def over_a_line(
    database: Connection, settings: MakeSettings, login_url: str
) -> AsyncIterator[tuple[FaultyLine, Running, RawClient]]:
    """Run a server whose database is at the end of a line, with a client that is subscribed."""
    line = FaultyLine(login_url)
    async with (
        line.laid() as url,
        serving(database, settings(database_url=url)) as server,
        server.client() as client,
    ):
        await client.subscribed("realtime:x", [NEWS], token=server.token())
        yield line, server, client


async def kill_stream(database: Connection) -> None:
    """End the walsender."""
    await database.execute(
        "select pg_terminate_backend(active_pid) from pg_replication_slots"
        " where active and database = current_database()"
    )


def hang(server: Running, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Let the policies take for ever; until the event is set."""
    released = asyncio.Event()
    handle = server.feed._changes.handle

    async def hanging(batch: Any) -> None:
        await released.wait()
        await handle(batch)

    monkeypatch.setattr(server.feed._changes, "handle", hanging)
    return released


# What decides about changes, and fails ----------------------------------------------------------------------

TOO_SLOW = NEWS | {"filter": f"headline=match.{ENDLESS}"}


async def test_a_filter_that_takes_too_long_is_told(
    server: Running, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once; and once when it is over, with what is missing. Whoever has another filter notices nothing."""
    monkeypatch.setattr("backbeat.postgres.evaluator.SUSPENSION", 0.0)
    monkeypatch.setattr("backbeat.postgres.withheld.QUIET", 0.0)
    async with server.client() as client, server.client() as other:
        await client.subscribed("realtime:x", [TOO_SLOW], token=server.token())
        await other.subscribed("realtime:x", [NEWS | {"filter": "headline=match.a"}], token=server.token())
        for number in range(2):
            await database.execute("insert into news values (%s, %s)", (number, LETTERS))
            assert await headline(other) == LETTERS
        told = (await client.message())[4]
        assert (told["status"], "filter on column headline" in told["message"]) == ("error", True), told
        await database.execute("insert into news values (2, 'aa')")
        restored = (await client.message())[4]
        assert restored["gap_since"] < restored["gap_until"]
        assert await headline(client) == "aa"


async def test_whoever_is_subscribed_anew_hears_what_was_missing(
    server: Running, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its column has changed, and its filter with it: what failed before is not asked any more."""
    monkeypatch.setattr("backbeat.postgres.evaluator.SUSPENSION", 0.0)
    async with server.client() as client:
        await client.subscribed("realtime:x", [TOO_SLOW], token=server.token())
        await database.execute("insert into news values (1, %s)", (LETTERS,))
        assert (await client.message())[4]["status"] == "error"
        await database.execute("alter table news alter headline type varchar(400)")
        await database.execute("insert into news values (2, 'aa')")
        restored = await system(client, "ok")
        assert restored["gap_since"] < restored["gap_until"]
        assert await headline(client) == "aa"


async def test_policies_that_fail_are_told(
    server: Running, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they do not allow is not sent; whoever misses it hears so, and when that is over."""
    monkeypatch.setattr("backbeat.postgres.withheld.QUIET", 0.0)
    await database.execute("create table gigs (id int primary key, fee int)")
    await database.execute("alter table gigs enable row level security")
    await database.execute("create policy p on gigs for select to authenticated using (100 / fee > 0)")
    await database.execute("grant select on gigs to authenticated")
    await database.execute("alter publication supabase_realtime add table gigs")
    await server.feed._mind_tables()
    async with server.client() as client:
        await client.subscribed("realtime:x", [NEWS | {"table": "gigs"}], token=server.token())
        await database.execute("insert into gigs values (1, 0)")
        told = (await client.message())[4]
        assert told["status"] == "error"
        assert "the policies of public.gigs fail" in told["message"]
        await database.execute("insert into gigs values (2, 10)")
        restored = (await client.message())[4]
        assert restored["gap_since"] < restored["gap_until"]
        assert (await client.message())[4]["data"]["record"]["id"] == 2


# A lost stream ----------------------------------------------------------------------------------------------


async def test_after_a_gap_channels_hear_from_when_to_when(server: Running, database: Connection) -> None:
    """The text clients match on is the same; beside it stand two times, and what to do."""
    async with server.client() as client:
        await client.subscribed("realtime:x", [NEWS], token=server.token())
        await kill_stream(database)
        await system(client, "error")
        restored = await system(client, "ok")
    since, until = (datetime.fromisoformat(restored[key]) for key in ("gap_since", "gap_until"))
    assert since <= until
    hint = (
        f"Changes committed between {restored['gap_since']} and {restored['gap_until']} are missing;"
        " read the rows again."
    )
    gap = {"gap_since": restored["gap_since"], "gap_until": restored["gap_until"], "hint": hint}
    assert restored == CONFIRMED | gap


async def test_who_comes_after_a_gap_hears_nothing_of_it(server: Running, database: Connection) -> None:
    """It missed nothing."""
    async with server.client() as first, server.client() as second:
        await first.subscribed("realtime:x", [NEWS], token=server.token())
        await kill_stream(database)
        await system(first, "ok")
        await second.join("realtime:x", token=server.token(), postgres_changes=[NEWS])
        assert await system(second, "ok") == CONFIRMED


async def test_a_durable_slot_leaves_no_gap(database: Connection, settings: MakeSettings) -> None:
    """What was committed while the stream was lost arrives after it."""
    async with serving(database, settings(durable_slot=SLOT)) as server, server.client() as client:
        await client.subscribed("realtime:x", [NEWS], token=server.token())
        await kill_stream(database)
        await database.execute("insert into news values (1, 'meanwhile')")
        await system(client, "error")
        assert await system(client, "ok") == CONFIRMED
        assert await headline(client) == "meanwhile"


async def test_a_cut_line_is_told_and_healed(
    database: Connection, settings: MakeSettings, login_url: str
) -> None:
    """Nothing reaches the database for a while: neither the stream nor a question."""
    async with over_a_line(database, settings, login_url) as (line, server, client):
        line.cut()
        await system(client, "error")
        assert (await unready(server))["phase"] in {"lost", "connecting"}
        line.restore()
        assert "gap_since" in await system(client, "ok")
        await database.execute("insert into news values (1, 'again')")
        assert await headline(client) == "again"


async def test_a_stalled_line_is_told_and_healed(
    database: Connection, settings: MakeSettings, login_url: str
) -> None:
    """No connection was closed, only nothing comes through."""
    async with over_a_line(database, settings, login_url) as (line, _, client):
        line.stall()
        await system(client, "error")
        line.restore()
        assert "gap_since" in await system(client, "ok")


@pytest.fixture
def own_postgres() -> Iterator[EmbeddedPostgres]:
    """A cluster that may be stopped."""
    with EmbeddedPostgres.ephemeral() as postgres:
        with_news(postgres)
        yield postgres


async def test_a_restarted_database_is_told_and_healed(own_postgres: EmbeddedPostgres) -> None:
    """Channels stay joined, hear of it, and get what is committed after it."""
    settings = Settings(database_url=login_to(own_postgres), jwt_secret=SECRET)
    async with running(settings) as server, server.client() as client:
        await client.subscribed("realtime:x", [NEWS], token=server.token())
        await asyncio.to_thread(own_postgres.stop)
        await system(client, "error")
        own_postgres.start()
        assert "gap_since" in await system(client, "ok")
        async with await psycopg.AsyncConnection.connect(own_postgres.url, autocommit=True) as owner:
            await owner.execute("insert into news values (1, 'after')")
        assert await headline(client) == "after"


# Before the stream flows ------------------------------------------------------------------------------------


async def test_a_join_does_not_wait_for_the_slot(
    database: Connection, settings: MakeSettings, database_url: str
) -> None:
    """It is answered; that changes arrive is said when they do, and until then the server is connecting."""
    async with await psycopg.AsyncConnection.connect(database_url) as writer:
        await writer.execute("insert into news values (1, 'before')")
        async with serving(database, settings()) as server, server.client() as client:
            await client.join("realtime:x", token=server.token(), postgres_changes=[NEWS])
            assert (await client.message())[4]["status"] == "ok"
            assert (await unready(server))["phase"] == "connecting"
            await writer.commit()
            # The first system message: there was none while it waited.
            assert (await client.until("system"))[4] == CONFIRMED


async def test_who_joins_while_the_stream_is_lost_is_told(
    database: Connection, settings: MakeSettings
) -> None:
    """At once, for nobody knows how long it will take."""
    await database.execute("drop publication supabase_realtime_messages_publication")
    async with serving(database, settings()) as server, server.client() as client:
        await client.join("realtime:x", token=server.token(), postgres_changes=[NEWS])
        assert (await client.until("system"))[4]["status"] == "error"
        stream = await unready(server)
        assert stream["error"]["hint"] == (
            'Run: create publication "supabase_realtime_messages_publication";'
        )
        await database.execute(
            "create publication supabase_realtime_messages_publication for table realtime.messages"
        )
        assert await system(client, "ok") == CONFIRMED


# Publication and tables -------------------------------------------------------------------------------------


@pytest.mark.parametrize("slot", ["", SLOT])
async def test_a_dropped_publication_is_told_and_healed(
    database: Connection, settings: MakeSettings, slot: str
) -> None:
    """Postgres goes on without it; nobody writes anything by which it could be noticed."""
    async with serving(database, settings(durable_slot=slot)) as server, server.client() as client:
        await client.subscribed("realtime:x", [NEWS], token=server.token())
        await database.execute("drop publication supabase_realtime")
        await system(client, "error")
        assert (await unready(server))["error"]["hint"] == 'Run: create publication "supabase_realtime";'
        await database.execute("create publication supabase_realtime for table news")
        healed = await system(client, "ok")
        # A slot that Postgres keeps has missed nothing as long as nothing was written.
        assert slot or "gap_since" in healed
        await database.execute("insert into news values (1, 'again')")
        assert await headline(client) == "again"


async def test_a_table_that_leaves_is_told_and_welcomed_back(server: Running, database: Connection) -> None:
    """Changes are missing from when it left until it was back."""
    async with server.client() as client:
        await client.subscribed("realtime:x", [NEWS], token=server.token())
        await database.execute("alter publication supabase_realtime drop table news")
        assert "table: news" in (await system(client, "error"))["message"]
        await database.execute("alter publication supabase_realtime add table news")
        assert "gap_since" in await system(client, "ok")
        await database.execute("insert into news values (1, 'back')")
        assert await headline(client) == "back"


async def test_who_is_not_concerned_hears_nothing(server: Running, database: Connection) -> None:
    """Another table leaves and returns."""
    async with server.client() as concerned, server.client() as other:
        await concerned.subscribed(
            "realtime:x", [{"event": "*", "schema": "public", "table": "songs"}], token=server.token()
        )
        await other.subscribed("realtime:x", [NEWS], token=server.token())
        await database.execute("alter publication supabase_realtime drop table songs")
        await system(concerned, "error")
        await database.execute("alter publication supabase_realtime add table songs")
        await system(concerned, "ok")
        await database.execute("insert into news values (1, 'still here')")
        assert (await other.message())[3] == "postgres_changes"


@pytest.mark.parametrize(
    ("wanted", "remedy"),
    [
        (PLANS, "alter publication supabase_realtime add table plans"),
        (
            NEWS | {"filter": "author=eq.eric"},
            "alter table news add author text; grant select on news to authenticated",
        ),
        (NEWS | {"schema": "later"}, "alter table news set schema later"),
        (NEWS | {"select": ["note"]}, "grant select (note) on news to authenticated"),
        (NEWS | {"filter": "id=eq.abc"}, "alter table news alter id type text"),
        (NEWS | {"filter": "data=eq.1"}, "alter table news alter data type jsonb"),
    ],
    ids=[
        "not published",
        "no such column",
        "no such table",
        "not to be read",
        "bad value",
        "no such operator",
    ],
)
async def test_what_was_refused_is_tried_again_when_its_cause_goes_away(
    server: Running, database: Connection, wanted: dict[str, Any], remedy: str
) -> None:
    """Without a word of the client."""
    await database.execute("alter table news add data json, add note text")
    await database.execute("revoke select on news from authenticated")
    await database.execute("grant select (id, headline, data) on news to authenticated")
    await database.execute("create schema later")
    await database.execute("grant usage on schema later to authenticated")
    async with server.client() as client:
        await client.join("realtime:x", token=server.token(), postgres_changes=[wanted])
        await system(client, "error")
        await database.execute(remedy.encode())
        assert await system(client, "ok") == CONFIRMED


async def test_who_left_is_not_subscribed_again(server: Running, database: Connection) -> None:
    """A refused subscription ends with its channel."""
    async with server.client() as client:
        await client.join("realtime:x", token=server.token(), postgres_changes=[PLANS])
        await system(client, "error")
        await client.push("realtime:x", "phx_leave", {})
        await client.until("phx_close")
        assert not server.feed._refused


# Failures of ours -------------------------------------------------------------------------------------------


async def test_a_watch_that_fails_is_reported_and_goes_on(
    server: Running, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream does not notice, and what the watch is for is noticed a little later."""
    monkeypatch.setattr("backbeat.server.feed.RESTART_PAUSE", 0.05)
    async with server.client() as client:
        await client.subscribed("realtime:x", [NEWS], token=server.token())
        mind_tables = server.feed._mind_tables
        failed = asyncio.Event()

        async def fails_once() -> None:
            monkeypatch.setattr(server.feed, "_mind_tables", mind_tables)
            failed.set()
            raise ZeroDivisionError

        monkeypatch.setattr(server.feed, "_mind_tables", fails_once)
        await failed.wait()
        await database.execute("insert into news values (1, 'still here')")
        assert await headline(client) == "still here"
        await database.execute("alter publication supabase_realtime drop table news")
        await system(client, "error")
        assert server.realtime.metrics.handler_failures == 1


@pytest.mark.parametrize("delay", [0.0, 0.01])
async def test_a_channel_that_fails_costs_nobody_else_anything(
    database: Connection, settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, delay: float
) -> None:
    """Neither the others, nor what comes later."""
    async with (
        serving(database, settings(change_delay=delay)) as server,
        server.client() as broken,
        server.client() as client,
    ):
        await broken.subscribed("realtime:broken", [NEWS], token=server.token())
        await client.subscribed("realtime:x", [NEWS], token=server.token())
        deliver = ChangeSubscription.deliver

        def fails(self: ChangeSubscription, frames: bytes) -> None:
            if self.wire[1] == "realtime:broken":
                raise ZeroDivisionError
            deliver(self, frames)

        monkeypatch.setattr(ChangeSubscription, "deliver", fails)
        for number in range(2):
            await database.execute("insert into news values (%s, 'news')", (number,))
            assert (await client.message())[3] == "postgres_changes"
        assert server.realtime.metrics.handler_failures == 2


# Lag and WAL ------------------------------------------------------------------------------------------------


async def test_a_stream_that_falls_behind_is_told_and_healed(
    server: Running, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changes still come, but late; then in time again, and nothing is missing."""
    monkeypatch.setattr("backbeat.server.feed.LATE", 0.5)
    monkeypatch.setattr("backbeat.server.feed.IN_TIME", 0.4)
    async with server.client() as client:
        await client.subscribed("realtime:x", [NEWS], token=server.token())
        released = hang(server, monkeypatch)
        await database.execute("insert into news values (1, 'late')")
        assert "changes arrive late" in (await system(client, "error"))["message"]
        assert (await unready(server))["late"]
        released.set()
        assert await headline(client) == "late"
        assert await system(client, "ok") == CONFIRMED


@pytest.mark.parametrize("slot", ["", SLOT])
async def test_the_bound_on_retained_wal_is_enforced(
    database: Connection, settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, slot: str
) -> None:
    """Even while the consumer hangs: the slot goes, and whoever listens hears of the gap."""
    bounded = settings(durable_slot=slot, max_retained_wal_bytes=5_000_000)
    async with serving(database, bounded) as server, server.client() as client:
        await client.subscribed("realtime:x", [NEWS], token=server.token())
        released = hang(server, monkeypatch)
        await database.execute("insert into news values (1, 'lost or found')")
        await write_wal(database, 6)
        async with asyncio.timeout(PATIENCE):
            while await has_slot(database):
                await asyncio.sleep(0.02)
        released.set()
        await system(client, "error")
        assert "gap_since" in await system(client, "ok")


async def test_lag_and_retained_wal_are_metrics(server: Running) -> None:
    """In bytes, as soon as somebody has looked."""
    async with asyncio.timeout(PATIENCE):
        while "backbeat_retained_wal_bytes " not in server.realtime.metrics.exposition():
            await asyncio.sleep(0.02)
    assert "backbeat_replication_lag_bytes " in server.realtime.metrics.exposition()


async def has_slot(database: Connection) -> bool:
    """Tell whether this database has a slot."""
    cursor = await database.execute(
        "select exists (select from pg_replication_slots where database = current_database())"
    )
    row = await cursor.fetchone()
    return row is not None and bool(row[0])
