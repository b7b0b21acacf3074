"""What a server may be told, and what is refused before anything starts."""

from __future__ import annotations

from typing import Any

import pytest

from backbeat.errors import ConfigurationError
from backbeat.server.limits import LimitSettings
from backbeat.server.settings import Settings

SECRET = "a secret of at least thirty-two bytes"


def make(**changed: Any) -> Settings:
    """Settings with everything else at its default."""
    return Settings(**{"database_url": "postgresql://login:hush@host/db", "jwt_secret": SECRET} | changed)


def test_the_defaults_are_those_of_a_self_hosted_server() -> None:
    """Section 9.1 and 9.3."""
    settings = make()
    assert (settings.max_channels, settings.max_frame_bytes, settings.max_payload_bytes) == (
        100,
        5_000_000,
        3_000_500,
    )
    assert settings.idle_timeout == 60
    assert settings.limits == LimitSettings()


def test_a_short_secret_is_refused() -> None:
    """Bytes count, not characters (RFC 7518, section 3.2)."""
    make(jwt_secret="ü" * 16)
    with pytest.raises(ConfigurationError, match="shorter than 32 bytes"):
        make(jwt_secret="x" * 31)


@pytest.mark.parametrize(
    "name",
    [
        "max_channels",
        "max_frame_bytes",
        "max_payload_bytes",
        "write_buffer_bytes",
        "max_retained_wal_bytes",
    ],
)
def test_a_size_below_one_is_refused_by_name(name: str) -> None:
    """The message says which setting it is."""
    make(**{name: 1})
    with pytest.raises(ConfigurationError, match=name):
        make(**{name: 0})


@pytest.mark.parametrize(
    ("name", "value"),
    [("change_delay", -0.1), ("idle_timeout", 0), ("alone_timeout", 0), ("alone_timeout", -1)],
)
def test_a_time_that_is_none_is_refused_by_name(name: str, value: float) -> None:
    """The message says which setting it is."""
    with pytest.raises(ConfigurationError, match=name):
        make(**{name: value})


def test_big_numbers_are_numbers_or_text() -> None:
    """Anything else is a slip of the pen."""
    make(big_numbers="text")
    with pytest.raises(ConfigurationError, match="either number or text"):
        make(big_numbers="string")


@pytest.mark.parametrize("name", ["change_delay", "idle_timeout", "alone_timeout"])
def test_a_time_that_is_no_number_is_refused(name: str) -> None:
    """Nothing compares to it, so nothing would ever be too late."""
    with pytest.raises(ConfigurationError, match=name):
        make(**{name: float("nan")})


def test_no_database_connection_at_all_is_refused_by_name() -> None:
    """A pool of none would keep every private join waiting."""
    with pytest.raises(ConfigurationError, match="database_connections"):
        make(database_connections=0)


def test_secrets_stay_out_of_the_repr() -> None:
    """Nobody prints settings into a log and a password with them."""
    settings = make(publishable_key="sb_publishable_x", secret_key="sb_secret_x")
    shown = repr(settings)
    for secret in ("hush", SECRET, "sb_publishable_x", "sb_secret_x"):
        assert secret not in shown


def test_another_database_changes_nothing_else() -> None:
    """The copy is for a database that was started for it."""
    settings = make(max_channels=7)
    moved = settings.with_database("postgresql://elsewhere/db")
    assert (moved.database_url, moved.max_channels) == ("postgresql://elsewhere/db", 7)
    assert moved.with_database(settings.database_url) == settings


def test_the_keys_are_the_projects() -> None:
    """Opaque keys stand for the roles' tokens, which the secret signs."""
    keys = make(publishable_key="sb_publishable_x", secret_key="sb_secret_x").keys
    assert keys.token_of("sb_publishable_x") == keys.anon
    assert keys.token_of("sb_secret_x") == keys.service
    assert make(jwt_secret=SECRET + "!").keys.anon != keys.anon


@pytest.mark.parametrize("name", ["Upper", "with space", "dash-ed", "x" * 64])
def test_a_slot_name_postgres_would_refuse_is_refused(name: str) -> None:
    """Before anything starts."""
    make(durable_slot="backbeat_1")
    with pytest.raises(ConfigurationError, match="durable_slot"):
        make(durable_slot=name)
