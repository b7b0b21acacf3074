"""A crowd of sockets at servers that do their work, lose or double a message, or refuse."""

from __future__ import annotations

import asyncio
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
from tests.certificates import certificate

from backbeat.load.baseline import Connection
from backbeat.load.crowd import Crowd
from backbeat.load.orders import Open, Ran, Run, Settle, Settled
from backbeat.load.refusals import Refusal, Step
from backbeat.load.workload import Kind
from backbeat.websocket.frames import close_frame, text_frame
from backbeat.websocket.handshake import accept, parse_head, refuse

MEMBERS: Final = 5
SYSTEM: Final = (
    b'["1",null,"realtime:t0","system",{"status":"error","message":"Too many messages per second"}]'
)


class Faulty(Connection):
    """A server that treats the third broadcast of its life in its own way."""

    published = 0

    def publish(self, members: Iterable[Connection], frame: bytes) -> None:
        """Pass a broadcast on."""
        type(self).published += 1
        if type(self).published == 3:
            self.third(list(members), frame)
        else:
            super().publish(members, frame)

    def third(self, members: list[Connection], frame: bytes) -> None:
        """What is wrong."""
        raise NotImplementedError


class Losing(Faulty):
    """One member does not get it."""

    def third(self, members: list[Connection], frame: bytes) -> None:
        """Leave one out."""
        for member in members[1:]:
            member.write(frame)


class Doubling(Faulty):
    """One member gets it twice."""

    def third(self, members: list[Connection], frame: bytes) -> None:
        """Write twice."""
        super().publish(members, frame)
        members[-1].write(frame)


class Refusing(Faulty):
    """The sender is told that it is too much."""

    def third(self, members: list[Connection], frame: bytes) -> None:
        """Say no."""
        del members, frame
        self.write(text_frame(SYSTEM))


class Ending(Faulty):
    """The server stops."""

    def third(self, members: list[Connection], frame: bytes) -> None:
        """Say goodbye to everybody."""
        del frame
        for member in members:
            member.write(close_frame(1012, "restarting"))


@asynccontextmanager
async def serving(
    protocol: Callable[[], asyncio.BaseProtocol], tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """A server; its URL."""
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0, ssl=tls)
    async with server:
        place = f"localhost:{server.sockets[0].getsockname()[1]}/?vsn=2.0.0"
        yield f"wss://{place}" if tls else f"ws://{place}"


@asynccontextmanager
async def joined(server: type[Connection], *, topics: int = 1) -> AsyncIterator[Crowd]:
    """A crowd that has joined its topics at a server."""
    rooms: dict[bytes, dict[Connection, None]] = {}
    if issubclass(server, Faulty):
        server.published = 0
    async with serving(lambda: server(rooms)) as url:
        crowd = Crowd()
        opened = await crowd.open(opening(url, topics=topics))
        assert opened.joined == [MEMBERS] * topics
        assert opened.refusals == []
        yield crowd
        await crowd.close()


def opening(url: str, *, topics: int = 1, patience: float = 10.0) -> Open:
    """An order to open sockets."""
    return Open(
        "server", url, [f"realtime:t{number}" for number in range(topics)], MEMBERS, patience=patience
    )


async def measured(
    crowd: Crowd, kind: Kind, *, window: int = 2, patience: float = 10.0
) -> tuple[Ran, Settled]:
    """Measure for a moment, then account for everything."""
    run = Run(
        "server",
        kind,
        secrets.token_hex(4),
        begin=time.monotonic_ns(),
        warm=0.0,
        seconds=0.1,
        window=window,
        members=[MEMBERS],
    )
    ran = await crowd.measure(run)
    return ran, await crowd.settle(Settle("server", None, patience))


@pytest.mark.parametrize("window", [1, 2, 32])
async def test_every_member_gets_every_message_once(window: int) -> None:
    """However many are in flight."""
    async with joined(Connection) as crowd:
        for _ in range(2):
            ran, settled = await measured(crowd, Kind.FANOUT, window=window)
            assert ran.sent >= window
            assert settled == Settled(ran.sent * MEMBERS, 0, 0, {}, [])


async def test_topics_are_counted_apart() -> None:
    """Each has its own numbers."""
    async with joined(Connection, topics=4) as crowd:
        ran, settled = await measured(crowd, Kind.TOPICS, window=3)
        assert ran.sent >= 3
        assert settled == Settled(ran.sent * MEMBERS, 0, 0, {}, [])


async def test_heartbeats_are_answered_once() -> None:
    """One after the other, at every socket."""
    async with joined(Connection) as crowd:
        ran, settled = await measured(crowd, Kind.HEARTBEATS)
        assert ran.count > 0
        assert settled == Settled(0, 0, 0, {}, [])


async def test_latency_is_measured_for_every_delivery() -> None:
    """From when a message was due; those that were still under way at the end are among them."""
    async with joined(Connection) as crowd:
        run = Run("server", Kind.LATENCY, "0badcafe", time.monotonic_ns(), 0.0, 0.1, rate=100.0)
        ran = await crowd.measure(run)
        settled = await crowd.settle(Settle("server", None, 10.0))
        assert sum(settled.latencies.values()) == settled.expected == ran.sent * MEMBERS


async def test_a_lost_message_is_found() -> None:
    """One member of five did not get one."""
    async with joined(Losing) as crowd:
        ran, settled = await measured(crowd, Kind.FANOUT, window=3, patience=0.2)
        assert settled == Settled(ran.sent * MEMBERS, 1, 0, {}, [])


async def test_a_doubled_message_is_found() -> None:
    """One member of five got one twice."""
    async with joined(Doubling) as crowd:
        ran, settled = await measured(crowd, Kind.FANOUT, window=3)
        assert settled == Settled(ran.sent * MEMBERS, 0, 1, {}, [])


@pytest.mark.parametrize(
    ("server", "refusal", "count"),
    [
        (Refusing, Refusal(Step.MESSAGE, "Too many messages per second"), 1),
        (Ending, Refusal(Step.CLOSED, "1012 'restarting'"), MEMBERS),
    ],
)
async def test_a_refusal_ends_the_measurement(server: type[Faulty], refusal: Refusal, count: int) -> None:
    """It is told with its words, and nobody waits for the rest."""
    async with joined(server) as crowd:
        run = Run("server", Kind.FANOUT, "0badcafe", time.monotonic_ns(), 0.0, 50.0, 2, [MEMBERS])
        ran = await crowd.measure(run)
        closed = await crowd.close()
    assert sum(number for each, number in ran.refusals + closed.refusals if each == refusal) == count


class Script(asyncio.Protocol):
    """A server that answers everything with the same bytes.

    Args:
        answer: makes them from the head of the request.
        hang_up: whether it closes the connection then.
    """

    def __init__(self, answer: Callable[[bytes], bytes], *, hang_up: bool) -> None:
        self._answer = answer
        self._hang_up = hang_up

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer."""
        self._transport.write(self._answer(data))
        if self._hang_up:
            self._transport.close()


def accepted(then: bytes) -> Callable[[bytes], bytes]:
    """Accept the upgrade, and say something."""
    return lambda head: accept(parse_head(head)) + text_frame(then) if head.startswith(b"GET") else b""


NO = b'["1","1","realtime:t0","phx_reply",{"status":"error","response":{"reason":"Denied: no"}}]'


@pytest.mark.parametrize(
    ("answer", "hang_up", "refusal"),
    [
        (lambda _: refuse(401, b'{"error":"Invalid key"}'), True, Refusal(Step.UPGRADE, "Invalid key", 401)),
        (lambda _: refuse(403, b'{"message":"No"}'), False, Refusal(Step.UPGRADE, "No", 403)),
        (lambda _: refuse(404, b"<html>"), False, Refusal(Step.UPGRADE, "Not Found", 404)),
        (lambda _: b"SSH-2.0-x\r\n", False, Refusal(Step.UPGRADE, "The server does not answer in HTTP.")),
        (lambda _: b"", True, Refusal(Step.UPGRADE, "the connection was closed without a word")),
        (accepted(NO), False, Refusal(Step.JOIN, "Denied: no")),
        (accepted(b"[]"), True, Refusal(Step.JOIN, "the connection was closed without a word")),
    ],
)
async def test_whatever_a_server_refuses_is_told(
    answer: Callable[[bytes], bytes], hang_up: bool, refusal: Refusal
) -> None:
    """Once for each socket, in its own words."""
    async with serving(lambda: Script(answer, hang_up=hang_up)) as url:
        opened = await Crowd().open(opening(url))
    assert (opened.joined, opened.refusals) == ([0], [(refusal, MEMBERS)])


async def test_an_answer_that_belongs_to_another_handshake_is_none() -> None:
    """A cache may have given it (RFC 6455, section 4.1)."""
    other = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    other += b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    async with serving(lambda: Script(lambda _: accept(parse_head(other)), hang_up=False)) as url:
        opened = await Crowd().open(opening(url))
    ((refusal, _),) = opened.refusals
    assert refusal == Refusal(Step.UPGRADE, "the answer to the handshake belongs to another one", 101)


async def test_silence_ends_after_the_patience() -> None:
    """And no more sockets are opened."""
    async with serving(lambda: Script(lambda _: b"", hang_up=False)) as url:
        opened = await Crowd().open(opening(url, patience=0.05))
    ((refusal, _),) = opened.refusals
    assert refusal == Refusal(Step.UPGRADE, "no answer within 0.05 s")


async def test_a_port_without_a_listener_is_told() -> None:
    """In the words of the system."""
    opened = await Crowd().open(opening("ws://127.0.0.1:1/?vsn=2.0.0"))
    ((refusal, _),) = opened.refusals
    assert refusal == Refusal(Step.CONNECT, "Connection refused")


async def test_a_port_without_tls_is_told() -> None:
    """In the words of OpenSSL."""
    async with serving(lambda: Script(lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n", hang_up=True)) as url:
        opened = await Crowd().open(opening(url.replace("ws:", "wss:")))
    assert {refusal.step for refusal, _ in opened.refusals} == {Step.TLS}


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    """What a server for localhost speaks TLS with; its certificate is in the folder of the test."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate(tmp_path))
    return context


async def test_a_certificate_that_is_trusted_is_joined_over(
    tls: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the name in the URL, though the name was looked up before."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    async with serving(lambda: Connection({}), tls) as url:
        crowd = Crowd()
        opened = await crowd.open(opening(url))
        await crowd.close()
    assert (opened.joined, opened.refusals) == ([MEMBERS], [])


async def test_a_certificate_that_is_not_trusted_is_told(tls: ssl.SSLContext) -> None:
    """In the words of OpenSSL."""
    async with serving(lambda: Connection({}), tls) as url:
        opened = await Crowd().open(opening(url))
    ((refusal, _),) = opened.refusals
    assert refusal.step is Step.TLS
    assert "certificate" in refusal.text
