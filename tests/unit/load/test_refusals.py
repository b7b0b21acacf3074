"""What is told of refusals, and what to do about them."""

from __future__ import annotations

import pytest

from backbeat.load.refusals import UNLIMITED, Refusal, Refusals, Step
from backbeat.protocol import reasons
from backbeat.server.limits import LimitSettings

URL = "ws://h.test"


def told(refusal: Refusal, count: int = 1, asked: int = 0) -> tuple[str, str]:
    """The line about a refusal, and the advice."""
    refusals = Refusals()
    refusals.add(refusal, count)
    (line,) = refusals.lines(URL, asked)
    return line, refusals.advice("backbeat dev")


@pytest.mark.parametrize(
    ("refusal", "line"),
    [
        (
            Refusal(Step.UPGRADE, "Too many joins per second", 429),
            "The server refused 800 of 1,000 handshakes: HTTP 429 'Too many joins per second'.",
        ),
        (
            Refusal(Step.JOIN, reasons.CONNECTION_LIMIT.refusal().reason + " Hint: Raise it."),
            "The server refused 800 of 1,000 joins: 'ConnectionRateLimitReached: Too many connected users'.",
        ),
        (
            Refusal(Step.MESSAGE, "Too many messages per second"),
            "The server refused 800 messages: 'Too many messages per second'.",
        ),
    ],
)
def test_limits_are_told_with_the_command_that_has_none(refusal: Refusal, line: str) -> None:
    """In the words of the server, how often, and ready to paste."""
    said, advice = told(refusal, 800, 1000)
    assert said == line
    assert f"backbeat dev {UNLIMITED}\n" in advice


def test_the_flags_are_those_of_the_server() -> None:
    """Every one of them is a setting, and 0 switches it off."""
    flags = UNLIMITED.replace(" 0", "").replace("--", "").replace("-", "_").split()
    assert LimitSettings(**dict.fromkeys(flags, 0)) != LimitSettings()


@pytest.mark.parametrize(
    ("refusal", "line", "advice"),
    [
        (
            Refusal(Step.CONNECT, "Connection refused"),
            f"Cannot connect to {URL}: Connection refused.",
            "Is a server",
        ),
        (
            Refusal(Step.TLS, "self-signed certificate"),
            f"handshake with {URL} failed: self-signed",
            "certificate",
        ),
        (
            Refusal(Step.UPGRADE, "Invalid API key", 401),
            "refused a handshake: HTTP 401 'Invalid",
            "--api-key",
        ),
        (
            Refusal(Step.UPGRADE, "Not Found", 404),
            "refused a handshake: HTTP 404 'Not Found'",
            "Check the URL",
        ),
        (Refusal(Step.JOIN, "PrivateOnly: no"), "refused a join: 'PrivateOnly: no'", "--private"),
        (Refusal(Step.CLOSED, "1012 'bye'"), "closed 1 open connection: 1012 'bye'", "The log of the server"),
    ],
)
def test_every_refusal_has_its_advice(refusal: Refusal, line: str, advice: str) -> None:
    """What is wrong, and what to look at."""
    said, hint = told(refusal)
    assert line in said
    assert advice in hint


def test_the_error_is_the_most_frequent_refusal() -> None:
    """When nobody could join."""
    refusals = Refusals()
    refusals.update([(Refusal(Step.JOIN, "rare"), 1), (Refusal(Step.JOIN, "frequent"), 2)])
    error = refusals.error(URL, "backbeat dev")
    assert "frequent" in error.message
    assert error.hint
