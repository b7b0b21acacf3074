"""`docs/sessions.md` keeps up with the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from backbeat.session.gotrue import HINTS
from backbeat.session.session import AuthChange

PAGE = (Path(__file__).parents[3] / "docs" / "sessions.md").read_text()


@pytest.mark.parametrize("code", HINTS)
def test_every_code_is_on_the_page(code: str) -> None:
    """With the hint that an error carries."""
    assert f"| `{code}` | {HINTS[code]} |\n" in PAGE


@pytest.mark.parametrize("kind", AuthChange)
def test_every_event_is_on_the_page(kind: AuthChange) -> None:
    """In the table of events."""
    assert any(f"`{kind}`" in line for line in PAGE.splitlines() if line.startswith("| `"))
