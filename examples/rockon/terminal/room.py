"""The private channel of a band: who is online, and who is about to remove what."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from backbeat import RealtimeClient
from backbeat.client.events import BroadcastEvent, ChannelDenied, Interrupted, StatusEvent, Subscribed
from backbeat.errors import BackbeatError

__all__ = ["BandRoom"]

log = logging.getLogger("rockon")

MOST_REMOVALS: Final = 100
"""Announcements that are remembered until the DELETE comes; of more, the oldest is forgotten."""


class BandRoom:
    """The people of a band.

    Args:
        client: the connection.
        band_id: the band.
        user_id: who I am.
        changed: called when somebody came or went.
    """

    def __init__(
        self, client: RealtimeClient, band_id: str, user_id: str, changed: Callable[[], None]
    ) -> None:
        self._client = client
        self._user_id = user_id
        self._removers: dict[str, str] = {}
        self._channel = client.channel(f"band-{band_id}", private=True, presence_key=user_id, ack=True)
        self._channel.on_presence(lambda _: changed())
        self._channel.on_broadcast("removing", self._removing)
        self._channel.on_status(self._status)

    @property
    def online(self) -> set[str]:
        """The ids of the users who are here."""
        return set(self._channel.presence.state)

    async def enter(self) -> None:
        """Subscribe. What fails is logged; the lists do not wait for it."""
        try:
            await self._channel.subscribe()
        except BackbeatError as error:
            log.error("❌ Channel error for %s: %s", self._channel.topic, error)  # noqa: TRY400 - no surprise

    async def leave(self) -> None:
        """Unsubscribe."""
        await self._client.remove(self._channel)

    async def announce_removal(self, table: str, row_id: str) -> None:
        """Tell the others that it is me who is about to remove a row: its DELETE cannot say so.

        Raises:
            BackbeatError: it could not be sent.
        """
        self._remember(row_id, self._user_id)
        if self._channel.is_joined:
            payload = {"table": table, "id": row_id, "by": self._user_id}
            await self._channel.send("removing", payload, on_offline="fail")

    def take_remover(self, row_id: str) -> str | None:
        """Who removed a row, if they said so."""
        return self._removers.pop(row_id, None)

    def _removing(self, event: BroadcastEvent) -> None:
        match event.payload:
            case {"id": str(row_id), "by": str(user_id)}:
                self._remember(row_id, user_id)

    def _remember(self, row_id: str, user_id: str) -> None:
        self._removers[row_id] = user_id
        if len(self._removers) > MOST_REMOVALS:
            del self._removers[next(iter(self._removers))]

    async def _status(self, event: StatusEvent) -> None:
        match event:
            case Subscribed():
                await self._channel.presence.track({"since": datetime.now(UTC).isoformat()})
            case Interrupted() | ChannelDenied():
                log.error("❌ Channel error for %s: %s", event.topic, event.error)
