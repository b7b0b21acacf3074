"""The table of refusals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from string import Formatter

import pytest

from backbeat.errors import Refusal, Retry
from backbeat.protocol.reasons import CHANNEL_LIMIT, REASONS, TOKEN_EXPIRED, UNAUTHORIZED, Reason, explained


@pytest.mark.parametrize("reason", REASONS.values(), ids=REASONS.keys())
def test_every_reason_makes_its_exception(reason: Reason) -> None:
    """Each row of the table yields a refusal that carries its code and its retry policy."""
    fields = {name for _, name, _, _ in Formatter().parse(reason.text) if name}
    error = reason.refusal(**dict.fromkeys(fields, "x"))
    assert isinstance(error, Refusal)
    assert (error.code, error.retry) == (reason.code, reason.retry)
    assert "{" not in error.message


@pytest.mark.parametrize("reason", REASONS.values(), ids=REASONS.keys())
def test_every_reason_explains_itself(reason: Reason) -> None:
    """What it means, how it comes about, what to do, and where it is met; the meaning is a sentence."""
    assert all((reason.meaning, reason.causes, reason.hint, reason.where))
    assert reason.meaning.endswith(".")


def test_the_error_pages_are_current() -> None:
    """docs/errors/ says what the table says; `make docs` writes it."""
    script = Path(__file__).parents[3] / "scripts" / "error-pages"
    checked = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_a_join_reply_names_the_code_first() -> None:
    """Clients match on `Code: text`."""
    error = UNAUTHORIZED.refusal(topic="room")
    assert error.reason == ("Unauthorized: You do not have permissions to read from this Channel topic: room")


def test_limits_ask_for_patience() -> None:
    """Whoever hits a limit should not come back at once."""
    assert CHANNEL_LIMIT.refusal().retry is Retry.SLOW


def test_context_comes_before_the_hint() -> None:
    """What is known about this case stands before the general advice."""
    error = TOKEN_EXPIRED.refusal(seconds=3, context="Asked with X.")
    assert error.hint.startswith("Asked with X. Refresh")


def test_explaining_leaves_the_legacy_text_in_front() -> None:
    """The hint follows the text, and only where the server explains itself."""
    refusal = UNAUTHORIZED.refusal(topic="room")
    assert explained(refusal.reason, refusal, explain=True) == f"{refusal.reason}. Hint: {refusal.hint}"
    assert explained(refusal.reason, refusal, explain=False) == refusal.reason


def test_a_text_without_its_code_gets_it_behind_the_hint() -> None:
    """A system message carries no code on the wire, and without one there is no page to look up."""
    refusal = UNAUTHORIZED.refusal(topic="room")
    assert explained(refusal.message, refusal, explain=True).endswith(" Error code: Unauthorized.")
