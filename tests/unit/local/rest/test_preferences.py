"""Reading the Prefer header."""

from __future__ import annotations

import pytest

from backbeat.local.rest.preferences import Preferences


@pytest.mark.parametrize(
    ("headers", "method", "expected"),
    [
        ([], "POST", Preferences()),
        (["return=minimal"], "PATCH", Preferences(returned="minimal", applied="return=minimal")),
        (
            ["return=representation,resolution=merge-duplicates"],
            "POST",
            Preferences(
                resolution="merge-duplicates",
                returned="representation",
                applied="resolution=merge-duplicates, return=representation",
            ),
        ),
        (
            ["count=exact", " missing=default "],
            "POST",
            Preferences(missing="default", count="exact", applied="missing=default, count=exact"),
        ),
        (["count=planned, count=exact"], "GET", Preferences(count="planned", applied="count=planned")),
        (["return=everything, wait=10, respond-async"], "POST", Preferences()),
        (["return=representation"], "GET", Preferences()),
    ],
)
def test_preferences(headers: list[str], method: str, expected: Preferences) -> None:
    """Joined or apart, in any order; the first of a name counts, and what cannot be honoured does not."""
    assert Preferences.of(headers, method) == expected
