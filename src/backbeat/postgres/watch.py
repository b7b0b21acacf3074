"""What a stream does not tell about itself, asked for every few seconds on an ordinary connection."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import psycopg
import structlog
from psycopg.rows import class_row

from backbeat.postgres.deadline import cut_after
from backbeat.postgres.dedicated import Dedicated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Published", "Slot", "TableName", "Watch"]

log = structlog.get_logger("backbeat.watch")

PATIENCE: Final = 5.0
"""Seconds in which Postgres answers, or the connection counts as dead."""

TERMINATIONS: Final = 3
"""How often a walsender is told to end. One that is stuck writing to its client first tries to say goodbye,
is stuck with that, and ends when it is told once more."""

_SLOT = (files("backbeat.postgres") / "sql" / "slot.sql").read_bytes()
_TABLES = (files("backbeat.postgres") / "sql" / "published_tables.sql").read_bytes()

TableName: TypeAlias = tuple[str, str]
"""Schema and name."""


@dataclass(frozen=True, slots=True)
class Slot:
    """How a stream looks from outside.

    Attributes:
        missing: publications that do not exist.
        timeline: the history of the WAL.
        lsn: the end of the WAL.
        when: at a time before which everything committed lies before that end; seconds since 1970, by the
            clock of Postgres.
        retained: bytes of WAL kept for the slot; None when there is no slot.
        behind: bytes of WAL written since what was last acknowledged; None when there is no slot.
    """

    missing: list[str]
    timeline: int
    lsn: int
    when: float
    retained: int | None
    behind: int | None


class Published(NamedTuple):
    """A table in the publication.

    Attributes:
        oid: which one it is.
        definition: differs when the definition of the table or its columns changed, or a right to them.
    """

    oid: int
    definition: str


class Watch:
    """Looks at the slot and the publication, over a connection of its own.

    Args:
        url: where Postgres is and who logs in: the role that streams.
        publications: what is streamed.
        subscribed: the publication whose tables people subscribe to.
    """

    def __init__(self, url: str, publications: Sequence[str], subscribed: str) -> None:
        self._publications = list(publications)
        self._subscribed = subscribed
        self._dedicated = Dedicated(url, name="backbeat watch")

    async def aclose(self) -> None:
        """Close the connection."""
        await self._dedicated.aclose()

    async def slot(self, name: str | None) -> Slot:
        """Look at a stream.

        Args:
            name: its slot; None when it has none yet.

        Raises:
            psycopg.Error: Postgres did not answer.
        """
        async with self._dedicated.hold() as connection:
            with cut_after(connection, PATIENCE):
                cursor = connection.cursor(row_factory=class_row(Slot))
                await cursor.execute(_SLOT, {"publications": self._publications, "slot": name})
                found = await cursor.fetchone()
        assert found is not None
        return found

    async def tables(self) -> Mapping[TableName, Published]:
        """Look at the publication.

        Raises:
            psycopg.Error: Postgres did not answer.
        """
        async with self._dedicated.hold() as connection:
            with cut_after(connection, PATIENCE):
                cursor = await connection.execute(_TABLES, {"publication": self._subscribed})
                rows = await cursor.fetchall()
        return {(schema, table): Published(oid, definition) for schema, table, oid, definition in rows}

    async def drop(self, slot: str) -> None:
        """Take a slot away from whoever streams from it, so that Postgres may remove its WAL.

        A temporary slot goes with its connection. A durable one that is still in use after this, or in use
        again, is dropped by the stream when it connects (`backbeat.postgres.slots`).

        Args:
            slot: its name.

        Raises:
            psycopg.Error: Postgres did not answer.
        """
        async with self._dedicated.hold() as connection:
            with cut_after(connection, PATIENCE):
                for _ in range(TERMINATIONS):
                    cursor = await connection.execute(
                        "select pg_catalog.pg_terminate_backend(active_pid, 500)"
                        " from pg_catalog.pg_replication_slots where slot_name = %s and active",
                        (slot,),
                    )
                    if await cursor.fetchone() is None:
                        break
                with suppress(psycopg.errors.ObjectInUse, psycopg.errors.UndefinedObject):
                    await connection.execute("select pg_catalog.pg_drop_replication_slot(%s)", (slot,))
