"""The HTTP API on a real port, with the policies of a real Postgres behind it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
from tests.integration.server.conftest import PATIENCE, RawClient, Running

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.AsyncConnection[Any]


def http(server: Running) -> httpx.AsyncClient:
    """A caller who is signed in."""
    return httpx.AsyncClient(
        base_url=f"http{server.url.removeprefix('ws')}/realtime/v1",
        headers={"apikey": server.realtime.settings.keys.anon, "authorization": f"Bearer {server.token()}"},
        timeout=PATIENCE,
    )


async def joined(client: RawClient, server: Running, topic: str, **config: Any) -> None:
    """Join a topic, and wait until that is answered."""
    await client.join(f"realtime:{topic}", token=server.token(), **config)
    reply = await client.until("phx_reply")
    assert reply[4]["status"] == "ok", reply


def message(topic: str, event: str = "ping") -> dict[str, Any]:
    """A private message of a batch."""
    return {"topic": topic, "event": event, "payload": {"n": 1}, "private": True}


async def test_policies_decide_about_each_topic_of_a_batch(server: Running) -> None:
    """Mike may speak where a policy lets him, and is told where none does."""
    async with server.client() as member, http(server) as caller:
        await joined(member, server, "open-1", private=True)
        batch = [message("shut-1"), message("open-1", "a"), message("open-1", "b")]
        response = await caller.post("/api/broadcast", json={"messages": batch})
        heard = [(await member.message())[4]["event"] for _ in range(2)]
    assert response.status_code == 202
    assert [(each["index"], each["topic"]) for each in response.json()["refused"]] == [(0, "shut-1")]
    assert heard == ["a", "b"]


async def test_policies_decide_about_a_single_message(server: Running) -> None:
    """202 where one is true, 403 where none is."""
    async with http(server) as caller:
        allowed = await caller.post("/api/broadcast/open-1/events/e?private=true", json={})
        denied = await caller.post("/api/broadcast/shut-1/events/e?private=true", json={})
    assert (allowed.status_code, denied.status_code) == (202, 403)


async def test_policies_see_the_headers_of_the_caller(server: Running, database: Connection) -> None:
    """`request.headers` holds the `x-*` headers, the key not among them."""
    await database.execute(
        "create policy by_header on realtime.messages for insert to authenticated with check ("
        " current_setting('request.headers')::json ->> 'x-band' = 'rockon'"
        " and current_setting('request.headers')::json ->> 'x-api-key' is null)"
    )
    async with http(server) as caller:
        path = "/api/broadcast/shut-1/events/e?private=true"
        without = await caller.post(path, json={})
        having = await caller.post(path, json={}, headers={"x-band": "rockon", "x-api-key": "k"})
    assert (without.status_code, having.status_code) == (403, 202)


async def test_a_failing_policy_is_told_from_one_that_says_no(server: Running, database: Connection) -> None:
    """Somebody has to mend it."""
    await database.execute(
        "create policy broken on realtime.messages for insert to authenticated"
        " with check (realtime.topic()::int = 1)"
    )
    async with http(server) as caller:
        response = await caller.post("/api/broadcast/shut-1/events/e?private=true", json={})
    assert (response.status_code, response.json()) == (422, {"message": "RLS policy error"})


async def test_bytes_arrive_as_they_were_sent(server: Running) -> None:
    """Over a path whose topic has a slash in it."""
    async with server.client() as member, http(server) as caller:
        await joined(member, server, "a/b")
        response = await caller.post(
            "/api/broadcast/a%2Fb/events/e",
            content=bytes(range(256)),
            headers={"content-type": "application/octet-stream"},
        )
        async with asyncio.timeout(PATIENCE):
            frame = await member.socket.recv()
    assert response.status_code == 202
    assert frame == b"\x04\x0c\x01\x00\x00realtime:a/be" + bytes(range(256))


async def test_a_body_that_is_too_large_costs_its_request_only(server: Running) -> None:
    """It is refused, and the same caller goes on."""
    async with http(server) as caller:
        large = await caller.post(
            "/api/broadcast", content=b" " * 9_000_000, headers={"content-type": "application/json"}
        )
        next_one = await caller.get("/api/ping")
    assert (large.status_code, next_one.status_code) == (413, 200)


async def test_twenty_callers_at_once_reach_everybody(server: Running) -> None:
    """Each message once."""
    async with server.client() as member, http(server) as caller:
        await joined(member, server, "open-1", private=True)
        batches = [{"messages": [message("open-1", str(number))]} for number in range(20)]
        answers = await asyncio.gather(*(caller.post("/api/broadcast", json=batch) for batch in batches))
        heard = {(await member.message())[4]["event"] for _ in range(20)}
    assert {answer.status_code for answer in answers} == {202}
    assert heard == {str(number) for number in range(20)}
