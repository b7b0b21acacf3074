"""The log: JSON for machines, one line an event, and never a secret."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from backbeat.cli import logs


@pytest.fixture
def restored() -> Iterator[None]:
    """Put the logging of the test run back afterwards."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.mark.usefixtures("restored")
def test_an_event_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """With its level, its time and its fields."""
    logs.configure("info")
    structlog.get_logger("test").info("join refused", code="Unauthorized", topic="realtime:x")
    line = json.loads(capsys.readouterr().err)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "join refused", "level": "info", "code": "Unauthorized", "topic": "realtime:x"}


@pytest.mark.usefixtures("restored")
def test_less_important_events_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """The level is a lower bound."""
    logs.configure("warning")
    structlog.get_logger("test").info("nobody asked")
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("restored")
def test_libraries_log_in_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    """A warning of a library is a line of JSON too."""
    logs.configure("info")
    logging.getLogger("psycopg.pool").warning("error connecting in %r", "pool-1")
    assert json.loads(capsys.readouterr().err)["event"] == "error connecting in 'pool-1'"


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("terminal", [False, True])
def test_a_traceback_shows_no_variables(
    terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token in a local variable stays where it is."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    logs.configure("info")
    token = "eyJhbGciOiJIUzI1NiJ9.secret.signature"
    try:
        assert not token.endswith("signature")
    except AssertionError:
        structlog.get_logger("test").exception("failed")
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert "eyJ" not in printed.replace("eyJhbGciOiJIUzI1NiJ9.secret.signature'.endswith", "")
