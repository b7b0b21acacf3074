"""A connection of one's own, for what lives as long as a connection does."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from backbeat.postgres.deadline import cut_after
from backbeat.postgres.primary import primary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from psycopg.abc import PQGen

    from backbeat.postgres.database import Connection

    Result = TypeVar("Result")

__all__ = ["Dedicated"]

SESSION = {
    # The text of a value must be the one that the replication stream writes.
    "datestyle": "ISO",
    "timezone": "UTC",
    "extra_float_digits": "3",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    # Set where a disk is full, say. We write nothing but temporary functions.
    "default_transaction_read_only": "off",
    # Compiling a plan takes longer than any of ours runs.
    "jit": "off",
}


PATIENCE: Final = 15.0
"""Seconds in which Postgres answers a statement, or the connection counts as dead. Longer than any
`statement_timeout` of ours: what takes its time is ended by Postgres."""


class _Bounded(psycopg.AsyncConnection[Any]):
    """A connection that waits for no answer for ever, though the other end vanished without a word."""

    async def wait(self, gen: PQGen[Result], *args: Any, **options: Any) -> Result:
        """Wait for an answer, or meet the end of the connection."""
        with cut_after(self, PATIENCE):
            return await super().wait(gen, *args, **options)


class Dedicated:
    """One connection, outside of any pool, made when it is needed and again when it was lost.

    Args:
        url: where Postgres is and who logs in.
        name: the `application_name` an administrator sees.
        settings: settings of the session, beside those that fix how values are written.
    """

    def __init__(self, url: str, *, name: str, settings: Mapping[str, str] | None = None) -> None:
        self._url = primary(url)
        self._name = name
        self._settings = SESSION | dict(settings or {})
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[Connection]:
        """Have the connection for oneself, in autocommit mode.

        Raises:
            psycopg.OperationalError: Postgres cannot be reached.
        """
        async with self._lock:
            connection = self._connection
            if connection is None or connection.closed:
                connection = self._connection = await self._connect()
            try:
                yield connection
            finally:
                # Whoever was cancelled in the middle of a statement leaves a session in an unknown state.
                if connection.info.transaction_status is not TransactionStatus.IDLE:
                    await connection.close()

    async def aclose(self) -> None:
        """Close the connection, when whoever holds it is done."""
        async with self._lock:
            if self._connection is not None:
                await self._connection.close()

    async def _connect(self) -> Connection:
        connection = await _Bounded.connect(
            self._url,
            autocommit=True,
            prepare_threshold=0,
            application_name=self._name,
            client_encoding="utf8",
            connect_timeout=5,
        )
        try:
            for setting, value in self._settings.items():
                await connection.execute("select set_config(%s, %s, false)", (setting, value))
        except BaseException:
            await connection.close()
            raise
        return connection
