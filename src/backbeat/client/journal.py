"""What a client writes to the log `backbeat.client`: nobody has to listen to learn what goes wrong."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from backbeat.client import events

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["write_down"]

log = logging.getLogger("backbeat.client")


def _connection(event: events.ConnectionChanged) -> tuple[int, str]:
    level = {"fatal": logging.ERROR, "backoff": logging.WARNING}.get(event.state, logging.INFO)
    return level, f"connection {event.state}{_why(event.error)}{_again(event.retry_in)}"


def _system(event: events.SystemEvent) -> tuple[int, str]:
    level = logging.INFO if event.error is None else logging.WARNING
    return level, f"{event.topic}: the server says: {event.error or event.message}"


def _overflow(event: events.Overflow) -> tuple[int, str]:
    # A flood must not become one of lines: the 1st, 10th, 100th, ... loss is told aloud.
    level = logging.WARNING if event.dropped == 10 ** (len(str(event.dropped)) - 1) else logging.DEBUG
    return level, (
        f"{event.consumer}: its queue is full, events are lost, {event.dropped} so far. Take them faster;"
        " of a stream, `maxsize` and `overflow` choose how many may wait and which may be lost."
    )


def _why(error: Exception | None) -> str:
    return "" if error is None else f": {error}"


def _again(seconds: float | None) -> str:
    return "" if seconds is None else f" Trying again in {seconds:.1f} s."


LINES: Final[dict[type[events.Event], Callable[[Any], tuple[int, str]]]] = {
    events.ConnectionChanged: _connection,
    events.Woke: lambda e: (logging.INFO, f"woke up after {e.slept:.0f} s"),
    events.BadFrame: lambda e: (logging.WARNING, f"a frame of {e.size} bytes was dropped: {e.reason}"),
    events.PinnedTokenExpiring: lambda e: (
        logging.WARNING,
        f"the token given to `set_auth` ends in {e.seconds_left:.0f} s, and nobody will replace it",
    ),
    events.NotAJwt: lambda e: (
        logging.WARNING,
        f"what is used as a token ({e.fingerprint}) is no JWT; servers ignore or refuse it",
    ),
    events.ClockSkewSuspected: lambda e: (
        logging.WARNING,
        f"the server says that a token has ended that has {e.seconds_left:.0f} s left: compare the clocks",
    ),
    events.Subscribed: lambda e: (logging.INFO, f"{e.topic}: subscribed"),
    events.Interrupted: lambda e: (
        logging.WARNING,
        f"{e.topic}: interrupted{_why(e.error)}{_again(e.retry_in)}",
    ),
    events.Resumed: lambda e: (logging.INFO, f"{e.topic}: joined again after {e.downtime:.1f} s"),
    events.ChannelDenied: lambda e: (logging.ERROR, f"{e.topic}: denied{_why(e.error)}"),
    events.JoinedAsAnon: lambda e: (
        logging.WARNING,
        f"{e.topic}: joined without a user's token; of {', '.join(e.tables)}, rows of users will not arrive",
    ),
    events.Gap: lambda e: (
        logging.WARNING,
        f"{e.topic}: {e.missing} are missing for {e.until - e.since:.1f} s: {e.reason}",
    ),
    events.ChangeIncomplete: lambda e: (
        logging.WARNING,
        f"{e.topic}: changed rows of {e.schema}.{e.table} are not complete: {'; '.join(e.errors)}. {e.hint}",
    ),
    events.Overflow: _overflow,
    events.SystemEvent: _system,
}
"""What is written of an event, by its type; of others nothing, or their cause is written elsewhere."""


def write_down(event: events.Event) -> None:
    """Write an event to the log, if it is one of those that belong there."""
    line = LINES.get(type(event))
    if line is not None:
        level, text = line(event)
        log.log(level, "%s", text)
