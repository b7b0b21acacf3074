"""What travels over a socket, apart from how it is written: messages, and the words in them."""

from __future__ import annotations

from typing import ClassVar, Final, TypeAlias

import msgspec

__all__ = [
    "PHOENIX",
    "TOPIC_PREFIX",
    "BinaryBroadcast",
    "Event",
    "Incoming",
    "Message",
    "UserBroadcast",
]

PHOENIX: Final = "phoenix"
"""The topic of the connection itself: heartbeats."""

TOPIC_PREFIX: Final = "realtime:"
"""Every channel's topic starts with it; the rest is the sub-topic that policies see."""


class Event:
    """The words of the protocol. Other events may arrive, and are unknown, not wrong."""

    JOIN: Final = "phx_join"
    LEAVE: Final = "phx_leave"
    CLOSE: Final = "phx_close"
    ERROR: Final = "phx_error"
    REPLY: Final = "phx_reply"
    HEARTBEAT: Final = "heartbeat"
    ACCESS_TOKEN: Final = "access_token"  # noqa: S105 - the name of an event
    BROADCAST: Final = "broadcast"
    PRESENCE: Final = "presence"
    PRESENCE_STATE: Final = "presence_state"
    PRESENCE_DIFF: Final = "presence_diff"
    POSTGRES_CHANGES: Final = "postgres_changes"
    SYSTEM: Final = "system"


class Message(msgspec.Struct, frozen=True):
    """One message from a client, its payload still JSON text.

    Attributes:
        join_ref: names the join this message belongs to.
        ref: what a reply has to repeat.
        topic: the whole topic, prefix included.
        event: one of `Event`, or anything else.
        payload: JSON text; not necessarily an object.
    """

    join_ref: str | None
    ref: str | None
    topic: str
    event: str
    payload: bytes


class BinaryBroadcast(msgspec.Struct, frozen=True):
    """A broadcast that came as a binary frame (kind 3): its payload is never looked into.

    Attributes:
        user_event: the event the application chose.
        payload: JSON text when `is_json`, else bytes only the applications understand.
        event: always `broadcast`; the topic's handlers are found by it.
    """

    event: ClassVar[str] = Event.BROADCAST

    join_ref: str | None
    ref: str | None
    topic: str
    user_event: str
    payload: bytes
    is_json: bool


class UserBroadcast(msgspec.Struct, frozen=True):
    """A broadcast that comes from a server as a binary frame (kind 4).

    Attributes:
        user_event: the event the application chose.
        payload: JSON text when `is_json`, else bytes only the applications understand.
        metadata: JSON text of an object, or nothing.
    """

    topic: str
    user_event: str
    payload: bytes
    is_json: bool
    metadata: bytes


Incoming: TypeAlias = Message | BinaryBroadcast
"""Whatever a client may send."""
