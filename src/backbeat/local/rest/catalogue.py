"""What is known of a table or a function. It is looked up with every request, inside of its transaction.

A cache would save part of one round trip, and would have to learn of every table that was created, changed,
or dropped and created anew a moment ago. A local project lives by such changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from backbeat.local.rest import errors

__all__ = ["FUNCTIONS", "RELATION", "Column", "Function", "Relation", "Type", "choose"]

SQL = files("backbeat.local.rest") / "sql"

RELATION = (SQL / "relation.sql").read_bytes()
FUNCTIONS = (SQL / "functions.sql").read_bytes()

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Type:
    """The name of a type."""

    schema: str
    name: str


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        name: its name.
        type: its type.
        filler: the expression of its default, as PostgreSQL writes it, or None.
        key: whether it is part of the primary key.
    """

    name: str
    type: Type
    filler: str | None = None
    key: bool = False


@dataclass(frozen=True, slots=True)
class Relation:
    """A table or view.

    Attributes:
        schema: where it is.
        name: its name.
        columns: its columns by name, in their order.
    """

    schema: str
    name: str
    columns: dict[str, Column]

    @classmethod
    def of(cls, schema: str, name: str, rows: Sequence[Row]) -> Relation:
        """Read the rows of `RELATION`.

        Raises:
            RestError: 404 when there is no such table.
        """
        if not rows:
            raise errors.unknown_table(schema, name)
        columns = (Column(row[0], Type(row[1], row[2]), row[3], row[4]) for row in rows if row[0] is not None)
        return cls(schema, name, {column.name: column for column in columns})

    @property
    def key(self) -> tuple[str, ...]:
        """The columns of the primary key; empty when there is none."""
        return tuple(column.name for column in self.columns.values() if column.key)

    def written(self, names: Sequence[str]) -> list[Column]:
        """The columns a write names.

        Raises:
            RestError: 400 when the table lacks one of them.
        """
        for name in names:
            if name not in self.columns:
                raise errors.unknown_column(self.name, name)
        return [self.columns[name] for name in dict.fromkeys(names)]


@dataclass(frozen=True, slots=True)
class Function:
    """A function that can be called.

    Attributes:
        schema: where it is.
        name: its name.
        stable: whether it promises to write nothing.
        many: whether it returns a set.
        shape: what one result is: `row`, `value` or `void`.
        arguments: the arguments a caller gives, by name, in their order.
        optional: the names of those that have a default.
    """

    schema: str
    name: str
    stable: bool
    many: bool
    shape: str
    arguments: dict[str, Type]
    optional: frozenset[str]

    @classmethod
    def of(cls, schema: str, name: str, row: Row) -> Function:
        """Read one row of `FUNCTIONS`."""
        stable, many, shape, defaults, names, type_schemas, type_names = row
        types = [Type(*pair) for pair in zip(type_schemas, type_names, strict=True)]
        return cls(
            schema,
            name,
            stable,
            many,
            shape,
            dict(zip(names, types, strict=True)),
            frozenset(names[len(names) - defaults :]),
        )

    def takes(self, given: frozenset[str]) -> bool:
        """Whether it can be called with exactly these arguments."""
        names = self.arguments.keys()
        return "" not in names and given <= names and names - self.optional <= given


def choose(schema: str, name: str, candidates: Sequence[Function], given: frozenset[str]) -> Function:
    """Find the function a call means.

    Args:
        schema: the schema the caller named.
        name: the name of the function.
        candidates: the functions of that name.
        given: the names of the arguments.

    Raises:
        RestError: 404 when no function takes these arguments, 300 when several do.
    """
    fitting = [function for function in candidates if function.takes(given)]
    if not fitting:
        raise errors.unknown_function(schema, name, given)
    if len(fitting) > 1:
        texts = (f"{schema}.{name}({', '.join(function.arguments)})" for function in fitting)
        raise errors.ambiguous_function(schema, name, texts)
    return fitting[0]
