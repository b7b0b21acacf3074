"""Our events and errors in the shapes that the callbacks of `realtime` are given."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from backbeat.compat.types import (
    BroadcastMeta,
    BroadcastPayload,
    PostgresChangesPayload,
    RealtimePostgresChangesListenEvent,
    RealtimeSubscribeStates,
)
from backbeat.errors import BackbeatError, NoReply, Refusal
from backbeat.protocol.reasons import explained

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backbeat.client import events

__all__ = ["broadcast_payload", "changes_payload", "failure", "reason_of"]

META = ("replayed", "id")
DATA = ("schema", "table", "commit_timestamp", "errors")
ROWS = ("record", "old_record")


def broadcast_payload(event: events.BroadcastEvent) -> BroadcastPayload:
    """What a callback for broadcasts is given."""
    payload = BroadcastPayload(event=event.event, payload=event.payload)
    if event.meta:
        payload["meta"] = cast(
            "BroadcastMeta", {name: event.meta[name] for name in META if name in event.meta}
        )
    return payload


def changes_payload(event: events.ChangeEvent[Any]) -> PostgresChangesPayload:
    """What a callback for row changes is given: the server's own words, nothing converted."""
    message = json.loads(bytes(event.raw))
    data = message["data"]
    shape = {name: data.get(name) for name in DATA}
    shape["type"] = RealtimePostgresChangesListenEvent(data["type"])
    shape["columns"] = [{"name": each["name"], "type": each["type"]} for each in data["columns"]]
    shape |= {name: data[name] for name in ROWS if name in data}
    return cast("PostgresChangesPayload", {"data": shape, "ids": message["ids"]})


def failure(
    error: BackbeatError, system: Mapping[str, Any] | None
) -> tuple[RealtimeSubscribeStates, Exception | None]:
    """What the callback of `subscribe` is told.

    Args:
        error: what went wrong.
        system: what the server said before it ended the channel, if it said something.
    """
    if isinstance(error, NoReply):
        return RealtimeSubscribeStates.TIMED_OUT, None
    if not isinstance(error, Refusal):
        return RealtimeSubscribeStates.CHANNEL_ERROR, error
    told = Exception(json.dumps(system or {"reason": reason_of(error)}))
    told.__cause__ = error
    return RealtimeSubscribeStates.CHANNEL_ERROR, told


def reason_of(error: BackbeatError) -> str:
    """The text of an error reply, with the hint behind it as a server that explains itself writes it."""
    return explained(error.reason, error, explain=True) if isinstance(error, Refusal) else str(error)
