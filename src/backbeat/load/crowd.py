"""The sockets of one process at one server, and what they measure together."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from backbeat.load.histogram import Histogram
from backbeat.load.member import Member, Phase
from backbeat.load.orders import Closed, Open, Opened, Ran, Run, Settle, Settled
from backbeat.load.processes import cpu_seconds
from backbeat.load.receipts import Receipts
from backbeat.load.refusals import Refusal, Refusals, Step
from backbeat.load.window import Window
from backbeat.load.wire import Digest, broadcast, join
from backbeat.load.workload import Kind

__all__ = ["Crowd"]

AT_ONCE: Final = 64
"""Sockets that are opened at the same time."""

OURS: Final = 0
"""The process that sends is the first of those that share a topic."""

GOODBYE: Final = 2.0
"""Seconds a server has to close its connections before they are cut."""

SPIN: Final = 0.0015
"""Seconds before a message is due in which the loop does not sleep: its timers count milliseconds."""


class Crowd:
    """Sockets that have joined their topics.

    Args:
        tell_peers: called with the run and how many of its messages all members here have got, where
            another process sends.

    Attributes:
        run: marks the messages that count.
        chunk: bytes that a member has read.
        digest: what they say.
        delivered: messages of this run, once for each member that got it.
        wake_at: how many of them make a difference to somebody.
        timing: whether latencies are counted.
    """

    def __init__(self, tell_peers: Callable[[bytes, int], None] | None = None) -> None:
        self._tell_peers = tell_peers
        self._loop = asyncio.get_running_loop()
        self._members: list[Member] = []
        self._topics: list[tuple[str, list[Member]]] = []
        self._addresses: list[str] = []
        self._refusals = Refusals()
        self._disturbed = asyncio.Event()
        self._arrived = asyncio.Event()
        self._left = asyncio.Event()
        self._connected = 0
        self._histogram = Histogram()
        self._sent: list[int] = []
        self._turn = 0
        self._window: Window | None = None
        self._own = 1
        self._on_wake: Callable[[], None] = self._arrived.set
        self._beating = self._pacing = False
        self._replies = 0
        self._strange_replies = 0
        self.run = b""
        self.chunk = b""
        self.digest = Digest([], [], [])
        self.delivered = 0
        self.wake_at = math.inf
        self.timing = False

    # What members tell --------------------------------------------------------------------------------------

    def entered(self) -> None:
        """A member has a connection."""
        self._connected += 1

    def left(self) -> None:
        """A member has none any more."""
        self._connected -= 1
        self._left.set()

    def wake(self) -> None:
        """As many deliveries as somebody waited for are here."""
        self._on_wake()

    def time(self, dues: Iterable[int], now: int) -> None:
        """Count latencies."""
        for due in dues:
            self._histogram.add(now - due)

    def replied(self, member: Member, ref: str | None) -> None:
        """A heartbeat was answered."""
        if not member.awaiting or ref != str(member.beats):
            self._strange_replies += 1
            return
        member.awaiting = False
        self._replies += 1
        if self._beating:
            member.beat()
        elif self._replies >= self.wake_at:
            self.wake()

    def refused(self, refusal: Refusal) -> None:
        """A member is told no, or is gone."""
        self._refusals.add(refusal)
        self._disturbed.set()

    def _refused(self) -> list[tuple[Refusal, int]]:
        """The refusals since the last time."""
        refusals, self._refusals = self._refusals, Refusals()
        self._disturbed.clear()
        return refusals.items()

    # Opening and closing ------------------------------------------------------------------------------------

    async def open(self, order: Open) -> Opened:
        """Open sockets, and join."""
        began, cpu = time.monotonic(), time.process_time()
        frames = [join(topic, private=order.private, token=order.token) for topic in order.topics]
        waiting = [number for number in range(len(frames)) for _ in range(order.members)]
        joined: list[list[Member]] = [[] for _ in frames]
        waiting.reverse()
        secure = ssl.create_default_context() if order.url.startswith("wss:") else None

        async def one_after_the_other() -> None:
            while waiting:
                topic = waiting.pop()
                member = await self._open_one(order, frames[topic], secure)
                if member is None:
                    waiting.clear()
                elif member.phase is Phase.JOINED:
                    joined[topic].append(member)

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(one_after_the_other())
        topics = zip(order.topics, joined, strict=True)
        self._topics = [(name, members) for name, members in topics if len(members) == order.members]
        if len(joined) == 1:
            self._topics = [(order.topics[0], joined[0])] if joined[0] else []
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        return Opened([len(members) for members in joined], seconds, cpu, self._refused())

    async def _open_one(self, order: Open, frame: bytes, secure: ssl.SSLContext | None) -> Member | None:
        """Open one; None means that there is no sense in trying more."""
        member = Member(self, order.url, frame)
        self._members.append(member)
        try:
            async with asyncio.timeout(order.patience):
                await self._connect(member, order.url, secure)
                await member.ready
        except TimeoutError:
            step = Step.UPGRADE if member.phase is Phase.OPENING else Step.JOIN
            member.abort()
            self.refused(Refusal(step, f"no answer within {order.patience:g} s"))
            return None
        except ssl.SSLError as error:
            self.refused(Refusal(Step.TLS, getattr(error, "verify_message", "") or str(error.reason)))
            return None
        except OSError as error:
            self.refused(Refusal(Step.CONNECT, os.strerror(error.errno) if error.errno else str(error)))
            return None
        return member

    async def _connect(self, member: Member, url: str, secure: ssl.SSLContext | None) -> None:
        """Connect to the first address of the host that answers; the name is looked up once for all.

        Raises:
            OSError: none does.
        """
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if secure else 80)
        if not self._addresses:
            found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            self._addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
        for address in self._addresses:
            try:
                await self._loop.create_connection(
                    lambda: member, address, port, ssl=secure, server_hostname=host if secure else None
                )
            except OSError as error:
                if isinstance(error, ssl.SSLError) or address == self._addresses[-1]:
                    raise
            else:
                self._addresses = [address]
                return

    async def close(self) -> Closed:
        """Close all sockets."""
        for member in self._members:
            member.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE):
                while self._connected:
                    self._left.clear()
                    await self._left.wait()
        for member in self._members:
            member.abort()
        self._members.clear()
        self._topics.clear()
        return Closed(self._refused())

    # Measuring ----------------------------------------------------------------------------------------------

    async def measure(self, order: Run) -> Ran:
        """Measure one thing."""
        self._reset(order)
        await asyncio.sleep(max(0.0, order.begin / 1e9 - time.monotonic()))
        self._start(order)
        if order.warm:
            await self._undisturbed(order.warm)
        began, cpu, server = time.monotonic(), time.process_time(), cpu_seconds(order.pids)
        count = self._count(order.kind)
        self._histogram = Histogram()
        await self._undisturbed(order.seconds)
        count = self._count(order.kind) - count
        seconds = time.monotonic() - began
        ended, cpu = cpu_seconds(order.pids), time.process_time() - cpu
        server_cpu = ended - server if ended is not None and server is not None else None
        self._stop()
        return Ran(count, seconds, cpu, server_cpu, sum(self._sent), self._refused())

    def _reset(self, order: Run) -> None:
        self.run = order.run.encode()
        self.chunk = b""
        self.delivered = 0
        self.wake_at = math.inf
        self.timing = order.kind is Kind.LATENCY
        self._histogram = Histogram()
        self._sent = [0] * len(self._topics)
        self._turn = 0
        self._replies = self._strange_replies = 0
        self._arrived.clear()
        for member in self._members:
            member.receipts = Receipts()

    def _start(self, order: Run) -> None:
        """Begin to send."""
        if order.kind is Kind.HEARTBEATS:
            self._beating = True
            for member in self._joined():
                member.beat()
        elif order.kind is Kind.LATENCY:
            if order.process == 0:
                self._pacing = True
                self._pace(order.rate, time.monotonic_ns())
        elif order.process == 0 or order.kind is Kind.TOPICS:
            self._window = Window(order.window, order.members)
            self._on_wake = self._pump
            self._pump()
        else:
            self._on_wake = self._report
            self._own = order.members[order.process]
            # The process that sends may have begun before this one.
            self._report()

    def _stop(self) -> None:
        self._beating = self._pacing = False
        self._window = None
        self._on_wake = self._arrived.set
        self.wake_at = math.inf

    def _count(self, kind: Kind) -> int:
        return self._replies if kind is Kind.HEARTBEATS else self.delivered

    async def _undisturbed(self, seconds: float) -> None:
        """Let time pass, until something is refused."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._disturbed.wait()

    # Sending ------------------------------------------------------------------------------------------------

    def peer(self, process: int, run: bytes, arrived: int) -> None:
        """Another process says how many messages of a run all its members have got."""
        if self._window is not None and run == self.run:
            self._window.arrived(process, arrived)
            self._pump()

    def _report(self) -> None:
        """Tell the process that sends how many messages all members here have got."""
        assert self._tell_peers is not None
        complete = self.delivered // self._own
        self.wake_at = (complete + 1) * self._own
        self._tell_peers(self.run, complete)

    def _pump(self) -> None:
        """Send as much as the window has room for."""
        window = self._window
        if window is None:
            return
        window.arrived(OURS, self.delivered // window.members[OURS])
        self._send(window.take(), time.monotonic_ns())
        self.wake_at = window.next_look(OURS)

    def _send(self, count: int, due: int) -> None:
        """Send messages, to one topic after the other; those of one topic in one write."""
        if len(self._topics) == 1:
            name, members = self._topics[0]
            first = self._sent[0]
            self._sent[0] += count
            frames = [broadcast(name, self.run, number, due) for number in range(first, first + count)]
            members[0].send(b"".join(frames))
            return
        for _ in range(count):
            topic = self._turn
            self._turn = (topic + 1) % len(self._topics)
            name, members = self._topics[topic]
            members[0].send(broadcast(name, self.run, self._sent[topic], due))
            self._sent[topic] += 1

    def _pace(self, rate: float, began: int) -> None:
        """Send at a fixed rate, whatever comes back; what is late counts from when it was due."""
        if not self._pacing:
            return
        while (due := began + int(self._sent[0] / rate * 1e9)) <= time.monotonic_ns():
            self._send(1, due)
        wait = (due - time.monotonic_ns()) / 1e9
        if wait > SPIN:
            self._loop.call_later(wait - SPIN, self._pace, rate, began)
        else:
            self._loop.call_soon(self._pace, rate, began)

    # Accounting ---------------------------------------------------------------------------------------------

    async def settle(self, order: Settle) -> Settled:
        """Wait until everything that was sent has come, and say what has not."""
        sent = self._sent if order.sent is None else [order.sent]
        expected = sum(count * len(members) for count, (_, members) in zip(sent, self._topics, strict=True))
        await self._until(lambda: self.delivered, expected, order.patience)
        members = self._joined()
        unanswered = sum(member.awaiting for member in members)
        if unanswered:
            await self._until(lambda: -sum(member.awaiting for member in members), 0, order.patience)
        # What comes twice has come before the answer to this, where a server does one thing after the other.
        self._replies = 0
        for member in members:
            if not member.awaiting:
                member.beat()
        await self._until(lambda: self._replies, len(members), order.patience)
        receipts = [
            (member.receipts, count)
            for count, (_, members) in zip(sent, self._topics, strict=True)
            for member in members
        ]
        return Settled(
            expected,
            sum(each.missing(count) for each, count in receipts) + sum(m.awaiting for m in members),
            sum(each.repeated for each, _ in receipts) + self._strange_replies,
            # What was under way when the sending ended is among them: nothing slow is left out.
            dict(self._histogram.counts),
            self._refused(),
        )

    async def _until(self, progress: Callable[[], int], goal: int, patience: float) -> None:
        """Wait until something is reached, or nothing happens any more."""
        before = None
        while (now := progress()) < goal and now != before:
            before, self.wake_at = now, goal
            self._arrived.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._arrived.wait()
        self.wake_at = math.inf

    def _joined(self) -> list[Member]:
        return [each for _, members in self._topics for each in members if each.phase is Phase.JOINED]
