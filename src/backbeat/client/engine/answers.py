"""Replies and system messages, as servers write them."""

from __future__ import annotations

from typing import Any

import msgspec

from backbeat.errors import ProtocolError

__all__ = ["Reply", "System", "read_reply", "read_system"]


class Reply(msgspec.Struct, frozen=True):
    """The answer to a push.

    Attributes:
        status: `ok` or `error`.
        response: whatever comes with it.
    """

    status: str
    response: Any = None

    @property
    def ok(self) -> bool:
        """Whether the server said yes."""
        return self.status == "ok"

    @property
    def reason(self) -> str:
        """Why the server said no; never empty (client specification, S-6)."""
        if isinstance(self.response, dict):
            reason = self.response.get("reason")
            if isinstance(reason, str) and reason:
                return reason
            return ", ".join(map(str, self.response.values())) or "error"
        return self.response if isinstance(self.response, str) and self.response else "error"


class System(msgspec.Struct, frozen=True):
    """Something the server says about a channel.

    Attributes:
        extension: what it is about.
        status: `ok` or `error`.
        message: the text.
        gap_since: since when row changes are missing, ISO 8601, if the server says so.
        gap_until: until when.
    """

    extension: str = ""
    status: str = ""
    message: str = ""
    gap_since: str | None = None
    gap_until: str | None = None


def read_reply(payload: bytes) -> Reply:
    """Read a reply.

    Raises:
        ProtocolError: it is not one.
    """
    try:
        return msgspec.json.decode(payload, type=Reply)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProtocolError("The payload is not a reply.") from error


def read_system(payload: bytes) -> System:
    """Read a system message.

    Raises:
        ProtocolError: it is not one.
    """
    try:
        return msgspec.json.decode(payload, type=System)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProtocolError("The payload is not a system message.") from error
