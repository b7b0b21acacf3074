"""The real server on a real port, with a real Postgres behind it, and a raw client in front."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import psycopg
import pytest
import websockets
from tests.integration.conftest import LOGIN, PASSWORD

from backbeat.local.postgres import EmbeddedPostgres
from backbeat.postgres.database import migrate
from backbeat.postgres.stream import ReplicationStream
from backbeat.server.app import create_app, realtime_routes, run_realtime
from backbeat.server.feed import Feed
from backbeat.server.http import HttpServer
from backbeat.server.listener import listen
from backbeat.server.realtime import Realtime
from backbeat.server.settings import Settings
from backbeat.tokens.verifier import sign

SECRET = "a secret of at least thirty-two bytes"
ERIC = "00000000-0000-0000-0000-00000000000e"
MIKE = "00000000-0000-0000-0000-00000000000a"
PATIENCE = 15.0

NEWS = {"event": "*", "schema": "public", "table": "news"}
CONFIRMED = {
    "channel": "x",
    "extension": "postgres_changes",
    "message": "Subscribed to PostgreSQL",
    "status": "ok",
}

SCHEMA = """
create table songs (
  id bigint generated always as identity primary key,
  owner uuid not null,
  title text not null
);
alter table songs enable row level security;
create policy own on songs for select to authenticated using ((select auth.uid()) = owner);
create table news (id int primary key, headline text);
create table plans (id int primary key);
alter publication supabase_realtime add table songs, news;
"""

MESSAGE_POLICIES = """
create policy hear on realtime.messages for select to authenticated using (realtime.topic() like 'open-%');
create policy speak on realtime.messages for insert to authenticated
  with check (realtime.topic() like 'open-%' and extension = 'broadcast');
"""


class RawClient:
    """A socket that speaks vsn 2 and hides nothing.

    Args:
        socket: the connection.
    """

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self.socket = socket
        self.refs = 0

    async def push(self, topic: str, event: str, payload: object, *, join_ref: str | None = None) -> str:
        """Send a message and return its ref."""
        self.refs += 1
        ref = str(self.refs)
        await self.socket.send(json.dumps([join_ref, ref, topic, event, payload]))
        return ref

    async def join(self, topic: str, *, token: str | None = None, **config: Any) -> str:
        """Ask to join a topic; return the join ref."""
        ref = str(self.refs + 1)
        payload = {"config": config} | ({"access_token": token} if token else {})
        return await self.push(topic, "phx_join", payload, join_ref=ref)

    async def message(self) -> list[Any]:
        """The next text message."""
        async with asyncio.timeout(PATIENCE):
            return list(json.loads(await self.socket.recv()))

    async def until(self, event: str) -> list[Any]:
        """The next message of an event; what comes before it is skipped."""
        while True:
            message = await self.message()
            if message[3] == event:
                return message

    async def subscribed(self, topic: str, changes: list[dict[str, Any]], *, token: str) -> None:
        """Join a topic with change subscriptions and wait until they are confirmed."""
        await self.join(topic, token=token, postgres_changes=changes)
        system = await self.until("system")
        assert system[4]["status"] == "ok", system


class Running:
    """A running server.

    Args:
        url: where its socket is.
        realtime: its inside.
        feed: its stream.
        stop: ends it when set.
    """

    def __init__(self, url: str, realtime: Realtime, feed: Feed, stop: asyncio.Event) -> None:
        self.url = url
        self.realtime = realtime
        self.feed = feed
        self.stop = stop

    def token(self, sub: str = ERIC, **claims: Any) -> str:
        """Mint a user's token."""
        return sign({"role": "authenticated", "sub": sub, "exp": int(time.time()) + 600} | claims, SECRET)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[RawClient]:
        """Connect with the anon key."""
        key = self.realtime.settings.keys.anon
        async with websockets.connect(f"{self.url}/socket/websocket?vsn=2.0.0&apikey={key}") as socket:
            yield RawClient(socket)


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    """Run a server until the block ends."""
    listeners = listen("127.0.0.1", 0, flag="--port")
    stop = asyncio.Event()
    async with run_realtime(settings) as (realtime, feed):
        app = create_app(realtime_routes(realtime, feed))
        server = HttpServer(app, listeners, realtime=realtime)
        serving = asyncio.create_task(server.run_until(stop))
        try:
            port = listeners[0].getsockname()[1]
            yield Running(f"ws://127.0.0.1:{port}", realtime, feed, stop)
        finally:
            stop.set()
            await serving


def with_news(postgres: EmbeddedPostgres) -> None:
    """Prepare a cluster of a test's own, with a published table."""
    asyncio.run(migrate(postgres.url, login=LOGIN, password=PASSWORD))
    with psycopg.connect(postgres.url, autocommit=True) as owner:
        owner.execute("create table news (id int primary key, headline text)")
        owner.execute("grant select on news to authenticated")
        owner.execute("alter publication supabase_realtime add table news")


def login_to(postgres: EmbeddedPostgres) -> str:
    """The address of a cluster for the login of the server."""
    return postgres.url.replace("postgres:postgres@", f"{LOGIN}:{PASSWORD.replace(' ', '%20')}@")


async def system(client: RawClient, status: str) -> dict[str, Any]:
    """The next system message with a status."""
    while True:
        payload: dict[str, Any] = (await client.until("system"))[4]
        if payload["status"] == status:
            return payload


async def headline(client: RawClient) -> object:
    """The headline of the next change."""
    return (await client.until("postgres_changes"))[4]["data"]["record"]["headline"]


async def ready(server: Running) -> tuple[int, dict[str, Any]]:
    """Ask whether the server is ready."""

    def ask() -> tuple[int, dict[str, Any]]:
        try:
            with urllib.request.urlopen(server.url.replace("ws://", "http://") + "/ready") as answer:  # noqa: S310 - loopback
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    return await asyncio.to_thread(ask)


async def unready(server: Running) -> dict[str, Any]:
    """Wait until the server is not ready; what it says about its stream."""
    async with asyncio.timeout(PATIENCE):
        while (answer := await ready(server))[0] == 200:
            await asyncio.sleep(0.02)
    stream: dict[str, Any] = answer[1]["stream"]
    return stream


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often, and lose patience soon."""
    stream = partial(
        ReplicationStream, backoff=(0.01, 0.1), slow_retry=0.05, status_interval=0.05, silence=2.0
    )
    monkeypatch.setattr("backbeat.server.feed.ReplicationStream", stream)
    monkeypatch.setattr("backbeat.server.feed.WATCH_INTERVAL", 0.05)
    monkeypatch.setattr("backbeat.server.health.PROBE_PATIENCE", 0.2)
    monkeypatch.setattr("backbeat.server.health.PROBE_INTERVAL", 0.0)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """The project's owner, in a database with a few tables and policies."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(SCHEMA.encode())
        await connection.execute(MESSAGE_POLICIES.encode())
        yield connection


@pytest.fixture
def settings(login_url: str) -> Callable[..., Settings]:
    """Make settings for this test's database."""

    def make(**changed: Any) -> Settings:
        return Settings(**{"database_url": login_url, "jwt_secret": SECRET} | changed)

    return make


@pytest.fixture
async def server(
    database: psycopg.AsyncConnection[Any], settings: Callable[..., Settings]
) -> AsyncIterator[Running]:
    """A running server whose stream flows."""
    async with running(settings()) as server:
        async with asyncio.timeout(PATIENCE):
            await server.feed.streaming.wait()
        yield server
    await no_slot(database)


async def no_slot(database: psycopg.AsyncConnection[Any]) -> None:
    """Wait until no stream of this database is left: it cannot be dropped before."""
    async with asyncio.timeout(PATIENCE):
        while await slot_is_active(database):
            await asyncio.sleep(0.02)


async def slot_is_active(database: psycopg.AsyncConnection[Any]) -> bool:
    """Tell whether a stream of this database is still there."""
    cursor = await database.execute(
        "select exists (select from pg_replication_slots where active and database = current_database())"
    )
    row = await cursor.fetchone()
    return row is not None and bool(row[0])
