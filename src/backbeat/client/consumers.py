"""Everybody who wants to hear of something: handlers and streams, of one channel or of the client."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from backbeat.client.dispatcher import Dispatcher, Handler
from backbeat.client.selectors import Wish
from backbeat.client.streams import EventStream, OverflowPolicy

if TYPE_CHECKING:
    from backbeat.client.config import ChangeBinding
    from backbeat.client.events import Event
    from backbeat.client.tasks import Tasks
    from backbeat.errors import BackbeatError

__all__ = ["Consumers"]

log = logging.getLogger("backbeat.client")

H = TypeVar("H", bound=Handler)

MAXSIZE: Final = 1000
"""Events a stream keeps, unless it is told otherwise."""


class Consumers:
    """Passes events on to whoever wants them.

    Args:
        name: whose events they are, for reports.
        tasks: owns the task that calls handlers.
        failed: called with the name of a consumer, and what went wrong.
        overflowed: called with the name of a consumer and the number of lost events, at each.
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
        self._failed = failed
        self._overflowed = overflowed
        self._streams: dict[EventStream[Any], Wish] = {}
        self._opened = 0
        self.dispatcher = Dispatcher(name, tasks, failed=failed, overflowed=overflowed)

    @property
    def waiting(self) -> int:
        """How many events wait to be taken."""
        return len(self.dispatcher) + sum(len(stream) for stream in self._streams)

    @property
    def wishes(self) -> list[Wish]:
        """What is wanted."""
        return [*self.dispatcher.wishes, *self._streams.values()]

    def register(self, wish: Wish, handler: Handler | None) -> Callable[[H], H]:
        """Call a handler for what it wants; or give a decorator that says which one."""

        def decorate(handler: H) -> H:
            self.dispatcher.add(wish, handler)
            return handler

        if handler is not None:
            decorate(handler)
        return decorate

    def off(self, handler: Handler) -> None:
        """Call a handler no more."""
        self.dispatcher.remove(handler)

    def stream(self, wish: Wish, *, maxsize: int, overflow: OverflowPolicy | str) -> EventStream[Any]:
        """Open a stream of what is wanted."""
        self._opened += 1
        stream: EventStream[Any] = EventStream(
            f"stream {self._opened} of {self._name}",
            maxsize=maxsize,
            overflow=OverflowPolicy(overflow),
            overflowed=self._overflowed,
            closed=self._forget,
        )
        self._streams[stream] = wish
        return stream

    def _forget(self, stream: EventStream[Any]) -> None:
        self._streams.pop(stream, None)

    def put(self, event: Event, bindings: Sequence[ChangeBinding] = ()) -> None:
        """Pass an event on."""
        self.dispatcher.put(event, bindings)
        if self._streams:
            for stream, wish in list(self._streams.items()):
                self._put(stream, wish, event, bindings)

    def end(self, error: BackbeatError | None) -> None:
        """End every stream."""
        for stream in list(self._streams):
            stream.end(error)

    def _put(
        self, stream: EventStream[Any], wish: Wish, event: Event, bindings: Sequence[ChangeBinding]
    ) -> None:
        try:
            wanted = wish.take(event, bindings)
        except Exception as error:
            # A row that does not fit the model of its reader.
            log.exception("an event for %s could not be made", stream.name)
            self._failed(stream.name, error)
        else:
            if wanted is not None:
                stream.put(wanted)
