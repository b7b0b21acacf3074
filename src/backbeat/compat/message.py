"""What of the messages of `realtime` programs get to see."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from backbeat.compat.types import RealtimePostgresChangesListenEvent

__all__ = [
    "ErrorSystemPayload",
    "Message",
    "PostgresRowChange",
    "ReplyPostgresChanges",
    "SuccessSystemPayload",
    "SystemCallback",
]


@dataclass(frozen=True)
class Message:
    """What `AsyncRealtimeClient.send` takes."""

    event: str
    payload: Mapping[str, Any]
    topic: str
    ref: str | None = None
    join_ref: str | None = None


@dataclass(frozen=True)
class SuccessSystemPayload:
    """What a callback for system messages is given."""

    channel: str
    extension: str
    message: str
    status: Literal["ok"] = "ok"


@dataclass(frozen=True)
class ErrorSystemPayload:
    """A system message that says what went wrong; the callback of `subscribe` is given it as JSON."""

    channel: str
    extension: str
    message: str
    status: Literal["error"] = "error"


@dataclass(frozen=True)
class PostgresRowChange:
    """Row changes that the server confirmed."""

    id: int
    event: RealtimePostgresChangesListenEvent
    table: str | None = None
    schema_: str | None = None
    filter: str | None = None
    select: list[str] | None = None


@dataclass(frozen=True)
class ReplyPostgresChanges:
    """What a callback for the answer to a push is given."""

    postgres_changes: list[PostgresRowChange] | None = None


SystemCallback: TypeAlias = Callable[[SuccessSystemPayload], object]
