"""Choosing the function a call means."""

from __future__ import annotations

import pytest

from backbeat.local.rest.catalogue import Function, Relation, choose
from backbeat.local.rest.errors import RestError


def function(*names: str, defaults: int = 0) -> Function:
    """A function with integer arguments, the last of them optional."""
    count = len(names)
    row = (True, False, "value", defaults, list(names), ["pg_catalog"] * count, ["int4"] * count)
    return Function.of("public", "f", row)


@pytest.mark.parametrize(
    ("given", "expected"),
    [({"a"}, True), ({"a", "b"}, True), (set(), False), ({"b"}, False), ({"a", "b", "c"}, False)],
)
def test_takes(given: set[str], expected: bool) -> None:
    """All required arguments must be given, and none that is not known."""
    assert function("a", "b", defaults=1).takes(frozenset(given)) is expected


def test_unnamed_arguments_cannot_be_given() -> None:
    """A function whose arguments have no names cannot be called by name."""
    assert not function("").takes(frozenset({""}))


def test_choose_by_names() -> None:
    """Functions of one name are told apart by the names of their arguments."""
    one, two = function("a"), function("a", "b")
    assert choose("public", "f", [one, two], frozenset({"a", "b"})) is two


def test_choose_nothing() -> None:
    """An argument too many is explained with the names that were given."""
    with pytest.raises(RestError) as caught:
        choose("public", "f", [function("a")], frozenset({"b", "a"}))
    assert caught.value.message == "Could not find the function public.f(a, b) in the schema cache"


def test_choose_ambiguous() -> None:
    """Two functions that fit are not guessed between."""
    with pytest.raises(RestError) as caught:
        choose("public", "f", [function("a"), function("a", "b", defaults=1)], frozenset({"a"}))
    assert (caught.value.status, caught.value.code) == (300, "PGRST203")


def test_table_without_columns() -> None:
    """A table without columns is still a table."""
    assert Relation.of("public", "t", [(None, None, None, None, False)]).columns == {}
