"""A server that lies, stalls and goes at the worst moment: everything settles, and nothing is left."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.client.test_client import SOON, jwt
from tests.unit.client.world import World

from backbeat import Change, RealtimeClient
from backbeat.client import events
from backbeat.client.config import ChangeBinding
from backbeat.client.engine import inputs
from backbeat.errors import BackbeatError
from backbeat.testing import MemoryConnection, MemoryServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.unit.client.conftest import MakeClient

    from backbeat.protocol.messages import Incoming


class Cutter(MemoryServer):
    """A server that goes when it has taken so many messages, before or after it answers."""

    def __init__(self, after: int, *, before_answering: bool) -> None:
        super().__init__()
        self.after = after
        self.before_answering = before_answering

    def note(self, connection: MemoryConnection, message: Incoming) -> bool:
        """Count, and go."""
        super().note(connection, message)
        self.after -= 1
        if self.after != 0:
            return False
        if self.before_answering:
            self.cut()
            return True
        asyncio.get_running_loop().call_soon(self.cut)
        return False


async def play(client: RealtimeClient) -> list[object]:
    """Everything a program does with a client; what becomes of each step."""
    private = client.channel("private", private=True, ack=True, presence_key="me")
    rows = client.channel("rows", changes=[Change("songs")])
    private.presence.events()
    found: list[object] = []
    steps: list[Any] = [
        private.subscribe,
        rows.subscribe,
        lambda: private.send("x", {"n": 1}),
        lambda: rows.send("x", b"\x00"),
        lambda: private.presence.track({"n": 1}),
        lambda: client.set_auth(jwt()),
        client.ping,
        private.presence.untrack,
        private.unsubscribe,
        lambda: client.remove(rows),
    ]
    for step in steps:
        try:
            found.append(await asyncio.wait_for(step(), SOON))
        except BackbeatError as error:
            found.append(error)
    return found


FAST: dict[str, Any] = {
    "backoff": (0.001,),
    "join_timeout": 0.5,
    "push_timeout": 0.5,
    "leave_timeout": 0.2,
    "heartbeat_timeout": 0.2,
    "close_timeout": 0.2,
}


@pytest.mark.parametrize("before_answering", [True, False])
@pytest.mark.parametrize("after", range(1, 13))
async def test_a_connection_that_goes_at_any_message_leaves_a_known_state(
    after: int, before_answering: bool
) -> None:
    """Each call returns or raises what it is documented to raise; the client works on, and closes clean."""
    server = Cutter(after, before_answering=before_answering)
    tasks = asyncio.all_tasks()
    async with RealtimeClient("ws://memory", "key", transport=server, token=jwt(), **FAST) as client:
        assert len(await play(client)) == 10
        server.after = -1  # it has gone, or never will
        await asyncio.sleep(0)
        async with client.channel("after", ack=True) as channel:
            assert (await channel.send("x", {})).acknowledged
    assert asyncio.all_tasks() == tasks
    assert server.connections == []


@pytest.mark.parametrize("turns", range(1, 60, 4))
async def test_a_program_that_is_cancelled_at_any_moment_leaves_nothing(turns: int) -> None:
    """Wherever it was, the client can be closed, and no task, timer or socket is left."""
    server = MemoryServer()
    tasks = asyncio.all_tasks()
    client = RealtimeClient("ws://memory", "key", transport=server, token=jwt(), **FAST)
    playing = asyncio.create_task(play(client))
    for _ in range(turns):
        await asyncio.sleep(0)
    playing.cancel()
    await asyncio.gather(playing, return_exceptions=True)
    await client.close()
    assert asyncio.all_tasks() == tasks
    assert (server.connections, client.stats().tasks) == ([], 0)


@pytest.mark.parametrize("turns", range(6))
async def test_closing_while_opening_comes_to_an_end(turns: int) -> None:
    """Also when the task that opens the socket has not had its first turn yet."""
    server = MemoryServer()
    client = RealtimeClient("ws://memory", "key", transport=server)
    connecting = asyncio.create_task(client.connect())
    for _ in range(turns):
        await asyncio.sleep(0)
    await asyncio.wait_for(client.close(), SOON)
    await asyncio.gather(connecting, return_exceptions=True)
    assert (client.state, server.connections) == ("closed", [])


frames = st.one_of(
    st.text(max_size=30),
    st.binary(max_size=30),
    st.builds(
        lambda join_ref, ref, topic, event, payload: f'[{join_ref},{ref},"{topic}","{event}",{payload}]',
        st.sampled_from(["null", '"1"', '"2"', '"9"', "7"]),
        st.sampled_from(["null", '"1"', '"2"', '"3"', '"99"']),
        st.sampled_from(["realtime:room", "realtime:", "phoenix", "elsewhere"]),
        st.sampled_from(
            [
                "phx_reply",
                "phx_close",
                "phx_error",
                "phx_join",
                "system",
                "broadcast",
                "presence_state",
                "presence_diff",
                "postgres_changes",
                "new",
            ]
        ),
        st.sampled_from(
            [
                "{}",
                "[]",
                "null",
                '{"status":"ok","response":{}}',
                '{"status":"ok","response":{"postgres_changes":[{"id":1}]}}',
                '{"status":"error","response":{"reason":"Unauthorized: no"}}',
                '{"status":"error","response":"x"}',
                '{"status":"error","message":"Token has expired 1 seconds ago","extension":"system"}',
                '{"event":"x","payload":{},"meta":{"id":"1","replayed":true}}',
                '{"joins":{"a":{"metas":[{"phx_ref":"1"}]}},"leaves":{}}',
                '{"a":{"metas":[{"phx_ref":"1"}]}}',
                '{"ids":[1],"data":{"schema":"public","table":"songs","type":"INSERT","record":{"a":1}}}',
            ]
        ),
    ),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(frames, max_size=20), st.booleans())
def test_any_frames_in_any_order_do_no_harm(sent: list[str | bytes], streams: bool) -> None:
    """Nothing is raised; afterwards the client joins again as soon as the server behaves."""
    world = World(token=None)
    world.server.streams = streams
    channel, ticket = world.subscribe(presence=True, changes=(ChangeBinding(table="songs"),))
    tickets = [ticket, world.broadcast(channel), world.track(channel, {})]
    for frame in sent:
        world.server.raw(frame)
    world.advance(20)
    assert all(map(world.settled, tickets))
    _, again = world.subscribe(channel=channel, changes=(ChangeBinding(table="songs"),))
    world.server.cut()
    world.advance(40)
    assert world.settled(again)
    assert world.state(channel) in ("joined", "denied")


def test_a_flood_of_frames_is_read() -> None:
    """A flood of everything that is for nobody."""
    world = World()
    world.joined()
    for n in range(20_000):
        world.server.raw(f'[null,"{n}","realtime:room","phx_reply",{{"status":"ok","response":{{}}}}]')
    assert world.state(1) == "joined"


async def test_a_mistake_of_ours_costs_the_connection_and_is_reported(
    server: MemoryServer, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """INV-13: it is logged and told, the connection is opened anew, and the client works on."""
    client = make_client()
    reported, resumed = client.events(events.HandlerFailed), client.events(events.Resumed)
    channel = client.channel("room")
    await channel.subscribe()
    handle = client.engine.handle

    def broken(given: inputs.Input, now: Any) -> Any:
        if isinstance(given, inputs.FramesReceived):
            client.engine.handle = handle  # type: ignore[method-assign]
            raise ZeroDivisionError
        return handle(given, now)

    client.engine.handle = broken  # type: ignore[method-assign]
    server.broadcast("room", "x", {})
    assert isinstance((await reported.next(SOON)).error, ZeroDivisionError)
    assert (await resumed.next(SOON)).topic == "room"
    assert any(record.levelno == logging.ERROR for record in caplog.records)


class Broken:
    """A token source whose events end with an error."""

    async def token(self) -> str:
        """A token."""
        return jwt()

    async def events(self) -> AsyncIterator[Any]:
        """One event, then trouble."""
        yield SimpleNamespace(kind="TOKEN_REFRESHED", session=object())
        raise OSError("the file is gone")


async def test_a_source_that_tells_no_more_is_reported(
    server: MemoryServer, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Its token is still asked for, and the connection stays."""
    client = make_client(token=Broken())
    failures = client.events(events.TokenProviderFailed)
    await client.channel("room", private=True).subscribe()
    assert str((await failures.next(SOON)).error) == "the file is gone"
    assert (server.opened, client.is_connected) == (1, True)
    assert "tells of no more changes" in caplog.text


async def test_a_close_that_is_not_answered_is_cut(make_client: MakeClient, server: MemoryServer) -> None:
    """After `close_timeout`, whatever the other side does."""
    client = make_client(close_timeout=0.02)
    await client.channel("room").subscribe()
    connection = client.driver._connections[1]
    assert connection._socket is not None

    async def hang(code: int, reason: str) -> None:
        await asyncio.get_running_loop().create_future()

    connection._socket.close = hang  # type: ignore[method-assign]
    await asyncio.wait_for(client.close(), SOON)
    assert server.connections == []
