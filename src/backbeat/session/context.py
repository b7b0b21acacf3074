"""Who is signed in: the one object a program needs for that."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from backbeat.errors import AuthError, NotSignedIn
from backbeat.session.clock import Clock, ServerClock, SystemClock
from backbeat.session.gotrue import HINTS, SignOutScope
from backbeat.session.http import AuthService
from backbeat.session.listeners import AuthEvent
from backbeat.session.manager import Handler, SessionManager
from backbeat.session.names import NamesItsMethods
from backbeat.session.policy import RefreshResult
from backbeat.session.session import AuthChange, OfflineSession, Session
from backbeat.session.stores.store import SessionStore

if TYPE_CHECKING:
    import httpx

__all__ = ["AuthContext"]

log = logging.getLogger("backbeat.session")


class AuthContext(NamesItsMethods):
    """Signs users in, keeps their session, and hands out their access token.

    ::

        async with AuthContext(url, apikey, store=FileStore("~/.band/session.json")) as auth:
            if auth.session is None:
                await auth.sign_in_with_password(email, password)

    It is a token provider: a realtime client calls `token`, and follows `events`.

    Args:
        url: the project's URL, as in `http://127.0.0.1:54321`.
        apikey: the project's publishable or anon key.
        store: where the session is kept; in memory if nothing is said.
        timeout: seconds that an answer of the auth service may take.
        transport: another way to send requests than over the network.
        clock: the clocks of this machine.

    Attributes:
        sessions: keeps the session, and can do more with it.

    Raises:
        ConfigurationError: the URL or the key cannot be one.
    """

    _for_sessions = (
        "`session` is the present one; `sessions` has load_session, load_offline_session,"
        " get_available_session and save_session."
    )

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
        clock = clock or SystemClock()
        server = ServerClock(clock)
        self._service = AuthService(url, apikey, server=server, timeout=timeout, transport=transport)
        self.sessions = SessionManager(store, refresher=self._service.refresh, clock=clock, server=server)

    def __repr__(self) -> str:
        return f"<AuthContext {self.session!r} at {self._service.url}>"

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Restore the session that is stored, then keep it fresh until `close`.

        Raises:
            StoreError: the store cannot be used.
        """
        await self.sessions.open()
        stored = await self.sessions.load_offline_session()
        if stored is not None and stored.usable:
            log.info("🔐 Realtime auth restored from session")
        elif stored is not None:
            log.warning("the stored session has ended and is not refreshed yet: realtime waits for it")

    async def close(self) -> None:
        """End: nothing is written any more, no task and no connection is left. Idempotent."""
        await self.sessions.close()
        await self._service.close()

    # Who ----------------------------------------------------------------------------------------------------

    @property
    def session(self) -> Session | None:
        """Who is signed in, as far as is known at this moment; the access token may have ended."""
        return self.sessions.session

    async def get_available_session(self) -> Session | OfflineSession | None:
        """Get the best there is: a session that is good, refreshed if need be; else who it was; else None.

        Raises:
            StoreError: the store cannot be used.
        """
        return await self.sessions.get_available_session()

    async def token(self) -> str | None:
        """Get an access token that is good for a minute at least; None when nobody is signed in.

        Raises:
            AuthUnavailable: the access token has ended, and nobody could be asked for another.
            StoreError: the store cannot be used.
        """
        return await self.sessions.token()

    async def refresh(self, *, force: bool = False) -> RefreshResult:
        """Get new tokens if the session needs them; all who ask at once share one request.

        Args:
            force: whether to ask in any case: the server refused the token, or the network is back.
        """
        return await self.sessions.refresh(force=force)

    def events(self) -> AsyncGenerator[AuthEvent, None]:
        """Follow what happens: first INITIAL_SESSION with what there is, then each event, until `close`."""
        return self.sessions.events()

    def on_change(self, handler: Handler) -> Callable[[], None]:
        """Call a function with each event, INITIAL_SESSION first; returns a function that ends this."""
        return self.sessions.on_change(handler)

    # Signing in and out -------------------------------------------------------------------------------------

    async def sign_in_with_password(self, email: str, password: str) -> Session:
        """Sign a user in.

        Raises:
            AuthRefused: the password is wrong, or the user may not sign in; `code` says which.
            AuthUnavailable: there was no answer.
            StoreError: the session cannot be kept.
        """
        return await self._signed_in(await self._service.sign_in_with_password(email, password))

    async def sign_up(
        self, email: str, password: str, *, data: Mapping[str, Any] | None = None
    ) -> Session | None:
        """Create a user, and sign them in.

        Args:
            email: the user's address.
            password: the password from now on.
            data: what to know of them, as `user_metadata`.

        Returns:
            The session; None when the address has to be confirmed first.

        Raises:
            AuthRefused: the address is taken, or the password too weak; `code` says which.
            AuthUnavailable: there was no answer.
            StoreError: the session cannot be kept.
        """
        session = await self._service.sign_up(email, password, data or {})
        return None if session is None else await self._signed_in(session)

    async def sign_in_anonymously(self, *, data: Mapping[str, Any] | None = None) -> Session:
        """Sign in as a new user without an address, who is gone with the session.

        Raises:
            AuthRefused: the project does not allow it.
            AuthUnavailable: there was no answer.
            StoreError: the session cannot be kept.
        """
        return await self._signed_in(await self._service.sign_in_anonymously(data or {}))

    async def update_user(
        self,
        *,
        email: str | None = None,
        password: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> Mapping[str, Any]:
        """Change the user who is signed in.

        Args:
            email: another address.
            password: another password; the user's other sessions end.
            data: merged into `user_metadata`, key by key.

        Returns:
            The user.

        Raises:
            NotSignedIn: nobody is.
            AuthRefused: the change is not allowed; `code` says why.
            AuthUnavailable: there was no answer.
        """
        changes = {"email": email, "password": password, "data": data}
        changes = {name: value for name, value in changes.items() if value is not None}
        token = await self.token()
        if token is None:
            raise NotSignedIn("A user can only be changed by themselves.", hint=HINTS["not_signed_in"])
        user = await self._service.update_user(changes, token=token)
        await self.sessions.save_user(user)
        return user

    async def sign_out(self, scope: SignOutScope | Literal["global", "local", "others"] = "global") -> None:
        """Sign the user out. Nothing happens when nobody is signed in.

        Args:
            scope: `global` ends every session of the user, on every device, and keeps the one here if the
                service cannot be told; `local` ends this one, even if the service cannot be told; `others`
                ends all but this one.

        Raises:
            AuthRefused: the service did not do it (not with `local`).
            AuthUnavailable: the service cannot be reached (not with `local`).
            StoreError: the session cannot be removed.
        """
        scope = SignOutScope(scope)
        if scope is SignOutScope.LOCAL:
            await self._sign_out_here()
            return
        token = await self.token()
        if token is None:
            return
        await self._service.sign_out(scope, token=token)
        if scope is SignOutScope.GLOBAL:
            await self.sessions.clear()

    async def _sign_out_here(self) -> None:
        session = await self.sessions.load_session()
        await self.sessions.clear()
        if session is None:
            return
        try:
            await self._service.sign_out(SignOutScope.LOCAL, token=session.access_token)
        except AuthError as error:
            # Here it has ended; there it ends when its refresh token is not used any more.
            log.warning("the session was not ended on the server: %s", error.reason)

    async def _signed_in(self, session: Session) -> Session:
        session = await self.sessions.save_session(session, event=AuthChange.SIGNED_IN)
        log.info("🔐 Realtime auth configured with user JWT")
        return session
