"""Who misses changes because something that decides about them fails, and for how long."""

from __future__ import annotations

import pytest

from backbeat.postgres.withheld import QUIET, Withheld


@pytest.fixture
def withheld() -> Withheld:
    return Withheld()


def test_a_failure_is_news_once(withheld: Withheld) -> None:
    """For each subscriber and cause."""
    told = [
        withheld.fails(who, cause, since=1.0, now=0.0)
        for who, cause in [("ada", "filter"), ("ada", "filter"), ("mike", "filter"), ("ada", "policy")]
    ]
    assert told == [True, False, True, True]


def test_it_is_over_when_every_cause_is(withheld: Withheld) -> None:
    """And what is missing begins with the first failure."""
    withheld.fails("ada", "filter", since=1.0, now=0.0)
    withheld.fails("ada", "policy", since=2.0, now=0.0)
    assert withheld.works({"filter", "another"}, now=QUIET) == []
    assert withheld.works({"policy"}, now=QUIET) == [("ada", 1.0)]
    assert withheld.works({"filter", "policy"}, now=QUIET) == []


def test_it_is_over_for_everybody_with_the_same_cause(withheld: Withheld) -> None:
    """Equal filters are evaluated together."""
    withheld.fails("ada", ("title", "x"), since=1.0, now=0.0)
    withheld.fails("mike", ("title", "x"), since=2.0, now=0.0)
    assert withheld.works({("title", "x")}, now=QUIET) == [("ada", 1.0), ("mike", 2.0)]


def test_what_fails_now_and_then_is_not_over_in_between(withheld: Withheld) -> None:
    """A policy that fails for one row in ten would be told for each."""
    withheld.fails("ada", "policy", since=1.0, now=0.0)
    assert withheld.works({"policy"}, now=QUIET / 2) == []
    assert not withheld.fails("ada", "policy", since=2.0, now=QUIET / 2)
    assert withheld.works({"policy"}, now=QUIET) == []
    assert withheld.works({"policy"}, now=QUIET * 2) == [("ada", 1.0)]


def test_whoever_left_is_forgotten(withheld: Withheld) -> None:
    """It is told nothing, and kept nowhere."""
    withheld.fails("ada", "filter", since=1.0, now=0.0)
    assert (withheld.forget("ada"), withheld.forget("nobody")) == (1.0, None)
    assert (withheld.works({"filter"}, now=QUIET), len(withheld)) == ([], 0)
