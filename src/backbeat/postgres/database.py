"""The pooled connections of the server, the caller's identity inside a transaction, and migrations."""

from __future__ import annotations

from contextlib import asynccontextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import psycopg
import structlog
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import ConnStatus
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests

from backbeat.errors import MigrationError, Retry, StartError
from backbeat.postgres.primary import primary
from backbeat.protocol import reasons

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from importlib.resources.abc import Traversable

    from backbeat.tokens.claims import Claims

__all__ = ["MIGRATIONS", "Connection", "Database", "become", "inspect", "migrate"]

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

MIGRATIONS = files("backbeat.postgres") / "sql" / "migrations"
"""What a realtime server needs in a database."""

MIN_VERSION = 140_000
"""PostgreSQL 14, as the server reports it."""

log = structlog.get_logger("backbeat.database")

LEDGER = """
create schema if not exists backbeat;
create table if not exists backbeat.migrations (
  name text primary key,
  applied_at timestamptz not null default now()
);
"""

# Roles belong to the cluster, an advisory lock belongs to its database. Who may not take this lock may see
# "tuple concurrently updated" when two databases of a cluster are migrated at the same moment.
LOCK_ROLES = """
do $$ begin
  if has_table_privilege('pg_catalog.pg_authid', 'update') then
    lock table pg_catalog.pg_authid in share row exclusive mode;
  end if;
end $$
"""

BECOME = """
select set_config('role', %(role)s, true),
       set_config('request.jwt.claims', %(claims)s, true),
       set_config('request.jwt.claim.sub', %(sub)s, true),
       set_config('request.jwt.claim.role', %(role)s, true)
"""


class Database:
    """A pool of connections that log in as one role, and act as others only inside a transaction.

    Opening does not wait for Postgres: a server that starts before its database, or outlives a restart of it,
    connects when it can.

    Args:
        url: where Postgres is and who logs in.
        size: the most connections to hold.
        wait: how long a caller waits for a free connection, in seconds.
        name: the `application_name` an administrator sees.
    """

    def __init__(self, url: str, *, size: int = 4, wait: float = 5.0, name: str = "backbeat") -> None:
        self._borrowed = 0
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            primary(url),
            min_size=1,
            max_size=size,
            max_waiting=1000,
            timeout=wait,
            open=False,
            # Not longer, for the pauses between attempts double: the next caller starts anew, and at once.
            reconnect_timeout=5.0,
            kwargs={"autocommit": True, "application_name": name, "connect_timeout": 5},
        )

    async def open(self) -> None:
        """Start connecting in the background."""
        await self._pool.open(wait=False)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Borrow a connection, in autocommit mode.

        Raises:
            Unavailable: Postgres cannot be reached, or every connection stayed busy.
        """
        connection = await self._living()
        self._borrowed += 1
        try:
            yield connection
        finally:
            self._borrowed -= 1
            await self._pool.putconn(connection)

    async def _living(self) -> Connection:
        """Take a connection that was not lost while it lay idle, as all are when Postgres restarts."""
        while True:
            try:
                connection = await self._pool.getconn()
            except TooManyRequests as error:
                raise reasons.POOL_EXHAUSTED.refusal() from error
            except (PoolTimeout, psycopg.OperationalError) as error:
                # When nobody holds a connection, waiting for one means that none can be made.
                reason = reasons.POOL_EXHAUSTED if self._borrowed else reasons.DATABASE_UNREACHABLE
                raise reason.refusal() from error
            if _is_alive(connection):
                return connection
            await connection.close()
            await self._pool.putconn(connection)

    @asynccontextmanager
    async def acting_as(self, claims: Claims, **settings: str) -> AsyncIterator[Connection]:
        """Borrow a connection inside a transaction that runs with the caller's role and claims.

        Args:
            claims: the verified claims of the caller.
            settings: further transaction-local settings; `request_path` becomes `request.path`.
        """
        async with self.connection() as connection, connection.transaction():
            await become(connection, claims, **settings)
            yield connection


def _is_alive(connection: Connection) -> bool:
    """Tell whether an idle connection still stands, without asking Postgres."""
    try:
        # The first look reads why Postgres ended the connection, the second that it did.
        for _ in range(2):
            connection.pgconn.consume_input()
    except psycopg.OperationalError:
        return False
    return connection.pgconn.status == ConnStatus.OK


async def become(connection: Connection, claims: Claims, **settings: str) -> None:
    """Act as the caller until the transaction ends: role, claims, and further settings.

    Args:
        connection: one with an open transaction; outside of one, nothing would stick.
        claims: the verified claims of the caller.
        settings: further settings; `request_path` becomes `request.path`.
    """
    await connection.execute(BECOME, {"role": claims.role, "claims": claims.json, "sub": claims.sub})
    for name, value in settings.items():
        await connection.execute("select set_config(%s, %s, true)", (name.replace("_", ".", 1), value))


def inspect(url: str, *, flag: str) -> None:
    """Make sure that a database can serve realtime at all, before anything is built on it.

    Args:
        url: where it is.
        flag: the command line flag that named it, for the message.

    Raises:
        StartError: it cannot be reached, is too old, or keeps no logical write-ahead log.
    """
    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # Its text quotes the address, and a password may be in it.
        raise StartError(
            "The database address makes no sense.",
            hint=f"{flag} is like postgresql://user:password@host:5432/database.",
        ) from None
    try:
        with psycopg.connect(url, connect_timeout=10) as connection:
            version = connection.info.server_version
            row = connection.execute("select current_setting('wal_level')").fetchone()
    except psycopg.OperationalError as error:
        raise StartError(
            f"Cannot connect to the database: {str(error).strip()}",
            hint=f"Check that Postgres runs there, and the address, login and password in {flag}.",
            retry=Retry.BACKOFF,
        ) from error
    if version < MIN_VERSION:
        raise StartError(
            f"The database is PostgreSQL {version // 10000}; {MIN_VERSION // 10000} or newer is needed.",
            hint="Upgrade it, or leave the flag away to use the embedded one.",
        )
    if row is not None and row[0] != "logical":
        raise StartError(
            f"The database has wal_level = {row[0]}; row changes need wal_level = logical.",
            hint="Run as a superuser: alter system set wal_level = logical; then restart Postgres.",
        )


async def migrate(
    url: str, *, login: str, password: str | None = None, folders: Sequence[Traversable] = (MIGRATIONS,)
) -> list[str]:
    """Bring the schema up to date and prepare the role the server logs in as.

    Everything happens in one transaction under one lock: it is applied whole or not at all, and servers that
    start together wait for each other. Files already applied are skipped. User tables are never touched.

    Args:
        url: a login that may create roles and schemas, normally a superuser.
        login: the role the server will log in as: no superuser, no inheritance, with REPLICATION.
        password: its password; None leaves the one it has.
        folders: where the numbered `.sql` files are, in order.

    Returns:
        The names of the files applied now.

    Raises:
        MigrationError: Postgres refused; the message names the file.
    """
    applied: list[str] = []
    name = "connecting"
    try:
        async with await psycopg.AsyncConnection.connect(url, connect_timeout=10) as connection:
            await connection.execute("select pg_advisory_xact_lock(hashtextextended('backbeat.migrate', 0))")
            await connection.execute("set local client_min_messages = warning")
            await connection.execute(LOCK_ROLES)
            await connection.execute(LEDGER.encode())
            known = {
                row[0]
                for row in await (await connection.execute("select name from backbeat.migrations")).fetchall()
            }
            for folder in folders:
                package = folder.name if folder is not MIGRATIONS else "server"
                for file in sorted(
                    (f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name
                ):
                    name = f"{package}/{file.name}"
                    if name in known:
                        continue
                    await connection.execute(file.read_bytes())
                    await connection.execute("insert into backbeat.migrations (name) values (%s)", (name,))
                    applied.append(name)
            name = f"role {login}"
            await _prepare_login(connection, login, password)
            await connection.execute("select realtime.maintain_messages()")
    except psycopg.Error as error:
        raise MigrationError(
            f"Could not prepare the database ({name}): {str(error).strip()}",
            hint="Use a login that may create roles, schemas and publications, normally a superuser.",
        ) from error
    if applied:
        log.info("migrated", applied=applied)
    return applied


async def _prepare_login(connection: Connection, login: str, password: str | None) -> None:
    """Create or adjust the role the server logs in as."""
    row = await (await connection.execute("select 1 from pg_roles where rolname = %s", (login,))).fetchone()
    if row is None:
        await connection.execute(
            sql.SQL("create role {} login noinherit replication").format(sql.Identifier(login))
        )
    if password is not None:
        await connection.execute(
            sql.SQL("alter role {} login noinherit replication password {}").format(
                sql.Identifier(login), sql.Literal(password)
            )
        )
    await connection.execute(
        sql.SQL("grant anon, authenticated, service_role, supabase_realtime_admin to {}").format(
            sql.Identifier(login)
        )
    )
    await connection.execute(sql.SQL("grant usage on schema realtime to {}").format(sql.Identifier(login)))
    # The functions that ask who sees a row are made for each connection, in its temporary schema.
    await connection.execute(
        sql.SQL("grant temporary on database {} to {}").format(
            sql.Identifier(connection.info.dbname), sql.Identifier(login)
        )
    )
