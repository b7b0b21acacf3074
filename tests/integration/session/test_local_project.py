"""`backbeat.session` against the auth service of the local project, over HTTP on a real port."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.auth_service import AuthService, serving_auth

from backbeat.errors import AuthRefused, TokenRefused
from backbeat.local.auth.sessions import subject_of
from backbeat.session import AuthChange, FileStore, OfflineSession, Refreshed, Rejected
from backbeat.tokens.verifier import Verifier

SECRET = "super-secret-jwt-token-with-at-least-32-characters-long"
EMAIL = "ada@example.com"
PASSWORD = "correct horse"
PATIENCE = 30.0
SHARER = Path(__file__).with_name("share_session.py")


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[AuthService]:
    """An auth service with the defaults of `backbeat dev`."""
    async with serving_auth(database_url, secret=SECRET) as service:
        yield service


@pytest.mark.parametrize("kind", ["publishable", "anon"])
async def test_a_whole_life(service: AuthService, path: Path, kind: str) -> None:
    """Signed up, restored, refreshed, changed, signed out; with either kind of key."""
    key = getattr(service.keys, kind)
    async with service.program(path, key=key) as auth:
        assert auth.session is None
        session = await auth.sign_up(EMAIL, PASSWORD, data={"nick": "Ada"})
        assert session is not None
        assert session.user["user_metadata"]["nick"] == "Ada"
    async with service.program(path, key=key) as auth:
        assert auth.session == session
        assert await auth.token() == session.access_token
        result = await auth.refresh(force=True)
        assert isinstance(result, Refreshed)
        assert result.session.user_id == session.user_id
        user = await auth.update_user(data={"nick": "Countess"})
        assert user["user_metadata"]["nick"] == "Countess"
        token = await auth.token()
        await auth.sign_out()
        assert await auth.token() is None
    assert token
    assert await FileStore(path).get() is None
    subject = subject_of(Verifier(SECRET).verify(token, now=0).claims.values)
    with pytest.raises(TokenRefused, match="Session from session_id"):
        await service.service.user_of(subject)


async def test_anonymous_users_sign_in(service: AuthService) -> None:
    """The local project allows it."""
    async with service.program() as auth:
        session = await auth.sign_in_anonymously(data={"nick": "guest"})
        assert session.user["is_anonymous"] is True


@pytest.mark.parametrize(
    ("email", "password", "code"),
    [
        (EMAIL, "wrong", "invalid_credentials"),
        ("nobody@example.com", PASSWORD, "invalid_credentials"),
    ],
)
async def test_a_refused_sign_in_has_its_code(
    service: AuthService, email: str, password: str, code: str
) -> None:
    """The service's own, with a hint of ours."""
    async with service.program() as auth:
        await auth.sign_up(EMAIL, PASSWORD)
        await auth.sign_out()
        with pytest.raises(AuthRefused) as caught:
            await auth.sign_in_with_password(email, password)
    assert (caught.value.code, caught.value.status) == (code, 400)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("email", "password", "code"),
    [(EMAIL, PASSWORD, "user_already_exists"), ("bob@example.com", "short", "weak_password")],
)
async def test_a_refused_sign_up_has_its_code(
    service: AuthService, email: str, password: str, code: str
) -> None:
    """An address that is taken, a password that is too short."""
    async with service.program() as auth:
        await auth.sign_up(EMAIL, PASSWORD)
        with pytest.raises(AuthRefused) as caught:
            await auth.sign_up(email, password)
    assert caught.value.code == code


async def test_a_wrong_key_has_its_code(service: AuthService) -> None:
    """It is the key of another project, and is not repeated."""
    async with service.program(key="sb_publishable_other") as auth:
        with pytest.raises(AuthRefused, match="publishable or anon key") as caught:
            await auth.sign_in_with_password(EMAIL, PASSWORD)
    assert caught.value.code == "invalid_api_key"
    assert "sb_publishable_other" not in f"{caught.value!r} {caught.value}"


async def test_scopes_end_what_they_say(service: AuthService) -> None:
    """Three devices of one user: the others, then everybody."""
    async with service.program() as first, service.program() as second, service.program() as third:
        await first.sign_up(EMAIL, PASSWORD)
        for other in (second, third):
            await other.sign_in_with_password(EMAIL, PASSWORD)
        await second.sign_out("local")
        assert isinstance(await first.refresh(force=True), Refreshed)
        await second.sign_in_with_password(EMAIL, PASSWORD)
        await first.sign_out("others")
        assert isinstance(await first.refresh(force=True), Refreshed)
        assert isinstance(await third.refresh(force=True), Rejected)
        await second.sign_in_with_password(EMAIL, PASSWORD)
        await first.sign_out("global")
        assert isinstance(await second.refresh(force=True), Rejected)


async def test_an_outage_ends_no_session(database_url: str, service: AuthService, path: Path) -> None:
    """The service goes away and its port is closed: who was signed in still is."""
    async with serving_auth(database_url, secret=SECRET) as other, other.program(path) as auth:
        session = await auth.sign_up(EMAIL, PASSWORD)
    expired = replace(session, expires_at=1) if session else None
    async with other.program(path) as auth:
        assert expired is not None
        await auth.sessions.save_session(expired)
        await auth.sessions.stop_auto_refresh()
    async with other.program(path) as auth:
        assert auth.session == expired
        assert isinstance(await auth.get_available_session(), OfflineSession)


async def test_processes_that_share_a_file_refresh_once(database_url: str, path: Path) -> None:
    """Four programs and this one: each refresh token is presented once, and all notice a sign-out."""
    async with (
        serving_auth(database_url, secret=SECRET, token_lifetime=3) as service,
        service.program(path) as auth,
        AsyncExitStack() as stack,
        asyncio.timeout(PATIENCE),
    ):
        await auth.sign_up(EMAIL, PASSWORD)
        programs = [await stack.enter_async_context(started(service, path)) for _ in range(4)]
        lives = asyncio.gather(*(program.communicate() for program in programs))
        already = len(service.presented)
        async for event in auth.events():
            if event.kind is AuthChange.TOKEN_REFRESHED and len(service.presented) >= already + 2:
                break
        await auth.sign_out()
        outputs = [output.decode() for output, _ in await lives]
    assert len(service.presented) == len(set(service.presented))
    for output in outputs:
        kinds = output.split()
        assert "TOKEN_REFRESHED" in kinds
        assert kinds[-1] == "SIGNED_OUT"
        assert not {"REFRESH_FAILED", "SET_ASIDE", "SIGNED_IN"} & set(kinds)


@asynccontextmanager
async def started(service: AuthService, path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program that shares a session and follows it; it does not outlive the block."""
    command = (sys.executable, SHARER, service.url, service.keys.publishable, path)
    program = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert program.stdout is not None
        assert (await program.stdout.readline()).strip() == b"INITIAL_SESSION"
        yield program
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
