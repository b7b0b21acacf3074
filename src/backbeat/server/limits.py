"""How much a project, a socket and a channel may do: decisions only; the time is an argument.

Specification, section 9. A limit counts what is *sent*, one for each message, at whoever sends it: a client,
the HTTP API or the database. Those who receive it are charged nothing, so nobody is refused for listening.

A limit per second belongs to the whole project, and one sender could use it up for all the others. So each
sender has a *share* besides: the limit divided by the number of users. The project's bucket holds five
seconds' worth. A sender beyond its share must leave half of that; one within its share may take it all. What
follows:

* A project that sends less than its limit, in bursts of up to half the bucket, is never refused, whoever
  sends it: also one socket alone.
* Over any T seconds a project gets through at most its limit times (5 + T).
* Whoever floods is refused while half the bucket is left, and that half refills at the full rate: the shares
  of the others, which add up to that rate, still get through. This is exact while half a bucket holds a
  message for every sender (at 100 per second: for 250); beyond that, some may be refused when all of them
  speak in one instant.
* A share starts empty. Opening ever new sockets therefore wins nothing.

Every call takes `now`: seconds of a clock that never goes back. A refused call is charged nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

from backbeat.errors import ConfigurationError
from backbeat.protocol import reasons

if TYPE_CHECKING:
    from backbeat.protocol.reasons import Reason

__all__ = ["BURST", "LimitSettings", "ProjectLimits", "SocketLimits", "TokenBucket", "Window"]

BURST: Final = 5.0
"""Seconds' worth that a project may do at once: the documented limits are averages over at least so long
(section 9.2), and clients that were written for them send in bursts."""

RESERVE: Final = 0.5
"""The part of a bucket that is kept for senders within their share."""

ROUNDING: Final = 1e-3
"""Tokens by which the arithmetic may be off: a month of uptime leaves a clock of doubles some nanoseconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitSettings:
    """The limits of one project, with the defaults of a self-hosted server (section 9.1).

    0 switches a limit off.

    Attributes:
        max_concurrent_users: Sockets that have joined a channel at least once; 0 for any number.
        max_joins_per_second: Sockets opened and channels joined.
        max_events_per_second: Messages sent by clients, over HTTP and by the database; also HTTP requests.
        max_presence_events_per_second: Calls of `track` and `untrack`.
        max_client_presence_events_per_window: Calls of `track` and `untrack` of one channel in one window.
        client_presence_window_ms: How long such a window is, in milliseconds.

    Raises:
        ConfigurationError: one of them makes no sense; it is named.
    """

    max_concurrent_users: int = 200
    max_joins_per_second: int = 100
    max_events_per_second: int = 100
    max_presence_events_per_second: int = 1000
    max_client_presence_events_per_window: int = 5
    client_presence_window_ms: int = 30_000

    def __post_init__(self) -> None:
        for each in fields(self):
            if getattr(self, each.name) < 0:
                raise ConfigurationError(f"The setting {each.name} must be at least 0.")
        if self.client_presence_window_ms == 0:
            raise ConfigurationError(
                "The setting client_presence_window_ms must be at least 1.",
                hint="To switch the limit off, set max_client_presence_events_per_window to 0.",
            )


class TokenBucket:
    """Gains `rate` tokens per second, and holds at most `burst`.

    Over any T seconds it gives out at most `burst + rate * T`. Whoever takes no more than the rate, spread
    evenly, is never refused.

    Args:
        rate: tokens per second.
        burst: tokens it holds at most; infinite for a bucket that never refuses.
        level: tokens it holds at the start; by default it is full.
        now: when the start is; a full bucket need not know.
    """

    __slots__ = ("_level", "_since", "burst", "rate")

    def __init__(self, rate: float, burst: float, *, level: float | None = None, now: float = 0.0) -> None:
        self.rate = rate
        self.burst = burst
        self._level = burst if level is None else level
        self._since = now

    def __repr__(self) -> str:
        return f"<TokenBucket {self._level:g} of {self.burst:g}, {self.rate:g}/s>"

    def take(self, now: float, cost: float = 1.0, keep: float = 0.0) -> bool:
        """Take tokens, all of them or none.

        Args:
            now: the time.
            cost: how many.
            keep: how many have to be left afterwards.

        Returns:
            Whether they were there.
        """
        level = self._level + (now - self._since) * self.rate
        if level > self.burst:  # noqa: PLR1730 - min() would cost as much as all the rest
            level = self.burst
        self._since = now
        if level - cost < keep - ROUNDING:
            self._level = level
            return False
        self._level = level - cost
        return True

    def wait(self, now: float, cost: float = 1.0, keep: float = 0.0) -> float:
        """Seconds until `take` would succeed if nobody took anything; infinite if it never would.

        Args:
            now: the time.
            cost: how many tokens.
            keep: how many have to be left afterwards.
        """
        if self.burst == math.inf:
            return 0.0
        if cost + keep > self.burst:
            return math.inf
        missing = cost + keep - (self._level + (now - self._since) * self.rate)
        return missing / self.rate if missing > ROUNDING else 0.0


class Window:
    """So many calls in each window; one begins with the first call after the last has ended (section 7.3).

    Args:
        calls: how many; 0 for any number.
        seconds: how long a window is.
    """

    __slots__ = ("_calls", "_ends", "_left", "_seconds")

    def __init__(self, calls: int, seconds: float) -> None:
        self._calls = calls or math.inf
        self._seconds = seconds
        self._left = 0.0
        self._ends = -math.inf

    def take(self, now: float) -> bool:
        """Count a call, unless the window is full."""
        if now >= self._ends:
            self._ends = now + self._seconds
            self._left = self._calls
        if self._left < 1:
            return False
        self._left -= 1
        return True


def _bucket(rate: int) -> TokenBucket:
    """The bucket of a limit per second; 0 for none."""
    return TokenBucket(rate, BURST * rate if rate else math.inf)


class _Pool:
    """One limit per second of the project, divided among its senders.

    Args:
        rate: the limit; 0 for none.
    """

    __slots__ = ("bucket", "reserve", "share_burst", "share_rate")

    def __init__(self, rate: int) -> None:
        self.bucket = _bucket(rate)
        self.reserve = RESERVE * self.bucket.burst
        self.divide(1)

    def divide(self, senders: int) -> None:
        """Divide the limit among so many senders; each may do at least one thing at once."""
        self.share_rate = self.bucket.rate / max(1, senders)
        self.share_burst = max(1.0, self.reserve / max(1, senders))

    def take(self, now: float) -> bool:
        """Take one on nobody's share."""
        return self.bucket.take(now, 1.0, self.reserve)

    def wait(self, now: float) -> float:
        """Seconds until a sender beyond its share may take one."""
        return self.bucket.wait(now, 1.0, self.reserve)


class _Share:
    """The share of one sender; empty at first.

    Args:
        pool: what it is a share of.
        now: the time.
    """

    __slots__ = ("_bucket", "_pool")

    def __init__(self, pool: _Pool, now: float) -> None:
        self._pool = pool
        self._bucket = TokenBucket(pool.share_rate, pool.share_burst, level=0.0, now=now)

    def take(self, now: float, cost: float = 1.0) -> bool:
        """Take from the project's bucket: all that is there within the share, not the reserve beyond it."""
        pool, own = self._pool, self._bucket
        # Users came and went since: telling every share at once would make each of them cost as much as all.
        own.rate, own.burst = pool.share_rate, pool.share_burst
        return pool.bucket.take(now, cost, 0.0 if own.take(now, cost) else pool.reserve)


class ProjectLimits:
    """The limits of the project, and what has been used of them.

    Connects, requests and batches are decided here, everything else at the socket it comes from.

    Args:
        settings: the limits.
    """

    def __init__(self, settings: LimitSettings) -> None:
        self.settings = settings
        self.users = 0
        """Sockets that have joined a channel at least once."""
        self.joins = _Pool(settings.max_joins_per_second)
        self.events = _Pool(settings.max_events_per_second)
        self.presence = _Pool(settings.max_presence_events_per_second)
        self._requests = _bucket(settings.max_events_per_second)
        self._http = _Share(self.events, 0.0)
        self._database = _Share(self.events, 0.0)
        self._divide()

    def __repr__(self) -> str:
        return f"<ProjectLimits users={self.users}>"

    @property
    def full(self) -> bool:
        """Whether there is no room for one more user."""
        return 0 < self.settings.max_concurrent_users <= self.users

    def connect(self, now: float) -> Reason | None:
        """Whether a socket may open (section 1.5); if not, the reason."""
        if self.full:
            return reasons.CONNECTION_LIMIT
        return None if self.joins.take(now) else reasons.JOIN_LIMIT_CONNECT

    def socket(self, now: float) -> SocketLimits:
        """The limits of a socket that has just opened."""
        return SocketLimits(self, now)

    def channel(self) -> Window:
        """The presence window of a new channel, for `SocketLimits.presence`."""
        settings = self.settings
        return Window(
            settings.max_client_presence_events_per_window, settings.client_presence_window_ms / 1000
        )

    def request(self, now: float) -> Reason | None:
        """Whether an HTTP request may be looked at (section 1.6); if not, the reason. Asked before the token.

        Requests have no shares: before their token was read, nobody knows whose they are.
        """
        return None if self._requests.take(now) else reasons.HTTP_REQUESTS_LIMIT

    def http(self, count: int, now: float) -> Reason | None:
        """Whether so many messages may be sent over HTTP in one request (section 6.4); if not, the reason."""
        if self._http.take(now, count):
            return None
        return reasons.HTTP_EVENTS_LIMIT if self.events.wait(now) else reasons.HTTP_BATCH_LIMIT

    def database(self, count: int, now: float) -> Reason | None:
        """Whether so many messages stored in the database may be sent (section 6.6); if not, the reason."""
        return None if self._database.take(now, count) else reasons.EVENTS_LIMIT

    def enter(self) -> Reason | None:
        """Count one more user, unless there are too many; `SocketLimits.enter` knows who is one already."""
        if self.full:
            return reasons.CONNECTION_LIMIT
        self.users += 1
        self._divide()
        return None

    def leave(self) -> None:
        """Count one user less."""
        self.users -= 1
        self._divide()

    def _divide(self) -> None:
        self.joins.divide(self.users)
        self.presence.divide(self.users)
        # All HTTP callers together, and the database, are one sender each.
        self.events.divide(self.users + 2)


class SocketLimits:
    """The limits of one socket, made by `ProjectLimits.socket`. Once closed it is not to be asked again.

    Args:
        project: whose limits they are.
        now: when the socket opened; its shares are counted from then, but made when they are first needed:
            most sockets only listen.
    """

    __slots__ = ("_events", "_joins", "_opened", "_presence", "_project", "_user")

    def __init__(self, project: ProjectLimits, now: float) -> None:
        self._project = project
        self._opened = now
        self._joins: _Share | None = None
        self._events: _Share | None = None
        self._presence: _Share | None = None
        self._user = False

    def __repr__(self) -> str:
        return f"<SocketLimits user={self._user}>"

    def join(self, now: float) -> Reason | None:
        """Whether a join may be looked at (section 3.4); if not, the reason.

        `JOIN_LIMIT` costs the socket, `CONNECTION_LIMIT` only the join.
        """
        if not self._user and self._project.full:
            return reasons.CONNECTION_LIMIT
        if self._joins is None:
            self._joins = _Share(self._project.joins, self._opened)
        return None if self._joins.take(now) else reasons.JOIN_LIMIT

    def enter(self) -> Reason | None:
        """Count the socket as a user, once; to be called when a join is about to be answered with ok.

        The last place may have been given away while the database was asked about this join: then, the
        reason.
        """
        if self._user:
            return None
        reason = self._project.enter()
        self._user = reason is None
        return reason

    def close(self) -> None:
        """The socket ended, whatever became of it."""
        if self._user:
            self._user = False
            self._project.leave()

    def event(self, now: float) -> Reason | None:
        """Whether a message may be sent; if not, the reason, which ends the channel (section 3.9)."""
        if self._events is None:
            self._events = _Share(self._project.events, self._opened)
        return None if self._events.take(now) else reasons.EVENTS_LIMIT

    def presence(self, now: float, channel: Window) -> Reason | None:
        """Whether presence may be tracked or untracked; if not, the reason, which ends the channel.

        Args:
            now: the time.
            channel: the channel's window, from `ProjectLimits.channel`.
        """
        if not channel.take(now):
            return reasons.CLIENT_PRESENCE_LIMIT
        if self._presence is None:
            self._presence = _Share(self._project.presence, self._opened)
        return None if self._presence.take(now) else reasons.PRESENCE_LIMIT
