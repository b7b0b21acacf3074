"""Who does not get on with a message."""

from __future__ import annotations

from backbeat.server.entrance import ConnectionSettings
from backbeat.server.slow_senders import SlowSenders


def watch() -> SlowSenders[str]:
    """Ten seconds for any message, and another for each hundred bytes."""
    return SlowSenders(ConnectionSettings(message_timeout=10.0, min_message_rate=100))


def test_a_message_that_stops_is_late() -> None:
    """Counted from when it was first seen."""
    senders, buffer = watch(), bytearray()
    assert senders.look([("a", buffer, 5)], 100.0) == []
    assert senders.look([("a", buffer, 5)], 110.0) == []
    assert senders.look([("a", buffer, 5)], 110.1) == ["a"]


def test_what_arrives_earns_time() -> None:
    """In proportion."""
    senders, buffer = watch(), bytearray()
    assert senders.look([("a", buffer, 0)], 0.0) == []
    assert senders.look([("a", buffer, 2000)], 30.0) == []
    assert senders.look([("a", buffer, 2000)], 30.1) == ["a"]


def test_another_message_begins_anew() -> None:
    """Even one that looks the same."""
    senders = watch()
    senders.look([("a", bytearray(b"x"), 1)], 0.0)
    assert senders.look([("a", bytearray(b"x"), 1)], 50.0) == []


def test_a_message_that_was_finished_is_forgotten() -> None:
    """Nothing is kept of whoever is not in the middle of one."""
    senders, buffer = watch(), bytearray()
    senders.look([("a", buffer, 1)], 0.0)
    senders.look([], 5.0)
    assert senders.look([("a", buffer, 1)], 50.0) == []


def test_whoever_left_is_forgotten() -> None:
    """At once: the memory of a client is free when the client is gone, not at the next look."""
    senders, buffer = watch(), bytearray()
    senders.look([("a", buffer, 1)], 0.0)
    senders.forget("a")
    senders.forget("b")
    assert senders.look([("a", buffer, 1)], 50.0) == []
