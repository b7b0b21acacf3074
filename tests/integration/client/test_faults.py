"""Networks and servers that fail, with real sockets, the real server and a real Postgres."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from tests.faults import FaultyLine
from tests.integration.server.conftest import ERIC, Running

from backbeat import RealtimeClient
from backbeat.client.events import ConnectionChanged, Gap, Heartbeat, Interrupted, Resumed
from backbeat.errors import ConnectFailed, Denied, RateLimited, Unavailable

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.AsyncConnection[Any]

SOON = 15.0

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(peer: Peer) -> AsyncIterator[str]:
    """A port with somebody behind it who is no realtime server."""
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await peer(reader, writer)
        finally:
            writer.transport.abort()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes the connection, reads, and never answers."""
    del writer
    while await reader.read(1000):
        pass


async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads the request, and goes."""
    del writer
    await reader.readuntil(b"\r\n\r\n")


async def talks_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers with something that is not HTTP."""
    del reader
    writer.write(b"\x00\x01 no HTTP\r\n\r\n")
    await writer.drain()


def answers(status: str, body: bytes, headers: bytes = b"") -> Peer:
    """Answers every request alike."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        length = str(len(body)).encode()
        writer.write(
            b"HTTP/1.1 %b\r\nContent-Length: %b\r\n%b\r\n%b" % (status.encode(), length, headers, body)
        )
        await writer.drain()
        await reader.read(1)

    return peer


@pytest.mark.parametrize("peer", [says_nothing, hangs_up, talks_nonsense])
async def test_what_is_no_server_is_given_up_and_tried_again(peer: Peer) -> None:
    """The subscription ends in time, with the reason; meanwhile there is one socket at most."""
    async with (
        listening(peer) as url,
        RealtimeClient(url, "key", open_timeout=0.1, backoff=(0.01,)) as client,
    ):
        states = client.events(ConnectionChanged)
        with pytest.raises(ConnectFailed):
            await client.channel("room").subscribe(timeout=0.5)
        found = [(await states.next(SOON)).state for _ in range(6)]
        assert found.count("connecting") >= 2
        assert "open" not in found


async def test_a_port_where_nobody_listens_is_said() -> None:
    """With what the system says."""
    async with listening(hangs_up) as url:
        pass
    async with RealtimeClient(url, "key", backoff=(0.01,)) as client:
        with pytest.raises(ConnectFailed, match="cannot be reached"):
            await client.channel("room").subscribe(timeout=0.2)


@pytest.mark.parametrize(
    ("status", "body", "headers", "error", "text"),
    [
        ("404 Not Found", b"<html>nothing here</html>", b"", Denied, "404"),
        ("403 Forbidden", b'{"error":"Realtime was disabled for this tenant"}', b"", Denied, "paused"),
        ("429 Too Many", b'{"error":"Too many connected users"}', b"", RateLimited, "connected users"),
        ("503 Away", b'{"error":"x","hint":"Come back."}', b"Retry-After: 9\r\n", Unavailable, "Come back"),
    ],
)
async def test_a_refused_upgrade_is_read(
    status: str, body: bytes, headers: bytes, error: type[Exception], text: str
) -> None:
    """Its status and its text become an error with a reason and a plan."""
    async with listening(answers(status, body, headers)) as url, RealtimeClient(url, "key") as client:
        states = client.events(ConnectionChanged)
        connecting = asyncio.create_task(client.connect())
        await states.next(SOON)
        refused = await states.next(SOON)
        assert isinstance(refused.error, error)
        assert text in str(refused.error)
        if status.startswith("503"):
            assert refused.retry_in is not None
            assert refused.retry_in >= 9
        await client.close()
        await asyncio.gather(connecting, return_exceptions=True)


async def test_a_connection_that_died_silently_is_noticed_and_replaced(
    server: Running, database: Connection
) -> None:
    """Rows arrive again afterwards, and the time in between is said to be missing."""
    line = FaultyLine(server.url)
    key = server.realtime.settings.keys.anon
    options: dict[str, Any] = {"heartbeat_interval": 0.2, "heartbeat_timeout": 0.3, "backoff": (0.05,)}
    async with line.laid() as url, RealtimeClient(url, key, token=server.token(), **options) as client:
        channel = client.channel("news")
        news, statuses = channel.changes("news"), channel.events(Interrupted, Resumed, Gap)
        await channel.subscribe()
        line.stall()
        interrupted = await statuses.next(SOON)
        assert interrupted.error.code == "HeartbeatTimeout"
        line.cut()
        line.restore()
        found = [type(await statuses.next(SOON)) for _ in range(3)]
        assert found == [Resumed, Gap, Gap]
        await database.execute("insert into news values (1, 'after')")
        assert (await news.next(SOON)).new["headline"] == "after"


async def test_stored_broadcasts_of_an_interruption_arrive_once(
    server: Running, database: Connection
) -> None:
    """Those before, during and after it, each once and in order; nothing is said to be missing."""
    line = FaultyLine(server.url)
    key = server.realtime.settings.keys.anon
    send = "select realtime.send(jsonb_build_object('n', %s::int), 'x', 'open-1', true)"
    async with line.laid() as url, RealtimeClient(url, key, token=server.token(), backoff=(0.05,)) as client:
        channel = client.channel("open-1", private=True)
        heard, statuses = channel.broadcasts(), channel.events(Interrupted, Resumed, Gap)
        await channel.subscribe()
        await database.execute(send, (1,))
        assert (await heard.next(SOON)).payload["n"] == 1
        line.cut()
        assert isinstance(await statuses.next(SOON), Interrupted)
        await database.execute(send, (2,))
        line.restore()
        assert isinstance(await statuses.next(SOON), Resumed)
        await database.execute(send, (3,))
        found = [await heard.next(SOON) for _ in range(2)]
        assert [event.payload["n"] for event in found] == [2, 3]
        assert len(statuses) == 0


async def test_a_channel_outlives_its_token(server: Running) -> None:
    """A token that ends is replaced ahead of time, without an interruption."""

    def token() -> str:
        return server.token(exp=int(time.time()) + 3)

    key = server.realtime.settings.keys.anon
    async with RealtimeClient(server.url, key, token=token, heartbeat_interval=1.0) as client:
        channel = client.channel("open-1", private=True, ack=True)
        interruptions, beats = channel.events(Interrupted), client.events(Heartbeat)
        await channel.subscribe()
        first = client.auth_state.fingerprint
        for _ in range(8):
            await beats.next(SOON)
        assert client.auth_state.fingerprint != first
        assert (await channel.send("x", {})).acknowledged
        assert len(interruptions) == 0


async def test_nothing_of_a_user_arrives_after_signing_out(server: Running, database: Connection) -> None:
    """Rows of Eric, inserted after `clear_auth` returned, reach nobody."""
    key = server.realtime.settings.keys.anon
    async with RealtimeClient(server.url, key, token=server.token(ERIC)) as client:
        channel = client.channel("songs")
        songs, resumed = channel.changes("songs"), channel.events(Resumed)
        news = channel.changes("news")
        await channel.subscribe()
        await client.clear_auth()
        await database.execute("insert into songs (owner, title) values (%s, 'secret')", (ERIC,))
        await resumed.next(SOON)
        await channel.subscribe(ready="streaming")
        await database.execute("insert into songs (owner, title) values (%s, 'secret')", (ERIC,))
        await database.execute("insert into news values (1, 'for everybody')")
        assert (await news.next(SOON)).new["headline"] == "for everybody"
        assert len(songs) == 0


async def test_a_server_that_stops_is_waited_for(server: Running) -> None:
    """It says goodbye with 1012; the client is told why, and tries again."""
    key = server.realtime.settings.keys.anon
    async with RealtimeClient(server.url, key) as client:
        channel = client.channel("room")
        statuses = channel.events(Interrupted)
        await channel.subscribe()
        server.stop.set()
        interrupted = await statuses.next(SOON)
        assert interrupted.error.code == "ServerRestart"
        assert client.state in ("backoff", "connecting")
