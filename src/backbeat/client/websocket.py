"""A WebSocket as a client holds it: opened by `websockets`, and carried by frames of our own.

The library knows proxies, redirects and TLS. Its parser takes a dozen times as long as ours, which is what
most of the time of a busy client would go into.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect

from backbeat.websocket.frames import (
    Binary,
    Close,
    FrameParser,
    Opcode,
    Ping,
    Text,
    Violation,
    client_frame,
    close_payload,
)
from backbeat.websocket.handshake import END_OF_HEAD

__all__ = ["WebSocket"]

SWITCHING: Final = b"HTTP/1.1 101 "

AT_ONCE: Final = 256
"""Frames that are handed over together; the others on the loop have their turn in between."""


class _Opening(ClientConnection):
    """The handshake. What comes after it is kept for whoever reads frames."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._head = b""
        self.rest: bytes | None = None

    def data_received(self, data: bytes) -> None:
        """Give the library the answer to the upgrade, and nothing else."""
        if self.rest is not None:
            self.rest += data
            return
        self._head += data
        head, end, rest = self._head.partition(END_OF_HEAD)
        if end and head.startswith(SWITCHING):
            self.rest = rest
            data = data[: len(data) - len(rest)]
        super().data_received(data)


class WebSocket(asyncio.Protocol):
    """An open connection.

    Args:
        opened: the connection after the handshake.
        max_frame_bytes: the largest message to receive.

    Attributes:
        server_time: the server's clock when it answered, in seconds since the epoch, if it said.
        closing: the close code and the reason, once the connection is gone; 1006 without any.
    """

    def __init__(self, opened: _Opening, *, max_frame_bytes: int) -> None:
        self.server_time = _date(opened)
        self.closing = (1006, "")
        self._parser = FrameParser(max_message=max_frame_bytes, masked=False)
        self._arrived: list[str | bytes] = []
        self._something = asyncio.Event()
        self._ended = False
        self._gone = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._said_goodbye = False
        self._transport: asyncio.Transport = opened.transport
        self._transport.set_protocol(self)
        self.data_received(opened.rest or b"")
        if self._transport.is_closing():
            # Whoever held the connection before may have been told already.
            self.connection_lost(None)

    @classmethod
    async def open(
        cls, url: str, *, headers: Mapping[str, str], max_frame_bytes: int, **options: Any
    ) -> WebSocket:
        """Open a connection.

        Args:
            url: where to.
            headers: more headers for the upgrade.
            max_frame_bytes: the largest message to receive.
            options: more arguments for `websockets.connect`.

        Raises:
            OSError: the server cannot be reached.
            WebSocketException: it does not want to.
        """
        opened = await connect(
            url,
            additional_headers=dict(headers),
            create_connection=_Opening,
            # The engine has its own heartbeats and timeouts; servers of this kind do not compress.
            open_timeout=None,
            ping_interval=None,
            compression=None,
            **options,
        )
        assert isinstance(opened, _Opening)
        return cls(opened, max_frame_bytes=max_frame_bytes)

    # What the transport says --------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        for event in self._parser.feed(data):
            match event:
                case Binary():
                    self._arrived.append(event.payload)
                case Text():
                    self._arrived.append(event.payload.decode())
                case Ping():
                    self._write(Opcode.PONG, event.payload)
                case Close():
                    self.closing = event.code or 1005, event.reason
                    self._end(event.code)
                case Violation():
                    self.closing = event.code, event.reason
                    self._end(event.code, event.reason)
        if len(self._arrived) > AT_ONCE:
            self._transport.pause_reading()
        self._something.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - there is nobody left to tell
        """Notice that the connection is gone."""
        self._ended = True
        for event in (self._something, self._gone, self._room):
            event.set()

    def pause_writing(self) -> None:
        """Let senders wait."""
        self._room.clear()

    def resume_writing(self) -> None:
        """Let them go on."""
        self._room.set()

    def _end(self, code: int | None, reason: str = "") -> None:
        """Nothing more will be read."""
        self._goodbye(code, reason)
        self._ended = True

    def _goodbye(self, code: int | None, reason: str) -> None:
        if not self._said_goodbye:
            self._said_goodbye = True
            self._write(Opcode.CLOSE, close_payload(code, reason))

    def _write(self, opcode: Opcode, payload: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(client_frame(opcode, payload, secrets.token_bytes(4)))

    # What the client does -----------------------------------------------------------------------------------

    async def frames(self) -> AsyncIterator[list[str | bytes]]:
        """What arrives, until the connection is gone."""
        while True:
            while self._arrived:
                batch, self._arrived = self._arrived[:AT_ONCE], self._arrived[AT_ONCE:]
                yield batch
            if self._ended:
                return
            self._transport.resume_reading()
            self._something.clear()
            await self._something.wait()

    async def send(self, frame: str | bytes) -> None:
        """Write a frame, and wait while the other side reads too slowly.

        Raises:
            OSError: the connection is gone.
        """
        if self._said_goodbye or self._ended or self._transport.is_closing():
            raise ConnectionError("the connection is gone")
        if isinstance(frame, str):
            self._write(Opcode.TEXT, frame.encode())
        else:
            self._write(Opcode.BINARY, frame)
        await self._room.wait()

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye, and wait until the connection is gone."""
        self._goodbye(code, reason)
        await self._gone.wait()

    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abort()


def _date(opened: ClientConnection) -> float | None:
    """The `Date` of the answer to the upgrade (RFC 9110, 6.6.1)."""
    response = opened.response
    if response is None or "Date" not in response.headers:
        return None
    try:
        return parsedate_to_datetime(response.headers["Date"]).timestamp()
    except (ValueError, KeyError):
        return None
