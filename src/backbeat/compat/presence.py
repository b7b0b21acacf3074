"""Who is present, in the shapes of `realtime`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from backbeat.client import events
from backbeat.compat.types import (
    Presence,
    PresenceOnJoinCallback,
    PresenceOnLeaveCallback,
    RealtimePresenceState,
)

__all__ = ["AsyncRealtimePresence"]


class AsyncRealtimePresence:
    """The presences of a channel. Each kind of callback can be given once; another one takes its place.

    Attributes:
        state: who is present, by key.
    """

    def __init__(self) -> None:
        self.state: RealtimePresenceState = {}
        self.on_join_callback: PresenceOnJoinCallback | None = None
        self.on_leave_callback: PresenceOnLeaveCallback | None = None
        self.on_sync_callback: Callable[[], object] | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether there is a callback."""
        return (self.on_join_callback or self.on_leave_callback or self.on_sync_callback) is not None

    def on_join(self, callback: PresenceOnJoinCallback) -> None:
        """Call back with the key, those present under it before, and those that came."""
        self.on_join_callback = callback

    def on_leave(self, callback: PresenceOnLeaveCallback) -> None:
        """Call back with the key, those left under it, and those that went."""
        self.on_leave_callback = callback

    def on_sync(self, callback: Callable[[], object]) -> None:
        """Call back after each change."""
        self.on_sync_callback = callback

    def take(self, event: events.PresenceEvent) -> object:
        """Call back for an event; returns what the callback returned."""
        if isinstance(event, events.PresenceSync):
            self.state = {key: _plain(metas) for key, metas in event.state.items()}
            if self.on_sync_callback is not None:
                return self.on_sync_callback()
        elif isinstance(event, events.PresenceJoin):
            before, joined = _plain(event.current), _plain(event.joined)
            self.state[event.key] = before + joined
            if self.on_join_callback is not None:
                return self.on_join_callback(event.key, before, joined)
        elif isinstance(event, events.PresenceLeave):
            remaining, left = _plain(event.current), _plain(event.left)
            self.state[event.key] = remaining
            if not remaining:
                del self.state[event.key]
            if self.on_leave_callback is not None:
                return self.on_leave_callback(event.key, remaining, left)
        return None


def _plain(metas: Iterable[Mapping[str, Any]]) -> list[Presence]:
    return [cast("Presence", dict(meta)) for meta in metas]
