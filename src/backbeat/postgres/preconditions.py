"""What a replication stream depends on, asked before it starts."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import msgspec
from psycopg.rows import class_row

from backbeat.postgres.primary import answering, find_primary
from backbeat.postgres.stream_errors import unmet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backbeat.errors import StreamError

__all__ = ["Preconditions", "check"]

_PRECONDITIONS = (files("backbeat.postgres") / "sql" / "stream_preconditions.sql").read_bytes()


class Preconditions(msgspec.Struct, frozen=True):
    """What a stream depends on: a row of `stream_preconditions.sql`."""

    wal_level: str
    may_replicate: bool | None
    missing: list[str]
    """Publications that do not exist."""
    slot: str | None
    """The state of the durable slot; None when there is none."""
    retained: int | None = None
    """Bytes of WAL kept for the durable slot; None when there is none, or nothing is kept any more."""
    confirmed: int = 0
    """Up to where the durable slot has forgotten the changes."""

    def unmet(self) -> StreamError | None:
        """Say what somebody has to change before a stream can start."""
        if self.wal_level != "logical":
            return unmet(
                f"The database has wal_level = {self.wal_level}.",
                "Set wal_level = logical in its configuration and restart it.",
            )
        if self.missing:
            return unmet(
                f"The database has no publication {', '.join(self.missing)}.",
                f'Run: create publication "{self.missing[0]}";',
            )
        return None


async def check(conninfo: str, publications: Sequence[str], slot: str | None) -> Preconditions:
    """Ask on an ordinary connection what the replication protocol would answer late, vaguely or never.

    Args:
        conninfo: where Postgres is and who logs in.
        publications: what is to be streamed.
        slot: the name of the durable slot; None without one.

    Raises:
        StreamError: somebody has to change something first.
    """
    async with await find_primary(conninfo) as connection:
        with answering(connection):
            cursor = connection.cursor(row_factory=class_row(Preconditions))
            await cursor.execute(_PRECONDITIONS, {"publications": list(publications), "slot": slot})
            found = await cursor.fetchone()
    assert found is not None
    if (error := found.unmet()) is not None:
        raise error
    return found
