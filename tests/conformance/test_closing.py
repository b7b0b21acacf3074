"""What a client sees of an end, over TCP, when the timing is bad."""

from __future__ import annotations

import json

import pytest
from tests.conformance.cases import DEFAULT_LIMIT, MASK, close, frame
from tests.conformance.driver import Driver, connected
from tests.conformance.servers import serving

from backbeat.websocket.frames import CloseCode, Opcode

MEGABYTE = 1_000_000
TEXT, BINARY = Opcode.TEXT, Opcode.BINARY


def header(opcode: int, size: int) -> bytes:
    """The header of a frame whose payload does not have to exist."""
    return bytes((0x80 | opcode, 0x80 | 127)) + size.to_bytes(8, "big") + MASK


def said(driver: Driver) -> tuple[int | None, str, int]:
    """The close code, how the connection ended, and how many frames followed the close."""
    return driver.closed, driver.ended, len(driver.after_close)


async def refused_while_sending(driver: Driver, head: bytes, megabytes: int) -> None:
    """Send a message to its end, although it is refused at its beginning."""
    await driver.write(head)
    for _ in range(megabytes):
        await driver.write(bytes(MEGABYTE))
    await driver.until_closed()
    await driver.write(close(driver.closed))
    await driver.until_ended()


async def test_a_client_that_goes_on_sending_reads_why_it_was_refused() -> None:
    """100 MB are announced and sent; the close frame with 1009 arrives, and no reset."""
    async with serving() as server, connected(server, Driver) as driver:
        await refused_while_sending(driver, header(BINARY, 100 * MEGABYTE), 100)
        assert said(driver) == (1009, "eof", 0)


async def test_a_client_that_goes_on_sending_reads_that_it_broke_the_rules() -> None:
    """The same for any other violation."""
    async with serving() as server, connected(server, Driver) as driver:
        await refused_while_sending(driver, frame(0x3), 20)
        assert said(driver) == (1002, "eof", 0)


async def test_a_client_that_goes_on_sending_after_its_close_reads_the_answer() -> None:
    """It must not, but whoever does is not reset."""
    async with serving() as server, connected(server, Driver) as driver:
        await refused_while_sending(driver, close(1000), 20)
        assert said(driver) == (1000, "eof", 0)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("fragmented", [False, True])
async def test_the_limit_is_exact(opcode: Opcode, fragmented: bool) -> None:
    """A message of as many bytes as it may have keeps the socket; one byte more is 1009."""
    async with serving() as server:
        for size, code in ((DEFAULT_LIMIT, 1000), (DEFAULT_LIMIT + 1, 1009)):
            half = size // 2
            payload = b"x" * size
            message = (
                frame(opcode, payload[:half], fin=False) + frame(Opcode.CONTINUATION, payload[half:])
                if fragmented
                else frame(opcode, payload)
            )
            async with connected(server, Driver) as driver:
                await driver.write(message)
                await driver.write(close(1000))
                await driver.until_ended()
                assert said(driver) == (code, "eof", 0)


def push(event: str, payload: object, ref: str) -> bytes:
    """A message of a client in the room."""
    return frame(TEXT, json.dumps(["1", ref, "realtime:room", event, payload]).encode())


async def joined(driver: Driver) -> None:
    """Join the room."""
    await driver.write(push("phx_join", {"config": {"broadcast": {"self": True}}}, "1"))
    await driver.until_heard(1)
    assert b'"ok"' in driver.heard[0][1]


async def talk(driver: Driver, first: int, count: int) -> None:
    """Send broadcasts to the room, and to oneself."""
    for number in range(first, first + count):
        await driver.write(push("broadcast", {"n": number}, "2"))


async def test_no_broadcast_follows_a_close_frame() -> None:
    """Others go on talking between the close frame of the server and the answer of the client."""
    async with serving() as server, connected(server, Driver) as listener:
        (socket,) = server.server.realtime._sockets
        await joined(listener)
        async with connected(server, Driver) as talker:
            await joined(talker)
            await talk(talker, 0, 20)
            await listener.until_heard(21)
            await talk(talker, 20, 100)
            socket.close(CloseCode.NORMAL, "idle timeout")
            await talk(talker, 120, 100)
            await talker.until_heard(221)
            await listener.until_closed()
            assert said(listener) == (1000, "", 0)
            await listener.write(close(1000))
            await listener.until_ended()
            assert said(listener) == (1000, "eof", 0)
            broadcasts = [json.loads(data)[4] for _, data in listener.heard[1:]]
            assert broadcasts == [{"n": number} for number in range(len(broadcasts))]
            assert 20 <= len(broadcasts) <= 120
