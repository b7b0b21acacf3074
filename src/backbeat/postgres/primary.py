"""The primary among the hosts of an address: a standby can do nothing of what a server needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.conninfo import make_conninfo

from backbeat.postgres.deadline import cut_after
from backbeat.postgres.stream_errors import unmet

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

__all__ = ["answering", "connect", "find_primary", "primary"]

CONNECT_TIMEOUT: Final = 10
"""Seconds."""

ANSWER_TIMEOUT: Final = 10
"""Seconds in which Postgres answers what it need not wait for."""


def primary(conninfo: str) -> str:
    """Have libpq accept the primary only, whichever of several hosts that is.

    Nothing can be written to a standby, not even a temporary function; and its slots and positions are not
    those of the primary. A connection to one would stay there for good.

    Args:
        conninfo: where Postgres is and who logs in, with one host or several.
    """
    return make_conninfo(conninfo, target_session_attrs="primary")


async def connect(conninfo: str, **options: Any) -> psycopg.AsyncConnection[Any]:
    """Connect to the primary, in autocommit mode.

    Args:
        conninfo: where Postgres is and who logs in.
        options: further parameters of libpq.

    Raises:
        psycopg.OperationalError: it cannot be reached in time.
    """
    return await psycopg.AsyncConnection.connect(
        make_conninfo(primary(conninfo), connect_timeout=CONNECT_TIMEOUT, **options),
        autocommit=True,
        prepare_threshold=None,
    )


async def find_primary(conninfo: str) -> psycopg.AsyncConnection[Any]:
    """Connect to the primary, and tell a standby that somebody may yet promote from a database that is away.

    Args:
        conninfo: where Postgres is and who logs in.

    Raises:
        StreamError: only a standby is there.
        psycopg.OperationalError: Postgres cannot be reached in time.
    """
    try:
        return await connect(conninfo)
    except psycopg.OperationalError as error:
        if isinstance(error, psycopg.errors.ConnectionTimeout) or not await _stands_by(conninfo):
            raise
        raise unmet(
            "The database is a standby in recovery.",
            "Promote it, or name the primary in the address of the database. Several hosts may stand there"
            " (host1:port1,host2:port2): the primary among them is found.",
        ) from error


def answering(connection: psycopg.AsyncConnection[Any]) -> AbstractContextManager[None]:
    """Give Postgres the time it may take for what it need not wait for."""
    return cut_after(connection, ANSWER_TIMEOUT)


async def _stands_by(conninfo: str) -> bool:
    """Tell whether a standby takes connections at an address."""
    conninfo = make_conninfo(conninfo, target_session_attrs="standby", connect_timeout=CONNECT_TIMEOUT)
    try:
        connection = await psycopg.AsyncConnection.connect(conninfo)
    except psycopg.OperationalError:
        return False
    await connection.close()
    return True
