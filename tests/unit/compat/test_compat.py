"""`backbeat.compat` over a server in memory: above all where `realtime` would leave a program alone."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from tests.unit.client import world

from backbeat.client import client as client_module
from backbeat.compat import (
    AsyncPush,
    AsyncRealtimeClient,
    ChannelStates,
    Message,
    RealtimeAcknowledgementStatus,
    RealtimeChannelOptions,
    RealtimeHTTPError,
    RealtimePostgresChangesListenEvent,
    RealtimeSubscribeStates,
    ReplyPostgresChanges,
)
from backbeat.errors import ConfigurationError, ConnectFailed, Denied, NotSubscribed
from backbeat.testing import MemoryServer

MakeClient = Callable[..., AsyncRealtimeClient]

KEY = "the anon key of the project"
READ = "Unauthorized: You do not have permissions to read from this Channel topic: room"
SOON = 5.0
PRIVATE: RealtimeChannelOptions = {"config": {"private": True}}
ACKNOWLEDGED: RealtimeChannelOptions = {"config": {"broadcast": {"ack": True}}}

SUBSCRIBED, TIMED_OUT, CLOSED, CHANNEL_ERROR = RealtimeSubscribeStates


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> MemoryServer:
    """A server in memory, which every client finds."""
    server = MemoryServer()
    monkeypatch.setattr(client_module, "WebSocketTransport", lambda **_: server)
    return server


@pytest.fixture
async def make_client() -> AsyncIterator[MakeClient]:
    """Make clients; they are closed in the end."""
    made: list[AsyncRealtimeClient] = []

    def make(**options: Any) -> AsyncRealtimeClient:
        client = AsyncRealtimeClient("ws://memory", KEY, **{"initial_backoff": 0.001} | options)
        made.append(client)
        return client

    yield make
    for client in made:
        await client.close()
        await client.backbeat.close()


class Statuses:
    """What the callback of `subscribe` was told."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[tuple[RealtimeSubscribeStates, Exception | None]] = asyncio.Queue()

    def __call__(self, state: RealtimeSubscribeStates, error: Exception | None) -> None:
        self.told.put_nowait((state, error))

    async def next(self) -> tuple[RealtimeSubscribeStates, Exception | None]:
        """What it was told next."""
        return await asyncio.wait_for(self.told.get(), SOON)

    async def states(self, count: int) -> list[RealtimeSubscribeStates]:
        """The next states."""
        return [(await self.next())[0] for _ in range(count)]


@pytest.fixture
def statuses() -> Statuses:
    """A callback for `subscribe`."""
    return Statuses()


def jwt(sub: str = "eric") -> str:
    """A user's token."""
    return world.jwt(sub, now=time.time())


# Connecting -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"max_retries": 3}, {"auto_reconnect": False}])
async def test_connecting_gives_up(
    server: MemoryServer, make_client: MakeClient, options: dict[str, Any]
) -> None:
    """After as many attempts as were asked for, with the reason of the last; and a later call tries again."""
    server.unreachable()
    client = make_client(**options)
    with pytest.raises(ConnectFailed, match="cannot be reached"):
        await client.connect()
    assert client.backbeat.state == "idle"
    server.unreachable(False)
    await client.connect()
    assert client.is_connected


async def test_a_connection_that_is_refused_says_why(server: MemoryServer, make_client: MakeClient) -> None:
    """At once, for it would be refused again."""
    server.refuse_upgrades(404, "Tenant not found")
    with pytest.raises(Denied, match="Tenant not found"):
        await make_client().channel("room").subscribe()


async def test_without_auto_reconnect_a_lost_connection_stays_lost(
    server: MemoryServer, make_client: MakeClient, statuses: Statuses
) -> None:
    """And that is told."""
    client = make_client(auto_reconnect=False)
    await client.channel("room").subscribe(statuses)
    server.cut()
    assert await statuses.states(2) == [SUBSCRIBED, CHANNEL_ERROR]
    async with asyncio.timeout(SOON):
        while client.backbeat.state != "idle":
            await asyncio.sleep(0)
    assert server.opened == 1


async def test_a_lost_connection_is_told_and_comes_back(
    server: MemoryServer, make_client: MakeClient, statuses: Statuses
) -> None:
    """However often."""
    await make_client(max_retries=1).channel("room").subscribe(statuses)
    for _ in range(3):
        assert (await statuses.next())[0] == SUBSCRIBED
        server.cut()
        assert (await statuses.next())[0] == CHANNEL_ERROR
    assert (await statuses.next())[0] == SUBSCRIBED


async def test_closing_is_quiet_and_can_be_undone(
    server: MemoryServer, make_client: MakeClient, statuses: Statuses
) -> None:
    """Nothing is told when the program itself closes; channels come back with the connection."""
    client = make_client()
    channel = client.channel("room")
    await channel.subscribe(statuses)
    await client.close()
    assert not client.is_connected
    await client.connect()
    assert await statuses.states(2) == [SUBSCRIBED, SUBSCRIBED]
    assert channel.is_joined


def test_what_cannot_work_is_refused(server: MemoryServer) -> None:
    """A URL of something else; no API key anywhere."""
    with pytest.raises(ValueError, match="valid WebSocket URL"):
        AsyncRealtimeClient("ftp://memory", KEY)
    with pytest.raises(ConfigurationError, match="API key is required"):
        AsyncRealtimeClient("ws://memory")
    assert AsyncRealtimeClient("ws://memory", params={"apikey": KEY}).apikey == KEY


def test_a_client_keeps_its_key_to_itself(server: MemoryServer) -> None:
    """Only who asks for the URL that is opened gets it."""
    client = AsyncRealtimeClient("ws://memory/socket", "sb_secret", params={"log_level": "info"})
    assert "sb_secret" not in f"{client!r} {client.channel('room')!r} {client.url}"
    assert client.endpoint_url() == ("ws://memory/socket/websocket?apikey=sb_secret&log_level=info&vsn=2.0.0")
    assert client.http_endpoint == "http://memory"


# Subscribing ------------------------------------------------------------------------------------------------


async def test_a_refusal_is_told_with_the_servers_answer(
    server: MemoryServer, make_client: MakeClient, statuses: Statuses
) -> None:
    """As JSON, with ours as its cause; and the channel joins as soon as there is a token that will do."""
    server.refuse_join("room", READ, times=1)
    client = make_client()
    channel = await client.channel("room", PRIVATE).subscribe(statuses)
    state, error = await statuses.next()
    assert state == CHANNEL_ERROR
    assert json.loads(str(error))["reason"].startswith(READ)
    assert error is not None
    assert isinstance(error.__cause__, Denied)
    assert channel.state is ChannelStates.ERRORED
    await client.set_auth(jwt())
    assert (await statuses.next())[0] == SUBSCRIBED


async def test_a_join_that_is_not_answered_is_told(
    server: MemoryServer, make_client: MakeClient, statuses: Statuses
) -> None:
    """As `TIMED_OUT`, once; and it is tried again."""
    server.ignore("phx_join", times=1)
    channel = await make_client(timeout=0.05).channel("room").subscribe(statuses)
    assert await statuses.next() == (TIMED_OUT, None)
    assert not channel.is_joined
    assert (await statuses.next())[0] == SUBSCRIBED


async def test_a_channel_that_was_left_can_be_subscribed_again(
    server: MemoryServer, make_client: MakeClient, statuses: Statuses
) -> None:
    """With its callbacks; and its topic is free meanwhile."""
    client = make_client()
    heard: list[Any] = []
    channel = client.channel("room").on_broadcast("x", heard.append)
    await channel.subscribe(statuses)
    assert client.channel("room") is channel
    await channel.unsubscribe()
    assert client.get_channels() == []
    assert channel.is_closed
    await channel.subscribe()
    assert await statuses.states(3) == [SUBSCRIBED, CLOSED, SUBSCRIBED]
    server.broadcast("room", "X", {"n": 1})
    await client.backbeat.ping()
    await asyncio.sleep(0)
    assert heard == [{"event": "X", "payload": {"n": 1}}]


async def test_the_connection_closes_with_the_last_channel(
    server: MemoryServer, make_client: MakeClient
) -> None:
    """One by one, or all at once."""
    client = make_client()
    one, other = client.channel("one"), client.channel("other")
    await asyncio.gather(one.subscribe(), other.subscribe())
    await client.remove_channel(one)
    assert client.is_connected
    await client.remove_channel(other)
    assert not client.is_connected
    await asyncio.gather(one.subscribe(), other.subscribe())
    await client.remove_all_channels()
    assert (client.is_connected, client.get_channels(), server.connections) == (False, [], [])


async def test_whoever_waits_for_a_subscription_is_let_go(
    server: MemoryServer, make_client: MakeClient
) -> None:
    """When the channel is left, or the client closed."""
    server.ignore("phx_join")
    client = make_client()
    left, closed = client.channel("left"), client.channel("closed")
    waiting = asyncio.gather(left.subscribe(), closed.subscribe())
    async with asyncio.timeout(SOON):
        while len(server.joins()) < 2:
            await asyncio.sleep(0)
        await left.unsubscribe()
        await client.close()
        await waiting


async def test_row_changes_that_stop_are_told(
    server: MemoryServer, make_client: MakeClient, statuses: Statuses
) -> None:
    """The channel stays joined; and it is told when they arrive again."""
    server.streams = False
    channel = make_client().channel("room")
    channel.on_postgres_changes(RealtimePostgresChangesListenEvent.All, print, "songs")
    await channel.subscribe(statuses)
    for message, status in (("the table is gone", "error"), ("Subscribed to PostgreSQL", "ok")):
        server.connections[0].system("room", message, extension="postgres_changes", status=status)
    assert (await statuses.next())[0] == SUBSCRIBED
    state, error = await statuses.next()
    assert (state, json.loads(str(error))["message"]) == (CHANNEL_ERROR, "the table is gone")
    assert (await statuses.next())[0] == SUBSCRIBED


async def test_old_ways_still_work(make_client: MakeClient, server: MemoryServer) -> None:
    """With a warning."""
    client = make_client()
    with pytest.warns(DeprecationWarning, match="subscribe"):
        channel = await client.channel("room").join()
    assert channel.is_joined
    with pytest.warns(DeprecationWarning, match="listen"):
        await client.listen()


# Listening --------------------------------------------------------------------------------------------------


async def test_a_callback_that_raises_costs_the_others_nothing(
    server: MemoryServer, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged; async callbacks are awaited."""
    channel = make_client().channel("room")
    heard: list[Any] = []
    done = asyncio.Event()

    def broken(_: object) -> None:
        raise ValueError("broken")

    async def slow(payload: Any) -> None:
        await asyncio.sleep(0)
        heard.append(payload["payload"])
        done.set()

    await channel.on_broadcast("*", broken).on_broadcast("*", slow).subscribe()
    server.broadcast("room", "x", {"n": 1})
    await asyncio.wait_for(done.wait(), SOON)
    assert heard == [{"n": 1}]
    assert "broken" in caplog.text


async def test_presence_may_be_asked_for_late(
    server: MemoryServer, make_client: MakeClient, statuses: Statuses
) -> None:
    """The channel joins anew, once; one callback of a kind takes the place of another."""
    channel = await make_client().channel("room").subscribe(statuses)
    seen: asyncio.Queue[Any] = asyncio.Queue()
    channel.on_presence_sync(lambda: seen.put_nowait("never"))
    channel.on_presence_sync(lambda: seen.put_nowait(channel.presence_state()))
    channel.on_presence_join(lambda key, before, new: seen.put_nowait((key, before, new)))
    assert await statuses.states(3) == [SUBSCRIBED, CLOSED, SUBSCRIBED]
    assert await asyncio.wait_for(seen.get(), SOON) == {}
    await channel.track({"mood": "calm"})
    key, before, new = await asyncio.wait_for(seen.get(), SOON)
    assert (before, new[0]["mood"]) == ([], "calm")
    assert await asyncio.wait_for(seen.get(), SOON) == {key: new}
    assert len(server.joins()) == 2


async def test_row_changes_asked_for_too_late_are_refused(
    server: MemoryServer, make_client: MakeClient
) -> None:
    """The original would never call back."""
    channel = await make_client().channel("room").subscribe()
    with pytest.raises(ConfigurationError, match="after `subscribe"):
        channel.on_postgres_changes("INSERT", print, "songs")
    assert channel.postgres_changes_callbacks == []


# Sending ----------------------------------------------------------------------------------------------------


async def answer(push: AsyncPush) -> tuple[str, Any]:
    """How a push was answered."""
    answered: asyncio.Future[tuple[str, Any]] = asyncio.get_running_loop().create_future()
    for status in RealtimeAcknowledgementStatus:
        push.receive(status, lambda *given, status=status: answered.set_result((status.value, given)))
    return await asyncio.wait_for(answered, SOON)


def acknowledged(client: AsyncRealtimeClient) -> Any:
    """A channel whose broadcasts are answered."""
    return client.channel("room", ACKNOWLEDGED)


async def test_a_push_is_answered(server: MemoryServer, make_client: MakeClient) -> None:
    """Whoever asks before or after hears it."""
    channel = await acknowledged(make_client()).subscribe()
    push = await channel.push("broadcast", {"type": "broadcast", "event": "x", "payload": {}})
    assert await answer(push) == ("ok", (ReplyPostgresChanges(),))
    assert await answer(push) == ("ok", (ReplyPostgresChanges(),))


async def test_a_push_that_nobody_answers(server: MemoryServer, make_client: MakeClient) -> None:
    """Times out."""
    channel = await acknowledged(make_client()).subscribe()
    server.ignore("broadcast")
    push = await channel.push("broadcast", {"event": "x", "payload": {}}, timeout=0.01)
    assert await answer(push) == ("timeout", ())


async def test_what_is_lost_is_said(
    server: MemoryServer, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log, where nobody waits for the answer."""
    channel = await acknowledged(make_client()).subscribe()
    server.ignore("broadcast")
    with caplog.at_level(logging.WARNING, "backbeat.compat"):
        push = await channel.push("broadcast", {"event": "x", "payload": {}}, timeout=0.01)
        async with asyncio.timeout(SOON):
            while push.received_resp is None:
                await asyncio.sleep(0.001)
    assert "a broadcast to realtime:room was not delivered" in caplog.text


async def test_what_is_sent_keeps_its_order(server: MemoryServer, make_client: MakeClient) -> None:
    """Also what waits for the channel to come back, and what is of another kind."""
    channel = await make_client().channel("room").subscribe()
    await channel.track({"n": 0})
    await channel.send_broadcast("x", {"n": 1})
    server.cut()
    async with asyncio.timeout(SOON):
        while channel.is_joined:
            await asyncio.sleep(0)
        await channel.send_broadcast("x", {"n": 2})
        await channel.send_broadcast("x", {"n": 3})
        while len(server.of("broadcast")) < 3:
            await asyncio.sleep(0)
    assert [each.event for each in server.received][:3] == ["phx_join", "presence", "broadcast"]
    assert [each.payload["n"] for each in server.of("broadcast")] == [1, 2, 3]


async def test_what_cannot_be_sent_is_refused(server: MemoryServer, make_client: MakeClient) -> None:
    """Before subscribing; events that do not exist; to channels that do not."""
    client = make_client()
    channel = client.channel("room")
    with pytest.raises(NotSubscribed, match="tried to push 'broadcast' to 'realtime:room' before joining"):
        await channel.send_broadcast("x", {})
    await channel.subscribe()
    with pytest.raises(ConfigurationError, match="Servers know no 'shout'"):
        await channel.push("shout", {})
    with pytest.raises(ConfigurationError, match="There is no channel"):
        await client.send(Message("broadcast", {}, "realtime:elsewhere"))


async def test_messages_of_the_protocol_can_be_sent(server: MemoryServer, make_client: MakeClient) -> None:
    """As objects or as dictionaries."""
    client = make_client()
    await client.channel("room").subscribe()
    token = jwt()
    payload = {"type": "broadcast", "event": "x", "payload": {"n": 1}}
    await client.send(Message("broadcast", payload, "realtime:room"))
    await client.send({"topic": "realtime:room", "event": "access_token", "payload": {"access_token": token}})
    await client.send({"topic": "phoenix", "event": "heartbeat", "payload": {}})
    assert [each.payload for each in server.of("broadcast")] == [{"n": 1}]
    assert [each.payload["access_token"] for each in server.of("access_token")] == [token]
    assert len(server.of("heartbeat")) == 1


@pytest.mark.parametrize(
    ("answered", "status"),
    [(httpx.Response(403, json={"error": "no"}), 403), (httpx.ConnectError("no"), None)],
)
async def test_a_broadcast_over_http_that_fails(
    server: MemoryServer, monkeypatch: pytest.MonkeyPatch, make_client: MakeClient, answered: Any, status: Any
) -> None:
    """Is one error, with the status if there is one, and ours as its cause."""

    def handle(_: httpx.Request) -> httpx.Response:
        if isinstance(answered, Exception):
            raise answered
        return answered  # type: ignore[no-any-return]

    original = httpx.AsyncClient
    monkeypatch.setattr(httpx, "AsyncClient", lambda **_: original(transport=httpx.MockTransport(handle)))
    channel = make_client().channel("room")
    with pytest.raises(RealtimeHTTPError) as failed:
        await channel.http_send("x", {})
    assert failed.value.status == status
    assert failed.value.__cause__ is not None
    with pytest.raises(ValueError, match="Payload is required"):
        await channel.http_send("x", None)


# Tokens -----------------------------------------------------------------------------------------------------


async def test_a_user_who_signs_out_takes_private_channels_along(
    server: MemoryServer, make_client: MakeClient, statuses: Statuses
) -> None:
    """None, or the publishable key as supabase-py gives it, stands for nobody."""
    client = make_client()
    await client.set_auth(KEY)
    assert client.backbeat.auth_state.source.value == "none"
    for nobody in (None, KEY):
        await client.set_auth(jwt())
        channel = client.channel("room", PRIVATE)
        await channel.subscribe(statuses)
        assert await statuses.states(1) == [SUBSCRIBED]
        await client.set_auth(nobody)
        assert await statuses.states(2) == [CHANNEL_ERROR, CLOSED]
        assert not channel.is_joined
        await channel.unsubscribe()
