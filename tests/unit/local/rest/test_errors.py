"""Errors of others in the words of PostgREST."""

from __future__ import annotations

import psycopg
import pytest

from backbeat.errors import TokenRefused, Unavailable
from backbeat.local.rest import errors
from backbeat.protocol import reasons
from backbeat.protocol.reasons import Reason


@pytest.mark.parametrize(
    ("reason", "code", "message"),
    [
        (reasons.TOKEN_EXPIRED, "PGRST303", "JWT expired"),
        (reasons.TOKEN_SIGNATURE, "PGRST301", "JWSError Failed to validate JWT signature"),
        (reasons.API_KEY_UNKNOWN, "PGRST301", "Invalid API key"),
    ],
)
def test_tokens(reason: Reason, code: str, message: str) -> None:
    """Every refused token is 401; one that has merely expired has a code of its own."""
    refusal = reason.refusal(seconds=3)
    assert isinstance(refusal, TokenRefused)
    error = errors.of_token(refusal)
    assert (error.status, error.code, error.message) == (401, code, message)


def test_challenge_holds_any_message() -> None:
    """A key id of the caller's cannot break out of the challenge header."""
    refusal = reasons.TOKEN_SIGNER_KID.refusal(kid='x", evil="é\r\n')
    assert isinstance(refusal, TokenRefused)
    challenge = errors.of_token(refusal).headers["WWW-Authenticate"]
    assert challenge.count('"') == 4
    assert challenge.isascii()
    assert challenge.isprintable()


@pytest.mark.parametrize(
    ("reason", "status", "code"),
    [(reasons.DATABASE_UNREACHABLE, 503, "PGRST000"), (reasons.POOL_EXHAUSTED, 504, "PGRST003")],
)
def test_unavailable(reason: Reason, status: int, code: str) -> None:
    """No database is told from no free connection."""
    refusal = reason.refusal()
    assert isinstance(refusal, Unavailable)
    error = errors.of_unavailable(refusal)
    assert (error.status, error.code) == (status, code)


def test_lost_connection() -> None:
    """A connection that breaks under a statement is 503."""
    error = errors.of_database(psycopg.OperationalError("server closed the connection"), role="anon")
    assert error
    assert (error.status, error.code) == (503, "PGRST001")


def test_unstorable_text() -> None:
    """Text the driver refuses is the caller's mistake."""
    error = errors.of_database(psycopg.DataError("cannot contain NUL"), role="anon")
    assert error
    assert (error.status, error.code) == (400, "22021")


def test_fault_of_ours() -> None:
    """A statement the driver cannot send is not blamed on the database."""
    assert errors.of_database(psycopg.ProgrammingError("incomplete placeholder"), role="anon") is None
