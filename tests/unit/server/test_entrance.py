"""Places for connections: taken, refused, moved and given back."""

from __future__ import annotations

from typing import Any

import pytest

from backbeat.errors import ConfigurationError
from backbeat.protocol.reasons import ADDRESS_LIMIT, CONNECTIONS_LIMIT
from backbeat.server.entrance import ConnectionSettings, Entrance


def entrance(**settings: Any) -> Entrance:
    """An entrance with these settings."""
    return Entrance(ConnectionSettings(**settings))


def test_without_limits_everybody_has_a_place() -> None:
    """And it is counted."""
    door = entrance()
    assert [door.enter("1.2.3.4") for _ in range(3)] == ["1.2.3.4"] * 3
    assert door.total == 3


def test_a_refused_connection_takes_no_place() -> None:
    """Neither of the server nor of its address."""
    door = entrance(max_connections=1)
    place = door.enter("1.2.3.4")
    assert place == "1.2.3.4"
    assert door.enter("5.6.7.8") is CONNECTIONS_LIMIT
    door.leave(place)
    assert door.enter("5.6.7.8") == "5.6.7.8"
    assert door.total == 1


def test_an_address_has_so_many_places() -> None:
    """Others have their own."""
    door = entrance(max_connections_per_address=1)
    assert door.enter("2001:db8::1") == "2001:db8::/64"
    assert door.enter("2001:db8::2") is ADDRESS_LIMIT
    assert door.enter("2001:db8:0:1::2") == "2001:db8:0:1::/64"


def test_a_proxy_has_as_many_places_as_its_clients() -> None:
    """They are named when the clients are known, and a place that cannot be named so keeps its name."""
    door = entrance(max_connections_per_address=1, trusted_proxies=("10.0.0.1",))
    places = [door.enter("10.0.0.1") for _ in range(2)]
    assert places == ["", ""]
    assert door.move("", "1.2.3.4") == "1.2.3.4"
    assert door.move("", "1.2.3.4") is ADDRESS_LIMIT
    door.leave("")
    door.leave("1.2.3.4")
    assert door.total == 0
    assert door.enter("1.2.3.4") == "1.2.3.4"


def test_an_address_that_left_is_forgotten() -> None:
    """Or each that ever came would cost memory for ever."""
    door = entrance()
    for number in range(50):
        place = door.enter(f"1.2.3.{number}")
        assert isinstance(place, str)
        door.leave(place)
    assert repr(door) == "<Entrance total=0 addresses=0>"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_connections", -1),
        ("max_connections_per_address", -1),
        ("max_control_frames_per_second", -1),
        ("max_head_bytes", 0),
        ("max_headers", 0),
        ("min_message_rate", 0),
        ("handshake_timeout", 0.0),
        ("handshake_timeout", float("nan")),
        ("message_timeout", -1.0),
        ("allowed_origins", ("nonsense",)),
        ("trusted_proxies", ("nonsense",)),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(name: str, value: object) -> None:
    """Before anything starts."""
    with pytest.raises(ConfigurationError, match=name):
        ConnectionSettings(**{name: value})  # type: ignore[arg-type]


def test_five_megabytes_may_come_over_a_slow_line() -> None:
    """At 64 kbit/s they take ten minutes."""
    assert ConnectionSettings().time_for(5_000_000) > 10 * 60
