"""A server takes no more connections than it may have open files."""

from __future__ import annotations

from dataclasses import replace

import pytest
import structlog.testing

from backbeat.cli.open_files import within_open_files
from backbeat.server.entrance import ConnectionSettings
from backbeat.server.limits import LimitSettings
from backbeat.server.settings import Settings

FILES = 1_050
MOST = 900
"""What is left of them for connections."""

SETTINGS = Settings(database_url="", jwt_secret="s" * 32)


@pytest.fixture(autouse=True)
def _files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process may have so many, and has asked for them."""
    monkeypatch.setattr("backbeat.cli.open_files.raise_file_limit", lambda: FILES)


@pytest.mark.parametrize(
    ("asked", "users", "connections", "told"),
    [
        (0, 200, MOST, False),
        (0, 0, MOST, False),
        (500, 0, 500, False),
        (MOST, MOST, MOST, False),
        (MOST + 1, 200, MOST, True),
        (500, MOST + 1, 500, True),
    ],
)
def test_what_is_asked_for_is_cut_to_what_there_is(
    *, asked: int, users: int, connections: int, told: bool
) -> None:
    """And said, where somebody counts on more."""
    settings = replace(
        SETTINGS,
        connections=ConnectionSettings(max_connections=asked),
        limits=LimitSettings(max_concurrent_users=users),
    )
    with structlog.testing.capture_logs() as logs:
        assert within_open_files(settings).connections.max_connections == connections
    assert [log["event"] for log in logs] == ["too few open files"] * told
