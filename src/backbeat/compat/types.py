"""The words and the shapes of `realtime`: what its callbacks are given, and what its channels are told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal, NotRequired, ParamSpec, TypeAlias, TypedDict, TypeVar

__all__ = [
    "DEFAULT_HEARTBEAT_INTERVAL",
    "DEFAULT_TIMEOUT",
    "PHOENIX_CHANNEL",
    "VSN",
    "BroadcastCallback",
    "BroadcastMeta",
    "BroadcastPayload",
    "Callback",
    "ChannelEvents",
    "ChannelStates",
    "Payload",
    "PostgresChangesCallback",
    "PostgresChangesColumn",
    "PostgresChangesData",
    "PostgresChangesPayload",
    "Presence",
    "PresenceDiff",
    "PresenceEvents",
    "PresenceMeta",
    "PresenceOnJoinCallback",
    "PresenceOnLeaveCallback",
    "PresenceOpts",
    "RawPresenceDiff",
    "RawPresenceState",
    "RawPresenceStateEntry",
    "RealtimeAcknowledgementStatus",
    "RealtimeChannelBroadcastConfig",
    "RealtimeChannelConfig",
    "RealtimeChannelOptions",
    "RealtimeChannelPresenceConfig",
    "RealtimePostgresChangesListenEvent",
    "RealtimePresenceJoinPayload",
    "RealtimePresenceLeavePayload",
    "RealtimePresenceListenEvents",
    "RealtimePresenceState",
    "RealtimeSubscribeStates",
    "ReplayOption",
    "SubscribeCallback",
    "T_ParamSpec",
    "T_Retval",
]

DEFAULT_TIMEOUT: Final = 10
"""Seconds that anything is waited for."""

DEFAULT_HEARTBEAT_INTERVAL: Final = 25
"""Seconds between two heartbeats."""

PHOENIX_CHANNEL: Final = "phoenix"
VSN: Final = "2.0.0"
"""The protocol version; `realtime` itself speaks 1.0.0, which cannot carry bytes."""

T_ParamSpec = ParamSpec("T_ParamSpec")
T_Retval = TypeVar("T_Retval")
Payload = TypeVar("Payload")
Callback: TypeAlias = Callable[T_ParamSpec, T_Retval]


# Words ------------------------------------------------------------------------------------------------------


class ChannelEvents(str, Enum):
    """The events of the protocol."""

    close = "phx_close"
    error = "phx_error"
    join = "phx_join"  # type: ignore[assignment] # `str` has a method of this name
    reply = "phx_reply"
    leave = "phx_leave"
    heartbeat = "heartbeat"
    access_token = "access_token"  # noqa: S105 - the name of an event
    broadcast = "broadcast"
    presence = "presence"
    presence_state = "presence_state"
    presence_diff = "presence_diff"
    system = "system"
    postgres_changes = "postgres_changes"


class ChannelStates(str, Enum):
    """Where in its life a channel is."""

    JOINED = "joined"
    CLOSED = "closed"
    ERRORED = "errored"
    JOINING = "joining"
    LEAVING = "leaving"


class RealtimeSubscribeStates(str, Enum):
    """What the callback of `subscribe` is told."""

    SUBSCRIBED = "SUBSCRIBED"
    TIMED_OUT = "TIMED_OUT"
    CLOSED = "CLOSED"
    CHANNEL_ERROR = "CHANNEL_ERROR"


class RealtimePresenceListenEvents(str, Enum):
    """What can happen to a presence."""

    SYNC = "SYNC"
    JOIN = "JOIN"
    LEAVE = "LEAVE"


class RealtimeAcknowledgementStatus(str, Enum):
    """How a push was answered."""

    Ok = "ok"
    Error = "error"
    Timeout = "timeout"


class RealtimePostgresChangesListenEvent(str, Enum):
    """Which row changes are wanted, and which one a row change is."""

    All = "*"
    Insert = "INSERT"
    Update = "UPDATE"
    Delete = "DELETE"


# What callbacks are given -----------------------------------------------------------------------------------


class PostgresChangesColumn(TypedDict):
    """A column of a changed row."""

    name: str
    type: str


class PostgresChangesData(TypedDict):
    """A row change; values are as the server's JSON has them."""

    schema: str
    table: str
    commit_timestamp: str
    type: RealtimePostgresChangesListenEvent
    errors: str | list[str] | None
    columns: list[PostgresChangesColumn]
    record: NotRequired[dict[str, Any] | None]
    old_record: NotRequired[dict[str, Any]]


class PostgresChangesPayload(TypedDict):
    """What a callback for row changes is given."""

    data: PostgresChangesData
    ids: list[int]


class BroadcastMeta(TypedDict, total=False):
    """What the server says about a stored broadcast."""

    replayed: bool
    id: str


class BroadcastPayload(TypedDict):
    """What a callback for broadcasts is given; the payload of one sent as bytes is `bytes`."""

    event: str
    payload: dict[str, Any]
    meta: NotRequired[BroadcastMeta]


class Presence(TypedDict):
    """Somebody who is present: a reference, and whatever they track."""

    presence_ref: str


PresenceOnJoinCallback: TypeAlias = Callable[[str, list[Any], list[Presence]], object]
PresenceOnLeaveCallback: TypeAlias = Callable[[str, list[Any], list[Presence]], object]
SubscribeCallback: TypeAlias = Callable[[RealtimeSubscribeStates, Exception | None], object]
RealtimePresenceState: TypeAlias = dict[str, list[Presence]]


@dataclass(frozen=True)
class BroadcastCallback:
    """A callback for broadcasts of an event."""

    callback: Callable[[BroadcastPayload], object]
    event: str


@dataclass
class PostgresChangesCallback:
    """A callback for row changes."""

    callback: Callable[[PostgresChangesPayload], object]
    event: RealtimePostgresChangesListenEvent | str
    table: str | None
    schema: str | None
    filter: str | None
    select: list[str] | None = None

    def __post_init__(self) -> None:
        self.schema = self.schema or "public"


# What channels are told -------------------------------------------------------------------------------------


class ReplayOption(TypedDict, total=False):
    """Which stored messages to begin with."""

    since: int
    limit: int


class RealtimeChannelBroadcastConfig(TypedDict, total=False):
    """What a channel does with broadcasts."""

    ack: bool
    self: bool
    replay: ReplayOption
    replication_ready: bool


class RealtimeChannelPresenceConfig(TypedDict, total=False):
    """Who a channel is present as."""

    key: str
    enabled: bool


class RealtimeChannelConfig(TypedDict, total=False):
    """What a channel is."""

    broadcast: RealtimeChannelBroadcastConfig | None
    presence: RealtimeChannelPresenceConfig | None
    private: bool


class RealtimeChannelOptions(TypedDict):
    """What `channel` takes."""

    config: NotRequired[RealtimeChannelConfig]


# Presence on the wire ---------------------------------------------------------------------------------------


class PresenceEvents:
    """The names of two events.

    Args:
        state: of a full state.
        diff: of a change.
    """

    def __init__(self, state: str, diff: str) -> None:
        self.state = state
        self.diff = diff


class PresenceOpts:
    """Options of a presence.

    Args:
        events: the names of its events.
    """

    def __init__(self, events: PresenceEvents) -> None:
        self.events = events


class PresenceMeta(TypedDict):
    """Somebody who is present, on the wire."""

    phx_ref: NotRequired[str]
    phx_ref_prev: NotRequired[str]


class RawPresenceStateEntry(TypedDict):
    """Those present under one key, on the wire."""

    metas: list[PresenceMeta]


RawPresenceState: TypeAlias = dict[str, RawPresenceStateEntry]


class RawPresenceDiff(TypedDict):
    """Who came and who went, on the wire."""

    joins: RawPresenceState
    leaves: RawPresenceState


class PresenceDiff(TypedDict):
    """Who came and who went."""

    joins: RealtimePresenceState
    leaves: RealtimePresenceState


class RealtimePresenceJoinPayload(TypedDict):
    """Somebody came."""

    event: Literal[RealtimePresenceListenEvents.JOIN]
    key: str
    current_presences: list[Presence]
    new_presences: list[Presence]


class RealtimePresenceLeavePayload(TypedDict):
    """Somebody went."""

    event: Literal[RealtimePresenceListenEvents.LEAVE]
    key: str
    current_presences: list[Presence]
    left_presences: list[Presence]
