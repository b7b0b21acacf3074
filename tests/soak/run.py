"""Rounds of mixed traffic against one server, and what has to be true whenever it is quiet."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import psutil
import psycopg
from tests.soak.ledger import Ledger
from tests.soak.party import SCHEMA, Party
from tests.soak.server import Server, running, settings, until_empty

from backbeat.server.realtime import Realtime

__all__ = ["Report", "Unsteady", "soak"]

OURS: Final = ("backbeat.", "uvicorn.")
"""Where the types come from of which nothing may be left."""

PER_CONNECTION: Final = frozenset(
    {
        "Socket",
        "FrameParser",
        "Channel",
        "Outbox",
        "Tracker",
        "Room",
        "PresenceTable",
        "Tracked",
        "TextDelivery",
        "UserBroadcast",
        "Delivery",
        "ChangeSubscription",
        "Subscription",
        "SocketLimits",
        "Window",
        "HttpToolsProtocol",
        "RequestResponseCycle",
    }
)
"""The types of which nothing may be left when nobody is connected."""

WARM_UP: Final = 2
"""Rounds after which caches and pools are full; later ones are compared with it."""

OBJECTS: Final = 3_000
"""By how many objects two quiet points may differ, whatever happened in between."""

MEMORY: Final = 48 << 20
"""By how many bytes the memory may be larger at the end than after the warm-up. The allocator keeps what a
round needed at its busiest, and no two are alike: a trend is what `make soak SECONDS=…` shows."""


class Unsteady(Exception):
    """The server is not what it should be.

    Args:
        faults: in what, one each.
    """

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults[:50]))


@dataclass
class Report:
    """How it went.

    Attributes:
        rounds: how many times everybody came and went.
        received: messages that were received, and accounted for.
        did: what the clients did, and how often.
        memory: bytes at each quiet point.
        objects: how many objects the garbage collector knew at each.
        slow_readers: how many were dropped.
    """

    rounds: int = 0
    received: int = 0
    did: Counter[str] = field(default_factory=Counter)
    memory: list[int] = field(default_factory=list)
    objects: list[int] = field(default_factory=list)
    slow_readers: int = 0

    def add(self, ledger: Ledger, party: Party, realtime: Realtime) -> None:
        """Count a round."""
        self.rounds += 1
        self.received += ledger.received
        self.did.update(party.did)
        self.slow_readers = realtime.metrics.slow_readers

    def __str__(self) -> str:
        did = ", ".join(f"{count} {what}" for what, count in sorted(self.did.items()))
        memory = " ".join(str(each >> 20) for each in self.memory)
        objects = " ".join(map(str, self.objects))
        return (
            f"{self.rounds} rounds, {self.received} messages received; {did}; {self.slow_readers} dropped for"
            f" not reading\nMiB when quiet: {memory}\nobjects when quiet: {objects}"
        )


async def soak(
    owner_url: str,
    login_url: str,
    *,
    seconds: float,
    seed: int,
    clients: int = 24,
    round_seconds: float = 4.0,
    tell: Callable[[str], None] = lambda _: None,
) -> Report:
    """Run mixed traffic, and look at the server whenever it is quiet.

    Args:
        owner_url: a fresh, migrated database, as its owner.
        login_url: the same, as the login of the server.
        seconds: how long; the last round may end later.
        seed: decides what the clients do. When they do it is up to the machine.
        clients: how many there are at a time.
        round_seconds: how long until it is quiet.
        tell: takes a line about each round.

    Raises:
        Unsteady: something was lost, doubled, swapped, late or left over.
    """
    chance = random.Random(seed)  # noqa: S311 - to be had again
    report, failures = Report(), _Failures()
    async with await psycopg.AsyncConnection.connect(owner_url, autocommit=True) as database:
        await database.execute(SCHEMA.encode())
        with failures.noticed():
            async with running(
                settings(database_url=login_url, database_connections=8, max_payload_bytes=65_536)
            ) as server:
                await server.feed.streaming.wait()
                await asyncio.sleep(0)
                server.settled()
                ends = time.monotonic() + seconds
                while time.monotonic() < ends or report.rounds <= WARM_UP:
                    ledger = Ledger()
                    party = Party(ledger, server, database=database, chance=chance, clients=clients)
                    await _round(server, party, ledger, round_seconds)
                    failures.check(server.realtime)
                    report.add(ledger, party, server.realtime)
                    del ledger, party
                    await database.execute(b"truncate songs, news")
                    _look(report)
                    tell(f"{report}\n")
        failures.check(server.realtime)
    _compare(report)
    return report


async def _round(server: Server, party: Party, ledger: Ledger, seconds: float) -> None:
    """Let a party take place, and wait until nothing of it is left.

    Raises:
        Unsteady: something was lost, doubled, swapped, late or left over.
    """
    await party.play(seconds)
    party.ask()
    faults = ledger.faults + await until_empty(party.waiting)
    if not faults:
        # Whatever comes now would be too much.
        party.ask()
        faults += await until_empty(party.waiting)
    await party.go_home()
    faults += await until_empty(server.left_over)
    faults = list(dict.fromkeys(faults + ledger.close()))
    if faults:
        metrics = server.realtime.metrics
        raise Unsteady([f"slow readers {metrics.slow_readers}, refusals {dict(metrics.refusals)}", *faults])


class _Failures:
    """What was raised where nobody could catch it: in callbacks, finalizers and warnings."""

    def __init__(self) -> None:
        self._noticed: list[str] = []

    @contextmanager
    def noticed(self) -> Iterator[None]:
        """Notice them until the block ends."""
        loop, before = asyncio.get_running_loop(), sys.unraisablehook
        sys.unraisablehook = lambda it: self._noticed.append(f"unraisable: {it.exc_value!r} in {it.object!r}")
        loop.set_exception_handler(lambda _, context: self._noticed.append(f"in the loop: {context}"))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                yield
        finally:
            sys.unraisablehook = before

    def check(self, realtime: Realtime) -> None:
        """Raise when there were any."""
        if count := realtime.metrics.handler_failures:
            self._noticed.append(f"{count} handler failures")
        if self._noticed:
            raise Unsteady(self._noticed)


def _look(report: Report) -> None:
    """Count what is there when nobody is."""
    gc.collect()
    objects = gc.get_objects()
    report.objects.append(len(objects))
    report.memory.append(psutil.Process().memory_info().rss)
    left = [
        each
        for each in objects
        if type(each).__name__ in PER_CONNECTION and type(each).__module__.startswith(OURS)
    ]
    del objects
    if left:
        raise Unsteady([f"left: {each!r:.200}, held by {_holders(each, left)}" for each in left])


def _holders(each: object, left: list[object]) -> str:
    """What refers to an object, by type."""
    found = Counter(type(holder).__qualname__ for holder in gc.get_referrers(each) if holder is not left)
    return ", ".join(f"{count} {kind}" for kind, count in found.items())


def _compare(report: Report) -> None:
    """Compare the end with the time after the warm-up."""
    grown = report.objects[-1] - report.objects[WARM_UP - 1]
    larger = report.memory[-1] - report.memory[WARM_UP - 1]
    faults = [f"{grown} objects more than after the warm-up"] if grown > OBJECTS else []
    faults += [f"{larger >> 20} MiB more than after the warm-up"] if larger > MEMORY else []
    if faults:
        raise Unsteady([*faults, str(report)])
