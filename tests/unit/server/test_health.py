"""What operators ask: readiness, and who may read the metrics."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import httpx
import jwt
import pytest
from starlette.applications import Starlette

from backbeat.errors import StreamError
from backbeat.postgres.stream import StreamPhase, StreamState
from backbeat.protocol import reasons
from backbeat.server.health import DatabaseProbe, MetricsAccess, operations_routes, readiness, troubles

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.unit.server.conftest import Server

    from backbeat.postgres.database import Database
    from backbeat.server.feed import Feed

SECRET = "a metrics secret of at least 32 bytes"
NOW = 1_700_000_000.0
STREAMING = StreamState(StreamPhase.STREAMING, NOW)


def bearer(*, secret: str = SECRET, **claims: object) -> dict[str, str]:
    """The header of a reader of the metrics."""
    return {"authorization": f"Bearer {jwt.encode(claims, secret)}"}


# Readiness --------------------------------------------------------------------------------------------------


def test_it_is_ready_when_everything_works() -> None:
    """200, and what that means."""
    assert readiness(STREAMING, database=True, draining=False) == (
        200,
        {
            "ready": True,
            "draining": False,
            "database": "reachable",
            "stream": {"phase": "streaming", "since": NOW, "late": False},
        },
    )


def test_it_is_not_ready_without_the_database() -> None:
    """503, and the database is named."""
    status, body = readiness(STREAMING, database=False, draining=False)
    assert (status, body["database"]) == (503, "unreachable")


def test_it_is_not_ready_while_it_drains() -> None:
    """A load balancer must send nobody here any more."""
    status, body = readiness(STREAMING, database=True, draining=True)
    assert (status, body["draining"]) == (503, True)


def test_it_is_not_ready_before_the_stream_flows() -> None:
    """Connecting is not enough: commits would be missed."""
    assert readiness(StreamState(StreamPhase.CONNECTING, NOW), database=True, draining=False)[0] == 503


def test_a_lost_stream_says_why_and_what_to_do() -> None:
    """The code and the remedy; not the text of Postgres, which may hold names."""
    error = StreamError("no slot for somebody", hint="Raise max_replication_slots.", code="SlotsUsedUp")
    status, body = readiness(StreamState(StreamPhase.LOST, NOW, error), database=True, draining=False)
    assert status == 503
    assert body["stream"] == {
        "phase": "lost",
        "since": NOW,
        "late": False,
        "error": {"code": "SlotsUsedUp", "hint": "Raise max_replication_slots."},
    }


def test_it_is_not_ready_while_changes_arrive_late() -> None:
    """503, and by how much."""
    status, body = readiness(STREAMING, database=True, draining=False, late=True, lag=12.34567)
    assert status == 503
    assert body["stream"] == {"phase": "streaming", "since": NOW, "late": True, "lag_seconds": 12.346}


def test_a_gap_is_named() -> None:
    """It does no harm to what comes, but operators want to know."""
    state = StreamState(StreamPhase.STREAMING, NOW, gap_since=NOW - 9)
    status, body = readiness(state, database=True, draining=False)
    assert (status, body["stream"]) == (
        200,
        {"phase": "streaming", "since": NOW, "late": False, "gap_since": NOW - 9},
    )


class Pool:
    """Stands in for the database: answers, or refuses, and counts."""

    def __init__(self) -> None:
        self.asked = 0
        self.reachable = True

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Pool]:
        """Lend itself."""
        if not self.reachable:
            raise reasons.DATABASE_UNREACHABLE.refusal()
        yield self

    async def execute(self, _: str) -> None:
        """Count a question."""
        self.asked += 1


async def test_a_database_that_cannot_be_reached_does_not_answer() -> None:
    """An answer, not an error."""
    pool = Pool()
    pool.reachable = False
    assert not await DatabaseProbe(cast("Database", pool)).answers()


async def test_however_many_ask_the_database_is_asked_once() -> None:
    """Strangers who ask again and again take no connections from those who join."""
    pool = Pool()
    probe = DatabaseProbe(cast("Database", pool))
    assert [await probe.answers() for _ in range(20)] == [True] * 20
    assert pool.asked == 1


# Who may read the metrics -----------------------------------------------------------------------------------


def test_a_token_signed_with_the_secret_opens_the_metrics() -> None:
    """From anywhere; it needs no claims at all."""
    assert MetricsAccess(SECRET).allows("203.0.113.7", bearer(), now=NOW)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer not.a.token"},
        {"authorization": f"Bearer {SECRET}"},
        {"authorization": f"Basic {jwt.encode({}, SECRET)}"},
        {"authorization": f"Bearer {jwt.encode({}, '', algorithm='none')}"},
        bearer(secret="another secret of at least 32 bytes"),
        bearer(exp=NOW),
        bearer(exp="never"),
        bearer(exp=True),
    ],
)
def test_nothing_else_opens_the_metrics_when_there_is_a_secret(headers: dict[str, str]) -> None:
    """No token, another secret, no signature, or an end that has come; not even from this machine."""
    assert not MetricsAccess(SECRET, anyone=True).allows("127.0.0.1", headers, now=NOW)


def test_a_token_that_ends_later_opens_the_metrics() -> None:
    """An expiry is measured against the server's clock, not the machine's."""
    assert time.time() > NOW + 1
    assert MetricsAccess(SECRET).allows("203.0.113.7", bearer(exp=NOW + 1), now=NOW)


@pytest.mark.parametrize("client", ["127.0.0.1", "127.8.8.8", "::1"])
def test_without_a_secret_this_machine_may_read_the_metrics(client: str) -> None:
    """A scraper beside the server needs no token."""
    assert MetricsAccess().allows(client, {}, now=NOW)


@pytest.mark.parametrize("client", ["203.0.113.7", "10.0.0.1", "2001:db8::1", "unix:", ""])
def test_without_a_secret_others_may_not(client: str) -> None:
    """Neither may one whose address is not known."""
    assert not MetricsAccess().allows(client, {}, now=NOW)


@pytest.mark.parametrize("header", ["forwarded", "x-forwarded-for", "x-real-ip"])
def test_a_proxy_on_this_machine_is_not_this_machine(header: str) -> None:
    """It asks for somebody else, and says so."""
    assert not MetricsAccess().allows("127.0.0.1", {header: "127.0.0.1"}, now=NOW)


def test_everybody_may_read_the_metrics_of_a_project_in_development() -> None:
    """There is nobody to hide them from."""
    assert MetricsAccess(anyone=True).allows("192.168.0.7", {}, now=NOW)


def test_the_secret_is_not_shown() -> None:
    """A setting that is printed must not give it away."""
    assert SECRET not in repr(MetricsAccess(SECRET))


# The routes -------------------------------------------------------------------------------------------------


async def fetch(server: Server, path: str, *, state: StreamState = STREAMING) -> httpx.Response:
    """Ask a server from another machine."""
    feed = cast("Feed", SimpleNamespace(state=state, late=False, lag=None))
    routes = operations_routes(server.realtime, feed, cast("Database", Pool()), access=MetricsAccess(SECRET))
    transport = httpx.ASGITransport(Starlette(routes=routes), client=("203.0.113.7", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://backbeat") as client:
        return await client.get(path, headers=bearer() if path.endswith("?token") else {})


async def test_a_healthcheck_answers_ok(server: Server) -> None:
    """And nothing else, while everything works."""
    response = await fetch(server, "/healthcheck", state=STREAMING)
    assert (response.status_code, response.text) == (200, "ok")


async def test_a_healthcheck_says_what_is_wrong_with_the_stream(server: Server) -> None:
    """The process answers all the same: to start it again would not help."""
    lost = StreamState(StreamPhase.LOST, NOW, StreamError("secret words"), gap_since=NOW - 9)
    response = await fetch(server, "/healthcheck", state=lost)
    assert response.status_code == 200
    assert [line.partition(" since")[0] for line in response.text.splitlines()][:2] == [
        "ok",
        "replication stream lost",
    ]
    assert response.text.splitlines()[1].endswith(": ReplicationConnectionDown")
    assert "row changes are missing from" in response.text


def test_a_stream_that_is_behind_says_how_far() -> None:
    """In seconds."""
    assert troubles(STREAMING, late=True, lag=12.4) == ["replication stream 12 s behind"]


async def test_readiness_is_a_status(server: Server) -> None:
    """503 is what a load balancer understands."""
    response = await fetch(server, "/ready", state=StreamState(StreamPhase.LOST, NOW))
    assert (response.status_code, response.json()["ready"]) == (503, False)


async def test_metrics_are_text(server: Server) -> None:
    """In the version of the format that Prometheus is told."""
    response = await fetch(server, "/metrics?token")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "realtime_connections_connected 0\n" in response.text


async def test_metrics_are_refused_without_a_word(server: Server) -> None:
    """403 with an empty body (specification, 1.1)."""
    response = await fetch(server, "/metrics")
    assert (response.status_code, response.content) == (403, b"")
