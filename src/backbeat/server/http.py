"""The port: uvicorn for HTTP, what comes before and after it, and no grip on the signals."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from backbeat.server.arrival import Arrival, Arrivals
from backbeat.server.door import Door
from backbeat.server.socket import Socket
from backbeat.server.tls_port import TlsPort

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Sequence

    from starlette.types import ASGIApp

    from backbeat.server.certificate import Certificate
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
        tls: the certificate of a server with sockets; without it the port speaks plain HTTP.
    """

    def __init__(
        self,
        app: ASGIApp,
        listeners: Sequence[socket.socket],
        *,
        realtime: Realtime | None = None,
        tls: Certificate | None = None,
    ) -> None:
        proxies = realtime.entrance.proxies.names if realtime is not None else []
        door: Any = partial(Door, realtime) if realtime is not None else "httptools"
        super().__init__(
            uvicorn.Config(
                app,
                ws=partial(Socket, realtime) if realtime is not None else "none",  # type: ignore[arg-type]
                http=door,
                proxy_headers=bool(proxies),
                forwarded_allow_ips=proxies,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=GRACE,
            )
        )
        self._listeners = list(listeners)
        self._realtime = realtime
        self._tls = tls

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen as uvicorn does; what takes the first bytes is ours where there are sockets."""
        await self.lifespan.startup()
        protocol: Any = self.config.http_protocol_class
        make_door = partial(
            protocol, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        if self._realtime is None:
            self.servers = [await self._plain_port(make_door, listener) for listener in sockets or ()]
        else:
            make_socket: Any = self.config.ws_protocol_class
            arrivals = Arrivals(
                self._realtime,
                server_state=self.server_state,
                make_door=make_door,
                make_socket=partial(make_socket, server_state=self.server_state),
            )
            make_arrival = partial(Arrival, arrivals)
            self.servers = [
                await self._plain_port(make_arrival, listener)
                if self._tls is None
                else TlsPort(self._realtime, listener, self._tls, make_arrival=make_arrival)  # type: ignore[misc]
                for listener in sockets or ()
            ]
        self.started = True

    async def _plain_port(
        self, accepted: Callable[[], asyncio.Protocol], listener: socket.socket
    ) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_server(accepted, sock=listener, backlog=self.config.backlog)

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
