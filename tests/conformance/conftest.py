"""The loops that the tests of an end run on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The one `backbeat` runs on, and the one of Python: they end connections each in their own way."""
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
