"""The errors of a replication stream: what failed, what to do about it, and when to try again."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import psycopg

from backbeat.errors import Retry, StreamError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["explain", "translated", "unmet"]

_HINTS: Final = {
    "55006": (
        "ReplicationSlotBeingUsed",
        "Another program streams from this slot; stop it, or choose another slot name.",
        Retry.BACKOFF,
    ),
    "53400": (
        "StartReplicationFailed",
        "Raise max_replication_slots, or drop the slots nobody uses (pg_replication_slots).",
        Retry.SLOW,
    ),
    "42501": ("StartReplicationFailed", "Run as a superuser: alter role <login> replication;", Retry.SLOW),
    "42704": (
        "StartReplicationFailed",
        "Create what is missing. A durable slot older than its publication has to be dropped.",
        Retry.SLOW,
    ),
}
"""What to do about the errors of the replication protocol, by SQLSTATE: code, hint, and when to try again."""


def explain(error: Exception) -> StreamError:
    """Turn what psycopg or the system raised into an error of ours."""
    text = str(error) or type(error).__name__
    code, hint, retry = None, "", Retry.BACKOFF
    if isinstance(error, psycopg.Error):
        text = error.diag.message_primary or text
        code, hint, retry = _HINTS.get(error.sqlstate or "", (code, hint, retry))
    sentence = " ".join(text.split()).rstrip(".")
    return StreamError(f"The replication stream failed: {sentence}.", code=code, hint=hint, retry=retry)


def unmet(message: str, hint: str) -> StreamError:
    """Say what somebody has to change first."""
    return StreamError(message, hint=hint, code="StartReplicationFailed", retry=Retry.SLOW)


@contextmanager
def translated() -> Iterator[None]:
    """Raise only errors of ours."""
    try:
        yield
    except (psycopg.Error, OSError) as error:
        raise explain(error) from error
