"""When a session is refreshed, how often that is tried, and what it means when it does not work.

Section 3.2 of the client specification. Every function is told what time it is, in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from backbeat.errors import AuthError, AuthRefused, Retry
from backbeat.session.session import Session

__all__ = [
    "COOLDOWN",
    "MARGIN",
    "OFFLINE_RETRIES",
    "RETRY_WINDOW",
    "TICK",
    "Cooldown",
    "Deferred",
    "Discarded",
    "RefreshResult",
    "Refreshed",
    "Rejected",
    "ServerTime",
    "Unchanged",
    "ends_session",
    "has_woken",
    "is_fresh",
    "is_transient",
    "offline_delay",
    "refresh_due_in",
    "refuses_session",
    "retry_delay",
    "seconds_left",
]

AHEAD: Final = 120.0
"""Seconds before the end from which an access token is replaced in the background."""

MARGIN: Final = 90.0
"""Seconds before the end from which whoever asks for an access token waits for a new one."""

SHORT_LIFE: Final = 2 * AHEAD
"""Tokens that live shorter have a shorter margin in proportion; else they would be refreshed all the time."""

TICK: Final = 30.0
"""The longest sleep between two looks at the clock: a laptop may have been closed in the middle of one."""

RETRY_WINDOW: Final = 30.0
"""Seconds that one refresh goes on trying: eight attempts where each fails at once."""

FIRST_RETRY: Final = 0.2

OFFLINE_RETRIES: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds between refreshes that found no network; the last for ever."""

COOLDOWN: Final = 60.0
"""Seconds in which the same refresh token is not tried again for whoever asks."""

WAKE: Final = 5.0
"""Seconds by which the two clocks of a machine drift apart only while it sleeps, or is put right."""

COARSE: Final = 5.0
"""Seconds by which the header `Date` may be off without saying anything: it is cut to whole ones, and was
on its way."""

KEY_CODES: Final = frozenset({"invalid_api_key", "no_api_key", "no_authorization"})
"""Refusals of our API key. They say nothing about the session."""


# When -------------------------------------------------------------------------------------------------------


class ServerTime:
    """What time it is at the server, never earlier than it is.

    Expiry is a matter of the server's clock. The wall clock here may be wrong, and may be put right at any
    moment; the monotonic clock never jumps, but stands still while the machine sleeps. So a difference
    is learned from the server, both clocks are asked what time it is now, and the later one counts: at worst
    a token is refreshed too early.
    """

    def __init__(self) -> None:
        self._learned: tuple[float, float, float] | None = None

    def learn(self, date: float, *, wall: float, monotonic: float) -> None:
        """Note what time the server said it is.

        Args:
            date: seconds since the epoch, from the server.
            wall: seconds since the epoch, from the clock here.
            monotonic: seconds since some moment.
        """
        is_same = abs(date - wall) <= COARSE
        self._learned = (wall if is_same else date, wall, monotonic)

    def now(self, *, wall: float, monotonic: float) -> float:
        """Tell what time it is there; before anything was learned, what time it is here."""
        if self._learned is None:
            return wall
        server, wall_then, monotonic_then = self._learned
        return server + max(wall - wall_then, monotonic - monotonic_then)


def seconds_left(session: Session, now: float) -> float:
    """Tell how long an access token is still good; 0 or less when it has ended."""
    return session.expires_at - now


def is_fresh(session: Session, now: float) -> bool:
    """Tell whether an access token may be handed out without asking for a new one."""
    return seconds_left(session, now) > MARGIN * _scale(session)


def refresh_due_in(session: Session, now: float) -> float:
    """Tell in how many seconds the background should refresh; 0 for now."""
    return max(0.0, seconds_left(session, now) - AHEAD * _scale(session))


def _scale(session: Session) -> float:
    return min(1.0, session.expires_in / SHORT_LIFE) if session.expires_in else 1.0


# How often --------------------------------------------------------------------------------------------------


def retry_delay(attempt: int, elapsed: float, *, window: float = RETRY_WINDOW) -> float | None:
    """Tell how long to wait after a failed attempt; None when that would go beyond the window.

    Args:
        attempt: how many attempts failed before this one.
        elapsed: seconds since the first began.
        window: seconds in which the last may begin.
    """
    delay: float = FIRST_RETRY * 2**attempt
    return delay if elapsed + delay < window else None


def offline_delay(failures: int) -> float:
    """Tell how long to wait until the next refresh in the background.

    Args:
        failures: how many in a row could not be made, at least 1.
    """
    return OFFLINE_RETRIES[min(failures, len(OFFLINE_RETRIES)) - 1]


class Cooldown:
    """Remembers that a refresh token did not work, so that it is not tried for everybody who asks."""

    def __init__(self) -> None:
        self._failed: tuple[str, AuthError, float] | None = None

    def start(self, refresh_token: str, error: AuthError, *, monotonic: float) -> None:
        """Note a failure."""
        self._failed = (refresh_token, error, monotonic + COOLDOWN)

    def clear(self) -> None:
        """Forget it: another session is there, or none."""
        self._failed = None

    def failure(self, refresh_token: str, *, monotonic: float) -> AuthError | None:
        """Recall how this very token failed within the last minute."""
        if self._failed is None or self._failed[0] != refresh_token or monotonic >= self._failed[2]:
            return None
        return self._failed[1]


# What it means ----------------------------------------------------------------------------------------------


def refuses_session(error: AuthError) -> bool:
    """Tell whether a failed refresh says something about the session.

    Only the auth service can end one, by refusing its refresh token. No network, an outage, a limit, the
    sign-in page of a hotel or a wrong API key end nothing.
    """
    return isinstance(error, AuthRefused) and error.code not in KEY_CODES


def ends_session(error: AuthError, session: Session, now: float) -> bool:
    """Tell whether a failed refresh leaves nothing of a session: refused, and its access token has ended too.

    Args:
        error: how the refresh failed.
        session: the session that was to be refreshed.
        now: seconds since the epoch, at the server.
    """
    return refuses_session(error) and seconds_left(session, now) <= 0


def is_transient(error: AuthError) -> bool:
    """Tell whether the same request may work a moment later: no answer, or an outage."""
    return error.retry is Retry.BACKOFF


def has_woken(*, wall: float, monotonic: float) -> bool:
    """Tell from how far both clocks went during a wait whether the machine slept, or its clock was set.

    Args:
        wall: seconds that the wall clock went.
        monotonic: seconds that the monotonic clock went.
    """
    return abs(wall - monotonic) > WAKE


@dataclass(frozen=True, slots=True)
class Refreshed:
    """There are new tokens.

    Attributes:
        session: the new session.
    """

    session: Session


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Nobody had to be asked.

    Attributes:
        session: what there is: still good, or made good by another process; None when nobody is signed in.
    """

    session: Session | None


@dataclass(frozen=True, slots=True)
class Deferred:
    """Nobody could be asked, so the session is kept, and will be refreshed later.

    Attributes:
        session: the session; its access token may have ended.
        error: why not now.
    """

    session: Session
    error: AuthError


@dataclass(frozen=True, slots=True)
class Rejected:
    """The auth service refused the refresh token.

    Attributes:
        session: the session, as long as its access token is good; None when it is over.
        error: what was refused, and why.
    """

    session: Session | None
    error: AuthError


@dataclass(frozen=True, slots=True)
class Discarded:
    """New tokens came, but meanwhile the session was replaced or ended: they were thrown away.

    Attributes:
        session: what is there instead.
    """

    session: Session | None


RefreshResult: TypeAlias = Refreshed | Unchanged | Deferred | Rejected | Discarded
"""What came of a refresh. Each has `session`: what there is afterwards."""
