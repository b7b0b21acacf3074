"""Stored messages: read from the write-ahead log, replayed, and their partitions."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from backbeat.errors import DatabaseError, Unavailable
from backbeat.postgres.database import Database
from backbeat.postgres.messages import StoredMessage, maintain, message_of, replay
from backbeat.postgres.pgoutput import Decoder, Insert

Admin = psycopg.AsyncConnection[tuple[Any, ...]]


@pytest.fixture
async def admin(database_url: str) -> AsyncIterator[Admin]:
    """The owner of the project."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
async def database(login_url: str) -> AsyncIterator[Database]:
    """The server's pool."""
    database = Database(login_url, size=2)
    await database.open()
    yield database
    await database.aclose()


async def store(admin: Admin, event: str, *, ago: float = 0, topic: str = "band", **columns: Any) -> None:
    """Store a message as if it had been sent some seconds ago."""
    row = {"payload": "{}", "binary_payload": None, "private": True, "extension": "broadcast", **columns}
    await admin.execute(
        "insert into realtime.messages"
        " (event, topic, payload, binary_payload, private, extension, inserted_at)"
        " values (%s, %s, %s, %s, %s, %s, (now() at time zone 'utc') - %s * interval '1 second')",
        (event, topic, row["payload"], row["binary_payload"], row["private"], row["extension"], ago),
    )


async def events(database: Database, *, since: float = 3600, limit: int = 25) -> list[str]:
    """The events of a replay of the last seconds."""
    since_ms = int((time.time() - since) * 1000)
    return [message.event for message in await replay(database, "band", since_ms=since_ms, limit=limit)]


async def test_the_newest_are_replayed_oldest_first(database: Database, admin: Admin) -> None:
    """A limit leaves out the oldest."""
    for age in (3, 1, 4, 2):
        await store(admin, str(age), ago=age)
    assert await events(database, limit=3) == ["3", "2", "1"]


async def test_those_of_one_transaction_are_replayed_as_they_were_written(
    database: Database, admin: Admin
) -> None:
    """They have the same time, and the stream delivers them in that order, too."""
    async with admin.transaction():
        for number in range(9):
            await store(admin, str(number))
    assert await events(database) == list("012345678")
    assert await events(database, limit=3) == list("678")


async def test_what_is_older_is_not_replayed(database: Database, admin: Admin) -> None:
    """The time is a time of the epoch, in milliseconds."""
    await store(admin, "old", ago=60)
    await store(admin, "new", ago=20)
    assert await events(database, since=40) == ["new"]


async def test_the_first_millisecond_belongs_to_a_replay(database: Database, admin: Admin) -> None:
    """A message of exactly that time is replayed."""
    await admin.execute(
        "create table realtime.messages_2020_01_01 partition of realtime.messages"
        " for values from ('2020-01-01') to ('2020-01-02');"
        "insert into realtime.messages (event, topic, payload, private, extension, inserted_at)"
        " values ('then', 'band', '{}', true, 'broadcast', '2020-01-01 00:00:00.123')"
    )
    messages = await replay(database, "band", since_ms=1_577_836_800_123, limit=25)
    assert [message.event for message in messages] == ["then"]


@pytest.mark.parametrize(
    "other",
    [
        {"topic": "label"},
        {"private": False},
        {"extension": "presence"},
        {"event": None},
        {"payload": None},
        {"ago": -3600},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_what_is_no_message_of_the_channel_is_not_replayed(
    database: Database, admin: Admin, other: dict[str, Any]
) -> None:
    """Other topics, public messages, rows without event or payload and those of the future stay away."""
    await store(admin, **{"event": "other", **other})
    assert await events(database) == []


async def test_a_replayed_json_message(database: Database, admin: Admin) -> None:
    """It has the id of its row and the text of its payload."""
    await store(admin, "sung", payload='{"n": 1.50}')
    row = await (await admin.execute("select id::text from realtime.messages")).fetchone()
    assert row is not None
    assert await replay(database, "band", since_ms=0, limit=1) == [
        StoredMessage(row[0], "band", "sung", private=True, payload=b'{"n": 1.50}', binary=None)
    ]


async def test_a_replayed_binary_message(database: Database, admin: Admin) -> None:
    """Bytes come as bytes."""
    await store(admin, "recorded", payload=None, binary_payload=b"\0\xff")
    (message,) = await replay(database, "band", since_ms=0, limit=1)
    assert (message.payload, message.binary) == (None, b"\0\xff")


@pytest.mark.parametrize("since_ms", [-(10**30), 10**30])
async def test_a_time_beyond_all_times_is_a_time(database: Database, since_ms: int) -> None:
    """Clients may name numbers that no calendar has."""
    assert await replay(database, "band", since_ms=since_ms, limit=1) == []


async def test_a_replay_that_fails_is_named(database: Database, admin: Admin) -> None:
    """The server has a text of its own for that."""
    await admin.execute("drop table realtime.messages")
    with pytest.raises(Unavailable) as refusal:
        await replay(database, "band", since_ms=0, limit=1)
    assert refusal.value.reason == "UnableToReplayMessages: Realtime was unable to replay messages"


@pytest.mark.parametrize(
    ("statement", "payload", "binary"),
    [
        ("select realtime.send('{\"n\": 1.50, \"id\": 1}', 'e', 'band')", b'{"n": 1.50, "id": 1}', None),
        ("select realtime.send_binary('\\x00ff', 'e', 'band')", None, b"\0\xff"),
    ],
    ids=["json", "binary"],
)
async def test_a_message_in_the_log(
    admin: Admin, statement: str, payload: bytes | None, binary: bytes | None
) -> None:
    """What is stored is what the stream reports, under the name of the table instead of a partition's."""
    await admin.execute("select pg_create_logical_replication_slot('watch', 'pgoutput', true)")
    await admin.execute(statement.encode())
    rows = await admin.execute(
        "select data from pg_logical_slot_get_binary_changes('watch', null, null, 'proto_version', '1', "
        "'publication_names', 'supabase_realtime_messages_publication')",
    )
    # A temporary slot that is dropped with its session may still be in the way of dropping the database.
    await admin.execute("select pg_drop_replication_slot('watch')")
    decoder = Decoder()
    decoded = [decoder.feed(data) for (data,) in await rows.fetchall()]
    (insert,) = [event for event in decoded if isinstance(event, Insert)]
    message = message_of(insert)
    assert (insert.relation.table, message.topic, message.payload, message.binary) == (
        "messages",
        "band",
        payload,
        binary,
    )


async def partitions(admin: Admin) -> list[str]:
    """The names of the partitions of realtime.messages, but for the prefix."""
    rows = await admin.execute(
        "select replace(inhrelid::regclass::text, 'realtime.messages_', '') from pg_inherits"
        " where inhparent = 'realtime.messages'::regclass order by 1"
    )
    return [name for (name,) in await rows.fetchall()]


async def days(admin: Admin, first: int, last: int) -> list[str]:
    """The names of the partitions of some days, counted from today."""
    rows = await admin.execute(
        "select to_char((now() at time zone 'utc')::date + n, 'YYYY_MM_DD')"
        " from generate_series(%s::int, %s::int) n",
        (first, last),
    )
    return [name for (name,) in await rows.fetchall()]


async def partition_of(admin: Admin, day: int) -> None:
    """Make the partition of a day, counted from today, as a server that ran on that day left it."""
    (name,) = await days(admin, day, day)
    await admin.execute(
        f"set role supabase_realtime_admin;"
        f"create table realtime.messages_{name} partition of realtime.messages"
        f" for values from ('{name.replace('_', '-')}') to (date '{name.replace('_', '-')}' + 1);"
        f"reset role"
    )


async def test_partitions_are_made_ahead(database: Database, admin: Admin) -> None:
    """What is missing between yesterday and three days from now is created by the server's own login."""
    (tomorrow,) = await days(admin, 1, 1)
    await admin.execute(f"drop table realtime.messages_{tomorrow}")
    await maintain(database)
    assert await partitions(admin) == await days(admin, -1, 3)


async def test_partitions_are_dropped_after_72_hours(database: Database, admin: Admin) -> None:
    """A partition goes when its last moment is older than that; other tables stay."""
    for day in (-30, -5, -2):
        await partition_of(admin, day)
    await maintain(database)
    assert await partitions(admin) == await days(admin, -2, 3)


async def test_partitions_are_made_while_the_table_is_in_use(
    database: Database, admin: Admin, database_url: str
) -> None:
    """A long transaction that stored a message does not hold up tomorrow."""
    (tomorrow,) = await days(admin, 1, 1)
    await admin.execute(f"drop table realtime.messages_{tomorrow}")
    async with await psycopg.AsyncConnection.connect(database_url) as writer:
        await writer.execute("select realtime.send('{}', 'e', 'band')")
        await maintain(database)
    assert tomorrow in await partitions(admin)


async def test_old_partitions_stay_while_the_table_is_in_use(
    database: Database, admin: Admin, database_url: str
) -> None:
    """Waiting for the lock would let every join wait."""
    await partition_of(admin, -30)
    async with await psycopg.AsyncConnection.connect(database_url) as reader:
        await reader.execute("select from realtime.messages")
        await maintain(database)
    assert len(await partitions(admin)) == 6


async def test_maintenance_that_fails_is_told(database: Database, admin: Admin) -> None:
    """The error names what Postgres said."""
    await admin.execute("drop function realtime.maintain_messages")
    with pytest.raises(DatabaseError, match="maintain_messages"):
        await maintain(database)
