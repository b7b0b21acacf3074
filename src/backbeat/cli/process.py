"""Running until told to stop: the event loop and the signals."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import uvloop

__all__ = ["interruptible", "run"]

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a service manager, a terminal that was closed."""


@contextmanager
def interruptible() -> Iterator[None]:
    """End the program in good order, whichever signal comes, also while nothing runs in the event loop."""
    before = {number: signal.signal(number, _leave) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(serve: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run a server until a stop signal; a second one ends it at once.

    Args:
        serve: gets the event that is set when it is time to go.
    """

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def ask_to_stop(number: signal.Signals) -> None:
            loop.remove_signal_handler(number)
            stop.set()

        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, ask_to_stop, number)
        await serve(stop)

    uvloop.run(main())


def _leave(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
