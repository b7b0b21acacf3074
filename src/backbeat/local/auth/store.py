"""Users, sessions and refresh tokens in schema `auth`. Every function runs on the caller's connection.

Locks are taken in one order, user before session before refresh token, which is also the order in which
deleting a user cascades: so sign-ins, refreshes, sign-outs and deletions of one user wait for each other and
never deadlock.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from psycopg.errors import UniqueViolation
from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb

from backbeat.local.auth import errors
from backbeat.local.auth.sessions import RefreshToken, Session, token_hash
from backbeat.local.auth.users import Identity, User, email_identity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from uuid import UUID

    from backbeat.local.auth.sessions import LogoutScope
    from backbeat.postgres.database import Connection
    from backbeat.protocol.reasons import Reason

__all__ = [
    "Credentials",
    "add_session",
    "add_user",
    "count_users",
    "delete_user",
    "end_session",
    "end_sessions",
    "find_credentials",
    "find_password",
    "find_user",
    "find_users",
    "forget_credentials",
    "list_users",
    "lock_session_of_token",
    "lock_user",
    "save_user",
    "session_exists",
    "set_password",
    "spend_token",
    "token_state",
]

_SQL: Final = files("backbeat.local.auth") / "sql"


def _statement(name: str) -> bytes:
    return (_SQL / f"{name}.sql").read_bytes()


FIND_USERS: Final = _statement("find_users")
FIND_IDENTITIES: Final = _statement("find_identities")
FIND_CREDENTIALS: Final = _statement("find_credentials")
INSERT_USER: Final = _statement("insert_user")
UPDATE_USER: Final = _statement("update_user")
UPSERT_EMAIL_IDENTITY: Final = _statement("upsert_email_identity")
LOCK_SESSION_OF_TOKEN: Final = _statement("lock_session_of_token")
END_SESSIONS: Final = _statement("end_sessions")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What is needed to check a password.

    Attributes:
        id: the user's id.
        encrypted_password: the bcrypt hash, or None for a user without a password.
    """

    id: UUID
    encrypted_password: str | None = field(repr=False)


async def find_users(connection: Connection, ids: Sequence[UUID]) -> list[User]:
    """Read users with their identities, in the order of the ids; unknown ids are left out."""
    identities: dict[UUID, list[Identity]] = {}
    async with connection.cursor(row_factory=dict_row) as cursor:
        for row in await (await cursor.execute(FIND_IDENTITIES, {"ids": list(ids)})).fetchall():
            identities.setdefault(row["user_id"], []).append(Identity(**_in_utc(row)))
        rows = await (await cursor.execute(FIND_USERS, {"ids": list(ids)})).fetchall()
    return [User(**_in_utc(row), identities=identities.get(row["id"], [])) for row in rows]


async def find_user(connection: Connection, user_id: UUID) -> User | None:
    """Read one user."""
    users = await find_users(connection, [user_id])
    return users[0] if users else None


async def lock_user(connection: Connection, user_id: UUID) -> User | None:
    """Read one user whom nobody else changes until the transaction ends."""
    await connection.execute("select from auth.users where id = %s for update", (user_id,))
    return await find_user(connection, user_id)


async def list_users(connection: Connection, *, limit: int, offset: int) -> list[User]:
    """Read a page of users, the newest first."""
    rows = await connection.execute(
        "select id from auth.users order by created_at desc, id limit %s offset %s", (limit, offset)
    )
    return await find_users(connection, [user_id async for (user_id,) in rows])


async def count_users(connection: Connection) -> int:
    """Count all users."""
    row = await (await connection.execute("select count(*) from auth.users")).fetchone()
    assert row is not None
    return int(row[0])


async def find_credentials(connection: Connection, email: str) -> Credentials | None:
    """Find what is needed to check the password of an address, given in lower case."""
    async with connection.cursor(row_factory=class_row(Credentials)) as cursor:
        return await (await cursor.execute(FIND_CREDENTIALS, {"email": email})).fetchone()


async def find_password(connection: Connection, user_id: UUID) -> str | None:
    """Read the password hash of a user."""
    query = "select encrypted_password from auth.users where id = %s"
    row = await (await connection.execute(query, (user_id,))).fetchone()
    return row[0] if row else None


async def add_user(
    connection: Connection, user: User, password_hash: str | None, *, email_taken: Reason
) -> None:
    """Store a new user, with an identity for the e-mail address.

    Args:
        connection: one with an open transaction.
        user: the user.
        password_hash: a bcrypt hash, or None.
        email_taken: how to refuse when another user has the address.

    Raises:
        BadRequest: the address, the phone number or the id is taken.
    """
    with _unique(email_taken):
        await connection.execute(INSERT_USER, _columns(user) | {"password_hash": password_hash})
    if user.email:
        await _identify(connection, user)


async def save_user(connection: Connection, before: User, after: User) -> None:
    """Store what changed about a user who was read with `lock_user`.

    Raises:
        BadRequest: the new address or phone number is taken.
    """
    with _unique(errors.EMAIL_EXISTS):
        await connection.execute(UPDATE_USER, _columns(after))
    if after.email and after.email != before.email:
        await _identify(connection, after)


async def set_password(connection: Connection, user_id: UUID, password_hash: str) -> None:
    """Store a new bcrypt hash."""
    await connection.execute(
        "update auth.users set encrypted_password = %s where id = %s", (password_hash, user_id)
    )


async def forget_credentials(connection: Connection, user_id: UUID) -> None:
    """Leave a user no way to sign in: no password and no identity."""
    await connection.execute("update auth.users set encrypted_password = null where id = %s", (user_id,))
    await connection.execute("delete from auth.identities where user_id = %s", (user_id,))


async def delete_user(connection: Connection, user_id: UUID) -> bool:
    """Delete a user with all that belongs to them; tell whether there was one."""
    cursor = await connection.execute("delete from auth.users where id = %s", (user_id,))
    return cursor.rowcount > 0


async def add_session(connection: Connection, session: Session, refresh_token: str) -> None:
    """Store a new session and its first refresh token."""
    await connection.execute(
        "insert into auth.sessions (id, user_id, method, created_at) values (%s, %s, %s, %s)",
        (session.id, session.user_id, session.method, session.created_at),
    )
    await _add_token(connection, session, refresh_token, session.created_at)


async def session_exists(connection: Connection, session_id: UUID, user_id: UUID) -> bool:
    """Tell whether a session of this user lives."""
    query = "select from auth.sessions where id = %s and user_id = %s"
    return await (await connection.execute(query, (session_id, user_id))).fetchone() is not None


async def end_session(connection: Connection, session: Session) -> None:
    """End one session; its refresh tokens go with it."""
    await connection.execute("delete from auth.sessions where id = %s", (session.id,))


async def end_sessions(
    connection: Connection, user_id: UUID, scope: LogoutScope, session_id: UUID | None
) -> None:
    """End sessions of a user.

    Args:
        connection: any.
        user_id: whose.
        scope: which, as seen from `session_id`.
        session_id: the session that asks; None when none does, and then `local` ends nothing.
    """
    await connection.execute(
        END_SESSIONS, {"user_id": user_id, "scope": scope.value, "session_id": session_id}
    )


async def lock_session_of_token(connection: Connection, token: str) -> RefreshToken | None:
    """Find a refresh token, and keep others from refreshing or ending its session in this transaction."""
    async with connection.cursor(row_factory=class_row(Session)) as cursor:
        await cursor.execute(LOCK_SESSION_OF_TOKEN, {"token_hash": token_hash(token)})
        session = await cursor.fetchone()
    # A statement of its own: what it sees is as of now, after any wait for the lock, not as of before it.
    return await token_state(connection, token, session) if session else None


async def token_state(connection: Connection, token: str, session: Session) -> RefreshToken | None:
    """Read the state of a refresh token of a session."""
    query = "select used_at from auth.refresh_tokens where token_hash = %s and session_id = %s"
    row = await (await connection.execute(query, (token_hash(token), session.id))).fetchone()
    return RefreshToken(session, row[0]) if row else None


async def spend_token(
    connection: Connection, session: Session, token: str, successor: str, now: datetime
) -> None:
    """Spend a refresh token and store the one that follows."""
    await connection.execute(
        "update auth.refresh_tokens set used_at = %s where token_hash = %s", (now, token_hash(token))
    )
    await _add_token(connection, session, successor, now)
    await connection.execute("update auth.sessions set refreshed_at = %s where id = %s", (now, session.id))


async def _add_token(connection: Connection, session: Session, token: str, now: datetime) -> None:
    await connection.execute(
        "insert into auth.refresh_tokens (token_hash, session_id, created_at) values (%s, %s, %s)",
        (token_hash(token), session.id, now),
    )


async def _identify(connection: Connection, user: User) -> None:
    await connection.execute(
        UPSERT_EMAIL_IDENTITY,
        {"user_id": user.id, "identity_data": Jsonb(email_identity(user)), "now": user.updated_at},
    )


def _columns(user: User) -> dict[str, Any]:
    """The parameters of `insert_user.sql` and `update_user.sql`."""
    return {
        **{name: getattr(user, name) for name in User.__struct_fields__},
        "email": user.email or None,
        "phone": user.phone or None,
        "new_email": user.new_email or "",
        "app_metadata": Jsonb(user.app_metadata),
        "user_metadata": Jsonb(user.user_metadata),
    }


def _in_utc(row: dict[str, Any]) -> dict[str, Any]:
    """Postgres answers in the time zone of the connection; clients are told UTC."""
    return {
        name: value.astimezone(UTC) if isinstance(value, datetime) else value for name, value in row.items()
    }


@contextmanager
def _unique(email_taken: Reason) -> Iterator[None]:
    """Say in the words of this service what is taken; the index decides, so two at once cannot both win."""
    try:
        yield
    except UniqueViolation as error:
        taken = {"users_email_index": email_taken, "users_phone_index": errors.PHONE_EXISTS}
        raise taken.get(error.diag.constraint_name or "", errors.ID_EXISTS).refusal() from error
