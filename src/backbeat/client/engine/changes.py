"""A row change off the wire: its values as Python has them (client specification, 1.18 and 1.19)."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any, Final, Literal

import msgspec

from backbeat.client import events
from backbeat.errors import ProtocolError

__all__ = ["hint_for", "read_change"]

KINDS: Final = {"INSERT": events.Insert, "UPDATE": events.Update, "DELETE": events.Delete}

HINTS: Final = {
    "Error 400": "Give the table a primary key.",
    "Error 401": "Grant the token's role SELECT on the table, or on some columns with the primary key.",
    "Error 413": "The row is larger than the server sends: read it where it is stored.",
}

INTEGERS: Final = frozenset({"int2", "int4", "int8", "oid"})
FLOATS: Final = frozenset({"float4", "float8"})


class _Column(msgspec.Struct):
    name: str
    type: str


class _Data(msgspec.Struct):
    schema: str
    table: str
    type: Literal["INSERT", "UPDATE", "DELETE"]
    columns: list[_Column] = []
    commit_timestamp: str | None = None
    record: dict[str, Any] | None = None
    old_record: dict[str, Any] | None = None
    errors: list[str] | None = None


class _Change(msgspec.Struct):
    ids: list[int]
    data: _Data


# Numbers stay exact until it is known which type they are of.
_change = msgspec.json.Decoder(_Change, float_hook=Decimal)


def read_change(
    payload: bytes, *, topic: str, at: float
) -> tuple[list[int], events.ChangeEvent[dict[str, Any]]]:
    """Read the payload of a `postgres_changes` message.

    Args:
        payload: JSON text.
        topic: the topic, without the prefix.
        at: the time, in seconds since the epoch.

    Returns:
        The numbers of the bindings that match, and the change.

    Raises:
        ProtocolError: it is not a change.
    """
    try:
        change = _change.decode(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProtocolError("The payload is not a row change.") from error
    data = change.data
    columns = {column.name: column.type for column in data.columns}
    return change.ids, KINDS[data.type](
        at=at,
        topic=topic,
        schema=data.schema,
        table=data.table,
        new=_row(data.record, columns),
        old=_row(data.old_record, columns),
        columns=columns,
        commit_timestamp=data.commit_timestamp,
        errors=tuple(data.errors or ()),
        raw=msgspec.Raw(payload),
    )


def hint_for(errors: tuple[str, ...]) -> str:
    """Say what to do about what a change says is missing (server specification, 8.5)."""
    known = (hint for start, hint in HINTS.items() if any(error.startswith(start) for error in errors))
    return next(known, "The log of the server says more.")


def _row(values: dict[str, Any] | None, columns: dict[str, str]) -> dict[str, Any]:
    return {name: _value(value, columns.get(name, "")) for name, value in (values or {}).items()}


def _value(value: Any, kind: str) -> Any:
    """Bring a value to the Python type of its column; what does not fit stays as it is."""
    if value is None or isinstance(value, bool):
        return value
    if kind.startswith("_") and isinstance(value, list):
        return [_value(element, kind if isinstance(element, list) else kind[1:]) for element in value]
    if kind in FLOATS:
        return _number(float, value)
    if kind == "numeric":
        return _number(Decimal, value)
    if kind in INTEGERS and isinstance(value, str):
        return _number(int, value)
    if kind in ("json", "jsonb"):
        return _json(value)
    return value


def _number(make: type[float | Decimal | int], value: Any) -> Any:
    try:
        return make(value)
    except (ValueError, TypeError, InvalidOperation, OverflowError):
        return value


def _json(value: Any) -> Any:
    """The same JSON with numbers as Python's own parser makes them."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list):
        return [_json(element) for element in value]
    if isinstance(value, dict):
        return {name: _json(element) for name, element in value.items()}
    return value
