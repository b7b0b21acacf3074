"""Who is present in a room: one tracked object a channel, under the key it joined with."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from backbeat.protocol.presence import Meta, PresenceMap, encode_diff, grouped

__all__ = ["PresenceTable"]

M = TypeVar("M", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Tracked:
    """What one member tracks: the key, the object as sent, and the meta others see."""

    key: str
    text: bytes
    meta: Meta


class PresenceTable(Generic[M]):
    """The presences of one room. Every change returns the diff to publish, as JSON text, or None."""

    __slots__ = ("_tracked",)

    def __init__(self) -> None:
        self._tracked: dict[M, Tracked] = {}

    def __len__(self) -> int:
        return len(self._tracked)

    def state(self) -> PresenceMap:
        """Everyone who is present, by key."""
        return grouped([(tracked.key, tracked.meta) for tracked in self._tracked.values()])

    def track(self, member: M, key: str, payload: Meta, ref: str) -> bytes | None:
        """Track an object, or replace the tracked one.

        Replacing is one diff: the new meta joins, naming the old one as `phx_ref_prev`, and the old one
        leaves. The same object again changes nothing.

        Args:
            member: whose presence it is.
            key: what it is tracked under.
            payload: the object.
            ref: a new unique `phx_ref`.
        """
        # As text, for to Python `1` and `true` are the same.
        text = msgspec.json.encode(payload)
        before = self._tracked.get(member)
        if before is not None and before.text == text:
            return None
        # Clients tell metas apart by these two: they are ours to choose.
        meta = {**payload, "phx_ref": ref}
        meta.pop("phx_ref_prev", None)
        leaves: PresenceMap = {}
        if before is not None:
            meta["phx_ref_prev"] = before.meta["phx_ref"]
            leaves = {before.key: [before.meta]}
        self._tracked[member] = Tracked(key, text, meta)
        return encode_diff({key: [meta]}, leaves)

    def untrack(self, member: M) -> bytes | None:
        """Stop tracking a member; nothing happens when it was not tracked."""
        before = self._tracked.pop(member, None)
        return encode_diff({}, {before.key: [before.meta]}) if before is not None else None
