"""What somebody sees: the band, kept current in place; or line by line, where output is no terminal."""

from __future__ import annotations

import logging
import sys
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Protocol, Self

from examples.rockon.terminal.lists import LISTS, Row, title_of
from examples.rockon.terminal.manager import Connection
from rich.console import Console, Group
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

__all__ = ["Board", "LineScreen", "LiveScreen", "LogLines", "Screen"]

LAMPS: Final = {"live": "green", "connecting": "yellow", "offline": "red"}
LINES_KEPT: Final = 200
LINES_SHOWN: Final = 9


@dataclass(slots=True)
class Board:
    """What there is to see.

    Attributes:
        who: the name of whoever is signed in.
        connection: whether row changes flow.
        reason: why they do not.
        bands: the names of the bands, by id.
        rows: the rows of each list, in order.
        people: every member, and whether they are online.
        lit: the ids of the rows that somebody else has just changed.
    """

    who: str = ""
    connection: Connection = "connecting"
    reason: str = ""
    bands: dict[str, str] = field(default_factory=dict)
    rows: dict[str, list[Row]] = field(default_factory=lambda: {table: [] for table in LISTS})
    people: list[tuple[str, bool]] = field(default_factory=list)
    lit: set[str] = field(default_factory=set)


class Screen(Protocol):
    """Shows the band."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def say(self, text: str, style: str = "") -> None:
        """Show a line."""

    def show(self, board: Board) -> None:
        """Show what there is now."""

    def ask(self, prompt: str, *, secret: bool = False) -> None:
        """Say what the next line is for, and whether it may be seen."""

    def typed(self, line: str) -> None:
        """Show the unfinished line."""


class LineScreen:
    """Prints what happens, line by line."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._shown: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def say(self, text: str, style: str = "") -> None:
        """Print a line."""
        self._console.print(Text(text, style=style))

    def show(self, board: Board) -> None:
        """Print what differs from the last time, of what fits a line."""
        online = ", ".join(name for name, here in board.people if here)
        lines = [f"connection: {board.connection}", f"online: {online or 'nobody'}"]
        for line in lines:
            if line not in self._shown:
                self.say(line)
        self._shown = lines

    def ask(self, prompt: str, *, secret: bool = False) -> None:
        """Print what the next line is for."""
        del secret  # What is not typed on a terminal is not shown.
        if prompt:
            self.say(f"{prompt}?")

    def typed(self, line: str) -> None:
        """Nothing: the line comes as a whole."""


class LiveScreen:
    """Keeps the whole terminal current."""

    def __init__(self) -> None:
        self._board = Board()
        self._lines: deque[Text] = deque(maxlen=LINES_KEPT)
        self._prompt, self._line, self._secret = "", "", False
        self._live = Live(screen=True, auto_refresh=False, get_renderable=self._draw)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def say(self, text: str, style: str = "") -> None:
        """Add a line to the journal."""
        self._lines.append(Text(text, style=style, no_wrap=True, overflow="ellipsis"))
        self._live.refresh()

    def show(self, board: Board) -> None:
        """Show what there is now."""
        self._board = board
        self._live.refresh()

    def ask(self, prompt: str, *, secret: bool = False) -> None:
        """Say what the next line is for."""
        self._prompt, self._line, self._secret = prompt, "", secret
        self._live.refresh()

    def typed(self, line: str) -> None:
        """Show the unfinished line."""
        self._line = line
        self._live.refresh()

    def _draw(self) -> Layout:
        line = "•" * len(self._line) if self._secret else self._line
        journal = Group(*list(self._lines)[-LINES_SHOWN:])
        layout = Layout()
        layout.split_column(
            Layout(self._header(), size=3),
            Layout(Panel(self._songs(), title="Songs", border_style="dim")),
            Layout(self._others(), size=5),
            Layout(Panel(journal, title="Sound desk", border_style="dim"), size=LINES_SHOWN + 2),
            Layout(Text(f"{self._prompt}> {line}▏", style="bold"), size=1),
        )
        return layout

    def _header(self) -> Panel:
        board = self._board
        text = Text.assemble(
            (", ".join(board.bands.values()) or "Rock On", "bold"),
            f"  {board.who}  ",
            ("● ", LAMPS[board.connection]),
            (board.connection, LAMPS[board.connection]),
            no_wrap=True,
            overflow="ellipsis",
        )
        for name, here in board.people:
            text.append(f"   {'●' if here else '○'} {name}", style="green" if here else "dim")
        if board.reason:
            text.append(f"   {board.reason}", style="red")
        return Panel(text, border_style="dim")

    def _songs(self) -> Table:
        board = self._board
        table = Table(expand=True, box=None, header_style="dim")
        columns = ["title", "artist", "key", "bpm"]
        for name in [*columns, *(["band"] if len(board.bands) > 1 else [])]:
            table.add_column(name.capitalize(), no_wrap=True)
        for row in board.rows["songs"]:
            cells = [Text("" if row.get(name) is None else str(row[name])) for name in columns]
            band = Text(board.bands.get(row["band_id"], ""))
            table.add_row(
                *cells,
                *([band] if len(board.bands) > 1 else []),
                style="bold yellow" if row["id"] in board.lit else "",
            )
        return table

    def _others(self) -> Panel:
        lines = []
        for table, rows in self._board.rows.items():
            if table != "songs":
                names = " · ".join(title_of(table, row) for row in rows)
                heading = (f"{table.replace('_', ' ').capitalize():<18}", "dim")
                lines.append(Text.assemble(heading, names, no_wrap=True, overflow="ellipsis"))
        return Panel(Group(*lines), border_style="dim")


class LogLines(logging.Handler):
    """Sends log lines to the screen, with the traceback of what went wrong.

    Args:
        say: shows a line in a style.
        traces: whether there is room for tracebacks.
    """

    def __init__(self, say: Callable[[str, str], None], *, traces: bool) -> None:
        super().__init__()
        self._say = say
        self._traces = traces

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record."""
        style = "red" if record.levelno >= logging.ERROR else "dim"
        self._say(record.getMessage(), style)
        if self._traces and record.exc_info:
            self._say("".join(traceback.format_exception(*record.exc_info)).rstrip(), "dim")
