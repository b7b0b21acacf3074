"""The client's WebSocket, over a pair of sockets: the test is the server, byte by byte."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from backbeat.client.transport import WebSocketTransport
from backbeat.client.websocket import AT_ONCE, WebSocket
from backbeat.errors import UpgradeRefused
from backbeat.websocket.frames import (
    Binary,
    Close,
    Event,
    FrameParser,
    Opcode,
    Pong,
    Text,
    binary_frame,
    client_frame,
    close_frame,
    ping_frame,
    text_frame,
)
from backbeat.websocket.handshake import END_OF_HEAD, accept, parse_head

LIMIT = 1000
DATE = (("Date", "Sun, 06 Nov 1994 08:49:37 GMT"),)


class Peer:
    """The server's end.

    Args:
        end: the socket.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._parser = FrameParser(max_message=10_000_000)
        self._heard: list[Event] = []

    async def answer(self, *, then: bytes = b"") -> None:
        """Accept the upgrade, and write something in the same breath."""
        reading = asyncio.get_running_loop()
        head = b""
        while END_OF_HEAD not in head:
            head += await reading.sock_recv(self._end, 65_536)
        await self.write(accept(parse_head(head), headers=DATE) + then)

    async def write(self, data: bytes) -> None:
        """Write bytes."""
        await asyncio.get_running_loop().sock_sendall(self._end, data)

    async def next(self) -> Event:
        """Read a frame."""
        while not self._heard:
            data = await asyncio.get_running_loop().sock_recv(self._end, 65_536)
            assert data, "the client is gone"
            self._heard += self._parser.feed(data)
        return self._heard.pop(0)

    def hang_up(self) -> None:
        """Close the connection without a word."""
        self._end.close()


@pytest.fixture
async def ends() -> AsyncIterator[tuple[socket.socket, Peer]]:
    """A client's socket, and the server's end of it."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    yield ours, Peer(theirs)
    theirs.close()


async def opened(ends: tuple[socket.socket, Peer], *, then: bytes = b"") -> WebSocket:
    """Open a WebSocket."""
    end, peer = ends
    opening = WebSocket.open("ws://server.test/", headers={}, max_frame_bytes=LIMIT, sock=end)
    websocket, _ = await asyncio.gather(opening, peer.answer(then=then))
    return websocket


async def everything(websocket: WebSocket) -> list[str | bytes]:
    """All that comes until the connection is gone."""
    return [frame async for frames in websocket.frames() for frame in frames]


async def test_texts_and_bytes_arrive_in_order(ends: tuple[socket.socket, Peer]) -> None:
    """Texts are `str`, the rest is `bytes`, however the wire cuts them."""
    websocket = await opened(ends)
    wire = text_frame("schön ♫".encode()) + binary_frame(b"\xff\x00") + text_frame(b"last")
    for byte in wire:
        await ends[1].write(bytes((byte,)))
    await ends[1].write(close_frame(1000, "enough"))
    assert await everything(websocket) == ["schön ♫", b"\xff\x00", "last"]
    websocket.abort()


async def test_what_comes_with_the_answer_is_not_lost(ends: tuple[socket.socket, Peer]) -> None:
    """Frames right behind the handshake, whole and cut, are read like any other."""
    wire = text_frame(b"one") + binary_frame(b"two")
    websocket = await opened(ends, then=wire[:-1])
    await ends[1].write(wire[-1:] + close_frame(1000))
    assert await everything(websocket) == ["one", b"two"]
    websocket.abort()


async def test_a_server_that_is_gone_at_once(ends: tuple[socket.socket, Peer]) -> None:
    """What was said with the answer is read, though the connection ends before anybody looks."""
    end, peer = ends
    opening = asyncio.create_task(
        WebSocket.open("ws://server.test/", headers={}, max_frame_bytes=LIMIT, sock=end)
    )
    await peer.answer(then=text_frame(b"bye"))
    peer.hang_up()
    websocket = await opening
    assert await everything(websocket) == ["bye"]
    assert websocket.closing == (1006, "")


async def test_the_time_of_the_server(ends: tuple[socket.socket, Peer]) -> None:
    """The `Date` of the answer is known."""
    websocket = await opened(ends)
    assert websocket.server_time == 784111777.0
    websocket.abort()


async def test_a_ping_is_answered(ends: tuple[socket.socket, Peer]) -> None:
    """With a pong that carries the same."""
    websocket = await opened(ends)
    await ends[1].write(ping_frame(b"there?"))
    assert await ends[1].next() == Pong(b"there?")
    websocket.abort()


async def test_what_is_sent_is_masked(ends: tuple[socket.socket, Peer]) -> None:
    """A server's parser, which insists on masks, reads texts and bytes."""
    websocket = await opened(ends)
    await websocket.send("schön")
    await websocket.send(b"\xff")
    assert [await ends[1].next(), await ends[1].next()] == [Text("schön".encode()), Binary(b"\xff")]
    websocket.abort()


async def test_the_goodbye_of_the_server(ends: tuple[socket.socket, Peer]) -> None:
    """Code and reason are kept, the code is sent back, and nothing can be sent any more."""
    websocket = await opened(ends)
    await ends[1].write(close_frame(1012, "restart"))
    assert await everything(websocket) == []
    assert websocket.closing == (1012, "restart")
    assert await ends[1].next() == Close(1012, "")
    with pytest.raises(ConnectionError):
        await websocket.send("late")
    websocket.abort()


async def test_saying_goodbye(ends: tuple[socket.socket, Peer]) -> None:
    """Closing says so once, and is done when the server has let go."""
    websocket = await opened(ends)
    closing = asyncio.create_task(websocket.close(1000, "done"))
    assert await ends[1].next() == Close(1000, "done")
    with pytest.raises(ConnectionError):
        await websocket.send("late")
    await ends[1].write(close_frame(1000))
    ends[1].hang_up()
    await closing
    assert await everything(websocket) == []
    assert websocket.closing == (1000, "")


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (client_frame(Opcode.TEXT, b"masked", b"\1\2\3\4"), 1002),
        (text_frame(b"x" * (LIMIT + 1)), 1009),
        (text_frame(b"\xff"), 1007),
    ],
)
async def test_a_server_that_breaks_the_protocol(
    ends: tuple[socket.socket, Peer], wire: bytes, code: int
) -> None:
    """The connection ends with the code that says why; what came before is read."""
    websocket = await opened(ends)
    await ends[1].write(text_frame(b"good") + wire)
    assert await everything(websocket) == ["good"]
    assert websocket.closing[0] == code
    match await ends[1].next():
        case Close(sent):
            assert sent == code
    websocket.abort()


async def test_a_connection_that_breaks(ends: tuple[socket.socket, Peer]) -> None:
    """Whoever reads comes to the end, and whoever waits to send does not wait for ever."""
    websocket = await opened(ends)
    sending = asyncio.create_task(websocket.send(b"x" * 5_000_000))
    await asyncio.sleep(0)
    assert not sending.done()
    ends[1].hang_up()
    assert await everything(websocket) == []
    await sending
    assert websocket.closing == (1006, "")


async def test_a_server_that_reads_slowly(ends: tuple[socket.socket, Peer]) -> None:
    """Sending waits until there is room again."""
    websocket = await opened(ends)
    sending = asyncio.create_task(websocket.send(b"x" * 5_000_000))
    await asyncio.sleep(0)
    assert not sending.done()
    assert await ends[1].next() == Binary(b"x" * 5_000_000)
    await sending
    websocket.abort()


async def test_frames_come_some_at_a_time(ends: tuple[socket.socket, Peer]) -> None:
    """However many came at once; and while they wait to be read, no more are taken from the wire."""
    count = 3 * AT_ONCE
    websocket = await opened(ends, then=text_frame(b"x") * count + close_frame(1000))
    sizes = [len(frames) async for frames in websocket.frames()]
    assert sum(sizes) == count
    assert max(sizes) <= AT_ONCE
    websocket.abort()


async def test_a_client_that_lags_reads_no_more(ends: tuple[socket.socket, Peer]) -> None:
    """Nothing is taken from the wire while much waits to be read; then it goes on."""
    websocket = await opened(ends, then=text_frame(b"x") * (AT_ONCE + 1))
    assert not websocket._transport.is_reading()
    await ends[1].write(text_frame(b"later") + close_frame(1000))
    assert await everything(websocket) == ["x"] * (AT_ONCE + 1) + ["later"]
    websocket.abort()


async def test_a_refused_upgrade(ends: tuple[socket.socket, Peer]) -> None:
    """Status, body and the wait the server asks for are known."""
    end, peer = ends
    transport = WebSocketTransport(options={"sock": end})
    opening = asyncio.create_task(transport.open("ws://server.test/", {}))
    await peer.write(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nslow")
    with pytest.raises(UpgradeRefused) as refused:
        await opening
    assert (refused.value.status, refused.value.body, refused.value.retry_after) == (429, b"slow", 7.0)


async def test_an_answer_that_is_no_http(ends: tuple[socket.socket, Peer]) -> None:
    """It is an error of the connection, without the text of what came."""
    end, peer = ends
    opening = asyncio.create_task(WebSocketTransport(options={"sock": end}).open("ws://server.test/", {}))
    await peer.write(b"SSH-2.0-nothing\r\n\r\n")
    peer.hang_up()
    with pytest.raises(ConnectionError, match=r"^no WebSocket handshake \(\w+\)$"):
        await opening
