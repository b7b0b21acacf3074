"""One entry of `postgres_changes` in a join: which changes a channel wants (specification, 8.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, cast

import msgspec

from backbeat.protocol import reasons
from backbeat.protocol.filters import Condition, parse_filter, quote

__all__ = ["ANY", "Binding", "Event", "parse_binding"]

Event: TypeAlias = Literal["INSERT", "UPDATE", "DELETE", "*"]

ANY: Final = "*"
"""Stands for every event, schema or table."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A change subscription as requested.

    Attributes:
        id: the number that tells the client which of its subscriptions matched.
        event: which kind of change, or `*`.
        schema: the schema of the table, or `*`.
        table: the table, or `*`.
        conditions: what a row has to meet, all of it.
        select: the columns wanted beside the primary key, sorted; None stands for all.
        requested: the request in one line, for error texts.
    """

    id: int
    event: Event
    schema: str
    table: str
    conditions: tuple[Condition, ...]
    select: tuple[str, ...] | None
    requested: str


def parse_binding(entry: Mapping[str, Any], id: int) -> Binding:  # noqa: A002 (the wire calls it so)
    """Read an entry.

    Args:
        entry: the object the client sent.
        id: the number it is known by.

    Raises:
        BadRequest: it names no table, or its filter or selection makes no sense.
    """
    names = [entry[key] for key in ("schema", "table", "filter") if key in entry]
    if not all(isinstance(name, str) for name in names) or not entry.keys() & {"schema", "table"}:
        raise reasons.CHANGES_NO_PARAMS.refusal(dump=_dump(entry))
    schema = entry.get("schema", "public")
    table = entry.get("table", ANY)
    event = str(entry.get("event", ANY)).upper()
    if event not in ("INSERT", "UPDATE", "DELETE"):
        event = ANY
    conditions = parse_filter(entry.get("filter", ""))
    select = _selection(entry.get("select"))
    if select is not None and ANY in (schema, table):
        raise reasons.CHANGES_SELECT_WILDCARD.refusal()
    filters = ", ".join(map(str, conditions))
    columns = "nil" if select is None else "[" + ", ".join(map(quote, select)) + "]"
    requested = f"[event: {event}, schema: {schema}, table: {table}, filters: [{filters}], select: {columns}]"
    return Binding(id, cast("Event", event), schema, table, conditions, select, requested)


def _selection(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise reasons.CHANGES_BAD_SELECT.refusal()
    return tuple(sorted({column for column in value if isinstance(column, str)})) or None


def _dump(entry: Mapping[str, Any]) -> str:
    """Show what was sent, unless a token is in it."""
    if entry.keys() & {"user_token", "auth_token"}:
        return "<redacted>"
    return msgspec.json.encode(entry).decode()
