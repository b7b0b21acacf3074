"""Where settings come from: a flag wins over the environment, and the environment over the file."""

from __future__ import annotations

from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from backbeat.cli import app
from backbeat.cli.serve import serve
from backbeat.server.addresses import Proxies
from backbeat.server.origins import Origins
from backbeat.server.settings import Settings

REQUIRED = ["--database-url", "postgresql://x", "--jwt-secret", "s" * 32]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a folder of its own."""
    monkeypatch.chdir(tmp_path)


def parsed(*arguments: str) -> dict[str, Any]:
    """The arguments `backbeat serve` would get."""
    _, bound, _ = app.parse_args(["serve", *REQUIRED, *arguments])
    return bound.arguments


def write_file(text: str) -> None:
    """Write the settings file of this folder."""
    Path("backbeat.toml").write_text(text)


def test_a_setting_comes_from_the_file() -> None:
    """Under the name of its command."""
    write_file("[serve]\nport = 5001\n[dev]\nport = 1\n")
    assert parsed()["port"] == 5001


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """BACKBEAT_ and the flag's name."""
    write_file("[serve]\nport = 5001\n")
    monkeypatch.setenv("BACKBEAT_PORT", "5002")
    assert parsed()["port"] == 5002


def test_a_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is typed counts."""
    monkeypatch.setenv("BACKBEAT_PORT", "5002")
    assert parsed("--port", "5003")["port"] == 5003


def test_a_choice_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among what there is to choose from."""
    monkeypatch.setenv("BACKBEAT_BIG_NUMBERS", "text")
    assert parsed()["big_numbers"] == "text"


def test_limits_are_settings_like_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """By flag and by environment, and the rest keeps its defaults."""
    monkeypatch.setenv("BACKBEAT_MAX_EVENTS_PER_SECOND", "7")
    limits = parsed("--max-concurrent-users", "3")["limits"]
    assert (limits.max_events_per_second, limits.max_concurrent_users) == (7, 3)
    assert limits.max_joins_per_second == 100


def test_every_setting_of_the_server_is_a_flag() -> None:
    """With the same default; but for one, which only the local project needs."""
    flags = {name: flag.default for name, flag in signature(serve).parameters.items()}
    required = {"database_url", "jwt_secret"}
    for setting in fields(Settings):
        if setting.name not in {"metrics_open", *required}:
            assert flags[setting.name] == setting.default


def test_lists_are_written_with_commas_or_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As flags, in the environment, and in the file."""
    pages = ("https://a.example", "https://b.example")
    one_by_one = parsed("--allowed-origins", pages[0], "--allowed-origins", pages[1])["connections"]
    with_comma = parsed("--allowed-origins", ",".join(pages))["connections"]
    monkeypatch.setenv("BACKBEAT_TRUSTED_PROXIES", "10.0.0.1,10.0.0.2")
    write_file(f"[serve]\nallowed-origins = {list(pages)}\nmax-connections = 7\n")
    from_file = parsed()["connections"]
    assert one_by_one.allowed_origins == from_file.allowed_origins == pages
    assert all(Origins(each.allowed_origins).allow(pages[1]) for each in (one_by_one, with_comma, from_file))
    assert Proxies(from_file.trusted_proxies).names == ["10.0.0.1/32", "10.0.0.2/32"]
    assert (from_file.max_connections, from_file.max_headers) == (7, 100)
