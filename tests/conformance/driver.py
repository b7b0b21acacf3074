"""A client that sends whatever it is told over TCP, and writes down all that comes back.

What comes back is read with the frames of `websockets`, so that no mistake of ours is made twice.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final, TypeVar

from tests.conformance.cases import Heard
from tests.conformance.servers import Running
from websockets.frames import Frame
from websockets.streams import StreamReader
from websockets.utils import accept_key

from backbeat.websocket.frames import Opcode

KEY: Final = base64.b64encode(b"sixteen bytes ok").decode()
PATIENCE: Final = 10.0
"""Seconds after which whatever is waited for will not come."""


class Driver:
    """One connection.

    Attributes:
        heard: the frames that came back, close frames apart.
        closed: the code of the server's close frame; 1005 for none, `None` before it.
        after_close: frames that came after the close frame; there must be none.
        ended: how the connection ended: `eof` when the server closed it in good order, or what went wrong.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard: list[Heard] = []
        self.closed: int | None = None
        self.after_close: list[Frame] = []
        self.ended = ""
        self._reader = reader
        self._writer = writer
        self._news = asyncio.Condition()
        self._stream = StreamReader()
        self._parsing: Generator[None, None, Frame] | None = None

    async def write(self, data: bytes, chop: int = 0) -> None:
        """Write bytes; in pieces of a size, each of which the server reads before the next."""
        with self._broken_is_an_end():
            for start in range(0, len(data), chop or len(data) or 1):
                self._writer.write(data[start : start + (chop or len(data))])
                await self._writer.drain()
                if chop:
                    # Both sides share a loop: in the turn after the next the server has read.
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)

    async def until_heard(self, frames: int) -> None:
        """Wait until so many frames have come back, or nothing more can come."""
        await self._until(lambda: len(self.heard) >= frames or self.closed is not None)

    async def until_closed(self) -> None:
        """Wait for the close frame of the server."""
        await self._until(lambda: self.closed is not None)

    async def until_ended(self) -> None:
        """Wait until the server ends the connection."""
        await self._until(lambda: False)

    async def _until(self, done: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(PATIENCE), self._news:
                await self._news.wait_for(lambda: bool(self.ended) or done())
        except TimeoutError:
            self.ended = self.ended or "nothing more came"

    async def listen(self) -> None:
        """Read until the connection ends."""
        with self._broken_is_an_end():
            while data := await self._reader.read(1 << 16):
                self._stream.feed_data(data)
                async with self._news:
                    while (frame := self._next()) is not None:
                        self._note(frame)
                    self._news.notify_all()
        async with self._news:
            self.ended = self.ended or "eof"
            self._news.notify_all()

    def _next(self) -> Frame | None:
        self._parsing = self._parsing or Frame.parse(self._stream.read_exact, mask=False)
        try:
            next(self._parsing)
        except StopIteration as whole:
            self._parsing = None
            frame: Frame = whole.value
            return frame
        return None

    def _note(self, frame: Frame) -> None:
        opcode = Opcode(frame.opcode)
        if self.closed is not None:
            self.after_close.append(frame)
        elif opcode is Opcode.CLOSE:
            self.closed = int.from_bytes(frame.data[:2], "big") if frame.data else 1005
        else:
            self.heard.append((opcode, bytes(frame.data)))

    @contextmanager
    def _broken_is_an_end(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.ended = self.ended or type(error).__name__


D = TypeVar("D", bound=Driver)


@asynccontextmanager
async def connected(server: Running, kind: type[D]) -> AsyncIterator[D]:
    """Open a socket, and hang up at the end of the block.

    Args:
        server: where.
        kind: what to make of the connection.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        (
            f"GET /socket/websocket?vsn=2.0.0&apikey={server.key} HTTP/1.1\r\nHost: localhost\r\n"
            f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
    )
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    assert head.startswith("HTTP/1.1 101 "), head
    assert f"Sec-WebSocket-Accept: {accept_key(KEY)}\r\n" in head, head
    driver = kind(reader, writer)
    listening = asyncio.create_task(driver.listen())
    try:
        yield driver
    finally:
        writer.close()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
