"""HTTPS and wss on one port."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import ssl
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import structlog
from tests.certificates import certificate
from tests.integration.door.conftest import PATIENCE, Line, get, impatient, port

from backbeat.server import listener
from backbeat.server.certificate import Certificate
from backbeat.server.entrance import FEW, ConnectionSettings
from backbeat.server.tls_port import HINTS
from backbeat.websocket.frames import Opcode

ROOM = "realtime:room"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost, and its key."""
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def served(files: tuple[Path, Path]) -> Certificate:
    """What the server speaks TLS with."""
    return Certificate(*files)


@pytest.fixture
def trusting(files: tuple[Path, Path]) -> ssl.SSLContext:
    """What a client that trusts the certificate speaks TLS with."""
    return ssl.create_default_context(cafile=files[0])


async def joined(line: Line) -> None:
    """Open a socket and join the room."""
    await line.opened()
    line.push(ROOM, "phx_join", {"config": {}})
    assert (await line.message())[4]["status"] == "ok"


async def test_http_and_sockets_on_one_port(served: Certificate, trusting: ssl.SSLContext) -> None:
    """And on one connection, one after the other."""
    async with port(tls=served) as server, server.line(tls=trusting) as line:
        line.send(get())
        assert (await line.answer()).status == 200
        await line.opened()
        assert await line.beats()


async def test_a_broadcast_reaches_everybody(served: Certificate, trusting: ssl.SSLContext) -> None:
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


async def test_a_slow_reader_is_dropped(served: Certificate, trusting: ssl.SSLContext) -> None:
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


async def test_a_server_that_stops_says_so(served: Certificate, trusting: ssl.SSLContext) -> None:
    """1012, with which clients come back."""
    async with port(tls=served) as server, server.line(tls=trusting) as line:
        await line.opened()
        server.stop.set()
        assert await line.closed_with() == (1012, "Realtime is restarting")


async def test_a_refusal_can_be_read(served: Certificate, trusting: ssl.SSLContext) -> None:
    """TLS has no half-closed connections; the answer arrives all the same."""
    async with port(tls=served, connections=ConnectionSettings(max_headers=3)) as server:
        async with server.line(tls=trusting) as line:
            line.send(get("/", *(f"X-{number}: y" for number in range(9))))
            answer = await line.answer()
            assert (answer.status, json.loads(answer.body)["code"]) == (431, "RequestHeadTooLarge")
            assert await line.rest() == b""
        await server.until_places(0)


async def test_a_handshake_that_is_never_finished_is_cut_off(served: Certificate) -> None:
    """By the time that any handshake has; it had a place, gives it back, and is counted."""
    async with port(tls=served, connections=impatient()) as server, server.line() as line:
        line.send(b"\x16\x03\x01")
        await server.until_places(1)
        await line.rest()
        assert line.reader.at_eof()
        await server.until_places(0)
        assert server.metrics.closes == {"TlsHandshakeTimeout": 1}


async def test_plain_http_to_a_port_of_tls_harms_nobody(
    served: Certificate, trusting: ssl.SSLContext
) -> None:
    """It is no handshake, and told as that; the next one is."""
    with structlog.testing.capture_logs() as logs:
        async with port(tls=served) as server:
            async with server.line() as line:
                line.send(get())
                await line.rest()
            async with server.line(tls=trusting) as line:
                await line.opened()
            assert server.metrics.closes == {"TlsHandshakeFailed": 1}
    (told,) = [each for each in logs if each["event"] == "tls handshake failed"]
    assert (told["reason"], told["address"]) == ("HTTP_REQUEST", "127.0.0.1")


async def test_a_client_that_does_not_trust_the_certificate_is_told_of(served: Certificate) -> None:
    """It breaks off, and whoever runs the server learns why."""
    with structlog.testing.capture_logs() as logs:
        async with port(tls=served) as server:

            def connect() -> None:
                # The client of asyncio goes without the word that others say.
                with socket.create_connection(("127.0.0.1", server.number), PATIENCE) as line:
                    ssl.create_default_context().wrap_socket(line, server_hostname="localhost")

            with pytest.raises(ssl.SSLCertVerificationError):
                await asyncio.to_thread(connect)
            await server.until_places(0)
    (told,) = [each for each in logs if each["event"] == "tls handshake failed"]
    assert (told["reason"], told["hint"]) == ("TLSV1_ALERT_UNKNOWN_CA", HINTS["TLSV1_ALERT_UNKNOWN_CA"])


async def test_handshakes_under_way_take_places(served: Certificate, trusting: ssl.SSLContext) -> None:
    """Whoever begins many and finishes none keeps nobody else out, but for those of the same address."""
    async with (
        port(tls=served, connections=ConnectionSettings(max_connections_per_address=2)) as server,
        server.line(),
        server.line(),
    ):
        await server.until_places(2)
        async with server.line(tls=trusting) as line:
            line.send(get())
            answer = await line.answer()
            assert (answer.status, answer.code) == (429, "TooManyConnectionsFromAddress")
            await line.rest()


async def test_a_flood_of_handshakes_holds_only_so_many_files(served: Certificate) -> None:
    """Those beyond are closed without a word, and counted."""
    async with (
        port(tls=served, connections=ConnectionSettings(max_connections=1)) as server,
        AsyncExitStack() as lines,
    ):
        await lines.enter_async_context(server.line())
        await server.until_places(1)
        for _ in range(FEW):
            await lines.enter_async_context(server.line())
        async with server.line() as line:
            assert await line.rest() == b""
            assert server.metrics.refusals == {"TooManyConnections": 1}


class Full(socket.socket):
    """A listener of a process that has no open file left, for a moment."""

    full = True

    def accept(self) -> tuple[socket.socket, Any]:
        """Fail once."""
        if self.full:
            self.full = False
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


async def test_who_cannot_be_accepted_waits(
    served: Certificate, trusting: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told to the log, and tried again a little later."""
    monkeypatch.setattr("backbeat.server.tls_port.PAUSE", 0.05)

    def listen(*args: Any, **options: Any) -> list[socket.socket]:
        return [Full(fileno=each.detach()) for each in listener.listen(*args, **options)]

    monkeypatch.setattr("tests.integration.door.conftest.listen", listen)
    with structlog.testing.capture_logs() as logs:
        async with port(tls=served) as server, server.line(tls=trusting) as line:
            await line.opened()
    assert "no connection can be accepted" in [each["event"] for each in logs]


async def test_a_server_that_stops_waits_for_no_handshake(served: Certificate) -> None:
    """Nothing was promised yet."""
    async with port(tls=served) as server, server.line() as line:
        await server.until_places(1)
        server.stop.set()
        assert await line.rest() == b""
        await server.until_places(0)


async def test_a_renewed_certificate_is_shown_to_the_next_client(tmp_path: Path) -> None:
    """Connections that are open go on."""
    served = Certificate(*certificate(tmp_path))
    before = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    async with port(tls=served) as server, server.line(tls=before) as old:
        await old.opened()
        after = ssl.create_default_context(cafile=certificate(tmp_path)[0])
        assert served.refresh()
        async with server.line(tls=after) as new:
            await new.opened()
        assert await old.beats()


async def test_a_client_that_says_goodbye_is_answered(served: Certificate, trusting: ssl.SSLContext) -> None:
    """With its own code, and then with that of TLS."""
    async with port(tls=served) as server, server.line(tls=trusting) as line:
        await line.opened()
        line.send_frame(Opcode.CLOSE, (1000).to_bytes(2, "big"))
        assert (await line.closed_with())[0] == 1000
        assert await line.rest() == b""
        line.writer.close()
        await server.until_places(0)
