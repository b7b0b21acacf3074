"""Where tokens come from: a text, a function, an object; and what is asked when one is needed."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from enum import Enum
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable

__all__ = ["Auth", "TokenArgument", "TokenCallback", "TokenProvider", "TokenSource"]


@runtime_checkable
class TokenProvider(Protocol):
    """Something that has tokens, like a session manager.

    It may also have `events()`, an async iterator whose items have a `session` that is None when nobody is
    signed in: the client asks for the token again after each. And `refresh(force=True)`, which is called
    before `token()` when a server refused the token it gave.
    """

    async def token(self) -> str | None:
        """A user's token that has not ended, or None when nobody is signed in."""


TokenCallback: TypeAlias = Callable[[], "str | Awaitable[str | None] | None"]
"""A function, sync or async, that returns a user's token, or None when nobody is signed in."""

TokenArgument: TypeAlias = "str | TokenCallback | TokenProvider | None"
"""What a client takes as `token`."""


class Auth(Enum):
    """What may be given to `set_auth` in place of a token."""

    SOURCE = "source"
    """What the client was made with."""


class TokenSource:
    """Asks a function or an object for tokens.

    Args:
        given: the function or the object.

    Raises:
        TypeError: it is neither, or an object that blocks.
    """

    def __init__(self, given: TokenCallback | TokenProvider) -> None:
        if isinstance(given, TokenProvider):
            self._ask: Callable[[], Any] = given.token
            self._refresh = getattr(given, "refresh", None)
            self._events = getattr(given, "events", None)
            calls = given.token, self._refresh
            if self._refresh is not None and not any(map(inspect.iscoroutinefunction, calls)):
                raise TypeError(
                    f"`token` is a blocking {type(given).__name__}: give its asyncio counterpart (of a "
                    "session `backbeat.session.AuthContext`), or its method alone, which is called in a "
                    "thread: `token=auth.token`."
                )
        elif callable(given):
            self._ask, self._refresh, self._events = given, None, None
        else:
            shape = ": use its `access_token`" if _has_token(given) else ""
            raise TypeError(
                f"`token` is a str, a function, an object with an async `token()`, or None; and not a "
                f"{type(given).__name__}{shape}."
            )

    async def token(self, *, refused: bool) -> object:
        """Ask.

        Args:
            refused: whether a server refused the token of the last answer.
        """
        if refused and self._refresh is not None:
            await self._refresh(force=True)
        if inspect.iscoroutinefunction(self._ask):
            return await self._ask()
        # A function that blocks must not hold up heartbeats.
        answer = await asyncio.to_thread(self._ask)
        return await answer if inspect.isawaitable(answer) else answer

    def changes(self) -> AsyncIterator[bool] | None:
        """Whether each change was a sign-out, as they happen; None if the source cannot tell."""
        return None if self._events is None else self._changes()

    async def _changes(self) -> AsyncIterator[bool]:
        assert self._events is not None
        async for event in cast("AsyncIterator[Any]", self._events()):
            kind = getattr(event, "kind", None)
            # The first thing told is what was there already; the join asks for that itself.
            if getattr(kind, "value", kind) != "INITIAL_SESSION":
                yield getattr(event, "session", None) is None


def check_token(value: object) -> str:
    """Tell a token from what people pass by mistake.

    Raises:
        TypeError: it is no text, or empty.
    """
    if isinstance(value, str) and value:
        return value
    shape = "use its `access_token`" if _has_token(value) else "a token is a str that is not empty"
    raise TypeError(f"`set_auth` takes a token, and not a {type(value).__name__}: {shape}.")


def _has_token(value: object) -> bool:
    return hasattr(value, "access_token") or (isinstance(value, dict) and "access_token" in value)
