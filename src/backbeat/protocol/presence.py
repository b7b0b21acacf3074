"""Presence, as it looks on the wire: who is there, who came, who went (server specification, section 7.2).

A state maps a key to the metas tracked under it, one for each connection; a diff holds two states. Metas are
told apart by their `phx_ref`.
"""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["Meta", "PresenceMap", "diff", "encode_diff", "encode_state", "grouped", "sync"]

Meta = dict[str, Any]
PresenceMap = dict[str, list[Meta]]


def grouped(entries: list[tuple[str, Meta]]) -> PresenceMap:
    """Collect metas under their keys, in the order given."""
    state: PresenceMap = {}
    for key, meta in entries:
        state.setdefault(key, []).append(meta)
    return state


def diff(old: PresenceMap, new: PresenceMap) -> tuple[PresenceMap, PresenceMap]:
    """What has to join and what has to leave to get from one state to the other.

    Returns:
        `(joins, leaves)`.
    """
    return _missing(new, old), _missing(old, new)


def sync(state: PresenceMap, joins: PresenceMap, leaves: PresenceMap) -> PresenceMap:
    """Apply a diff to a state; the state given is left as it is."""
    result = {key: list(metas) for key, metas in state.items()}
    for key, metas in joins.items():
        refs = {meta["phx_ref"] for meta in metas}
        result[key] = [meta for meta in result.get(key, ()) if meta["phx_ref"] not in refs] + metas
    for key, metas in leaves.items():
        refs = {meta["phx_ref"] for meta in metas}
        if remaining := [meta for meta in result.pop(key, ()) if meta["phx_ref"] not in refs]:
            result[key] = remaining
    return result


def encode_state(state: PresenceMap) -> bytes:
    """The payload of `presence_state`."""
    return msgspec.json.encode({key: {"metas": metas} for key, metas in state.items()})


def encode_diff(joins: PresenceMap, leaves: PresenceMap) -> bytes:
    """The payload of `presence_diff`; both parts are always there."""
    return b'{"joins":%b,"leaves":%b}' % (encode_state(joins), encode_state(leaves))


def _missing(here: PresenceMap, there: PresenceMap) -> PresenceMap:
    """The metas of one state that the other does not have."""
    result: PresenceMap = {}
    for key, metas in here.items():
        known = {meta["phx_ref"] for meta in there.get(key, ())}
        if unknown := [meta for meta in metas if meta["phx_ref"] not in known]:
            result[key] = unknown
    return result
