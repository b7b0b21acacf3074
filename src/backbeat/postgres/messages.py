"""Messages stored in realtime.messages: as the replication stream reports them, and read again for a replay.

Server specification, sections 6.6 (broadcast from the database) and 6.7 (replay).
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg.errors import QueryCanceled

from backbeat.errors import DatabaseError, ProtocolError
from backbeat.protocol import reasons

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from backbeat.postgres.database import Connection, Database
    from backbeat.postgres.pgoutput import Insert

__all__ = ["MESSAGES_PUBLICATION", "StoredMessage", "maintain", "message_of", "replay"]

MESSAGES_PUBLICATION: Final = "supabase_realtime_messages_publication"
"""The publication that carries the rows of realtime.messages."""

REQUIRED: Final = ("id", "event", "topic", "private", "inserted_at")

END_OF_TIME: Final = 253_402_300_799_999
"""The last millisecond of the year 9999: clients may name any number, Postgres knows fewer."""

_REPLAY = (files("backbeat.postgres") / "sql" / "stored_messages.sql").read_bytes()


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A broadcast that somebody inserted into realtime.messages.

    Attributes:
        id: the id of the row.
        topic: the sub-topic, without `realtime:`.
        event: the user's event.
        private: whether it is for the private or for the public channel of that topic.
        payload: the JSON text, exactly as Postgres writes the jsonb value; None for a binary message.
        binary: the bytes of a binary message; None for a JSON message.
    """

    id: str
    topic: str
    event: str
    private: bool
    payload: bytes | None
    binary: bytes | None


def message_of(insert: Insert) -> StoredMessage:
    """Read a row of realtime.messages as the replication stream reports it.

    The column `extension` is not looked at (section 6.6).

    Args:
        insert: the new row, its values as text.

    Raises:
        ProtocolError: the row is no message that could be delivered; the error says why.
    """
    row = {
        column.name: value
        for column, value in zip(insert.relation.columns, insert.new, strict=True)
        if isinstance(value, bytes)
    }
    missing = [name for name in REQUIRED if name not in row]
    if missing:
        raise ProtocolError(f"A row of realtime.messages lacks {', '.join(missing)}.")
    payload, binary = row.get("payload"), row.get("binary_payload")
    if payload is None and binary is None:
        raise ProtocolError("A row of realtime.messages has neither payload nor binary_payload.")
    return StoredMessage(
        id=row["id"].decode(),
        topic=row["topic"].decode(errors="replace"),
        event=row["event"].decode(errors="replace"),
        private=row["private"] == b"t",
        # Bytes that are no text, possible in a database with encoding SQL_ASCII only, become U+FFFD.
        payload=None if payload is None else payload.decode(errors="replace").encode(),
        binary=_bytea(binary) if payload is None and binary is not None else None,
    )


def _bytea(text: bytes) -> bytes:
    """Decode the hex format of bytea."""
    if not text.startswith(rb"\x"):
        raise ProtocolError(
            "binary_payload is not in hex format: set bytea_output to hex for the server's login."
        )
    return bytes.fromhex(text[2:].decode())


async def replay(database: Database, topic: str, *, since_ms: int, limit: int) -> list[StoredMessage]:
    """Read the newest messages of a private channel, oldest first.

    Args:
        database: where they are stored.
        topic: the sub-topic, without `realtime:`.
        since_ms: the earliest time of a message, in milliseconds since 1970-01-01 UTC.
        limit: the most messages to return.

    Raises:
        Unavailable: the database is away, or took longer than 5 seconds.
    """
    parameters = {"topic": topic, "since": min(max(since_ms, 0), END_OF_TIME), "limit": limit}
    try:
        async with _owner(database) as connection:
            rows = await (await connection.execute(_REPLAY, parameters)).fetchall()
    except QueryCanceled as error:
        raise reasons.QUERY_CANCELED.refusal(topic=topic) from error
    except psycopg.Error as error:
        raise reasons.REPLAY_FAILED.refusal(topic=topic) from error
    return [
        StoredMessage(
            id=row_id,
            topic=topic,
            event=event,
            private=True,
            payload=None if payload is None else payload.encode(),
            binary=binary,
        )
        for row_id, event, payload, binary in reversed(rows)
    ]


async def maintain(database: Database) -> None:
    """Create the partitions of realtime.messages that will be needed, and drop those that are too old.

    Raises:
        DatabaseError: Postgres refused, or the table stayed locked.
        Unavailable: the database is away.
    """
    try:
        async with _owner(database) as connection:
            await connection.execute("select realtime.maintain_messages()")
    except psycopg.Error as error:
        raise DatabaseError(
            f"Could not keep the partitions of realtime.messages: {str(error).strip()}",
            hint="Run `backbeat migrate`; messages are stored as long as there is a partition for today.",
        ) from error


@asynccontextmanager
async def _owner(database: Database) -> AsyncIterator[Connection]:
    """Borrow a connection inside a transaction of the table's owner, with 5 seconds for each statement."""
    async with database.connection() as connection, connection.transaction():
        await connection.execute("set local role supabase_realtime_admin")
        await connection.execute("set local statement_timeout = '5s'")
        yield connection
