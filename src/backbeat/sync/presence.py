"""A channel's presence, for blocking code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from backbeat.sync.streams import EventStream

if TYPE_CHECKING:
    from backbeat.client import presence
    from backbeat.client.events import PresenceEvent
    from backbeat.sync.client import RealtimeClient

__all__ = ["ChannelPresence"]


class ChannelPresence:
    """Who is present in a channel.

    Arguments, results and errors are those of the asyncio client.

    Args:
        client: the client.
        inner: the presence of the asyncio client.
    """

    def __init__(self, client: RealtimeClient, inner: presence.ChannelPresence) -> None:
        self._client = client
        self._io = client.io
        self._inner = inner

    @property
    def state(self) -> Mapping[str, tuple[Mapping[str, Any], ...]]:
        """Who is present, as far as is known: what each tracks, by key."""
        return self._io.run(lambda: self._inner.state)

    def track(self, payload: Mapping[str, Any], *, timeout: float | None = None) -> None:
        """Be present, and tell the others something about oneself; in place of what was told before."""
        self._io.call(self._inner.track, payload, timeout=timeout)

    def untrack(self, *, timeout: float | None = None) -> None:
        """Be present no more."""
        self._io.call(self._inner.untrack, timeout=timeout)

    def events(self, *, maxsize: int = 1000, timeout: float | None = None) -> EventStream[PresenceEvent]:
        """Who comes and goes, as an iterator."""
        return EventStream(self._client, self._io.run(self._inner.events, maxsize=maxsize), timeout=timeout)
