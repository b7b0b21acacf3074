"""The row changes of a user's bands: four channels for each band, over one socket, with the user's token."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from examples.rockon.terminal.lists import LISTS

from backbeat import F, RealtimeClient
from backbeat.client.events import (
    ChangeEvent,
    ChannelDenied,
    Delete,
    Interrupted,
    Resumed,
    StatusEvent,
    Subscribed,
    SystemEvent,
)
from backbeat.errors import BackbeatError, ConfigurationError, TokenUnavailable
from backbeat.session import Session

__all__ = ["BandListener", "Connection", "RealtimeManager", "RealtimeStartError", "StartFailed"]

log = logging.getLogger("rockon")

Stage: TypeAlias = Literal["token", "bands", "subscribe"]
Connection: TypeAlias = Literal["live", "connecting", "offline"]


@dataclass(frozen=True, slots=True)
class StartFailed:
    """Realtime could not be started.

    Attributes:
        stage: what was being done: bringing the token, finding the bands, or subscribing to them.
        error: why.
    """

    stage: Stage
    error: Exception


class RealtimeStartError(BackbeatError):
    """Realtime could not be started; its cause says why, and no socket is left open."""

    code = "RealtimeStartError"

    def __init__(self, failure: StartFailed) -> None:
        kind = type(failure.error).__name__
        super().__init__(f"Realtime could not be started ({failure.stage}): {kind}: {failure.error}")
        self.stage = failure.stage


class BandListener(Protocol):
    """Who is told what happens."""

    def start_failed(self, failure: StartFailed) -> None:
        """Realtime could not be started."""

    def connection(self, state: Connection, reason: str) -> None:
        """All lists are live, or not, and why not."""

    def knows(self, table: str, row_id: str) -> bool:
        """Whether a row is in one of the lists: a DELETE says its id, and not whose it was."""

    def changed(self, table: str, change: ChangeEvent[dict[str, Any]]) -> None:
        """A row of a band has changed."""

    async def read(self, band_id: str, table: str) -> None:
        """Changes flow from now on: read what was before. Changes of this list wait until that is done."""


class RealtimeManager:
    """Subscribes to the lists of bands.

    Args:
        client: the connection; made with `require_user_token`, so that no list is ever joined as nobody.
        listener: who is told what happens.

    Raises:
        ConfigurationError: the client may join without a user's token.
    """

    def __init__(self, client: RealtimeClient, listener: BandListener) -> None:
        if not client.settings.require_user_token:
            raise ConfigurationError("The client has to be made with `require_user_token=True`.")
        self._client = client
        self._listener = listener
        self._lists: dict[str, _ListChannel] = {}
        self._changing = asyncio.Lock()
        self._connected = False
        log.info("🔌 RealtimeManager initialized - using main Supabase client")

    @classmethod
    async def start(
        cls,
        client: RealtimeClient,
        session: Session,
        find_bands: Callable[[], Awaitable[Collection[str]]],
        listener: BandListener,
    ) -> RealtimeManager:
        """Bring the token, find the bands, subscribe to their lists; in this order, or not at all.

        Args:
            client: the connection, with nothing subscribed.
            session: who is signed in.
            find_bands: gives the ids of the user's bands.
            listener: who is told what happens.

        Raises:
            RealtimeStartError: something went wrong; it was logged, and the connection is closed.
        """
        log.info("🔌 Starting real-time WebSocket sync...")
        stage: Stage = "token"
        try:
            await _bring_token(client, session.user_id)
            manager = cls(client, listener)
            stage = "bands"
            band_ids = await find_bands()
            stage = "subscribe"
            await manager.subscribe_to_user_bands(session.user_id, band_ids)
        except Exception as error:
            kind = type(error).__name__
            log.exception("❌ Failed to start real-time sync: %s: %s", kind, error)  # noqa: TRY401 - in one line
            await client.remove_all()
            failure = StartFailed(stage, error)
            listener.start_failed(failure)
            raise RealtimeStartError(failure) from error
        return manager

    @property
    def topics(self) -> list[str]:
        """The channels that are subscribed."""
        return list(self._lists)

    async def subscribe_to_user_bands(self, user_id: str, band_ids: Collection[str]) -> None:
        """Follow the lists of these bands and of no others; what was followed before stays as it is.

        Args:
            user_id: who has to be signed in.
            band_ids: their bands.

        Raises:
            TokenUnavailable: the connection does not hold a token of this user.
            BackbeatError: a list could not be subscribed, and is left out; those that could stay.
        """
        await _bring_token(self._client, user_id)
        wanted = {f"{table}-{band_id}": (table, band_id) for band_id in band_ids for table in LISTS}
        async with self._changing:
            for topic in self._lists.keys() - wanted.keys():
                await self._lists.pop(topic).leave()
            added = [
                _ListChannel(self._client, *wanted[topic], self._listener, self._report)
                for topic in wanted
                if topic not in self._lists
            ]
            self._lists |= {channel.topic: channel for channel in added}
            self._report()
            errors = await asyncio.gather(*(channel.join() for channel in added))
            for channel, error in zip(added, errors, strict=True):
                if error is not None:
                    del self._lists[channel.topic]
            for error in filter(None, errors):
                raise error

    def _report(self) -> None:
        lists = self._lists.values()
        connected = all(channel.up for channel in lists)
        if connected and lists and not self._connected:
            log.info("✅ Real-time sync connected")
        self._connected = connected
        reason = next((channel.reason for channel in lists if channel.reason), "")
        state: Connection = "live" if connected else "offline" if reason else "connecting"
        self._listener.connection(state, reason)


async def _bring_token(client: RealtimeClient, user_id: str) -> None:
    """Wait until the connection holds the user's token.

    A join without it is taken for an anonymous one: row level security hides every row, and the channel looks
    fine and stays silent.

    Raises:
        TokenUnavailable: there is none, or it is somebody else's.
    """
    state = await client.auth_ready()
    if not user_id or state.sub != user_id:
        error = TokenUnavailable(
            "The realtime connection does not hold the token of the user who is signed in.",
            hint=str(state.last_error or "Make the client with `token=auth`."),
        )
        raise error from state.last_error


class _ListChannel:
    """One list of one band.

    Args:
        client: the connection.
        table: the list.
        band_id: the band.
        listener: who is told what happens.
        report: called when the list goes up or down.

    Attributes:
        topic: the channel's topic.
        up: whether changes flow.
        reason: why they do not, where that is known.
    """

    def __init__(
        self,
        client: RealtimeClient,
        table: str,
        band_id: str,
        listener: BandListener,
        report: Callable[[], None],
    ) -> None:
        self.topic = f"{table}-{band_id}"
        self.up = False
        self.reason = ""
        self._client = client
        self._table = table
        self._band_id = band_id
        self._listener = listener
        self._report = report
        self._channel = client.channel(self.topic)
        of_band = F("band_id") == band_id
        self._channel.on_change(table, self._changed, event="INSERT", filter=of_band)
        self._channel.on_change(table, self._changed, event="UPDATE", filter=of_band)
        # Only the primary key of a deleted row is known, so the server cannot tell whose it was.
        self._channel.on_change(table, self._deleted, event="DELETE")
        self._channel.on_status(self._status)
        self._channel.on_system(self._system)

    async def join(self) -> BackbeatError | None:
        """Subscribe, and wait until changes flow.

        Returns:
            Why it did not work; then the channel is gone.
        """
        try:
            await self._channel.subscribe()
        except BackbeatError as error:
            self._down(error)
            await self.leave()
            return error
        return None

    async def leave(self) -> None:
        """Unsubscribe."""
        await self._client.remove(self._channel)

    def _deleted(self, change: Delete[dict[str, Any]]) -> None:
        if self._listener.knows(self._table, str(change.old.get("id"))):
            self._changed(change)

    def _changed(self, change: ChangeEvent[dict[str, Any]]) -> None:
        if change.errors:
            log.error("❌ Channel error for %s: %s", self.topic, ", ".join(change.errors))
            return
        log.info("📡 Received %s event", change.type)
        self._listener.changed(self._table, change)

    def _status(self, event: StatusEvent) -> None:
        match event:
            case Subscribed() | Resumed():
                log.info("✅ Subscribed to %s", self.topic)
                self.reason = ""
                self._report()
            case Interrupted() | ChannelDenied():
                self._down(event.error)

    async def _system(self, event: SystemEvent) -> None:
        """Being joined is not enough: whether changes will come is said a moment later."""
        if event.error is not None:
            self._down(event.error)
        elif event.extension == "postgres_changes":
            self.up, self.reason = True, ""
            self._report()
            await self._listener.read(self._band_id, self._table)

    def _down(self, error: BackbeatError) -> None:
        # While a server restarts, every attempt fails the same way: said once.
        if self.reason != str(error):
            log.error("❌ Channel error for %s: %s", self.topic, error)
        self.up, self.reason = False, str(error)
        self._report()
