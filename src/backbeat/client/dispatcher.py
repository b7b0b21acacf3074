"""Handlers: called in order, one event after the other, apart from the socket and from each other.

A handler that raises costs itself that event; it is reported, and the next handler is called. A slow one
holds up its own channel only, until its queue is full: then the oldest events are dropped, and that is said.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from backbeat.client.config import ChangeBinding
    from backbeat.client.events import Event
    from backbeat.client.selectors import Wish
    from backbeat.client.tasks import Tasks

__all__ = ["Dispatcher", "Handler"]

log = logging.getLogger("backbeat.client")

Handler: TypeAlias = Callable[[Any], object]
"""A function, sync or async, that takes an event; what it returns means nothing."""

MAX_WAITING: Final = 1000
"""Events that may wait for handlers."""

TURN: Final = 0.02
"""Seconds after which handlers that never wait let the others on the loop have their turn."""


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
        self._handlers: tuple[tuple[Wish, Handler], ...] = ()
        self._waiting: deque[tuple[Event, Sequence[ChangeBinding]]] = deque()
        self._dropped = 0
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def wishes(self) -> list[Wish]:
        """What the handlers want."""
        return [wish for wish, _ in self._handlers]

    def add(self, wish: Wish, handler: Handler) -> None:
        """Call a handler for what it wants."""
        self._handlers = (*self._handlers, (wish, handler))

    def remove(self, handler: Handler) -> None:
        """Call a handler no more."""
        self._handlers = tuple(entry for entry in self._handlers if entry[1] != handler)

    def put(self, event: Event, bindings: Sequence[ChangeBinding]) -> None:
        """Have the handlers called that want an event.

        Args:
            event: the event.
            bindings: the change bindings it matches.
        """
        if not self._handlers:
            return
        self._waiting.append((event, bindings))
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popleft()
            self._dropped += 1
            self._overflowed(self._name, self._dropped)
        if self._task is None:
            # The task ends when there is nothing to do: an idle channel costs none.
            self._task = self._tasks.start(self._run(), name=f"handlers of {self._name}")

    async def _run(self) -> None:
        try:
            until = monotonic() + TURN
            while self._waiting:
                event, bindings = self._waiting.popleft()
                for wish, handler in self._handlers:
                    try:
                        if (wanted := wish.take(event, bindings)) is None:
                            continue
                        result = handler(wanted)
                        if result is not None and inspect.isawaitable(result):
                            await result
                    except Exception as error:
                        name = getattr(handler, "__qualname__", type(handler).__name__)
                        log.exception("the handler %s of %s raised", name, self._name)
                        self._failed(name, error)
                if monotonic() > until:
                    await asyncio.sleep(0)
                    until = monotonic() + TURN
        finally:
            self._task = None

    async def idle(self) -> None:
        """Wait until every handler was called."""
        if self._task is not None and self._task is not asyncio.current_task():
            await asyncio.wait([self._task])
