"""A connection of one's own, with real faults."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from tests.faults import FaultyLine

from backbeat.postgres.dedicated import Dedicated


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
