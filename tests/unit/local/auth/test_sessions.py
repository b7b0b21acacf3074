"""Claims, refresh tokens, and the window in which a spent one still counts."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from backbeat.errors import TokenRefused
from backbeat.local.auth.sessions import (
    Session,
    Spending,
    access_claims,
    first_refresh_token,
    next_refresh_token,
    session_answer,
    spend,
    subject_of,
    token_hash,
)
from backbeat.local.auth.users import signed_up
from backbeat.tokens.verifier import Verifier

NOW = datetime(2026, 3, 1, 10, 0, tzinfo=UTC)
USER = UUID("8a6f2c1e-3b9d-4c55-9d0f-5f2e6f1f7a10")
SESSION = Session(UUID("5b0e6f0e-7d8a-4c0e-9a39-6f9d7d1c2b3a"), USER, "password", NOW - timedelta(hours=1))
SECRET = "a secret of at least thirty-two characters"


def claims_with(**changes: object) -> dict[str, Any]:
    """Claims of a good token, with changes; None removes one."""
    claims = {"sub": str(USER), "aud": "authenticated", "session_id": str(SESSION.id)} | changes
    return {name: value for name, value in claims.items() if value is not None}


def test_subject_of_a_session_token() -> None:
    """A token of ours names user and session."""
    subject = subject_of(claims_with())
    assert (subject.user_id, subject.session_id) == (USER, SESSION.id)


def test_subject_without_session() -> None:
    """A token minted elsewhere may have no session."""
    assert subject_of(claims_with(session_id=None)).session_id is None


def test_audience_may_be_a_list() -> None:
    """RFC 7519 section 4.1.3 allows several audiences."""
    assert subject_of(claims_with(aud=["other", "authenticated"])).user_id == USER


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sub": None}, "invalid claim: missing sub claim"),
        ({"sub": ""}, "invalid claim: missing sub claim"),
        ({"sub": 7}, "invalid claim: missing sub claim"),
        ({"sub": "ada"}, "invalid claim: sub claim must be a UUID"),
        ({"session_id": "first"}, "invalid claim: session_id claim must be a UUID"),
        ({"session_id": 7}, "invalid claim: session_id claim must be a UUID"),
        ({"aud": "anon"}, "invalid claim: aud claim must be authenticated"),
        ({"aud": None}, "invalid claim: aud claim must be authenticated"),
        ({"aud": {}}, "invalid claim: aud claim must be authenticated"),
    ],
)
def test_refuses_tokens_of_nobody(changes: dict[str, object], message: str) -> None:
    """What does not name a user of this project is a bad token."""
    with pytest.raises(TokenRefused) as caught:
        subject_of(claims_with(**changes))
    assert (caught.value.status, caught.value.code, caught.value.message) == (403, "bad_jwt", message)


def test_claims_of_an_access_token() -> None:
    """The claims are those clients and policies know."""
    user = signed_up(USER, "ada@example.com", None, confirmed=True, now=NOW)
    assert access_claims(user, SESSION, issuer="http://here/auth/v1", lifetime=3600, now=NOW) == {
        "iss": "http://here/auth/v1",
        "sub": str(USER),
        "aud": "authenticated",
        "exp": 1772362800,
        "iat": 1772359200,
        "email": "ada@example.com",
        "phone": "",
        "app_metadata": {"provider": "email", "providers": ["email"]},
        "user_metadata": {
            "sub": str(USER),
            "email": "ada@example.com",
            "email_verified": True,
            "phone_verified": False,
        },
        "role": "authenticated",
        "aal": "aal1",
        "amr": [{"method": "password", "timestamp": 1772355600}],
        "session_id": str(SESSION.id),
        "is_anonymous": False,
    }


def test_answer_is_a_session_for_clients() -> None:
    """The answer has every field that auth-js insists on, and a token that verifies."""
    user = signed_up(USER, "ada@example.com", None, confirmed=True, now=NOW)
    answer = session_answer(user, SESSION, "refresh", secret=SECRET, issuer="i", lifetime=60, now=NOW)
    body = msgspec.json.decode(msgspec.json.encode(answer))
    assert (body["token_type"], body["expires_in"], body["expires_at"]) == ("bearer", 60, 1772359260)
    assert Verifier(SECRET).verify(body["access_token"], now=NOW.timestamp()).claims.sub == str(USER)


def test_answer_repr_has_no_tokens() -> None:
    """A session in a log must not sign anybody in."""
    user = signed_up(USER, "ada@example.com", None, confirmed=True, now=NOW)
    answer = session_answer(user, SESSION, "refresh", secret=SECRET, issuer="i", lifetime=60, now=NOW)
    assert repr(answer) == f"<SessionAnswer user={USER}>"


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (None, Spending.FRESH),
        (timedelta(0), Spending.REPEATED),
        (timedelta(seconds=-1), Spending.REPEATED),
        (timedelta(seconds=10), Spending.REPEATED),
        (timedelta(seconds=10, microseconds=1), Spending.REPLAYED),
    ],
)
def test_spending(age: timedelta | None, expected: Spending) -> None:
    """A token is spent once, repeated for ten seconds, and replayed after that."""
    assert spend(None if age is None else NOW - age, NOW) is expected


def test_first_tokens_differ() -> None:
    """New sessions have unrelated tokens."""
    assert first_refresh_token() != first_refresh_token()


def test_successor_is_the_same_for_two_tabs() -> None:
    """Whoever presents the same token is told the same successor."""
    assert next_refresh_token("token", SECRET) == next_refresh_token("token", SECRET)


def test_successor_needs_the_secret() -> None:
    """Somebody who finds an old token cannot compute the current one."""
    assert next_refresh_token("token", SECRET) != next_refresh_token("token", "another secret")


def test_stored_hash_is_not_the_token() -> None:
    """The database keeps a SHA-256 (the test vector is that of `abc`, FIPS 180-2)."""
    assert token_hash("abc").hex().startswith("ba7816bf8f01cfea")
