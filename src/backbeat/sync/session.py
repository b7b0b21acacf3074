"""`AuthContext` for blocking code: the asyncio one on a thread of its own."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from backbeat.client import streams
from backbeat.client.tasks import Tasks
from backbeat.errors import BackbeatError, ClientClosed
from backbeat.session import context as asyncio_context
from backbeat.session.names import NamesItsMethods
from backbeat.sync.callbacks import Callback, Callbacks, Handler
from backbeat.sync.io_thread import IoThread, thread_name
from backbeat.sync.streams import EventStream

if TYPE_CHECKING:
    import httpx

    from backbeat.session.clock import Clock
    from backbeat.session.gotrue import SignOutScope
    from backbeat.session.listeners import AuthEvent
    from backbeat.session.policy import RefreshResult
    from backbeat.session.session import OfflineSession, Session
    from backbeat.session.stores.store import SessionStore

__all__ = ["AuthContext", "SessionTokens"]

log = logging.getLogger("backbeat.session")

MOST_WAITING: Final = 100
"""Auth events that wait for one iterator. Of more, the oldest is dropped: each says what is there now."""

CALLBACK_PATIENCE: Final = 5.0
"""Seconds that `close` waits for a callback that runs."""


class AuthContext(NamesItsMethods):
    """Signs users in, keeps their session, and hands out their access token.

    ::

        with AuthContext(url, apikey, store=FileStore("~/.band/session.json")) as auth:
            if auth.session is None:
                auth.sign_in_with_password(email, password)
            with RealtimeClient(url, apikey, token=auth) as client:
                ...

    It has the names of `backbeat.AuthContext`, without `await`, and their arguments, results and errors. The
    session is kept fresh on a thread of its own, which the first call starts, and `close` ends. Every method
    may be called from any thread.

    Args:
        url: the project's URL, as in `http://127.0.0.1:54321`.
        apikey: the project's publishable or anon key.
        store: where the session is kept; in memory if nothing is said.
        timeout: seconds that an answer of the auth service may take.
        transport: another way to send requests than over the network.
        clock: the clocks of this machine.

    Attributes:
        inner: the asyncio one.

    Raises:
        ConfigurationError: the URL or the key cannot be one.
    """

    _for_sessions = "`session` is the present one; `get_available_session` refreshes it if need be."

    def __init__(
        self,
        url: str,
        apikey: str,
        *,
        store: SessionStore | None = None,
        timeout: float = 10.0,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.inner = asyncio_context.AuthContext(
            url, apikey, store=store, timeout=timeout, transport=transport, clock=clock
        )
        name = thread_name()
        self._callbacks = Callbacks("thread", name=name)
        self._tasks = Tasks(_task_failed)
        self.io = IoThread(
            name, owner=f"AuthContext of {url}", closing=self._close, ended=self._callbacks.stop
        )

    def __repr__(self) -> str:
        return repr(self.inner)

    def __enter__(self) -> Self:
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if "io" in self.__dict__:
            self.io.abandon()

    def open(self) -> None:
        """Restore the session that is stored, then keep it fresh until `close`."""
        self.io.call(self.inner.open)

    def close(self) -> None:
        """End: nothing is written any more, no thread and no connection is left. Idempotent."""
        self.io.close()
        if not self._callbacks.join(CALLBACK_PATIENCE):
            log.warning("a callback of %r still runs", self)

    async def _close(self) -> None:
        await self.inner.close()
        await self._tasks.aclose()

    # Who ----------------------------------------------------------------------------------------------------

    @property
    def session(self) -> Session | None:
        """Who is signed in, as far as is known at this moment; the access token may have ended."""
        return self.inner.session

    def get_available_session(self) -> Session | OfflineSession | None:
        """Get the best there is: a session that is good, refreshed if need be; else who it was; else None."""
        return self.io.call(self.inner.get_available_session)

    def token(self) -> str | None:
        """Get an access token that is good for a minute at least; None when nobody is signed in."""
        return self.io.call(self.inner.token)

    def refresh(self, *, force: bool = False) -> RefreshResult:
        """Get new tokens if the session needs them; all who ask at once share one request."""
        return self.io.call(self.inner.refresh, force=force)

    def events(self, *, timeout: float | None = None) -> EventStream[AuthEvent]:
        """Follow what happens: first INITIAL_SESSION with what there is, then each event, until `close`.

        Args:
            timeout: seconds that the iteration waits for each event before it raises `TimeoutError`.
        """
        return EventStream(self, self.io.call(self.follow), timeout=timeout)

    def on_change(self, handler: Handler) -> Callable[[], None]:
        """Call a function with each event, INITIAL_SESSION first; returns a function that ends this."""
        return partial(self.io.post, self.io.call(self._on_change, Callback(self, self._callbacks, handler)))

    async def _on_change(self, callback: Callback) -> Callable[[], None]:
        return self.inner.on_change(callback)

    async def follow(self) -> streams.EventStream[AuthEvent]:
        """A stream of what happens, on the loop of this context; called there."""

        def closed(_: object) -> None:
            following.cancel()

        stream: streams.EventStream[AuthEvent] = streams.EventStream(
            f"auth events of {self!r}",
            maxsize=MOST_WAITING,
            overflow=streams.OverflowPolicy.DROP_OLDEST,
            overflowed=lambda name, dropped: log.warning("%s: %s were dropped", name, dropped),
            closed=closed,
        )
        following = self._tasks.start(self._pass_on(stream), name="auth events")
        return stream

    async def _pass_on(self, stream: streams.EventStream[AuthEvent]) -> None:
        error: BackbeatError | None = None
        try:
            async with aclosing(self.inner.events()) as events:
                async for event in events:
                    stream.put(event)
        except BackbeatError as failed:
            error = failed
        finally:
            stream.end(error)

    # Signing in and out -------------------------------------------------------------------------------------

    def sign_in_with_password(self, email: str, password: str) -> Session:
        """Sign a user in."""
        return self.io.call(self.inner.sign_in_with_password, email, password)

    def sign_up(self, email: str, password: str, *, data: Mapping[str, Any] | None = None) -> Session | None:
        """Create a user, and sign them in."""
        return self.io.call(self.inner.sign_up, email, password, data=data)

    def sign_in_anonymously(self, *, data: Mapping[str, Any] | None = None) -> Session:
        """Sign in as a new user without an address, who is gone with the session."""
        return self.io.call(self.inner.sign_in_anonymously, data=data)

    def update_user(
        self,
        *,
        email: str | None = None,
        password: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> Mapping[str, Any]:
        """Change the user who is signed in."""
        return self.io.call(self.inner.update_user, email=email, password=password, data=data)

    def sign_out(self, scope: SignOutScope | Literal["global", "local", "others"] = "global") -> None:
        """Sign the user out. Nothing happens when nobody is signed in."""
        self.io.call(self.inner.sign_out, scope)


class SessionTokens:
    """The tokens of a blocking context, for a client, whose loop is another one.

    Args:
        auth: the context.
    """

    def __init__(self, auth: AuthContext) -> None:
        self._auth = auth

    async def token(self) -> str | None:
        """Get an access token."""
        return await self._auth.io.bridge(self._auth.inner.token)

    async def refresh(self, *, force: bool = False) -> RefreshResult:
        """Get new tokens."""
        return await self._auth.io.bridge(self._auth.inner.refresh, force=force)

    async def events(self) -> AsyncIterator[AuthEvent]:
        """Follow what happens."""
        stream = await self._auth.io.bridge(self._auth.follow)
        try:
            while True:
                try:
                    event = await self._auth.io.bridge(stream.next)
                except (StopAsyncIteration, ClientClosed):
                    return
                yield event
        finally:
            self._auth.io.post(partial(stream.end, None))


def _task_failed(name: str, error: Exception) -> None:
    log.error("%s failed", name, exc_info=error)
