"""The small examples, each as its docstring says, on a project that `backbeat dev` runs."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.e2e.conftest import Dev, Program


def example(dev: Dev, file: str, *arguments: str, ready: str) -> Program:
    """An example, in a process of its own."""
    command = [sys.executable, f"examples/{file}", *arguments, "--url", dev.url]
    # Where output is no terminal, a table that is kept current would be drawn at the end only.
    return Program(command, ready=ready, TTY_COMPATIBLE="1")


def test_a_chat_carries_lines_both_ways(dev: Dev) -> None:
    """What one types the other reads, and nobody reads it twice."""
    eric, mike = (example(dev, "chat.py", name, ready="You are in lobby") for name in ("eric", "mike"))
    with eric, mike:
        eric.type("shall we?")
        mike.says("^eric: shall we\\?$")
        mike.type("we shall")
        eric.says("^mike: we shall$")
        assert "eric:" not in eric.output
        eric.type("after the café")
        mike.says("^eric: after the café$")


def test_a_chat_goes_on_after_the_server_was_away(folder: Path) -> None:
    """It says that it is away, and when it is back."""
    with Dev("--data", str(folder / "data")) as dev:
        eric, mike = (example(dev, "chat.py", name, ready="You are in lobby") for name in ("eric", "mike"))
        with eric, mike:
            dev.stop()
            for member in (eric, mike):
                member.says(r"^\(away: ")
            dev.start()
            for member in (eric, mike):
                member.says(r"^\(back after ")
            mike.type("here again")
            eric.says("^mike: here again$")


def test_a_game_starts_when_all_in_the_lobby_are_ready(dev: Dev) -> None:
    """Each sees the others come and get ready; the start reaches all, with the same turns."""
    with (
        example(dev, "lobby.py", "eric", ready="○ eric") as eric,
        example(dev, "lobby.py", "mike", ready="○ eric  ○ mike") as mike,
    ):
        eric.says("○ eric  ○ mike")
        eric.type("")
        mike.says("● eric  ○ mike")
        mike.type("")
        turns = {program.lines[program.says("^The game starts: ")] for program in (eric, mike)}
        assert len(turns) == 1


def test_a_dashboard_shows_what_is_written(dev: Dev) -> None:
    """Readings that are written while it runs appear in it."""
    place = ["--database-url", dev.database_url]
    with (
        example(dev, "dashboard.py", "feed", *place, ready="attic"),
        example(dev, "dashboard.py", *place, ready="Sensor") as dashboard,
    ):
        for sensor in ("attic", "cellar", "garden"):
            dashboard.says(f"│ {sensor} +│ +[0-9.]+ │ +[0-9]+ │")
