"""Write-ahead log for tests that need much of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

__all__ = ["write_wal"]


async def write_wal(db: psycopg.AsyncConnection[Any], megabytes: int) -> None:
    """Make so much WAL that has nothing to do with anybody; all of it is on disk then."""
    await db.execute(
        # What is kept for a slot is counted up to what was written out. A transaction that has an id writes
        # out everything before its end; any other leaves that to the WAL writer.
        "select pg_current_xact_id(), pg_logical_emit_message(false, 'noise', repeat('x', 1000000))"
        " from generate_series(1, %s)",
        (megabytes,),
    )
