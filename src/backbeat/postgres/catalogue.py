"""What the catalogue says about data types."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

from backbeat.postgres.values import TypeInfo

if TYPE_CHECKING:
    import psycopg

__all__ = ["load_types"]

_TYPES = (files("backbeat.postgres") / "sql" / "types.sql").read_bytes()


async def load_types(connection: psycopg.AsyncConnection[Any]) -> dict[int, TypeInfo]:
    """Read every data type of the database.

    Args:
        connection: an ordinary one, as any role: the catalogue is readable for all.

    Returns:
        The types by oid, for `backbeat.postgres.values.encoder` and for the names of types on the wire.
    """
    async with connection.cursor() as cursor:
        await cursor.execute(_TYPES)
        return {
            oid: TypeInfo(
                oid, name, kind, element, tuple(zip(names or (), oids or (), strict=True)), delimiter
            )
            async for oid, name, kind, element, delimiter, names, oids in cursor
        }
