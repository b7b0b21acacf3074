"""What operators and their tools ask over HTTP: does it live, is it ready, what does it count.

`/healthcheck` says that the process answers; a load balancer that restarts what does not answer looks there.
It also says what is wrong with the stream of row changes, which no restart would mend.
`/ready` says whether everything works, the database and the replication stream included; public channels work
without them. `/metrics` is for Prometheus.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

import jwt
import psycopg
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from backbeat.errors import Unavailable
from backbeat.postgres.stream import StreamPhase
from backbeat.server.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from backbeat.postgres.database import Database
    from backbeat.postgres.stream import StreamState
    from backbeat.server.feed import Feed
    from backbeat.server.realtime import Realtime

__all__ = ["DatabaseProbe", "MetricsAccess", "operations_routes", "readiness", "troubles"]

PROBE_PATIENCE: Final = 2.0
"""Seconds in which a database that counts as reachable answers."""

PROBE_INTERVAL: Final = 1.0
"""Seconds for which an answer is remembered: anybody may ask, and the connections are few."""

FORWARDED: Final = frozenset({"forwarded", "x-forwarded-for", "x-real-ip"})
"""Headers by which a proxy says that somebody else is asking."""

ONLY_THE_SIGNATURE: Final[Any] = {
    f"verify_{claim}": False for claim in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")
}


@dataclass(frozen=True, slots=True)
class MetricsAccess:
    """Who may read `/metrics`.

    Attributes:
        secret: what the bearer token of a reader is signed with (HS256, as `METRICS_JWT_SECRET` of the
            original; section 1.1 of the server specification); empty for no such token.
        anyone: without a secret, whether everybody may read. If not, only this machine may.
    """

    secret: str = field(default="", repr=False)
    anyone: bool = False

    def allows(self, client: str, headers: Mapping[str, str], *, now: float) -> bool:
        """Decide about one request.

        Args:
            client: the address it came from, or an empty string.
            headers: its headers, with lower-case names.
            now: seconds since the epoch.
        """
        if self.secret:
            scheme, _, token = headers.get("authorization", "").strip().partition(" ")
            return scheme.lower() == "bearer" and _is_signed(token.strip(), self.secret, now)
        return self.anyone or (_is_loopback(client) and FORWARDED.isdisjoint(headers))


def _is_signed(token: str, secret: str, now: float) -> bool:
    """Whether a token is signed with the secret and, if it ends at all, has not ended (section 5)."""
    try:
        claims = jwt.decode(token, secret, algorithms=["HS256"], options=ONLY_THE_SIGNATURE)
    except jwt.InvalidTokenError:
        return False
    exp = claims.get("exp", now + 1)
    return isinstance(exp, int | float) and not isinstance(exp, bool) and exp > now


def _is_loopback(client: str) -> bool:
    try:
        return ip_address(client).is_loopback
    except ValueError:
        return False


class DatabaseProbe:
    """Tells whether the database answers. However many ask, it is asked once in a while.

    Args:
        database: which one.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asking = asyncio.Lock()
        self._answered = False
        self._asked_at = float("-inf")

    async def answers(self) -> bool:
        """Ask, or repeat the answer of a moment ago."""
        loop = asyncio.get_running_loop()
        async with self._asking:
            if loop.time() - self._asked_at >= PROBE_INTERVAL:
                self._answered = await self._ask()
                self._asked_at = loop.time()
            return self._answered

    async def _ask(self) -> bool:
        try:
            async with asyncio.timeout(PROBE_PATIENCE), self._database.connection() as connection:
                await connection.execute("select 1")
        except (TimeoutError, Unavailable, psycopg.Error):
            return False
        return True


def readiness(
    state: StreamState,
    *,
    database: bool,
    draining: bool,
    late: bool = False,
    lag: float | None = None,
) -> tuple[int, dict[str, object]]:
    """Say whether everything works, and if not, what does not.

    Args:
        state: what the replication stream is doing.
        database: whether the database answers.
        draining: whether the server is on its way down.
        late: whether the stream has fallen behind.
        lag: seconds since everything had been handled; None before the first connection.

    Returns:
        The HTTP status, 200 or 503, and the body.
    """
    ready = database and not draining and not late and state.phase is StreamPhase.STREAMING
    stream: dict[str, object] = {"phase": state.phase.value, "since": state.since, "late": late}
    if lag is not None:
        stream["lag_seconds"] = round(lag, 3)
    if state.gap_since is not None:
        stream["gap_since"] = state.gap_since
    if state.error is not None:
        stream["error"] = {"code": state.error.code, "hint": state.error.hint}
    body: dict[str, object] = {
        "ready": ready,
        "draining": draining,
        "database": "reachable" if database else "unreachable",
        "stream": stream,
    }
    return 200 if ready else 503, body


def troubles(state: StreamState, *, late: bool, lag: float | None) -> list[str]:
    """Say what is wrong with the stream, a line each.

    Args:
        state: what the replication stream is doing.
        late: whether it has fallen behind.
        lag: seconds since everything had been handled; None before the first connection.
    """
    lines = []
    if state.phase is not StreamPhase.STREAMING:
        # The code alone: anybody may ask.
        why = "" if state.error is None else f": {state.error.code}"
        lines.append(f"replication stream {state.phase.value} since {_utc(state.since)}{why}")
    if late and lag is not None:
        lines.append(f"replication stream {lag:.0f} s behind")
    if state.gap_since is not None:
        lines.append(f"row changes are missing from {_utc(state.gap_since)} to {_utc(state.since)}")
    return lines


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def operations_routes(
    realtime: Realtime, feed: Feed, database: Database, *, access: MetricsAccess
) -> list[Route]:
    """The routes for operators.

    Args:
        realtime: the server.
        feed: its stream.
        database: its connections.
        access: who may read the metrics.
    """
    probe = DatabaseProbe(database)

    async def healthcheck(_: Request) -> Response:
        return PlainTextResponse("\n".join(["ok", *troubles(feed.state, late=feed.late, lag=feed.lag)]))

    async def ready(_: Request) -> Response:
        answers = await probe.answers()
        status, body = readiness(
            feed.state, database=answers, draining=realtime.draining, late=feed.late, lag=feed.lag
        )
        return JSONResponse(body, status, headers={"cache-control": "no-store"})

    async def metrics(request: Request) -> Response:
        client = request.client.host if request.client is not None else ""
        if not access.allows(client, request.headers, now=realtime.now()):
            return Response(status_code=403)
        return PlainTextResponse(realtime.metrics.exposition(), media_type=CONTENT_TYPE)

    return [Route("/healthcheck", healthcheck), Route("/ready", ready), Route("/metrics", metrics)]
