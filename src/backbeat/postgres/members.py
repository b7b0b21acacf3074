"""Which users stand in the tables that policies look into: nobody else needs to be asked about a row.

They are read with the rights of a role that sees all of such a table. So they are at least those whom a
policy lets through; who sees the row is asked of Postgres all the same.
"""

from __future__ import annotations

import asyncio
from importlib.resources import files
from typing import TYPE_CHECKING, Final, TypeAlias

import psycopg
import structlog
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from backbeat.postgres.conditions import Member
    from backbeat.postgres.database import Connection
    from backbeat.postgres.policies import Access

__all__ = ["Members", "Users", "Values"]

log = structlog.get_logger("backbeat.members")

MOST: Final = 50_000
"""How many users are read for one table. Where there are more, asking all subscribers is no worse."""
SUSPENSION: Final = 30.0
"""Seconds for which a table that could not be read is left alone."""

_MEMBERS = sql.SQL((files("backbeat.postgres") / "sql" / "members.sql").read_text())

Values: TypeAlias = "tuple[str, ...]"
"""What a row holds in the columns that a `Member` matches, as Postgres writes it."""
Users: TypeAlias = "Mapping[Values, Collection[str]]"
"""The ids of the users that stand beside some values; without those beside which nobody stands."""


class Members:
    """Reads the tables that policies look into, over somebody else's connection."""

    def __init__(self) -> None:
        self._suspended: dict[tuple[Member, str], float] = {}

    async def read(
        self, connection: Connection, access: Access, member: Member, values: Collection[Values]
    ) -> Users | None:
        """Find the users beside some values.

        Args:
            connection: any, outside of a transaction.
            access: the table with the rows, as the viewers see it.
            member: what one of its policies asks for.
            values: those of rows; none of them NULL, for that equals nothing.

        Returns:
            None if that cannot be told: everybody has to be asked.

        Raises:
            psycopg.OperationalError: the connection was lost.
        """
        reader, now = access.reader(member.schema, member.table), asyncio.get_running_loop().time()
        if reader is None or self._suspended.get((member, reader), 0.0) > now:
            return None
        ordered = list(values)
        if not ordered:
            return {}
        try:
            async with connection.pipeline(), connection.transaction():
                # Not to be shown all rows has to be an error here, and not an answer. And a plan from the
                # days when the table was small would read all of it until the next ANALYZE.
                await connection.execute(
                    "select set_config('role', %s, true), set_config('row_security', 'off', true),"
                    " set_config('enable_seqscan', 'off', true)",
                    (reader,),
                )
                columns = [list(column) for column in zip(*ordered, strict=True)]
                cursor = await connection.execute(_statement(access, member), columns)
            found = await cursor.fetchall()
        except psycopg.Error as error:
            if connection.closed:
                raise
            self._suspended[member, reader] = now + SUSPENSION
            log.warning(
                "the members of a table could not be read, all subscribers are asked instead",
                table=f"{member.schema}.{member.table}",
                role=reader,
                error=f"{error.sqlstate} {error}",
                hint="Is the table locked? Has it an index on"
                f" {', '.join(name for name, _ in member.matches) or member.user}?",
            )
            return None
        if sum(len(users) for _, users in found) >= MOST:
            return None
        return {ordered[n - 1]: users for n, users in found}


def _statement(access: Access, member: Member) -> sql.Composed:
    types = {column.name: sql.SQL(column.type) for column in access.columns}
    matches = [
        (sql.Identifier(f"value_{i}"), sql.Identifier(theirs), types[mine])
        for i, (theirs, mine) in enumerate(member.matches)
    ]
    names: Sequence[sql.Composable] = [name for name, _, _ in matches]
    given = sql.SQL("unnest({}) with ordinality given ({}, n)").format(
        sql.SQL(", ").join(sql.SQL("%s::text[]") for _ in matches), sql.SQL(", ").join(names)
    )
    return _MEMBERS.format(
        user=sql.Identifier(member.user),
        table=sql.Identifier(member.schema, member.table),
        given=given if matches else sql.SQL("(values (1)) given (n)"),
        match=sql.SQL(" and ").join(
            sql.SQL("t.{} = given.{}::{}").format(theirs, name, type_) for name, theirs, type_ in matches
        )
        if matches
        else sql.SQL("true"),
        most=sql.Literal(MOST),
    )
