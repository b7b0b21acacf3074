"""The filter grammar, and how a row is compared with a filter."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbeat.errors import BadRequest
from backbeat.protocol.filters import (
    Comparison,
    Condition,
    Normal,
    Operator,
    Relation,
    as_integer,
    as_moment,
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


@pytest.mark.parametrize("negated", [False, True])
@pytest.mark.parametrize("operator", get_args(Operator))
def test_every_operator_is_read_with_and_without_not(operator: Operator, negated: bool) -> None:
    """All thirteen."""
    text = f"id={'not.' * negated}{operator}.{'(1)' if operator == 'in' else '1'}"
    assert parse_filter(text) == (Condition("id", operator, ("1",), negated),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=gte.1,a=lt.5", [("a", "gte", ("1",)), ("a", "lt", ("5",))]),
        ("a=in.(1,2),b=eq.x", [("a", "in", ("1", "2")), ("b", "eq", ("x",))]),
        ("a=gt.1,a=lt.9,b=in.(2,3)", [("a", "gt", ("1",)), ("a", "lt", ("9",)), ("b", "in", ("2", "3"))]),
        ("a=in.(1,2),b=in.(3,4)", [("a", "in", ("1", "2")), ("b", "in", ("3", "4"))]),
        ('a=eq."x,y=1",b=in.("1,2",3)', [("a", "eq", ("x,y=1",)), ("b", "in", ("1,2", "3"))]),
        ("a=like.%(b,c=eq.(d,e),f=is.null", [("a", "like", ("%(b,c=eq.(d,e),f=is.null",))]),
    ],
)
def test_commas_part_conditions_of_any_kind(
    text: str, expected: list[tuple[str, str, tuple[str, ...]]]
) -> None:
    """Outside of quotes and parentheses; one that is never closed takes all that follows."""
    assert [(each.column, each.operator, each.values) for each in parse_filter(text)] == expected


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
    ("operator", "expected"),
    [("lt", [b"9"]), ("lte", [b"9", b"10"]), ("gt", [b"11"]), ("gte", [b"10", b"11"])],
)
@pytest.mark.parametrize("negated", [False, True])
def test_an_order_is_that_of_the_values(operator: Operator, expected: list[bytes], negated: bool) -> None:
    """Not of the texts; and NULL is nowhere in it."""
    compared = Comparison.of(Condition("c", operator, ("10",), negated), [b"10"], as_integer)
    candidates = [b"9", b"10", b"11"]
    matching = [value for value in [*candidates, None] if compared.accepts(value)]
    assert matching == ([value for value in candidates if value not in expected] if negated else expected)


@pytest.mark.parametrize("operator", ["eq", "neq", "isdistinct", "lt", "gte"])
@pytest.mark.parametrize("negated", [False, True])
@pytest.mark.parametrize("normal", [as_integer, as_number, as_moment])
def test_a_text_that_is_not_of_the_type_meets_nothing(
    operator: Operator, negated: bool, normal: Normal
) -> None:
    """The type of the column has changed since the filter was read."""
    written = b"2026-01-01" if normal is as_moment else b"1"
    compared = Comparison.of(Condition("c", operator, ("1",), negated), [written], normal)
    assert not compared.accepts(b"one")


@pytest.mark.parametrize(
    ("compared", "holding", "expected"),
    [
        (("like", False), True, True),
        (("like", True), True, False),
        (("like", True), False, True),
        (("neq", False), True, False),
        (("isdistinct", False), True, False),
        (("isdistinct", True), True, True),
    ],
)
def test_what_postgres_compared_is_turned_around_here(
    compared: tuple[Operator, bool], holding: bool, expected: bool
) -> None:
    """It is asked about the plain operator only."""
    operator, negated = compared
    relation = Relation("anon", "text", "text", "~~", "pg_catalog", None)
    asked = Comparison.of(Condition("c", operator, ("a%",), negated), [b"a%"], as_text, relation)
    assert asked.concludes(b"abc", holds=holding) is expected


def test_a_pattern_is_never_compared_here() -> None:
    """Only Postgres knows what it means."""
    with pytest.raises(ValueError, match="only Postgres"):
        comparison("like", b"a%")


def test_no_subscription_is_found_by_a_value_that_only_postgres_compares() -> None:
    """Equal values may have different texts."""
    relation = Relation("anon", "jsonb", "jsonb", "=", "pg_catalog", None)
    asked = Comparison.of(Condition("c", "eq", ("1.0",)), [b"1.0"], as_text, relation)
    assert (asked.needs_database, asked.wanted) == (True, None)


@pytest.mark.parametrize(
    "moments",
    [
        [b"-infinity", b"4713-01-01 BC", b"0044-03-15 BC", b"0044-03-16 BC", b"0001-01-01", b"2026-01-01"],
        [b"9999-12-31", b"10000-01-01", b"294276-12-31", b"infinity"],
        [b"2026-01-01 00:00:00", b"2026-01-01 00:00:00.5", b"2026-01-01 00:00:00.55", b"2026-01-01 00:00:01"],
        [b"2026-01-01 00:00:00+00", b"2026-01-01 00:00:00.5+00", b"2026-01-01 00:00:00.55+00"],
        [b"0044-03-15 00:00:00+00 BC", b"0044-03-15 00:00:00.5+00 BC", b"0043-01-01 00:00:00+00 BC"],
    ],
)
def test_moments_come_in_the_order_of_time(moments: list[bytes]) -> None:
    """Before Christ, after the year 9999, and for ever."""
    compared = [
        Comparison.of(Condition("c", "gt", (each.decode(),)), [each], as_moment).accepts(later)
        for each, later in pairwise(moments)
    ]
    assert all(compared)


def test_nan_is_above_every_number() -> None:
    """So Postgres has it."""
    above = Comparison.of(Condition("c", "gt", ("Infinity",)), [b"Infinity"], as_number)
    assert [each for each in (b"NaN", b"Infinity", b"1") if above.accepts(each)] == [b"NaN"]


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
