"""The JSON of a row change, as clients read it (server specification, 8.4 to 8.7)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal

import orjson

from backbeat.postgres.pgoutput import UNCHANGED
from backbeat.postgres.values import encoder, type_shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from backbeat.postgres.pgoutput import Relation, Row
    from backbeat.postgres.policies import Access
    from backbeat.postgres.values import Encoder, TypeInfo
    from backbeat.protocol.bindings import Form

__all__ = ["LARGEST", "Payload", "timestamp", "trouble"]

LARGEST: Final = 1_048_576
"""Bytes of values above which only the short ones are sent."""
SHORT: Final = 64
"""Bytes a value may have to be sent with a change that is too large."""

TOO_LARGE: Final = b'["Error 413: Payload Too Large"]'


def timestamp(microseconds: int) -> str:
    """Write a time as `YYYY-MM-DDTHH:MM:SS.mmmZ`.

    Args:
        microseconds: since 1970-01-01 UTC.
    """
    seconds, rest = divmod(microseconds, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:03}Z"


def trouble(relation: Relation, event: str, error: str) -> bytes:
    """Write what a subscriber gets who wanted a change and can be shown nothing of it.

    Args:
        relation: the table.
        event: `INSERT`, `UPDATE` or `DELETE`.
        error: the text for `errors`.
    """
    shown = {"INSERT": ("record",), "UPDATE": ("record", "old_record"), "DELETE": ("old_record",)}[event]
    return orjson.dumps(
        {
            "schema": relation.schema,
            "table": relation.table,
            "type": event,
            "commit_timestamp": None,
            "columns": [],
            **{row: {} for row in shown},
            "errors": [error],
        }
    )


class Payload:
    """Writes the changes of a table for those who see the same columns of it in the same form.

    Args:
        relation: the table, as the stream describes it.
        access: the table, as the readers' role sees it.
        form: the columns wanted, and how big numbers are written.
        types: the types of the database.

    Raises:
        KeyError: a column has a type that is not in `types`; it is younger than they are.
    """

    def __init__(
        self,
        relation: Relation,
        access: Access,
        form: Form,
        types: Mapping[int, TypeInfo],
    ) -> None:
        names = {column.name: column.type_name for column in access.columns if column.selectable}
        wanted = names if form.select is None else {*form.select, *access.key} & names.keys()
        self._fields: list[tuple[int, bytes, Encoder]] = []
        shown = []
        for index, column in enumerate(relation.columns):
            if column.name in wanted:
                type_name = type_shown(column.type_oid, names[column.name], form.big_numbers)
                shown.append({"name": column.name, "type": type_name})
                encode = encoder(column.type_oid, types, form.big_numbers)
                self._fields.append((index, orjson.dumps(column.name) + b":", encode))
        key = {index for index, column in enumerate(relation.columns) if column.name in access.key}
        identity = {index for index, column in enumerate(relation.columns) if column.is_key}
        self._key = [field for field in self._fields if field[0] in key]
        self._identity = [field for field in self._fields if field[0] in identity]
        self._head = b'{"schema":%b,"table":%b,"type":"' % (
            orjson.dumps(relation.schema),
            orjson.dumps(relation.table),
        )
        self._columns = b'","columns":%b,' % orjson.dumps(shown)

    def write(
        self,
        event: Literal["INSERT", "UPDATE", "DELETE"],
        when: str,
        *,
        new: Row | None,
        old: Row | None,
        key_only: bool,
    ) -> bytes:
        """Write a change.

        Args:
            event: what happened.
            when: the time of the commit, in the form of `timestamp`.
            new: the new row, None for a DELETE.
            old: the old row, as far as it is known, None for an INSERT.
            key_only: whether the old row is shown by its primary key only.
        """
        record = None if new is None else _values(self._fields, new)
        fields = self._key if key_only else self._identity
        old_record = None if old is None else _values(fields, old)
        errors = b"null"
        size = sum(len(value) for row in (record, old_record) for _, value in row or ())
        if size > LARGEST:
            errors = TOO_LARGE
            record, old_record = _short(record), _short(old_record)
        return b"".join(
            (
                self._head,
                event.encode(),
                b'","commit_timestamp":"',
                when.encode(),
                self._columns,
                b"" if record is None else b'"record":%b,' % _object(record),
                b"" if old_record is None else b'"old_record":%b,' % _object(old_record),
                b'"errors":',
                errors,
                b"}",
            )
        )


def _values(fields: Sequence[tuple[int, bytes, Encoder]], row: Row) -> list[tuple[bytes, bytes]]:
    """Encode the values that came with a row."""
    values = []
    for index, name, encode in fields:
        value = row[index]
        if value is None:
            values.append((name, b"null"))
        elif value is not UNCHANGED:
            values.append((name, encode(value)))
    return values


def _short(values: list[tuple[bytes, bytes]] | None) -> list[tuple[bytes, bytes]] | None:
    return None if values is None else [(name, value) for name, value in values if len(value) <= SHORT]


def _object(values: list[tuple[bytes, bytes]]) -> bytes:
    return b"{" + b",".join(name + value for name, value in values) + b"}"
