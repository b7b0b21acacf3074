"""Events as a blocking iterator."""

from __future__ import annotations

import threading
from collections import deque
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from backbeat.errors import ClientClosed

if TYPE_CHECKING:
    from backbeat.client import streams
    from backbeat.sync.client import RealtimeClient
    from backbeat.sync.session import AuthContext

__all__ = ["EventStream"]

E = TypeVar("E")


class EventStream(Generic[E]):
    """Events in the order they came.

    ::

        with channel.events(Broadcast("cursor"), timeout=5) as cursors:
            for event in cursors:
                ...

    Several threads may iterate: each event goes to one of them. A stream that nobody holds is closed.

    Args:
        owner: whose events they are; it lives as long as the stream.
        inner: the stream of the asyncio client.
        timeout: seconds that the iteration waits for each event; None waits for ever.
    """

    def __init__(
        self,
        owner: RealtimeClient | AuthContext,
        inner: streams.EventStream[E],
        *,
        timeout: float | None,
    ) -> None:
        self._owner = owner
        self._io = owner.io
        self._inner = inner
        self._timeout = timeout
        self._turn = threading.Lock()
        self._taken: deque[E] = deque()
        self._closed = False

    def __repr__(self) -> str:
        return repr(self._inner)

    def __del__(self) -> None:
        self.close()

    def __len__(self) -> int:
        return 0 if self._closed else len(self._inner) + len(self._taken)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> E:
        return self.next(self._timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def name(self) -> str:
        """What it is called in an `Overflow` event."""
        return self._inner.name

    @property
    def dropped(self) -> int:
        """How many events were lost."""
        return self._inner.dropped

    def next(self, timeout: float | None = None) -> E:
        """The next event.

        Args:
            timeout: seconds to wait; None waits for ever.

        Raises:
            TimeoutError: none came in time; one may come later.
            StopIteration: none will come any more.
        """
        if not self._turn.acquire(timeout=-1 if timeout is None else timeout):
            raise TimeoutError
        try:
            if self._closed:
                raise StopIteration
            if not self._taken:
                self._fill(timeout)
            return self._taken.popleft()
        except StopAsyncIteration:
            raise StopIteration from None
        finally:
            self._turn.release()

    def _fill(self, timeout: float | None) -> None:
        try:
            self._io.call(self._take, timeout)
        except ClientClosed:
            if not self._io.closed:
                raise
            self._io.run(self._take_rest)

    async def _take(self, seconds: float | None) -> None:
        # Ctrl-C may come between the event and its reader: then the next call finds it here.
        self._taken.append(await self._inner.next(seconds))

    def _take_rest(self) -> None:
        """Take what waited when the client was closed: no event loop is needed, for nothing is waited for."""
        try:
            self._inner.__anext__().send(None)
        except StopIteration as taken:
            self._taken.append(taken.value)

    def close(self) -> None:
        """Take no more events; whoever iterates comes to the end."""
        self._closed = True
        self._io.post(partial(self._inner.end, None))
