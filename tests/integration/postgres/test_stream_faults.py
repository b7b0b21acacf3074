"""What may befall a stream, with real faults: each is noticed, healed, and leaves a gap that is known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.pq import ConnStatus
from tests.faults import FaultyLine
from tests.wal import write_wal

from backbeat.errors import StreamError
from backbeat.postgres.pgoutput import Insert
from backbeat.postgres.stream import ReplicationStream, StreamPhase, StreamState
from backbeat.postgres.watch import Watch

if TYPE_CHECKING:
    from backbeat.postgres.transactions import Transaction

    Connection = psycopg.AsyncConnection[Any]

PATIENCE = 20.0
SLOT = "faults"
QUICK = {"backoff": (0.01, 0.1), "slow_retry": 0.05, "status_interval": 0.05, "silence": 0.5}


class Log:
    """A consumer that keeps the ids of inserted rows, and every state of its stream."""

    def __init__(self) -> None:
        self.stream: ReplicationStream
        self.rows: asyncio.Queue[int] = asyncio.Queue()
        self.open = asyncio.Event()
        """While this is not set, `consume` does not return."""
        self.open.set()
        self.fails = False
        self._states: asyncio.Queue[StreamState] = asyncio.Queue()

    async def consume(self, batch: list[Transaction]) -> None:
        """Keep a batch."""
        if self.fails:
            self.fails = False
            raise ZeroDivisionError
        for transaction in batch:
            for event in transaction.events:
                if isinstance(event, Insert):
                    self.rows.put_nowait(int(event.new[0]))  # type: ignore[arg-type]
        await self.open.wait()

    def changed(self, state: StreamState) -> None:
        """Keep a state."""
        self._states.put_nowait(state)

    async def until(self, phase: StreamPhase) -> StreamState:
        """Wait for the next state with this phase."""
        async with asyncio.timeout(PATIENCE):
            while (state := await self._states.get()).phase is not phase:
                pass
        return state

    async def row(self) -> int:
        """Wait for a row."""
        async with asyncio.timeout(PATIENCE):
            return await self.rows.get()


@asynccontextmanager
async def streaming(url: str, **options: Any) -> AsyncIterator[Log]:
    """Stream until the block ends, whatever the consumer raises."""
    log = Log()
    log.stream = ReplicationStream(url, ["p"], log.consume, on_state=log.changed, **{**QUICK, **options})

    async def run() -> None:
        while True:
            try:
                await log.stream.run()
            except ZeroDivisionError:
                continue

    task = asyncio.create_task(run())
    try:
        yield log
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Connection]:
    """A database with a published table; no slot stays behind."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("create table songs (id int primary key)")
        await connection.execute("create publication p for table songs")
        yield connection
        await drop_slots(connection)


@pytest.fixture
async def watch(db: Connection, login_url: str) -> AsyncIterator[Watch]:
    """What looks at the same stream from outside."""
    async with aclosing(Watch(login_url, ["p"], "p")) as watch:
        yield watch


async def drop_slots(db: Connection) -> None:
    """Drop every slot of this database when its stream is gone."""
    async with asyncio.timeout(PATIENCE):
        while True:
            cursor = await db.execute(
                "select slot_name, active, temporary from pg_replication_slots"
                " where database = current_database()"
            )
            slots = await cursor.fetchall()
            if not slots:
                return
            for name, active, temporary in slots:
                if not active and not temporary:
                    await db.execute("select pg_drop_replication_slot(%s)", (name,))
            await asyncio.sleep(0.02)


async def test_a_cut_line_leaves_a_gap_with_a_beginning_and_an_end(db: Connection, login_url: str) -> None:
    """What was handled lies before the gap, what was missed in it, and what arrives after it."""
    line = FaultyLine(login_url)
    async with line.laid() as url, streaming(url) as log:
        await log.until(StreamPhase.STREAMING)
        await db.execute("insert into songs values (1)")
        await log.row()
        handled = await clock(db)
        line.cut()
        await log.until(StreamPhase.LOST)
        await db.execute("insert into songs values (2)")
        missed = await clock(db)
        line.restore()
        state = await log.until(StreamPhase.STREAMING)
        await db.execute("insert into songs values (3)")
        assert await log.row() == 3
    assert state.gap_since is not None
    assert state.gap_since <= missed <= state.since
    assert state.gap_since < handled + 1


async def test_a_line_that_is_cut_while_the_consumer_is_busy_is_found_cut(
    db: Connection, login_url: str
) -> None:
    """The heartbeat has met its end by then; whoever reads on hears of it as of any other."""
    line = FaultyLine(login_url)
    async with line.laid() as url, streaming(url) as log:
        await log.until(StreamPhase.STREAMING)
        log.open.clear()
        await db.execute("insert into songs values (1)")
        await log.row()
        connection = log.stream._walsender._connection  # type: ignore[union-attr]
        line.cut()
        async with asyncio.timeout(PATIENCE):
            while connection.pgconn.status == ConnStatus.OK:
                await asyncio.sleep(0.02)
        log.open.set()
        await log.until(StreamPhase.LOST)
        line.restore()
        assert (await log.until(StreamPhase.STREAMING)).gap_since is not None


async def test_a_line_that_stalls_while_the_stream_connects_is_given_up(
    db: Connection, login_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was closed, and yet somebody who waits for an answer does not wait for ever."""
    monkeypatch.setattr("backbeat.postgres.primary.ANSWER_TIMEOUT", 0.3)
    monkeypatch.setattr("backbeat.postgres.primary.CONNECT_TIMEOUT", 2)
    line = FaultyLine(login_url)
    line.stall()
    async with line.laid() as url, streaming(url) as log:
        await log.until(StreamPhase.LOST)
        line.restore()
        await log.until(StreamPhase.STREAMING)


async def test_a_line_that_stalls_while_postgres_makes_the_slot_is_given_up(
    db: Connection, login_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting for a transaction looks like silence; only another connection can tell them apart."""
    monkeypatch.setattr("backbeat.postgres.slots._SLOT_PATIENCE", 0.1)
    monkeypatch.setattr("backbeat.postgres.primary.ANSWER_TIMEOUT", 0.3)
    monkeypatch.setattr("backbeat.postgres.primary.CONNECT_TIMEOUT", 2)
    monkeypatch.setattr("backbeat.postgres.slots._CANCEL_TIMEOUT", 0.1)
    line = FaultyLine(login_url)
    async with await psycopg.AsyncConnection.connect(database_url) as writer, line.laid() as url:
        await writer.execute("insert into songs values (1)")
        async with streaming(url) as log:
            await waits_for_a_writer(db)
            line.stall()
            await log.until(StreamPhase.LOST)
            line.restore()
            await writer.commit()
            await log.until(StreamPhase.STREAMING)


async def test_a_slow_line_is_no_lost_one(db: Connection, login_url: str) -> None:
    """What comes slowly still comes; nobody gives up."""
    line = FaultyLine(login_url)
    async with line.laid() as url, streaming(url, silence=5.0) as log:
        await log.until(StreamPhase.STREAMING)
        line.slow(20_000)
        await db.execute("insert into songs select n from generate_series(1, 300) n")
        assert [await log.row() for _ in range(300)] == list(range(1, 301))
        assert log.stream.state.phase is StreamPhase.STREAMING


async def test_what_others_found_out_ends_the_stream(db: Connection, login_url: str) -> None:
    """The error becomes that of the state, and the stream comes back."""
    async with streaming(login_url) as log:
        await log.until(StreamPhase.STREAMING)
        error = StreamError("Somebody saw something.")
        log.stream.end(error)
        assert (await log.until(StreamPhase.LOST)).error is error
        await log.until(StreamPhase.STREAMING)


async def test_a_durable_slot_that_is_gone_is_made_anew_with_a_gap(db: Connection, login_url: str) -> None:
    """Somebody dropped it while the stream was away."""
    line = FaultyLine(login_url)
    async with line.laid() as url, streaming(url, slot=SLOT, durable=True) as log:
        await log.until(StreamPhase.STREAMING)
        line.cut()
        await log.until(StreamPhase.LOST)
        await drop_slots(db)
        line.restore()
        assert (await log.until(StreamPhase.STREAMING)).gap_since is not None


async def test_a_durable_slot_that_somebody_else_has_read_leaves_a_gap(
    db: Connection, login_url: str
) -> None:
    """It has forgotten what we never saw."""
    line = FaultyLine(login_url)
    async with line.laid() as url, streaming(url, slot=SLOT, durable=True) as log:
        await log.until(StreamPhase.STREAMING)
        line.cut()
        await log.until(StreamPhase.LOST)
        await db.execute("insert into songs values (1)")
        await advance(db)
        line.restore()
        assert (await log.until(StreamPhase.STREAMING)).gap_since is not None


async def test_a_durable_slot_over_its_bound_is_made_anew_with_a_gap(db: Connection, login_url: str) -> None:
    """When the stream comes back and finds that too much was kept for it."""
    line = FaultyLine(login_url)
    async with line.laid() as url, streaming(url, slot=SLOT, durable=True, max_retained=5_000_000) as log:
        await log.until(StreamPhase.STREAMING)
        line.cut()
        await log.until(StreamPhase.LOST)
        await write_wal(db, 6)
        line.restore()
        assert (await log.until(StreamPhase.STREAMING)).gap_since is not None
        assert await retained(db) < 5_000_000


@pytest.mark.parametrize("durable", [False, True])
async def test_a_slot_can_be_taken_from_a_consumer_that_hangs(
    db: Connection, watch: Watch, login_url: str, durable: bool
) -> None:
    """The WAL is free at once; the stream comes back with a gap when its consumer does."""
    async with streaming(login_url, slot=SLOT, durable=durable, max_retained=5_000_000) as log:
        await log.until(StreamPhase.STREAMING)
        log.open.clear()
        await db.execute("insert into songs values (1)")
        await log.row()
        await write_wal(db, 6)
        slot = log.stream.slot
        assert slot is not None
        assert ((await watch.slot(slot)).retained or 0) > 5_000_000
        await watch.drop(slot)
        assert (await watch.slot(slot)).retained is None
        log.open.set()
        assert (await log.until(StreamPhase.STREAMING)).gap_since is not None


async def test_what_the_consumer_failed_at_is_not_returned_by_a_durable_slot(
    db: Connection, login_url: str
) -> None:
    """It would fail again, for ever. It counts as a gap instead."""
    async with streaming(login_url, slot=SLOT, durable=True) as log:
        await log.until(StreamPhase.STREAMING)
        log.fails = True
        await db.execute("insert into songs values (1)")
        state = await log.until(StreamPhase.STREAMING)
        await db.execute("insert into songs values (2)")
        assert await log.row() == 2
    assert state.gap_since is not None


@pytest.mark.parametrize("fails", [False, True], ids=["cut", "failed"])
async def test_a_large_transaction_goes_on_where_it_was_interrupted(
    db: Connection, login_url: str, fails: bool
) -> None:
    """A durable slot starts it over; what has been handled of it does not come again."""
    line = FaultyLine(login_url)
    async with line.laid() as url, streaming(url, slot=SLOT, durable=True, batch_events=100) as log:
        await log.until(StreamPhase.STREAMING)
        log.open.clear()
        await db.execute("insert into songs select n from generate_series(1, 1000) n")
        first = [await log.row()]
        log.fails = fails
        line.cut()
        log.open.set()
        await log.until(StreamPhase.CONNECTING)
        line.restore()
        await log.until(StreamPhase.STREAMING)
        await db.execute("insert into songs values (1001)")
        while first[-1] != 1001:
            first.append(await log.row())
    assert first == sorted({*first})
    assert len(first) >= 901


async def test_nothing_is_complete_beyond_what_is_handled(db: Connection, login_url: str) -> None:
    """Postgres answers while it is still reading; a mark that was not reached says so."""
    async with streaming(login_url) as log:
        await log.until(StreamPhase.STREAMING)
        marked = await clock(db)
        log.stream.mark(1, 1 << 62, marked)
        log.stream.mark(1, 1 << 61, marked + 3600)
        await db.execute("insert into songs values (1)")
        await log.row()
        await db.execute("insert into songs values (2)")
        await log.row()
        assert log.stream.complete_until == marked


async def test_a_mark_that_was_reached_makes_room_for_the_next(db: Connection, login_url: str) -> None:
    """Up to a mark everything is complete, and beyond it too."""
    async with streaming(login_url) as log:
        await log.until(StreamPhase.STREAMING)
        marked = await clock(db)
        log.stream.mark(1, 1, marked)
        async with asyncio.timeout(PATIENCE):
            while (log.stream.complete_until or 0) <= marked:
                await asyncio.sleep(0.02)


async def test_a_missing_publication_is_seen_from_outside(db: Connection, watch: Watch) -> None:
    """A durable stream goes on without it, and does not say so."""
    assert (await watch.slot(None)).missing == []
    await db.execute("drop publication p")
    assert (await watch.slot(None)).missing == ["p"]


@pytest.mark.parametrize(
    "statement",
    [
        "alter table songs add title text",
        "revoke select on songs from anon",
        "grant select (id) on songs to anon",
        "drop table songs; create table songs (id int primary key); alter publication p add table songs",
    ],
)
async def test_a_changed_table_is_seen_from_outside(db: Connection, watch: Watch, statement: str) -> None:
    """Its columns, the rights to it, and whether it is still the same."""
    before = await watch.tables()
    assert before == await watch.tables()
    await db.execute(statement.encode())
    after = await watch.tables()
    assert after.keys() == before.keys()
    assert after != before


async def test_a_stalled_watch_fails_and_recovers(
    db: Connection, login_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not be what hangs."""
    monkeypatch.setattr("backbeat.postgres.watch.PATIENCE", 0.2)
    line = FaultyLine(login_url)
    async with line.laid() as url, aclosing(Watch(url, ["p"], "p")) as watch:
        await watch.slot(None)
        line.stall()
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(psycopg.OperationalError):
                await watch.slot(None)
        line.restore()
        await watch.slot(None)


async def clock(db: Connection) -> float:
    """The time, as Postgres has it."""
    row = await (await db.execute("select extract(epoch from clock_timestamp())::float8")).fetchone()
    assert row is not None
    return float(row[0])


async def retained(db: Connection) -> int:
    """Bytes of WAL kept for the slot."""
    cursor = await db.execute(
        "select pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::int8 from pg_replication_slots"
        " where slot_name = %s",
        (SLOT,),
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def advance(db: Connection) -> None:
    """Read the slot, as another program would, as soon as it is free."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await db.execute(
                    "select pg_replication_slot_advance(%s, pg_current_wal_lsn())",
                    (SLOT,),
                )
            except psycopg.errors.ObjectInUse:
                await asyncio.sleep(0.02)
            else:
                return


async def waits_for_a_writer(db: Connection) -> None:
    """Wait until a slot is being made and waits for a transaction."""
    async with asyncio.timeout(PATIENCE):
        while True:
            cursor = await db.execute(
                "select exists (select from pg_stat_activity where datname = current_database()"
                " and backend_type = 'walsender' and wait_event_type = 'Lock')"
            )
            if (await cursor.fetchone() or (False,))[0]:
                return
            await asyncio.sleep(0.02)
