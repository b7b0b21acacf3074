"""Who may connect on a real port: origins, places for connections, addresses behind proxies, keys."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from contextlib import ExitStack

import pytest
from structlog.testing import capture_logs
from tests.integration.door.conftest import KEY, PATIENCE, SECRET, Port, get, port, upgrade

from backbeat.postgres.authorize import Permissions
from backbeat.server.entrance import ConnectionSettings


async def test_a_page_that_is_not_on_the_list_opens_no_socket() -> None:
    """403 with our body, a counter, and a line in the log; the others and programs without an origin do."""
    settings = ConnectionSettings(allowed_origins=("https://app.example.com",))
    async with port(connections=settings) as server:
        with capture_logs() as lines:
            async with server.line() as line:
                line.send(upgrade("Origin: https://evil.example"))
                answer = await line.answer()
        assert (answer.status, answer.code) == (403, "OriginNotAllowed")
        assert "https://evil.example" in json.loads(answer.body)["hint"]
        assert server.metrics.refusals == {"OriginNotAllowed": 1}
        assert [each["code"] for each in lines if each["event"] == "connect refused"] == ["OriginNotAllowed"]
        for headers in ((), ("Origin: https://app.example.com",)):
            async with server.line() as line:
                await line.opened(*headers)


async def test_every_page_may_open_a_socket_by_default(plain: Port) -> None:
    """As with the original."""
    async with plain.line() as line:
        await line.opened("Origin: https://anything.example")


async def test_one_connection_too_many_is_told_to_come_back_later() -> None:
    """503, and a place that is given back is there for the next."""
    async with port(connections=ConnectionSettings(max_connections=1)) as server:
        async with server.line() as first:
            await first.opened()
            async with server.line() as second:
                second.send(upgrade())
                answer = await second.answer()
                assert (answer.status, answer.code) == (503, "TooManyConnections")
                assert answer.headers["retry-after"] == "30"
                assert await second.rest() == b""
            assert await first.beats()
        await server.until_places(0)
        async with server.line() as third:
            await third.opened()


async def test_a_flood_of_refused_connections_holds_only_so_many_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some have time to read why, the others are cut off; when they are gone nothing is left of them."""
    monkeypatch.setattr("backbeat.server.door.LINGER", 60.0)
    async with port(connections=ConnectionSettings(max_connections=1)) as server, server.line() as first:
        await first.opened()
        with ExitStack() as stack:
            for _ in range(90):
                stack.enter_context(socket.create_connection(("127.0.0.1", server.number)))
            async with asyncio.timeout(PATIENCE):
                while server.metrics.refusals["TooManyConnections"] < 90:
                    await asyncio.sleep(0.01)
                while server.realtime.entrance.crowded:
                    await asyncio.sleep(0.01)
        async with asyncio.timeout(PATIENCE):
            while server.realtime.entrance.lingering:
                await asyncio.sleep(0.01)
        assert await first.beats()


async def test_one_connection_too_many_of_an_address_is_refused() -> None:
    """429; the other family of loopback has places of its own."""
    async with port(connections=ConnectionSettings(max_connections_per_address=2)) as server:
        async with server.line() as first, server.line() as second, server.line() as third:
            await first.opened()
            second.send(get())
            assert (await second.answer()).status == 200
            answer = await third.answer()
            assert (answer.status, answer.code) == (429, "TooManyConnectionsFromAddress")
        await server.until_places(0)


async def test_places_are_given_back_however_a_connection_ends() -> None:
    """Silence, a reset in the middle of a head, a refused key, a refused head, a socket that is killed."""
    async with port(connections=ConnectionSettings(max_connections_per_address=20)) as server:
        for sent in (
            b"",
            upgrade()[:40],
            upgrade(query=""),
            b"GARBAGE\r\n\r\n",
            upgrade(),
            get() + upgrade(),
        ):
            for abortive in (False, True):
                raw = socket.create_connection(("127.0.0.1", server.number))
                raw.sendall(sent)
                if abortive:
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                await asyncio.sleep(0.01)
                raw.close()
        await server.until_places(0)
        async with server.line() as line:
            await line.opened()
            assert server.realtime.entrance.total == 1
            assert "backbeat_tcp_connections 1\n" in server.metrics.exposition()


async def test_behind_a_trusted_proxy_clients_are_counted_by_their_own_address() -> None:
    """The right-most address that is no proxy; what a client wrote itself is left of it."""
    settings = ConnectionSettings(trusted_proxies=("127.0.0.1", "10.0.0.0/8"), max_connections_per_address=1)
    async with port(connections=settings) as server, server.line() as first, server.line() as second:
        await first.opened("X-Forwarded-For: 6.6.6.6, 1.2.3.4, 10.0.0.9")
        second.send(upgrade("X-Forwarded-For: 7.7.7.7, 1.2.3.4"))
        answer = await second.answer()
        assert (answer.status, answer.code) == (429, "TooManyConnectionsFromAddress")
        second.writer.close()
        await server.until_places(1)
        async with server.line() as third:
            await third.opened("X-Forwarded-For: 1.2.3.4, 5.6.7.8")
            assert server.realtime.entrance.total == 2


async def test_from_anybody_else_the_header_is_not_believed() -> None:
    """Whoever writes another address into each handshake has one place all the same."""
    settings = ConnectionSettings(trusted_proxies=("10.0.0.0/8",), max_connections_per_address=1)
    async with port(connections=settings) as server, server.line() as first, server.line() as second:
        await first.opened("X-Forwarded-For: 1.2.3.4")
        second.send(upgrade("X-Forwarded-For: 5.6.7.8"))
        assert (await second.answer()).status == 429


async def test_a_key_may_be_offered_as_a_subprotocol(plain: Port) -> None:
    """As clients of Phoenix 1.8 do; `phoenix` is chosen, and the key stands in no log and in no answer."""
    offer = "Sec-WebSocket-Protocol: phoenix, base64url.bearer.phx."
    with capture_logs() as lines:
        async with plain.line() as line:
            line.send(upgrade(offer + "c2JfcHVibGlzaGFibGVfeA", query="vsn=2.0.0"))
            answer = await line.answer()
        async with plain.line() as line:
            line.send(upgrade(offer + "c2JfcHVibGlzaGFibGVfeQ", query="vsn=2.0.0"))
            assert (await line.answer()).code == "InvalidAPIKey"
    assert (answer.status, answer.headers["sec-websocket-protocol"]) == (101, "phoenix")
    assert not any(secret in repr(lines) for secret in ("c2Jf", "sb_publishable_y", SECRET))


@pytest.mark.parametrize("trusted", [(), ("127.0.0.1",)], ids=["anybody", "a trusted proxy"])
async def test_policies_believe_no_address_but_that_of_a_trusted_proxy(
    trusted: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over HTTP and on a socket alike; other `x-*` headers are the client's own and are passed on."""
    asked: list[Mapping[str, str]] = []

    async def probe(_: str, __: object, headers: Mapping[str, str], *, presence: bool) -> Permissions:
        assert presence in (True, False)
        asked.append(headers)
        return Permissions.all()

    own = ("X-Forwarded-For: 1.2.3.4", "X-Device: 7")
    async with port(connections=ConnectionSettings(trusted_proxies=trusted)) as server:
        monkeypatch.setattr(server.realtime.authorizer, "probe", probe)
        async with server.line() as line:
            body = b'{"messages":[{"topic":"x","event":"e","payload":{},"private":true}]}'
            more = (f"apikey: {KEY}", "Content-Type: application/json", f"Content-Length: {len(body)}")
            line.send(get("/api/broadcast", *own, *more).replace(b"GET", b"POST", 1) + body)
            assert (await line.answer()).status == 202
        async with server.line() as line:
            await line.opened(*own)
            line.push("realtime:x", "phx_join", {"config": {"private": True}})
            assert (await line.message())[4]["status"] == "ok"
    expected = {"x-device": "7"} | ({"x-forwarded-for": "1.2.3.4"} if trusted else {})
    assert asked == [expected, expected]
