"""Programs that sign in, and what they sign in to."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.server.conftest import database, server, settings

from backbeat.local.auth import passwords

__all__ = ["database", "server", "settings"]


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """New hashes at bcrypt's lowest cost: these tests are not about time."""
    monkeypatch.setattr(passwords, "COST", 4)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the machine would stand between us and loopback."""
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a session is kept."""
    return tmp_path / "session.json"
