"""What is asked of an auth service, and what its answers mean (HTTP surface specification, section 4)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.unit.session.conftest import make_session

from backbeat.errors import AuthError, AuthRefused, AuthUnavailable, Retry
from backbeat.session.gotrue import (
    HINTS,
    Answer,
    AuthRequest,
    SignOutScope,
    anonymous_sign_up,
    has_ended,
    logout,
    password_grant,
    refresh_grant,
    session_in,
    sign_up,
    update_user,
    user_in,
)

NOW = 1_700_000_000.0


def answer(status: int, body: object = b"", **headers: str) -> Answer:
    """An answer; what is no bytes becomes JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, content)


def error_in(given: Answer) -> AuthError:
    """What an answer that is no success means."""
    with pytest.raises(AuthError) as caught:
        session_in(given, now=NOW)
    return caught.value


# Requests ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (
            password_grant("ada@example.com", "pw"),
            ("POST", "/token?grant_type=password", {"email", "password", "gotrue_meta_security"}),
        ),
        (refresh_grant("r"), ("POST", "/token?grant_type=refresh_token", {"refresh_token"})),
        (anonymous_sign_up({}), ("POST", "/signup", {"data", "gotrue_meta_security"})),
        (
            sign_up("ada@example.com", "pw", {}),
            (
                "POST",
                "/signup",
                {
                    "email",
                    "password",
                    "data",
                    "gotrue_meta_security",
                    "code_challenge",
                    "code_challenge_method",
                },
            ),
        ),
        (update_user({"data": {}}, token="t"), ("PUT", "/user", {"data"})),
    ],
    ids=lambda given: given.path if isinstance(given, AuthRequest) else "",
)
def test_requests_are_those_of_the_supabase_clients(
    request_: AuthRequest, expected: tuple[str, str, set[str]]
) -> None:
    """The same paths and the same fields."""
    assert (request_.method, request_.path, set(request_.body or {})) == expected


@pytest.mark.parametrize("scope", SignOutScope)
def test_signing_out_names_its_scope_and_has_no_body(scope: SignOutScope) -> None:
    """The user is the one of the token."""
    request = logout(scope, token="t")
    assert (request.path, request.body, request.token) == (f"/logout?scope={scope.value}", None, "t")


def test_requests_do_not_show_what_is_secret() -> None:
    """Passwords and tokens are in them, and not in what is printed."""
    shown = repr(
        [password_grant("ada", "s3cret"), refresh_grant("s3cret"), logout(SignOutScope.LOCAL, token="s3cret")]
    )
    assert "s3cret" not in shown


def test_a_password_that_cannot_be_encoded_is_not_shown() -> None:
    """The error of the codec would carry it along."""
    with pytest.raises(ValueError, match="no Unicode") as caught:
        assert password_grant("ada", "s3cret \udc80").content
    assert "s3cret" not in repr(caught.value)
    assert caught.value.__suppress_context__


# Success ----------------------------------------------------------------------------------------------------


def test_a_session_is_read_from_an_answer() -> None:
    """As it is in the body."""
    session = make_session(now=NOW)
    assert session_in(answer(200, session.fields()), now=NOW) == session


def test_a_user_without_a_session_has_to_confirm_first() -> None:
    """A sign-up on a project without autoconfirm."""
    assert session_in(answer(200, {"id": "ada", "confirmation_sent_at": "…"}), now=NOW) is None


@pytest.mark.parametrize(
    "body", [b"<html>Welcome to the hotel", b"", {"ok": True}, {"access_token": "a"}, [1], b"\xff" * 10]
)
def test_a_success_without_a_session_is_no_answer(body: object) -> None:
    """A page of the hotel's network: nobody is signed out by that."""
    error = error_in(answer(200, body))
    assert isinstance(error, AuthUnavailable)
    assert (error.code, error.retry) == ("unexpected_answer", Retry.SLOW)


def test_a_user_is_read_from_an_answer() -> None:
    """What is no user is no answer."""
    assert user_in(answer(200, {"id": "ada"})) == {"id": "ada"}
    with pytest.raises(AuthUnavailable, match="holds no user"):
        user_in(answer(200, {}))


# Errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        (
            answer(400, {"code": "invalid_credentials", "message": "Invalid login credentials"}),
            "invalid_credentials",
            "Invalid login credentials",
        ),
        (
            answer(400, {"code": 400, "error_code": "refresh_token_not_found", "msg": "Not Found"}),
            "refresh_token_not_found",
            "Not Found",
        ),
        (
            answer(400, {"error": "invalid_grant", "error_description": "Invalid Refresh Token"}),
            "invalid_grant",
            "Invalid Refresh Token",
        ),
        (answer(400, {"code": 400, "msg": "Already Used"}), "http_refused", "Already Used"),
        (
            answer(401, {"message": "Invalid API key", "hint": "Double check"}),
            "invalid_api_key",
            "Invalid API key",
        ),
    ],
    ids=["2024-01-01", "older", "oldest", "without a code", "gateway"],
)
def test_a_refusal_is_read_in_every_shape(given: Answer, code: str, message: str) -> None:
    """New and old auth services, and the gateway before them."""
    error = error_in(given)
    assert isinstance(error, AuthRefused)
    assert (error.code, error.message, error.status) == (code, message, given.status)


@pytest.mark.parametrize("status", [*range(500, 505), *range(520, 531)])
def test_an_outage_is_worth_another_attempt(status: int) -> None:
    """Statuses 500 to 504 and 520 to 530."""
    error = error_in(answer(status, b"<html>"))
    assert isinstance(error, AuthUnavailable)
    assert (error.retry, error.status) == (Retry.BACKOFF, status)


@pytest.mark.parametrize("status", [301, 307, 429, 505, 511, 599])
def test_what_is_neither_an_outage_nor_a_refusal_keeps_the_session(status: int) -> None:
    """A limit, a redirect, something odd: nobody knows, and at once again helps nobody."""
    error = error_in(answer(status, {"code": "x", "message": "y"}))
    assert isinstance(error, AuthUnavailable)
    assert error.retry is Retry.SLOW


@pytest.mark.parametrize("status", [400, 403, 404, 407, 418])
@pytest.mark.parametrize("body", [b"<html>Forbidden", {"message": "no such route"}, {}])
def test_a_refusal_that_no_auth_service_wrote_is_none(status: int, body: object) -> None:
    """A proxy, a firewall, another program on that port."""
    error = error_in(answer(status, body))
    assert isinstance(error, AuthUnavailable)
    assert error.code == "unexpected_answer"


@pytest.mark.parametrize("code", HINTS)
def test_every_hint_says_what_to_do(code: str) -> None:
    """In a sentence."""
    assert HINTS[code][0].isupper()
    assert HINTS[code].endswith((".", "which."))


def test_a_refusal_has_code_reason_and_hint() -> None:
    """What failed, and what to do about it."""
    error = error_in(answer(400, {"code": "invalid_credentials", "message": "Invalid login credentials"}))
    assert error.reason == "invalid_credentials: Invalid login credentials"
    assert "password" in error.hint


def test_an_answer_that_repeats_a_secret_is_not_repeated() -> None:
    """Whoever wrote it: a fingerprint stands for the secret."""
    body = json.dumps({"code": "validation_failed", "message": "bad value s3cret"}).encode()
    error = error_in(Answer(400, {}, body, secrets=("s3cret",)))
    assert error.message.startswith("bad value <")
    assert "s3cret" not in f"{error!r}{error}"


def test_a_message_is_cut_where_it_becomes_a_book() -> None:
    """It ends up in logs."""
    assert len(error_in(answer(400, {"code": "x", "message": "m" * 10_000})).message) == 300


# Signing out ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 204, 401, 403, 404])
def test_a_session_that_is_unknown_has_ended(status: int) -> None:
    """It is what was wanted."""
    has_ended(answer(status, {"code": "session_not_found", "message": "gone"}))


@pytest.mark.parametrize(
    ("status", "kind"), [(500, AuthUnavailable), (429, AuthUnavailable), (400, AuthRefused)]
)
def test_a_sign_out_that_failed_is_an_error(status: int, kind: type[AuthError]) -> None:
    """The session is still there, and somebody has to know."""
    with pytest.raises(kind):
        has_ended(answer(status, {"code": "x", "message": "y"}))


# The time ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "date"),
    [
        ({"date": "Tue, 14 Nov 2023 22:13:20 GMT"}, NOW),
        ({"date": "yesterday"}, None),
        ({"date": "Tue, 14 Nov 99999 22:13:20 GMT"}, None),
        ({}, None),
    ],
)
def test_the_time_at_the_service_is_read(headers: dict[str, Any], date: float | None) -> None:
    """From the header `Date`, where there is one."""
    assert answer(200, **headers).date == date
