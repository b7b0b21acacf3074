"""What a client asks for when it joins a channel (server specification, section 3.2).

A field of the wrong type does not fail the join: it keeps its default and is named in `problems`, which the
server logs. Being strict here would break clients that work today.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from backbeat.protocol import reasons

__all__ = ["JoinRequest", "Replay"]

ID_SPACE = 2**27 - 1

MAX_JOIN_BYTES = 262_144
"""Room for the longest token and a thousand subscriptions; reading more would hold everybody up."""


@dataclass(frozen=True, slots=True)
class Replay:
    """Which stored messages to send after joining.

    Attributes:
        since: milliseconds since the epoch.
        limit: how many, 1 to 25.
    """

    since: int
    limit: int


class JoinRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed join payload.

    Attributes:
        access_token: the token for this channel; None stands for the connection's.
        private: whether policies decide, and the room is the private one.
        ack: whether each broadcast gets a reply.
        self_broadcast: whether the sender receives its own broadcasts.
        presence: whether the client asked for presence.
        presence_key: the key to track under; None stands for a random one.
        changes: the requested change subscriptions, as sent.
        change_ids: their ids, in the same order.
        replication_ready: whether to say so when broadcasts from the database arrive.
        replay: which stored messages to send first; only a private channel may have it.
        replay_requested: whether the key was there at all, even with nonsense behind it.
        replay_malformed: whether an object was behind it that makes no sense.
        problems: what could not be used, one sentence each.
    """

    access_token: str | None = None
    private: bool = False
    ack: bool = False
    self_broadcast: bool = False
    presence: bool = False
    presence_key: str | None = None
    changes: tuple[Mapping[str, Any], ...] = ()
    change_ids: tuple[int, ...] = ()
    replication_ready: bool = False
    replay: Replay | None = None
    replay_requested: bool = False
    replay_malformed: bool = False
    problems: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<JoinRequest private={self.private} changes={len(self.changes)}>"

    def without_token(self) -> JoinRequest:
        """What is worth keeping, once the token was looked at."""
        return msgspec.structs.replace(self, access_token=None)

    @classmethod
    def parse(cls, payload: bytes) -> JoinRequest:
        """Read a join payload.

        Args:
            payload: JSON text.

        Raises:
            BadRequest: the payload, or a part that cannot be left out, is not an object.
        """
        if len(payload) > MAX_JOIN_BYTES:
            detail = f"the join payload is larger than {MAX_JOIN_BYTES} bytes"
            raise reasons.UNREADABLE_JOIN.refusal(detail=detail)
        try:
            root = msgspec.json.decode(payload)
        except (msgspec.DecodeError, RecursionError) as error:
            raise reasons.UNREADABLE_JOIN.refusal(detail="the join payload is not JSON") from error
        if not isinstance(root, dict):
            raise reasons.UNREADABLE_JOIN.refusal(detail="the join payload is not an object")
        return _Reader().read(root)


class _Reader:
    """Reads with defaults, and remembers what it could not read."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def read(self, root: dict[str, Any]) -> JoinRequest:
        config = root.get("config", {})
        if not isinstance(config, dict):
            raise reasons.UNREADABLE_JOIN.refusal(detail="`config` is not an object")
        broadcast = self.mapping(config, "broadcast")
        presence = self.mapping(config, "presence")
        changes = self.changes(config)
        replay = self.replay(broadcast)
        return JoinRequest(
            access_token=self.token(root),
            private=self.boolean(config, "private", "private"),
            ack=self.boolean(broadcast, "ack", "broadcast.ack"),
            self_broadcast=self.boolean(broadcast, "self", "broadcast.self"),
            presence=self.boolean(presence, "enabled", "presence.enabled"),
            presence_key=self.key(presence),
            changes=changes,
            change_ids=_ids(changes),
            # Any value but a false one counts, as stock servers have it: even the text "false".
            replication_ready=bool(broadcast.get("replication_ready")),
            replay=replay,
            replay_requested="replay" in broadcast,
            replay_malformed=replay is None and isinstance(broadcast.get("replay"), dict),
            problems=tuple(self.problems),
        )

    def token(self, root: dict[str, Any]) -> str | None:
        """Section 3.3: `user_token` wins, and an opaque key in either means the connection's token."""
        access, user = root.get("access_token"), root.get("user_token")
        first = access if isinstance(access, str) else user
        if isinstance(first, str) and first.startswith("sb_"):
            return None
        for candidate in (user, access):
            if isinstance(candidate, str):
                return candidate
        return None

    def mapping(self, parent: dict[str, Any], name: str) -> dict[str, Any]:
        value = parent.get(name)
        if value is None:
            return {}
        if isinstance(value, dict):
            return value
        self.problems.append(f"{name}: unable to parse, expected a map")
        return {}

    def boolean(self, parent: dict[str, Any], name: str, path: str) -> bool:
        """A JSON boolean, or the words true and false in any letter case."""
        value = parent.get(name)
        if value is None or isinstance(value, bool):
            return bool(value)
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        self.problems.append(f"{path}: unable to parse, expected a boolean")
        return False

    def key(self, presence: dict[str, Any]) -> str | None:
        value = presence.get("key")
        if isinstance(value, str):
            return value or None
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        if value is not None:
            self.problems.append("presence.key: unable to parse, expected a string")
        return None

    def changes(self, config: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        value = config.get("postgres_changes")
        if value is None:
            return ()
        if not isinstance(value, list):
            self.problems.append("postgres_changes: unable to parse, expected an array of maps")
            return ()
        entries = [entry for entry in value if entry is not None]
        if not all(isinstance(entry, dict) for entry in entries):
            raise reasons.UNREADABLE_JOIN.refusal(
                detail="`postgres_changes` holds something that is no object"
            )
        return tuple(entries)

    def replay(self, broadcast: dict[str, Any]) -> Replay | None:
        value = broadcast.get("replay")
        if not isinstance(value, dict):
            return None
        since, limit = value.get("since"), value.get("limit", 25)
        if isinstance(since, bool) or isinstance(limit, bool):
            return None
        if isinstance(since, int) and isinstance(limit, int):
            return Replay(since, min(max(limit, 1), 25))
        return None


def _ids(changes: tuple[Mapping[str, Any], ...]) -> tuple[int, ...]:
    """Number the requested subscriptions: the same request has the same number, on every server and join.

    Within one channel two different requests never share a number (the original's hashes may collide); two
    equal requests do, and mean the same. Zero is left out, for it is false to JavaScript.
    """
    taken: dict[int, bytes] = {}
    ids: list[int] = []
    for entry in changes:
        text = msgspec.json.encode(entry, order="deterministic")
        number = int.from_bytes(hashlib.sha256(text).digest()[:8], "big") % ID_SPACE + 1
        while taken.setdefault(number, text) != text:
            number = number % ID_SPACE + 1
        ids.append(number)
    return tuple(ids)
