"""Runs the band app in a terminal, beside `make demo`.

python -m examples.rockon.terminal [mike] [--url http://127.0.0.1:54321] [--sessions DIR]
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

from cyclopts import App
from examples.rockon.terminal.keyboard import Keyboard
from examples.rockon.terminal.program import Program, first
from examples.rockon.terminal.screen import LineScreen, LiveScreen, LogLines, Screen

from backbeat.cli import run_app
from backbeat.cli.process import interruptible, run
from backbeat.local.project import DEFAULT_PUBLISHABLE_KEY
from backbeat.session import AuthContext, FileStore


def terminal(
    who: str = "mike",
    *,
    url: str = "http://127.0.0.1:54321",
    key: str = DEFAULT_PUBLISHABLE_KEY,
    sessions: Path = Path(".backbeat") / "sessions",
) -> None:
    """Play in a band.

    Parameters
    ----------
    who
        A name of the demo, or an address. Whoever was here before is still signed in.
    url
        The project's URL.
    key
        Its publishable key.
    sessions
        The folder that keeps who is signed in.
    """
    email = who if "@" in who else f"{who}@ipodshuffle.com"
    screen = LiveScreen() if sys.stdout.isatty() else LineScreen()

    async def serve(stop: asyncio.Event) -> None:
        with screen, Keyboard(screen.typed) as keyboard:
            log_to(screen)
            async with AuthContext(url, key, store=FileStore(sessions / f"{email}.json")) as auth:
                await first(Program(auth, email, screen, keyboard).run(url, key), stop.wait())

    with interruptible():
        run(serve)


def log_to(screen: Screen) -> None:
    """Show what realtime and the sessions say."""
    handler = LogLines(screen.say, traces=isinstance(screen, LineScreen))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("rockon", "backbeat.session"):
        logging.getLogger(name).setLevel(logging.INFO)


if __name__ == "__main__":
    run_app(App(default_command=terminal, help="The band app in a terminal."))
