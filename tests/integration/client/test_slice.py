"""The client against the real server and a real Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from tests.integration.server.conftest import ERIC, MIKE, Running

from backbeat import Broadcast, F, RealtimeClient
from backbeat.client.events import Delete, Insert, PresenceJoin, Subscribed, Update
from backbeat.errors import Denied, TokenRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    Connection = psycopg.AsyncConnection[Any]
    MakeClient = Callable[..., RealtimeClient]

SOON = 10.0


@dataclass
class Song:
    """A row of `songs`."""

    id: int
    owner: UUID
    title: str


@pytest.fixture
async def make_client(server: Running) -> AsyncIterator[MakeClient]:
    """Make clients of the running server; they are closed in the end."""
    clients: list[RealtimeClient] = []

    def make(**options: Any) -> RealtimeClient:
        client = RealtimeClient(server.url, server.realtime.settings.keys.anon, **options)
        clients.append(client)
        return client

    yield make
    for client in clients:
        await client.close()


async def test_a_private_channel_carries_broadcasts_both_ways(
    server: Running, make_client: MakeClient
) -> None:
    """The user's token opens it, the server acknowledges what is sent, and the other receives it."""
    eric = make_client(token=server.token(ERIC)).channel("open-1", private=True, ack=True)
    mike = make_client(token=server.token(MIKE)).channel("open-1", private=True, ack=True)
    heard_by_mike, heard_by_eric = mike.events(Broadcast("hi")), eric.broadcasts()
    await asyncio.gather(eric.subscribe(), mike.subscribe())
    receipt = await eric.send("hi", {"n": 1})
    assert receipt.acknowledged
    assert (await heard_by_mike.next(SOON)).payload == {"n": 1}
    await mike.send("bytes", b"\x00\xff")
    assert (await heard_by_eric.next(SOON)).payload == b"\x00\xff"


async def test_both_versions_of_the_protocol_meet(server: Running, make_client: MakeClient) -> None:
    """A client of the first version and one of the second hear each other, and see each other."""
    old = make_client(vsn="1.0.0").channel("room", ack=True, presence=True, presence_key="old")
    new = make_client(vsn="2.0.0").channel("room", ack=True, presence=True, presence_key="new")
    heard_by_old, heard_by_new, seen_by_new = old.broadcasts(), new.broadcasts(), new.events(PresenceJoin)
    await asyncio.gather(old.subscribe(), new.subscribe())
    await old.send("hi", {"n": 1})
    await new.send("ho", {"n": 2})
    assert (await heard_by_new.next(SOON)).payload == {"n": 1}
    assert (await heard_by_old.next(SOON)).payload == {"n": 2}
    await old.presence.track({"x": 1})
    assert (await seen_by_new.next(SOON)).key == "old"


async def test_presence_is_shared(server: Running, make_client: MakeClient) -> None:
    """Who tracks appears to the others, under the key that was chosen."""
    eric = make_client(token=server.token(ERIC)).channel("room", presence_key="eric")
    mike = make_client(token=server.token(MIKE)).channel("room")
    seen = mike.events(PresenceJoin)
    mike.presence.events()
    await asyncio.gather(eric.subscribe(), mike.subscribe())
    await eric.presence.track({"plays": "bass"})
    joined = await seen.next(SOON)
    assert (joined.key, joined.joined[0]["plays"]) == ("eric", "bass")
    assert mike.presence.state["eric"][0]["plays"] == "bass"


async def test_row_changes_arrive_as_the_policies_allow(
    server: Running, make_client: MakeClient, database: Connection
) -> None:
    """Each user receives their own rows, in their own type, as soon as the subscription returns."""
    channel = make_client(token=server.token(ERIC)).channel("songs")
    songs = channel.changes("songs", filter=F("title") != "draft", model=Song)
    deletions = channel.changes("songs", event="DELETE")
    await channel.subscribe()
    for owner, title in ((MIKE, "not his"), (ERIC, "draft"), (ERIC, "one")):
        await database.execute("insert into songs (owner, title) values (%s, %s)", (owner, title))
    inserted = await songs.next(SOON)
    assert isinstance(inserted, Insert)
    assert inserted.new == Song(inserted.new.id, UUID(ERIC), "one")
    await database.execute("update songs set title = 'two' where title = 'one'")
    updated = await songs.next(SOON)
    assert isinstance(updated, Update)
    assert updated.new.title == "two"
    await database.execute("delete from songs where title = 'two'")
    deleted = await deletions.next(SOON)
    assert isinstance(deleted, Delete)
    assert deleted.old == {"id": inserted.new.id}


async def test_a_refused_join_is_explained(server: Running, make_client: MakeClient) -> None:
    """The exception names the topic, the reason, the token that was used, and what to do."""
    channel = make_client(token=server.token(ERIC)).channel("closed-1", private=True)
    with pytest.raises(Denied) as refused:
        await channel.subscribe()
    error = refused.value
    assert (error.code, error.topic) == ("Unauthorized", "closed-1")
    assert "static token" in error.hint
    assert "role authenticated" in error.hint
    assert "SELECT policy on realtime.messages" in error.hint
    assert channel.state == "denied"
    assert "SELECT policy" in str(channel.explain())


async def test_a_channel_that_was_denied_joins_with_another_token(
    server: Running, make_client: MakeClient
) -> None:
    """Without a user's token the private channel is refused; `set_auth` opens it without another call."""
    client = make_client()
    channel = client.channel("open-1", private=True)
    with pytest.raises(Denied, match="API key alone"):
        await channel.subscribe()
    statuses = channel.events(Subscribed)
    await client.set_auth(server.token(ERIC))
    assert (await statuses.next(SOON)).as_user


async def test_a_wrong_api_key_is_explained(server: Running) -> None:
    """The refused upgrade becomes an error with a code, and nobody tries again."""
    async with RealtimeClient(server.url, "sb_publishable_of_another_project") as client:
        with pytest.raises(TokenRefused, match="Invalid API key") as refused:
            await client.channel("room").subscribe()
        assert refused.value.code == "InvalidAPIKey"
        assert client.state == "fatal"


async def test_the_next_token_reaches_a_joined_channel(server: Running, make_client: MakeClient) -> None:
    """A token from a function is asked for before the join, and a newer one is pushed without a new join."""
    tokens = iter([server.token(ERIC, jti="first"), server.token(ERIC, jti="second")])
    client = make_client(token=lambda: next(tokens))
    channel = client.channel("open-1", private=True)
    await channel.subscribe()
    before = client.auth_state.fingerprint
    after = (await client.set_auth()).fingerprint
    assert before != after
    await client.ping()
    assert channel.is_joined
    assert client.stats().joins == 1


async def test_a_broadcast_over_http_needs_no_subscription(server: Running, make_client: MakeClient) -> None:
    """It reaches those who are subscribed, with the sender's token."""
    hearing = make_client(token=server.token(MIKE)).channel("open-1", private=True)
    heard = hearing.broadcasts("hi")
    await hearing.subscribe()
    sender = make_client(token=server.token(ERIC)).channel("open-1", private=True)
    assert (await sender.http_send("hi", {"n": 1})).via == "http"
    assert (await heard.next(SOON)).payload == {"n": 1}
    refused = make_client().channel("open-1", private=True)
    with pytest.raises(Denied):
        await refused.http_send("hi", {"n": 2})
