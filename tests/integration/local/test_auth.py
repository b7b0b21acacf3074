"""`/auth/v1` over its real routes and a real Postgres (HTTP surface specification, sections 4 and 8)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import bcrypt
import httpx
import psycopg
import pytest
from starlette.applications import Starlette
from structlog.testing import capture_logs
from tests.clusters import Cluster

from backbeat.local.auth import Auth, passwords
from backbeat.postgres.database import Database
from backbeat.tokens.keys import ApiKeys
from backbeat.tokens.verifier import Verifier, sign

SECRET = "super-secret-jwt-token-with-at-least-32-characters-long"
ISSUER = "http://127.0.0.1:54321/auth/v1"
KEYS = ApiKeys.of(SECRET, publishable="sb_publishable_test", secret="sb_secret_test")
EMAIL = "ada@example.com"
PASSWORD = "correct horse"
NOBODY = "00000000-0000-4000-8000-000000000000"

Body = dict[str, Any]


@dataclass
class Project:
    """A running auth service and the database behind it."""

    http: httpx.AsyncClient
    database: psycopg.AsyncConnection[tuple[Any, ...]]

    async def call(
        self, method: str, path: str, body: object = None, *, bearer: str = KEYS.publishable, **headers: str
    ) -> httpx.Response:
        """Send a request as supabase-js does; headers are named with underscores."""
        return await self.http.request(
            method,
            f"/auth/v1{path}",
            json=body,
            headers={
                "apikey": KEYS.publishable,
                "Authorization": f"Bearer {bearer}",
                "X-Supabase-Api-Version": "2024-01-01",
            }
            | {name.replace("_", "-"): value for name, value in headers.items()},
        )

    async def sign_up(self, email: str = EMAIL, password: str = PASSWORD, **fields: object) -> Body:
        """Register somebody; return the session."""
        return ok(await self.call("POST", "/signup", {"email": email, "password": password} | fields))

    async def try_password(self, email: str = EMAIL, password: str = PASSWORD) -> httpx.Response:
        """Try to sign in."""
        return await self.call("POST", "/token?grant_type=password", {"email": email, "password": password})

    async def refresh(self, refresh_token: str) -> httpx.Response:
        """Try to refresh."""
        return await self.call("POST", "/token?grant_type=refresh_token", {"refresh_token": refresh_token})

    async def user(self, session: Body) -> httpx.Response:
        """Ask who the session belongs to."""
        return await self.call("GET", "/user", bearer=session["access_token"])

    async def admin(self, method: str, path: str = "", body: object = None) -> httpx.Response:
        """Call an admin endpoint with the secret key."""
        return await self.call(method, f"/admin/users{path}", body, apikey=KEYS.secret, bearer=KEYS.secret)

    async def sql(self, statement: str, *args: object) -> list[tuple[Any, ...]]:
        """Run a statement as the owner of the database."""
        cursor = await self.database.execute(statement.encode(), args)
        return await cursor.fetchall() if cursor.description else []


def ok(response: httpx.Response) -> Body:
    """The body of an answer that has to be a success."""
    assert response.status_code == 200, response.text
    body: Body = response.json()
    return body


def refusal(response: httpx.Response) -> tuple[int, str, str]:
    """What an error answer says: status, code, message."""
    body = response.json()
    assert response.headers["x-sb-error-code"] == body["code"]
    return response.status_code, body["code"], body["message"]


def access_token(**claims: object) -> str:
    """A token signed with the project's secret."""
    base = {"role": "authenticated", "aud": "authenticated", "exp": int(time.time()) + 60}
    return sign(base | claims, SECRET)


@asynccontextmanager
async def serving(url: str, *, wait: float = 5.0, **options: Any) -> AsyncIterator[Project]:
    """Run the service over a database."""
    database = Database(url, size=10, wait=wait)
    auth = Auth(
        database=database, keys=KEYS, verifier=Verifier(SECRET), jwt_secret=SECRET, issuer=ISSUER, **options
    )
    await database.open()
    try:
        app = Starlette(routes=auth.routes())
        async with (
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:54321"
            ) as client,
            await psycopg.AsyncConnection.connect(url, autocommit=True) as connection,
        ):
            yield Project(client, connection)
    finally:
        await database.aclose()
        await auth.aclose()


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """New hashes at bcrypt's lowest cost: these tests are not about time."""
    monkeypatch.setattr(passwords, "COST", 4)


@pytest.fixture
async def project(database_url: str) -> AsyncIterator[Project]:
    """A project with the defaults of `backbeat dev`."""
    async with serving(database_url) as project:
        yield project


# Section 8, items 1 to 4 ------------------------------------------------------------------------------------


async def test_a_whole_session(project: Project) -> None:
    """Sign up, sign in, ask, refresh, sign out: then the old access token is refused."""
    await project.sign_up()
    session = ok(await project.try_password())
    assert ok(await project.user(session))["email"] == EMAIL
    session = ok(await project.refresh(session["refresh_token"]))
    assert (await project.call("POST", "/logout", bearer=session["access_token"])).status_code == 204
    assert refusal(await project.user(session)) == (
        403,
        "session_not_found",
        "Session from session_id claim in JWT does not exist",
    )


async def test_second_sign_up_is_refused(project: Project) -> None:
    """An address is registered once, however it is written."""
    await project.sign_up()
    again = await project.call("POST", "/signup", {"email": "ADA@example.com", "password": "another one"})
    assert refusal(again) == (422, "user_already_exists", "User already registered")


async def test_sign_ups_at_once_make_one_user(project: Project) -> None:
    """Of sign-ups that race for an address one wins, and the others are told it is taken."""
    answers = await asyncio.gather(
        *(project.call("POST", "/signup", {"email": EMAIL, "password": PASSWORD}) for _ in range(4))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 422, 422, 422]


async def test_user_made_by_an_admin_can_sign_in(project: Project) -> None:
    """The secret key creates a confirmed user; the publishable key signs in."""
    wish = {"email": "Bob@Example.com", "password": "pw-123456", "email_confirm": True}
    created = ok(await project.admin("POST", "", wish))
    assert "last_sign_in_at" not in created
    session = ok(await project.try_password("bob@example.com", "pw-123456"))
    assert session["user"]["id"] == created["id"]


@pytest.mark.parametrize("prefix", ["$2a$", "$2b$"])
async def test_user_made_by_sql_can_sign_in(project: Project, prefix: str) -> None:
    """A row with a bcrypt hash is enough: no identity, no metadata, no tokens, and an address in capitals."""
    stored = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode().replace("$2b$", prefix)
    await project.sql(
        "insert into auth.users (instance_id, id, aud, role, email, encrypted_password, email_confirmed_at,"
        " confirmation_token) values (%s, %s, '', null, 'Ada@Example.com', %s, now(), null)",
        NOBODY,
        uuid4(),
        stored,
    )
    user = ok(await project.try_password())["user"]
    assert (user["role"], user["app_metadata"], user["identities"]) == ("authenticated", {}, [])


async def test_deleting_the_row_ends_the_user(project: Project) -> None:
    """DELETE FROM auth.users takes sessions, refresh tokens and identities along."""
    session = await project.sign_up()
    await project.sql("delete from auth.users where id = %s", session["user"]["id"])
    assert refusal(await project.user(session)) == (
        403,
        "user_not_found",
        "User from sub claim in JWT does not exist",
    )
    assert refusal(await project.refresh(session["refresh_token"]))[1] == "refresh_token_not_found"
    assert await project.sql("select from auth.identities") == []


# Sign-up ----------------------------------------------------------------------------------------------------


async def test_sign_up_answers_with_a_session(project: Project) -> None:
    """The session has what auth-js insists on, a confirmed user with an identity, and no secrets."""
    session = await project.sign_up(data={"nick": "ada"}, gotrue_meta_security={}, code_challenge=None)
    user = session["user"]
    assert (session["token_type"], session["expires_in"]) == ("bearer", 3600)
    assert (user["user_metadata"]["nick"], user["user_metadata"]["email_verified"]) == ("ada", True)
    assert [identity["identity_data"]["email"] for identity in user["identities"]] == [EMAIL]
    assert set(user) == {
        *("id", "aud", "role", "email", "email_confirmed_at", "phone", "confirmed_at", "last_sign_in_at"),
        *("app_metadata", "user_metadata", "identities", "created_at", "updated_at", "is_anonymous"),
    }


async def test_access_token_verifies(project: Project) -> None:
    """Realtime and REST accept the token: it is signed for this project and names user and session."""
    session = await project.sign_up()
    claims = Verifier(SECRET).verify(session["access_token"], now=time.time()).claims.values
    [(session_id,)] = await project.sql("select id from auth.sessions")
    assert (claims["iss"], claims["sub"], claims["session_id"]) == (
        ISSUER,
        session["user"]["id"],
        str(session_id),
    )


async def test_stamps_are_utc(project: Project, database_url: str) -> None:
    """Whatever the time zone of the database, clients read RFC 3339 with a Z."""
    await project.sql(f"alter database {project.database.info.dbname} set timezone = 'Asia/Tokyo'")
    async with serving(database_url) as elsewhere:
        user = (await elsewhere.sign_up())["user"]
    assert all(user[name].endswith("Z") for name in user if name.endswith("_at"))


async def test_plain_caller_gets_the_same(project: Project) -> None:
    """A caller without Authorization and without an API version signs up just as well."""
    answer = await project.http.post(
        "/auth/v1/signup", json={"email": EMAIL, "password": PASSWORD}, headers={"apikey": KEYS.anon}
    )
    assert ok(answer)["user"]["email"] == EMAIL


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"email": EMAIL}, (400, "validation_failed", "Signup requires a valid password")),
        ({"email": EMAIL, "password": ""}, (400, "validation_failed", "Signup requires a valid password")),
        (
            {"email": EMAIL, "password": "12345"},
            (422, "weak_password", "Password should be at least 6 characters."),
        ),
        (
            {"email": EMAIL, "password": "x" * 73},
            (400, "validation_failed", "Password cannot be longer than 72 bytes"),
        ),
        (
            {"email": "ada", "password": PASSWORD},
            (400, "validation_failed", "Unable to validate email address: invalid format"),
        ),
        (
            {"password": PASSWORD},
            (400, "validation_failed", "Unable to validate email address: invalid format"),
        ),
        (
            {"phone": "+491701234567", "password": PASSWORD},
            (422, "phone_provider_disabled", "Phone sign-ups and sign-ins are disabled"),
        ),
        (
            {"email": EMAIL, "password": PASSWORD, "data": {"nul": "\0"}},
            (400, "validation_failed", "Postgres cannot store the character U+0000"),
        ),
        (
            {"email": EMAIL, "password": PASSWORD, "data": {"long": "x" * 9000}},
            (
                422,
                "validation_failed",
                "Metadata is too large: every access token carries it, at most 8000 characters of JSON",
            ),
        ),
    ],
)
async def test_refused_sign_up(project: Project, body: Body, expected: tuple[int, str, str]) -> None:
    """A sign-up that cannot be is refused with the reason, and nobody is stored."""
    assert refusal(await project.call("POST", "/signup", body)) == expected
    assert await project.sql("select from auth.users") == []


async def test_weak_password_names_its_reasons(project: Project) -> None:
    """The body lists the broken rules."""
    answer = await project.call("POST", "/signup", {"email": EMAIL, "password": "12345"})
    assert answer.json()["weak_password"] == {"reasons": ["length"]}


async def test_anonymous_sign_in(project: Project) -> None:
    """A sign-up without address and password makes an anonymous user."""
    session = ok(await project.call("POST", "/signup", {"data": {"nick": "guest"}}))
    user = session["user"]
    assert (user["is_anonymous"], user["email"], user["app_metadata"]) == (True, "", {})
    assert user["user_metadata"] == {"nick": "guest"}


async def test_anonymous_sign_in_can_be_disabled(database_url: str) -> None:
    """Where anonymous users are not wanted, there are none."""
    async with serving(database_url, anonymous=False) as project:
        assert refusal(await project.call("POST", "/signup", {"data": {}})) == (
            422,
            "anonymous_provider_disabled",
            "Anonymous sign-ins are disabled",
        )


async def test_anonymous_user_becomes_an_ordinary_one(project: Project) -> None:
    """With an address and a password of their own, a guest can sign in again."""
    session = ok(await project.call("POST", "/signup", {"data": {}}))
    wish = {"email": EMAIL, "password": PASSWORD}
    user = ok(await project.call("PUT", "/user", wish, bearer=session["access_token"]))
    assert (user["is_anonymous"], len(user["identities"])) == (False, 1)
    assert ok(await project.try_password())["user"]["id"] == user["id"]


async def test_sign_up_without_autoconfirm(database_url: str) -> None:
    """Without autoconfirm a sign-up makes a user and no session."""
    async with serving(database_url, autoconfirm=False) as project:
        body = await project.sign_up()
        assert (body["email"], "access_token" in body, "email_confirmed_at" in body) == (EMAIL, False, False)


# Password grant ---------------------------------------------------------------------------------------------


async def test_each_sign_in_opens_a_session(project: Project) -> None:
    """A second sign-in leaves the first one's session alive."""
    first = await project.sign_up()
    ok(await project.try_password())
    assert (await project.user(first)).status_code == 200
    assert await project.sql("select count(*) from auth.sessions") == [(2,)]


async def test_sign_in_is_stamped(project: Project) -> None:
    """`last_sign_in_at` moves with each sign-in."""
    first = (await project.sign_up())["user"]["last_sign_in_at"]
    assert ok(await project.try_password())["user"]["last_sign_in_at"] > first


@pytest.mark.parametrize(
    ("email", "password"), [(EMAIL, "wrong"), (EMAIL, ""), ("bob@example.com", PASSWORD)]
)
async def test_wrong_password_and_unknown_user_read_alike(
    project: Project, email: str, password: str
) -> None:
    """Nobody learns from the answer who is registered."""
    await project.sign_up()
    answer = await project.try_password(email, password)
    assert refusal(answer) == (400, "invalid_credentials", "Invalid login credentials")


async def test_refused_sign_in_opens_no_session(project: Project) -> None:
    """A wrong password leaves no trace."""
    await project.sign_up()
    await project.sql("delete from auth.sessions")
    await project.try_password(EMAIL, "wrong")
    assert await project.sql("select from auth.sessions") == []


async def test_sign_in_ignores_the_case_of_the_address(project: Project) -> None:
    """Addresses are compared in lower case."""
    await project.sign_up("Ada@Example.com")
    assert ok(await project.try_password("ADA@example.COM"))["user"]["email"] == EMAIL


async def test_unconfirmed_user_cannot_sign_in(project: Project) -> None:
    """A user whom an administrator did not confirm is told so, after the right password."""
    await project.admin("POST", "", {"email": EMAIL, "password": PASSWORD})
    assert refusal(await project.try_password()) == (400, "email_not_confirmed", "Email not confirmed")


async def test_corrupt_hash_is_no_failure_of_ours(project: Project) -> None:
    """A hash that is none reads as a wrong password; the log names the user."""
    session = await project.sign_up()
    await project.sql("update auth.users set encrypted_password = 'plain text'")
    with capture_logs() as logs:
        assert refusal(await project.try_password(EMAIL, "plain text"))[1] == "invalid_credentials"
    assert [entry["user"] for entry in logs] == [session["user"]["id"]]


async def test_user_without_a_password_cannot_sign_in(project: Project) -> None:
    """An empty password does not open an account that has none."""
    await project.admin("POST", "", {"email": EMAIL, "email_confirm": True})
    assert refusal(await project.try_password(EMAIL, ""))[1] == "invalid_credentials"


async def test_metadata_too_large_for_a_token(project: Project) -> None:
    """Metadata that SQL made larger than a token is named at sign-in: a token with it nobody would accept."""
    await project.sign_up()
    await project.sql("update auth.users set raw_user_meta_data = jsonb_build_object('x', repeat('x', 9000))")
    assert refusal(await project.try_password())[:2] == (422, "validation_failed")


@pytest.mark.parametrize("until", ["now() + interval '1 hour'", "'infinity'"])
async def test_banned_user_gets_no_tokens(project: Project, until: str) -> None:
    """A ban holds at sign-in and at refresh."""
    session = await project.sign_up()
    await project.sql(f"update auth.users set banned_until = {until}")
    assert refusal(await project.try_password()) == (400, "user_banned", "User is banned")
    assert refusal(await project.refresh(session["refresh_token"]))[1] == "user_banned"


async def test_password_changed_meanwhile_is_wrong(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password that is changed while bcrypt works on the old one opens no session."""
    await project.sign_up()
    original = passwords.Passwords.matches

    async def change_then_match(
        self: passwords.Passwords, password: str, stored: str | None, *, owner: object = None
    ) -> bool:
        await project.sql("update auth.users set encrypted_password = 'changed'")
        return await original(self, password, stored, owner=owner)

    monkeypatch.setattr(passwords.Passwords, "matches", change_then_match)
    assert refusal(await project.try_password())[1] == "invalid_credentials"


@pytest.mark.parametrize(
    ("query", "body", "expected"),
    [
        ("?grant_type=magic", {}, (400, "invalid_credentials", "unsupported_grant_type")),
        ("", {}, (400, "invalid_credentials", "unsupported_grant_type")),
        ("?grant_type=password", {}, (400, "validation_failed", "missing email or phone")),
        (
            "?grant_type=password",
            {"phone": "+491701234567", "password": PASSWORD},
            (422, "phone_provider_disabled", "Phone sign-ups and sign-ins are disabled"),
        ),
        ("?grant_type=refresh_token", {}, (400, "validation_failed", "refresh_token required")),
        (
            "?grant_type=refresh_token",
            {"refresh_token": "never seen"},
            (400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found"),
        ),
    ],
)
async def test_refused_grant(
    project: Project, query: str, body: Body, expected: tuple[int, str, str]
) -> None:
    """A grant that cannot be is refused with the reason."""
    assert refusal(await project.call("POST", f"/token{query}", body)) == expected


# Refresh grant ----------------------------------------------------------------------------------------------


async def test_refresh_keeps_the_session(project: Project) -> None:
    """New tokens, the same session, and still the method and moment of the sign-in."""
    first = await project.sign_up()
    second = ok(await project.refresh(first["refresh_token"]))
    before, after = (Verifier(SECRET).verify(s["access_token"], now=0).claims.values for s in (first, second))
    assert (after["session_id"], after["amr"]) == (before["session_id"], before["amr"])
    assert second["refresh_token"] != first["refresh_token"]


async def test_refresh_sees_the_user_as_of_now(project: Project) -> None:
    """What changed about the user since the sign-in is in the new token."""
    session = await project.sign_up()
    await project.sql("update auth.users set role = 'musician'")
    token = ok(await project.refresh(session["refresh_token"]))["access_token"]
    assert Verifier(SECRET).verify(token, now=0).claims.role == "musician"


async def test_two_tabs_refresh_at_once(project: Project) -> None:
    """Every tab that presents the same token gets the session's one new token."""
    session = await project.sign_up()
    answers = await asyncio.gather(*(project.refresh(session["refresh_token"]) for _ in range(5)))
    assert len({ok(answer)["refresh_token"] for answer in answers}) == 1


async def test_late_tab_gets_the_current_token(project: Project) -> None:
    """A token spent a moment ago yields the current state, however many refreshes later that is."""
    first = (await project.sign_up())["refresh_token"]
    current = first
    for _ in range(3):
        current = ok(await project.refresh(current))["refresh_token"]
    assert ok(await project.refresh(first))["refresh_token"] == current


async def test_replayed_token_ends_the_session(project: Project) -> None:
    """A token spent long ago is held by two: it is refused, and so is the one that followed it."""
    session = await project.sign_up()
    successor = ok(await project.refresh(session["refresh_token"]))
    await project.sql("update auth.refresh_tokens set used_at = used_at - interval '11 seconds'")
    assert refusal(await project.refresh(session["refresh_token"])) == (
        400,
        "refresh_token_already_used",
        "Invalid Refresh Token: Already Used",
    )
    assert refusal(await project.refresh(successor["refresh_token"]))[1] == "refresh_token_not_found"
    assert refusal(await project.user(successor))[1] == "session_not_found"


async def test_refresh_tokens_are_stored_as_hashes(project: Project) -> None:
    """A copy of the database signs nobody in."""
    token = (await project.sign_up())["refresh_token"]
    ok(await project.refresh(token))
    dump = await project.sql(
        "select t::text from auth.refresh_tokens t union select s::text from auth.sessions s"
    )
    assert token not in repr(dump)
    assert token.encode().hex() not in repr(dump)


async def test_refresh_and_sign_out_at_once(project: Project) -> None:
    """Whichever comes first, both are answered, and in the end the session is over."""
    session = await project.sign_up()
    refreshed, signed_out = await asyncio.gather(
        project.refresh(session["refresh_token"]),
        project.call("POST", "/logout", bearer=session["access_token"]),
    )
    assert (refreshed.status_code in (200, 400), signed_out.status_code) == (True, 204)
    assert await project.sql("select from auth.refresh_tokens") == []


async def test_old_user_token_does_not_block_a_refresh(project: Project) -> None:
    """The API key opens the endpoint; an expired token beside it is what the refresh is for."""
    session = await project.sign_up()
    answer = await project.call(
        "POST",
        "/token?grant_type=refresh_token",
        {"refresh_token": session["refresh_token"]},
        bearer=access_token(exp=1),
    )
    assert answer.status_code == 200


# The user themselves ----------------------------------------------------------------------------------------


async def test_bad_signature_is_refused(project: Project) -> None:
    """A token of another project is no token."""
    token = sign({"role": "authenticated", "exp": 4e9, "sub": NOBODY}, "another secret of thirty-two bytes")
    status, code, message = refusal(await project.call("GET", "/user", bearer=token))
    assert (status, code) == (403, "bad_jwt")
    assert message.startswith("invalid JWT: unable to parse or verify signature, ")


@pytest.mark.parametrize("token", ["not.a.jwt", "null", access_token(sub=NOBODY, exp=1)])
async def test_unusable_token_is_refused(project: Project, token: str) -> None:
    """Neither is what cannot be parsed, or has expired."""
    assert refusal(await project.call("GET", "/user", bearer=token))[:2] == (403, "bad_jwt")


@pytest.mark.parametrize("key", [KEYS.anon, KEYS.service, KEYS.publishable])
async def test_api_key_is_no_user(project: Project, key: str) -> None:
    """An API key, in either format, speaks for no user."""
    assert refusal(await project.call("GET", "/user", bearer=key)) == (
        403,
        "bad_jwt",
        "invalid claim: missing sub claim",
    )


@pytest.mark.parametrize("authorization", [None, "Bearer", "Bearer ", "Basic YTpi"])
@pytest.mark.parametrize(("method", "path"), [("GET", "/user"), ("PUT", "/user"), ("POST", "/logout")])
async def test_user_endpoints_need_a_bearer(
    project: Project, method: str, path: str, authorization: str | None
) -> None:
    """Without a Bearer token nobody is meant, API key or not."""
    headers = {"apikey": KEYS.anon, "X-Supabase-Api-Version": "2024-01-01"}
    if authorization is not None:
        headers["Authorization"] = authorization
    answer = await project.http.request(method, f"/auth/v1{path}", headers=headers)
    assert refusal(answer) == (401, "no_authorization", "This endpoint requires a valid Bearer token")


async def test_token_of_an_unknown_user_is_refused(project: Project) -> None:
    """A well-signed token of nobody is refused."""
    assert refusal(await project.call("GET", "/user", bearer=access_token(sub=NOBODY))) == (
        403,
        "user_not_found",
        "User from sub claim in JWT does not exist",
    )


async def test_session_of_another_user_is_none(project: Project) -> None:
    """A session counts only for the user it belongs to."""
    ada, bob = await project.sign_up(), await project.sign_up("bob@example.com")
    [(session_id,)] = await project.sql("select id from auth.sessions where user_id = %s", bob["user"]["id"])
    token = access_token(sub=ada["user"]["id"], session_id=str(session_id))
    assert refusal(await project.call("GET", "/user", bearer=token))[1] == "session_not_found"


async def test_token_without_a_session_is_accepted(project: Project) -> None:
    """A token minted elsewhere with the project's secret speaks for its user."""
    user = (await project.sign_up())["user"]
    assert ok(await project.call("GET", "/user", bearer=access_token(sub=user["id"])))["email"] == EMAIL


async def test_metadata_is_merged(project: Project) -> None:
    """`PUT /user` merges key by key, and null deletes."""
    session = await project.sign_up(data={"nick": "ada", "band": "x"})
    wish = {"data": {"nick": None, "plays": ["bass"]}}
    metadata = ok(await project.call("PUT", "/user", wish, bearer=session["access_token"]))["user_metadata"]
    assert ("nick" in metadata, metadata["band"], metadata["plays"]) == (False, "x", ["bass"])


async def test_new_password_ends_other_sessions(project: Project) -> None:
    """Who changes the password stays signed in; whoever else was in is out, and the old password is wrong."""
    other, mine = await project.sign_up(), ok(await project.try_password())
    ok(await project.call("PUT", "/user", {"password": "battery staple"}, bearer=mine["access_token"]))
    assert (await project.user(mine)).status_code == 200
    assert refusal(await project.user(other))[1] == "session_not_found"
    assert refusal(await project.try_password())[1] == "invalid_credentials"
    assert (await project.try_password(EMAIL, "battery staple")).status_code == 200


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ({"password": PASSWORD}, (422, "same_password")),
        ({"password": "12345"}, (422, "weak_password")),
        ({"email": "bob@example.com"}, (422, "email_exists")),
        ({"email": "nonsense"}, (400, "validation_failed")),
    ],
)
async def test_refused_change(project: Project, wish: Body, expected: tuple[int, str]) -> None:
    """A change that cannot be is refused with the reason."""
    await project.sign_up("bob@example.com")
    session = await project.sign_up()
    answer = await project.call("PUT", "/user", wish, bearer=session["access_token"])
    assert refusal(answer)[:2] == expected


async def test_new_address_signs_in(project: Project) -> None:
    """With autoconfirm a new address counts at once, in the identity too."""
    session = await project.sign_up()
    user = ok(
        await project.call("PUT", "/user", {"email": "ada@new.example"}, bearer=session["access_token"])
    )
    assert user["identities"][0]["email"] == "ada@new.example"
    assert (await project.try_password("ada@new.example")).status_code == 200


async def test_user_cannot_promote_themselves(project: Project) -> None:
    """Role, app metadata and bans are not the user's to change."""
    session = await project.sign_up()
    wish = {"role": "service_role", "app_metadata": {"admin": True}, "data": {}}
    user = ok(await project.call("PUT", "/user", wish, bearer=session["access_token"]))
    assert (user["role"], "admin" in user["app_metadata"]) == ("authenticated", False)


# Sign-out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "alive"),
    [
        ("", (False, False)),
        ("?scope=global", (False, False)),
        ("?scope=local", (False, True)),
        ("?scope=others", (True, False)),
    ],
)
async def test_scope_of_a_sign_out(project: Project, query: str, alive: tuple[bool, bool]) -> None:
    """A sign-out ends all sessions, this one, or the others; with a session go its refresh tokens."""
    mine, other = await project.sign_up(), ok(await project.try_password())
    answer = await project.call("POST", f"/logout{query}", bearer=mine["access_token"])
    assert (answer.status_code, answer.content) == (204, b"")
    sessions = [(await project.user(session)).status_code == 200 for session in (mine, other)]
    tokens = [(await project.refresh(s["refresh_token"])).status_code == 200 for s in (mine, other)]
    assert (tuple(sessions), tuple(tokens)) == (alive, alive)


async def test_sign_out_leaves_other_users_alone(project: Project) -> None:
    """`global` means every session of one user."""
    ada, bob = await project.sign_up(), await project.sign_up("bob@example.com")
    await project.call("POST", "/logout", bearer=ada["access_token"])
    assert (await project.user(bob)).status_code == 200


async def test_unknown_scope_is_refused(project: Project) -> None:
    """A scope we do not know ends nothing."""
    session = await project.sign_up()
    answer = await project.call("POST", "/logout?scope=everything", bearer=session["access_token"])
    assert refusal(answer)[:2] == (400, "validation_failed")


# Administration ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("apikey", "bearer"),
    [
        (KEYS.secret, KEYS.secret),
        (KEYS.service, KEYS.service),
        (KEYS.secret, None),
        (KEYS.service, None),
        (KEYS.publishable, KEYS.service),
    ],
)
async def test_spellings_of_the_service_key(project: Project, apikey: str, bearer: str | None) -> None:
    """The service role is recognised in both formats, with and without Authorization."""
    headers = {"apikey": apikey} | ({"Authorization": f"Bearer {bearer}"} if bearer else {})
    assert (await project.http.get("/auth/v1/admin/users", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("POST", ""), ("GET", f"/{NOBODY}"), ("PUT", f"/{NOBODY}"), ("DELETE", f"/{NOBODY}")],
)
async def test_admin_endpoints_are_for_admins(project: Project, method: str, path: str) -> None:
    """Neither the publishable key nor a user may administrate."""
    session = await project.sign_up()
    for bearer in (KEYS.publishable, session["access_token"]):
        answer = await project.call(method, f"/admin/users{path}", {"email": "x@y.z"}, bearer=bearer)
        assert refusal(answer) == (403, "not_admin", "User not allowed")


async def test_admin_endpoints_need_a_token(project: Project) -> None:
    """Without key and token there is nobody to allow."""
    answer = await project.http.get("/auth/v1/admin/users", headers={"X-Supabase-Api-Version": "2024-01-01"})
    assert refusal(answer)[:2] == (401, "no_authorization")


async def test_admin_creates_with_everything(project: Project) -> None:
    """Id, role and metadata are those the administrator gave."""
    wish = {
        "id": NOBODY,
        "email": "bob@example.com",
        "email_confirm": True,
        "role": "musician",
        "user_metadata": {"nick": "bob"},
        "app_metadata": {"plan": "gold"},
    }
    user = ok(await project.admin("POST", "", wish))
    assert (user["id"], user["role"], user["app_metadata"]["plan"]) == (NOBODY, "musician", "gold")


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (
            {"email": "Ada@example.com"},
            (422, "email_exists", "A user with this email address has already been registered"),
        ),
        (
            {"phone": "+491701234567"},
            (422, "phone_exists", "A user with this phone number has already been registered"),
        ),
        (
            {"email": "bob@example.com", "id": NOBODY},
            (422, "user_already_exists", "A user with this id has already been registered"),
        ),
        (
            {"password": PASSWORD},
            (400, "validation_failed", "Cannot create a user without either an email or phone"),
        ),
        (
            {"email": "b@c.d", "password": "12345"},
            (422, "weak_password", "Password should be at least 6 characters."),
        ),
        (
            {"email": "b@c.d", "id": "7"},
            (400, "bad_json", "Could not parse request body as JSON: Invalid UUID - at `$.id`"),
        ),
    ],
)
async def test_refused_creation(project: Project, wish: Body, expected: tuple[int, str, str]) -> None:
    """A user that cannot be is refused with the reason."""
    ok(await project.admin("POST", "", {"id": NOBODY, "email": EMAIL, "phone": "491701234567"}))
    assert refusal(await project.admin("POST", "", wish)) == expected


async def test_admin_lists_pages(project: Project) -> None:
    """Pages count from 1, the newest user first, and the headers say how many there are."""
    for name in ("ada", "bob", "cy"):
        await project.sign_up(f"{name}@example.com")
    answer = await project.admin("GET", "?page=1&per_page=2")
    assert [user["email"] for user in ok(answer)["users"]] == ["cy@example.com", "bob@example.com"]
    assert answer.headers["x-total-count"] == "3"
    assert answer.headers["link"] == (
        '</admin/users?page=2&per_page=2>; rel="next", </admin/users?page=2&per_page=2>; rel="last"'
    )


@pytest.mark.parametrize("query", ["", "?page=&per_page=", "?page=1&per_page=50"])
async def test_default_page(project: Project, query: str) -> None:
    """Numbers that are absent, or empty as auth-js sends them, mean the first fifty."""
    await project.sign_up()
    answer = await project.admin("GET", query)
    assert (len(ok(answer)["users"]), answer.json()["aud"]) == (1, "authenticated")
    assert answer.headers["link"] == '</admin/users?page=1>; rel="last"'


@pytest.mark.parametrize("query", ["?page=0", "?page=-1", "?page=x", "?per_page=1001", "?page=" + "9" * 30])
async def test_bad_page(project: Project, query: str) -> None:
    """Numbers that cannot be are refused."""
    assert refusal(await project.admin("GET", query))[:2] == (400, "validation_failed")


async def test_admin_finds_a_user(project: Project) -> None:
    """A user can be read by id."""
    user = (await project.sign_up())["user"]
    assert ok(await project.admin("GET", f"/{user['id']}"))["email"] == EMAIL


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("user_id", [NOBODY, "nonsense"])
async def test_unknown_user_is_not_found(project: Project, method: str, user_id: str) -> None:
    """An id that is nobody's is 404 on every admin endpoint."""
    assert refusal(await project.admin(method, f"/{user_id}", {})) == (
        404,
        "user_not_found",
        "User not found",
    )


async def test_admin_confirms_a_user(project: Project) -> None:
    """`email_confirm` lets a user sign in who could not."""
    user = ok(await project.admin("POST", "", {"email": EMAIL, "password": PASSWORD}))
    ok(await project.admin("PUT", f"/{user['id']}", {"email_confirm": True}))
    assert (await project.try_password()).status_code == 200


async def test_admin_sets_a_password(project: Project) -> None:
    """A password set by an administrator ends every session and opens new ones."""
    session = await project.sign_up()
    ok(await project.admin("PUT", f"/{session['user']['id']}", {"password": "battery staple"}))
    assert refusal(await project.user(session))[1] == "session_not_found"
    assert (await project.try_password(EMAIL, "battery staple")).status_code == 200


async def test_admin_bans_and_lifts(project: Project) -> None:
    """A ban shows, holds, and can be lifted."""
    path = f"/{(await project.sign_up())['user']['id']}"
    assert "banned_until" in ok(await project.admin("PUT", path, {"ban_duration": "24h"}))
    assert refusal(await project.try_password())[1] == "user_banned"
    ok(await project.admin("PUT", path, {"ban_duration": "none"}))
    assert (await project.try_password()).status_code == 200


@pytest.mark.parametrize("body", [{"should_soft_delete": False}, {}, None])
async def test_admin_deletes_a_user(project: Project, body: Body | None) -> None:
    """A deleted user is gone, with or without a body in the request."""
    session = await project.sign_up()
    assert ok(await project.admin("DELETE", f"/{session['user']['id']}", body)) == {}
    assert await project.sql("select from auth.users") == []


async def test_soft_deletion_keeps_an_empty_row(project: Project) -> None:
    """The row stays for those who reference it; user, session and address are gone."""
    session = await project.sign_up()
    path = f"/{session['user']['id']}"
    ok(await project.admin("DELETE", path, {"should_soft_delete": True}))
    user = ok(await project.admin("GET", path))
    assert (user["email"], user["identities"], "deleted_at" in user) == ("", [], True)
    assert refusal(await project.user(session))[1] == "user_not_found"
    assert refusal(await project.try_password())[1] == "invalid_credentials"


# Conventions ------------------------------------------------------------------------------------------------


async def test_new_error_shape_repeats_the_version(project: Project) -> None:
    """A caller that names an API version gets `code` and `message`, and the version back."""
    answer = await project.try_password()
    assert set(answer.json()) == {"code", "message"}
    assert answer.headers["x-supabase-api-version"] == "2024-01-01"


async def test_old_error_shape(project: Project) -> None:
    """A caller that names none gets the status as code, and the name of the error beside it."""
    answer = await project.http.post(
        "/auth/v1/token?grant_type=password",
        json={"email": EMAIL, "password": PASSWORD},
        headers={"apikey": KEYS.anon},
    )
    assert answer.json() == {
        "code": 400,
        "error_code": "invalid_credentials",
        "msg": "Invalid login credentials",
    }
    assert "x-supabase-api-version" not in answer.headers
    assert answer.headers["x-sb-error-code"] == "invalid_credentials"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"email=ada&password=x"])
@pytest.mark.parametrize("path", ["/signup", "/token?grant_type=password", "/token?grant_type=refresh_token"])
async def test_body_that_is_not_json(project: Project, path: str, content: bytes) -> None:
    """A body that cannot be read is the caller's mistake."""
    headers = {"apikey": KEYS.anon, "X-Supabase-Api-Version": "2024-01-01"}
    answer = await project.http.post(f"/auth/v1{path}", content=content, headers=headers)
    assert refusal(answer)[:2] == (400, "bad_json")


async def test_body_that_is_too_large(project: Project) -> None:
    """A body of more than 1 MiB is refused, also when its length was not announced."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(17):
            yield b" " * 65_536

    headers = {"apikey": KEYS.anon, "X-Supabase-Api-Version": "2024-01-01"}
    answer = await project.http.post("/auth/v1/signup", content=chunks(), headers=headers)
    assert refusal(answer)[:2] == (413, "request_body_too_large")


@pytest.mark.parametrize(
    "headers",
    [
        {"apikey": "sb_publishable_of_another_project"},
        {"apikey": "sb_x", "Authorization": "Bearer sb_x"},
        {"Authorization": "Bearer sb_secret_wrong"},
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/signup"), ("GET", "/admin/users")])
async def test_unknown_api_key(project: Project, method: str, path: str, headers: dict[str, str]) -> None:
    """An opaque key that is not the project's is refused, as a gateway words it."""
    answer = await project.http.request(method, f"/auth/v1{path}", headers=headers)
    body = answer.json()
    assert (answer.status_code, body["message"], body["hint"]) == (
        401,
        "Invalid API key",
        "Double check your API key.",
    )


async def test_key_of_another_project(project: Project) -> None:
    """A JWT key that another project signed does not open the sign-up."""
    foreign = ApiKeys.of("another secret of at least thirty-two bytes").anon
    assert refusal(await project.call("POST", "/signup", {}, apikey=foreign))[:2] == (401, "invalid_api_key")


async def test_no_api_key(project: Project) -> None:
    """Without any key the answer says where to put one."""
    answer = await project.http.post("/auth/v1/signup", json={"email": EMAIL, "password": PASSWORD})
    assert (answer.status_code, answer.json()["message"]) == (401, "No API key found in request")


async def test_any_key_of_the_project_will_do(project: Project) -> None:
    """A key that somebody minted with the project's secret is as good as the well-known one."""
    key = sign({"iss": "supabase-demo", "role": "anon", "iat": 1641769200, "exp": 1983812996}, SECRET)
    answer = await project.call("POST", "/signup", {"email": EMAIL, "password": PASSWORD}, apikey=key)
    assert answer.status_code == 200


@pytest.mark.parametrize(("method", "path"), [("POST", "/otp"), ("GET", "/authorize"), ("POST", "/")])
async def test_what_is_not_offered(project: Project, method: str, path: str) -> None:
    """What the stand-in does not do is refused as such, in JSON."""
    answer = await project.call(method, path)
    assert refusal(answer)[:2] == (404, "not_found")
    assert "development stand-in" in answer.json()["hint"]


async def test_wrong_method(project: Project) -> None:
    """A path we have with a method we have not is 405, in JSON."""
    assert refusal(await project.call("DELETE", "/user"))[:2] == (405, "method_not_allowed")


async def test_answers_are_not_to_be_stored(project: Project) -> None:
    """No cache keeps a session (RFC 6749 section 5.1)."""
    answer = await project.call("POST", "/signup", {"email": EMAIL, "password": PASSWORD})
    assert answer.headers["cache-control"] == "no-store"


async def test_health(project: Project) -> None:
    """Whoever asks for GoTrue is told it is a stand-in."""
    body = ok(await project.call("GET", "/health"))
    assert (body["name"], "stand-in" in body["description"]) == ("GoTrue", True)


async def test_settings(database_url: str) -> None:
    """The settings are those the service runs with."""
    async with serving(database_url, anonymous=False, autoconfirm=False) as project:
        assert ok(await project.call("GET", "/settings")) == {
            "external": {"email": True, "phone": False, "anonymous_users": False},
            "disable_signup": False,
            "mailer_autoconfirm": False,
            "phone_autoconfirm": False,
            "saml_enabled": False,
        }


async def test_key_set_is_empty(project: Project) -> None:
    """A shared secret is not published."""
    assert ok(await project.call("GET", "/.well-known/jwks.json")) == {"keys": []}


async def test_token_lifetime_is_a_setting(database_url: str) -> None:
    """The lifetime shows in the session and in the token."""
    async with serving(database_url, token_lifetime=120) as project:
        session = await project.sign_up()
    claims = Verifier(SECRET).verify(session["access_token"], now=0).claims
    assert (session["expires_in"], claims.exp - claims.values["iat"]) == (120, 120)


# When things go wrong ---------------------------------------------------------------------------------------


async def test_database_that_cannot_be_reached(postgres: Cluster, database_url: str) -> None:
    """Without a database the answer is 503 and says so."""
    async with serving(database_url, wait=0.2) as project:
        name = project.database.info.dbname
        with psycopg.connect(postgres.url, autocommit=True) as other:
            other.execute(f"alter database {name} allow_connections false".encode())
            other.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (name,)
            )
        assert refusal(await project.try_password()) == (
            503,
            "database_unavailable",
            "The auth service cannot reach the project's database",
        )


async def test_connection_lost_in_the_middle(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that breaks within a transaction is 503, and the next request works again."""
    session = await project.sign_up()

    async def break_then_read(*_: object) -> None:
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    with monkeypatch.context() as patch:
        patch.setattr("backbeat.local.auth.store.find_user", break_then_read)
        assert refusal(await project.user(session))[:2] == (503, "database_unavailable")
    assert (await project.user(session)).status_code == 200


async def test_defect_of_ours(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect answers 500 without its text, and reaches the server, which logs the traceback."""
    session = await project.sign_up()

    async def fail(*_: object) -> None:
        raise LookupError("internal detail")

    monkeypatch.setattr("backbeat.local.auth.store.find_user", fail)
    with pytest.raises(LookupError):
        await project.user(session)
    project.http._transport.raise_app_exceptions = False  # type: ignore[attr-defined]
    answer = await project.user(session)
    assert refusal(answer)[:2] == (500, "unexpected_failure")
    assert "internal detail" not in answer.text


async def test_deleting_and_refreshing_at_once(project: Project) -> None:
    """A deletion that meets refreshes and sign-ins leaves nothing behind, and nobody waits forever."""
    session = await project.sign_up()
    user_id = UUID(session["user"]["id"])
    answers = await asyncio.gather(
        project.refresh(session["refresh_token"]),
        project.admin("DELETE", f"/{user_id}"),
        project.try_password(),
        project.call("POST", "/logout", bearer=session["access_token"]),
    )
    assert all(answer.status_code < 500 for answer in answers)
    assert await project.sql("select from auth.sessions") == []


async def test_nothing_secret_is_logged(project: Project) -> None:
    """Through sign-up, a wrong password, a refresh and a replay, no password and no token is logged."""
    with capture_logs() as logs:
        session = await project.sign_up()
        await project.try_password(EMAIL, "a wrong password")
        await project.refresh(session["refresh_token"])
        await project.sql("update auth.refresh_tokens set used_at = used_at - interval '1 hour'")
        await project.refresh(session["refresh_token"])
    text = repr(logs)
    secrets = (PASSWORD, "a wrong password", session["refresh_token"], session["access_token"])
    assert "refresh token replayed" in text
    assert not any(secret in text for secret in secrets)
