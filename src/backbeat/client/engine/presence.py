"""Who is present in a channel, as a client learns it (client specification, 1.17).

A full state comes after each join, diffs whenever something changes. A diff that comes before the state of
the current join waits for it. Keys and contents are chosen by strangers: nothing in them is trusted.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from backbeat.client import events
from backbeat.client.engine.wire import json_object
from backbeat.errors import ProtocolError
from backbeat.protocol.presence import Meta, PresenceMap, diff, sync

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["PresenceView", "Presences"]

Presences = dict[str, tuple["Mapping[str, Any]", ...]]

MAX_PENDING: Final = 1000
"""Diffs that wait for a state; an older one is part of the state by the time that comes."""


class PresenceView:
    """The presences of one channel.

    Args:
        topic: the topic, without the prefix.
    """

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._state: PresenceMap = {}
        self._pending: deque[tuple[PresenceMap, PresenceMap]] = deque(maxlen=MAX_PENDING)
        self._synced = False

    def public(self) -> Presences:
        """What is known, as the application sees it."""
        return {key: _public_all(metas) for key, metas in self._state.items()}

    def expect_state(self) -> None:
        """The channel was joined: a full state will come."""
        self._synced = False
        self._pending.clear()

    def forget(self) -> None:
        """Know nothing any more."""
        self._state = {}
        self.expect_state()

    def take_state(self, payload: bytes, at: float) -> list[events.PresenceEvent]:
        """Take a full state.

        Raises:
            ProtocolError: it is not one.
        """
        found = list(self._apply(*diff(self._state, _presences(json_object(payload))), at))
        self._synced = True
        while self._pending:
            found += self._apply(*self._pending.popleft(), at)
        return [*found, self._sync(at)]

    def take_diff(self, payload: bytes, at: float) -> list[events.PresenceEvent]:
        """Take a diff; before the state it waits.

        Raises:
            ProtocolError: it is not one.
        """
        parts = json_object(payload)
        change = _presences(parts.get("joins")), _presences(parts.get("leaves"))
        if not self._synced:
            self._pending.append(change)
            return []
        return [*self._apply(*change, at), self._sync(at)]

    def _sync(self, at: float) -> events.PresenceSync:
        return events.PresenceSync(at=at, topic=self._topic, state=self.public())

    def _apply(self, joins: PresenceMap, leaves: PresenceMap, at: float) -> Iterator[events.PresenceEvent]:
        before, joined = self._state, sync(self._state, joins, {})
        self._state = sync(joined, {}, leaves)
        held = {meta["phx_ref"]: meta for metas in before.values() for meta in metas}
        for key, metas in joins.items():
            for meta in metas:
                if (previous := held.get(meta.get("phx_ref_prev"))) is not None:
                    yield events.PresenceUpdate(
                        at=at, topic=self._topic, key=key, before=_public(previous), after=_public(meta)
                    )
            yield events.PresenceJoin(
                at=at,
                topic=self._topic,
                key=key,
                current=_public_all(before.get(key, [])),
                joined=_public_all(metas),
            )
        for key, metas in leaves.items():
            if key in joined:
                yield events.PresenceLeave(
                    at=at,
                    topic=self._topic,
                    key=key,
                    current=_public_all(self._state.get(key, [])),
                    left=_public_all(metas),
                )


def _presences(value: object) -> PresenceMap:
    """Read `{key: {"metas": [{"phx_ref": …, …}, …]}}`.

    Raises:
        ProtocolError: it is something else.
    """
    if not isinstance(value, dict):
        raise ProtocolError("Presences are an object.")
    state: PresenceMap = {}
    for key, entry in value.items():
        metas = entry.get("metas") if isinstance(entry, dict) else None
        if not isinstance(metas, list) or not all(map(_is_meta, metas)):
            raise ProtocolError("A presence has `metas`, each an object with a `phx_ref`.")
        if metas:
            state[key] = metas
    return state


def _is_meta(value: object) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("phx_ref"), str)
        and isinstance(value.get("phx_ref_prev"), str | None)
    )


def _public(meta: Meta) -> Mapping[str, Any]:
    shown = {name: value for name, value in meta.items() if name not in ("phx_ref", "phx_ref_prev")}
    return {"presence_ref": meta["phx_ref"], **shown}


def _public_all(metas: list[Meta]) -> tuple[Mapping[str, Any], ...]:
    return tuple(_public(meta) for meta in metas)
