"""Everything a client tells its user: frozen values with the time they were noticed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import msgspec

from backbeat.errors import BackbeatError

__all__ = [
    "BadFrame",
    "BroadcastEvent",
    "ChangeEvent",
    "ChangeIncomplete",
    "ChannelClosed",
    "ChannelDenied",
    "ChannelEvent",
    "ClockSkewSuspected",
    "ConnectionChanged",
    "Delete",
    "Event",
    "Gap",
    "HandlerFailed",
    "Heartbeat",
    "Insert",
    "Interrupted",
    "JoinedAsAnon",
    "Missing",
    "NotAJwt",
    "Overflow",
    "PinnedTokenExpiring",
    "PresenceEvent",
    "PresenceJoin",
    "PresenceLeave",
    "PresenceSync",
    "PresenceUpdate",
    "Resumed",
    "StatusEvent",
    "Subscribed",
    "SystemEvent",
    "TokenApplied",
    "TokenProviderFailed",
    "TokenSourceChanged",
    "Update",
    "Woke",
]

R = TypeVar("R")

Missing: TypeAlias = Literal["broadcasts", "changes"]
"""What may be missing after an interruption."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened.

    Attributes:
        at: when it was noticed, in seconds since the epoch.
    """

    at: float


# The connection ---------------------------------------------------------------------------------------------


class ConnectionChanged(Event, frozen=True, kw_only=True):
    """The connection is in another state.

    Attributes:
        state: the new state: `idle`, `connecting`, `open`, `draining`, `backoff`, `fatal` or `closed`.
        error: why, if it is not what the user asked for.
        retry_in: seconds until the next attempt, while waiting for it.
    """

    state: str
    error: BackbeatError | None = None
    retry_in: float | None = None


class Heartbeat(Event, frozen=True, kw_only=True):
    """A heartbeat was sent, answered, or not answered in time.

    Attributes:
        status: which of these.
        latency: seconds until the answer.
    """

    status: Literal["sent", "ok", "timeout"]
    latency: float | None = None


class Woke(Event, frozen=True, kw_only=True):
    """The machine, or this program, slept.

    Attributes:
        slept: for how long, in seconds, as far as the clocks tell.
    """

    slept: float


class BadFrame(Event, frozen=True, kw_only=True):
    """A frame made no sense, and was dropped.

    Attributes:
        reason: what was wrong with it.
        size: how large it was: bytes, or characters of text.
    """

    reason: str
    size: int


# Tokens -----------------------------------------------------------------------------------------------------


class TokenApplied(Event, frozen=True, kw_only=True):
    """Another token is in use from now on.

    Attributes:
        source: where it comes from.
        fingerprint: which one it is, empty for none.
        expires_at: when it ends, in seconds since the epoch, if it says so.
    """

    source: str
    fingerprint: str
    expires_at: float | None


class TokenSourceChanged(Event, frozen=True, kw_only=True):
    """Tokens come from somewhere else.

    Attributes:
        source: from where.
        before: from where they came.
    """

    source: str
    before: str


class TokenProviderFailed(Event, frozen=True, kw_only=True):
    """The token source raised, answered nonsense, or did not answer; the token before stays in use.

    Attributes:
        error: what it raised.
        retry_in: seconds until it is asked again, if nothing can be used meanwhile.
    """

    error: Exception
    retry_in: float | None = None


class PinnedTokenExpiring(Event, frozen=True, kw_only=True):
    """A token given to `set_auth` ends soon, and nobody will replace it.

    Attributes:
        seconds_left: how soon.
    """

    seconds_left: float


class NotAJwt(Event, frozen=True, kw_only=True):
    """What is used as a token is no JWT; servers ignore or refuse it.

    Attributes:
        fingerprint: which one it is.
    """

    fingerprint: str


class ClockSkewSuspected(Event, frozen=True, kw_only=True):
    """The server says a token has ended that has time left here.

    Attributes:
        seconds_left: how much.
    """

    seconds_left: float


# Channels ---------------------------------------------------------------------------------------------------


class ChannelEvent(Event, frozen=True, kw_only=True):
    """Something that happened on a channel.

    Attributes:
        topic: the topic, without the prefix.
    """

    topic: str


class StatusEvent(ChannelEvent, frozen=True, kw_only=True):
    """A channel is in another state."""


class Subscribed(StatusEvent, frozen=True, kw_only=True):
    """The channel is joined for the first time since `subscribe`.

    Attributes:
        as_user: whether the join carried a user's token, and not just the API key.
    """

    as_user: bool


class Interrupted(StatusEvent, frozen=True, kw_only=True):
    """The channel is not joined at the moment.

    Attributes:
        error: why.
        retry_in: seconds until it joins again; None where that depends on the connection or the token.
    """

    error: BackbeatError
    retry_in: float | None


class Resumed(StatusEvent, frozen=True, kw_only=True):
    """The channel is joined again.

    Attributes:
        downtime: for how many seconds it was not.
        as_user: whether the join carried a user's token, and not just the API key.
    """

    downtime: float
    as_user: bool


class ChannelDenied(StatusEvent, frozen=True, kw_only=True):
    """The channel will not be joined until the token or its configuration changes.

    Attributes:
        error: why.
    """

    error: BackbeatError


class ChannelClosed(StatusEvent, frozen=True, kw_only=True):
    """The channel was left, as asked.

    Attributes:
        acknowledged: whether the server said so.
    """

    acknowledged: bool


class JoinedAsAnon(ChannelEvent, frozen=True, kw_only=True):
    """The channel has row changes and no user's token: rows that belong to somebody will not arrive.

    Attributes:
        tables: the tables concerned.
    """

    tables: tuple[str, ...]


class Gap(ChannelEvent, frozen=True, kw_only=True):
    """Something is missing, and nobody will send it: read it again from where it is stored.

    Attributes:
        missing: what.
        since: the beginning of the time it is missing from, in seconds since the epoch.
        until: its end.
        reason: why it is missing.
    """

    missing: Missing
    since: float
    until: float
    reason: str


class ChangeIncomplete(ChannelEvent, frozen=True, kw_only=True):
    """The server leaves out something of the changed rows of a table, or all of it; told once for each join.

    Attributes:
        schema: the schema of the table.
        table: the table.
        errors: why, in the server's words.
        hint: what to do about it.
    """

    schema: str
    table: str
    errors: tuple[str, ...]
    hint: str


class BroadcastEvent(ChannelEvent, frozen=True, kw_only=True):
    """A broadcast.

    Attributes:
        event: the event, chosen by the sender's application.
        payload: the decoded JSON, or bytes.
        meta: what the server says about it: `id` of a stored message, `replayed`.
    """

    event: str
    payload: Any
    meta: Mapping[str, Any] = {}

    @property
    def replayed(self) -> bool:
        """Whether it is a stored message, sent again."""
        return self.meta.get("replayed") is True


class ChangeEvent(ChannelEvent, Generic[R], frozen=True, kw_only=True):
    """A row changed.

    Attributes:
        schema: the schema of the table.
        table: the table.
        new: the new row, of the type given as `model`, or a dictionary; empty for a DELETE.
        old: what is known of the old row, a dictionary; empty for an INSERT.
        columns: the type of each column, by its name.
        commit_timestamp: when it was committed, ISO 8601 in UTC, as the server writes it.
        errors: why something of the row is missing, in the server's words.
        raw: the JSON of `ids` and `data`, as the server wrote it.
    """

    schema: str
    table: str
    new: R
    old: Mapping[str, Any]
    columns: Mapping[str, str]
    commit_timestamp: str | None
    errors: tuple[str, ...] = ()
    raw: msgspec.Raw = msgspec.Raw()

    @property
    def type(self) -> str:
        """`INSERT`, `UPDATE` or `DELETE`."""
        return type(self).__name__.upper()


class Insert(ChangeEvent[R], frozen=True, kw_only=True):
    """A row was inserted."""


class Update(ChangeEvent[R], frozen=True, kw_only=True):
    """A row was updated."""


class Delete(ChangeEvent[R], frozen=True, kw_only=True):
    """A row was deleted."""


class PresenceEvent(ChannelEvent, frozen=True, kw_only=True):
    """Who is present has changed."""


class PresenceSync(PresenceEvent, frozen=True, kw_only=True):
    """What is known about who is present is complete, after a change.

    Attributes:
        state: the presences, by key; each has its `presence_ref`.
    """

    state: Mapping[str, tuple[Mapping[str, Any], ...]]


class PresenceJoin(PresenceEvent, frozen=True, kw_only=True):
    """Somebody came.

    Attributes:
        key: under which key.
        current: the presences under that key before.
        joined: those that came.
    """

    key: str
    current: tuple[Mapping[str, Any], ...]
    joined: tuple[Mapping[str, Any], ...]


class PresenceLeave(PresenceEvent, frozen=True, kw_only=True):
    """Somebody went.

    Attributes:
        key: under which key.
        current: the presences under that key that are left.
        left: those that went.
    """

    key: str
    current: tuple[Mapping[str, Any], ...]
    left: tuple[Mapping[str, Any], ...]


class PresenceUpdate(PresenceEvent, frozen=True, kw_only=True):
    """Somebody who is present tracks something else; `PresenceJoin` and `PresenceLeave` follow.

    Attributes:
        key: under which key.
        before: what was tracked.
        after: what is tracked now.
    """

    key: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]


class SystemEvent(ChannelEvent, frozen=True, kw_only=True):
    """The server says something about a channel.

    Attributes:
        extension: what it is about: `postgres_changes` or `system`.
        status: `ok` or `error`.
        message: the text.
        error: what it means, where the status is `error`.
    """

    extension: str
    status: str
    message: str
    error: BackbeatError | None = None


# The user's side --------------------------------------------------------------------------------------------


class HandlerFailed(Event, frozen=True, kw_only=True):
    """A handler raised, or a row did not fit its model; nobody else noticed.

    Attributes:
        handler: its name.
        error: what was raised.
    """

    handler: str
    error: Exception


class Overflow(Event, frozen=True, kw_only=True):
    """Events were lost because they were taken out more slowly than they came in.

    Attributes:
        consumer: whose queue was full.
        dropped: how many so far.
    """

    consumer: str
    dropped: int
