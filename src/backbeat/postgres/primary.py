"""The primary among the hosts of an address: a standby can do nothing of what a server needs."""

from __future__ import annotations

import psycopg
from psycopg.conninfo import make_conninfo

__all__ = ["primary", "stands_by"]


def primary(conninfo: str) -> str:
    """Have libpq accept the primary only, whichever of several hosts that is.

    Nothing can be written to a standby, not even a temporary function; and its slots and positions are not
    those of the primary. A connection to one would stay there for good.

    Args:
        conninfo: where Postgres is and who logs in, with one host or several.
    """
    return make_conninfo(conninfo, target_session_attrs="primary")


async def stands_by(conninfo: str) -> bool:
    """Tell whether a standby takes connections at an address.

    Args:
        conninfo: where Postgres is and who logs in.
    """
    try:
        connection = await psycopg.AsyncConnection.connect(
            make_conninfo(conninfo, target_session_attrs="standby")
        )
    except psycopg.OperationalError:
        return False
    await connection.close()
    return True
