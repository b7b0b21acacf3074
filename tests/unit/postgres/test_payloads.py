"""The JSON of a row change."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from backbeat.postgres.payloads import LARGEST, Payload, timestamp, trouble
from backbeat.postgres.pgoutput import UNCHANGED, Column, Relation, Row
from backbeat.postgres.policies import Access
from backbeat.postgres.policies import Column as Seen
from backbeat.protocol.bindings import Form

SONGS = Relation(
    7,
    "public",
    "songs",
    "d",
    (
        Column("id", 20, -1, is_key=True),
        Column("title", 25, -1, is_key=False),
        Column("secret", 25, -1, is_key=False),
    ),
)


def seen(name: str, type_name: str, *, selectable: bool = True) -> Seen:
    return Seen(name, 25, type_name, type_name, deterministic=True, selectable=selectable)


ACCESS = Access(
    oid=7,
    schema="public",
    table="songs",
    partitioned=False,
    role="authenticated",
    assumable=True,
    usable=True,
    whole=False,
    row_security=True,
    exempt=False,
    columns=(seen("id", "int8"), seen("title", "text"), seen("secret", "text", selectable=False)),
    key=("id",),
    policies=(),
)
ROW: Row = [b"9223372036854775807", b'say "hi"\n', b"hidden"]


def written(
    new: Row | None = ROW,
    old: Row | None = None,
    *,
    key_only: bool = False,
    form: Form = Form(),  # noqa: B008 (never changes)
) -> dict[str, Any]:
    """What a change reads as."""
    kind: Any = "DELETE" if new is None else "INSERT" if old is None else "UPDATE"
    payload = Payload(SONGS, ACCESS, form, {})
    data: dict[str, Any] = msgspec.json.decode(
        payload.write(kind, "now", new=new, old=old, key_only=key_only)
    )
    return data


def test_only_selectable_columns_are_shown() -> None:
    """In the order of the table, with the names of their types."""
    data = written()
    assert data["columns"] == [{"name": "id", "type": "int8"}, {"name": "title", "type": "text"}]
    assert data["record"] == {"id": 9223372036854775807, "title": 'say "hi"\n'}


def test_a_selection_keeps_the_key_and_drops_what_may_not_be_read() -> None:
    """Nobody selects their way around a privilege."""
    assert written(form=Form(("secret",)))["record"] == {"id": 9223372036854775807}


def test_a_big_number_may_be_a_text() -> None:
    """Its type has another name then: stock clients make a number of whatever is an `int8`."""
    data = written(old=ROW, form=Form(big_numbers="text"))
    assert data["columns"] == [{"name": "id", "type": "bigint"}, {"name": "title", "type": "text"}]
    assert (data["record"]["id"], data["old_record"]) == (
        "9223372036854775807",
        {"id": "9223372036854775807"},
    )


def test_null_is_shown_and_the_unchanged_is_not() -> None:
    """A key that is absent says: as it was."""
    assert written([b"1", None, None])["record"] == {"id": 1, "title": None}
    assert written([b"1", UNCHANGED, None])["record"] == {"id": 1}


@pytest.mark.parametrize(
    ("new", "old", "rows"),
    [(ROW, None, {"record"}), (ROW, ROW, {"record", "old_record"}), (None, ROW, {"old_record"})],
)
def test_each_kind_of_change_has_its_rows(new: Row | None, old: Row | None, rows: set[str]) -> None:
    """An INSERT has no old row, a DELETE no new one."""
    assert written(new, old).keys() & {"record", "old_record"} == rows


def test_the_old_row_is_shown_by_its_identity() -> None:
    """Here that is the primary key."""
    assert written(old=[b"1", b"old", b"old"])["old_record"] == {"id": 1}


def test_a_change_that_is_too_large_keeps_its_short_values() -> None:
    """And says so."""
    data = written([b"1", b"x" * LARGEST, b""])
    assert (data["record"], data["errors"]) == ({"id": 1}, ["Error 413: Payload Too Large"])


def test_a_large_change_is_shown_whole_up_to_the_limit() -> None:
    """Two bytes are quotes, one is the key."""
    data = written([b"1", b"x" * (LARGEST - 3), b""])
    assert data["errors"] is None


@pytest.mark.parametrize(
    ("microseconds", "expected"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_767_225_600_123_999, "2026-01-01T00:00:00.123Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
    ],
)
def test_times_are_cut_to_milliseconds(microseconds: int, expected: str) -> None:
    """In UTC."""
    assert timestamp(microseconds) == expected


@pytest.mark.parametrize(
    ("event", "rows"),
    [("INSERT", {"record"}), ("UPDATE", {"record", "old_record"}), ("DELETE", {"old_record"})],
)
def test_trouble_shows_the_rows_empty(event: str, rows: set[str]) -> None:
    """So that clients find what they look for."""
    data = msgspec.json.decode(trouble(SONGS, event, "Error 401: Unauthorized"))
    assert {key for key, value in data.items() if value == {}} == rows
