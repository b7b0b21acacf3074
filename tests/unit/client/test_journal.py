"""What a client writes to its log of what happens."""

from __future__ import annotations

import logging

import pytest

from backbeat.client import events
from backbeat.client.journal import LINES, write_down
from backbeat.errors import BackbeatError

GONE = BackbeatError("The policy says no.", hint="Ask for another.")


@pytest.mark.parametrize(
    ("event", "level", "text"),
    [
        (
            events.ChannelDenied(at=0, topic="room", error=GONE),
            logging.ERROR,
            "room: denied: The policy says no. Ask for another.",
        ),
        (
            events.Interrupted(at=0, topic="room", error=GONE, retry_in=2),
            logging.WARNING,
            "room: interrupted: The policy says no. Ask for another. Trying again in 2.0 s.",
        ),
        (
            events.Resumed(at=0, topic="room", downtime=3, as_user=True),
            logging.INFO,
            "joined again after 3.0 s",
        ),
        (events.Subscribed(at=0, topic="room", as_user=True), logging.INFO, "room: subscribed"),
        (
            events.JoinedAsAnon(at=0, topic="room", tables=("a", "b")),
            logging.WARNING,
            "of a, b, rows of users",
        ),
        (
            events.Gap(at=0, topic="room", missing="changes", since=1, until=3, reason="lost"),
            logging.WARNING,
            "room: changes are missing for 2.0 s: lost",
        ),
        (
            events.ChangeIncomplete(
                at=0, topic="room", schema="public", table="songs", errors=("Error 401",), hint="Grant it."
            ),
            logging.WARNING,
            "public.songs are not complete: Error 401. Grant it.",
        ),
        (
            events.ConnectionChanged(at=0, state="fatal", error=GONE),
            logging.ERROR,
            "connection fatal: The policy",
        ),
        (events.ConnectionChanged(at=0, state="backoff", error=GONE), logging.WARNING, "connection backoff"),
        (events.ConnectionChanged(at=0, state="idle", error=GONE), logging.INFO, "connection idle"),
        (
            events.SystemEvent(
                at=0, topic="room", extension="system", status="error", message="x", error=GONE
            ),
            logging.WARNING,
            "the server says: The policy says no.",
        ),
        (
            events.SystemEvent(at=0, topic="room", extension="system", status="ok", message="Subscribed"),
            logging.INFO,
            "the server says: Subscribed",
        ),
        (events.BadFrame(at=0, reason="no JSON", size=4), logging.WARNING, "4 bytes was dropped: no JSON"),
        (events.PinnedTokenExpiring(at=0, seconds_left=60), logging.WARNING, "ends in 60 s"),
        (events.NotAJwt(at=0, fingerprint="abc"), logging.WARNING, "(abc) is no JWT"),
        (events.ClockSkewSuspected(at=0, seconds_left=9), logging.WARNING, "compare the clocks"),
        (
            events.Overflow(at=0, consumer="stream 1 of room", dropped=1),
            logging.WARNING,
            "stream 1 of room: its queue is full, events are lost, 1 so far.",
        ),
        (events.Overflow(at=0, consumer="room", dropped=100), logging.WARNING, "100 so far"),
        (events.Overflow(at=0, consumer="room", dropped=101), logging.DEBUG, "101 so far"),
        (events.Woke(at=0, slept=90), logging.INFO, "after 90 s"),
    ],
)
def test_what_happens_is_written_down(
    caplog: pytest.LogCaptureFixture, event: events.Event, level: int, text: str
) -> None:
    """Loud enough for what it means, and with what to do about it."""
    assert type(event) in LINES
    caplog.set_level(logging.DEBUG, "backbeat.client")
    write_down(event)
    ((_, written, message),) = caplog.record_tuples
    assert (written, text in message) == (level, True), message


def test_what_an_application_is_about_is_not_written_down(caplog: pytest.LogCaptureFixture) -> None:
    """Broadcasts would fill the log, and are nobody else's business."""
    caplog.set_level(logging.DEBUG, "backbeat.client")
    write_down(events.BroadcastEvent(at=0, topic="room", event="x", payload={}))
    assert caplog.records == []
