"""Who gets nothing because a filter cannot be evaluated, and for how long."""

from __future__ import annotations

import pytest

from backbeat.postgres.unfiltered import Unfiltered
from backbeat.protocol.filters import Comparison, as_text


def comparison(column: str) -> Comparison:
    """A comparison of a column; which one does not matter."""
    return Comparison(column, "eq", frozenset({b"x"}), negated=False, with_null=False, normal=as_text)


SLOW, BAD, GOOD = (comparison(column) for column in ("slow", "bad", "good"))


@pytest.fixture
def unfiltered() -> Unfiltered:
    return Unfiltered()


def test_a_failure_is_news_once(unfiltered: Unfiltered) -> None:
    """For each subscriber and filter."""
    told = [
        unfiltered.fails(who, what, 1.0)
        for who, what in [("ada", SLOW), ("ada", SLOW), ("mike", SLOW), ("ada", BAD)]
    ]
    assert told == [True, False, True, True]


def test_it_is_over_when_every_filter_works(unfiltered: Unfiltered) -> None:
    """And what is missing begins with the first failure."""
    unfiltered.fails("ada", SLOW, 1.0)
    unfiltered.fails("ada", BAD, 2.0)
    assert unfiltered.works({SLOW, GOOD}) == []
    assert unfiltered.works({BAD}) == [("ada", 1.0)]
    assert unfiltered.works({SLOW, BAD}) == []


def test_it_is_over_for_everybody_who_waited_for_a_filter(unfiltered: Unfiltered) -> None:
    """Equal filters are evaluated together."""
    unfiltered.fails("ada", SLOW, 1.0)
    unfiltered.fails("mike", comparison("slow"), 2.0)
    assert unfiltered.works({SLOW}) == [("ada", 1.0), ("mike", 2.0)]


def test_whoever_left_is_forgotten(unfiltered: Unfiltered) -> None:
    """It is told nothing, and kept nowhere."""
    unfiltered.fails("ada", SLOW, 1.0)
    unfiltered.forget("ada")
    unfiltered.forget("nobody")
    assert (unfiltered.works({SLOW}), len(unfiltered)) == ([], 0)
