"""Bad input and large input on a real port: what only real sockets and their buffers show."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
import websockets
from tests.integration.server import conftest
from tests.integration.server.conftest import PATIENCE, Running, running

from backbeat.server.listener import listen
from backbeat.websocket.frames import Opcode, client_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from backbeat.server.settings import Settings

ROOM = "realtime:room"
SMALL_BUFFER = 65_536
"""Bytes of a kernel's send buffer, as they are before a connection over a real network has grown them."""


@pytest.fixture
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the server's sockets have the send buffers of a real network, not those of loopback."""

    def listen_small(host: str, port: int, *, flag: str) -> list[socket.socket]:
        listeners = listen(host, port, flag=flag)
        for listener in listeners:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
        return listeners

    monkeypatch.setattr(conftest, "listen", listen_small)


def connect(server: Running) -> websockets.connect:
    """Open a socket that takes messages of any size."""
    key = server.realtime.settings.keys.anon
    return websockets.connect(f"{server.url}/socket/websocket?vsn=2.0.0&apikey={key}", max_size=None)


async def receive(client: websockets.ClientConnection) -> list[Any]:
    """The next message."""
    async with asyncio.timeout(PATIENCE):
        return list(json.loads(await client.recv()))


async def join(client: websockets.ClientConnection) -> None:
    """Join the room, and wait for the answer."""
    await client.send(json.dumps(["1", "1", ROOM, "phx_join", {"config": {}}]))
    assert (await receive(client))[4]["status"] == "ok"


@pytest.mark.usefixtures("small_buffers")
async def test_the_largest_broadcast_reaches_whoever_reads(settings: Callable[..., Settings]) -> None:
    """A listener that reads all the time is no slow reader, however large a single message is."""
    async with running(settings()) as server, connect(server) as sender, connect(server) as listener:
        for client in (sender, listener):
            await join(client)
        payload = {"event": "large", "payload": "x" * (server.realtime.settings.max_payload_bytes - 100)}
        await sender.send(json.dumps(["1", "2", ROOM, "broadcast", payload]))
        assert (await receive(listener))[4] == payload


@pytest.mark.usefixtures("small_buffers")
async def test_a_client_that_never_reads_is_dropped(settings: Callable[..., Settings]) -> None:
    """What waits for it is bounded, and everybody else receives everything in order."""
    async with (
        running(settings(write_buffer_bytes=100_000)) as server,
        connect(server) as sender,
        connect(server) as listener,
        connect(server) as stuck,
    ):
        for client in (sender, listener, stuck):
            await join(client)
        stuck.transport.pause_reading()
        sent = 0
        async with asyncio.timeout(PATIENCE):
            while server.realtime.metrics.slow_readers == 0:
                await sender.send(json.dumps(["1", "2", ROOM, "broadcast", {"n": sent, "x": "x" * 200_000}]))
                assert (await receive(listener))[4]["n"] == sent
                sent += 1
        stuck.transport.abort()


async def test_garbage_on_many_sockets_is_not_heard_of_elsewhere(server: Running) -> None:
    """Bytes, frames and messages of no sense: each costs its own socket at most."""
    async with connect(server) as sender, connect(server) as listener:
        for client in (sender, listener):
            await join(client)
        key = server.realtime.settings.keys.anon
        head = (
            f"GET /socket/websocket?vsn=2.0.0&apikey={key} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
        host, port = server.url.removeprefix("ws://").split(":")
        attacks = [
            b"\x00" * 100,
            os.urandom(500),
            head + b"\xff" * 100,
            head + client_frame(Opcode.TEXT, b"[" * 100_000, b"mask"),
            head + client_frame(Opcode.TEXT, b"\xff", b"mask"),
            head + client_frame(Opcode.BINARY, b"\x03\xff\xff\xff\xff\xff\x01", b"mask"),
            head + client_frame(Opcode.TEXT, b"x" * 1_000, b"mask")[:500],
        ]
        for number, attack in enumerate(attacks):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(attack)
            await writer.drain()
            writer.close()
            await sender.send(json.dumps(["1", "2", ROOM, "broadcast", {"n": number}]))
            assert (await receive(listener))[4] == {"n": number}
        assert server.realtime.metrics.handler_failures == 0
        async with asyncio.timeout(PATIENCE):
            while server.realtime.metrics.connections > 2:
                await asyncio.sleep(0)
