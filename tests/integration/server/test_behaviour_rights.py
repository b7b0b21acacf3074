"""Private channels and the HTTP API with real policies: each right by itself, and policies that fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest
from structlog.testing import capture_logs

if TYPE_CHECKING:
    import psycopg
    from tests.integration.server.conftest import RawClient, Running

    Connection = psycopg.AsyncConnection[Any]

ON = {"enabled": True, "key": "eric"}

PRESENCE_POLICIES = """
create policy see on realtime.messages for select to authenticated
  using (realtime.topic() in ('seen', 'tracked') and extension = 'presence');
create policy track on realtime.messages for insert to authenticated
  with check (realtime.topic() = 'tracked' and extension = 'presence');
"""


async def track(client: RawClient, topic: str, join: str) -> list[Any]:
    """Track an object and return the reply."""
    await client.push(topic, "presence", {"event": "track", "payload": {}}, join_ref=join)
    return await client.until("phx_reply")


async def post(server: Running, path: str, token: str) -> httpx.Response:
    """Send a message over HTTP."""
    url = server.url.replace("ws://", "http://")
    async with httpx.AsyncClient(base_url=url) as caller:
        return await caller.post(path, json={}, headers={"authorization": f"Bearer {token}"})


async def test_a_topic_with_colons_is_one_topic_to_policies(server: Running) -> None:
    """`open-1:a:b` is what the policy compares."""
    async with server.client() as client:
        topic = "realtime:open-1:a:b"
        join = await client.join(
            topic, token=server.token(), private=True, broadcast={"ack": True, "self": True}
        )
        await client.message()
        await client.push(topic, "broadcast", {"n": 1}, join_ref=join)
        assert (await client.until("broadcast"))[4] == {"n": 1}


async def test_who_may_use_presence_only_joins_and_tracks(server: Running, database: Connection) -> None:
    """With policies for presence and none for broadcast."""
    await database.execute(PRESENCE_POLICIES.encode())
    async with server.client() as client:
        topic = "realtime:tracked"
        join = await client.join(topic, token=server.token(), private=True, presence=ON)
        assert (await client.message())[4]["status"] == "ok"
        assert (await track(client, topic, join))[4]["status"] == "ok"


async def test_who_may_use_presence_only_sends_no_broadcast(server: Running, database: Connection) -> None:
    """The reply says that a policy is missing."""
    await database.execute(PRESENCE_POLICIES.encode())
    async with server.client() as client:
        topic = "realtime:tracked"
        join = await client.join(
            topic, token=server.token(), private=True, presence=ON, broadcast={"ack": True}
        )
        await client.message()
        await client.push(topic, "broadcast", {"n": 1}, join_ref=join)
        reply = await client.until("phx_reply")
        text = "You do not have permissions to send to this Channel topic: tracked"
        assert reply[4]["response"]["reason"] == text


async def test_who_may_only_see_presence_does_not_track(server: Running, database: Connection) -> None:
    """The state comes, the track is refused."""
    await database.execute(PRESENCE_POLICIES.encode())
    async with server.client() as client:
        topic = "realtime:seen"
        join = await client.join(topic, token=server.token(), private=True, presence=ON)
        assert (await client.until("presence_state"))[4] == {}
        assert (await track(client, topic, join))[4]["status"] == "error"


@pytest.mark.parametrize("what", ["broadcast", "presence"])
async def test_a_policy_that_fails_on_sending_is_logged(
    server: Running, database: Connection, what: str
) -> None:
    """The operator reads what Postgres said; the sender that a policy refused, and nothing of the data."""
    await database.execute(
        "create policy broken on realtime.messages as restrictive for insert to authenticated"
        " with check (realtime.topic()::int = 1)"
    )
    async with server.client() as client:
        topic = "realtime:open-1"
        with capture_logs() as lines:
            join = await client.join(
                topic, token=server.token(), private=True, presence=ON, broadcast={"ack": True}
            )
            assert (await client.message())[4]["status"] == "ok"
        payload = {"event": "track", "payload": {}}
        await client.push(topic, what, payload, join_ref=join)
        reply = await client.until("phx_reply")
    assert reply[4]["status"] == "error"
    assert "integer" not in str(reply)
    assert {line["sqlstate"] for line in lines if line["event"] == "authorization failed"} == {"22P02"}


async def test_a_role_that_postgres_does_not_know_sends_nothing_over_http(server: Running) -> None:
    """422, in the words of a policy that failed."""
    response = await post(server, "/api/broadcast/open-1/events/e?private=true", server.token(role="bassist"))
    assert (response.status_code, response.json()) == (422, {"message": "RLS policy error"})


async def test_a_role_that_postgres_does_not_know_joins_nothing_private(server: Running) -> None:
    """In the words of a policy that says no."""
    async with server.client() as client:
        await client.join("realtime:open-1", token=server.token(role="bassist"), private=True)
        reason = (await client.message())[4]["response"]["reason"]
    assert reason == "Unauthorized: You do not have permissions to read from this Channel topic: open-1"


async def test_the_service_role_needs_no_policy_over_http(server: Running) -> None:
    """It may send to any private topic."""
    response = await post(
        server, "/api/broadcast/shut-1/events/e?private=true", server.token(role="service_role")
    )
    assert response.status_code == 202


async def test_http_messages_are_not_stored(server: Running, database: Connection) -> None:
    """Asking the policies leaves no row, and neither does what is sent."""
    await post(server, "/api/broadcast/open-1/events/e?private=true", server.token())
    row = await (await database.execute("select count(*) from realtime.messages")).fetchone()
    assert row == (0,)
