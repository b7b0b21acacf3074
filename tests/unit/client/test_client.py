"""`RealtimeClient` and `Channel` over a server in memory: what a user sees of them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from tests.unit.client import world

import backbeat
from backbeat import Broadcast, Change, F, RealtimeClient
from backbeat.client.events import (
    BroadcastEvent,
    ChangeIncomplete,
    ChannelClosed,
    ConnectionChanged,
    Gap,
    HandlerFailed,
    Insert,
    Interrupted,
    Overflow,
    PresenceSync,
    Resumed,
    Subscribed,
    SystemEvent,
)
from backbeat.client.settings import ClientSettings, SettingsOptions
from backbeat.errors import (
    BadRequest,
    ClientClosed,
    ClientError,
    ConfigurationError,
    Denied,
    NotSubscribed,
    PushDropped,
)
from backbeat.protocol.join import Replay

if TYPE_CHECKING:
    from tests.unit.client.conftest import MakeClient

    from backbeat.testing import MemoryServer

SOON = 5.0


def jwt(sub: str = "eric") -> str:
    """A user's token that is good now."""
    return world.jwt(sub, now=time.time())


T1 = jwt()


def test_the_public_names_are_where_they_are_said_to_be() -> None:
    """And a name that does not exist is an AttributeError like anywhere."""
    for name in backbeat.__all__:
        assert getattr(backbeat, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = getattr(backbeat, "Nothing")  # noqa: B009 - mypy knows better


def test_every_setting_is_an_option_of_the_client() -> None:
    """The options and the settings are the same, name by name."""
    settings = ClientSettings.__dataclass_fields__
    options = SettingsOptions.__annotations__
    assert list(options) == list(settings)
    for name, field in settings.items():
        assert str(field.type) in str(options[name])


@pytest.mark.parametrize(
    "build",
    [
        lambda: RealtimeClient("ws://memory", ""),
        lambda: RealtimeClient("ws://memory", None),  # type: ignore[arg-type]
        lambda: RealtimeClient("memory", "key"),
        lambda: RealtimeClient("ws://memory", "key", vsn="3.0.0"),
        lambda: RealtimeClient("ws://memory", "key", backoff=()),
        lambda: RealtimeClient("ws://memory", "key").channel(""),
        lambda: RealtimeClient("ws://memory", "key").channel("realtime:"),
        lambda: RealtimeClient("ws://memory", "key").channel("room", replay=Replay(0, 1)),
        lambda: RealtimeClient("ws://memory", "key").channel("room", changes=[Change(select=["id"])]),
        lambda: RealtimeClient("ws://memory", "key").channel("room", changes=[Change(event="TRUNCATE")]),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_work_is_refused_when_it_is_made(build: Any) -> None:
    """Before anything is opened."""
    with pytest.raises(ConfigurationError):
        build()


async def test_a_client_does_nothing_until_it_is_used(server: MemoryServer, make_client: MakeClient) -> None:
    """No socket, no task, and no thread."""
    threads = threading.active_count()
    client = make_client(token=jwt)
    client.channel("room").on_broadcast("x", print)
    assert (server.opened, client.stats().tasks, client.state) == (0, 0, "idle")
    assert threading.active_count() == threads


# Channels ---------------------------------------------------------------------------------------------------


async def test_a_topic_has_one_channel(make_client: MakeClient) -> None:
    """The same configuration gives the same object; another one is a conflict; the prefix means nothing."""
    client = make_client()
    channel = client.channel("room", private=True)
    assert client.channel("Realtime:room", private=True) is channel
    with pytest.raises(ConfigurationError) as conflict:
        client.channel("room")
    assert conflict.value.code == "ChannelConfigConflict"
    await client.remove(channel)
    assert client.channel("room") is not channel


async def test_a_channel_is_left_at_the_end_of_its_block(
    server: MemoryServer, make_client: MakeClient
) -> None:
    """Also when the block raises; and a subscription that fails leaves nothing behind."""
    client = make_client()
    with pytest.raises(ZeroDivisionError):
        async with client.channel("room"):
            _ = 1 / 0
    assert (len(server.of("phx_leave")), client.channels) == (1, ())
    server.refuse_join("room", "Unauthorized: no")
    with pytest.raises(Denied):
        async with client.channel("room"):
            pass
    assert (client.channels, client.stats().channels) == ((), 0)


async def test_a_channel_can_be_subscribed_again(server: MemoryServer, make_client: MakeClient) -> None:
    """With the handlers it had."""
    heard: list[Any] = []
    channel = make_client().channel("room")
    channel.on_broadcast("x", lambda event: heard.append(event.payload))
    for n in range(2):
        await channel.subscribe()
        server.broadcast("room", "x", n)
        await channel.client.ping()
        await channel.settled()
        await channel.unsubscribe()
    assert heard == [0, 1]


async def test_what_is_listened_to_is_asked_for(server: MemoryServer, make_client: MakeClient) -> None:
    """Each binding once, however many listen; presence if somebody listens to it."""
    channel = make_client().channel("room", changes=[Change("news")])
    channel.on_change("songs", print, filter=F("band_id") == 42)
    channel.on_change("songs", print, filter="band_id=eq.42")
    channel.events(Change("songs", filter=F("band_id") == 42, model=dict))
    channel.on_presence(print)
    await channel.subscribe()
    config = server.joins()[0]["config"]
    assert [(entry["table"], entry.get("filter")) for entry in config["postgres_changes"]] == [
        ("news", None),
        ("songs", "band_id=eq.42"),
    ]
    assert config["presence"]["enabled"]


async def test_listening_to_more_after_subscribing_needs_a_new_join(
    server: MemoryServer, make_client: MakeClient
) -> None:
    """It is refused with advice; `reconfigure` does it; broadcasts can be listened to at any time."""
    channel = make_client().channel("room")
    await channel.subscribe()
    channel.on_broadcast("x", print)
    with pytest.raises(ConfigurationError, match="after `subscribe"):
        channel.on_change("songs", print)
    with pytest.raises(ConfigurationError, match="after `subscribe"):
        channel.on_presence(print)
    await channel.reconfigure(presence=True, private=True)
    channel.on_presence(print)
    assert server.joins()[-1]["config"]["private"]


# Handlers and streams ---------------------------------------------------------------------------------------


async def test_handlers_are_called_in_order_and_apart(server: MemoryServer, make_client: MakeClient) -> None:
    """Sync and async, with wildcards and in any letter case; one that raises is reported, and only that."""
    heard: list[tuple[str, int]] = []
    client = make_client()
    channel = client.channel("room")
    failures = client.events(HandlerFailed)

    @channel.on_broadcast("Cursor")
    async def slow(event: BroadcastEvent) -> None:
        await asyncio.sleep(0)
        heard.append(("slow", event.payload))

    @channel.on_broadcast()
    def broken(event: BroadcastEvent) -> None:
        raise ValueError(event.payload)

    @channel.on_broadcast()
    def quick(event: BroadcastEvent) -> None:
        heard.append(("quick", event.payload))

    await channel.subscribe()
    for n in range(3):
        server.broadcast("room", "cursor", n)
    server.broadcast("room", "other", 3)
    await client.ping()
    await channel.settled()
    assert heard == [
        *(pair for n in range(3) for pair in (("slow", n), ("quick", n))),
        ("quick", 3),
    ]
    failed = await failures.next(SOON)
    assert "broken" in failed.handler
    assert isinstance(failed.error, ValueError)
    channel.off(quick)
    server.broadcast("room", "other", 4)
    await client.ping()
    await channel.settled()
    assert heard[-1] == ("quick", 3)


async def test_a_handler_may_use_the_client(server: MemoryServer, make_client: MakeClient) -> None:
    """Sending and leaving from within a handler does not lock up."""
    channel = make_client().channel("room", ack=True)
    done = asyncio.Event()

    @channel.on_broadcast("x")
    async def answer(event: BroadcastEvent) -> None:
        await channel.send("y", {"got": event.payload})
        await channel.unsubscribe()
        done.set()

    await channel.subscribe()
    server.broadcast("room", "x", 1)
    async with asyncio.timeout(SOON):
        await done.wait()
    assert server.of("broadcast")[-1].payload == {"got": 1}


async def test_a_stream_gives_what_it_was_asked_for(server: MemoryServer, make_client: MakeClient) -> None:
    """Selectors and types of events; in the order of the wire; until the channel is left."""
    channel = make_client().channel("room", presence=True, receive_own=True)
    everything = channel.events()
    chosen = channel.events(Broadcast("a"), PresenceSync)
    await channel.subscribe()
    for event in "ab":
        await channel.send(event, {})
    await channel.presence.track({"x": 1})
    await channel.unsubscribe()
    assert [type(event).__name__ async for event in chosen] == [
        "PresenceSync",
        "BroadcastEvent",
        "PresenceSync",
    ]
    names = [type(event).__name__ async for event in everything]
    assert (names[0], names[-1]) == ("Subscribed", "ChannelClosed")


async def test_a_stream_raises_when_its_channel_is_denied(
    server: MemoryServer, make_client: MakeClient
) -> None:
    """After what came before."""
    channel = make_client().channel("room")
    stream = channel.broadcasts()
    await channel.subscribe()
    server.broadcast("room", "x", 1)
    server.connections[0].shut_down(
        "room", "You no longer have permission to read from this Channel topic: room"
    )
    assert (await stream.next(SOON)).payload == 1
    with pytest.raises(Denied, match="no longer"):
        await stream.next(SOON)
    with pytest.raises(StopAsyncIteration):
        await stream.next(SOON)


@pytest.mark.parametrize(
    ("policy", "left"), [("drop_oldest", [3, 4]), ("drop_newest", [0, 1]), ("raise", [0, 1])]
)
async def test_a_full_stream_does_what_its_policy_says(
    server: MemoryServer,
    make_client: MakeClient,
    caplog: pytest.LogCaptureFixture,
    policy: str,
    left: list[int],
) -> None:
    """And what was lost is said, to the log too."""
    client = make_client()
    channel = client.channel("room")
    overflows = client.events(Overflow)
    stream = channel.events(Broadcast(), maxsize=2, overflow=policy)
    await channel.subscribe()
    for n in range(5):
        server.broadcast("room", "x", n)
    await client.ping()
    assert [(await stream.next(SOON)).payload for _ in range(2)] == left
    assert (await overflows.next(SOON)).dropped == 1
    assert "its queue is full" in caplog.text
    if policy == "raise":
        with pytest.raises(ClientError, match="is full"):
            await stream.next(SOON)
    await stream.aclose()
    assert [event async for event in stream] == []


async def test_a_slow_handler_holds_up_nobody_else(server: MemoryServer, make_client: MakeClient) -> None:
    """Neither other channels, nor replies, nor heartbeats."""
    client = make_client()
    stuck, free = client.channel("stuck", ack=True), client.channel("free")
    blocked = asyncio.Event()
    stuck.on_broadcast("x", lambda _: blocked.wait())
    heard = free.broadcasts()
    await stuck.subscribe()
    await free.subscribe()
    server.broadcast("stuck", "x", 0)
    server.broadcast("free", "x", 1)
    assert (await heard.next(SOON)).payload == 1
    assert (await stuck.send("y", {})).acknowledged
    assert await client.ping() >= 0
    blocked.set()


async def test_the_events_of_a_client_are_those_of_all_its_channels(
    server: MemoryServer, make_client: MakeClient
) -> None:
    """Filtered by their types."""
    client = make_client()
    states, statuses = client.events(ConnectionChanged), client.events(Subscribed, Interrupted, Resumed)
    seen: list[str] = []
    client.on(Subscribed, handler=lambda event: seen.append(event.topic))
    for topic in ("one", "two"):
        await client.channel(topic).subscribe()
    server.cut()
    assert [(await states.next(SOON)).state for _ in range(4)] == [
        "connecting",
        "open",
        "backoff",
        "connecting",
    ]
    found = [await statuses.next(SOON) for _ in range(6)]
    assert [type(event).__name__ for event in found] == ["Subscribed"] * 2 + ["Interrupted"] * 2 + [
        "Resumed"
    ] * 2
    assert seen == ["one", "two"]


async def test_status_handlers_hear_of_gaps(server: MemoryServer, make_client: MakeClient) -> None:
    """An interruption, its end, and what is missing; and what the server says."""
    channel = make_client().channel("room")
    seen: list[Any] = []
    channel.on_status(seen.append)
    channel.on_system(seen.append)
    resumed = channel.events(Resumed)
    await channel.subscribe()
    server.cut()
    await resumed.next(SOON)
    server.connections[0].system("room", "hello")
    await channel.client.ping()
    await channel.settled()
    assert [type(event) for event in seen] == [Subscribed, Interrupted, Resumed, Gap, SystemEvent]


# Rows -------------------------------------------------------------------------------------------------------


@dataclass
class SongClass:
    """A row as a dataclass."""

    id: int
    title: str


class SongStruct(msgspec.Struct):
    """A row as a struct."""

    id: int
    title: str


class SongModel:
    """A row as a pydantic model would be."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    @classmethod
    def model_validate(cls, values: dict[str, Any]) -> SongModel:
        """What pydantic's models have."""
        return cls(**values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SongModel) and self.values == other.values

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("model", "row"),
    [
        (SongClass, SongClass(1, "one")),
        (SongStruct, SongStruct(1, "one")),
        (SongModel, SongModel(id=1, title="one")),
    ],
)
async def test_rows_have_the_type_their_reader_wants(
    server: MemoryServer, make_client: MakeClient, model: type[Any], row: object
) -> None:
    """Each reader its own; a deletion has no new row."""
    channel = make_client().channel("room")
    rows = channel.changes("songs", model=model)
    raw = channel.changes("songs", event="DELETE")
    plain = channel.events(Change("songs"))
    await channel.subscribe()
    server.change("songs", "INSERT", {"id": 1, "title": "one"})
    server.change("songs", "DELETE", old={"id": 1})
    change = await rows.next(SOON)
    assert isinstance(change, Insert)
    assert change.new == row
    assert (await raw.next(SOON)).old == {"id": 1}
    assert (await plain.next(SOON)).new == {"id": 1, "title": "one"}


async def test_a_row_that_the_server_withholds_is_given_to_no_model(
    server: MemoryServer, make_client: MakeClient
) -> None:
    """A reader of rows gets rows; why there is none is said, and who reads changes as they are has it."""
    channel = make_client().channel("room")
    rows, plain = channel.changes("songs", model=SongStruct), channel.changes("songs", model=dict)
    said = channel.events(ChangeIncomplete)
    raw = channel.events(Change("songs"))
    await channel.subscribe()
    server.change("songs", "INSERT", {}, errors=["Error 401: Unauthorized"])
    server.change("songs", "INSERT", {"id": 1, "title": "one"})
    assert (await rows.next(SOON)).new == SongStruct(id=1, title="one")
    assert (await plain.next(SOON)).new == {"id": 1, "title": "one"}
    assert (await said.next(SOON)).table == "songs"
    assert (await raw.next(SOON)).errors == ("Error 401: Unauthorized",)


async def test_a_row_that_does_not_fit_is_reported(server: MemoryServer, make_client: MakeClient) -> None:
    """Its reader does not get it; others do."""
    client = make_client()
    channel = client.channel("room")
    failures = client.events(HandlerFailed)
    rows, raw = channel.changes("songs", model=SongStruct), channel.changes("songs")
    await channel.subscribe()
    server.change("songs", "INSERT", {"id": "no number"})
    server.change("songs", "INSERT", {"id": 2, "title": "two"})
    assert (await raw.next(SOON)).new == {"id": "no number"}
    assert (await rows.next(SOON)).new == SongStruct(2, "two")
    assert isinstance((await failures.next(SOON)).error, msgspec.ValidationError)


# Sending ----------------------------------------------------------------------------------------------------


async def test_sending_returns_what_is_known(server: MemoryServer, make_client: MakeClient) -> None:
    """Whether the server said that it took it."""
    client = make_client()
    plain, acked = client.channel("plain"), client.channel("acked", ack=True)
    await plain.subscribe()
    await acked.subscribe()
    assert not (await plain.send("x", {"n": 1})).acknowledged
    assert (await acked.send("x", b"\x00")).acknowledged
    assert not (await acked.send("x", {}, ack=False)).acknowledged
    assert [each.payload for each in server.of("broadcast")] == [{"n": 1}, b"\x00", {}]
    with pytest.raises(ConfigurationError, match="acknowledgements"):
        await plain.send("x", {}, ack=True)


async def test_what_cannot_be_sent_is_refused(make_client: MakeClient) -> None:
    """Too early, too large, or no object; and never in silence over HTTP."""
    channel = make_client(max_payload_bytes=100).channel("room")
    with pytest.raises(NotSubscribed, match="before joining"):
        await channel.send("x", {})
    with pytest.raises(NotSubscribed):
        await channel.presence.track({})
    await channel.subscribe()
    with pytest.raises(BadRequest, match="payload_size_exceeded"):
        await channel.send("x", {"x": "x" * 100})
    for payload in ("text", 7, [1], None):
        with pytest.raises(BadRequest, match="must be a map"):
            await channel.send("x", payload)  # type: ignore[arg-type]
        with pytest.raises(BadRequest, match="must be a map"):
            await channel.presence.track(payload)  # type: ignore[arg-type]


async def test_presence_is_tracked_and_seen(server: MemoryServer, make_client: MakeClient) -> None:
    """Who is there, by key; `track` before the join asks for presence."""
    client = make_client()
    channel = client.channel("room", presence_key="ann")
    seen = channel.presence.events()
    assert channel.presence.state == {}
    await channel.subscribe()
    await channel.presence.track({"x": 1})
    assert channel.presence.state["ann"][0]["x"] == 1
    await channel.presence.untrack()
    assert channel.presence.state == {}
    assert isinstance(await seen.next(SOON), PresenceSync)


# Tokens -----------------------------------------------------------------------------------------------------


class Sessions:
    """What a session manager is to a client."""

    def __init__(self, token: str | None) -> None:
        self.current = token
        self.refreshed = 0
        self.told: asyncio.Queue[Any] = asyncio.Queue()

    async def token(self) -> str | None:
        """The token of now."""
        return self.current

    async def refresh(self, *, force: bool = False) -> None:
        """Get another token."""
        assert force
        self.refreshed += 1
        self.current = jwt()

    async def events(self) -> AsyncIterator[Any]:
        """What happens, beginning with what there is."""
        yield SimpleNamespace(kind="INITIAL_SESSION", session=self.current)
        while True:
            yield await self.told.get()

    def tell(self, kind: str, token: str | None) -> None:
        """Something happens."""
        self.current = token
        self.told.put_nowait(SimpleNamespace(kind=kind, session=token))


async def async_token() -> str:
    """A token, after a while."""
    await asyncio.sleep(0)
    return T1


@pytest.mark.parametrize(
    "token", [T1, lambda: T1, async_token, partial(async_token), Sessions(T1)], ids=range(5)
)
async def test_a_token_may_come_from_anywhere(
    server: MemoryServer, make_client: MakeClient, token: Any
) -> None:
    """A text, a function, an async one, one that returns an awaitable, an object with `token()`."""
    async with make_client(token=token).channel("room", private=True):
        assert server.joins()[0]["access_token"] == T1


@pytest.mark.parametrize(
    "token",
    [{"access_token": T1}, SimpleNamespace(access_token=T1), 7, ""],
)
async def test_what_gives_no_token_is_refused_at_once(make_client: MakeClient, token: Any) -> None:
    """With the name of what was expected, and without what was given."""
    with pytest.raises(TypeError) as refused:
        make_client(token=token)
    client = make_client()
    with pytest.raises(TypeError) as also_refused:
        await client.set_auth(token)
    for error in (refused, also_refused):
        assert T1 not in str(error.value)
        assert "token" in str(error.value)


async def test_a_session_that_blocks_is_refused_at_once(make_client: MakeClient) -> None:
    """In place of failing where nobody looks, when its first event or a fresh token is awaited."""
    blocking = SimpleNamespace(token=lambda: T1, refresh=lambda **_: None, events=lambda: iter(()))
    with pytest.raises(TypeError, match=r"block.*AuthContext.*token=auth\.token"):
        make_client(token=blocking)


async def test_a_session_is_followed(server: MemoryServer, make_client: MakeClient) -> None:
    """A refreshed token is pushed, a sign-out leaves the channels, a sign-in brings them back."""
    sessions = Sessions(T1)
    client = make_client(token=sessions)
    channel = client.channel("room", private=True)
    statuses = channel.events(Interrupted, Resumed)
    await channel.subscribe()
    fresh = jwt()
    sessions.tell("TOKEN_REFRESHED", fresh)
    while not server.of("access_token"):
        await asyncio.sleep(0)
    assert server.of("access_token")[0].payload == {"access_token": fresh}
    sessions.tell("SIGNED_OUT", None)
    assert (await statuses.next(SOON)).error.code == "IdentityChanged"
    assert client.auth_state.signed_out
    sessions.tell("SIGNED_IN", jwt("mike"))
    while not isinstance(await statuses.next(SOON), Resumed):
        pass
    assert client.auth_state.sub == "mike"


async def test_a_session_whose_token_is_refused_is_refreshed(
    server: MemoryServer, make_client: MakeClient
) -> None:
    """Once, although the session believed in its token."""
    sessions = Sessions(T1)
    server.refuse_join("room", "InvalidJWTToken: Token has expired 3 seconds ago", times=1)
    async with make_client(token=sessions).channel("room", private=True):
        assert sessions.refreshed == 1
        assert server.joins()[-1]["access_token"] == sessions.current


async def test_a_source_that_sets_the_token_itself_does_not_lock_up(
    server: MemoryServer, make_client: MakeClient
) -> None:
    """Its explicit token is kept."""
    holder: list[RealtimeClient] = []

    async def source() -> None:
        await holder[0].set_auth(T1)

    client = make_client(token=source)
    holder.append(client)
    async with client.channel("room", private=True):
        assert server.joins()[0]["access_token"] == T1
    assert client.auth_state.pinned


async def test_no_token_is_not_the_same_as_no_argument(make_client: MakeClient) -> None:
    """`set_auth(None)` signs out, as a program means that passes the token of a session that ended."""
    client = make_client(token=T1)
    assert (await client.set_auth()).sub == "eric"
    assert (await client.set_auth(None)).signed_out
    assert (await client.set_auth()).sub == "eric"


@pytest.mark.parametrize("options", [{"join_timeout": 5.0}, {"heartbeat_interval": 60.0}])
def test_settings_that_cause_trouble_are_said(
    caplog: pytest.LogCaptureFixture, options: dict[str, Any]
) -> None:
    """They are allowed."""
    RealtimeClient("ws://memory", "key", **options)
    assert next(iter(options)) in caplog.text


async def test_auth_ready_waits_for_the_answer(make_client: MakeClient) -> None:
    """And asks, if nobody did."""
    client = make_client(token=async_token)
    state = await client.auth_ready()
    assert (state.pending, state.sub) == (False, "eric")
    assert (await client.clear_auth()).signed_out


# Looking, and the end ---------------------------------------------------------------------------------------


async def test_what_can_be_known_is_told(server: MemoryServer, make_client: MakeClient) -> None:
    """State, token, changes, suspicions; in words, and without a secret."""
    client = make_client()
    channel = client.channel("room")
    channel.on_change("songs", print)
    assert "nothing was sent yet" in str(channel.explain())
    server.streams = False
    await channel.subscribe(ready="joined")
    text = str(client.explain())
    for part in ("joined, public", "API key alone", "* on public.songs", "Row level security", "Replication"):
        assert part in text
    stats = client.stats()
    assert (stats.connections, stats.channels, stats.joined, stats.joins) == (1, 1, 1, 1)
    assert stats.frames_sent >= 1
    assert stats.frames_received >= 1


async def test_closing_ends_everything(server: MemoryServer, make_client: MakeClient) -> None:
    """Waits, streams, tasks, sockets; twice does no harm; and nothing works afterwards."""
    client = make_client(token=async_token)
    channel = client.channel("room", ack=True)
    stream, states = channel.broadcasts(), client.events(ConnectionChanged)
    await channel.subscribe()
    server.ignore("broadcast")
    sending = asyncio.create_task(channel.send("x", {}))
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises((PushDropped, ClientClosed)):
        await sending
    assert [event async for event in stream] == []
    assert [event.state async for event in states][-1] == "closed"
    assert (client.stats().tasks, server.connections, client.state) == (0, [], "closed")
    await client.close()
    for use in (client.connect, client.ping, client.auth_ready, channel.subscribe):
        with pytest.raises(ClientClosed):
            await use()
    with pytest.raises(ClientClosed):
        client.channel("other")


async def test_cancelling_a_wait_leaves_the_rest_alone(server: MemoryServer, make_client: MakeClient) -> None:
    """The subscription goes on; somebody else may wait for it."""
    client = make_client()
    server.hold("phx_join")
    channel = client.channel("room")
    first, second = (asyncio.create_task(channel.subscribe()) for _ in range(2))
    while not server.joins():
        await asyncio.sleep(0)
    first.cancel()
    server.release()
    assert await second is channel
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_removing_all_channels_disconnects(server: MemoryServer, make_client: MakeClient) -> None:
    """Each is left properly."""
    client = make_client()
    for topic in ("one", "two"):
        await client.channel(topic).subscribe()
    await client.remove_all()
    assert (len(server.of("phx_leave")), server.connections, client.channels) == (2, [], ())


async def test_a_statement_of_the_end_comes_before_the_end(
    server: MemoryServer, make_client: MakeClient
) -> None:
    """Status handlers hear that the channel was closed, and whether the server said so."""
    channel = make_client().channel("room")
    statuses = channel.events(ChannelClosed)
    await channel.subscribe()
    assert await channel.unsubscribe()
    assert (await statuses.next(SOON)).acknowledged
