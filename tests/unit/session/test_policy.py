"""When a session is refreshed, how often, and what a failure means (client specification, section 3.2)."""

from __future__ import annotations

import pytest
from tests.unit.session.conftest import make_session

from backbeat.errors import AuthError, AuthRefused, AuthUnavailable, Retry, StoreError
from backbeat.session.policy import (
    Cooldown,
    ServerTime,
    ends_session,
    has_woken,
    is_fresh,
    offline_delay,
    refresh_due_in,
    refuses_session,
    retry_delay,
)

NOW = 1_700_000_000.0
HOUR = make_session(now=NOW)
REFUSED = AuthRefused("Already Used", code="refresh_token_already_used")


@pytest.mark.parametrize(("left", "due"), [(3600, 3480), (121, 1), (120, 0), (119.9, 0), (-5, 0)])
def test_the_background_refreshes_two_minutes_ahead(left: float, due: float) -> None:
    """Threshold: fewer than four ticks of 30 s are left."""
    assert refresh_due_in(HOUR, HOUR.expires_at - left) == pytest.approx(due)


@pytest.mark.parametrize(("left", "fresh"), [(91, True), (90, False), (0, False), (-1, False)])
def test_whoever_asks_waits_for_a_new_token_within_the_last_90_seconds(left: float, fresh: bool) -> None:
    """Margin of the read path."""
    assert is_fresh(HOUR, HOUR.expires_at - left) is fresh


def test_a_short_life_has_a_short_margin() -> None:
    """A token that is good for a minute is not refreshed all the time: at half its life, and no earlier."""
    minute = make_session(now=NOW, lifetime=60)
    assert refresh_due_in(minute, NOW) == 30
    assert is_fresh(minute, NOW + 37)
    assert not is_fresh(minute, NOW + 38)


def test_one_refresh_makes_eight_attempts() -> None:
    """200, 400, 800 … ms, as long as the next one begins within 30 s."""
    delays: list[float] = []
    while (delay := retry_delay(len(delays), sum(delays))) is not None:
        delays.append(delay)
    assert delays == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8])


def test_slow_failures_leave_fewer_attempts() -> None:
    """What counts is the time since the first attempt began, not their number."""
    assert retry_delay(0, 29.9) is None


def test_without_a_window_there_is_one_attempt() -> None:
    """That is how a program starts without a network."""
    assert retry_delay(0, 0.0, window=0.0) is None


def test_the_background_comes_back_less_and_less_often() -> None:
    """1, 2, 5, 10, then every 30 s for ever."""
    assert [offline_delay(failures) for failures in range(1, 8)] == [1, 2, 5, 10, 30, 30, 30]


# Cool-down --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "at", "expected"),
    [("spent", 0.0, REFUSED), ("spent", 59.9, REFUSED), ("spent", 60.0, None), ("another", 1.0, None)],
)
def test_a_failure_is_remembered_for_a_minute(token: str, at: float, expected: AuthError | None) -> None:
    """For the very token that failed; another goes through."""
    cooldown = Cooldown()
    cooldown.start("spent", REFUSED, monotonic=0.0)
    assert cooldown.failure(token, monotonic=at) is expected


def test_a_failure_can_be_forgotten() -> None:
    """A new session, or none, has failed at nothing."""
    cooldown = Cooldown()
    cooldown.start("spent", REFUSED, monotonic=0.0)
    cooldown.clear()
    assert cooldown.failure("spent", monotonic=1.0) is None


# What a failure means ---------------------------------------------------------------------------------------

TERMINAL = ["refresh_token_not_found", "refresh_token_already_used", "session_expired", "session_not_found"]
HARMLESS = [
    AuthUnavailable("no answer"),
    AuthUnavailable("limit", code="over_request_rate_limit", retry=Retry.SLOW),
    AuthUnavailable("a page", code="unexpected_answer", retry=Retry.SLOW),
    AuthRefused("Invalid API key", code="invalid_api_key"),
    StoreError("disk full"),
]


@pytest.mark.parametrize("code", TERMINAL)
@pytest.mark.parametrize(("left", "ended"), [(1, False), (0, True), (-100, True)])
def test_a_refused_session_lasts_as_long_as_its_access_token(code: str, left: int, ended: bool) -> None:
    """Kept while it is good, removed when it is not."""
    error = AuthRefused("no", code=code)
    assert refuses_session(error)
    assert ends_session(error, HOUR, HOUR.expires_at - left) is ended


@pytest.mark.parametrize("error", HARMLESS, ids=lambda error: error.code)
def test_what_says_nothing_about_a_session_ends_none(error: AuthError) -> None:
    """However long its access token is over: nobody is signed out by a network."""
    assert not ends_session(error, HOUR, HOUR.expires_at + 1_000_000)


# What time it is --------------------------------------------------------------------------------------------


def test_before_anything_is_known_the_clock_here_counts() -> None:
    """There is no other."""
    assert ServerTime().now(wall=NOW, monotonic=7.0) == NOW


@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
def test_a_wrong_clock_is_put_right(skew: float) -> None:
    """An hour fast or slow: the server's clock counts."""
    time = ServerTime()
    time.learn(NOW, wall=NOW + skew, monotonic=100.0)
    assert time.now(wall=NOW + skew + 60, monotonic=160.0) == NOW + 60


def test_a_header_is_too_coarse_for_seconds() -> None:
    """Cut to whole seconds, and on its way for a while: a clock that is right stays right."""
    time = ServerTime()
    time.learn(NOW - 1, wall=NOW, monotonic=100.0)
    assert time.now(wall=NOW, monotonic=100.0) == NOW


def test_while_the_machine_sleeps_the_wall_clock_goes_on() -> None:
    """The monotonic clock stood still for eight hours, and the token ended all the same."""
    time = ServerTime()
    time.learn(NOW, wall=NOW, monotonic=100.0)
    assert time.now(wall=NOW + 28_800, monotonic=101.0) == NOW + 28_800


def test_a_clock_that_is_set_back_makes_no_token_younger() -> None:
    """The monotonic clock knows how long it has been."""
    time = ServerTime()
    time.learn(NOW, wall=NOW, monotonic=100.0)
    assert time.now(wall=NOW - 3600, monotonic=160.0) == NOW + 60


@pytest.mark.parametrize(
    ("wall", "monotonic", "woken"), [(30, 30, False), (33, 30, False), (3600, 30, True), (-100, 30, True)]
)
def test_clocks_that_drift_apart_mean_sleep(wall: float, monotonic: float, woken: bool) -> None:
    """Or that the clock was set, which is as good a reason to look again."""
    assert has_woken(wall=wall, monotonic=monotonic) is woken
