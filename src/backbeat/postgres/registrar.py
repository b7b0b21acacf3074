"""Requested bindings become subscriptions: checked against the catalogue, their filters read by Postgres."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import errors, sql

from backbeat.postgres.catalogue import load_types
from backbeat.postgres.dedicated import Dedicated
from backbeat.postgres.subscriptions import Subscription
from backbeat.postgres.visibility import read_access
from backbeat.protocol import reasons
from backbeat.protocol.bindings import ANY
from backbeat.protocol.filters import MAX_IN_VALUES, Comparison, as_number, as_padded, as_text

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from backbeat.errors import Refusal
    from backbeat.postgres.database import Connection
    from backbeat.postgres.policies import Access, Column
    from backbeat.postgres.values import TypeInfo
    from backbeat.protocol.bindings import Binding
    from backbeat.protocol.filters import Condition, Normal
    from backbeat.tokens.claims import Claims

__all__ = ["Registrar"]

TIMEOUT: Final = 5_000
"""Milliseconds for one look into the catalogue."""

_PUBLISHED = (files("backbeat.postgres") / "sql" / "published.sql").read_bytes()

_TEXTUAL: Final = {
    16: "bool",
    17: "bytea",
    18: "char",
    19: "name",
    20: "int8",
    21: "int2",
    23: "int4",
    25: "text",
    26: "oid",
    28: "xid",
    650: "cidr",
    774: "macaddr8",
    790: "money",
    829: "macaddr",
    869: "inet",
    1043: "varchar",
    1082: "date",
    1083: "time",
    1114: "timestamp",
    1184: "timestamptz",
    1266: "timetz",
    1560: "bit",
    1562: "varbit",
    2950: "uuid",
    3220: "pg_lsn",
}
"""Types of which two values are equal exactly when their texts are."""

_NUMBERS: Final = {700: "float4", 701: "float8", 1700: "numeric"}
_BPCHAR: Final = 1042
_BYTEA: Final = 17


class Registrar:
    """Prepares subscriptions, over a connection of its own.

    Args:
        url: where Postgres is and who logs in.
        publication: the tables that may be subscribed to.

    Attributes:
        types: the types of the database, as far as they have been needed.
    """

    def __init__(self, url: str, publication: str) -> None:
        self.types: Mapping[int, TypeInfo] = {}
        self._publication = publication
        self._dedicated = Dedicated(
            url, name="backbeat subscriptions", settings={"statement_timeout": str(TIMEOUT)}
        )

    async def aclose(self) -> None:
        """Close the connection."""
        await self._dedicated.aclose()

    async def read_types(self) -> None:
        """Read the types of the database anew.

        Raises:
            psycopg.OperationalError: the connection was lost.
        """
        async with self._dedicated.hold() as connection:
            self.types = await load_types(connection)

    async def prepare(
        self, subscriber: Hashable, bindings: Sequence[Binding], claims: Claims
    ) -> list[Subscription]:
        """Check bindings, and make them ready.

        Args:
            subscriber: who is to be told.
            bindings: what is wanted.
            claims: as whom the rows are read.

        Raises:
            BadRequest: a table is not published, a column is not there or not readable, or a value does not
                suit its type.
            Unavailable: the database cannot be reached.
        """
        try:
            async with self._dedicated.hold() as connection:
                published = await self._published(connection, bindings)
                known = await read_access(connection, published, {claims.role})
                subscriptions = []
                for position, binding in enumerate(bindings):
                    tables = [
                        _checked(known.get((oid, claims.role)), claims.role, binding)
                        for oid, name in published.items()
                        if _concerns(binding, *name)
                    ]
                    for (schema, table), comparisons in await self._targets(connection, binding, tables):
                        subscriptions.append(
                            Subscription(
                                subscriber=subscriber,
                                claims=claims,
                                id=binding.id,
                                position=position,
                                event=binding.event,
                                schema=schema,
                                table=table,
                                comparisons=comparisons,
                                select=binding.select,
                            )
                        )
                return subscriptions
        except psycopg.OperationalError as error:
            raise reasons.CHANGES_UNAVAILABLE.refusal(detail="the database cannot be reached") from error

    async def _published(
        self, connection: Connection, bindings: Sequence[Binding]
    ) -> dict[int, tuple[str, str]]:
        """Find the published tables that bindings name, by oid."""
        names = {
            "publication": self._publication,
            "schemas": [binding.schema for binding in bindings],
            "tables": [binding.table for binding in bindings],
        }
        cursor = await connection.execute(_PUBLISHED, names)
        return {oid: (schema, table) for oid, schema, table in await cursor.fetchall()}

    async def _targets(
        self, connection: Connection, binding: Binding, tables: Sequence[Access]
    ) -> list[tuple[tuple[str, str], tuple[Comparison, ...]]]:
        """Tell which names a binding is kept under, with what a row has to meet.

        A filter means something else for each table, for columns differ: with one, a wildcard stands for the
        tables published now. Without one it also stands for those to come.
        """
        if not tables:
            raise reasons.CHANGES_NO_TABLE.refusal(params=binding.requested)
        if not binding.conditions:
            return [((binding.schema, binding.table), ())]
        targets = []
        for access in tables:
            comparisons = [
                await self._compile(connection, access, each, binding) for each in binding.conditions
            ]
            targets.append(((access.schema, access.table), tuple(comparisons)))
        return targets

    async def _compile(
        self, connection: Connection, access: Access, condition: Condition, binding: Binding
    ) -> Comparison:
        """Make a condition ready: Postgres reads its values, and says how it writes them."""
        column = next((c for c in access.columns if c.name == condition.column and c.selectable), None)
        if column is None:
            raise _refused(binding, f"invalid column for filter {condition.column}")
        if condition.operator == "is":
            (keyword,) = condition.values
            if keyword not in ("null", "true", "false", "unknown"):
                raise _refused(binding, "invalid value for is filter: must be null, true, false, or unknown")
            if keyword != "null" and column.type != "boolean":
                raise _refused(binding, f"is {keyword} filter requires a boolean column, got {column.type}")
            return Comparison.of(condition, [keyword.encode()], as_text)
        if len(condition.values) > MAX_IN_VALUES:
            raise _refused(binding, f"too many values for `in` filter. Maximum {MAX_IN_VALUES}")
        if column.type_oid not in self.types:
            self.types = await load_types(connection)
        normal = _normal(column, self.types)
        if normal is None:
            detail = f"operator {condition.operator} is not supported yet for type {column.type}"
            raise _refused(binding, detail, "0A000")
        values = [_as_input(column, value) for value in condition.values if value is not None]
        canonical = await _written(connection, column, values, binding) if values else []
        if None in condition.values:
            canonical.append(None)
        return Comparison.of(condition, canonical, normal)


def _normal(column: Column, types: Mapping[int, TypeInfo]) -> Normal | None:
    """Choose how the texts of a column are compared; None where equal values may be written differently."""
    if not column.deterministic:
        return None
    oid = _base(column.type_oid, types)
    if oid in _NUMBERS:
        return as_number
    if oid == _BPCHAR:
        return as_padded
    if oid in _TEXTUAL or (oid in types and types[oid].kind == "enum"):
        return as_text
    return None


def _base(oid: int, types: Mapping[int, TypeInfo]) -> int:
    while oid in types and types[oid].kind == "domain":
        oid = types[oid].element
    return oid


def _as_input(column: Column, value: str) -> str:
    """Write a filter value as Postgres reads it: bytes come as bare hex digits (specification, 8.6)."""
    bare = column.type_oid == _BYTEA and not value.startswith("\\x")
    return "\\x" + value if bare else value


async def _written(
    connection: Connection, column: Column, values: Sequence[str], binding: Binding
) -> list[bytes | None]:
    """Have Postgres read values as the type of a column and write them again, as the stream writes them."""
    # `format` uses the output function of the type, as the stream does; a cast to text would not always.
    each = sql.SQL("format('%%s', cast({} as {}))").format(sql.Placeholder(), sql.SQL(column.type))
    statement = sql.SQL("select {}").format(sql.SQL(", ").join([each] * len(values)))
    try:
        cursor = await connection.execute(statement, values, prepare=False)
        row = await cursor.fetchone()
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        raise _refused(
            binding, error.diag.message_primary or str(error), error.sqlstate or "22000"
        ) from error
    assert row is not None
    return [text.encode() for text in row]


def _concerns(binding: Binding, schema: str, table: str) -> bool:
    return binding.schema in (ANY, schema) and binding.table in (ANY, table)


def _checked(access: Access | None, role: str, binding: Binding) -> Access:
    """Let a table pass that the role can be asked about, and whose columns it may read as selected."""
    if access is None:
        raise _refused(binding, f'role "{role}" does not exist', "42704")
    if not access.assumable:
        raise _refused(binding, f'permission denied to set role "{role}"', "42501")
    for column in binding.select or ():
        if column not in access.readable:
            raise _refused(binding, f"invalid column for select {column}")
    return access


def _refused(binding: Binding, message: str, sqlstate: str = "P0001") -> Refusal:
    """Refuse a binding in the words of the original, which lets Postgres raise."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", errors.lookup(sqlstate).__name__).lower()
    detail = f"ERROR {sqlstate} ({name}) {message}"
    return reasons.CHANGES_REFUSED.refusal(params=binding.requested, detail=detail)
