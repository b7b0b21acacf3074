"""Heads of requests on a real port: cut, pipelined, too large, never-ending, and what stands behind them."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs
from tests.integration.door.conftest import PATIENCE, Port, get, port, upgrade

from backbeat.server.entrance import ConnectionSettings
from backbeat.websocket.frames import Opcode, client_frame


async def test_http_and_then_a_socket_on_one_connection(plain: Port) -> None:
    """A connection that was kept alive can still become a socket."""
    async with plain.line() as line:
        line.send(get())
        assert (await line.answer()).status == 200
        await line.opened()
        assert await line.beats()


async def test_frames_in_the_same_bytes_as_the_head_are_read(plain: Port) -> None:
    """A client need not wait for the answer to its handshake."""
    async with plain.line() as line:
        line.send(upgrade() + client_frame(Opcode.PING, b"early", b"mask"))
        assert (await line.answer()).status == 101
        assert await line.frame() == (Opcode.PONG, b"early")


async def test_a_head_may_come_in_pieces(plain: Port) -> None:
    """Wherever it is cut."""
    async with plain.line() as line:
        for byte in upgrade():
            line.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await line.answer()).status == 101


async def test_a_request_behind_an_upgrade_is_read_as_frames(plain: Port) -> None:
    """And is none: 1002."""
    async with plain.line() as line:
        line.send(upgrade() + get())
        assert (await line.answer()).status == 101
        assert (await line.closed_with())[0] == 1002
    assert plain.metrics.closes == {"PROTOCOL_ERROR": 1}


async def test_frames_behind_a_refused_upgrade_are_not_answered(plain: Port) -> None:
    """There is one answer, and the connection is closed."""
    async with plain.line() as line:
        line.send(upgrade(query="apikey=nonsense") + upgrade())
        assert (await line.answer()).status == 401
        assert await line.rest() == b""


async def test_an_upgrade_does_not_overtake_an_answer(plain: Port) -> None:
    """Behind a request that is not answered yet it is refused: its answer would be taken for the other's."""
    async with plain.line() as line:
        line.send(get() + upgrade())
        assert b"101" not in await line.rest()
    assert plain.metrics.refusals == {"InvalidHandshake": 1}


async def test_an_upgrade_to_something_else_is_a_request_like_any_other(plain: Port) -> None:
    """Curl offers HTTP/2 like that; what follows on the connection is read too."""
    async with plain.line() as line:
        offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
        line.send(get("/healthcheck", *offer) + get())
        assert [(await line.answer()).status for _ in range(2)] == [200, 200]


async def test_an_upgrade_with_a_body_is_refused_at_once(plain: Port) -> None:
    """Its head says enough; the body is not waited for."""
    async with plain.line() as line:
        line.send(upgrade("Content-Length: 1000"))
        answer = await line.answer()
    assert (answer.status, answer.code) == (400, "InvalidHandshake")


async def test_an_upgrade_of_http_1_0_is_refused(plain: Port) -> None:
    """RFC 6455 section 4.2.1 asks for 1.1."""
    async with plain.line() as line:
        line.send(upgrade().replace(b"HTTP/1.1", b"HTTP/1.0"))
        answer = await line.answer()
    assert (answer.status, answer.code) == (400, "InvalidHandshake")


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        (upgrade(*(f"X-{number}: y" for number in range(100))), 431, "RequestHeadTooLarge"),
        (upgrade("X: " + "y" * 40_000), 431, "RequestHeadTooLarge"),
        (get("/", "X: " + "y" * 40_000), 431, "RequestHeadTooLarge"),
        (get("/?" + "x" * 20_000), 414, "RequestTargetTooLong"),
        (upgrade(query="apikey=" + "x" * 20_000), 414, "RequestTargetTooLong"),
        (b"GARBAGE\r\n\r\n", 400, "MalformedHttpRequest"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "MalformedHttpRequest"),
    ],
    ids=["many headers", "a large header", "plain http", "a long line", "a long query", "garbage", "tls"],
)
async def test_a_head_beyond_its_limits_is_refused(plain: Port, head: bytes, status: int, code: str) -> None:
    """With the status that says so, a counter, a line in the log, and the end of the connection."""
    with capture_logs() as lines:
        async with plain.line() as line:
            line.send(head)
            answer = await line.answer()
            assert await line.rest() == b""
    assert (answer.status, answer.code, answer.headers["connection"]) == (status, code, "close")
    assert plain.metrics.refusals == {code: 1}
    told = [each for each in lines if each["event"] == "connection refused"]
    assert [(each["code"], each["address"]) for each in told] == [(code, "127.0.0.1")]


@pytest.mark.parametrize(
    "beginning",
    [
        b"GET / HTTP/1.1\r\nX: ",
        b"GET /",
        b"\r\n",
        b"POST /api/broadcast HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;x=",
        b"POST /api/broadcast HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: ",
    ],
    ids=["header", "target", "empty lines", "chunk extension", "trailer"],
)
async def test_what_never_ends_is_cut_off(plain: Port, beginning: bytes) -> None:
    """Whatever a parser could be made to collect, it is not collected for ever."""
    async with plain.line() as line:
        line.send(beginning)
        piece = b"\r\n" * 4096 if beginning == b"\r\n" else b"y" * 8192
        async with asyncio.timeout(PATIENCE):
            while not plain.metrics.refusals:
                line.send(piece)
                await asyncio.sleep(0)
    await plain.until_places(0)


async def test_the_limit_on_heads_is_a_setting() -> None:
    """Both ways."""
    async with port(connections=ConnectionSettings(max_head_bytes=100_000)) as server, server.line() as line:
        await line.opened("X: " + "y" * 80_000)
    async with port(connections=ConnectionSettings(max_headers=7)) as server, server.line() as line:
        line.send(upgrade("X: 1", "Y: 2", "Z: 3"))
        assert (await line.answer()).status == 431


HEADS = {
    "as browsers write it": upgrade(),
    "as one browser writes it": upgrade().replace(b"Connection: Upgrade", b"Connection: keep-alive, Upgrade"),
    "in capitals": upgrade().replace(b"Upgrade: websocket", b"UPGRADE: WEBSOCKET"),
    "without a key": upgrade().replace(b"Sec-WebSocket-Key", b"X-Other"),
    "of another version": upgrade().replace(b"Version: 13", b"Version: 8"),
    "with a folded header": upgrade("X-A: 1", " 2"),
    "with a body": upgrade("Content-Length: 3"),
    "to somewhere else": upgrade(path="/elsewhere"),
    "with a key that is none": upgrade(query="apikey=nonsense"),
    "with too many headers": upgrade(*("X-A: 1" for _ in range(200))),
    "with a long query": upgrade(query="a=" + "b" * 40_000),
    "that is a POST": upgrade().replace(b"GET ", b"POST ", 1),
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
async def test_a_head_gets_the_same_answer_whole_or_in_pieces(plain: Port, head: bytes) -> None:
    """In one piece it takes a shorter way, which is no other way."""
    answers = []
    for pieces in ([head], [head[:7], head[7:]]):
        async with plain.line() as line:
            for piece in pieces:
                line.send(piece)
                await asyncio.sleep(0.01)
            answers.append((await line.answer()).status)
    assert answers[0] == answers[1]
