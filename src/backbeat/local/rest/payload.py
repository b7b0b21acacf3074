"""The JSON body of a write or a call. Only its outline is read here: PostgreSQL reads the values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from backbeat.local.rest import errors

__all__ = ["Arguments", "Payload", "read_arguments", "read_row", "read_rows"]

_ROWS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]] | dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Payload:
    """Objects to write.

    Attributes:
        text: a JSON array of objects.
        keys: the keys of every object, in the order of the first.
        rows: how many objects there are.
        uniform: whether all objects have the same keys.
    """

    text: str
    keys: tuple[str, ...]
    rows: int
    uniform: bool = True


@dataclass(frozen=True, slots=True)
class Arguments:
    """The named arguments of a call.

    Attributes:
        names: their names.
        text: the JSON object they came in, or None.
        literals: their values as text by name, when there is no JSON object.
    """

    names: tuple[str, ...]
    text: str | None = None
    literals: Mapping[str, str] = field(default_factory=dict)


def read_rows(body: bytes) -> Payload:
    """Read the body of an insert: one object, or an array of objects.

    Raises:
        RestError: 400 when it is something else.
    """
    text, rows = _outline(body)
    if isinstance(rows, dict):
        return Payload(f"[{text}]", tuple(rows), 1)
    keys = tuple(rows[0]) if rows else ()
    return Payload(text, keys, len(rows), all(row.keys() == set(keys) for row in rows))


def read_row(body: bytes) -> Payload:
    """Read the body of an update: one object.

    Raises:
        RestError: 400 when it is something else.
    """
    text, row = _outline(body)
    if not isinstance(row, dict):
        raise errors.bad_body("An update takes one JSON object")
    return Payload(f"[{text}]", tuple(row), 1)


def read_arguments(body: bytes) -> Arguments:
    """Read the body of a call: one object, or nothing at all.

    Raises:
        RestError: 400 when it is something else.
    """
    text, arguments = _outline(body.strip() or b"{}")
    if not isinstance(arguments, dict):
        raise errors.bad_body("A function takes one JSON object, whose keys are the names of its arguments")
    return Arguments(tuple(arguments), text)


def _outline(body: bytes) -> tuple[str, list[dict[str, msgspec.Raw]] | dict[str, msgspec.Raw]]:
    try:
        text = body.decode()
        rows = _ROWS.decode(text)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise errors.bad_body("Empty or invalid json") from error
    return text, rows
