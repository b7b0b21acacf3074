"""The port: uvicorn for HTTP, our own socket for every upgrade, and no grip on the signals."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Final

import uvicorn

from backbeat.server.socket import Socket

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence

    from starlette.types import ASGIApp

    from backbeat.server.realtime import Realtime

__all__ = ["HttpServer"]

GRACE: Final = 8
"""Seconds that requests and sockets have to end in good order."""


class HttpServer(uvicorn.Server):
    """Serves an application, and optionally sockets, on listeners that are bound already.

    Args:
        app: the HTTP application.
        listeners: where to listen.
        realtime: what upgrades are handed to; without it there are none.
    """

    def __init__(
        self, app: ASGIApp, listeners: Sequence[socket.socket], *, realtime: Realtime | None = None
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                ws=partial(Socket, realtime) if realtime is not None else "none",  # type: ignore[arg-type]
                http="httptools",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=GRACE,
            )
        )
        self._listeners = list(listeners)
        self._realtime = realtime

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone: whoever owns the process decides what ends after what."""
        yield

    async def run_until(self, stop: asyncio.Event) -> None:
        """Serve until the event is set, then stop accepting, close sockets with 1012, and end.

        Args:
            stop: set when it is time to go.
        """
        serving = asyncio.create_task(self.serve(self._listeners), name="http")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            if self._realtime is not None:
                # Not only when uvicorn gets to it: that looks ten times a second whether it should stop.
                self._realtime.drain()
            self.should_exit = True
            await serving
