"""Hundreds that drop at once and come back at once are all answered, and the books are as they were."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from tests.soak.ledger import Ledger
from tests.soak.peer import Peer
from tests.soak.server import Server, running, settings, until_empty

CONNECTIONS = 500
ROOMS = 25
STAYING = 50


async def arrive(server: Server, ledger: Ledger, numbers: Iterable[int]) -> list[Peer]:
    """Connect all at once; each joins a room and is present there."""
    peers = {number: Peer(ledger, server.socket_url("2.0.0"), "2.0.0") for number in numbers}
    await asyncio.gather(*(peer.wire.open() for peer in peers.values()))
    for number, peer in peers.items():
        peer.join(f"room-{number % ROOMS}", "", None, presence=True)
    assert await until_empty(lambda: [what for peer in peers.values() for what in peer.waits_for]) == []
    for peer in peers.values():
        for seat in peer.seats.values():
            peer.track(seat, 1)
    return [*peers.values()]


def here(server: Server) -> dict[str, int]:
    """Who is there, as the server counts them."""
    realtime = server.realtime
    rooms = [realtime.hub.find(f"realtime:room-{number}", private=False) for number in range(ROOMS)]
    return {
        "connections": realtime.metrics.connections,
        "channels": realtime.metrics.channels,
        "users": realtime.limits.users,
        "rooms": len(realtime.hub),
        "members": sum(len(room) for room in rooms if room is not None),
        "present": sum(len(room.presence) for room in rooms if room is not None),
        "tasks": len(realtime._tasks),
    }


def misled(peers: list[Peer]) -> list[str]:
    """What each believes about who is present that is not so."""
    seats = [seat for peer in peers for seat in peer.seats.values()]
    return [
        f"{seat.heard.who} about {key}"
        for seat in seats
        for key in {key for key, refs in (seat.present or {}).items() if refs}
        ^ {each.key for each in seats if each.topic == seat.topic}
    ]


async def test_who_drops_and_comes_back_finds_everything_as_it_was() -> None:
    """All join; who stayed is answered, misses nobody and hears what is said; nothing is counted twice."""
    async with running(settings()) as server:
        ledger = Ledger()
        crowd = await arrive(server, ledger, range(CONNECTIONS))
        staying, leaving = crowd[:STAYING], crowd[STAYING:]
        assert await until_empty(lambda: misled(crowd)) == []
        before = here(server)
        assert (before["users"], before["present"]) == (CONNECTIONS, CONNECTIONS)
        for peer in leaving:
            peer.end("storm", peer.wire.reset)
        for peer in staying:
            peer.heartbeat()
        everybody = staying + await arrive(server, ledger, range(STAYING, CONNECTIONS))
        for peer in staying:
            for seat in peer.seats.values():
                peer.broadcast(seat)
                ledger.accepted(seat.sender)
        unanswered = [what for peer in everybody for what in peer.waits_for]
        assert await until_empty(lambda: ledger.missing() or misled(everybody)) == [], unanswered
        assert await until_empty(lambda: [what for peer in everybody for what in peer.waits_for]) == []
        assert here(server) == before
        assert server.realtime.metrics.connects == CONNECTIONS + len(leaving)
        assert not server.realtime.metrics.refusals
        for peer in everybody:
            peer.end("the test is over", peer.wire.reset)
        await asyncio.gather(*(peer.lost.wait() for peer in leaving + everybody))
        assert (
            await until_empty(
                lambda: [what for what in here(server) if here(server)[what] > (what == "tasks")]
            )
            == []
        )
        assert ledger.close() == []
