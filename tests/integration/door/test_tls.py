"""HTTPS and wss on one port."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path

import pytest
from tests.certificates import certificate
from tests.integration.door.conftest import PATIENCE, Line, get, impatient, port

from backbeat.server.entrance import ConnectionSettings
from backbeat.server.tls import tls_context
from backbeat.websocket.frames import Opcode

ROOM = "realtime:room"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost, and its key."""
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def served(files: tuple[Path, Path]) -> ssl.SSLContext:
    """What the server speaks TLS with."""
    context = tls_context(*files)
    assert context is not None
    return context


@pytest.fixture
def trusting(files: tuple[Path, Path]) -> ssl.SSLContext:
    """What a client that trusts the certificate speaks TLS with."""
    return ssl.create_default_context(cafile=files[0])


async def joined(line: Line) -> None:
    """Open a socket and join the room."""
    await line.opened()
    line.push(ROOM, "phx_join", {"config": {}})
    assert (await line.message())[4]["status"] == "ok"


async def test_http_and_sockets_on_one_port(served: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    """And on one connection, one after the other."""
    async with port(tls=served) as server, server.line(tls=trusting) as line:
        line.send(get())
        assert (await line.answer()).status == 200
        await line.opened()
        assert await line.beats()


async def test_a_broadcast_reaches_everybody(served: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    """Also a large one, which TLS cuts into records."""
    async with (
        port(tls=served) as server,
        server.line(tls=trusting) as sender,
        server.line(tls=trusting) as near,
        server.line(tls=trusting) as far,
    ):
        for line in (sender, near, far):
            await joined(line)
        payload = {"type": "broadcast", "event": "e", "payload": {"x": "y" * 500_000}}
        sender.push(ROOM, "broadcast", payload)
        for line in (near, far):
            assert (await line.message())[4]["payload"] == payload["payload"]


async def test_a_slow_reader_is_dropped(served: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    """What waits in the layer of TLS counts; the others go on."""
    async with (
        port(tls=served, write_buffer_bytes=100_000, max_payload_bytes=300_000) as server,
        server.line(tls=trusting) as sender,
        server.line(tls=trusting) as listener,
        server.line(tls=trusting) as stuck,
    ):
        for line in (sender, listener, stuck):
            await joined(line)
        stuck.writer.transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(PATIENCE):
            while not server.metrics.slow_readers:
                sender.push(ROOM, "broadcast", {"event": "e", "payload": {"x": "y" * 200_000}})
                assert (await listener.message())[3] == "broadcast"
        await server.until_places(2)


async def test_a_server_that_stops_says_so(served: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    """1012, with which clients come back."""
    async with port(tls=served) as server, server.line(tls=trusting) as line:
        await line.opened()
        server.stop.set()
        assert await line.closed_with() == (1012, "Realtime is restarting")


async def test_a_refusal_can_be_read(served: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    """TLS has no half-closed connections; the answer arrives all the same."""
    async with port(tls=served, connections=ConnectionSettings(max_headers=3)) as server:
        async with server.line(tls=trusting) as line:
            line.send(get("/", *(f"X-{number}: y" for number in range(9))))
            answer = await line.answer()
            assert (answer.status, json.loads(answer.body)["code"]) == (431, "RequestHeadTooLarge")
            assert await line.rest() == b""
        await server.until_places(0)


async def test_a_handshake_that_is_never_finished_is_cut_off(served: ssl.SSLContext) -> None:
    """By the time that any handshake has."""
    async with port(tls=served, connections=impatient()) as server, server.line() as line:
        line.send(b"\x16\x03\x01")
        await line.rest()
        assert line.reader.at_eof()


async def test_plain_http_to_a_port_of_tls_harms_nobody(
    served: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    """It is no handshake; the next one is."""
    async with port(tls=served) as server:
        async with server.line() as line:
            line.send(get())
            await line.rest()
        async with server.line(tls=trusting) as line:
            await line.opened()


async def test_a_client_that_says_goodbye_is_answered(
    served: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    """With its own code, and then with that of TLS."""
    async with port(tls=served) as server, server.line(tls=trusting) as line:
        await line.opened()
        line.send_frame(Opcode.CLOSE, (1000).to_bytes(2, "big"))
        assert (await line.closed_with())[0] == 1000
        assert await line.rest() == b""
        line.writer.close()
        await server.until_places(0)
