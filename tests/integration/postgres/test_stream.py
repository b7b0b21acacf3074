"""The replication stream, against a real Postgres, on both event loops."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from itertools import pairwise
from typing import Any, TypeAlias

import psutil
import psycopg
import pytest

from backbeat.errors import Retry
from backbeat.postgres.catalogue import load_types
from backbeat.postgres.pgoutput import (
    UNCHANGED,
    Delete,
    Insert,
    LogicalMessage,
    Relation,
    Truncate,
    Update,
)
from backbeat.postgres.stream import ReplicationStream, StreamPhase, StreamState
from backbeat.postgres.transactions import Transaction
from backbeat.postgres.values import encoder

Connection: TypeAlias = psycopg.AsyncConnection[tuple[Any, ...]]

DEADLINE = 20
"""Seconds after which a test gives up waiting for what should happen at once."""

MESSAGES = "supabase_realtime_messages_publication"


class Listener:
    """A consumer that keeps what it got, and lets a test wait for it."""

    def __init__(self) -> None:
        self.stream: ReplicationStream
        self.batches: list[list[Transaction]] = []
        self.states: list[StreamState] = []
        self.open = asyncio.Event()
        """While this is not set, `consume` does not return."""
        self.open.set()
        self._news = asyncio.Condition()
        self._notifiers: set[asyncio.Task[None]] = set()

    async def consume(self, batch: list[Transaction]) -> None:
        self.batches.append(batch)
        await self._notify()
        await self.open.wait()

    def on_state(self, state: StreamState) -> None:
        self.states.append(state)
        self._notifiers.add(asyncio.create_task(self._notify()))

    async def _notify(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a batch or a state makes the condition true."""
        async with asyncio.timeout(DEADLINE), self._news:
            await self._news.wait_for(condition)

    async def phase(self, phase: StreamPhase) -> StreamState:
        """Wait until the stream is in this phase."""
        await self.until(lambda: bool(self.states) and self.states[-1].phase is phase)
        return self.states[-1]

    @property
    def transactions(self) -> list[Transaction]:
        return [transaction for batch in self.batches for transaction in batch]

    @property
    def changes(self) -> list[object]:
        """Every event, the announcements of tables left out."""
        events = (event for transaction in self.transactions for event in transaction.events)
        return [event for event in events if not isinstance(event, Relation)]

    async def get(self, count: int) -> list[Any]:
        """Wait for so many changes, and return them."""
        await self.until(lambda: len(self.changes) >= count)
        assert len(self.changes) == count
        return self.changes


Start: TypeAlias = Callable[..., AbstractAsyncContextManager[Listener]]


async def eventually(question: Callable[[], Awaitable[bool]]) -> None:
    """Ask until the answer is yes."""
    async with asyncio.timeout(DEADLINE):
        while not await question():
            await asyncio.sleep(0.01)


async def one(connection: Connection, query: str) -> Any:
    """The first value of the first row."""
    row = await (await connection.execute(query.encode())).fetchone()
    return row and row[0]


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Connection]:
    """A connection to write with, and a publication `p` of two tables."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(
            """
            create table songs (id int primary key, title text, lyrics text);
            alter table songs alter lyrics set storage external;
            create table shows (id int primary key, place text);
            create table notes (id int primary key);
            create publication p for table songs, shows;
            """
        )
        yield connection
        # Postgres takes a moment to notice that a stream is gone, and drops no database that has one.
        await eventually(lambda: no_slot_is_active(connection))


@pytest.fixture
def start(login_url: str, db: Connection) -> Start:
    """Return what runs a stream of `p` while a block lasts."""

    @asynccontextmanager
    async def start(
        publications: tuple[str, ...] = ("p",), *, url: str = login_url, **options: Any
    ) -> AsyncIterator[Listener]:
        listener = Listener()
        options = {"backoff": (0.01, 0.1), "slow_retry": 0.05, **options}
        consume = options.pop("consume", listener.consume)
        listener.stream = ReplicationStream(url, publications, consume, on_state=listener.on_state, **options)
        task = asyncio.create_task(listener.stream.run())
        try:
            yield listener
        finally:
            task.cancel()
            await asyncio.wait([task])

    return start


async def no_slot_is_active(db: Connection) -> bool:
    """Tell whether Postgres has noticed that every stream is gone."""
    query = "select count(*) from pg_replication_slots where database = current_database() and active"
    return bool(await one(db, query) == 0)


async def drop_slot(db: Connection) -> None:
    """Remove a durable slot when its stream is gone."""
    await eventually(lambda: no_slot_is_active(db))
    await db.execute("select pg_drop_replication_slot('kept')")


@pytest.fixture
async def listener(start: Start) -> AsyncIterator[Listener]:
    """A stream of `p` that has begun."""
    async with start() as listener:
        await listener.phase(StreamPhase.STREAMING)
        yield listener


async def kill_walsender(db: Connection) -> None:
    """Do to the stream what a failing network or an administrator does."""
    await db.execute(
        """
        select pg_terminate_backend(active_pid) from pg_replication_slots
        where database = current_database()
        """
    )


async def test_transactions_come_in_order_of_commit(
    listener: Listener, db: Connection, database_url: str
) -> None:
    """What commits first comes first, whatever was written first and to which table."""
    async with await psycopg.AsyncConnection.connect(database_url) as other:
        await other.execute("insert into songs values (1, 'first written')")
        await db.execute("insert into shows values (2, 'first committed')")
        await other.commit()
    changes = await listener.get(2)
    assert [(c.relation.table, c.new[0]) for c in changes] == [("shows", b"2"), ("songs", b"1")]


async def test_transaction_tells_when_and_where_it_committed(listener: Listener, db: Connection) -> None:
    """Identifier, time and position are those of the database."""
    async with db.transaction():
        await db.execute("insert into songs values (1)")
        xid = await one(db, "select pg_current_xact_id()::text::int")
    await listener.get(1)
    [transaction] = listener.transactions
    seconds = float(await one(db, "select extract(epoch from now())"))
    lsn = int(await one(db, "select pg_current_wal_lsn() - '0/0'"))
    assert transaction.xid == xid
    assert seconds - 60 < transaction.commit_time / 1e6 <= seconds
    assert transaction.commit_lsn < (transaction.end_lsn or 0) <= lsn


async def test_default_identity(listener: Listener, db: Connection) -> None:
    """Old values are the primary key, and for an UPDATE only when it changed."""
    await db.execute("insert into songs values (1, 'Waltz', null)")
    await db.execute("update songs set title = 'Tango'")
    await db.execute("update songs set id = 2")
    await db.execute("delete from songs")
    insert, update, move, delete = await listener.get(4)
    songs = insert.relation
    assert [(c.name, c.is_key) for c in songs.columns] == [("id", True), ("title", False), ("lyrics", False)]
    assert insert == Insert(songs, [b"1", b"Waltz", None])
    assert update == Update(songs, None, None, [b"1", b"Tango", None])
    assert move == Update(songs, [b"1", None, None], "K", [b"2", b"Tango", None])
    assert delete == Delete(songs, [b"2", None, None], "K")


async def test_full_identity(listener: Listener, db: Connection) -> None:
    """Old values are all there with REPLICA IDENTITY FULL."""
    await db.execute("alter table songs replica identity full")
    await db.execute("insert into songs values (1, 'Waltz', null)")
    await db.execute("update songs set title = 'Tango'")
    await db.execute("delete from songs")
    insert, update, delete = await listener.get(3)
    assert insert.relation.replica_identity == "f"
    assert update == Update(insert.relation, [b"1", b"Waltz", None], "O", [b"1", b"Tango", None])
    assert delete == Delete(insert.relation, [b"1", b"Tango", None], "O")


@pytest.mark.parametrize(("identity", "old"), [("default", None), ("full", b"x" * 9000)])
async def test_unchanged_toast(listener: Listener, db: Connection, identity: str, old: bytes | None) -> None:
    """A large value that did not change is marked as such; only a full old row has it."""
    await db.execute(f"alter table songs replica identity {identity}".encode())
    await db.execute("insert into songs values (1, 'a', repeat('x', 9000))")
    await db.execute("update songs set title = 'b'")
    _, update = await listener.get(2)
    assert update.new == [b"1", b"b", UNCHANGED]
    assert (update.old and update.old[2]) == old


async def test_truncate(listener: Listener, db: Connection) -> None:
    """TRUNCATE is one event with all its tables."""
    await db.execute("truncate songs, shows restart identity")
    [event] = await listener.get(1)
    assert isinstance(event, Truncate)
    assert {relation.table for relation in event.relations} == {"songs", "shows"}
    assert (event.cascade, event.restart_identity) == (False, True)


async def test_rolled_back_savepoint_is_not_seen(listener: Listener, db: Connection) -> None:
    """Only what was committed arrives, of a transaction that rolled back a part of itself."""
    async with db.transaction():
        await db.execute("insert into songs values (1)")
        with suppress(ZeroDivisionError):
            async with db.transaction():
                await db.execute("insert into songs values (2)")
                raise ZeroDivisionError
        await db.execute("insert into songs values (3)")
    changes = await listener.get(2)
    assert [change.new[0] for change in changes] == [b"1", b"3"]


async def test_renamed_column_is_announced(listener: Listener, db: Connection) -> None:
    """Rows after DDL come with the new description of the table."""
    await db.execute("insert into shows values (1, 'Rome')")
    await db.execute("alter table shows rename place to town")
    await db.execute("insert into shows values (2, 'Bonn')")
    before, after = await listener.get(2)
    assert [c.name for c in before.relation.columns] == ["id", "place"]
    assert [c.name for c in after.relation.columns] == ["id", "town"]


async def test_table_added_to_publication(listener: Listener, db: Connection) -> None:
    """A table added while streaming is streamed from then on."""
    await db.execute("insert into notes values (1)")
    await db.execute("alter publication p add table notes")
    await db.execute("insert into notes values (2)")
    [change] = await listener.get(1)
    assert (change.relation.table, change.new) == ("notes", [b"2"])


async def test_stored_message_appears_as_its_root_table(start: Start, db: Connection) -> None:
    """Messages come as rows of realtime.messages, whatever partition holds them, in order with changes."""
    async with start(("p", MESSAGES)) as listener:
        await listener.phase(StreamPhase.STREAMING)
        async with db.transaction():
            await db.execute("insert into songs values (1)")
            await db.execute("select realtime.send('{\"a\": 1}', 'event', 'room', false)")
        changes = await listener.get(2)
    assert [(c.relation.schema, c.relation.table) for c in changes] == [
        ("public", "songs"),
        ("realtime", "messages"),
    ]


async def test_logical_messages(listener: Listener, db: Connection) -> None:
    """A transactional message keeps its place; one outside of transactions is none of our business."""
    await db.execute("select pg_logical_emit_message(false, 'x', 'unordered')")
    async with db.transaction():
        await db.execute("insert into songs values (1)")
        await db.execute("select pg_logical_emit_message(true, 'x', 'ordered')")
    _, message = await listener.get(2)
    assert isinstance(message, LogicalMessage)
    assert (message.prefix, message.content) == ("x", b"ordered")


async def test_large_transaction_comes_in_parts(start: Start, db: Connection) -> None:
    """100,000 rows come in bounded parts in order, and everything else runs on between any two of them."""
    turns = 0
    seen: list[int] = []

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    sizes: list[int] = []
    parts: list[tuple[int, bool]] = []
    rows = 0
    done = asyncio.Event()

    async def count(batch: list[Transaction]) -> None:
        nonlocal rows
        seen.append(turns)
        sizes.append(sum(len(transaction.events) for transaction in batch))
        for transaction in batch:
            parts.append((transaction.part, transaction.end_lsn is not None))
            rows += sum(isinstance(event, Insert) for event in transaction.events)
            if transaction.end_lsn is not None:
                done.set()

    async with start(consume=count) as listener:
        await listener.phase(StreamPhase.STREAMING)
        async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
            task = group.create_task(others())
            await db.execute("insert into songs select n from generate_series(1, 100000) n")
            await done.wait()
            task.cancel()
    assert rows == 100_000
    assert max(sizes) <= 500
    assert parts == [(number, number == len(parts) - 1) for number in range(len(parts))]
    assert all(earlier < later for earlier, later in pairwise(seen))


async def test_large_rows_are_bounded_by_bytes(start: Start, db: Connection) -> None:
    """A batch ends when it holds enough bytes, however few rows that are."""
    async with start(batch_bytes=100_000) as listener:
        await listener.phase(StreamPhase.STREAMING)
        await db.execute("insert into songs select n, repeat('x', 60000) from generate_series(1, 6) n")
        await listener.get(6)
    assert max(len(transaction.events) for transaction in listener.transactions) <= 3


async def test_nothing_is_read_while_the_consumer_is_busy(listener: Listener, db: Connection) -> None:
    """What arrives while a batch is being handled waits in the socket, and then makes one batch."""
    listener.open.clear()
    await db.execute("insert into songs values (1)")
    await listener.get(1)
    await db.execute("insert into songs values (2)")
    await db.execute("insert into songs values (3)")
    lsn = await one(db, "select pg_current_wal_lsn()")

    async def was_sent() -> bool:
        query = f"select bool_or(sent_lsn >= '{lsn}') from pg_stat_replication"
        return bool(await one(db, query))

    await eventually(was_sent)
    assert len(listener.batches) == 1
    listener.open.set()
    await listener.get(3)
    assert [len(batch) for batch in listener.batches] == [1, 2]


async def test_only_what_was_handled_is_acknowledged(start: Start, db: Connection) -> None:
    """Postgres may forget a transaction when its batch was handled, and not before."""
    async with start(slot="kept", durable=True, status_interval=0.01) as listener:
        await listener.phase(StreamPhase.STREAMING)
        listener.open.clear()
        await db.execute("insert into songs values (1)")
        await listener.get(1)
        end = listener.transactions[0].end_lsn
        confirmed = "select confirmed_flush_lsn - '0/0' from pg_replication_slots where slot_name = 'kept'"
        replied = "select coalesce(extract(epoch from max(reply_time)), 0) from pg_stat_replication"
        before = await one(db, replied)

        async def has_heard_of_us() -> bool:
            return bool(await one(db, replied) > before)

        await eventually(has_heard_of_us)
        assert await one(db, confirmed) < end
        listener.open.set()

        async def is_confirmed() -> bool:
            return bool(await one(db, confirmed) >= end)

        await eventually(is_confirmed)
    await drop_slot(db)


async def test_wal_of_no_interest_is_acknowledged(start: Start, db: Connection) -> None:
    """What others write is acknowledged soon: their WAL does not pile up, and no lost wake-up stays lost."""
    async with start(status_interval=3600) as listener:
        await listener.phase(StreamPhase.STREAMING)
        await db.execute("insert into notes values (1)")
        lsn = await one(db, "select pg_current_wal_lsn()")

        async def is_acknowledged() -> bool:
            return bool(await one(db, f"select bool_or(flush_lsn >= '{lsn}') from pg_stat_replication"))

        await eventually(is_acknowledged)
    assert not listener.changes


async def test_killed_walsender(listener: Listener, db: Connection) -> None:
    """A lost stream says so, comes back, names the gap, and delivers what comes after."""
    await db.execute("insert into songs values (1)")
    await listener.get(1)
    await kill_walsender(db)
    await listener.until(lambda: len(listener.states) >= 5)
    await listener.phase(StreamPhase.STREAMING)
    await db.execute("insert into songs values (2)")
    await listener.get(2)
    phases = [state.phase.value for state in listener.states[:5]]
    lost, back = listener.states[2], listener.states[4]
    assert phases == ["connecting", "streaming", "lost", "connecting", "streaming"]
    assert lost.error is not None
    assert "administrator" in lost.error.message
    assert listener.states[1].gap_since is None
    assert back.gap_since is not None
    assert listener.transactions[0].commit_time / 1e6 <= back.gap_since <= back.since


async def test_durable_slot_keeps_what_was_missed(start: Start, db: Connection) -> None:
    """Changes committed while nobody streamed arrive later, and those already handled do not come again."""
    async with start(slot="kept", durable=True) as first:
        await first.phase(StreamPhase.STREAMING)
        await db.execute("insert into songs values (1)")
        await first.get(1)
        # The next batch begins when the one before it was handled and acknowledged.
        await db.execute("insert into songs values (2)")
        await first.get(2)
    await db.execute("insert into songs values (3)")
    async with start(slot="kept", durable=True) as second:
        await second.until(lambda: any(c.new[0] == b"3" for c in second.changes if isinstance(c, Insert)))
    await drop_slot(db)
    assert b"1" not in [change.new[0] for change in second.changes if isinstance(change, Insert)]


async def test_durable_slot_has_no_gap(start: Start, db: Connection) -> None:
    """A durable stream that broke goes on where it was: no gap, nothing twice, nothing missing."""
    async with start(slot="kept", durable=True) as listener:
        await listener.phase(StreamPhase.STREAMING)
        for number in range(1, 4):
            await db.execute("insert into songs values (%s)", (number,))
            await listener.get(number)
            await kill_walsender(db)
            await listener.phase(StreamPhase.LOST)
        await db.execute("insert into songs values (4)")
        changes = await listener.get(4)
    await drop_slot(db)
    assert [change.new[0] for change in changes] == [b"1", b"2", b"3", b"4"]
    assert {state.gap_since for state in listener.states} == {None}


async def test_missing_publication(start: Start, db: Connection) -> None:
    """A publication that is not there is named, and found once it is."""
    async with start(("p", "later")) as listener:
        state = await listener.phase(StreamPhase.LOST)
        assert state.error is not None
        assert (state.error.code, state.error.retry) == ("StartReplicationFailed", Retry.SLOW)
        assert state.error.message == "The database has no publication later."
        await db.execute("create publication later for table notes")
        await listener.phase(StreamPhase.STREAMING)


async def test_dropped_publication(listener: Listener, db: Connection) -> None:
    """A publication dropped while streaming is noticed, although Postgres goes on without it."""
    await db.execute("insert into songs values (1)")
    await listener.get(1)
    await db.execute("drop publication p")
    await db.execute("insert into songs values (2)")
    await listener.until(lambda: "no publication p" in str(listener.states[-1].error))


async def test_login_without_replication(start: Start, db: Connection, database_url: str) -> None:
    """A role that may not replicate is told so, whatever the language of the server."""
    with suppress(psycopg.errors.DuplicateObject):
        await db.execute("create role no_replication login password 'x'")
    url = database_url.replace("postgres:postgres@", "no_replication:x@")
    async with start(url=url) as listener:
        state = await listener.phase(StreamPhase.LOST)
    assert state.error is not None
    assert (state.error.message, state.error.retry) == ("The login role may not replicate.", Retry.SLOW)


async def test_slot_in_use(start: Start, db: Connection) -> None:
    """A second consumer of a durable slot is told, and takes over when the first one leaves."""
    async with start(slot="kept", durable=True) as second:
        await second.phase(StreamPhase.STREAMING)
        async with start(slot="kept", durable=True) as first:
            state = await first.phase(StreamPhase.LOST)
    await drop_slot(db)
    assert state.error is not None
    assert (state.error.code, state.error.retry) == ("ReplicationSlotBeingUsed", Retry.BACKOFF)


async def test_unreachable_database(start: Start) -> None:
    """A database that is not there is a lost stream with one beginning, not an exception."""
    async with start(url="postgresql://x@127.0.0.1:1/x") as listener:
        await listener.until(lambda: [s.phase for s in listener.states].count(StreamPhase.LOST) == 3)
    assert len({state.since for state in listener.states}) == 1


async def waits_for_slot(db: Connection) -> bool:
    """Tell whether a slot is being made and waits for a transaction."""
    query = """
        select count(*) from pg_stat_activity
        where datname = current_database() and backend_type = 'walsender' and wait_event_type = 'Lock'
    """
    return bool(await one(db, query))


async def test_open_write_transaction_delays_the_slot_only(
    start: Start, db: Connection, database_url: str
) -> None:
    """While Postgres waits for a writer before it makes the slot, the stream is connecting, the loop runs."""
    async with await psycopg.AsyncConnection.connect(database_url) as writer, start() as listener:
        await writer.execute("insert into songs values (1)")
        await eventually(lambda: waits_for_slot(db))
        assert listener.stream.state.phase is StreamPhase.CONNECTING
        await writer.commit()
        await listener.phase(StreamPhase.STREAMING)


async def test_cancelled_while_waiting_for_the_slot(start: Start, db: Connection, database_url: str) -> None:
    """A stream can be stopped while Postgres waits for a writer, and leaves no half-made slot."""
    async with await psycopg.AsyncConnection.connect(database_url) as writer:
        await writer.execute("insert into songs values (1)")
        async with start():
            await eventually(lambda: waits_for_slot(db))
        await eventually(lambda: no_slot_is_active(db))


async def test_cancelled_stream_leaves_nothing_open(start: Start, db: Connection) -> None:
    """Cancelling closes the connection, and with it the temporary slot."""
    before = psutil.Process().num_fds()
    async with start() as listener:
        await listener.phase(StreamPhase.STREAMING)
        assert psutil.Process().num_fds() == before + 1
    assert psutil.Process().num_fds() == before
    await eventually(lambda: no_slot_is_active(db))


async def test_error_of_the_consumer_ends_the_stream(login_url: str, db: Connection) -> None:
    """What the consumer raises reaches the owner of the stream, and is not taken for a lost connection."""

    async def fail(_: list[Transaction]) -> None:
        raise psycopg.OperationalError("of the consumer")

    listener = Listener()
    stream = ReplicationStream(login_url, ["p"], fail, on_state=listener.on_state)
    task = asyncio.create_task(stream.run())
    await listener.phase(StreamPhase.STREAMING)
    await db.execute("insert into songs values (1)")
    with pytest.raises(psycopg.OperationalError, match="of the consumer"):
        await asyncio.wait_for(task, DEADLINE)


SAMPLES = r"""
1::smallint, (-2147483648)::int, 9223372036854775807::bigint, 1.500::numeric,
12345678901234567890.123456789::numeric, 1.1::real, 1e-5::float8, 1.7976931348623157e308::float8,
'-0'::float8, 5e-324::float8, true, false, ''::text, E'a"\\\n\t\x01é😀'::text, 'ab'::char(5),
'ab'::varchar(5), 'x'::"char", 'n'::name, B'101'::bit(3), B'10'::bit varying, '12.34'::money,
'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid, '10.0.0.1/8'::inet, '10.0.0.0/8'::cidr,
'08:00:2b:01:02:03'::macaddr, '(1,2)'::point, '((0,0),(1,1))'::box,
'1 year 2 mons 3 days 04:05:06.7'::interval, '[1,5)'::int4range,
'["2024-01-01 00:00","2024-02-01 00:00")'::tsrange, '{[1,3),[5,7)}'::int4multirange, '2024-02-29'::date,
'0044-03-15 BC'::date, 'infinity'::date, '13:14:15.5'::time, '13:14:15+02'::timetz,
'2024-01-01 12:00:00.123456'::timestamp, '0044-03-15 12:00 BC'::timestamp, 'infinity'::timestamp,
'2024-01-01 12:00:00.5+02'::timestamptz, '0044-03-15 12:00+00 BC'::timestamptz,
'12024-01-01 00:00+00'::timestamptz, '-infinity'::timestamptz, '{"b": [1, 2.50], "a": null}'::json,
E'{"b":\n"é"}'::json, '{"b": [1, 2.50], "a": "\u0007"}'::jsonb, '"x"'::jsonb, 'null'::jsonb,
'0/16B3748'::pg_lsn, 'a & b'::tsquery, 'a b'::tsvector, '$.a'::jsonpath, 'pg_class'::regclass, '7'::xid8,
'{}'::int[], '{1,NULL,3}'::int[], '{{1,2},{3,4}}'::int[], '[0:1]={1,2}'::int[], '{1e-5,NaN}'::float8[],
'{1.50,NaN}'::numeric[], '{1}'::oid[], '{t,f}'::bool[],
E'{"a b","\\"","\\\\","NULL",NULL,"",é,"{","1,2"}'::text[], array['\x0102'::bytea], array['{"a": 1}', '"x"',
'2']::jsonb[], array['2024-01-01 12:00'::timestamptz], array['2024-01-01 12:00'::timestamp],
'{(1,1),(0,0);(2,2),(1,1)}'::box[], '{"[1,5)"}'::int4range[], array['ab'::char(5)], array['12.34'::money],
'happy'::mood, '{happy,"sad day"}'::mood[], 5::positive, 6::very_positive, '{5}'::positive[], '{a,b}'::tags,
row(1, E'a,"\\ b', null)::note, row(null, '', '{1}')::note, array[row(1, 'x', '{2}')::note, null],
row(row(1, 'a"b', '{3}')::note, array[row(2, '', null)::note], '\x01', '2024-01-01')::chord, row(1,
'Rome')::shows, row(3, 'c', null)::checked_note
"""


async def test_values_are_those_of_to_jsonb(listener: Listener, db: Connection) -> None:
    """The JSON made of a streamed value is Postgres' own, for every common type, digit by digit."""
    await db.execute(
        """
        create type mood as enum ('happy', 'sad day');
        create domain positive as int check (value > 0);
        create domain very_positive as positive;
        create domain tags as text[];
        create type note as (x int, "y "" z" text, list int[]);
        create type chord as (root note, others note[], raw bytea, at timestamptz);
        create domain checked_note as note;
        """
    )
    await db.execute("set timezone = 'UTC'")
    count = len((await db.execute(f"select {SAMPLES} limit 0".encode())).description or ())
    names = ", ".join(f"c{number}" for number in range(count))
    await db.execute(f"create table samples ({names}) as select {SAMPLES} limit 0".encode())
    await db.execute("alter publication p add table samples")
    await db.execute(f"insert into samples select {SAMPLES}".encode())
    [insert] = await listener.get(1)
    expressions = ", ".join(f"to_jsonb(c{number})::text" for number in range(count))
    expected = await (await db.execute(f"select {expressions} from samples".encode())).fetchone()
    assert expected is not None
    types = await load_types(db)
    differences = []
    for column, text, wanted in zip(insert.relation.columns, insert.new, expected, strict=True):
        got = encoder(column.type_oid, types)(text).decode()
        if exactly(got) != exactly(wanted):
            differences.append((types[column.type_oid].name, text, got, wanted))
    assert not differences


def exactly(text: str) -> object:
    """Parse JSON without losing a digit."""
    return json.loads(text, parse_float=str, parse_int=str)


async def test_type_names(db: Connection) -> None:
    """Types are known by the names clients see."""
    await db.execute("create domain positive as int")
    types = await load_types(db)
    oid = await one(db, "select 'positive'::regtype::oid::int")
    assert [types[known].name for known in (20, 1009, 1184, oid)] == [
        "int8",
        "_text",
        "timestamptz",
        "positive",
    ]
