"""How a client reaches a server: one small interface, and the implementation over the network.

`backbeat.testing` has another one, in memory.
"""

from __future__ import annotations

import ssl as tls
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from websockets.exceptions import InvalidStatus, WebSocketException

from backbeat.client.websocket import WebSocket
from backbeat.errors import UpgradeRefused

__all__ = ["Socket", "Transport", "WebSocketTransport"]


class Socket(Protocol):
    """An open connection."""

    server_time: float | None
    """The server's clock when it answered, in seconds since the epoch, if it said."""

    def frames(self) -> AsyncIterator[Sequence[str | bytes]]:
        """What arrives, some frames at a time, until the connection is gone; never raises for that."""

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
            return await WebSocket.open(
                url, headers=headers, max_frame_bytes=self._max_frame_bytes, **self._options
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
