"""New tokens for old ones: asked for once, whoever wants them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from backbeat.errors import AuthError, AuthUnavailable, Retry, StoreError
from backbeat.session.clock import Clock, ServerClock
from backbeat.session.gotrue import HINTS
from backbeat.session.kept import KeptSession
from backbeat.session.listeners import AuthEvent
from backbeat.session.policy import (
    RETRY_WINDOW,
    Deferred,
    Discarded,
    Refreshed,
    RefreshResult,
    Rejected,
    Unchanged,
    ends_session,
    is_fresh,
    is_transient,
    refuses_session,
    retry_delay,
    seconds_left,
)
from backbeat.session.session import AuthChange, Session
from backbeat.session.stores.store import SessionStore
from backbeat.tokens.claims import fingerprint

__all__ = ["Refresher", "Rotation"]

log = logging.getLogger("backbeat.session")

Refresher: TypeAlias = Callable[[str], Awaitable[Session | Mapping[str, Any]]]
"""Buys a session with a refresh token. It raises `AuthRefused` when the token is refused, `AuthUnavailable`
when nobody knows; anything else counts as the latter."""


class Rotation:
    """Refreshes the session that is kept (section 3.2 of the client specification).

    Args:
        kept: the session.
        store: where it is kept, and who of all that share it may ask.
        refresher: who is asked.
        clock: the clocks of this machine.
        server: what time it is at the server.
    """

    def __init__(
        self,
        kept: KeptSession,
        store: SessionStore,
        refresher: Refresher | None,
        *,
        clock: Clock,
        server: ServerClock,
    ) -> None:
        self._kept = kept
        self._store = store
        self._refresher = refresher
        self._clock = clock
        self._server = server
        self._running: asyncio.Task[RefreshResult] | None = None
        self._running_for = ""
        self._unsaved: tuple[str, Session] | None = None
        self._reported = ""

    async def refresh(
        self, session: Session, *, force: bool = False, window: float = RETRY_WINDOW
    ) -> RefreshResult:
        """Get new tokens, if they are needed; everybody who wants them waits for the same request.

        Args:
            session: the session that is kept.
            force: whether to ask even if the session is good, or was refused a moment ago.
            window: seconds in which to try again when nobody answers.
        """
        if not force:
            if is_fresh(session, self._server.now()):
                return Unchanged(session)
            error = self._kept.cooldown.failure(session.refresh_token, monotonic=self._clock.monotonic())
            if error is not None:
                return await self._concluded(session, error)
        while (running := self._running) is not None and not running.done():
            if self._running_for == session.refresh_token:
                break
            # For a session that was replaced meanwhile: what comes of it is no answer to us.
            await asyncio.wait({running})
        else:
            self._running_for = session.refresh_token
            running = asyncio.create_task(self._refresh(session, window), name="session refresh")
            self._running = running
        # Whoever stops waiting does not stop the others.
        await asyncio.wait({running})
        if running.cancelled():
            raise RuntimeError("The session manager was closed while it refreshed the session.")
        return running.result()

    async def close(self) -> None:
        """Stop asking. A refresh token that is under way stays as it is: the service tolerates its parent."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})

    async def _refresh(self, session: Session, window: float) -> RefreshResult:
        try:
            async with self._store.alone():
                current = await self._kept.look()
                if current is None:
                    return Unchanged(None)
                # Whoever was alone before us may have done it.
                if current.refresh_token != session.refresh_token and is_fresh(current, self._server.now()):
                    return Unchanged(current)
                return await self._rotate(current, window)
        except StoreError as error:
            self._report(error, self._kept.session)
            return Deferred(self._kept.session or session, error)

    async def _rotate(self, session: Session, window: float) -> RefreshResult:
        try:
            fresh = await self._new_session(session, window)
        except AuthError as error:
            self._kept.cooldown.start(session.refresh_token, error, monotonic=self._clock.monotonic())
            self._report(error, None if self._is_over(session, error) else session)
            return await self._concluded(session, error)
        try:
            taken = await self._kept.exchange(session, fresh)
        except StoreError:
            # The old refresh token is spent: what could not be written must not be lost.
            self._unsaved = (session.refresh_token, fresh)
            raise
        self._unsaved, self._reported = None, ""
        if taken:
            return Refreshed(self._kept.session or fresh)
        log.warning("new tokens were thrown away: the session was replaced or ended meanwhile")
        return Discarded(self._kept.session)

    async def _new_session(self, session: Session, window: float) -> Session:
        if self._unsaved is not None and self._unsaved[0] == session.refresh_token:
            return self._unsaved[1]
        started, attempt = self._clock.monotonic(), 0
        while True:
            try:
                return await self._ask(session.refresh_token)
            except AuthError as error:
                elapsed = self._clock.monotonic() - started
                delay = retry_delay(attempt, elapsed, window=window) if is_transient(error) else None
                if delay is None or not self._is_kept(session):
                    raise
                log.debug("the refresh is tried again in %.1f s: %s", delay, error.reason)
            await self._clock.sleep(delay)
            attempt += 1

    async def _ask(self, refresh_token: str) -> Session:
        if self._refresher is None:
            raise AuthUnavailable(
                "Nobody is there to refresh the session.",
                code="no_refresher",
                hint=HINTS["no_refresher"],
                retry=Retry.NEVER,
            )
        try:
            return Session.of(await self._refresher(refresh_token), now=self._server.now())
        except AuthError:
            raise
        except Exception as error:
            log.exception("the refresher failed with refresh token %s", fingerprint(refresh_token))
            raise AuthUnavailable(
                f"The refresher failed: {type(error).__name__}.",
                code="refresher_failed",
                hint="It should raise AuthRefused or AuthUnavailable. The session is kept.",
                retry=Retry.SLOW,
            ) from error

    async def _concluded(self, session: Session, error: AuthError) -> RefreshResult:
        """Say what a failed refresh means for the session, and end it if it is over."""
        current = await self._kept.look()
        if current is None:
            return Rejected(None, error)
        if current.refresh_token != session.refresh_token and self._left(current) > 0:
            return Unchanged(current)
        if self._is_over(session, error):
            await self._kept.exchange(session, None, error=error)
            return Rejected(self._kept.session, error)
        return Rejected(session, error) if refuses_session(error) else Deferred(session, error)

    def _is_over(self, session: Session, error: AuthError) -> bool:
        return ends_session(error, session, self._server.now())

    def _is_kept(self, session: Session) -> bool:
        kept = self._kept.session
        return kept is not None and kept.refresh_token == session.refresh_token

    def _left(self, session: Session) -> float:
        return seconds_left(session, self._server.now())

    def _report(self, error: AuthError, left: Session | None) -> None:
        # An outage that goes on is no news.
        level = logging.DEBUG if error.code == self._reported else logging.WARNING
        end = "is kept" if left is not None else "is over"
        log.log(level, "the session could not be refreshed and %s: %s %s", end, error.reason, error.hint)
        self._reported = error.code
        self._kept.listeners.tell(AuthEvent(AuthChange.REFRESH_FAILED, left, error))
