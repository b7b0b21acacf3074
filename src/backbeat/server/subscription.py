"""The row changes a channel asked for: subscribed with its token, and again with the next."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import structlog

from backbeat.errors import Refusal, Unavailable
from backbeat.protocol.bindings import ANY, parse_binding
from backbeat.protocol.messages import TOPIC_PREFIX, Event
from backbeat.server.cancellation import unless_cancelled
from backbeat.websocket.frames import text_frame

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from backbeat.server.outbox import Outbox
    from backbeat.server.realtime import Realtime
    from backbeat.tokens.claims import Token

__all__ = ["ChangeSubscription", "Gap"]

log = structlog.get_logger("backbeat.subscription")

RETRY: Final = (1.0, 2.0, 5.0, 10.0)
"""Seconds between attempts while the database is away; the last one repeats."""


class Gap(NamedTuple):
    """A time whose changes are missing.

    Attributes:
        since: its beginning, in seconds since 1970.
        until: its end.
    """

    since: float
    until: float

    @property
    def explanation(self) -> str:
        """What it means, for people."""
        return (
            f"Changes committed between {_iso(self.since)} and {_iso(self.until)} are missing;"
            " read the rows again."
        )


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class ChangeSubscription:
    """Keeps a channel subscribed to row changes, and tells its client how that stands.

    Args:
        realtime: the server.
        outbox: speaks to the client.
        entries: what the client asked for, each as it was sent.
        ids: their numbers, in the same order.
    """

    __slots__ = (
        "_confirmed",
        "_entries",
        "_ids",
        "_missing_since",
        "_outbox",
        "_realtime",
        "_stopped",
        "_task",
        "_token",
        "_told",
    )

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
        self._token: Token | None = None
        self._confirmed = False
        self._missing_since: float | None = None
        """Since when changes are missing because the table is."""
        self._told = ""
        """The last refusal the client heard of; empty when it is subscribed, or has a new token."""
        self._stopped = False

    def start(self, token: Token) -> None:
        """Subscribe with a token. What was subscribed with an earlier one stays until that is done.

        Args:
            token: as whom the rows are read.
        """
        self._token, self._told = token, ""
        self._begin(token, tell=True)

    def renew(self, *, tell: bool, since: float | None = None) -> None:
        """Subscribe again, for the tables are no longer what they were.

        Args:
            tell: whether the client shall hear that it is still subscribed.
            since: when the tables were last known to be there, in seconds since 1970.
        """
        # A token that comes in the meantime subscribes by itself.
        if self._token is not None and not self._stopped and (self._task is None or self._task.done()):
            self._begin(self._token, tell=tell or not self._confirmed, since=since)

    def concerns(self, tables: Collection[tuple[str, str]]) -> bool:
        """Whether any entry may be for one of some tables.

        Args:
            tables: pairs of schema and name.
        """
        bindings = (parse_binding(entry, 0) for entry in self._entries)
        return any(
            binding.schema in (ANY, schema) and binding.table in (ANY, table)
            for binding in bindings
            for schema, table in tables
        )

    def _begin(self, token: Token, *, tell: bool, since: float | None = None) -> None:
        if self._task is not None:
            self._task.cancel()
        self._task = self._realtime.spawn(
            self._subscribe(token, tell=tell, since=since), name=f"changes of {self._outbox.topic}"
        )

    def stop(self) -> None:
        """Subscribe no more, and forget what was subscribed."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
        self._realtime.changes.unsubscribe(self)

    async def _subscribe(self, token: Token, *, tell: bool, since: float | None) -> None:
        """Subscribe all entries or none; what the client did wrong is told, what we did is retried."""
        attempt = 0
        while True:
            try:
                bindings = [
                    parse_binding(entry, number, self._realtime.settings.big_numbers)
                    for entry, number in zip(self._entries, self._ids, strict=True)
                ]
                await unless_cancelled(self._realtime.changes.subscribe(self, bindings, token.claims))
            except Unavailable as refusal:
                self._realtime.count_refusal(refusal)
                self.interrupted(refusal)
                await asyncio.sleep(RETRY[min(attempt, len(RETRY) - 1)])
                attempt += 1
                tell = True
            except Refusal as refusal:
                self.refuse(refusal, since=since)
                return
            else:
                self._confirmed, self._told = True, ""
                missing_since, self._missing_since = self._missing_since, None
                if tell:
                    now = self._realtime.now()
                    self.restored(None if missing_since is None else Gap(missing_since, now))
                return

    def refuse(self, refusal: Refusal, *, since: float | None) -> None:
        """Tell the client, once, that it is not subscribed, or no longer.

        Args:
            refusal: why.
            since: a time before the first change that it does not get, in seconds since 1970.
        """
        if self._confirmed:
            self._missing_since = since
        self._confirmed = False
        if refusal.message == self._told:
            return
        self._told = refusal.message
        log.info(
            "change subscription refused",
            code=refusal.code,
            topic=self._outbox.topic,
            reason=refusal.message,
        )
        self.withheld(refusal)

    def withheld(self, refusal: Refusal) -> None:
        """Tell the client why changes do not arrive for it, and as whom it is subscribed."""
        assert self._token is not None
        self._realtime.count_refusal(refusal)
        refusal.hint = f"{self._token.describe(self._realtime.now())} {refusal.hint}".strip()
        self._outbox.system_error(refusal, extension=Event.POSTGRES_CHANGES)

    def interrupted(self, refusal: Refusal) -> None:
        """Tell the client that row changes do not arrive at the moment."""
        self._outbox.system_error(refusal, extension=Event.POSTGRES_CHANGES)

    def restored(self, gap: Gap | None = None) -> None:
        """Tell the client that row changes arrive, from now on; one that is still waiting hears it later.

        Args:
            gap: the changes that are missing, if any are.
        """
        if not self._confirmed:
            return
        payload = {
            "channel": self._outbox.topic.removeprefix(TOPIC_PREFIX),
            "extension": Event.POSTGRES_CHANGES,
            "message": "Subscribed to PostgreSQL",
            "status": "ok",
        }
        if gap is not None:
            payload |= {
                "gap_since": _iso(gap.since),
                "gap_until": _iso(gap.until),
                "hint": gap.explanation,
            }
        self._outbox.send(Event.SYSTEM, msgspec.json.encode(payload))

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
