"""The row changes a channel asked for: subscribed with its token, and again with the next."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from backbeat.errors import Refusal, Unavailable
from backbeat.protocol.bindings import parse_binding
from backbeat.protocol.messages import Event
from backbeat.websocket.frames import text_frame

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from backbeat.server.outbox import Outbox
    from backbeat.server.realtime import Realtime
    from backbeat.tokens.claims import Token

__all__ = ["ChangeSubscription"]

log = structlog.get_logger("backbeat.subscription")

RETRY: Final = (1.0, 2.0, 5.0, 10.0)
"""Seconds between attempts while the database is away; the last one repeats."""


class ChangeSubscription:
    """Keeps a channel subscribed to row changes, and tells its client how that stands.

    Args:
        realtime: the server.
        outbox: speaks to the client.
        entries: what the client asked for, each as it was sent.
        ids: their numbers, in the same order.
    """

    __slots__ = ("_entries", "_ids", "_outbox", "_realtime", "_stopped", "_task")

    def __init__(
        self,
        realtime: Realtime,
        outbox: Outbox,
        entries: Sequence[Mapping[str, object]],
        ids: Sequence[int],
    ) -> None:
        self._realtime = realtime
        self._outbox = outbox
        self._entries = entries
        self._ids = ids
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    def start(self, token: Token) -> None:
        """Subscribe with a token. What was subscribed with an earlier one stays until that is done.

        Args:
            token: as whom the rows are read.
        """
        if self._task is not None:
            self._task.cancel()
        self._task = self._realtime.spawn(self._subscribe(token), name=f"changes of {self._outbox.topic}")

    def stop(self) -> None:
        """Subscribe no more, and forget what was subscribed."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
        self._realtime.changes.unsubscribe(self)

    async def _subscribe(self, token: Token) -> None:
        """Subscribe all entries or none; what the client did wrong is told, what we did is retried."""
        attempt = 0
        while True:
            try:
                bindings = [
                    parse_binding(entry, number)
                    for entry, number in zip(self._entries, self._ids, strict=True)
                ]
                await self._realtime.changes.subscribe(self, bindings, token.claims)
            except Unavailable as refusal:
                self._realtime.count_refusal(refusal)
                self.interrupted(refusal)
                await asyncio.sleep(RETRY[min(attempt, len(RETRY) - 1)])
                attempt += 1
            except Refusal as refusal:
                self._refused(refusal, token)
                return
            else:
                self.restored()
                return

    def _refused(self, refusal: Refusal, token: Token) -> None:
        self._realtime.count_refusal(refusal)
        log.info(
            "change subscription refused",
            code=refusal.code,
            topic=self._outbox.topic,
            reason=refusal.message,
        )
        refusal.hint = f"{token.describe(self._realtime.now())} {refusal.hint}".strip()
        self._outbox.system_error(refusal, extension=Event.POSTGRES_CHANGES)

    def interrupted(self, refusal: Refusal) -> None:
        """Tell the client that row changes do not arrive at the moment."""
        self._outbox.system_error(refusal, extension=Event.POSTGRES_CHANGES)

    def restored(self) -> None:
        """Tell the client that row changes arrive, from now on."""
        self._outbox.system("Subscribed to PostgreSQL", extension=Event.POSTGRES_CHANGES)

    @property
    def wire(self) -> tuple[str, str]:
        """What a frame of a change depends on beside the change: two with the same may share it."""
        return self._outbox.serializer.vsn, self._outbox.topic

    def frame(self, ids: tuple[int, ...], data: bytes) -> bytes:
        """Write the frame of one change.

        Args:
            ids: the numbers of the matching entries.
            data: JSON text of the change.
        """
        payload = b'{"ids":%b,"data":%b}' % (msgspec.json.encode(ids), data)
        outbox = self._outbox
        return text_frame(outbox.serializer.encode(None, None, outbox.topic, Event.POSTGRES_CHANGES, payload))

    def deliver(self, frames: bytes) -> None:
        """Write frames of changes; those held back longer than the channel lived are forgotten."""
        if not self._stopped:
            self._outbox.frames(frames)
