"""The formats of an answer: a JSON array, one JSON object, or CSV."""

from __future__ import annotations

import csv
import io
from enum import Enum
from typing import TYPE_CHECKING

import msgspec

from backbeat.local.rest import errors

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Media", "csv_of", "negotiate"]


class Media(Enum):
    """A format, by its `Content-Type`."""

    JSON = "application/json; charset=utf-8"
    OBJECT = "application/vnd.pgrst.object+json; charset=utf-8"
    CSV = "text/csv; charset=utf-8"


ACCEPTED = {
    "*/*": Media.JSON,
    "application/*": Media.JSON,
    "application/json": Media.JSON,
    "application/vnd.pgrst.array": Media.JSON,
    "application/vnd.pgrst.array+json": Media.JSON,
    "application/vnd.pgrst.object": Media.OBJECT,
    "application/vnd.pgrst.object+json": Media.OBJECT,
    "text/csv": Media.CSV,
}


def negotiate(accept: str) -> Media:
    """Choose the first format of an `Accept` header that can be made; an empty header accepts everything.

    Raises:
        RestError: 406 when there is none. A format with `nulls=stripped` is one that cannot be made.
    """
    if not accept.strip():
        return Media.JSON
    for offer in accept.split(","):
        name, *parameters = (part.strip().lower() for part in offer.split(";"))
        if name in ACCEPTED and "nulls=stripped" not in parameters:
            return ACCEPTED[name]
    raise errors.not_acceptable(accept)


def csv_of(rows: str, columns: Sequence[str]) -> str:
    """Turn a JSON array of objects into CSV with a header line (RFC 4180, but lines end with a line feed).

    Args:
        rows: the JSON text; numbers keep the digits they have there, null becomes the empty field.
        columns: the header of an empty result; otherwise the keys of the first object are.
    """
    decoded = msgspec.json.decode(rows, type=list[dict[str, msgspec.Raw]])
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(decoded[0] if decoded else columns)
    writer.writerows([_cell(bytes(value)) for value in row.values()] for row in decoded)
    return out.getvalue()


def _cell(value: bytes) -> str:
    if value == b"null":
        return ""
    return msgspec.json.decode(value, type=str) if value.startswith(b'"') else value.decode()
