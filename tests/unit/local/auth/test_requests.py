"""Bodies of requests: types, limits, and what an error may say."""

import pytest

from backbeat.errors import BadRequest
from backbeat.local.auth.requests import AdminUser, Body, PasswordGrant, SignUp, parse


def test_ignores_unknown_fields() -> None:
    """Clients always send fields that are not for us."""
    body = parse(
        b'{"email":"a@b.c","password":"p","gotrue_meta_security":{},"code_challenge":null}', PasswordGrant
    )
    assert body == PasswordGrant(email="a@b.c", password="p")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"{} {}",
        b'{"password":5}',
        b'{"data":[]}',
        b'{"email":"\xff"}',
        b'{"email":"\\ud800"}',
        b'{"data":{"n":1e400}}',
        b'{"data":' + b"[" * 100_000,
    ],
)
def test_refuses_what_is_not_the_json_we_know(body: bytes) -> None:
    """Whatever cannot be read is `bad_json`, never a failure of ours."""
    with pytest.raises(BadRequest, match=r"Could not parse request body as JSON: .+") as caught:
        parse(body, SignUp)
    assert (caught.value.code, caught.value.status) == ("bad_json", 400)


def test_refuses_an_id_that_is_no_uuid() -> None:
    """The id of a new user is a UUID."""
    with pytest.raises(BadRequest, match="UUID"):
        parse(b'{"id":"7"}', AdminUser)


def test_refuses_a_role_longer_than_postgres_has_names() -> None:
    """A role is the name of a Postgres role."""
    with pytest.raises(BadRequest, match="63"):
        parse(b'{"role":"%s"}' % (b"r" * 64), AdminUser)


def test_error_names_the_place_but_not_the_value() -> None:
    """A parse error must not repeat a password."""
    with pytest.raises(BadRequest) as caught:
        parse(b'{"password":["my secret"]}', PasswordGrant)
    assert "password" in str(caught.value)
    assert "my secret" not in str(caught.value)


@pytest.mark.parametrize(
    "body", [rb'{"data":{"a":"x\u0000"}}', rb'{"data":{"\u0000":1}}', rb'{"a":"\\\u0000"}']
)
def test_refuses_nul(body: bytes) -> None:
    """JSON can carry U+0000 and Postgres cannot store it."""
    with pytest.raises(BadRequest) as caught:
        parse(body, SignUp)
    assert caught.value.code == "validation_failed"


def test_accepts_the_text_of_an_escape() -> None:
    """A backslash that is itself escaped does not start an escape."""
    assert parse(rb'{"password":"\\u0000"}', SignUp).password == r"\u0000"


def test_repr_tells_nothing() -> None:
    """A body in a traceback or a log must not show a password."""
    bodies: list[Body] = [SignUp(password="my secret"), AdminUser(password="my secret")]
    assert repr(bodies) == "[<SignUp>, <AdminUser>]"
