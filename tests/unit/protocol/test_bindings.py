"""Entries of `postgres_changes`."""

from __future__ import annotations

from typing import Any

import pytest

from backbeat.errors import BadRequest
from backbeat.protocol.bindings import parse_binding


def message(entry: dict[str, Any]) -> str:
    """The text an entry is refused with."""
    with pytest.raises(BadRequest) as refused:
        parse_binding(entry, 1)
    return refused.value.message


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"schema": "s", "table": "t"}, ("s", "t")),
        ({"schema": "s"}, ("s", "*")),
        ({"table": "t"}, ("public", "t")),
        ({"schema": "*"}, ("*", "*")),
    ],
)
def test_what_is_left_out_of_the_name_has_a_meaning(entry: dict[str, Any], expected: tuple[str, str]) -> None:
    """A schema alone stands for its tables, a table alone is in `public`."""
    binding = parse_binding(entry, 1)
    assert (binding.schema, binding.table) == expected


@pytest.mark.parametrize(
    ("event", "expected"), [("insert", "INSERT"), ("*", "*"), ("nonsense", "*"), (None, "*"), (5, "*")]
)
def test_an_unknown_event_stands_for_all(event: object, expected: str) -> None:
    """Letter case does not matter."""
    assert parse_binding({"event": event, "table": "t"}, 1).event == expected


@pytest.mark.parametrize(
    "entry", [{}, {"event": "*"}, {"schema": 1}, {"table": None}, {"table": "t", "filter": None}]
)
def test_an_entry_without_usable_names_is_refused(entry: dict[str, Any]) -> None:
    """The text shows what was sent."""
    assert message(entry).startswith("No subscription params provided.")


def test_a_token_in_an_entry_is_not_shown() -> None:
    """The dump could end in a log."""
    assert message({"user_token": "secret"}).endswith("<redacted>")


@pytest.mark.parametrize(
    ("select", "expected"),
    [(None, None), ([], None), (["b", "a", "b"], ("a", "b")), (["a", 1], ("a",)), ([1], None)],
)
def test_a_selection_is_a_list_of_column_names(select: object, expected: tuple[str, ...] | None) -> None:
    """What is no text is dropped, and an empty list selects everything."""
    assert parse_binding({"table": "t", "select": select}, 1).form.select == expected


def test_a_selection_in_one_text_is_refused() -> None:
    """The error shows the right form."""
    assert message({"table": "t", "select": "a,b"}).startswith("Error parsing `select` params")


def test_columns_of_a_wildcard_cannot_be_selected() -> None:
    """The tables may have different columns."""
    assert message({"schema": "public", "select": ["a"]}).startswith("Column selection is not supported")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"big_numbers": "text"}, "text"),
        ({"big_numbers": "number"}, "number"),
        ({"big_numbers": None}, "text"),
        ({}, "text"),
    ],
)
def test_an_entry_may_say_how_big_numbers_are_written(entry: dict[str, Any], expected: str) -> None:
    """One that does not gets the default of the project."""
    assert parse_binding({"table": "t", **entry}, 1, "text").form.big_numbers == expected


@pytest.mark.parametrize("value", ["string", True, ["text"]])
def test_an_unknown_form_of_big_numbers_is_refused(value: object) -> None:
    """The error names the two there are."""
    assert message({"table": "t", "big_numbers": value}) == (
        'Error parsing `big_numbers` params: expected "number" or "text"'
    )


def test_the_request_is_remembered_for_error_texts() -> None:
    """In the form of the original."""
    entry = {"event": "*", "table": "t", "filter": 'a=eq.1,b=not.in.(x,"y z")', "select": ["a"]}
    assert parse_binding(entry, 1).requested == (
        '[event: *, schema: public, table: t, filters: [{"a", "eq", "1", false}, '
        '{"b", "in", "{x,\\"y z\\"}", true}], select: ["a"]]'
    )
