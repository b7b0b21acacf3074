"""Token buckets, shares, windows, and the reasons of those who are refused."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backbeat.errors import ConfigurationError
from backbeat.protocol import reasons
from backbeat.server.limits import BURST, LimitSettings, ProjectLimits, SocketLimits, TokenBucket, Window

UNLIMITED = LimitSettings(
    **{each.name: 0 for each in fields(LimitSettings)} | {"client_presence_window_ms": 1}
)
START = 1e6
"""A clock that has run for some days: its doubles are coarser than those of one that starts at 0."""

rates = st.integers(min_value=1, max_value=1000)
gaps = st.lists(st.floats(min_value=0, max_value=2), max_size=200)


def project(**limits: int) -> ProjectLimits:
    """A project that is limited in this only."""
    return ProjectLimits(replace(UNLIMITED, **limits))


def user(limits: ProjectLimits) -> SocketLimits:
    """A socket that has joined, and been there for long enough to have its whole share."""
    socket = limits.socket(0.0)
    assert socket.enter() is None
    return socket


def sent(socket: SocketLimits, now: float, attempts: int = 100_000) -> int:
    """How many messages a flooding socket gets through at once."""
    return next((number for number in range(attempts) if socket.event(now)), attempts)


# Settings ---------------------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_a_self_hosted_server() -> None:
    """Section 9.1."""
    assert LimitSettings() == LimitSettings(
        max_concurrent_users=200,
        max_joins_per_second=100,
        max_events_per_second=100,
        max_presence_events_per_second=1000,
        max_client_presence_events_per_window=5,
        client_presence_window_ms=30_000,
    )


@pytest.mark.parametrize("name", [each.name for each in fields(LimitSettings)])
def test_a_negative_limit_is_named(name: str) -> None:
    """Whoever set it learns which it was."""
    with pytest.raises(ConfigurationError, match=name):
        LimitSettings(**{name: -1})


def test_a_window_without_length_is_refused() -> None:
    """It would be over before its first call; the error says how to have no limit."""
    with pytest.raises(ConfigurationError) as caught:
        LimitSettings(client_presence_window_ms=0)
    assert "max_client_presence_events_per_window" in caught.value.hint


# Buckets ----------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(rate=rates, burst=st.floats(min_value=1, max_value=100), gaps=gaps)
def test_no_window_gives_more_than_burst_and_rate(rate: int, burst: float, gaps: list[float]) -> None:
    """Between any two calls, and so over any length of time."""
    bucket = TokenBucket(rate, burst)
    taken = [now for now in accumulate(gaps, initial=START) if bucket.take(now)]
    for first, begin in enumerate(taken):
        for number, end in enumerate(taken[first:], start=1):
            assert number <= burst + rate * (end - begin) + 0.01


@given(rate=rates, phase=st.floats(min_value=0, max_value=1))
def test_an_even_sender_at_the_rate_is_never_refused(rate: int, phase: float) -> None:
    """Not even from a bucket that holds a single token, and on a coarse clock."""
    bucket = TokenBucket(rate, 1.0)
    assert all(bucket.take(START + phase + number / rate) for number in range(500))


@given(rate=rates, pauses=gaps)
def test_a_sender_below_the_rate_is_never_refused(rate: int, pauses: list[float]) -> None:
    """However irregular its pauses are, if none is shorter than the rate allows."""
    bucket = TokenBucket(rate, 1.0)
    assert all(bucket.take(now) for now in accumulate((1 / rate + pause for pause in pauses), initial=START))


@given(rate=rates, burst=st.integers(1, 50), gaps=gaps, cost=st.integers(1, 60))
def test_waiting_as_told_is_enough_and_not_too_long(
    rate: int, burst: int, gaps: list[float], cost: int
) -> None:
    """What `wait` says is when `take` succeeds."""
    bucket = TokenBucket(rate, burst)
    for now in accumulate(gaps, initial=START):
        bucket.take(now)
    now = START + sum(gaps)
    wait = bucket.wait(now, cost)
    if wait == math.inf:
        assert cost > burst
    else:
        assert wait == 0 or not bucket.take(now + wait - 0.01 / rate, cost)
        assert bucket.take(now + wait, cost)


def test_a_refused_call_is_charged_nothing() -> None:
    """Asking too often does not put off the moment when one is heard."""
    bucket = TokenBucket(1.0, 1.0)
    bucket.take(START)
    assert not any(bucket.take(START + tenth / 10) for tenth in range(10))
    assert bucket.take(START + 1)


def test_all_or_nothing() -> None:
    """A batch that does not fit leaves the tokens to smaller ones."""
    bucket = TokenBucket(1.0, 10.0)
    assert not bucket.take(START, 11)
    assert bucket.take(START, 10)


def test_what_is_to_be_kept_is_kept() -> None:
    """Only calls that leave enough succeed."""
    bucket = TokenBucket(1.0, 10.0)
    assert not bucket.take(START, 6, keep=5)
    assert bucket.take(START, 5, keep=5)
    assert bucket.wait(START, 1, keep=5) == 1.0


# Windows ----------------------------------------------------------------------------------------------------


def test_a_window_takes_so_many_calls() -> None:
    """And no more."""
    window = Window(5, 30.0)
    assert [window.take(START + second) for second in range(7)] == [True] * 5 + [False] * 2


def test_a_new_window_begins_when_the_last_has_ended() -> None:
    """All calls are there again, however the last window was used up."""
    window = Window(2, 30.0)
    assert [window.take(START + second) for second in (0, 29, 29.9, 30, 31, 32)] == [
        True,
        True,
        False,
        True,
        True,
        False,
    ]


# Users ------------------------------------------------------------------------------------------------------


def test_an_open_socket_is_no_user() -> None:
    """Only a successful join makes it one."""
    limits = project(max_concurrent_users=1)
    limits.socket(START).join(START)
    assert limits.users == 0


def test_a_socket_is_one_user_however_many_channels_it_joins() -> None:
    """Entering again changes nothing."""
    limits = project(max_concurrent_users=1)
    socket = limits.socket(START)
    assert [socket.enter(), socket.enter(), limits.users] == [None, None, 1]


def test_one_user_too_many_may_not_connect() -> None:
    """The upgrade is refused."""
    limits = project(max_concurrent_users=1)
    user(limits)
    assert limits.connect(START) is reasons.CONNECTION_LIMIT


def test_one_user_too_many_may_not_join() -> None:
    """Its socket opened before the last place was taken."""
    limits = project(max_concurrent_users=1)
    late = limits.socket(START)
    user(limits)
    assert late.join(START) is reasons.CONNECTION_LIMIT


def test_a_user_may_join_more_channels_in_a_full_project() -> None:
    """It has its place already."""
    limits = project(max_concurrent_users=1)
    assert user(limits).join(START) is None


def test_the_last_place_is_given_away_once() -> None:
    """Two joins were looked at while there was one place, and the database answered both."""
    limits = project(max_concurrent_users=1)
    first, second = limits.socket(START), limits.socket(START)
    assert [first.join(START), second.join(START)] == [None, None]
    assert [first.enter(), second.enter()] == [None, reasons.CONNECTION_LIMIT]
    assert limits.users == 1


def test_a_user_who_goes_makes_room() -> None:
    """Once, however often its socket is closed."""
    limits = project(max_concurrent_users=2)
    gone, _ = user(limits), user(limits)
    gone.close()
    gone.close()
    assert limits.users == 1
    assert limits.connect(START) is None


def test_a_socket_that_was_refused_frees_no_place() -> None:
    """It never had one."""
    limits = project(max_concurrent_users=1)
    user(limits)
    refused = limits.socket(START)
    refused.enter()
    refused.close()
    assert limits.users == 1


# Reasons ----------------------------------------------------------------------------------------------------


def test_each_way_to_be_too_fast_has_its_reason() -> None:
    """The texts clients know: connects, joins, messages and presence, over the socket."""
    limits = ProjectLimits(
        replace(UNLIMITED, max_joins_per_second=1, max_events_per_second=1, max_presence_events_per_second=1)
    )
    socket, window = limits.socket(START), limits.channel()
    assert {limits.connect(START) for _ in range(9)} == {None, reasons.JOIN_LIMIT_CONNECT}
    assert {socket.join(START) for _ in range(9)} == {reasons.JOIN_LIMIT}
    assert {socket.event(START) for _ in range(9)} == {None, reasons.EVENTS_LIMIT}
    assert {socket.presence(START, window) for _ in range(9)} == {None, reasons.PRESENCE_LIMIT}


def test_connects_and_joins_are_counted_together() -> None:
    """They are one limit."""
    limits = project(max_joins_per_second=10)
    while limits.connect(START) is None:
        pass
    assert limits.socket(START).join(START) is reasons.JOIN_LIMIT


def test_a_channel_has_its_own_presence_limit() -> None:
    """Five calls in thirty seconds; another channel of the same socket is not concerned."""
    limits = ProjectLimits(LimitSettings())
    socket, one, other = limits.socket(START), limits.channel(), limits.channel()
    assert [socket.presence(START, one) for _ in range(6)] == [None] * 5 + [reasons.CLIENT_PRESENCE_LIMIT]
    assert socket.presence(START, other) is None
    assert socket.presence(START + 30, one) is None


def test_what_the_channel_refuses_costs_the_project_nothing() -> None:
    """A channel that keeps calling in vain takes nothing from the others."""
    limits = project(
        max_presence_events_per_second=1,
        max_client_presence_events_per_window=1,
        client_presence_window_ms=30_000,
    )
    vain = limits.channel()
    for _ in range(100):
        limits.socket(START).presence(START, vain)
    assert limits.socket(START).presence(START, limits.channel()) is None


def test_a_batch_too_large_for_now_is_told_to_shrink() -> None:
    """A smaller one would go through."""
    limits = project(max_events_per_second=10)
    assert limits.http(1000, START) is reasons.HTTP_BATCH_LIMIT
    assert limits.http(10, START) is None


def test_nothing_left_for_http_is_said_so() -> None:
    """No batch is small enough."""
    limits = project(max_events_per_second=10)
    while limits.http(1, START) is None:
        pass
    assert limits.http(1, START) is reasons.HTTP_EVENTS_LIMIT


def test_requests_are_limited_apart_from_messages() -> None:
    """Requests that say nothing can be too many as well, and keep no message away."""
    limits = project(max_events_per_second=10)
    while limits.request(START) is None:
        pass
    assert limits.request(START) is reasons.HTTP_REQUESTS_LIMIT
    assert limits.http(1, START) is None


def test_the_database_is_a_sender_like_others() -> None:
    """Messages it stores too fast are refused."""
    limits = project(max_events_per_second=10)
    assert limits.database(10, START) is None
    assert limits.database(1000, START) is reasons.EVENTS_LIMIT


def test_zero_is_no_limit() -> None:
    """Each of them can be switched off."""
    limits = ProjectLimits(UNLIMITED)
    sockets, window = [user(limits) for _ in range(300)], limits.channel()
    answers = [
        answer
        for socket in sockets
        for answer in (
            limits.connect(START),
            socket.join(START),
            socket.event(START),
            socket.presence(START, window),
            limits.request(START),
            limits.http(10_000, START),
            limits.database(10_000, START),
        )
    ]
    assert set(answers) == {None}


# Fairness ---------------------------------------------------------------------------------------------------


def test_one_socket_alone_may_use_the_whole_limit() -> None:
    """Also where many others are there and say nothing."""
    limits = project(max_events_per_second=100)
    talker, *_ = [user(limits) for _ in range(200)]
    assert all(talker.event(START + number / 100) is None for number in range(3000))


@settings(deadline=None)
@given(
    rate=rates,
    senders=st.lists(st.tuples(st.integers(0, 9), st.floats(0, 0.5)), max_size=300),
    users=st.integers(1, 10),
)
def test_a_project_never_exceeds_its_limit(rate: int, senders: list[tuple[int, float]], users: int) -> None:
    """Shares included: whoever sends, and whenever."""
    limits = project(max_events_per_second=rate)
    sockets = [user(limits) for _ in range(users)]
    times = accumulate((gap for _, gap in senders), initial=START)
    taken = [
        now
        for now, (number, _) in zip(times, senders, strict=False)
        if sockets[number % users].event(now) is None
    ]
    if taken:
        assert len(taken) <= rate * (BURST + taken[-1] - taken[0]) + 0.01


@settings(deadline=None)
@given(
    rate=st.integers(10, 1000),
    users=st.integers(1, 23),
    pauses=st.lists(st.floats(0, 0.5), min_size=20, max_size=60),
)
def test_a_flood_keeps_nobody_from_using_their_share(rate: int, users: int, pauses: list[float]) -> None:
    """All others flood at every moment; one sends as often as the limit divided by the senders allows.

    With the HTTP callers and the database there are up to 25 senders: as many as half of the smallest bucket
    holds messages, which is how far the guarantee goes.
    """
    limits = project(max_events_per_second=rate)
    quiet, *flooders = [user(limits) for _ in range(users)]
    share = rate / (users + 2)
    now = START
    for pause in pauses:
        for flooder in flooders:
            sent(flooder, now)
        while limits.http(1, now) is None or limits.database(1, now) is None:
            pass
        assert quiet.event(now) is None
        now += 1 / share + pause


def test_a_share_is_worth_a_message_however_many_users_there_are() -> None:
    """Who has been silent for a while may say one thing in a flood."""
    limits = project(max_events_per_second=10)
    flooder, quiet, *_ = [user(limits) for _ in range(200)]
    sent(flooder, START)
    assert quiet.event(START) is None


def test_a_listener_is_charged_nothing() -> None:
    """A flood goes to everyone; those who only hear it can send as before."""
    limits = project(max_events_per_second=10)
    flooder, listener = user(limits), user(limits)
    sent(flooder, START)
    assert flooder.event(START) is reasons.EVENTS_LIMIT
    assert listener.event(START) is None


def test_a_new_socket_gets_nothing_of_the_reserve() -> None:
    """Or else a flooder would only have to connect again."""
    limits = project(max_events_per_second=10)
    sent(limits.socket(START), START)
    assert all(sent(limits.socket(START), START) == 0 for _ in range(10))


def test_opening_sockets_keeps_no_user_from_joining() -> None:
    """Connects take nothing of what is kept for those who are there."""
    limits = project(max_joins_per_second=10)
    there = user(limits)
    while limits.connect(START) is None:
        pass
    assert there.join(START) is None


def test_a_share_follows_the_number_of_users() -> None:
    """When everyone else has gone, the one who stays gets through more of a flood."""
    limits = project(max_events_per_second=100)
    one, *others = [user(limits) for _ in range(50)]
    sent(others[0], START)
    crowded = sent(one, START)
    for other in others:
        other.close()
    later = START + 1000
    sent(limits.socket(later), later)
    assert sent(one, later) > crowded


def test_a_flood_ends_with_the_flooder() -> None:
    """Everything is there again after a few seconds of silence."""
    limits = project(max_events_per_second=10)
    flooder = user(limits)
    before = sent(flooder, START)
    assert sent(flooder, START + BURST) == before
