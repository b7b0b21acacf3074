"""Handlers: called in order, one event after the other, apart from the socket and from each other.

A handler that raises costs itself that event; it is reported, and the next handler is called. A slow one
holds up its own channel only, until its queue is full: then the oldest events are dropped, and that is said.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from backbeat.client.events import Event
    from backbeat.client.tasks import Tasks

__all__ = ["Dispatcher", "Handler"]

log = logging.getLogger("backbeat.client")

Handler: TypeAlias = Callable[[Any], object]
"""A function, sync or async, that takes an event; what it returns means nothing."""

MAX_WAITING: Final = 1000
"""Events that may wait for handlers."""


class Dispatcher:
    """Calls the handlers of one channel, or of the client.

    Args:
        name: what to call it in reports.
        tasks: owns the task that calls.
        failed: called with the name of a handler and what it raised.
        overflowed: called with the name of the dispatcher and the number of lost events, at each.
    """

    def __init__(
        self,
        name: str,
        tasks: Tasks,
        *,
        failed: Callable[[str, Exception], None],
        overflowed: Callable[[str, int], None],
    ) -> None:
        self._name = name
        self._tasks = tasks
        self._failed = failed
        self._overflowed = overflowed
        self._waiting: deque[tuple[Handler, Callable[[], Event]]] = deque()
        self._dropped = 0
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, handler: Handler, make: Callable[[], Event]) -> None:
        """Have a handler called.

        Args:
            handler: the handler.
            make: gives the event as the handler wants it.
        """
        self._waiting.append((handler, make))
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popleft()
            self._dropped += 1
            self._overflowed(self._name, self._dropped)
        if self._task is None:
            # The task ends when there is nothing to do: an idle channel costs none.
            self._task = self._tasks.start(self._run(), name=f"handlers of {self._name}")

    async def _run(self) -> None:
        try:
            while self._waiting:
                handler, make = self._waiting.popleft()
                await self._call(handler, make)
        finally:
            self._task = None

    async def _call(self, handler: Handler, make: Callable[[], Event]) -> None:
        try:
            result = handler(make())
            if inspect.isawaitable(result):
                await result
            else:
                await asyncio.sleep(0)  # others have their turn between two handlers
        except Exception as error:
            name = getattr(handler, "__qualname__", type(handler).__name__)
            log.exception("the handler %s of %s raised", name, self._name)
            self._failed(name, error)

    async def idle(self) -> None:
        """Wait until every handler was called."""
        if self._task is not None and self._task is not asyncio.current_task():
            await asyncio.wait([self._task])
