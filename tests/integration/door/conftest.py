"""A server on a real port, without a database, and raw connections to it: libraries hide the ugly cases."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from backbeat.server.app import create_app, realtime_routes, run_realtime
from backbeat.server.certificate import Certificate
from backbeat.server.entrance import ConnectionSettings
from backbeat.server.http import HttpServer
from backbeat.server.listener import listen
from backbeat.server.realtime import Realtime
from backbeat.server.settings import Settings
from backbeat.websocket.frames import Opcode, client_frame

SECRET = "a secret of at least thirty-two bytes"
KEY = "sb_publishable_x"
PATIENCE = 15.0
NOWHERE = "postgresql://login@127.0.0.1:1/nowhere"
"""Public channels need no database."""


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """On the loop that `backbeat` runs on, and on the one that a program which embeds it may have."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def impatient(**changed: float) -> ConnectionSettings:
    """Settings with little patience for heads and messages."""
    return ConnectionSettings(**{"handshake_timeout": 0.5, "message_timeout": 0.2} | changed)  # type: ignore[arg-type]


def upgrade(*headers: str, query: str = f"apikey={KEY}&vsn=2.0.0", path: str = "/socket/websocket") -> bytes:
    """The head of a handshake."""
    return "\r\n".join(
        (
            f"GET {path}?{query} HTTP/1.1",
            "Host: localhost",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
            *headers,
            "\r\n",
        )
    ).encode()


def get(path: str = "/healthcheck", *headers: str) -> bytes:
    """The head of a request."""
    return "\r\n".join((f"GET {path} HTTP/1.1", "Host: localhost", *headers, "\r\n")).encode()


class Answer:
    """What was answered in HTTP."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def code(self) -> str:
        """The error code of a refusal."""
        return str(json.loads(self.body)["code"])


class Line:
    """One connection.

    Args:
        reader: what the server says.
        writer: what it hears.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        """Send bytes, in the background."""
        self.writer.write(data)

    def send_frame(self, opcode: int, payload: bytes = b"", *, fin: bool = True) -> None:
        """Send a frame."""
        self.send(client_frame(opcode, payload, b"mask", fin=fin))

    def push(self, topic: str, event: str, payload: object = None, *, ref: str = "1") -> None:
        """Send a message."""
        self.send_frame(Opcode.TEXT, json.dumps([ref, ref, topic, event, payload or {}]).encode())

    async def answer(self) -> Answer:
        """The next answer in HTTP."""
        async with asyncio.timeout(PATIENCE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return Answer(int(first.split(" ")[1]), headers, body)

    async def opened(self, *headers: str) -> None:
        """Become a socket."""
        self.send(upgrade(*headers))
        assert (await self.answer()).status == 101

    async def frame(self) -> tuple[int, bytes]:
        """The next frame, with its opcode."""
        async with asyncio.timeout(PATIENCE):
            first, length = await self.reader.readexactly(2)
            if length >= 126:
                length = int.from_bytes(await self.reader.readexactly(2 if length == 126 else 8), "big")
            return first & 15, await self.reader.readexactly(length)

    async def message(self) -> list[Any]:
        """The next message."""
        opcode, payload = await self.frame()
        assert opcode == Opcode.TEXT, (opcode, payload)
        return list(json.loads(payload))

    async def closed_with(self) -> tuple[int, str]:
        """Code and reason of the close frame; what comes before it is skipped."""
        while (frame := await self.frame())[0] != Opcode.CLOSE:
            pass
        return int.from_bytes(frame[1][:2], "big"), frame[1][2:].decode()

    async def beats(self) -> bool:
        """Whether a heartbeat is answered."""
        self.push("phoenix", "heartbeat", ref="99")
        return bool((await self.message())[4]["status"] == "ok")

    async def rest(self) -> bytes:
        """All that comes until the server ends the connection, in good order or not."""
        data = bytearray()
        async with asyncio.timeout(PATIENCE):
            try:
                while piece := await self.reader.read(65_536):
                    data += piece
            except ConnectionError:
                pass
        return bytes(data)


class Port:
    """A server that listens.

    Args:
        realtime: its inside.
        number: its port.
        stop: ends it when set.
    """

    def __init__(self, realtime: Realtime, number: int, stop: asyncio.Event) -> None:
        self.realtime = realtime
        self.metrics = realtime.metrics
        self.number = number
        self.stop = stop

    @asynccontextmanager
    async def line(self, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Line]:
        """Connect."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.number, ssl=tls, server_hostname="localhost" if tls else None
        )
        try:
            yield Line(reader, writer)
        finally:
            writer.transport.abort()

    async def until_places(self, number: int) -> None:
        """Wait until so many connections are counted."""
        async with asyncio.timeout(PATIENCE):
            while self.realtime.entrance.total != number:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def port(
    *, tls: Certificate | None = None, connections: ConnectionSettings | None = None, **settings: Any
) -> AsyncIterator[Port]:
    """Run a server that explains itself until the block ends.

    Args:
        tls: its certificate.
        connections: what connections may do.
        settings: what else it is told.
    """
    told = Settings(
        database_url=NOWHERE,
        jwt_secret=SECRET,
        publishable_key=KEY,
        explain=True,
        connections=connections or ConnectionSettings(),
        **settings,
    )
    listeners = listen("127.0.0.1", 0, flag="--port")
    stop = asyncio.Event()
    async with run_realtime(told) as (realtime, feed):
        app = create_app(realtime_routes(realtime, feed))
        server = HttpServer(app, listeners, realtime=realtime, tls=tls)
        serving = asyncio.create_task(server.run_until(stop))
        try:
            yield Port(realtime, listeners[0].getsockname()[1], stop)
            assert realtime.metrics.handler_failures == 0
        finally:
            stop.set()
            await serving
    assert realtime.entrance.total == 0


@pytest.fixture
async def plain() -> AsyncIterator[Port]:
    """A server with the default settings."""
    async with port() as server:
        yield server
