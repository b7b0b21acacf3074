"""The filter grammar, and how a row is compared with a filter."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbeat.errors import BadRequest
from backbeat.protocol.filters import (
    Comparison,
    Condition,
    Operator,
    as_number,
    as_padded,
    as_text,
    parse_filter,
)


def values(text: str) -> tuple[str | None, ...]:
    """The values of a filter with one condition."""
    (condition,) = parse_filter(text)
    return condition.values


@pytest.mark.parametrize("text", ["", "   "])
def test_a_blank_filter_has_no_conditions(text: str) -> None:
    """Nothing to compare means that every row matches."""
    assert parse_filter(text) == ()


def test_a_condition_has_column_operator_and_value() -> None:
    """The plain case."""
    assert parse_filter("id=eq.5") == (Condition("id", "eq", ("5",)),)


def test_not_turns_a_condition_around() -> None:
    """`not.` stands before any operator."""
    assert parse_filter("id=not.eq.5") == (Condition("id", "eq", ("5",), negated=True),)


def test_commas_join_conditions_and_blanks_around_them_mean_nothing() -> None:
    """Several segments are an AND."""
    assert [c.column for c in parse_filter(" a=eq.1 , b=gte.2 ,c=in.(1,2)")] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name=eq.a.b", "a.b"),
        ("name=eq.a=b", "a=b"),
        ("name=eq.", ""),
        ('name=eq.""', ""),
        ('name=eq."a,b"', "a,b"),
        ('name=eq." a "', " a "),
        (r'name=eq."a\"b\\c\d"', r'a"b\cd'),
        ('name=eq."open', '"open'),
        ('name=eq."a"b', '"a"b'),
        ('name=eq.a"b', 'a"b'),
        ("name=eq.a)b", "a)b"),
        ("name=eq.(a,b)", "(a,b)"),
        ('name=not.eq."a,b"', "a,b"),
        ("name=like.%a_", "%a_"),
    ],
)
def test_a_value_is_taken_literally_unless_quoted(text: str, expected: str) -> None:
    """Quotes count only around a whole value."""
    assert values(text) == (expected,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id=in.(1,2,3)", ("1", "2", "3")),
        ("id=in.(1, 2 ,3)", ("1", "2", "3")),
        ('id=in.("a,b",c)', ("a,b", "c")),
        ('id=in.("a)b",c)', ("a)b", "c")),
        ('id=in.( " a ")', (" a ",)),
        ("id=in.()", ()),
        ('id=in.(null,"null")', (None, "null")),
    ],
)
def test_in_takes_a_list_in_parentheses(text: str, expected: tuple[str | None, ...]) -> None:
    """Elements may be quoted; NULL is one unless quoted."""
    assert values(text) == expected


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("wrong", '["wrong"]'),
        ("foo=hey", '["foo", "hey"]'),
        ("foo=bar.1", '["foo", "bar", "1"]'),
        ("a=eq.1,b=bar.1", '["b", "bar", "1"]'),
        ("a=eq.1,", "filter must not contain empty segments (check for extra commas)"),
        (",a=eq.1", "filter must not contain empty segments (check for extra commas)"),
        ("a=eq.1,,b=eq.1", "filter must not contain empty segments (check for extra commas)"),
        ("id=in.1,2", "`in` filter value must be wrapped by parentheses"),
    ],
)
def test_what_breaks_the_grammar_is_refused_with_the_reason(text: str, detail: str) -> None:
    """The text names the part that makes no sense."""
    with pytest.raises(BadRequest) as refused:
        parse_filter(text)
    assert refused.value.message == f"Error parsing `filter` params: {detail}"


@given(st.text(), st.text())
def test_no_text_makes_the_parser_fail_in_another_way(column: str, value: str) -> None:
    """Whatever arrives is understood or refused."""
    with suppress(BadRequest):
        parse_filter(f"{column}=eq.{value}")


@given(st.text())
def test_any_value_can_be_quoted(value: str) -> None:
    """Quoting keeps every character."""
    quoted = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert values(f"name=eq.{quoted}") == (value,)


def comparison(operator: Operator, *canonical: bytes | None, negated: bool = False) -> Comparison:
    return Comparison.of(Condition("c", operator, ("",), negated), canonical, as_text)


@pytest.mark.parametrize(
    ("compared", "matching", "other"),
    [
        (comparison("eq", b"a"), [b"a"], [b"b", None]),
        (comparison("eq", b"a", negated=True), [b"b"], [b"a", None]),
        (comparison("neq", b"a"), [b"b"], [b"a", None]),
        (comparison("neq", b"a", negated=True), [b"a"], [b"b", None]),
        (comparison("in", b"a", b"b"), [b"a", b"b"], [b"c", None]),
        (comparison("in", b"a", negated=True), [b"b"], [b"a", None]),
        (comparison("in", b"a", None), [b"a"], [b"b", None]),
        (comparison("in", b"a", None, negated=True), [], [b"a", b"b", None]),
        (comparison("in"), [], [b"a", None]),
        (comparison("is", b"null"), [None], [b"t"]),
        (comparison("is", b"null", negated=True), [b"t"], [None]),
        (comparison("is", b"true"), [b"t"], [b"f", None]),
        (comparison("is", b"true", negated=True), [b"f", None], [b"t"]),
        (comparison("is", b"false"), [b"f"], [b"t", None]),
        (comparison("is", b"unknown"), [None], [b"t", b"f"]),
        (comparison("isdistinct", b"a"), [b"b", None], [b"a"]),
        (comparison("isdistinct", b"a", negated=True), [b"a"], [b"b", None]),
    ],
)
def test_operators_see_values_and_nulls_as_postgres_does(
    compared: Comparison, matching: list[bytes | None], other: list[bytes | None]
) -> None:
    """Comparing with NULL is never true, except for `is` and `isdistinct`."""
    candidates = [*matching, *other]
    assert [value for value in candidates if compared.accepts(value)] == matching


@pytest.mark.parametrize(
    ("left", "right"),
    [(b"1.50", b"1.5"), (b"-0", b"0"), (b"1e+20", b"100000000000000000000"), (b"NaN", b"NaN")],
)
def test_numbers_are_equal_by_value(left: bytes, right: bytes) -> None:
    """The scale of a number does not matter."""
    assert as_number(left) == as_number(right)


def test_blanks_at_the_end_of_a_padded_value_mean_nothing() -> None:
    """A `char(5)` compares as Postgres compares it."""
    assert as_padded(b"ab   ") == as_padded(b"ab")


def test_only_a_plain_equality_wants_one_value() -> None:
    """Subscriptions can be found by it."""
    assert (comparison("eq", b"a").wanted, comparison("eq", b"a", negated=True).wanted) == (b"a", None)
