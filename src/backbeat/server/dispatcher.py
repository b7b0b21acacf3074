"""Writes row changes to the channels they are for: in order, held back if need be, and a turn at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from backbeat.server.subscription import ChangeSubscription

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backbeat.postgres.changes import Delivery
    from backbeat.server.metrics import Metrics

__all__ = ["Dispatcher"]

log = structlog.get_logger("backbeat.feed")

TURN: Final = 5_000
"""How much is done in one turn of the event loop, so that nobody waits more than a few milliseconds for it:
pairs of change and subscriber, and writes, each of which is worth as much as ten pairs."""

WRITE: Final = 10
"""What a write is worth, apart from the pairs in it."""


class Dispatcher:
    """Writes deliveries one after the other. While one is being written, others have their turns too.

    Whoever ends meanwhile gets nothing more.

    Args:
        delay: seconds to hold changes back.
    """

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._held: asyncio.Queue[tuple[float, Sequence[Delivery]]] = asyncio.Queue()
        self._idle = asyncio.Event()
        self._idle.set()

    async def deliver(self, deliveries: Sequence[Delivery], metrics: Metrics) -> None:
        """Write changes now, or leave them to `release`.

        Args:
            deliveries: what to write.
            metrics: counts what is written.
        """
        if self._delay:
            self._held.put_nowait((asyncio.get_running_loop().time() + self._delay, deliveries))
        else:
            await self._write(deliveries, metrics)

    async def release(self, metrics: Metrics) -> None:
        """Write what is held back when its time has come, for ever.

        Args:
            metrics: counts what is written.
        """
        loop = asyncio.get_running_loop()
        while True:
            when, deliveries = await self._held.get()
            await asyncio.sleep(when - loop.time())
            await self._write(deliveries, metrics)

    async def written(self) -> None:
        """Wait until the delivery that is being written, if one is, has been."""
        await self._idle.wait()

    async def _write(self, deliveries: Sequence[Delivery], metrics: Metrics) -> None:
        self._idle.clear()
        try:
            await self._write_each(await self._outgoing(deliveries), metrics)
        finally:
            self._idle.set()

    async def _outgoing(self, deliveries: Sequence[Delivery]) -> dict[ChangeSubscription, list[bytes]]:
        """The frames for each channel; equal ones are built once."""
        outgoing: dict[ChangeSubscription, list[bytes]] = {}
        left = TURN
        for delivery in deliveries:
            frames: dict[tuple[tuple[str, str], tuple[int, ...]], bytes] = {}
            for subscription, ids in delivery.recipients:
                assert isinstance(subscription, ChangeSubscription)
                key = subscription.wire, ids
                frame = frames.get(key)
                if frame is None:
                    frame = frames[key] = subscription.frame(ids, delivery.data)
                outgoing.setdefault(subscription, []).append(frame)
                left -= 1
                if left <= 0:
                    left = TURN
                    await asyncio.sleep(0)
        return outgoing

    @staticmethod
    async def _write_each(outgoing: dict[ChangeSubscription, list[bytes]], metrics: Metrics) -> None:
        """Write each channel's changes as one piece; those who get the same frames get the same bytes."""
        joined: dict[tuple[int, ...], bytes] = {}
        left = TURN
        for subscription, parts in outgoing.items():
            left -= WRITE + len(parts)
            if left < 0:
                left = TURN
                await asyncio.sleep(0)
            metrics.changes_sent += len(parts)
            same = tuple(map(id, parts))
            data = joined.get(same)
            if data is None:
                data = joined[same] = b"".join(parts)
            try:
                subscription.deliver(data)
            except Exception:
                # It costs this channel its changes, and nobody else theirs.
                metrics.handler_failures += 1
                log.exception("changes not delivered", topic=subscription.wire[1])
