"""What an open socket may not do on a real port: dawdle in a message, flood, fall silent, or not read."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs
from tests.integration.door.conftest import PATIENCE, port

from backbeat.server.entrance import ConnectionSettings
from backbeat.websocket.frames import Opcode, client_frame


@pytest.mark.parametrize("interval", [None, 0.05], ids=["stops", "a byte now and then"])
async def test_a_message_that_does_not_get_on_closes_the_socket(interval: float | None) -> None:
    """1008, however lively the single bytes look; with a counter and a line in the log."""
    frame = client_frame(Opcode.TEXT, b"x" * 4_000_000, b"mask")
    with capture_logs() as lines:
        async with port(connections=ConnectionSettings(message_timeout=0.2)) as server, server.line() as line:
            await line.opened()

            async def trickle() -> None:
                for byte in frame:
                    line.send(bytes([byte]))
                    await asyncio.sleep(interval or PATIENCE)

            trickling = asyncio.create_task(trickle())
            assert await line.closed_with() == (1008, "a message took too long to arrive")
            trickling.cancel()
            assert server.metrics.closes == {"MessageTooSlow": 1}
    assert [each["code"] for each in lines if each["event"] == "socket closed"] == ["MessageTooSlow"]


async def test_pings_between_fragments_do_not_keep_a_message_alive() -> None:
    """The message is as old as its first fragment."""
    async with port(connections=ConnectionSettings(message_timeout=0.2)) as server, server.line() as line:
        await line.opened()
        line.send_frame(Opcode.TEXT, b"x", fin=False)

        async def ping() -> None:
            while True:
                line.send_frame(Opcode.PING)
                await asyncio.sleep(0.03)

        pinging = asyncio.create_task(ping())
        assert (await line.closed_with())[0] == 1008
        pinging.cancel()


async def test_a_large_message_may_take_its_time() -> None:
    """At the rate that is asked for, longer than a short one may take, and longer than silence may."""
    settings = ConnectionSettings(message_timeout=0.2, min_message_rate=20_000)
    async with port(connections=settings, idle_timeout=1.0) as server, server.line() as line:
        await line.opened()
        text = b'[null,"7","phoenix","heartbeat",{"x":"%b"}]' % (b"x" * 60_000)
        frame = client_frame(Opcode.TEXT, text, b"mask")
        for start in range(0, len(frame), 4000):
            line.send(frame[start : start + 4000])
            await asyncio.sleep(0.08)
        assert (await line.message())[1] == "7"


async def test_many_messages_in_a_row_are_not_taken_for_one() -> None:
    """A busy client is always in the middle of a message when somebody looks."""
    async with port(connections=ConnectionSettings(message_timeout=1.0)) as server, server.line() as line:
        await line.opened()
        beat = client_frame(Opcode.TEXT, b'[null,"1","phoenix","heartbeat",{}]', b"mask")
        line.send(beat[:10])
        for _ in range(40):
            line.send(beat[10:] + beat[:10])
            assert (await line.message())[1] == "1"
            await asyncio.sleep(0.04)
        assert server.metrics.closes == {}


@pytest.mark.parametrize(
    ("opcode", "payload", "name", "reason"),
    [
        (Opcode.PING, b"x", "TooManyControlFrames", "too many pings and pongs"),
        (Opcode.PONG, b"", "TooManyControlFrames", "too many pings and pongs"),
        (Opcode.TEXT, b"{", "TooManyMalformedFrames", "too many frames that are no message"),
    ],
    ids=["pings", "pongs", "garbage"],
)
async def test_a_flood_of_what_is_no_message_closes_the_socket(
    opcode: Opcode, payload: bytes, name: str, reason: str
) -> None:
    """Each costs us work that no other limit counts; a few are nothing."""
    settings = ConnectionSettings(max_control_frames_per_second=2)
    async with port(connections=settings) as server, server.line() as line:
        await line.opened()
        for _ in range(10):
            line.send_frame(opcode, payload)
        line.push("phoenix", "heartbeat")
        while (frame := await line.frame())[0] == Opcode.PONG:
            pass
        assert frame[0] == Opcode.TEXT
        for _ in range(10):
            line.send_frame(opcode, payload)
        assert await line.closed_with() == (1008, reason)
        assert server.metrics.closes == {name: 1}


async def test_endless_small_fragments_close_the_socket() -> None:
    """Empty ones would never make a message that a limit counts."""
    async with port() as server, server.line() as line:
        await line.opened()
        line.send_frame(Opcode.TEXT, fin=False)
        line.send(client_frame(Opcode.CONTINUATION, b"", b"mask", fin=False) * 1100)
        assert await line.closed_with() == (1008, "a message came in too many small fragments")
        assert server.metrics.closes == {"POLICY_VIOLATION": 1}


async def test_whoever_pings_and_does_not_read_is_dropped() -> None:
    """The pongs that wait are bounded, like everything else that waits."""
    settings = ConnectionSettings(max_control_frames_per_second=0)
    frames = client_frame(Opcode.PING, b"x" * 125, b"mask") * 1000
    async with (
        port(connections=settings, write_buffer_bytes=10_000, max_payload_bytes=10_000) as server,
        server.line() as line,
    ):
        await line.opened()
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(PATIENCE):
            while not server.metrics.slow_readers:
                line.send(frames)
                await asyncio.sleep(0.001)
        assert server.metrics.closes == {"SlowReader": 1}


async def test_a_socket_without_heartbeats_is_closed() -> None:
    """1000 and the original's text, with a counter; heartbeats keep another alive."""
    with capture_logs() as lines:
        async with port(idle_timeout=1.0) as server, server.line() as silent, server.line() as lively:
            await silent.opened()
            await lively.opened()
            closing = asyncio.create_task(silent.closed_with())
            while not closing.done():
                assert await lively.beats()
                await asyncio.sleep(0.05)
            assert await closing == (1000, "idle timeout")
            assert server.metrics.closes == {"IdleTimeout": 1}
    assert [each["code"] for each in lines if each["event"] == "socket closed"] == ["IdleTimeout"]


async def test_a_close_that_is_not_answered_gives_the_place_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is cut off after a while."""
    monkeypatch.setattr("backbeat.server.socket.CLOSE_PATIENCE", 0.1)
    async with port() as server, server.line() as line:
        await line.opened()
        line.send(b"\xff" * 10)
        assert (await line.closed_with())[0] == 1002
        await server.until_places(0)
