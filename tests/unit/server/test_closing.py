"""How a socket ends: what is said last, and that nothing follows it (RFC 6455, sections 5.5.1 and 7)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from backbeat.server import socket as sockets
from backbeat.websocket.frames import CloseCode, Opcode, client_frame

ROOM = "realtime:room"
CLOSE = Opcode.CLOSE


def close(code: int) -> bytes:
    """The payload of a close frame."""
    return code.to_bytes(2, "big")


async def says_goodbye(server: Any) -> Any:
    """A client in a room, to which the server has sent a close frame that is not answered yet."""
    client = await server.joined()
    client.socket.close(CloseCode.NORMAL, "idle timeout")
    assert [opcode for opcode, _ in client.frames()] == [CLOSE]
    return client


@pytest.mark.parametrize("late", [False, True], ids=["before the turn ends", "after it"])
async def test_a_closing_socket_gets_no_broadcast(server: Any, late: bool) -> None:
    """Between our close frame and the answer to it others go on talking in the room."""
    sender = await server.joined()
    client = await says_goodbye(server)
    if late:
        await client.settled()
    sender.push(ROOM, "broadcast", {"n": 1})
    assert await client.settled() == []


async def test_what_was_published_before_the_close_comes_before_it(server: Any) -> None:
    """A message that waits for the end of its turn is written first, and not behind the close frame."""
    sender, client = await server.joined(), await server.joined()
    sender.push(ROOM, "broadcast", {"n": 1})
    client.socket.close(CloseCode.NORMAL, "idle timeout")
    await asyncio.sleep(0)
    assert [opcode for opcode, _ in client.frames()] == [Opcode.TEXT, CLOSE]


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY, Opcode.PING])
async def test_a_closing_socket_answers_nothing_but_a_close(server: Any, opcode: Opcode) -> None:
    """A ping gets no pong, a heartbeat no reply."""
    client = await says_goodbye(server)
    client.send(opcode, b'[null,"1","phoenix","heartbeat",{}]')
    assert await client.settled() == []


async def test_a_join_that_is_being_decided_is_not_answered_behind_a_close(server: Any) -> None:
    """The policies answer when the close frame is out already."""
    server.policies.open.clear()
    client = server.client()
    client.join(ROOM, private=True)
    client.socket.close(CloseCode.NORMAL, "idle timeout")
    client.frames()
    server.policies.open.set()
    assert await client.settled() == []


async def test_the_answer_to_a_close_ends_the_connection(server: Any) -> None:
    """It is not answered again."""
    client = await says_goodbye(server)
    client.send(CLOSE, close(1000))
    assert client.transport.closed
    assert client.frames() == []


async def test_a_close_is_answered_once(server: Any) -> None:
    """A second close, and whatever else comes behind the first one, is ignored."""
    client = server.client()
    closing = client_frame(CLOSE, close(1000), b"mask")
    client.socket.data_received(closing + closing + client_frame(Opcode.PING, b"", b"mask"))
    client.socket.data_received(closing)
    assert client.frames() == [(CLOSE, close(1000))]


async def test_closing_after_a_close_says_nothing_more(server: Any) -> None:
    """A server that stops leaves alone those who are on their way out."""
    client = server.client()
    client.send(CLOSE, close(1001))
    client.frames()
    client.socket.shutdown()
    assert client.frames() == []


@pytest.mark.parametrize(
    ("payload", "code"),
    [(b"\x03", 1002), (close(1005), 1002), (close(999), 1002), (close(1000) + b"\xff", 1007)],
    ids=["one byte", "must not travel", "unknown", "reason is no UTF-8"],
)
async def test_an_invalid_close_is_a_violation(server: Any, payload: bytes, code: int) -> None:
    """It is not echoed: the answer says what is wrong with it."""
    client = server.client()
    client.send(CLOSE, payload)
    ((opcode, answer),) = client.frames()
    assert (opcode, answer[:2]) == (CLOSE, close(code))


async def test_after_a_violation_no_answer_is_waited_for(server: Any) -> None:
    """It could not be read; the server ends the connection itself."""
    client = server.client()
    client.send(0x3, b"")
    assert client.transport.closed
    assert not client.transport.aborted


class Deaf:
    """A client that hears the end and does not hang up."""

    def __init__(self, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.transport = client.transport
        monkeypatch.setattr(self.transport, "write_eof", lambda: None)
        monkeypatch.setattr(sockets, "CLOSE_PATIENCE", 0.0)

    async def is_cut(self) -> bool:
        """Whether the patience of the server ends."""
        async with asyncio.timeout(5):
            while not self.transport.aborted:
                await asyncio.sleep(0)
        return True


@pytest.mark.parametrize(
    "say",
    [
        lambda client: client.send(CLOSE, close(1000)),
        lambda client: client.send(0x3, b""),
        lambda client: client.socket.close(CloseCode.NORMAL, "idle timeout"),
    ],
    ids=["it closed", "it broke the rules", "it was told to go"],
)
async def test_a_client_that_does_not_hang_up_is_cut(
    server: Any, monkeypatch: pytest.MonkeyPatch, say: Callable[[Any], None]
) -> None:
    """Whoever ends it, and however: no connection stays for ever."""
    client = server.client()
    deaf = Deaf(client, monkeypatch)
    say(client)
    assert await deaf.is_cut()


async def test_what_a_client_sends_after_a_violation_is_forgotten(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be in the middle of a large message. It is read, so that it is not reset, and not kept."""
    client = server.client()
    Deaf(client, monkeypatch)
    client.send(0x3, b"")
    client.socket.data_received(b"x" * 100_000)
    assert "ended" in repr(client.socket._parser)
    assert [opcode for opcode, _ in client.frames()] == [CLOSE]
