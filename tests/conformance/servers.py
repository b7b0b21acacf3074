"""The servers under test: the real one, and the real one with an echo where its messages would be read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

from starlette.applications import Starlette
from tests.unit.server.conftest import Server

from backbeat.protocol.codec import V2
from backbeat.server.http import HttpServer
from backbeat.server.limits import LimitSettings
from backbeat.server.listener import listen
from backbeat.server.socket import Socket
from backbeat.websocket.frames import binary_frame, text_frame

UNLIMITED: Final = LimitSettings(
    max_concurrent_users=0,
    max_joins_per_second=0,
    max_events_per_second=0,
    max_presence_events_per_second=0,
    max_client_presence_events_per_window=0,
)
ROOMY: Final = 64 * 1024 * 1024
"""Bytes that may wait for a client: the cases are about messages, not about slow readers."""


class Echo:
    """Stands where a serializer would: a message is the frame that sends it back."""

    vsn = V2.vsn
    decode = staticmethod(text_frame)
    decode_binary = staticmethod(binary_frame)


class EchoSocket(Socket):
    """The socket of the server. Only the message in a data frame is not read, but sent back."""

    __slots__ = ()

    def _admit(self, request: Any) -> None:
        super()._admit(request)
        self.serializer = Echo()  # type: ignore[assignment]

    def dispatch(self, message: Any) -> None:
        """Send a message back."""
        self.send(message)


class Running:
    """A server on a port.

    Attributes:
        port: where it listens.
        server: what it shares, with fakes where Postgres would be.
        key: opens a socket.
    """

    def __init__(self, port: int, server: Server) -> None:
        self.port = port
        self.server = server
        self.key = "sb_publishable_x"


@asynccontextmanager
async def serving(socket: type[Socket] = Socket, **settings: Any) -> AsyncIterator[Running]:
    """Serve sockets of a class on a port of loopback until the block ends."""
    server = Server(limits=UNLIMITED, **{"write_buffer_bytes": ROOMY} | settings)
    listener, *more = listen("127.0.0.1", 0, flag="--port")
    http = HttpServer(Starlette(), [listener, *more], realtime=server.realtime)
    http.config.ws = partial(socket, server.realtime)  # type: ignore[assignment]
    stop = asyncio.Event()
    running = asyncio.create_task(http.run_until(stop))
    try:
        yield Running(listener.getsockname()[1], server)
    finally:
        stop.set()
        await running
        await server.realtime.aclose()
