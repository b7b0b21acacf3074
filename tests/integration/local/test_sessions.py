"""`backbeat.session` against the auth service of the local project, over HTTP on a real port."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from backbeat.errors import AuthRefused, TokenRefused
from backbeat.local.auth import Auth, passwords
from backbeat.local.auth.service import Service
from backbeat.local.auth.sessions import subject_of
from backbeat.postgres.database import Database
from backbeat.server.http import HttpServer
from backbeat.server.listener import listen
from backbeat.session import AuthChange, AuthContext, FileStore, OfflineSession, Refreshed, Rejected
from backbeat.tokens.keys import ApiKeys
from backbeat.tokens.verifier import Verifier

SECRET = "super-secret-jwt-token-with-at-least-32-characters-long"
KEYS = ApiKeys.of(SECRET, publishable="sb_publishable_test", secret="sb_secret_test")
EMAIL = "ada@example.com"
PASSWORD = "correct horse"
PATIENCE = 30.0
SHARER = Path(__file__).with_name("share_session.py")


class Running:
    """A running auth service.

    Args:
        url: the project's URL.
        users: what the service does, without HTTP.
    """

    def __init__(self, url: str, users: Service) -> None:
        self.url = url
        self.users = users
        self.presented: list[str] = []

    def auth(self, path: Path | None = None, *, key: str = KEYS.publishable) -> AuthContext:
        """A program that signs in there."""
        return AuthContext(self.url, key, store=FileStore(path, interval=0.02) if path else None)


@asynccontextmanager
async def serving(url: str, **options: Any) -> AsyncIterator[Running]:
    """Serve `/auth/v1` of a database until the block ends."""
    database = Database(url, size=10)
    listeners = listen("127.0.0.1", 0, flag="--port")
    address = f"http://127.0.0.1:{listeners[0].getsockname()[1]}"
    auth = Auth(
        database=database,
        keys=KEYS,
        verifier=Verifier(SECRET),
        jwt_secret=SECRET,
        issuer=f"{address}/auth/v1",
        **options,
    )
    running = Running(address, auth._service)
    # How often each refresh token is presented is what only the service can tell.
    refresh = auth._service.refresh

    async def counting(refresh_token: str | None) -> Any:
        running.presented.append(str(refresh_token))
        return await refresh(refresh_token)

    auth._service.refresh = counting  # type: ignore[method-assign]
    stop = asyncio.Event()
    await database.open()
    serving = asyncio.create_task(HttpServer(Starlette(routes=auth.routes()), listeners).run_until(stop))
    try:
        yield running
    finally:
        stop.set()
        await serving
        await database.aclose()
        await auth.aclose()


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """New hashes at bcrypt's lowest cost: these tests are not about time."""
    monkeypatch.setattr(passwords, "COST", 4)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the machine would stand between us and loopback."""
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[Running]:
    """An auth service with the defaults of `backbeat dev`."""
    async with serving(database_url) as service:
        yield service


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a session is kept."""
    return tmp_path / "session.json"


@pytest.mark.parametrize("key", [KEYS.publishable, KEYS.anon], ids=["publishable", "anon"])
async def test_a_whole_life(service: Running, path: Path, key: str) -> None:
    """Signed up, restored, refreshed, changed, signed out; with either kind of key."""
    async with service.auth(path, key=key) as auth:
        assert auth.session is None
        session = await auth.sign_up(EMAIL, PASSWORD, data={"nick": "Ada"})
        assert session is not None
        assert session.user["user_metadata"]["nick"] == "Ada"
    async with service.auth(path, key=key) as auth:
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
        await service.users.user_of(subject)


async def test_anonymous_users_sign_in(service: Running) -> None:
    """The local project allows it."""
    async with service.auth() as auth:
        session = await auth.sign_in_anonymously(data={"nick": "guest"})
        assert session.user["is_anonymous"] is True


@pytest.mark.parametrize(
    ("email", "password", "code"),
    [
        (EMAIL, "wrong", "invalid_credentials"),
        ("nobody@example.com", PASSWORD, "invalid_credentials"),
    ],
)
async def test_a_refused_sign_in_has_its_code(service: Running, email: str, password: str, code: str) -> None:
    """The service's own, with a hint of ours."""
    async with service.auth() as auth:
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
async def test_a_refused_sign_up_has_its_code(service: Running, email: str, password: str, code: str) -> None:
    """An address that is taken, a password that is too short."""
    async with service.auth() as auth:
        await auth.sign_up(EMAIL, PASSWORD)
        with pytest.raises(AuthRefused) as caught:
            await auth.sign_up(email, password)
    assert caught.value.code == code


async def test_a_wrong_key_has_its_code(service: Running) -> None:
    """It is the key of another project, and is not repeated."""
    async with service.auth(key="sb_publishable_other") as auth:
        with pytest.raises(AuthRefused, match="publishable or anon key") as caught:
            await auth.sign_in_with_password(EMAIL, PASSWORD)
    assert caught.value.code == "invalid_api_key"
    assert "sb_publishable_other" not in f"{caught.value!r} {caught.value}"


async def test_scopes_end_what_they_say(service: Running) -> None:
    """Three devices of one user: the others, then everybody."""
    async with service.auth() as first, service.auth() as second, service.auth() as third:
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


async def test_an_outage_ends_no_session(database_url: str, service: Running, path: Path) -> None:
    """The service goes away and its port is closed: who was signed in still is."""
    async with serving(database_url) as other, other.auth(path) as auth:
        session = await auth.sign_up(EMAIL, PASSWORD)
    expired = replace(session, expires_at=1) if session else None
    async with other.auth(path) as auth:
        assert expired is not None
        await auth.sessions.save_session(expired)
        await auth.sessions.stop_auto_refresh()
    async with other.auth(path) as auth:
        assert auth.session == expired
        assert isinstance(await auth.get_available_session(), OfflineSession)


async def test_processes_that_share_a_file_refresh_once(database_url: str, path: Path) -> None:
    """Four programs and this one: each refresh token is presented once, and all notice a sign-out."""
    async with serving(database_url, token_lifetime=3) as service, service.auth(path) as auth:
        await auth.sign_up(EMAIL, PASSWORD)
        programs = [await started(service.url, path) for _ in range(4)]
        try:
            async with asyncio.timeout(PATIENCE):
                lives = asyncio.gather(*(program.communicate() for program in programs))
                already = len(service.presented)
                async for event in auth.events():
                    if event.kind is AuthChange.TOKEN_REFRESHED and len(service.presented) >= already + 2:
                        break
                await auth.sign_out()
                outputs = [output.decode() for output, _ in await lives]
        finally:
            for program in programs:
                if program.returncode is None:
                    program.kill()
                    await program.wait()
    assert len(service.presented) == len(set(service.presented))
    for output in outputs:
        kinds = output.split()
        assert "TOKEN_REFRESHED" in kinds
        assert kinds[-1] == "SIGNED_OUT"
        assert not {"REFRESH_FAILED", "SET_ASIDE", "SIGNED_IN"} & set(kinds)


async def started(url: str, path: Path) -> asyncio.subprocess.Process:
    """Start a program that shares a session, and wait until it follows it."""
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        SHARER,
        url,
        KEYS.publishable,
        path,
        stdout=asyncio.subprocess.PIPE,
    )
    assert program.stdout is not None
    async with asyncio.timeout(PATIENCE):
        assert (await program.stdout.readline()).strip() == b"INITIAL_SESSION"
    return program
