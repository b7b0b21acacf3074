"""What a channel asks for when it joins (client specification, 1.10 and 1.18; server specification, 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backbeat.protocol.bindings import ANY, Event
from backbeat.protocol.join import Replay

__all__ = ["ChangeBinding", "ChannelConfig"]


@dataclass(frozen=True, slots=True)
class ChangeBinding:
    """A subscription to row changes, as it is asked for.

    Attributes:
        event: which kind of change, or `*`.
        schema: the schema of the table, or `*`.
        table: the table, or `*`.
        filter: conditions in the filter grammar, or None.
        select: the columns wanted beside the primary key, or None for all.
    """

    event: Event = ANY
    schema: str = "public"
    table: str = ANY
    filter: str | None = None
    select: tuple[str, ...] | None = None

    def wire(self) -> dict[str, Any]:
        """The entry of the join payload."""
        entry: dict[str, Any] = {"event": self.event, "schema": self.schema, "table": self.table}
        if self.filter is not None:
            entry["filter"] = self.filter
        if self.select is not None:
            entry["select"] = list(self.select)
        return entry

    def __str__(self) -> str:
        where = f" where {self.filter}" if self.filter else ""
        return f"{self.event} on {self.schema}.{self.table}{where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelConfig:
    """What a channel is.

    Attributes:
        private: whether policies decide who may join it.
        ack: whether broadcasts are answered.
        receive_own: whether the channel receives its own broadcasts.
        presence: whether it receives who is present.
        presence_key: the key to track under; empty for a random one.
        replay: which stored messages to send after the first join; private channels only.
        replication_ready: whether to be told when broadcasts from the database arrive.
        changes: the row changes it wants.
    """

    private: bool = False
    ack: bool = False
    receive_own: bool = False
    presence: bool = False
    presence_key: str = ""
    replay: Replay | None = None
    replication_ready: bool = False
    changes: tuple[ChangeBinding, ...] = ()

    @property
    def guarded(self) -> bool:
        """Whether row level security decides what the channel gets."""
        return self.private or bool(self.changes)

    def wire(self, replay: Replay | None) -> dict[str, Any]:
        """The `config` of the join payload.

        Args:
            replay: the stored messages to ask for in this join.
        """
        broadcast: dict[str, Any] = {"ack": self.ack, "self": self.receive_own}
        if self.replication_ready:
            broadcast["replication_ready"] = True
        if replay is not None:
            broadcast["replay"] = {"since": replay.since, "limit": replay.limit}
        return {
            "broadcast": broadcast,
            "presence": {"key": self.presence_key, "enabled": self.presence},
            "postgres_changes": [binding.wire() for binding in self.changes],
            "private": self.private,
        }
