"""What a query string of `/rest/v1` asks for, as values (section 5.2 of the HTTP surface specification)."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "OPERATORS",
    "SEARCHES",
    "TRUTHS",
    "Arrow",
    "Condition",
    "Field",
    "Item",
    "Order",
    "Query",
    "Tree",
]

OPERATORS = {
    "eq": "=",
    "neq": "<>",
    "gt": ">",
    "gte": ">=",
    "lt": "<",
    "lte": "<=",
    "like": "like",
    "ilike": "ilike",
    "match": "~",
    "imatch": "~*",
    "isdistinct": "is distinct from",
    "cs": "@>",
    "cd": "<@",
    "ov": "&&",
    "sl": "<<",
    "sr": ">>",
    "nxr": "&<",
    "nxl": "&>",
    "adj": "-|-",
}
"""Operators with one value on the right, and what PostgreSQL calls them."""

SEARCHES = {
    "fts": "to_tsquery",
    "plfts": "plainto_tsquery",
    "phfts": "phraseto_tsquery",
    "wfts": "websearch_to_tsquery",
}
"""Full-text searches, and the function that reads the value."""

TRUTHS = {"null": "null", "not_null": "not null", "true": "true", "false": "false", "unknown": "unknown"}
"""What a value can be said to `is`, and how PostgreSQL says it."""


@dataclass(frozen=True, slots=True)
class Arrow:
    """One step into a JSON value.

    Attributes:
        key: the name of a member, or the index of an element.
        index: whether `key` is an index.
        text: whether the result is text (`->>`) instead of JSON (`->`).
    """

    key: str
    index: bool = False
    text: bool = False


@dataclass(frozen=True, slots=True)
class Field:
    """A column, or a place inside of a JSON column."""

    column: str
    path: tuple[Arrow, ...] = ()

    @property
    def name(self) -> str:
        """What the field is called in a result: the innermost member, else the column."""
        return next((arrow.key for arrow in reversed(self.path) if not arrow.index), self.column)


@dataclass(frozen=True, slots=True)
class Item:
    """One item of `select`; without a field it is `*`."""

    field: Field | None = None
    alias: str | None = None
    cast: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """One item of `order`; without a word about nulls (`first`, `last`), PostgreSQL's default holds."""

    field: Field
    descending: bool = False
    nulls: str | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """`field operator value`.

    Attributes:
        field: the left side.
        operator: a name of `OPERATORS` or `SEARCHES`, or `in`, or `is`.
        value: the right side as text (several for `in`); PostgreSQL casts it to what the left side needs.
        negated: whether it must not hold.
        quantifier: `any` or `all`, when `value` is an array literal of which any or all must do.
        configuration: the text search configuration.
    """

    field: Field
    operator: str
    value: str | tuple[str, ...]
    negated: bool = False
    quantifier: str | None = None
    configuration: str | None = None


@dataclass(frozen=True, slots=True)
class Tree:
    """Conditions joined by `and` or `or`."""

    operator: str
    parts: tuple[Condition | Tree, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed query string.

    Attributes:
        select: what to return; never empty.
        where: the conditions, all of which must hold.
        order: how to sort.
        limit: the most rows to return, or None.
        offset: how many rows to leave out first.
        columns: the columns an insert or update writes; None for those of the body.
        on_conflict: the columns by which an upsert finds rows that exist; empty for the primary key.
    """

    select: tuple[Item, ...] = (Item(),)
    where: tuple[Condition | Tree, ...] = ()
    order: tuple[Order, ...] = ()
    limit: int | None = None
    offset: int = 0
    columns: tuple[str, ...] | None = None
    on_conflict: tuple[str, ...] = ()
