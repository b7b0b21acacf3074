"""What the auth stand-in does: each method is one request, decided by pure functions, in one transaction."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import psycopg
import structlog
from msgspec.structs import replace

from backbeat.errors import Unavailable
from backbeat.local.auth import errors, store
from backbeat.local.auth.passwords import Passwords, check_new_password
from backbeat.local.auth.sessions import (
    LogoutScope,
    Session,
    SessionAnswer,
    Spending,
    Subject,
    first_refresh_token,
    next_refresh_token,
    session_answer,
    spend,
)
from backbeat.local.auth.users import (
    User,
    anonymous_user,
    changed_by_admin,
    changed_by_owner,
    check_may_sign_in,
    check_metadata,
    check_not_banned,
    created_by_admin,
    email_address,
    signed_up,
    soft_deleted,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from backbeat.local.auth.requests import AdminUser, OwnChange, PasswordGrant, SignUp
    from backbeat.postgres.database import Connection, Database

__all__ = ["Service"]

log = structlog.get_logger("backbeat.auth")


class Service:
    """Users, sessions and tokens of a local project (HTTP surface specification, sections 4.3 to 4.8).

    Every method raises `Refusal`: the caller's mistakes with a status below 500, and `Unavailable` when the
    database does not answer.

    Args:
        database: a pool that logs in with rights on schema `auth`, normally the project's owner.
        passwords: where bcrypt runs.
        jwt_secret: what access tokens are signed with.
        issuer: the claim `iss`: the URL of this service.
        token_lifetime: how long an access token is good, in seconds.
        autoconfirm: whether an address counts as confirmed when it is given.
        anonymous: whether anonymous sign-ins are allowed.
    """

    def __init__(
        self,
        *,
        database: Database,
        passwords: Passwords,
        jwt_secret: str,
        issuer: str,
        token_lifetime: int,
        autoconfirm: bool,
        anonymous: bool,
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._jwt_secret = jwt_secret
        self._issuer = issuer
        self._token_lifetime = token_lifetime
        self._autoconfirm = autoconfirm
        self._anonymous = anonymous

    # Sessions -----------------------------------------------------------------------------------------------

    async def sign_up(self, body: SignUp) -> SessionAnswer | User:
        """Create a user and sign them in; without autoconfirm, only create them.

        Unlike the original, which then hides who is registered, a taken address is always named as such.
        """
        if body.email is None and body.phone is None and body.password is None:
            return await self._sign_up_anonymously(body)
        if body.phone and not body.email:
            raise errors.PHONE_DISABLED.refusal()
        if not body.password:
            raise errors.PASSWORD_MISSING.refusal()
        check_new_password(body.password)
        email = email_address(body.email or "")
        password_hash = await self._passwords.hash(body.password)
        async with self._transaction() as connection:
            now = datetime.now(UTC)
            user = signed_up(uuid4(), email, body.data, confirmed=self._autoconfirm, now=now)
            check_metadata(user)
            await store.add_user(connection, user, password_hash, email_taken=errors.USER_ALREADY_EXISTS)
            if self._autoconfirm:
                return await self._open_session(connection, user, "password", now)
            return await self._reread(connection, user)

    async def _sign_up_anonymously(self, body: SignUp) -> SessionAnswer:
        if not self._anonymous:
            raise errors.ANONYMOUS_DISABLED.refusal()
        async with self._transaction() as connection:
            now = datetime.now(UTC)
            user = anonymous_user(uuid4(), body.data, now=now)
            check_metadata(user)
            await store.add_user(connection, user, None, email_taken=errors.USER_ALREADY_EXISTS)
            return await self._open_session(connection, user, "anonymous", now)

    async def sign_in(self, body: PasswordGrant) -> SessionAnswer:
        """Open a new session for whoever knows the password."""
        if body.phone and not body.email:
            raise errors.PHONE_DISABLED.refusal()
        if not body.email:
            raise errors.ADDRESS_MISSING.refusal()
        async with self._transaction() as connection:
            known = await store.find_credentials(connection, body.email.strip().lower())
        # No connection is held while bcrypt works, and an unknown user costs as much as a wrong password.
        password = body.password or ""
        stored = known.encrypted_password if known else None
        matched = await self._passwords.matches(password, stored, owner=known and known.id)
        if known is None or not matched:
            raise errors.INVALID_CREDENTIALS.refusal()
        async with self._transaction() as connection:
            user = await store.lock_user(connection, known.id)
            # Meanwhile the user may be gone, or have changed the password because somebody else knew it.
            if user is None or await store.find_password(connection, user.id) != stored:
                raise errors.INVALID_CREDENTIALS.refusal()
            now = datetime.now(UTC)
            check_may_sign_in(user, now=now)
            check_metadata(user)
            return await self._open_session(connection, user, "password", now)

    async def refresh(self, refresh_token: str | None) -> SessionAnswer:
        """Spend a refresh token for new tokens of the same session (section 4.5)."""
        if not refresh_token:
            raise errors.REFRESH_TOKEN_MISSING.refusal()
        async with self._transaction() as connection:
            presented = await store.lock_session_of_token(connection, refresh_token)
            if presented is None:
                raise errors.REFRESH_TOKEN_UNKNOWN.refusal()
            session, now = presented.session, datetime.now(UTC)
            spending = spend(presented.used_at, now)
            if spending is not Spending.REPLAYED:
                user = await store.find_user(connection, session.user_id)
                assert user is not None, "a session refers to its user"
                check_not_banned(user, now=now)
                check_metadata(user)
                current = next_refresh_token(refresh_token, self._jwt_secret)
                if spending is Spending.FRESH:
                    await store.spend_token(connection, session, refresh_token, current, now)
                else:
                    current = await self._current_token(connection, session, current)
                return self._answer(user, session, current, now)
            await store.end_session(connection, session)
        # Raised only now, for the end of the session has to be committed.
        log.warning(
            "refresh token replayed, session ended", user=str(session.user_id), session=str(session.id)
        )
        raise errors.REFRESH_TOKEN_SPENT.refusal()

    async def _current_token(self, connection: Connection, session: Session, token: str) -> str:
        """Follow the chain of a session to the refresh token that is not spent yet."""
        while (state := await store.token_state(connection, token, session)) and state.used_at:
            token = next_refresh_token(token, self._jwt_secret)
        if state is None:
            # Only when the project's secret has changed within the last seconds.
            raise errors.REFRESH_TOKEN_SPENT.refusal()
        return token

    async def sign_out(self, subject: Subject, scope: LogoutScope) -> None:
        """End sessions, with their refresh tokens; access tokens of them are refused from now on."""
        async with self._transaction() as connection:
            user = await self._user_of(connection, subject, lock=True)
            await store.end_sessions(connection, user.id, scope, subject.session_id)

    # The user themselves ------------------------------------------------------------------------------------

    async def user_of(self, subject: Subject) -> User:
        """Find whom an access token speaks for."""
        async with self._transaction() as connection:
            return await self._user_of(connection, subject)

    async def change_own(self, subject: Subject, body: OwnChange) -> User:
        """Change metadata, password or address; a new password ends the user's other sessions."""
        new_hash = None
        if body.password is not None:
            check_new_password(body.password)
            async with self._transaction() as connection:
                user = await self._user_of(connection, subject)
                stored = await store.find_password(connection, user.id)
            if await self._passwords.matches(body.password, stored, owner=user.id):
                raise errors.SAME_PASSWORD.refusal()
            new_hash = await self._passwords.hash(body.password)
        async with self._transaction() as connection:
            before = await self._user_of(connection, subject, lock=True)
            after = changed_by_owner(before, body, autoconfirm=self._autoconfirm, now=datetime.now(UTC))
            check_metadata(after)
            await store.save_user(connection, before, after)
            if new_hash:
                await store.set_password(connection, after.id, new_hash)
                await store.end_sessions(connection, after.id, LogoutScope.OTHERS, subject.session_id)
            return await self._reread(connection, after)

    # Administration -----------------------------------------------------------------------------------------

    async def create(self, body: AdminUser) -> User:
        """Create a user without a session."""
        user = created_by_admin(body.id or uuid4(), body, now=datetime.now(UTC))
        check_metadata(user)
        password_hash = await self._new_hash(body.password)
        async with self._transaction() as connection:
            await store.add_user(connection, user, password_hash, email_taken=errors.EMAIL_EXISTS)
            return await self._reread(connection, user)

    async def page(self, *, limit: int, offset: int) -> tuple[list[User], int]:
        """Read a page of users and count them all."""
        async with self._transaction() as connection:
            return (
                await store.list_users(connection, limit=limit, offset=offset),
                await store.count_users(connection),
            )

    async def find(self, user_id: UUID) -> User:
        """Find a user by id."""
        async with self._transaction() as connection:
            user = await store.find_user(connection, user_id)
        if user is None:
            raise errors.USER_NOT_FOUND.refusal()
        return user

    async def change(self, user_id: UUID, body: AdminUser) -> User:
        """Change a user; a new password ends all of the user's sessions."""
        new_hash = await self._new_hash(body.password)
        async with self._transaction() as connection:
            before = await store.lock_user(connection, user_id)
            if before is None:
                raise errors.USER_NOT_FOUND.refusal()
            after = changed_by_admin(before, body, now=datetime.now(UTC))
            check_metadata(after)
            await store.save_user(connection, before, after)
            if new_hash:
                await store.set_password(connection, user_id, new_hash)
                await store.end_sessions(connection, user_id, LogoutScope.GLOBAL, None)
            return await self._reread(connection, after)

    async def delete(self, user_id: UUID, *, soft: bool) -> None:
        """Delete a user, or keep an empty shell of one for those who reference it."""
        async with self._transaction() as connection:
            user = await store.lock_user(connection, user_id)
            if user is None:
                raise errors.USER_NOT_FOUND.refusal()
            if not soft:
                await store.delete_user(connection, user_id)
                return
            await store.save_user(connection, user, soft_deleted(user, now=datetime.now(UTC)))
            await store.forget_credentials(connection, user_id)
            await store.end_sessions(connection, user_id, LogoutScope.GLOBAL, None)

    # Pieces -------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        try:
            async with self._database.connection() as connection, connection.transaction():
                yield connection
        except (Unavailable, psycopg.OperationalError) as error:
            log.warning("database unavailable", error=str(error))
            raise errors.DATABASE_UNAVAILABLE.refusal() from error

    async def _user_of(self, connection: Connection, subject: Subject, *, lock: bool = False) -> User:
        read = store.lock_user if lock else store.find_user
        user = await read(connection, subject.user_id)
        if user is None or user.deleted_at is not None:
            raise errors.USER_GONE.refusal()
        if subject.session_id and not await store.session_exists(connection, subject.session_id, user.id):
            raise errors.SESSION_GONE.refusal()
        return user

    async def _open_session(
        self, connection: Connection, user: User, method: str, now: datetime
    ) -> SessionAnswer:
        await store.save_user(connection, user, replace(user, last_sign_in_at=now, updated_at=now))
        session, refresh_token = Session(uuid4(), user.id, method, now), first_refresh_token()
        await store.add_session(connection, session, refresh_token)
        return self._answer(await self._reread(connection, user), session, refresh_token, now)

    def _answer(self, user: User, session: Session, refresh_token: str, now: datetime) -> SessionAnswer:
        return session_answer(
            user,
            session,
            refresh_token,
            secret=self._jwt_secret,
            issuer=self._issuer,
            lifetime=self._token_lifetime,
            now=now,
        )

    async def _new_hash(self, password: str | None) -> str | None:
        if password is None:
            return None
        check_new_password(password)
        return await self._passwords.hash(password)

    async def _reread(self, connection: Connection, user: User) -> User:
        """Read what was just written, with the columns and identities that the database fills in."""
        stored = await store.find_user(connection, user.id)
        assert stored is not None, "the transaction holds the row"
        return stored
