"""The pool: who a transaction acts as, and what becomes of connections that are lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import psycopg
import pytest

from backbeat.errors import StartError, Unavailable
from backbeat.postgres.database import Database, inspect
from backbeat.tokens.claims import Claims

CLAIMS = Claims.of(
    {"role": "authenticated", "sub": "00000000-0000-0000-0000-00000000000a", "exp": 1, "org": 7}
)
NOWHERE = "postgresql://nobody:x@127.0.0.1:1/none"


@pytest.fixture
async def database(login_url: str) -> AsyncIterator[Database]:
    """A pool of two connections."""
    pool = Database(login_url, size=2, wait=5)
    await pool.open()
    yield pool
    await pool.aclose()


async def test_a_transaction_acts_as_its_caller(database: Database) -> None:
    """Role, claims and further settings are those of the caller."""
    async with database.acting_as(CLAIMS, request_path="/songs") as connection:
        cursor = await connection.execute(
            "select current_user, auth.uid()::text, auth.role(), auth.jwt(), current_setting('request.path')"
        )
        row = await cursor.fetchone()
    assert row is not None
    assert row == ("authenticated", CLAIMS.sub, "authenticated", json.loads(CLAIMS.json), "/songs")


async def test_nothing_of_a_caller_stays_behind(login_url: str) -> None:
    """The next one on the same connection is the login again, with no claims."""
    database = Database(login_url, size=1)
    await database.open()
    async with database.acting_as(CLAIMS) as connection:
        pid = connection.info.backend_pid
    async with database.connection() as connection:
        assert connection.info.backend_pid == pid
        cursor = await connection.execute(
            "select current_user = session_user, current_setting('request.jwt.claims', true)"
        )
        assert await cursor.fetchone() == (True, "")
    await database.aclose()


async def test_lost_connections_cost_nobody_anything(database: Database, database_url: str) -> None:
    """After every connection was cut, the next callers get new ones at once."""
    async with database.connection(), database.connection():
        pass
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = 'backbeat'"
        )
    async with asyncio.timeout(4), database.connection() as connection:
        assert await (await connection.execute("select 1")).fetchone() == (1,)


async def test_waiting_for_a_connection_has_an_end(login_url: str) -> None:
    """When every connection stays busy, the caller hears that the pool is too small."""
    database = Database(login_url, size=1, wait=1)
    await database.open()
    try:
        async with database.connection():
            with pytest.raises(Unavailable) as caught:
                async with database.connection():
                    pass
    finally:
        await database.aclose()
    assert caught.value.code == "IncreaseConnectionPool"


async def test_a_database_that_is_away_is_said() -> None:
    """Nothing listens there: the caller hears that the database cannot be reached."""
    database = Database(NOWHERE, wait=0.2)
    await database.open()
    try:
        with pytest.raises(Unavailable) as caught:
            async with database.connection():
                pass
    finally:
        await database.aclose()
    assert caught.value.code == "UnableToConnectToProject"


def test_a_fit_database_passes_inspection(database_url: str) -> None:
    """The embedded one keeps a logical write-ahead log."""
    inspect(database_url, flag="--database-url")


@pytest.mark.parametrize(
    ("url", "text"), [(NOWHERE, "Cannot connect"), ("host=localhost port", "makes no sense")]
)
def test_an_unfit_address_is_named(url: str, text: str) -> None:
    """One message, and what to check."""
    with pytest.raises(StartError, match=text) as caught:
        inspect(url, flag="--database-url")
    assert "--database-url" in caught.value.hint
