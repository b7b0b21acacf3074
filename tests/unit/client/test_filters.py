"""The filter builder."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbeat import F
from backbeat.client.filters import Filter
from backbeat.errors import ConfigurationError
from backbeat.protocol.filters import Condition, parse_filter


@pytest.mark.parametrize(
    ("built", "text"),
    [
        (F("a") == 1, "a=eq.1"),
        (F("a") != "x y", "a=neq.x y"),
        (F("a") < 1.5, "a=lt.1.5"),
        (F("a") <= Decimal("1.50"), "a=lte.1.50"),
        (F("a") > True, "a=gt.true"),
        (F("a") >= None, "a=gte.null"),
        (F("a").like("a%_"), "a=like.a%_"),
        (F("a").ilike("A"), "a=ilike.A"),
        (F("a").match("^(a|b)$"), 'a=match."^(a|b)$"'),
        (F("a").imatch("x"), "a=imatch.x"),
        (F("a").is_(None), "a=is.null"),
        (F("a").is_("unknown"), "a=is.unknown"),
        (F("a").is_distinct(3), "a=isdistinct.3"),
        (~F("a").in_([1, "b,c", 1]), 'a=not.in.(1,"b,c")'),
        (~~(F("a") == 1), "a=eq.1"),
        ((F("a") == 1) & (F("b") == "") & (F("c") == 'say "hi"'), 'a=eq.1,b=eq."",c=eq."say \\"hi\\""'),
    ],
)
def test_each_operator_is_written(built: Filter, text: str) -> None:
    """Verbatim where that is read back as it was meant, else quoted."""
    assert str(built) == text


@given(st.text().filter(lambda text: "\x00" not in text), st.text())
def test_a_value_is_read_back_as_it_was_meant(value: str, other: str) -> None:
    """Whatever is in it, the server's parser gets the same value."""
    built = str((F("a") == value) & (F("b") == other))
    assert parse_filter(built) == (Condition("a", "eq", (value,)), Condition("b", "eq", (other,)))


@given(st.lists(st.text(), min_size=1, max_size=5, unique=True))
def test_a_list_is_read_back_as_it_was_meant(values: list[str]) -> None:
    """Commas, parentheses, quotes, blanks and the word NULL are values like others."""
    assert parse_filter(str(F("a").in_(values))) == (Condition("a", "in", tuple(values)),)


@pytest.mark.parametrize(
    "build",
    [
        lambda: F("a").in_([]),
        lambda: F("a").in_(range(101)),
        lambda: (F("a") == 1) | (F("b") == 2),
        lambda: 1 <= F("a") <= 2,
        lambda: ~((F("a") == 1) & (F("b") == 2)),
        lambda: F("a").is_("nothing"),  # type: ignore[arg-type]
        lambda: F(""),
        lambda: F("a=b"),
    ],
)
def test_what_cannot_be_written_is_refused(build: object) -> None:
    """With an error in place of a filter that says less than was meant."""
    with pytest.raises(ConfigurationError):
        build()  # type: ignore[operator]
