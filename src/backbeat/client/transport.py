"""How a client reaches a server: one small interface, and the implementation over `websockets`.

`backbeat.testing` has another one, in memory.
"""

from __future__ import annotations

import ssl as tls
from collections.abc import AsyncIterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.protocol import State

from backbeat.errors import UpgradeRefused

__all__ = ["Socket", "Transport", "WebSocketTransport"]


class Socket(Protocol):
    """An open connection."""

    server_time: float | None
    """The server's clock when it answered, in seconds since the epoch, if it said."""

    def frames(self) -> AsyncIterator[str | bytes]:
        """What arrives, until the connection is gone; never raises because of that."""

    async def send(self, frame: str | bytes) -> None:
        """Write a frame, and wait while the other side reads too slowly.

        Raises:
            OSError: the connection is gone.
        """

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye, and wait for the answer."""

    def abort(self) -> None:
        """Cut the connection."""

    @property
    def closing(self) -> tuple[int, str]:
        """The close code and the reason, once the connection is gone; 1006 without any."""


class Transport(Protocol):
    """Opens connections."""

    async def open(self, url: str, headers: Mapping[str, str]) -> Socket:
        """Open a connection.

        Args:
            url: where to, with all parameters.
            headers: more headers for the upgrade.

        Raises:
            UpgradeRefused: the server does not want to.
            OSError: it cannot be reached.
        """


class WebSocketTransport:
    """Connections over the network.

    Args:
        ssl: how `wss` is secured; None stands for the system's certificates.
        max_frame_bytes: the largest frame to receive.
        options: more arguments for `websockets.connect`, such as `proxy` or `local_addr`.
    """

    def __init__(
        self,
        *,
        ssl: tls.SSLContext | None = None,
        max_frame_bytes: int = 5_000_000,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._options = dict(options or {})
        if ssl is not None:
            self._options["ssl"] = ssl
        self._max_frame_bytes = max_frame_bytes

    async def open(self, url: str, headers: Mapping[str, str]) -> Socket:
        """Open a connection over the network.

        Raises:
            UpgradeRefused: the server does not want to.
            OSError: it cannot be reached.
        """
        try:
            connection = await connect(
                url,
                additional_headers=dict(headers),
                # The engine has its own heartbeats and timeouts; servers of this kind do not compress.
                open_timeout=None,
                ping_interval=None,
                compression=None,
                max_size=self._max_frame_bytes,
                **self._options,
            )
        except InvalidStatus as error:
            response = error.response
            retry_after = response.headers.get("Retry-After", "")
            raise UpgradeRefused(
                response.status_code,
                bytes(response.body or b""),
                float(retry_after) if retry_after.isdecimal() else None,
            ) from None
        except (WebSocketException, EOFError, ValueError) as error:
            # Its text may hold the URL, and that the key.
            raise ConnectionError(f"no WebSocket handshake ({type(error).__name__})") from None
        return WebSocket(connection)


class WebSocket:
    """A connection over the network.

    Args:
        connection: the library's.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.server_time = _date(connection)

    async def frames(self) -> AsyncIterator[str | bytes]:
        """What arrives, until the connection is gone."""
        try:
            while True:
                yield await self._connection.recv()
        except (ConnectionClosed, OSError):
            return

    async def send(self, frame: str | bytes) -> None:
        """Write a frame, and wait while the other side reads too slowly.

        Raises:
            OSError: the connection is gone.
        """
        try:
            await self._connection.send(frame)
        except ConnectionClosed as error:
            raise ConnectionError("the connection is gone") from error

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye, and wait for the answer."""
        await self._connection.close(code, reason)

    def abort(self) -> None:
        """Cut the connection."""
        self._connection.transport.abort()

    @property
    def closing(self) -> tuple[int, str]:
        """The close code and the reason, once the connection is gone; 1006 without any."""
        if self._connection.state is not State.CLOSED:
            return 1006, ""
        return self._connection.close_code or 1006, self._connection.close_reason or ""


def _date(connection: ClientConnection) -> float | None:
    """The `Date` of the answer to the upgrade (RFC 9110, 6.6.1)."""
    response = connection.response
    if response is None or "Date" not in response.headers:
        return None
    try:
        return parsedate_to_datetime(response.headers["Date"]).timestamp()
    except (ValueError, KeyError):
        return None
