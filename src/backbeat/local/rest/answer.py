"""What a statement did, as an HTTP answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec
from starlette.responses import Response

from backbeat.local.rest import errors
from backbeat.local.rest.media import Media, csv_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backbeat.local.rest.call import Call
    from backbeat.local.rest.catalogue import Relation
    from backbeat.local.rest.errors import RestError
    from backbeat.local.rest.query import Query

__all__ = ["Outcome", "check", "columns_of", "nothing", "refused", "selected", "written"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a statement did.

    Attributes:
        rows: how many rows it returned or wrote.
        total: how many there are without limit and offset, or None when that was not counted.
        body: the JSON text, or None when nothing was to be returned.
    """

    rows: int
    total: int | None = None
    body: str | None = None


def check(call: Call, query: Query, outcome: Outcome) -> None:
    """Make sure that the outcome is what the caller wanted, while it can still be rolled back.

    Raises:
        RestError: 406 when it is not the one object asked for, 416 when the offset is beyond the last row.
    """
    if outcome.total is not None and query.offset > outcome.total:
        raise errors.out_of_range(query.offset, outcome.total)
    if call.single and outcome.rows != 1:
        raise errors.not_singular(outcome.rows)


def selected(call: Call, query: Query, outcome: Outcome, columns: Sequence[str]) -> Response:
    """The answer to a read: 206 when rows are known to be left out, else 200.

    Args:
        call: the request.
        query: its query string.
        outcome: what was read.
        columns: the names of the columns, for CSV without rows.
    """
    partial = outcome.total is not None and outcome.rows < outcome.total
    return Response(
        _content(call, outcome, columns),
        206 if partial else 200,
        _headers(call, outcome, first=query.offset),
        media_type=call.media.value,
    )


def written(call: Call, query: Query, outcome: Outcome, relation: Relation, *, merged: int = 0) -> Response:
    """The answer to an insert, update or delete.

    Args:
        call: the request.
        query: its query string.
        outcome: what was written.
        relation: where.
        merged: how many rows of an upsert existed before.
    """
    headers = _headers(call, outcome, first=0 if call.method == "PATCH" else None)
    shown = call.preferences.returned == "representation"
    if call.method == "POST":
        status = 200 if merged and merged == outcome.rows else 201
        if call.preferences.returned == "headers-only" and outcome.rows == 1 and outcome.body:
            headers["Location"] = _location(relation.name, outcome.body)
    else:
        status = 200 if shown else 204
    if not shown:
        return Response(None, status, headers)
    columns = columns_of(query, relation)
    return Response(_content(call, outcome, columns), status, headers, media_type=call.media.value)


def nothing(call: Call, outcome: Outcome) -> Response:
    """The answer to the call of a function that returns nothing."""
    return Response(None, 204, _headers(call, outcome, first=0))


def refused(error: RestError) -> Response:
    """The answer to a request that failed."""
    return Response(msgspec.json.encode(error.body), error.status, error.headers, media_type=Media.JSON.value)


def _headers(call: Call, outcome: Outcome, *, first: int | None) -> dict[str, str]:
    """The headers of every answer to a statement.

    Args:
        call: the request.
        outcome: what the statement did.
        first: the number of the first row in `Content-Range`; None for rows that have no numbers.
    """
    span = "*" if first is None or not outcome.rows else f"{first}-{first + outcome.rows - 1}"
    total = "*" if outcome.total is None else outcome.total
    headers = {"Content-Range": f"{span}/{total}"}
    if call.preferences.applied:
        headers["Preference-Applied"] = call.preferences.applied
    return headers


def columns_of(query: Query, relation: Relation) -> list[str]:
    """The names of the columns a query returns."""
    names: list[str] = []
    for item in query.select:
        names += [item.alias or item.field.name] if item.field else relation.columns
    return names


def _content(call: Call, outcome: Outcome, columns: Sequence[str]) -> str:
    body = outcome.body or "null"
    return csv_of(body, columns) if call.media is Media.CSV else body


def _location(table: str, body: str) -> str:
    """Where the one row that was inserted can be read."""
    (key,) = msgspec.json.decode(body, type=list[dict[str, str]])
    conditions = "&".join(f"{quote(name)}=eq.{quote(value, safe='')}" for name, value in key.items())
    return f"/{quote(table)}?{conditions}"
