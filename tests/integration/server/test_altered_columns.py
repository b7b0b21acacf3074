"""Columns change under the filters of those who are subscribed."""

from __future__ import annotations

from typing import Any, LiteralString, NamedTuple

import psycopg
import pytest
from tests.integration.server.conftest import NEWS, RawClient, Running, headline, system

Connection = psycopg.AsyncConnection[Any]


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks at the tables from outside: only the stream tells that they changed."""
    monkeypatch.setattr("backbeat.server.feed.WATCH_INTERVAL", 3600.0)


async def filtered(client: RawClient, server: Running, filter_: str) -> None:
    """Subscribe to the news with a filter."""
    await client.subscribed("realtime:x", [NEWS | {"filter": filter_}], token=server.token())


class Altered(NamedTuple):
    """A column that gets another type, and which rows of before and after a filter lets through."""

    type: LiteralString
    filter: str
    becomes: LiteralString
    rows: LiteralString
    headlines: list[str]


ALTERED = [
    Altered("int", "c=gt.5", "text", "('10', 'no'), ('7', 'yes')", ["before", "yes"]),
    Altered("text", "c=gt.5", "int using c::int", "(3, 'no'), (10, 'yes')", ["before", "yes"]),
    Altered("text", "c=eq.9", "numeric using c::numeric", "(90, 'no'), (9.00, 'yes')", ["before", "yes"]),
    Altered("text", "c=lt.10", "size using c::size", "('10'::size, 'no'), ('9', 'yes')", ["yes"]),
    Altered("text", "c=like.9%", "name", "('8', 'no'), ('91', 'yes')", ["before", "yes"]),
]


@pytest.mark.parametrize("together", [True, False], ids=["one transaction", "one after the other"])
@pytest.mark.parametrize("case", ALTERED, ids=lambda case: case.becomes)
@pytest.mark.usefixtures("blind")
async def test_rows_are_compared_as_the_type_they_were_written_with(
    server: Running, database: Connection, case: Altered, together: bool
) -> None:
    """The last row before the change as the old type, the first row after it as the new one."""
    await database.execute("create type size as enum ('9', '10')")
    await database.execute(f"alter table news add c {case.type}".encode())
    async with server.client() as client:
        await filtered(client, server, case.filter)
        statements = [
            "insert into news values (1, 'before', '9')",
            f"alter table news alter c type {case.becomes}",
            (
                "insert into news (id, c, headline)"
                f" select 1 + row_number() over (), r.* from (values {case.rows}) r"
            ),
        ]
        if together:
            async with database.transaction():
                for statement in statements:
                    await database.execute(statement.encode())
        else:
            for statement in statements:
                await database.execute(statement.encode())
        assert [await headline(client) for _ in case.headlines] == case.headlines


class Unsuited(NamedTuple):
    """How a filter ceases to suit its column, and suits it again."""

    type: LiteralString
    filter: str
    change: LiteralString
    message: str
    remedy: LiteralString
    match: object


UNSUITED = [
    Unsuited(
        "text",
        "c=eq.nine",
        "alter table news alter c type int using null",
        'invalid input syntax for type integer: "nine"',
        "alter table news alter c type text",
        "nine",
    ),
    Unsuited(
        "text",
        "c=like.9%",
        "alter table news alter c type int using null",
        "operator like requires a text-compatible column type, got integer",
        "alter table news alter c type text",
        "90",
    ),
    Unsuited(
        "boolean",
        "c=is.true",
        "alter table news alter c type text",
        "is true filter requires a boolean column, got text",
        "alter table news alter c type boolean using c::boolean",
        True,
    ),
    Unsuited(
        "int",
        "c=eq.9",
        "alter table news alter c type json using to_json(c)",
        "operator does not exist: json = json",
        "alter table news alter c type int using c::text::int",
        9,
    ),
    Unsuited(
        "int",
        "c=eq.9",
        "alter table news rename c to d",
        "invalid column for filter c",
        "alter table news rename d to c",
        9,
    ),
    Unsuited(
        "int",
        "c=eq.9",
        "alter table news drop c",
        "invalid column for filter c",
        "alter table news add c int",
        9,
    ),
    Unsuited(
        "int",
        "c=eq.9",
        "alter publication supabase_realtime set table songs, news (id, headline)",
        "invalid column for filter c: it is not published",
        "alter publication supabase_realtime set table songs, news",
        9,
    ),
]


@pytest.mark.parametrize("case", UNSUITED, ids=lambda case: case.message)
@pytest.mark.usefixtures("blind")
async def test_a_filter_that_no_longer_suits_its_column_is_told(
    server: Running, database: Connection, case: Unsuited
) -> None:
    """Its channel gets nothing more, and hears so once; nobody else notices. It heals with the column."""
    await database.execute(f"alter table news add c {case.type}".encode())
    await server.feed._mind_tables()
    async with server.client() as client, server.client() as other:
        await filtered(client, server, case.filter)
        await filtered(other, server, "headline=neq.nothing")
        async with database.transaction():
            await database.execute(case.change.encode())
            await database.execute("insert into news values (1, 'changed')")
        assert await headline(other) == "changed"
        refused = (await client.message())[4]
        assert (refused["status"], case.message in refused["message"]) == ("error", True), refused
        await server.feed._mind_tables()
        await database.execute(case.remedy.encode())
        await server.feed._mind_tables()
        restored = (await client.message())[4]
        assert restored.get("gap_since", "") < restored.get("gap_until", ""), restored
        await database.execute("insert into news (id, headline, c) values (2, 'healed', %s)", (case.match,))
        assert await headline(client) == "healed"
        assert (await other.message())[4]["data"]["record"]["headline"] == "healed"


@pytest.mark.usefixtures("quick")
async def test_a_renamed_value_of_an_enum_is_noticed(server: Running, database: Connection) -> None:
    """The stream does not tell; who looks at the tables does."""
    await database.execute("create type size as enum ('small', 'large')")
    await database.execute("alter table news add c size")
    async with server.client() as client:
        await filtered(client, server, "c=eq.small")
        await database.execute("alter type size rename value 'small' to 'tiny'")
        assert "invalid input value for enum" in (await system(client, "error"))["message"]
        await database.execute("alter type size rename value 'tiny' to 'small'")
        await system(client, "ok")


async def test_a_generated_column_that_is_not_published_is_refused(
    server: Running, database: Connection
) -> None:
    """It never comes along: whoever asked for it would wait for ever."""
    await database.execute("alter table news add c int generated always as (id * 2) virtual")
    async with server.client() as client:
        await client.join("realtime:x", token=server.token(), postgres_changes=[NEWS | {"filter": "c=eq.2"}])
        assert "c: it is not published" in (await system(client, "error"))["message"]


async def test_an_event_that_the_publication_leaves_out_is_refused(
    server: Running, database: Connection
) -> None:
    """It never comes, and whoever asked for it would wait for ever; it heals with the publication."""
    await database.execute("alter publication supabase_realtime set (publish = 'insert, delete')")
    async with server.client() as client:
        await client.join("realtime:x", token=server.token(), postgres_changes=[NEWS | {"event": "UPDATE"}])
        assert "the publication leaves out every UPDATE" in (await system(client, "error"))["message"]
        await database.execute("alter publication supabase_realtime set (publish = 'insert, update, delete')")
        await system(client, "ok")
