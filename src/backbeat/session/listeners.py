"""Those who are told what happens to a session: each has a queue, and none waits for another."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from typing import Final, Self

from backbeat.errors import AuthError
from backbeat.session.session import AuthChange, Session

__all__ = ["AuthEvent", "Listener", "Listeners"]

log = logging.getLogger("backbeat.session")

MOST_WAITING: Final = 100
"""Events that wait for one listener. Of more, the oldest is dropped: each says what is there now."""


@dataclass(frozen=True, slots=True)
class AuthEvent:
    """One thing that happened to a session.

    Attributes:
        kind: what.
        session: what there is now, or None.
        error: what did not work, for `REFRESH_FAILED` and `SET_ASIDE`.
    """

    kind: AuthChange
    session: Session | None
    error: AuthError | None = None


class Listener:
    """The events of one listener, in the order in which they happened.

    Args:
        first: what it is told first.
    """

    def __init__(self, first: AuthEvent) -> None:
        self._waiting = deque([first])
        self._something = asyncio.Event()
        self._something.set()
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AuthEvent:
        while not self._waiting:
            if self._closed:
                raise StopAsyncIteration
            self._something.clear()
            await self._something.wait()
        return self._waiting.popleft()

    def tell(self, event: AuthEvent) -> None:
        """Queue an event."""
        if len(self._waiting) == MOST_WAITING:
            dropped = self._waiting.popleft()
            log.warning(
                "somebody does not listen: of %s auth events %s is dropped", MOST_WAITING, dropped.kind
            )
        self._waiting.append(event)
        self._something.set()

    def close(self) -> None:
        """Say that nothing more will come; what waits is still delivered."""
        self._closed = True
        self._something.set()


class Listeners:
    """Everybody who listens."""

    def __init__(self) -> None:
        self._all: set[Listener] = set()

    def add(self, first: AuthEvent) -> Listener:
        """Begin to listen."""
        listener = Listener(first)
        self._all.add(listener)
        return listener

    def discard(self, listener: Listener) -> None:
        """Listen no more."""
        self._all.discard(listener)

    def tell(self, event: AuthEvent) -> None:
        """Tell everybody."""
        for listener in self._all:
            listener.tell(event)

    def close(self) -> None:
        """Say to everybody that nothing more will come."""
        for listener in self._all:
            listener.close()
