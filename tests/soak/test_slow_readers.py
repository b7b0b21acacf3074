"""Who does not read is dropped at the cap, with a word to the operator, and nobody else notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import structlog.testing
from tests.soak.ledger import Ledger
from tests.soak.peer import Peer
from tests.soak.server import PATIENCE, Server, running, settings, until_empty

from backbeat.server.room import MAX_BATCH_BYTES

CAP = 524_288
PAYLOAD = 65_536
MESSAGE = 60_000
AFTERWARDS = 20
"""Messages sent when everybody who does not read has been dropped."""

PAUSE = 0.02
"""Seconds between the reads of who reads slowly: some hundred kilobytes a second."""


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server whose cap is small, for the kernel takes enough on top."""
    async with running(settings(max_payload_bytes=PAYLOAD, write_buffer_bytes=CAP)) as server:
        yield server


async def arrive(server: Server, ledger: Ledger, *topics: str) -> Peer:
    """Somebody who has joined rooms, and hears itself."""
    peer = Peer(ledger, server.socket_url("2.0.0"), "2.0.0")
    await peer.wire.open()
    for topic in topics:
        peer.join(topic, "", None, echo=True)
    async with asyncio.timeout(PATIENCE):
        while peer.waits_for:
            await asyncio.sleep(0)
    return peer


class Flood:
    """Messages in every room, as fast as those who read can take them.

    Attributes:
        most: the most bytes that ever waited.
    """

    def __init__(self, server: Server, ledger: Ledger, readers: dict[str, Peer]) -> None:
        self.most = 0
        self._server = server
        self._ledger = ledger
        self._readers = readers

    async def send(self) -> None:
        """One message in each room; returns when everybody has it who reads."""
        for topic, reader in self._readers.items():
            seat = reader.seats[topic]
            reader.broadcast(seat, MESSAGE)
            self._ledger.accepted(seat.sender)
        async with asyncio.timeout(PATIENCE):
            while self._waiting():
                self.most = max(self.most, self._server.waiting_bytes)
                await asyncio.sleep(0)

    def _waiting(self) -> bool:
        return any(not text.startswith("idler") for text in self._ledger.missing())


@pytest.mark.parametrize(
    ("rooms", "idlers", "sips"), [(1, 1, False), (1, 1, True), (5, 6, False)], ids=["one", "slow", "many"]
)
async def test_who_does_not_read_is_dropped_and_nobody_else_notices(
    server: Server, *, rooms: int, idlers: int, sips: bool
) -> None:
    """Everybody else gets every message in order; what waits stays under the cap, and is gone afterwards."""
    ledger = Ledger()
    topics = [f"room-{number}" for number in range(rooms)]
    readers = [await arrive(server, ledger, *topics) for _ in range(3)]
    asleep = []
    for _ in range(idlers):
        asleep.append(await arrive(server, ledger, *topics))
        for seat in asleep[-1].seats.values():
            for stay in seat.stays:
                stay.who = f"idler {stay.who}"
        asleep[-1].stall()
        if sips:
            asleep[-1].wire.sip(PAUSE)
    flood = Flood(server, ledger, dict(zip(topics, readers * rooms, strict=False)))
    metrics = server.realtime.metrics
    with structlog.testing.capture_logs() as logs:
        while metrics.slow_readers < idlers:
            await flood.send()
        for _ in range(AFTERWARDS):
            await flood.send()
    assert flood.most <= (idlers + len(readers)) * (CAP + PAYLOAD + MAX_BATCH_BYTES)
    assert server.waiting_bytes == 0
    buffered = [log["buffered"] for log in logs if log["event"] == "slow reader dropped"]
    assert len(buffered) == idlers
    assert all(CAP < size <= CAP + PAYLOAD + MAX_BATCH_BYTES for size in buffered)
    assert metrics.slow_readers == idlers
    assert (metrics.connections, server.realtime.limits.users) == (len(readers), len(readers))
    for peer in asleep:
        # What the kernel kept for it is without a gap.
        peer.wire.read_again()
        await peer.lost.wait()
    for peer in readers:
        peer.end("the test is over", peer.wire.close)
        await peer.lost.wait()
    assert ledger.close() == []


async def test_who_reads_again_in_time_has_missed_nothing(server: Server) -> None:
    """Less than the cap waits for it meanwhile."""
    ledger = Ledger()
    reader, idler = [await arrive(server, ledger, "room") for _ in range(2)]
    idler.stall()
    flood = Flood(server, ledger, {"room": reader})
    for stay in idler.seats["room"].stays:
        stay.who = f"idler {stay.who}"
    while not server.waiting_bytes:
        await flood.send()
    idler.wire.read_again()
    assert await until_empty(ledger.missing) == []
    assert server.realtime.metrics.slow_readers == 0
    for peer in (reader, idler):
        peer.end("the test is over", peer.wire.close)
        await peer.lost.wait()
    assert ledger.close() == []
