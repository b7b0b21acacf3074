"""A line to a server that can be cut, stalled and slowed down, and restored again. Loopback only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

CHUNK = 65_536
"""Bytes carried at once."""


class FaultyLine:
    """A TCP proxy in front of a server, with faults at will.

    Args:
        url: the URL of the server; its host and port are where the line leads.
    """

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._is_cut = False
        self._bytes_per_second = 0
        self._connections: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def laid(self) -> AsyncIterator[str]:
        """Listen until the block ends.

        Yields:
            The URL to use in place of that of the server.
        """
        async with await asyncio.start_server(self._connected, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            user, at, _ = self._parts.netloc.rpartition("@")
            yield urlunsplit(self._parts._replace(netloc=f"{user}{at}127.0.0.1:{port}"))
            server.close()
            for connection in self._connections:
                connection.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    def cut(self) -> None:
        """Break every connection, and every new one as soon as it is there."""
        self._is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    def stall(self) -> None:
        """Carry nothing any more. Nobody is told: connections stay open, and new ones are taken."""
        self._flowing.clear()

    def slow(self, bytes_per_second: int) -> None:
        """Carry only so much on each connection, in each direction."""
        self._bytes_per_second = bytes_per_second

    def lead(self, url: str) -> None:
        """Lead every new connection to another server; those that stand stay where they are.

        Args:
            url: the URL of the server.
        """
        self._parts = urlsplit(url)

    def restore(self) -> None:
        """Carry on as if nothing had been. What was cut stays cut."""
        self._is_cut = False
        self._bytes_per_second = 0
        self._flowing.set()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._connect(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            if self._is_cut:
                return
            there, towards = await asyncio.open_connection(self._parts.hostname, self._parts.port)
            ends.append(towards)
            self._writers.update(ends)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(reader, towards))
                both.create_task(self._carry(there, writer))
        except OSError:
            pass  # The server is away: whoever connected to us finds that out below.
        finally:
            for end in ends:
                self._writers.discard(end)
                end.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(CHUNK):
                await self._flowing.wait()
                if self._bytes_per_second:
                    await asyncio.sleep(len(data) / self._bytes_per_second)
                writer.write(data)
                await writer.drain()
        writer.close()
