"""A WebSocket connection that does as it is told, whether that is well-behaved or not."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import cast

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

__all__ = ["Wire"]

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
SMALL_WINDOW = 16_384
"""Bytes the kernel may hold for a client that does not read: as few as it takes."""


class Wire(asyncio.Protocol):
    """One connection. Frames are handed over in the turn they arrive, and written in the turn they are sent.

    Args:
        url: of the socket, API key included.
        on_text: takes the payload of a text frame.
        on_binary: takes the payload of a binary frame.
        on_lost: told how the connection ended, in words.
    """

    def __init__(
        self,
        url: str,
        *,
        on_text: Callable[[bytes], None],
        on_binary: Callable[[bytes], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._uri = parse_uri(url)
        self._protocol = ClientProtocol(self._uri, max_size=None)
        self._on_text = on_text
        self._on_binary = on_binary
        self._on_lost = on_lost
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._ending = "no close frame"
        self._pause = 0.0
        """Seconds between reads."""

    async def open(self) -> None:
        """Connect, and wait until the server has switched.

        Raises:
            ConnectionError: it did not.
        """
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, self._uri.host, self._uri.port)
        await self._opened

    @property
    def is_open(self) -> bool:
        """Whether there is somebody to write to."""
        return self._transport is not None and self._protocol.state is State.OPEN

    # What asyncio tells -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self._transport = cast("asyncio.Transport", transport)
        self._protocol.send_request(self._protocol.connect())
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Hand over what the frames carry."""
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                if self._protocol.handshake_exc is not None:
                    self._opened.set_exception(ConnectionError(str(self._protocol.handshake_exc)))
                else:
                    self._opened.set_result(None)
            elif isinstance(event, Frame):
                self._take(event)
        self._flush()
        if self._pause:
            self.stop_reading()
            asyncio.get_running_loop().call_later(self._pause, self._resume)

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.TEXT:
            self._on_text(bytes(frame.data))
        elif frame.opcode is Opcode.BINARY:
            self._on_binary(bytes(frame.data))
        elif frame.opcode is Opcode.CLOSE:
            self._ending = f"close frame {self._protocol.close_code} {self._protocol.close_reason}"

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell how it ended."""
        self._transport = None
        ending = f"{self._ending}, {exc or 'end of stream'}"
        if not self._opened.done():
            self._opened.set_exception(ConnectionError(ending))
            # Whoever was waiting may have been cancelled.
            self._opened.exception()
        self._on_lost(ending)

    # What it is told ----------------------------------------------------------------------------------------

    def text(self, data: bytes) -> None:
        """Send a text frame."""
        if self.is_open:
            self._protocol.send_text(data)
            self._flush()

    def binary(self, data: bytes) -> None:
        """Send a binary frame."""
        if self.is_open:
            self._protocol.send_binary(data)
            self._flush()

    def raw(self, data: bytes) -> None:
        """Send bytes that are no frame, or a broken one."""
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        """Send a close frame; the server answers it and ends the connection."""
        if self.is_open:
            self._protocol.send_close(1000)
            self._flush()

    def half_close(self) -> None:
        """End our direction only."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()

    def reset(self) -> None:
        """End the connection the way a crash does."""
        if self._transport is not None:
            kernel = self._transport.get_extra_info("socket")
            kernel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self._transport.abort()

    def stop_reading(self) -> None:
        """Leave everything to the kernel from now on."""
        if self._transport is not None and not self._transport.is_closing():
            kernel = self._transport.get_extra_info("socket")
            kernel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_WINDOW)
            self._transport.pause_reading()

    def sip(self, pause: float) -> None:
        """Read on, but slowly, until told to read again.

        Args:
            pause: seconds after each read.
        """
        self._pause = pause
        self._resume()

    def read_again(self) -> None:
        """Take what the kernel kept."""
        self._pause = 0.0
        self._resume()

    def _resume(self) -> None:
        if self._transport is not None and not (self._transport.is_reading() or self._transport.is_closing()):
            self._transport.resume_reading()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data and self._transport is not None and not self._transport.is_closing():
                self._transport.write(data)
