"""Events as an async iterator, with a queue that is bounded and says so when it was too small."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum
from types import TracebackType
from typing import Generic, Self, TypeVar

from backbeat.errors import BackbeatError, ClientError

__all__ = ["EventStream", "OverflowPolicy"]

E = TypeVar("E")


class OverflowPolicy(Enum):
    """What happens to events when a queue is full."""

    DROP_OLDEST = "drop_oldest"
    """The oldest makes room: what matters is the present."""

    DROP_NEWEST = "drop_newest"
    """The newest is not taken: what matters is the beginning."""

    RAISE = "raise"
    """The iterator ends with an error, after what is in the queue: nothing may be missing."""


class EventStream(Generic[E]):
    """Events in the order they came.

    ::

        async with channel.events(Broadcast("cursor")) as cursors:
            async for event in cursors:
                ...

    Args:
        name: what to call it in an `Overflow` event.
        maxsize: how many events may wait.
        overflow: what happens to more.
        overflowed: called with the number of lost events, at each.
        closed: called once, when the stream takes no more events.
    """

    def __init__(
        self,
        name: str,
        *,
        maxsize: int,
        overflow: OverflowPolicy,
        overflowed: Callable[[str, int], None],
        closed: Callable[[EventStream[E]], None],
    ) -> None:
        self.name = name
        self.dropped = 0
        self._maxsize = maxsize
        self._overflow = overflow
        self._overflowed = overflowed
        self._on_close: Callable[[EventStream[E]], None] | None = closed
        self._events: deque[E] = deque()
        self._something = asyncio.Event()
        self._error: BackbeatError | None = None
        self._ended = False

    def __repr__(self) -> str:
        return f"<EventStream {self.name} waiting={len(self._events)} dropped={self.dropped}>"

    def __len__(self) -> int:
        return len(self._events)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        while not self._events:
            if self._ended:
                if self._error is not None:
                    error, self._error = self._error, None
                    raise error
                raise StopAsyncIteration
            self._something.clear()
            await self._something.wait()
        return self._events.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def next(self, timeout: float | None = None) -> E:
        """The next event.

        Args:
            timeout: seconds to wait; None waits for ever.

        Raises:
            TimeoutError: none came in time.
            StopAsyncIteration: none will come any more.
        """
        async with asyncio.timeout(timeout):
            return await self.__anext__()

    async def aclose(self) -> None:
        """Take no more events; whoever iterates comes to the end."""
        self._events.clear()
        self.end(None)

    def put(self, event: E) -> None:
        """Add an event."""
        if self._ended:
            return
        if len(self._events) >= self._maxsize:
            self.dropped += 1
            self._overflowed(self.name, self.dropped)
            if self._overflow is OverflowPolicy.DROP_NEWEST:
                return
            if self._overflow is OverflowPolicy.RAISE:
                self.end(
                    ClientError(
                        f"The queue of {self.name} is full: {self._maxsize} events wait.",
                        code="EventQueueOverflow",
                        hint="Take them out faster, raise `maxsize`, or choose what may be lost.",
                    )
                )
                return
            self._events.popleft()
        self._events.append(event)
        self._something.set()

    def end(self, error: BackbeatError | None) -> None:
        """Take no more events; what waits is still given out, then the error is raised.

        Args:
            error: why, if it is not what the user asked for.
        """
        if self._ended:
            return
        self._ended = True
        self._error = error
        self._something.set()
        if self._on_close is not None:
            self._on_close(self)
            self._on_close = None
