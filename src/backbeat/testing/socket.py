"""A connection to a server in memory, on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backbeat.testing.connection import MemoryConnection

__all__ = ["MemorySocket", "never"]


async def never() -> None:
    """Wait for ever."""
    await asyncio.get_running_loop().create_future()


class MemorySocket:
    """The client's end of a connection in memory.

    Args:
        server_time: the clock the server tells, in seconds since the epoch, if any.
    """

    connection: MemoryConnection

    def __init__(self, *, server_time: float | None) -> None:
        self.server_time = server_time
        self._frames: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self._closing: tuple[int, str] | None = None

    @property
    def closing(self) -> tuple[int, str]:
        """The close code and the reason, once the connection is gone."""
        return self._closing or (1006, "")

    def write(self, frame: str | bytes) -> None:
        """Take a frame from the server."""
        self._frames.put_nowait(frame)

    def hang_up(self, code: int, reason: str) -> None:
        """The server ended the connection."""
        if self._closing is None:
            self._closing = code, reason
            self._frames.put_nowait(None)

    async def frames(self) -> AsyncIterator[list[str | bytes]]:
        """What arrives, until the connection is gone."""
        while (frame := await self._frames.get()) is not None:
            yield [frame]

    async def send(self, frame: str | bytes) -> None:
        """Give the server a frame.

        Raises:
            OSError: the connection is gone.
        """
        if self._closing is not None:
            raise ConnectionError("the connection is gone")
        self.connection.receive(frame)

    async def close(self, code: int, reason: str) -> None:
        """End the connection."""
        self.connection.close(code, reason)

    def abort(self) -> None:
        """Cut the connection."""
        self.connection.close(1006)
