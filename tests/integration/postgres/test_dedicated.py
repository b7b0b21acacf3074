"""A connection of one's own, with real faults."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from psycopg import sql
from tests.faults import FaultyLine

from backbeat.postgres.dedicated import Dedicated


async def test_a_database_that_is_read_only_by_default_can_be_asked(
    database_url: str, login_url: str
) -> None:
    """What is asked with lives in a temporary schema: that takes no space of the data."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as owner:
        name = sql.Identifier(owner.info.dbname)
        await owner.execute(sql.SQL("alter database {} set default_transaction_read_only = on").format(name))
    dedicated = Dedicated(login_url, name="test")
    async with dedicated.hold() as connection:
        await connection.execute("create function pg_temp.one() returns int language sql as 'select 1'")
    await dedicated.aclose()


async def test_a_question_nobody_answers_ends(login_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line went dead in the middle of it; the next question finds a new line."""
    monkeypatch.setattr("backbeat.postgres.dedicated.PATIENCE", 0.3)
    line = FaultyLine(login_url)
    async with line.laid() as url:
        dedicated = Dedicated(url, name="test")
        async with dedicated.hold() as connection:
            line.stall()
            async with asyncio.timeout(10):
                with pytest.raises(psycopg.OperationalError):
                    await connection.execute("select 1")
        line.restore()
        async with dedicated.hold() as connection:
            await connection.execute("select 1")
        await dedicated.aclose()
