"""The session of a program: kept, restored, and refreshed before it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Final, Self

from backbeat.errors import AuthUnavailable, StoreError
from backbeat.session.clock import Clock, ServerClock, SystemClock
from backbeat.session.gotrue import HINTS
from backbeat.session.kept import KeptSession
from backbeat.session.listeners import AuthEvent
from backbeat.session.names import NamesItsMethods
from backbeat.session.policy import (
    RETRY_WINDOW,
    TICK,
    Deferred,
    RefreshResult,
    Rejected,
    Unchanged,
    has_woken,
    is_fresh,
    offline_delay,
    refresh_due_in,
    seconds_left,
)
from backbeat.session.rotation import Refresher, Rotation
from backbeat.session.session import AuthChange, OfflineSession, Session
from backbeat.session.stores.memory import MemoryStore
from backbeat.session.stores.store import SessionStore

__all__ = ["Handler", "SessionManager"]

log = logging.getLogger("backbeat.session")

Handler = Callable[[AuthEvent], Awaitable[None] | None]

SPACING: Final = 1.0
"""Seconds between two refreshes in the background, should a service hand out tokens that have ended."""


class SessionManager(NamesItsMethods):
    """Keeps a session and gives out its access token.

    Every method works on its own. `async with` restores what is stored, refreshes it ahead of its end, and
    notices what other processes do to the store, until the block ends.

    Args:
        store: where the session is kept; in memory if nothing is said.
        refresher: who buys new tokens with a refresh token, as `AuthContext` does at an auth service. Without
            one a session lasts as long as its access token.
        clock: the clocks of this machine.
        server: what time it is at the server; the time here, if nothing is said.
    """

    _for_sessions = (
        "Sessions are read with load_session, load_offline_session and get_available_session,"
        " and written with save_session."
    )

    def __init__(
        self,
        store: SessionStore | None = None,
        *,
        refresher: Refresher | None = None,
        clock: Clock | None = None,
        server: ServerClock | None = None,
    ) -> None:
        self._store = store or MemoryStore()
        self._clock = clock or SystemClock()
        self._server = server or ServerClock(self._clock)
        self._kept = KeptSession(self._store, self._clock)
        self._can_refresh = refresher is not None
        self._rotation = Rotation(self._kept, self._store, refresher, clock=self._clock, server=self._server)
        self._keeping_fresh: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._handling: set[asyncio.Task[None]] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<SessionManager {self._kept.session!r} in {self._store!r}>"

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # Lifecycle ----------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Restore what is stored, then refresh it and follow the store until `close`.

        A session that needs new tokens is refreshed first, with one request: without a network a program
        starts all the same, with the session it has.

        Raises:
            StoreError: the store cannot be used.
        """
        session = await self._kept.look()
        if session is not None and not is_fresh(session, self._server.now()):
            await self._rotation.refresh(session, window=0.0)
        if self._following is None:
            self._following = asyncio.create_task(self._supervised(self._follow), name="session watch")
        self.start_auto_refresh()

    def start_auto_refresh(self) -> None:
        """Refresh ahead of the end, in the background. Again, or without a refresher, makes no difference.

        Raises:
            RuntimeError: the manager is closed.
        """
        self._check_open()
        if self._keeping_fresh is None and self._can_refresh:
            self._keeping_fresh = asyncio.create_task(
                self._supervised(self._keep_fresh), name="session auto refresh"
            )

    async def stop_auto_refresh(self) -> None:
        """Refresh only when somebody asks for the token. Again makes no difference."""
        task, self._keeping_fresh = self._keeping_fresh, None
        await _ended(task)

    async def close(self) -> None:
        """End: nothing is written any more, no task is left, and whoever listens is told. Idempotent."""
        self._closed = True
        following, self._following = self._following, None
        # A handler may be the one who closes.
        handling = self._handling - {asyncio.current_task()}
        await self.stop_auto_refresh()
        await _ended(following, *handling)
        await self._rotation.close()
        await self._kept.close()

    # Sessions -----------------------------------------------------------------------------------------------

    @property
    def session(self) -> Session | None:
        """What is kept, as far as is known at this moment; its access token may have ended."""
        return self._kept.session

    async def load_session(self) -> Session | None:
        """Read the session that is stored. What is stored and is none is set aside, and reported.

        Raises:
            StoreError: the store cannot be used.
        """
        return await self._kept.look()

    async def load_offline_session(self) -> OfflineSession | None:
        """Read who was signed in last, for a program that goes on without the network.

        Raises:
            StoreError: the store cannot be used.
        """
        session = await self._kept.look()
        return None if session is None else OfflineSession.of(session, now=self._server.now())

    async def get_available_session(self) -> Session | OfflineSession | None:
        """Get the best there is: a session that is good, refreshed if need be; else who it was; else None.

        Raises:
            StoreError: the store cannot be used.
        """
        session = (await self.refresh()).session
        if session is None or seconds_left(session, self._server.now()) > 0:
            return session
        return OfflineSession.of(session, now=self._server.now())

    async def save_session(
        self, session: Session | Mapping[str, Any], *, event: AuthChange | None = None
    ) -> Session:
        """Keep a session. Listeners learn it as SIGNED_IN, or TOKEN_REFRESHED if it is the same user's.

        Args:
            session: a session, or a mapping with its fields.
            event: what happened, if comparison would not find it.

        Returns:
            The session as it was kept.

        Raises:
            TypeError: this is not a session; the text says what one has.
            StoreError: it cannot be written.
        """
        kept = Session.of(session, now=self._server.now())
        await self._kept.save(kept, event)
        return kept

    async def save_user(self, user: Mapping[str, Any]) -> None:
        """Keep what is known of the user from now on. Listeners learn it as USER_UPDATED.

        Raises:
            NotSignedIn: no session of this user is kept.
            StoreError: it cannot be written.
        """
        await self._kept.save_user(user)

    async def clear(self) -> None:
        """Forget the session here; the server is not told. Listeners learn it as SIGNED_OUT, once.

        Raises:
            StoreError: it cannot be removed.
        """
        await self._kept.clear()

    # Tokens -------------------------------------------------------------------------------------------------

    async def refresh(self, *, force: bool = False) -> RefreshResult:
        """Get new tokens if the session needs them; all who ask at once share one request.

        Args:
            force: whether to ask in any case: the server refused the token, or the network is back.

        Raises:
            StoreError: the store cannot be used.
        """
        session = await self._current()
        if session is None:
            return Unchanged(None)
        return await self._rotation.refresh(session, force=force)

    async def token(self) -> str | None:
        """Get an access token that is good for a minute at least, as a realtime client asks for it.

        A token that lives shorter than four minutes altogether is good for a quarter of its life at least.

        Returns:
            The token; None when nobody is signed in.

        Raises:
            AuthUnavailable: the access token has ended, and nobody could be asked for another.
            StoreError: the store cannot be used.
        """
        result = await self.refresh()
        session = result.session
        if session is None:
            return None
        if seconds_left(session, self._server.now()) > 0:
            return session.access_token
        error = result.error if isinstance(result, Deferred | Rejected) else None
        raise AuthUnavailable(
            f"The access token has ended and could not be refreshed{f' ({error.reason})' if error else ''}.",
            hint=error.hint if error else HINTS["unreachable"],
            code=error.code if error else None,
        ) from error

    async def _current(self) -> Session | None:
        # Nobody has to look at the store who is told when it changes.
        if self._following is not None and self._kept.is_known:
            self._check_open()
            return self._kept.session
        return await self._kept.look()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("The session manager is closed.")

    # Listening ----------------------------------------------------------------------------------------------

    async def events(self) -> AsyncGenerator[AuthEvent, None]:
        """Follow what happens: first INITIAL_SESSION with what there is, then each event, until `close`.

        Raises:
            StoreError: the store cannot be used.
            RuntimeError: the manager is closed.
        """
        self._check_open()
        if not self._kept.is_known:
            await self._kept.look()
        listener = self._kept.listeners.add(AuthEvent(AuthChange.INITIAL_SESSION, self._kept.session))
        try:
            async for event in listener:
                yield event
        finally:
            self._kept.listeners.discard(listener)

    def on_change(self, handler: Handler) -> Callable[[], None]:
        """Call a function with each event, INITIAL_SESSION first; in order, one at a time.

        What it raises is reported in the log, and harms nobody else. It may call anything here.

        Args:
            handler: a function or a coroutine function.

        Returns:
            A function that ends this.
        """
        self._check_open()
        task = asyncio.create_task(self._handle(handler), name="session events")
        self._handling.add(task)
        task.add_done_callback(self._handling.discard)

        def stop() -> None:
            task.cancel()

        return stop

    async def _handle(self, handler: Handler) -> None:
        try:
            async for event in self.events():
                await self._deliver(event, handler)
        except StoreError:
            log.exception("the handler %s is told nothing", _name(handler))

    async def _deliver(self, event: AuthEvent, handler: Handler) -> None:
        try:
            waiting = handler(event)
            if waiting is not None:
                await waiting
        except Exception:
            log.exception("the handler %s of auth events failed at %s", _name(handler), event.kind)

    # In the background --------------------------------------------------------------------------------------

    async def _supervised(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do something for as long as the manager is open, whatever goes wrong in it."""
        failures = 0
        while True:
            try:
                await work()
            except StoreError as error:
                log.warning("the session store cannot be used: %s", error)
            except Exception:
                log.exception("a task of the session manager failed; it is tried again")
            failures += 1
            await self._clock.sleep(offline_delay(failures))

    async def _follow(self) -> None:
        async for _ in self._store.watch():
            await self._kept.look()

    async def _keep_fresh(self) -> None:
        failures, not_before = 0, self._clock.monotonic()
        while True:
            self._kept.changed.clear()
            session = self._kept.session
            if session is None:
                await self._kept.changed.wait()
                failures, not_before = 0, self._clock.monotonic()
                continue
            now = self._clock.monotonic()
            delay = max(refresh_due_in(session, self._server.now()), not_before - now)
            if delay > 0:
                if await self._is_disturbed(min(delay, TICK)):
                    failures, not_before = 0, self._clock.monotonic()
                continue
            result = await self._rotation.refresh(session, force=True, window=RETRY_WINDOW)
            failures = failures + 1 if isinstance(result, Deferred) else 0
            not_before = self._clock.monotonic() + self._pause_after(result, failures)

    def _pause_after(self, result: RefreshResult, failures: int) -> float:
        match result:
            case Deferred():
                return offline_delay(failures)
            case Rejected(session=Session() as session):
                # It is over when its access token is; nobody will say otherwise before.
                return max(SPACING, seconds_left(session, self._server.now()))
            case _:
                return SPACING

    async def _is_disturbed(self, seconds: float) -> bool:
        """Wait; tell whether there is another session, or the machine slept, before the time was over."""
        wall, monotonic = self._clock.wall(), self._clock.monotonic()
        changed = asyncio.ensure_future(self._kept.changed.wait())
        slept = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait({changed, slept}, return_when=asyncio.FIRST_COMPLETED)
            return changed.done() or has_woken(
                wall=self._clock.wall() - wall, monotonic=self._clock.monotonic() - monotonic
            )
        finally:
            await _ended(changed, slept)


async def _ended(*tasks: asyncio.Future[Any] | None) -> None:
    """Cancel tasks, and wait until they are gone."""
    left = {task for task in tasks if task is not None and not task.done()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left)


def _name(handler: Handler) -> str:
    return getattr(handler, "__qualname__", type(handler).__name__)
