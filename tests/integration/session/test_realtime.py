"""Sessions and the realtime client: the token is there before the first join, and follows the session."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.auth_service import AuthService, serving_auth
from tests.integration.server.conftest import SECRET, Running

from backbeat import AuthContext, RealtimeClient
from backbeat.client.events import JoinedAsAnon, Resumed, Subscribed, SystemEvent
from backbeat.session import AuthChange, Session

EMAIL = "ada@example.com"
PASSWORD = "correct horse"
SOON = 15.0

Connection = psycopg.AsyncConnection[Any]


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[AuthService]:
    """An auth service whose tokens the realtime server believes."""
    async with serving_auth(database_url, secret=SECRET) as service:
        yield service


def realtime(server: Running, auth: AuthContext) -> RealtimeClient:
    """A client whose tokens are those of the session."""
    return RealtimeClient(server.url, server.realtime.settings.keys.anon, token=auth)


async def add_song(database: Connection, owner: Session | None, title: str) -> None:
    """Add a song that only its owner may see."""
    assert owner is not None
    await database.execute("insert into songs (owner, title) values (%s, %s)", (owner.user_id, title))


async def test_a_restored_session_is_at_the_server_before_the_first_join(
    server: Running, service: AuthService, database: Connection, path: Path
) -> None:
    """A program starts again, and receives what only its user may see (AC-1, AC-6)."""
    async with service.program(path) as first:
        await first.sign_up(EMAIL, PASSWORD)
    async with service.program(path) as auth, realtime(server, auth) as client:
        channel = client.channel("songs")
        status, songs = channel.events(Subscribed), channel.changes("songs")
        await channel.subscribe()
        assert (await status.next(SOON)).as_user
        await add_song(database, auth.session, "Layla")
        assert (await songs.next(SOON)).new["title"] == "Layla"


async def test_a_sign_in_reaches_channels_that_are_joined_already(
    server: Running, service: AuthService, database: Connection
) -> None:
    """Nobody was signed in at first: the channel joins again as the user, and shows their rows (AC-2)."""
    async with service.program() as auth, realtime(server, auth) as client:
        channel = client.channel("songs")
        anon = channel.events(JoinedAsAnon)
        songs, system = channel.changes("songs"), channel.events(SystemEvent)
        await channel.subscribe()
        await system.next(SOON)
        assert (await anon.next(SOON)).tables == ("public.songs",)
        await auth.sign_up(EMAIL, PASSWORD)
        assert "Subscribed to PostgreSQL" in (await system.next(SOON)).message
        await add_song(database, auth.session, "Layla")
        assert (await songs.next(SOON)).new["title"] == "Layla"


async def test_a_sign_out_in_another_program_ends_what_this_one_hears(
    server: Running, service: AuthService, database: Connection, path: Path
) -> None:
    """They share a file: what the user may see does not arrive any more (D7, D10)."""
    async with (
        service.program(path) as auth,
        service.program(path) as other,
        service.program() as witness,
        realtime(server, auth) as client,
        realtime(server, witness) as watching,
    ):
        ada = await auth.sign_up(EMAIL, PASSWORD)
        await witness.sign_in_with_password(EMAIL, PASSWORD)
        channel, watched = client.channel("songs"), watching.channel("songs")
        songs, seen = channel.changes("songs"), watched.changes("songs")
        resumed = channel.events(Resumed)
        await channel.subscribe()
        await watched.subscribe()
        await other.sessions.load_session()
        await other.sign_out("local")
        assert not (await resumed.next(SOON)).as_user
        assert await auth.token() is None
        await add_song(database, ada, "Layla")
        assert (await seen.next(SOON)).new["title"] == "Layla"
        assert len(songs) == 0


async def test_changes_flow_beyond_the_life_of_a_token(
    server: Running, database_url: str, database: Connection
) -> None:
    """The first token ends, the channel stays, and what comes after arrives (D3)."""
    async with (
        serving_auth(database_url, secret=SECRET, token_lifetime=3) as service,
        service.program() as auth,
        realtime(server, auth) as client,
    ):
        first = await auth.sign_up(EMAIL, PASSWORD)
        assert first is not None
        channel = client.channel("songs")
        songs, resumed = channel.changes("songs"), channel.events(Resumed)
        await channel.subscribe()
        async for event in auth.events():
            if event.kind is AuthChange.TOKEN_REFRESHED and time.time() > first.expires_at + 1:
                break
        await add_song(database, auth.session, "Layla")
        assert (await songs.next(SOON)).new["title"] == "Layla"
        assert len(resumed) == 0
