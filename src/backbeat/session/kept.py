"""The session that is kept, as this process knows it: one place that reads, writes and tells."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

from backbeat.errors import AuthError, NotSignedIn, StoreError
from backbeat.session.clock import Clock
from backbeat.session.gotrue import HINTS
from backbeat.session.listeners import AuthEvent, Listeners
from backbeat.session.policy import Cooldown
from backbeat.session.session import AuthChange, Session, change_between
from backbeat.session.stores.store import SessionStore

__all__ = ["KeptSession"]

log = logging.getLogger("backbeat.session")

SETTLING: Final = 0.1
"""Seconds after which something that cannot be read is read again."""

SETTLING_READS: Final = 10


class KeptSession:
    """Holds what a store holds.

    The store is read and written by one task at a time, which then changes what is known here and queues the
    event, without waiting for anybody. So events come after the writes, in their order, and a listener may
    call whatever it likes.

    Args:
        store: where the session is kept.
        clock: the clocks of this machine.

    Attributes:
        session: what is kept, or None.
        is_known: whether the store was ever read.
        changed: set whenever something else is kept; whoever waits for it clears it.
        cooldown: whether the refresh token that is kept failed a moment ago.
        listeners: those who are told.
    """

    def __init__(self, store: SessionStore, clock: Clock) -> None:
        self.session: Session | None = None
        self.is_known = False
        self.changed = asyncio.Event()
        self.cooldown = Cooldown()
        self.listeners = Listeners()
        self._store = store
        self._clock = clock
        self._content: bytes | None = None
        self._turns = asyncio.Lock()
        self._closed = False

    async def look(self) -> Session | None:
        """Read the store, and find out what others did to it.

        Raises:
            StoreError: it cannot be read. What is in it is no reason to raise: it is set aside.
        """
        async with self._turn():
            await self._read()
        return self.session

    async def save(self, session: Session, event: AuthChange | None) -> None:
        """Keep a session, whatever is kept.

        Args:
            session: the session.
            event: what happened; None to find it by comparison.

        Raises:
            StoreError: it cannot be written.
        """
        async with self._turn():
            await self._read()
            content = session.write()
            await self._store.set(content)
            self._adopt(content, session, event)

    async def save_user(self, user: Mapping[str, Any]) -> None:
        """Keep what is known of the user from now on, beside whatever tokens there are.

        Raises:
            NotSignedIn: no session of this user is kept any more.
            StoreError: it cannot be written.
        """
        async with self._turn():
            while True:
                await self._read()
                if self.session is None or self.session.user_id != user.get("id"):
                    raise NotSignedIn("The session was ended or replaced.", hint=HINTS["not_signed_in"])
                if await self._swap(replace(self.session, user=user), AuthChange.USER_UPDATED):
                    return

    async def exchange(
        self, before: Session, after: Session | None, *, error: AuthError | None = None
    ) -> bool:
        """Keep another session, or none, in place of the one whose refresh token was spent.

        Args:
            before: the session that was to be refreshed.
            after: what came of it.
            error: why nothing did.

        Returns:
            Whether `before` was still kept. A change of the user alone does not count: it is carried over, as
            is a user of whom `after` says nothing.

        Raises:
            StoreError: it cannot be written.
        """
        async with self._turn():
            while True:
                await self._read()
                if self.session is None or self.session.refresh_token != before.refresh_token:
                    return False
                if after is not None and (self.session.user != before.user or not after.user):
                    after = replace(after, user=self.session.user)
                if await self._swap(after, error=error):
                    return True

    async def clear(self) -> None:
        """Keep nothing any more.

        Raises:
            StoreError: it cannot be written.
        """
        async with self._turn():
            await self._read()
            await self._store.delete()
            self._adopt(None, None)

    async def close(self) -> None:
        """Write nothing any more, and wait for what is being written."""
        self._closed = True
        async with self._turns:
            self.listeners.close()

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        async with self._turns:
            if self._closed:
                raise RuntimeError("The session manager is closed.")
            yield

    # In turn ------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        suspect: bytes | None = None
        reads = 0
        while True:
            content = await self._store.get()
            if self.is_known and content == self._content:
                return
            try:
                session = None if content is None else Session.read(content)
            except ValueError as error:
                assert content is not None
                # Not everybody writes as we do. A file that is being written looks like one that was cut
                # short, and its writer would go on writing to what was set aside.
                reads += 1
                if content != suspect and reads < SETTLING_READS:
                    suspect = content
                    await self._clock.sleep(SETTLING)
                else:
                    await self._set_aside(content, str(error))
                continue
            self._adopt(content, session)
            return

    async def _set_aside(self, content: bytes, why: str) -> None:
        where = await self._store.set_aside(content)
        if where is None:
            return
        error = StoreError(
            f"What was stored is not a session: {why}.",
            code="session_unreadable",
            hint=f"It was set aside: {where}",
        )
        log.error("%s %s", error.message, error.hint)
        if self.session is not None:
            # That a file is broken is no reason to sign anybody out.
            await self._store.compare_and_set(None, self._content)
        self.listeners.tell(AuthEvent(AuthChange.SET_ASIDE, self.session, error))

    async def _swap(
        self, session: Session | None, event: AuthChange | None = None, *, error: AuthError | None = None
    ) -> bool:
        content = None if session is None else session.write()
        if not await self._store.compare_and_set(self._content, content):
            return False
        self._adopt(content, session, event, error=error)
        return True

    def _adopt(
        self,
        content: bytes | None,
        session: Session | None,
        event: AuthChange | None = None,
        *,
        error: AuthError | None = None,
    ) -> None:
        """Know this from now on, and tell everybody what happened; nobody else has a turn meanwhile."""
        before, self.session, self._content = self.session, session, content
        # What was there when the program began did not happen: listeners are told that in the beginning.
        kind = event or (change_between(before, session) if self.is_known else None)
        self.is_known = True
        self.changed.set()
        if before is None or session is None or before.refresh_token != session.refresh_token:
            self.cooldown.clear()
        if kind is not None:
            log.info("%s: %r", kind, session or before)
            self.listeners.tell(AuthEvent(kind, session, error))
