"""What a session is, and what it means when one takes the place of another."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.session.conftest import make_session

from backbeat.session.session import AuthChange, OfflineSession, Session, change_between

NOW = 1_700_000_000.0
WRITTEN: dict[str, Any] = {
    "access_token": "header.claims.signature",
    "token_type": "bearer",
    "expires_in": 3600,
    "expires_at": 1_700_003_600,
    "refresh_token": "v7qk2m4n9xza",
    "user": {"id": "ada", "email": "ada@example.com", "app_metadata": {"provider": "email"}},
}


def written(**changes: Any) -> bytes:
    """A session as a Supabase client writes it, with changes; None removes a field."""
    fields = {name: value for name, value in (WRITTEN | changes).items() if value is not None}
    return json.dumps(fields).encode()


def test_what_a_client_wrote_is_read_and_written_back_the_same() -> None:
    """No field is lost or added, whoever reads it next."""
    content = written(provider_token="p", provider_refresh_token="q", weak_password={"reasons": []})
    assert json.loads(Session.read(content).write()) == json.loads(content)


@pytest.mark.parametrize("field", ["access_token", "refresh_token", "expires_at"])
def test_three_fields_make_a_session(field: str) -> None:
    """Without one of them it is none, and the error names it."""
    with pytest.raises(ValueError, match=field):
        Session.read(written(**{field: None}))


@pytest.mark.parametrize(
    "changes",
    [
        {"access_token": ""},
        {"access_token": 7},
        {"access_token": "two words"},
        {"access_token": "a.b.c\n"},
        {"refresh_token": "naïve"},
        {"expires_at": "soon"},
        {"expires_at": True},
        {"expires_at": -1},
        {"expires_at": 10**20},
        {"user": []},
    ],
)
def test_a_field_of_another_kind_makes_no_session(changes: dict[str, Any]) -> None:
    """Tokens are visible ASCII, for they travel in headers; times are moments; a user is an object."""
    with pytest.raises(ValueError, match=next(iter(changes))):
        Session.read(written(**changes))


def test_the_error_does_not_tell_what_was_there() -> None:
    """What cannot be read may still hold a token."""
    with pytest.raises(ValueError, match="access_token") as caught:
        Session.read(written(access_token="secret token", refresh_token="secret"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b" " * (1 << 21)])
def test_what_is_no_object_is_no_session(content: bytes) -> None:
    """Nothing, half of something, a list, no text, too deep, too much."""
    with pytest.raises(ValueError, match=r"JSON|object|larger|deep"):
        Session.read(content)


@given(st.binary())
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    """Nothing else ever happens."""
    with suppress(ValueError):
        assert Session.read(content).write()


def test_the_end_is_computed_where_it_is_not_said() -> None:
    """Old auth services say only for how long; `round(now) + expires_in`."""
    assert Session.read(written(expires_at=None), now=NOW + 0.6).expires_at == 1_700_003_601


def test_a_stored_session_has_to_say_its_end() -> None:
    """Nobody knows when it was written."""
    with pytest.raises(ValueError, match="expires_at"):
        Session.read(written(expires_at=None))


@pytest.mark.parametrize(
    "given", [None, "eyJ.token.only", object(), ["access_token"], {"token": "x"}, {"access_token": object()}]
)
def test_another_shape_is_a_type_error(given: object) -> None:
    """A whole program once worked for five days on a field of another name."""
    with pytest.raises(TypeError, match=r"access_token|session|Encoding"):
        Session.of(given, now=NOW)


def test_a_session_of_supabase_auth_is_told_how_to_become_one() -> None:
    """Its objects look like ours and are not."""

    class Foreign:
        def model_dump(self) -> None: ...

    with pytest.raises(TypeError, match="model_dump"):
        Session.of(Foreign(), now=NOW)


def test_a_mapping_is_copied() -> None:
    """What its owner does to it later changes nothing here."""
    fields = json.loads(written())
    session = Session.of(fields, now=NOW)
    fields["user"]["id"] = "eve"
    assert session.user_id == "ada"


def test_who_it_is_may_stand_in_the_token_alone() -> None:
    """Other issuers send no user."""
    token = make_session(user="grace", now=NOW).access_token
    assert Session.read(written(access_token=token, user=None)).user_id == "grace"


def test_who_it_is_may_be_unknown() -> None:
    """A token that is no JWT says nothing."""
    assert Session.read(written(user=None)).user_id == ""


@pytest.mark.parametrize("show", [repr, str, lambda session: f"{session}", lambda each: repr([each])])
def test_no_representation_shows_a_token(show: Any) -> None:
    """A fingerprint names the token instead."""
    session = Session.read(written(provider_token="provider-secret"))
    shown = show(session)
    assert not any(secret in shown for secret in ("header.claims", "v7qk2m4n9xza", "provider-secret"))
    assert "ada" in shown


@pytest.mark.parametrize(("at", "usable"), [(NOW, True), (NOW + 3600, False)])
def test_an_offline_session_is_who_and_until_when(at: float, usable: bool) -> None:
    """It has no token that could be sent by mistake."""
    offline = OfflineSession.of(make_session(now=NOW), now=at)
    assert (offline.user_id, offline.offline, offline.usable) == ("ada", True, usable)
    assert not hasattr(offline, "access_token")


ONE, TWO, OTHER = make_session(1, now=NOW), make_session(2, now=NOW), make_session(1, user="mike", now=NOW)
RENAMED = Session.of(ONE.fields() | {"user": {"id": "ada", "email": "countess@example.com"}}, now=NOW)

SAME_SECOND = Session.of(ONE.fields() | {"refresh_token": "another"}, now=NOW)


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (None, None, None),
        (None, ONE, AuthChange.SIGNED_IN),
        (ONE, ONE, None),
        (ONE, TWO, AuthChange.TOKEN_REFRESHED),
        (ONE, SAME_SECOND, AuthChange.TOKEN_REFRESHED),
        (ONE, OTHER, AuthChange.SIGNED_IN),
        (ONE, RENAMED, AuthChange.USER_UPDATED),
        (ONE, None, AuthChange.SIGNED_OUT),
    ],
)
def test_what_happened_follows_from_before_and_after(
    before: Session | None, after: Session | None, change: AuthChange | None
) -> None:
    """The same user with another token is a refresh, another user a sign-in, the same token nothing."""
    assert change_between(before, after) is change
