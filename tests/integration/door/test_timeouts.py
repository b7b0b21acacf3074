"""What arrives too late on a real port, and what may take its time."""

from __future__ import annotations

import asyncio
import json

from tests.integration.door.conftest import KEY, PATIENCE, get, impatient, port, upgrade


async def test_a_connection_that_says_nothing_is_closed() -> None:
    """Without a word: nobody asked anything."""
    async with port(connections=impatient()) as server, server.line() as line:
        assert await line.rest() == b""
        assert server.metrics.refusals == {"RequestTimeout": 1}


async def test_half_a_head_is_told_that_time_is_up() -> None:
    """However many bytes trickle in."""
    async with port(connections=impatient()) as server, server.line() as line:

        async def trickle() -> None:
            for byte in upgrade():
                line.send(bytes([byte]))
                await asyncio.sleep(0.05)

        trickling = asyncio.create_task(trickle())
        assert (await line.answer()).code == "RequestTimeout"
        assert await line.rest() == b""
        trickling.cancel()


async def test_half_a_head_behind_a_request_is_cut_off_too() -> None:
    """Any byte stops uvicorn's own clock for connections that are kept alive."""
    async with port(connections=impatient()) as server, server.line() as line:
        line.send(get())
        assert (await line.answer()).status == 200
        line.send(b"\r\n")
        assert (await line.answer()).status == 408


async def test_a_body_that_stops_is_cut_off() -> None:
    """It has the time of a message."""
    async with port(connections=impatient()) as server, server.line() as line:
        head = f"POST /api/broadcast HTTP/1.1\r\nHost: x\r\napikey: {KEY}\r\nContent-Length: 1000\r\n\r\n"
        line.send(head.encode() + b"abc")
        await line.rest()
        assert server.metrics.refusals == {"RequestTimeout": 1}


async def test_a_slow_body_is_read_to_its_end() -> None:
    """Longer than a head may take, and longer than a message may take however short."""
    body = json.dumps({"messages": [{"topic": "x", "event": "e", "payload": {"x": "y" * 2000}}]}).encode()
    settings = impatient(message_timeout=0.5, min_message_rate=500)
    async with port(connections=settings) as server, server.line() as line:
        head = (
            f"POST /api/broadcast HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\napikey: {KEY}\r\n"
        )
        line.send(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode())
        for start in range(0, len(body), 200):
            line.send(body[start : start + 200])
            await asyncio.sleep(0.06)
        assert (await line.answer()).status == 202


async def test_whoever_does_not_read_its_answers_is_dropped() -> None:
    """A connection could be held like that as well as with half a request."""
    async with port(connections=impatient()) as server, server.line() as line:
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(PATIENCE):
            while not server.metrics.slow_readers:
                line.send(get("/api/openapi") * 100)
                await asyncio.sleep(0.01)
        await server.until_places(0)


async def test_an_open_socket_outlives_the_handshake_timeout() -> None:
    """The clock stops with the upgrade."""
    async with port(connections=impatient()) as server, server.line() as line:
        await line.opened()
        await asyncio.sleep(1.0)
        assert await line.beats()
