"""Limits on a real port: what a client sees that breaks one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import websockets
from tests.integration.server.conftest import SECRET, Running, running

from backbeat.server.limits import LimitSettings
from backbeat.server.settings import Settings


@asynccontextmanager
async def limited(**limits: int) -> AsyncIterator[Running]:
    """A server with limits; none of them needs a database."""
    nowhere = "postgresql://nobody:x@127.0.0.1:1/none"
    settings = Settings(database_url=nowhere, jwt_secret=SECRET, limits=LimitSettings(**limits))
    async with running(settings) as server:
        yield server


async def test_one_user_too_many_cannot_connect() -> None:
    """The upgrade is answered with 429 and the reason."""
    async with limited(max_concurrent_users=1) as server, server.client() as client:
        await client.join("realtime:x")
        await client.message()
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with server.client():
                pass
    assert refused.value.response.status_code == 429
    assert refused.value.response.body == b'{"error":"Too many connected users"}'


async def test_joining_in_a_loop_ends_the_connection() -> None:
    """The last join is answered with the reason, then the socket is closed with 1001."""
    async with limited(max_joins_per_second=1) as server, server.client() as client:
        reply, number = {"status": "ok"}, 0
        while reply["status"] == "ok":
            number += 1
            await client.join(f"realtime:{number}")
            reply = (await client.message())[4]
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await client.message()
    text = "ClientJoinRateLimitReached: Too many joins per second"
    assert reply == {"status": "error", "response": {"reason": text}}
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001


async def test_sending_in_a_loop_ends_the_channel() -> None:
    """A system message with the reason, then `phx_close`; the connection stays."""
    async with limited(max_events_per_second=1) as server, server.client() as client:
        join = await client.join("realtime:x")
        await client.message()
        for number in range(50):
            await client.push("realtime:x", "broadcast", {"n": number}, join_ref=join)
        assert (await client.message())[4]["message"] == "Too many messages per second"
        assert (await client.message())[3] == "phx_close"
        beat = await client.push("phoenix", "heartbeat", {})
        while (reply := await client.message())[1] != beat:
            pass
    assert reply[4]["status"] == "ok"
