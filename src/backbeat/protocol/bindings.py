"""One entry of `postgres_changes` in a join: which changes a channel wants (specification, 8.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias, cast, get_args

import msgspec

from backbeat.protocol import reasons
from backbeat.protocol.filters import Condition, parse_filter, quote

__all__ = ["ANY", "BigNumbers", "Binding", "Event", "Form", "parse_binding"]

Event: TypeAlias = Literal["INSERT", "UPDATE", "DELETE", "*"]

BigNumbers: TypeAlias = Literal["number", "text"]
"""How numbers of types that a double cannot always hold are written: as JSON numbers or as JSON strings."""

ANY: Final = "*"
"""Stands for every event, schema or table."""


class Form(NamedTuple):
    """What is shown of a row, and how: what is written once serves all who want the same form.

    Attributes:
        select: the columns wanted beside the primary key, sorted; None stands for all.
        big_numbers: how `int8` and `numeric` are written.
    """

    select: tuple[str, ...] | None = None
    big_numbers: BigNumbers = "number"


@dataclass(frozen=True, slots=True)
class Binding:
    """A change subscription as requested.

    Attributes:
        id: the number that tells the client which of its subscriptions matched.
        event: which kind of change, or `*`.
        schema: the schema of the table, or `*`.
        table: the table, or `*`.
        conditions: what a row has to meet, all of it.
        form: what is shown of a row, and how.
        requested: the request in one line, for error texts.
    """

    id: int
    event: Event
    schema: str
    table: str
    conditions: tuple[Condition, ...]
    form: Form
    requested: str


def parse_binding(
    entry: Mapping[str, Any],
    id: int,  # noqa: A002 (the wire calls it so)
    big_numbers: BigNumbers = "number",
) -> Binding:
    """Read an entry.

    Args:
        entry: the object the client sent.
        id: the number it is known by.
        big_numbers: how big numbers are written where the entry does not say.

    Raises:
        BadRequest: it names no table, or its filter, selection or form of big numbers makes no sense.
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
    form = Form(select, _big_numbers(entry.get("big_numbers"), big_numbers))
    filters = ", ".join(map(str, conditions))
    columns = "nil" if select is None else "[" + ", ".join(map(quote, select)) + "]"
    requested = f"[event: {event}, schema: {schema}, table: {table}, filters: [{filters}], select: {columns}]"
    return Binding(id, cast("Event", event), schema, table, conditions, form, requested)


def _selection(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise reasons.CHANGES_BAD_SELECT.refusal()
    return tuple(sorted({column for column in value if isinstance(column, str)})) or None


def _big_numbers(value: object, default: BigNumbers) -> BigNumbers:
    if value is None:
        return default
    if value not in get_args(BigNumbers):
        raise reasons.CHANGES_BAD_NUMBERS.refusal()
    return cast("BigNumbers", value)


def _dump(entry: Mapping[str, Any]) -> str:
    """Show what was sent, unless a token is in it."""
    if entry.keys() & {"user_token", "auth_token"}:
        return "<redacted>"
    return msgspec.json.encode(entry).decode()
