"""What is counted of row changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg
    from tests.integration.server.conftest import Running

    Connection = psycopg.AsyncConnection[Any]

NEWS = {"event": "*", "schema": "public", "table": "news"}


async def test_a_change_counts_once_for_each_channel(server: Running, database: Connection) -> None:
    """Two channels, one of which wants it twice: two were written."""
    async with server.client() as client:
        await client.subscribed("realtime:one", [NEWS], token=server.token())
        await client.subscribed("realtime:two", [NEWS, NEWS | {"event": "INSERT"}], token=server.token())
        await database.execute("insert into news values (1, 'hello')")
        changes = [await client.until("postgres_changes") for _ in range(2)]
    assert sorted(len(change[4]["ids"]) for change in changes) == [1, 2]
    assert server.realtime.metrics.changes_sent == 2


async def test_the_bytes_of_a_change_are_counted(server: Running, database: Connection) -> None:
    """Like those of everything else that is written."""
    async with server.client() as client:
        await client.subscribed("realtime:one", [NEWS], token=server.token())
        before = server.realtime.metrics.bytes_out
        await database.execute("insert into news values (1, %s)", ("x" * 1000,))
        await client.until("postgres_changes")
        assert server.realtime.metrics.bytes_out - before > 1000
