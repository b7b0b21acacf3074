"""The band app's realtime: four channels for each band, in order, with the user's token, or a reason."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

import pytest
from examples.rockon.terminal.manager import Connection, RealtimeManager, RealtimeStartError, StartFailed
from tests.unit.session.conftest import make_session

from backbeat import RealtimeClient
from backbeat.client.events import ChangeEvent
from backbeat.errors import AuthUnavailable, ConfigurationError, Denied, TokenUnavailable
from backbeat.session import Session, SessionManager
from backbeat.testing import MemoryServer

LISTS = ("songs", "setlists", "shows", "practice_sessions")
DENIED = "Unauthorized: You do not have permissions to read from this Channel topic"

Begin = Callable[..., RealtimeClient]


class Listener:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.failures: list[StartFailed] = []
        self.states: list[tuple[Connection, str]] = []
        self.changes: list[tuple[str, ChangeEvent[dict[str, Any]]]] = []
        self.readings: list[tuple[str, str]] = []
        self.known: set[tuple[str, str]] = set()
        self.news = asyncio.Event()

    def start_failed(self, failure: StartFailed) -> None:
        self.failures.append(failure)

    def connection(self, state: Connection, reason: str) -> None:
        self.states.append((state, reason))
        self.news.set()

    def knows(self, table: str, row_id: str) -> bool:
        return (table, row_id) in self.known

    def changed(self, table: str, change: ChangeEvent[dict[str, Any]]) -> None:
        self.changes.append((table, change))
        self.news.set()

    async def read(self, band_id: str, table: str) -> None:
        self.readings.append((band_id, table))
        self.news.set()

    async def until(self, question: Callable[[], bool]) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(5):
            while not question():
                self.news.clear()
                await self.news.wait()


@pytest.fixture
def server() -> MemoryServer:
    """A server in memory."""
    return MemoryServer()


@pytest.fixture
def listener(caplog: pytest.LogCaptureFixture) -> Listener:
    """Who is told what happens."""
    caplog.set_level(logging.INFO, "rockon")
    return Listener()


@pytest.fixture
def session() -> Session:
    """Ada's session."""
    return make_session(now=time.time())


@pytest.fixture
async def begin(server: MemoryServer) -> AsyncIterator[Begin]:
    """Make clients of the server; all are closed in the end."""
    clients: list[RealtimeClient] = []

    def make(token: Any = None) -> RealtimeClient:
        client = RealtimeClient(
            "ws://memory",
            "key",
            token=token,
            transport=server,
            require_user_token=True,
            backoff=(0.01,),
        )
        clients.append(client)
        return client

    yield make
    for client in clients:
        await client.close()


@pytest.fixture
def client(begin: Begin, session: Session) -> RealtimeClient:
    """A client with Ada's token."""
    return begin(session.access_token)


@pytest.fixture
async def manager(client: RealtimeClient, session: Session, listener: Listener) -> RealtimeManager:
    """Ada's lists of band `b1`."""
    manager = await RealtimeManager.start(client, session, bands("b1"), listener)
    await listener.until(lambda: listener.states[-1][0] == "live")
    return manager


def bands(*band_ids: str) -> Callable[[], Any]:
    """Find these bands."""

    async def find() -> Collection[str]:
        return band_ids

    return find


def topics(*band_ids: str) -> set[str]:
    """The topics of bands."""
    return {f"{table}-{band_id}" for band_id in band_ids for table in LISTS}


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged."""
    return [record.getMessage() for record in caplog.records if record.name == "rockon"]


# Subscribing ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("manager")
def test_each_band_has_four_channels_with_three_listeners(server: MemoryServer) -> None:
    """INSERT and UPDATE are filtered by band; a DELETE has no band to filter by (RM-1)."""
    joined = {join.topic: join.payload["config"]["postgres_changes"] for join in server.of("phx_join")}
    assert joined == {
        f"{table}-b1": [
            {"event": "INSERT", "schema": "public", "table": table, "filter": "band_id=eq.b1"},
            {"event": "UPDATE", "schema": "public", "table": table, "filter": "band_id=eq.b1"},
            {"event": "DELETE", "schema": "public", "table": table},
        ]
        for table in LISTS
    }


async def test_the_log_tells_the_order(
    client: RealtimeClient,
    session: Session,
    server: MemoryServer,
    listener: Listener,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Starting, initialized, each list when it is joined; connected only when the last one streams (RM-2)."""
    server.streams = False
    starting = asyncio.create_task(RealtimeManager.start(client, session, bands("b1"), listener))
    await listener.until(lambda: len(lines(caplog)) == 6)
    *first, last = LISTS
    for table in first:
        server.connections[0].system(f"{table}-b1", "Subscribed to PostgreSQL", extension="postgres_changes")
    await listener.until(lambda: len(listener.readings) == len(first))
    assert lines(caplog) == [
        "🔌 Starting real-time WebSocket sync...",
        "🔌 RealtimeManager initialized - using main Supabase client",
        *(f"✅ Subscribed to {table}-b1" for table in LISTS),
    ]
    server.connections[0].system(f"{last}-b1", "Subscribed to PostgreSQL", extension="postgres_changes")
    await starting
    await listener.until(lambda: listener.states[-1] == ("live", ""))
    assert lines(caplog)[6:] == ["✅ Real-time sync connected"]


async def test_many_lists_share_one_socket_and_one_token(
    client: RealtimeClient, server: MemoryServer, session: Session, listener: Listener
) -> None:
    """All joins carry the user's token over one connection; a new one is pushed once to each (RM-8)."""
    await RealtimeManager.start(client, session, bands("b1", "b2"), listener)
    assert server.opened == 1
    assert [join["access_token"] for join in server.joins()] == [session.access_token] * 8
    fresh = make_session(2, now=time.time())
    await client.set_auth(fresh.access_token)
    await client.ping()
    pushed = server.of("access_token")
    assert {push.topic for push in pushed} == topics("b1", "b2")
    assert [push.payload for push in pushed] == [{"access_token": fresh.access_token}] * 8


async def test_another_call_changes_only_the_difference(
    manager: RealtimeManager, server: MemoryServer
) -> None:
    """A new band is joined, one that is gone is left, and nothing else is touched (RM-12)."""
    await manager.subscribe_to_user_bands("ada", ["b1", "b2"])
    assert {join.topic for join in server.of("phx_join")[4:]} == topics("b2")
    await manager.subscribe_to_user_bands("ada", ["b2"])
    assert {leave.topic for leave in server.of("phx_leave")} == topics("b1")
    assert len(server.of("phx_join")) == 8
    assert set(manager.topics) == topics("b2")


async def test_the_same_call_again_changes_nothing(
    manager: RealtimeManager, server: MemoryServer, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is joined, left or logged, and each change is told once, as before."""
    caplog.clear()
    await manager.subscribe_to_user_bands("ada", ["b1"])
    assert (len(server.of("phx_join")), server.of("phx_leave"), lines(caplog)) == (4, [], [])
    for table in LISTS:
        server.change(table, "INSERT", {"id": "1"})
        server.change(table, "INSERT", {"id": "last"})
    await listener.until(lambda: set(told(listener, "last")) == set(LISTS))
    assert told(listener, "1") == sorted(LISTS)


def told(listener: Listener, row_id: str) -> list[str]:
    """The tables of which a row was told, each as often as it was."""
    return sorted(table for table, change in listener.changes if change.new.get("id") == row_id)


async def test_calls_at_the_same_time_wait_for_each_other(
    manager: RealtimeManager, server: MemoryServer
) -> None:
    """A band that one call joins and the next does not want is joined, then left, and neither call fails."""
    await asyncio.gather(
        manager.subscribe_to_user_bands("ada", ["b1", "b2"]),
        manager.subscribe_to_user_bands("ada", ["b2", "b3"]),
        manager.subscribe_to_user_bands("ada", ["b3"]),
    )
    assert set(manager.topics) == topics("b3")
    assert len(server.of("phx_join")) == 4 + 4 + 4


async def test_a_list_that_is_refused_is_left_out_and_may_be_tried_again(
    manager: RealtimeManager,
    server: MemoryServer,
    client: RealtimeClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The caller learns why, the others stay, and the log has the reason (RM-3)."""
    server.refuse_join("shows-b2", DENIED, times=1)
    with pytest.raises(Denied):
        await manager.subscribe_to_user_bands("ada", ["b1", "b2"])
    assert set(manager.topics) == topics("b1", "b2") - {"shows-b2"}
    assert {channel.topic for channel in client.channels} == set(manager.topics)
    (line,) = [line for line in lines(caplog) if line.startswith("❌")]
    assert line.startswith(f"❌ Channel error for shows-b2: {DENIED.partition(': ')[2]}")
    await manager.subscribe_to_user_bands("ada", ["b1", "b2"])
    assert set(manager.topics) == topics("b1", "b2")


# Starting in order, or not at all ---------------------------------------------------------------------------


async def test_no_socket_is_opened_before_the_subscription(
    client: RealtimeClient, server: MemoryServer, session: Session, listener: Listener
) -> None:
    """The token is there, the manager is there, the bands are found: only then somebody connects (AC-1)."""
    opened: list[int] = []

    async def find() -> Collection[str]:
        opened.append(server.opened)
        return ["b1"]

    await RealtimeManager.start(client, session, find, listener)
    assert (opened, server.opened) == ([0], 1)


async def nobody() -> str | None:
    """Nobody is signed in."""
    return None


async def unreachable() -> str | None:
    """The session has ended, and the auth service is away."""
    raise AuthUnavailable("The auth service did not answer.")


async def somebody_else() -> str | None:
    """Another user is signed in."""
    return make_session(user="bob", now=time.time()).access_token


@pytest.mark.parametrize("token", [None, nobody, unreachable, somebody_else])
async def test_without_the_users_token_nothing_is_subscribed(
    token: Any, begin: Begin, server: MemoryServer, session: Session, listener: Listener
) -> None:
    """No anonymous join, not even a socket: neither by `start`, nor by whoever calls it later (AC-3)."""
    client = begin(token)
    with pytest.raises(RealtimeStartError) as caught:
        await RealtimeManager.start(client, session, bands("b1"), listener)
    assert caught.value.stage == "token"
    assert isinstance(caught.value.__cause__, TokenUnavailable)
    with pytest.raises(TokenUnavailable):
        await RealtimeManager(client, listener).subscribe_to_user_bands("ada", ["b1"])
    assert server.opened == 0


def test_a_client_that_may_be_nobody_is_refused(listener: Listener) -> None:
    """After a sign-out it would join the lists again without a token, and hear nothing."""
    with pytest.raises(ConfigurationError, match="require_user_token"):
        RealtimeManager(RealtimeClient("ws://memory", "key"), listener)


async def test_why_there_is_no_token_is_said(
    begin: Begin, session: Session, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """The cause of the cause is what the auth service did (AC-5)."""
    with pytest.raises(RealtimeStartError) as caught:
        await RealtimeManager.start(begin(unreachable), session, bands("b1"), listener)
    assert caught.value.__cause__ is not None
    assert isinstance(caught.value.__cause__.__cause__, AuthUnavailable)
    assert "The auth service did not answer." in lines(caplog)[-1]


async def test_what_fails_between_restore_and_subscribe_is_not_swallowed(
    client: RealtimeClient,
    server: MemoryServer,
    session: Session,
    listener: Listener,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is raised with its cause, told with its stage, logged with its traceback (AC-4)."""

    async def find() -> Collection[str]:
        raise AttributeError("'SessionManager' object has no attribute 'get_session'")

    with pytest.raises(RealtimeStartError) as caught:
        await RealtimeManager.start(client, session, find, listener)
    cause = caught.value.__cause__
    assert isinstance(cause, AttributeError)
    assert listener.failures == [StartFailed("bands", cause)]
    record = caplog.records[-1]
    assert record.getMessage() == f"❌ Failed to start real-time sync: AttributeError: {cause}"
    assert record.exc_info is not None
    assert record.exc_info[1] is cause
    assert server.opened == 0


async def test_a_failed_start_leaves_no_socket(
    client: RealtimeClient, server: MemoryServer, session: Session, listener: Listener
) -> None:
    """When one list is refused, the others are left and the connection is closed; then it may start again."""
    server.refuse_join("songs-b1", DENIED, times=1)
    with pytest.raises(RealtimeStartError, match="subscribe"):
        await RealtimeManager.start(client, session, bands("b1"), listener)
    assert (server.connections, client.channels, client.is_connected) == ([], (), False)
    manager = await RealtimeManager.start(client, session, bands("b1"), listener)
    assert set(manager.topics) == topics("b1")


# Afterwards -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("manager")
async def test_a_row_is_told_and_logged(
    server: MemoryServer, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """Each kind of change, once (RM-4)."""
    listener.known.add(("songs", "1"))
    caplog.clear()
    server.change("songs", "INSERT", {"id": "1", "title": "New Song"})
    server.change("songs", "UPDATE", {"id": "1", "title": "Better Song"})
    server.change("songs", "DELETE", old={"id": "1"})
    await listener.until(lambda: len(listener.changes) == 3)
    assert [(table, change.type) for table, change in listener.changes] == [
        ("songs", "INSERT"),
        ("songs", "UPDATE"),
        ("songs", "DELETE"),
    ]
    assert lines(caplog) == [f"📡 Received {kind} event" for kind in ("INSERT", "UPDATE", "DELETE")]


@pytest.mark.usefixtures("manager")
async def test_rows_of_others_that_are_deleted_are_nobodys_business(
    server: MemoryServer, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """A DELETE says an id and no band: what is in no list of ours is neither told nor logged."""
    caplog.clear()
    server.change("songs", "DELETE", old={"id": "of another band"})
    server.change("songs", "INSERT", {"id": "1", "title": "New Song"})
    await listener.until(lambda: bool(listener.changes))
    assert [change.type for _, change in listener.changes] == ["INSERT"]
    assert lines(caplog) == ["📡 Received INSERT event"]


@pytest.mark.usefixtures("manager")
async def test_a_change_with_errors_is_an_error(
    server: MemoryServer, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """What the server says about a row it may not show is logged, and is no change."""
    server.change("songs", "INSERT", {}, errors=["Error 401: Unauthorized"])
    server.change("songs", "INSERT", {"id": "1"})
    await listener.until(lambda: bool(listener.changes))
    assert "❌ Channel error for songs-b1: Error 401: Unauthorized" in lines(caplog)
    assert len(listener.changes) == 1


@pytest.mark.usefixtures("manager")
async def test_after_an_interruption_every_list_is_read_again(
    server: MemoryServer, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection is lost and comes back: offline with a reason, live again, and nothing is missed."""
    assert sorted(listener.readings) == sorted(("b1", table) for table in LISTS)
    caplog.clear()
    server.cut()
    await listener.until(lambda: len(listener.readings) == 8)
    reasons = {reason for state, reason in listener.states if state == "offline"}
    assert len(reasons) == 1
    assert all(f"❌ Channel error for {table}-b1: {reasons.copy().pop()}" in lines(caplog) for table in LISTS)
    assert lines(caplog)[-1] == "✅ Real-time sync connected"


@pytest.mark.usefixtures("manager")
async def test_one_list_that_fails_is_said_with_its_reason(
    server: MemoryServer, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """The server stops the changes of one list: the band is offline, and the log says which list and why."""
    caplog.clear()
    server.connections[0].system(
        "songs-b1", "the table is not published", extension="postgres_changes", status="error"
    )
    await listener.until(lambda: listener.states[-1][0] == "offline")
    (line,) = lines(caplog)
    assert line.startswith("❌ Channel error for songs-b1: ")
    assert "the table is not published" in line


async def test_who_signs_out_hears_nothing_more(
    begin: Begin, server: MemoryServer, listener: Listener, session: Session
) -> None:
    """The lists are left with the session, at once; nothing is joined without it."""
    async with SessionManager() as sessions:
        await sessions.save_session(session)
        client = begin(sessions)
        await RealtimeManager.start(client, session, bands("b1"), listener)
        await sessions.clear()
        await listener.until(lambda: listener.states[-1][0] == "offline")
        assert {leave.topic for leave in server.of("phx_leave")} == topics("b1")
        server.change("songs", "INSERT", {"id": "1"})
        await client.ping()
        assert listener.changes == []
        assert all(join["access_token"] == session.access_token for join in server.joins())
