"""What a stream depends on, and what is said when it is not there."""

from __future__ import annotations

import pytest

from backbeat.errors import Retry
from backbeat.postgres.preconditions import Preconditions


@pytest.mark.parametrize(
    ("found", "message", "hint"),
    [
        (
            Preconditions("replica", True, [], None),
            "The database has wal_level = replica.",
            "Set wal_level = logical in its configuration and restart it.",
        ),
        (
            Preconditions("logical", True, ["a", "b"], None),
            "The database has no publication a, b.",
            'Run: create publication "a";',
        ),
    ],
)
def test_unmet_precondition_is_named(found: Preconditions, message: str, hint: str) -> None:
    """What is missing is said, with what to do, and asked for again slowly."""
    error = found.unmet()
    assert error is not None
    assert (error.message, error.hint, error.retry) == (message, hint, Retry.SLOW)


def test_met_preconditions_are_no_error() -> None:
    """A slot that does not exist yet, and a role not seen to replicate, are no reason to refuse."""
    assert Preconditions("logical", None, [], None).unmet() is None
