"""What is counted of joins, broadcasts, presence, row changes and bytes: what a bill would be made of."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from tests.unit.server.conftest import Server

from backbeat.postgres.authorize import Permissions
from backbeat.protocol import reasons
from backbeat.server.broadcast_api import broadcast_routes

ROOM = "realtime:room"
SONGS = {"event": "*", "schema": "public", "table": "songs"}

VERSIONS = pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])


async def test_each_join_is_counted(server: Server) -> None:
    """Two sockets, and one of them twice."""
    client, _ = await server.joined(), await server.joined()
    client.join(ROOM, ref="2")
    assert server.realtime.metrics.joins == 3


async def test_a_join_that_is_refused_is_counted_as_refused(server: Server) -> None:
    """And not as a join."""
    server.policies.answers["room"] = Permissions.none()
    client = server.client()
    client.join(ROOM, private=True)
    await client.settled()
    assert server.realtime.metrics.joins == 0
    assert server.realtime.metrics.refusals == {"Unauthorized": 1}


@VERSIONS
async def test_five_broadcasts_to_two_clients_are_fifteen_events(server: Server, vsn: str) -> None:
    """Five that were sent, and ten that were delivered, for the sender hears itself."""
    sender, _ = await server.joined(vsn, broadcast={"self": True}), await server.joined(vsn)
    for number in range(5):
        sender.push(ROOM, "broadcast", {"n": number})
    await sender.settled()
    metrics = server.realtime.metrics
    assert (metrics.broadcasts, metrics.deliveries) == (5, 10)


async def test_a_broadcast_over_http_is_counted_like_one_over_a_socket(server: Server) -> None:
    """One sent, one delivered."""
    client = await server.joined()
    app = Starlette(routes=broadcast_routes(server.realtime))
    headers = {"apikey": "sb_publishable_x"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://server", headers=headers) as caller:
        await caller.post(f"/api/broadcast/{ROOM.removeprefix('realtime:')}/events/e", json={})
    await asyncio.sleep(0)
    assert len(client.frames()) == 1
    metrics = server.realtime.metrics
    assert (metrics.broadcasts, metrics.deliveries) == (1, 1)


async def test_a_broadcast_that_is_refused_counts_nothing(server: Server) -> None:
    """Nothing was sent, nothing delivered."""
    client, _ = await server.joined(), await server.joined()
    client.push(ROOM, "broadcast", "no object")
    await client.settled()
    metrics = server.realtime.metrics
    assert (metrics.broadcasts, metrics.deliveries) == (0, 0)


async def test_a_broadcast_that_nobody_hears_is_not_delivered(server: Server) -> None:
    """It was sent, and that is all."""
    sender = await server.joined()
    sender.push(ROOM, "broadcast", {"n": 1})
    await sender.settled()
    assert server.realtime.metrics.broadcasts == 1
    assert server.realtime.metrics.deliveries == 0


async def test_bytes_that_vsn_1_cannot_be_told_are_not_delivered(server: Server) -> None:
    """Only what was written counts."""
    sender, _ = await server.joined(), await server.joined("1.0.0")
    sender.send(2, bytes((3, 1, 1, len(ROOM), 1, 0, 0)) + b"12" + ROOM.encode() + b"e" + b"\xff")
    await sender.settled()
    assert server.realtime.metrics.deliveries == 0


async def test_presence_calls_are_counted(server: Server) -> None:
    """Two calls; the diffs they caused are deliveries, one for each who was told."""
    client, _ = [await server.joined(presence={"enabled": True}) for _ in range(2)]
    for event in ("track", "untrack"):
        client.push(ROOM, "presence", {"event": event})
    await client.settled()
    metrics = server.realtime.metrics
    assert (metrics.presence_events, metrics.deliveries) == (2, 4)


async def test_a_subscription_that_is_refused_counts_no_change(server: Server) -> None:
    """It is counted as refused."""
    server.subscriptions.refuse_with = reasons.CHANGES_NO_TABLE.refusal(params="[table: nope]")
    await server.joined(postgres_changes=[SONGS])
    assert server.realtime.metrics.changes_sent == 0
    assert server.realtime.metrics.refusals == {"RealtimeDisabledForConfiguration": 1}


@pytest.mark.parametrize("kind", ["broadcast", "presence", "private broadcast"])
async def test_bytes_are_counted_both_ways(server: Server, kind: str) -> None:
    """As many as the clients sent and received, whatever they were for."""
    event = kind.rpartition(" ")[2]
    private = kind.startswith("private")
    client, listener = [await server.joined(private=private, presence={"enabled": True}) for _ in range(2)]
    metrics = server.realtime.metrics
    read, written = metrics.bytes_in, metrics.bytes_out
    client.push(ROOM, event, {"event": "track", "payload": {}})
    await client.settled()
    received = sum(map(len, listener.transport.written))
    assert metrics.bytes_in > read
    assert metrics.bytes_out - written >= received > 0


async def test_the_bytes_of_a_fan_out_are_those_that_were_written(server: Server) -> None:
    """To the byte: two members, each with the whole frame."""
    sender, *listeners = [await server.joined() for _ in range(3)]
    before = server.realtime.metrics.bytes_out
    sender.push(ROOM, "broadcast", {"n": 1})
    await sender.settled()
    received = sum(len(data) for listener in listeners for data in listener.transport.written)
    assert server.realtime.metrics.bytes_out - before == received
