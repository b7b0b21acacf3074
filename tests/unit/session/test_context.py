"""Signing in and out over HTTP, with an auth service that is played."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from tests.unit.session.conftest import LIFETIME, make_session
from tests.virtual_clock import VirtualClock

from backbeat.errors import AuthRefused, AuthUnavailable, ConfigurationError, NotSignedIn
from backbeat.session.context import AuthContext
from backbeat.session.policy import Deferred
from backbeat.session.session import AuthChange, OfflineSession
from backbeat.session.stores import MemoryStore

URL = "https://band.example.com"
KEY = "sb_publishable_test"
PASSWORD = 'correct "horse" \\ bättery'

Begin = Callable[..., AuthContext]


class Played:
    """An auth service: remembers what it was asked, and answers as it is told to.

    Args:
        clock: the time at which it issues tokens.
    """

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.requests: list[httpx.Request] = []
        self.answers: list[httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]] = []
        self.issued = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer."""
        self.requests.append(request)
        if self.answers:
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer if isinstance(answer, httpx.Response) else answer(request)
        if request.url.path == "/auth/v1/logout":
            return httpx.Response(204)
        if request.method == "PUT":
            return httpx.Response(200, json={"id": "ada"} | json.loads(request.content))
        self.issued += 1
        return httpx.Response(200, json=make_session(self.issued, now=self.clock.wall()).fields())

    @property
    def paths(self) -> list[str]:
        """What was asked for, without `/auth/v1`."""
        return [request.url.raw_path.decode().removeprefix("/auth/v1") for request in self.requests]


def refusal(status: int, code: str) -> httpx.Response:
    """An error as GoTrue words it."""
    return httpx.Response(status, json={"code": code, "message": f"no: {code}"})


@pytest.fixture
def service(clock: VirtualClock) -> Played:
    """An auth service that says yes."""
    return Played(clock)


@pytest.fixture
async def begin(store: MemoryStore, service: Played) -> AsyncIterator[Begin]:
    """Begin programs that share a store; all end with the test."""
    programs: list[AuthContext] = []

    def make(url: str = URL, key: str = KEY) -> AuthContext:
        transport = httpx.MockTransport(service)
        programs.append(AuthContext(url, key, store=store, transport=transport, clock=service.clock))
        return programs[-1]

    yield make
    for program in programs:
        await program.close()


@pytest.fixture
async def auth(begin: Begin) -> AuthContext:
    """A program in which nobody is signed in yet."""
    auth = begin()
    await auth.open()
    return auth


# Requests ---------------------------------------------------------------------------------------------------


async def test_requests_carry_what_the_service_expects(auth: AuthContext, service: Played) -> None:
    """The key in both places, the version that words errors with codes, and JSON."""
    await auth.sign_in_with_password("ada@example.com", PASSWORD)
    (request,) = service.requests
    assert request.headers["apikey"] == KEY
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["x-supabase-api-version"] == "2024-01-01"
    assert request.headers["content-type"].startswith("application/json")


async def test_what_a_user_does_is_asked_with_their_token(auth: AuthContext, service: Played) -> None:
    """A refresh is not: the old token may have ended."""
    session = await auth.sign_in_with_password("ada@example.com", PASSWORD)
    await auth.update_user(data={"nick": "Ada"})
    await auth.refresh(force=True)
    bearers = [request.headers["authorization"] for request in service.requests[1:]]
    assert bearers == [f"Bearer {session.access_token}", f"Bearer {KEY}"]


@pytest.mark.parametrize(
    "url", [URL, f"{URL}/", f"{URL}/auth/v1", f"{URL}/auth/v1/", f"{URL}?x=1", f" {URL} "]
)
async def test_the_url_of_the_project_is_enough(begin: Begin, service: Played, url: str) -> None:
    """With or without what comes behind."""
    await begin(url).sign_in_anonymously()
    assert str(service.requests[0].url) == f"{URL}/auth/v1/signup"


@pytest.mark.parametrize("url", ["", "band", "ftp://band", "http://", "http://user:pw@band", "http://[::1"])
def test_what_is_no_url_is_a_configuration_error(url: str) -> None:
    """And what it may have held is not repeated."""
    with pytest.raises(ConfigurationError, match="URL") as caught:
        AuthContext(url, KEY)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("key", ["", "two words", "key\n", "schlüssel"])
def test_what_is_no_key_is_a_configuration_error(key: str) -> None:
    """An empty variable, most of the time; the key is not repeated."""
    with pytest.raises(ConfigurationError, match="API key") as caught:
        AuthContext(URL, key)
    assert not key or key not in str(caught.value)


# Signing in -------------------------------------------------------------------------------------------------


async def test_a_fresh_login(auth: AuthContext, service: Played, caplog: pytest.LogCaptureFixture) -> None:
    """Signed in, kept, and its token handed out; one log line says so (AC-2)."""
    caplog.clear()
    session = await auth.sign_in_with_password("ada@example.com", PASSWORD)
    assert auth.session == session
    assert await auth.token() == session.access_token
    said = [line.partition(" (")[0] for line in caplog.messages]
    assert "🔐 Realtime auth configured with user JWT" in said
    assert "🔐 Realtime auth restored from session" not in said


async def test_a_restart_restores_the_session(
    auth: AuthContext, begin: Begin, service: Played, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a request, and with another log line than a login (AC-1, AC-6)."""
    session = await auth.sign_in_with_password("ada@example.com", PASSWORD)
    again = begin()
    caplog.clear()
    await again.open()
    assert await again.token() == session.access_token
    assert len(service.requests) == 1
    said = [line.partition(" (")[0] for line in caplog.messages]
    assert said == ["🔐 Realtime auth restored from session"]


async def test_a_start_without_a_session_restores_nothing(
    begin: Begin, caplog: pytest.LogCaptureFixture
) -> None:
    """And says nothing."""
    caplog.clear()
    await begin().open()
    assert caplog.messages == []


async def test_a_restored_session_that_ended_is_refreshed_first(
    auth: AuthContext, begin: Begin, service: Played, clock: VirtualClock
) -> None:
    """AC-5, with a network."""
    await auth.sign_in_with_password("ada@example.com", PASSWORD)
    await auth.close()
    await clock.advance(2 * LIFETIME)
    again = begin()
    await again.open()
    assert service.paths[-1] == "/token?grant_type=refresh_token"
    assert await again.token() == make_session(2, now=clock.wall()).access_token


async def test_a_restored_session_that_ended_goes_on_offline(
    auth: AuthContext, begin: Begin, service: Played, clock: VirtualClock
) -> None:
    """AC-5, without a network: nobody is signed out, there is no token, and it comes with the network."""
    await auth.sign_in_with_password("ada@example.com", PASSWORD)
    await auth.close()
    await clock.advance(2 * LIFETIME)
    service.answers = [httpx.ConnectError("no route")] * 2
    again = begin()
    await again.open()
    assert isinstance(await again.get_available_session(), OfflineSession)
    with pytest.raises(AuthUnavailable, match="could not be refreshed"):
        await again.token()
    await clock.advance(10)
    assert await again.token() == make_session(2, now=clock.wall() - 10).access_token or again.session


async def test_a_restored_session_that_is_refused_is_over(
    auth: AuthContext, begin: Begin, service: Played, store: MemoryStore, clock: VirtualClock
) -> None:
    """AC-5, refused: nobody is signed in."""
    await auth.sign_in_with_password("ada@example.com", PASSWORD)
    await auth.close()
    await clock.advance(2 * LIFETIME)
    service.answers = [refusal(400, "refresh_token_not_found")]
    again = begin()
    await again.open()
    assert again.session is None
    assert await again.token() is None
    assert await store.get() is None


async def test_signing_in_again_is_a_new_sign_in(auth: AuthContext, clock: VirtualClock) -> None:
    """Even of the same user: comparison alone would call it a refresh."""
    events: list[Any] = []
    auth.on_change(events.append)
    await clock.settle()
    for _ in range(2):
        await auth.sign_in_with_password("ada@example.com", PASSWORD)
    await clock.settle()
    assert [event.kind for event in events[1:]] == [AuthChange.SIGNED_IN] * 2


async def test_a_wrong_password_changes_nothing(auth: AuthContext, service: Played) -> None:
    """It is said with code and hint, and whoever was signed in still is."""
    session = await auth.sign_in_with_password("ada@example.com", PASSWORD)
    service.answers = [refusal(400, "invalid_credentials")]
    with pytest.raises(AuthRefused, match="password is another") as caught:
        await auth.sign_in_with_password("ada@example.com", "wrong")
    assert caught.value.code == "invalid_credentials"
    assert auth.session == session


async def test_a_sign_up_that_has_to_be_confirmed_signs_nobody_in(auth: AuthContext, service: Played) -> None:
    """The project sends a mail first."""
    service.answers = [
        httpx.Response(200, json={"id": "ada", "confirmation_sent_at": "2026-01-01T00:00:00Z"})
    ]
    assert await auth.sign_up("ada@example.com", PASSWORD) is None
    assert auth.session is None


async def test_a_sign_up_signs_in(auth: AuthContext, service: Played) -> None:
    """What is to be known of the user goes along."""
    session = await auth.sign_up("ada@example.com", PASSWORD, data={"nick": "Ada"})
    assert auth.session == session
    assert json.loads(service.requests[0].content)["data"] == {"nick": "Ada"}


# The user ---------------------------------------------------------------------------------------------------


async def test_a_change_of_the_user_is_kept_and_told(auth: AuthContext, clock: VirtualClock) -> None:
    """Only what is given is sent, and the token stays."""
    session = await auth.sign_in_with_password("ada@example.com", PASSWORD)
    events: list[Any] = []
    auth.on_change(events.append)
    await clock.settle()
    user = await auth.update_user(data={"nick": "Countess"})
    await clock.settle()
    assert user == {"id": "ada", "data": {"nick": "Countess"}}
    assert auth.session is not None
    assert (auth.session.user, auth.session.access_token) == (user, session.access_token)
    assert events[-1].kind is AuthChange.USER_UPDATED


async def test_nobody_changes_the_user_of_nobody(auth: AuthContext, service: Played) -> None:
    """Nothing is sent."""
    with pytest.raises(NotSignedIn, match="Sign in first"):
        await auth.update_user(data={})
    assert service.requests == []


# Signing out ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["global", "local", "others"])
async def test_each_scope_is_asked_for(auth: AuthContext, service: Played, scope: Any) -> None:
    """With the user's token."""
    session = await auth.sign_in_with_password("ada@example.com", PASSWORD)
    await auth.sign_out(scope)
    assert service.paths[-1] == f"/logout?scope={scope}"
    assert service.requests[-1].headers["authorization"] == f"Bearer {session.access_token}"
    assert (auth.session is None) is (scope != "others")


async def test_signing_out_when_nobody_is_signed_in_is_nothing(auth: AuthContext, service: Played) -> None:
    """In every scope."""
    for scope in ("global", "local", "others"):
        await auth.sign_out(scope)
    assert service.requests == []


@pytest.mark.parametrize("failure", [httpx.ConnectError("no route"), httpx.Response(500)])
async def test_signing_out_everywhere_keeps_the_session_if_the_server_fails(
    auth: AuthContext, service: Played, failure: Any
) -> None:
    """Otherwise the others would live on, and nobody could end them."""
    session = await auth.sign_in_with_password("ada@example.com", PASSWORD)
    service.answers = [failure]
    with pytest.raises(AuthUnavailable):
        await auth.sign_out()
    assert auth.session == session


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_session_that_the_server_does_not_know_is_signed_out(
    auth: AuthContext, service: Played, status: int
) -> None:
    """It is what was wanted."""
    await auth.sign_in_with_password("ada@example.com", PASSWORD)
    service.answers = [refusal(status, "session_not_found")]
    await auth.sign_out()
    assert auth.session is None


@pytest.mark.parametrize("failure", [httpx.ConnectError("no route"), httpx.Response(500)])
async def test_signing_out_here_needs_no_server(
    *,
    auth: AuthContext,
    service: Played,
    store: MemoryStore,
    clock: VirtualClock,
    failure: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The session is gone and SIGNED_OUT said before the server is asked; that it failed is in the log."""
    await auth.sign_in_with_password("ada@example.com", PASSWORD)
    events: list[Any] = []
    auth.on_change(events.append)
    await clock.settle()
    service.answers = [failure]
    caplog.clear()
    await auth.sign_out("local")
    await clock.settle()
    assert await store.get() is None
    assert [event.kind for event in events[1:]] == [AuthChange.SIGNED_OUT]
    assert "the session was not ended on the server" in caplog.text


async def test_ending_the_others_is_no_event(auth: AuthContext, clock: VirtualClock) -> None:
    """Nothing changed here."""
    await auth.sign_in_with_password("ada@example.com", PASSWORD)
    events: list[Any] = []
    auth.on_change(events.append)
    await clock.settle()
    await auth.sign_out("others")
    await clock.settle()
    assert len(events) == 1


async def test_an_unknown_scope_is_a_value_error(auth: AuthContext) -> None:
    """Before anything is done."""
    with pytest.raises(ValueError, match="everywhere"):
        await auth.sign_out("everywhere")  # type: ignore[arg-type] # so mypy says, too


# The network ------------------------------------------------------------------------------------------------


async def test_an_answer_without_end_is_not_read_to_it(auth: AuthContext, service: Played) -> None:
    """A megabyte is more than any session."""
    service.answers = [httpx.Response(200, content=b" " * (1 << 20) + b"{}")]
    with pytest.raises(AuthUnavailable, match="larger than"):
        await auth.sign_in_anonymously()


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, html="<h1>Welcome to the hotel</h1>"),
        httpx.Response(302, headers={"location": "http://hotel.example.com/"}),
        httpx.Response(403, html="Blocked"),
        httpx.Response(511, html="Sign in to the network"),
    ],
    ids=["page", "redirect", "firewall", "511"],
)
async def test_the_network_of_a_hotel_signs_nobody_out(
    auth: AuthContext, service: Played, clock: VirtualClock, answer: httpx.Response
) -> None:
    """However long the access token is over."""
    session = await auth.sign_in_with_password("ada@example.com", PASSWORD)
    await auth.sessions.stop_auto_refresh()
    await clock.advance(2 * LIFETIME)
    service.answers = [answer]
    assert isinstance(await auth.refresh(), Deferred)
    assert auth.session == session


async def test_a_clock_that_is_an_hour_slow_is_put_right(
    auth: AuthContext, service: Played, clock: VirtualClock
) -> None:
    """The answer says what time it is there; by the clock here the token would be good for two hours."""
    fields = make_session(1, now=clock.wall() + 3600).fields()
    date = "Tue, 14 Nov 2023 23:13:20 GMT"
    service.answers = [httpx.Response(200, json=fields, headers={"date": date})]
    await auth.sign_in_with_password("ada@example.com", PASSWORD)
    await clock.advance(LIFETIME - 119)
    assert service.paths[-1] == "/token?grant_type=refresh_token"


async def test_the_clock_of_a_hotel_is_not_believed(
    auth: AuthContext, service: Played, clock: VirtualClock
) -> None:
    """Its page is a day fast; the token is good all the same."""
    session = await auth.sign_in_with_password("ada@example.com", PASSWORD)
    date = "Wed, 15 Nov 2023 22:13:20 GMT"
    service.answers = [httpx.Response(200, html="Welcome", headers={"date": date})]
    with pytest.raises(AuthUnavailable):
        await auth.sign_in_anonymously()
    assert await auth.token() == session.access_token
    assert len(service.requests) == 2


async def test_nothing_is_left_after_the_end(begin: Begin) -> None:
    """No task, and no connection that could be used again."""
    before = asyncio.all_tasks()
    async with begin() as auth:
        await auth.sign_in_with_password("ada@example.com", PASSWORD)
    assert asyncio.all_tasks() == before
    with pytest.raises(RuntimeError, match="closed"):
        await auth.sign_in_with_password("ada@example.com", PASSWORD)


# Secrets ----------------------------------------------------------------------------------------------------


async def test_no_error_and_no_log_line_shows_a_secret(
    auth: AuthContext, service: Played, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even if the server repeats what it was sent, in any way of asking that fails."""
    session = await auth.sign_in_with_password("ada@example.com", PASSWORD)

    def echo(status: int) -> Callable[[httpx.Request], httpx.Response]:
        def answer(request: httpx.Request) -> httpx.Response:
            sent = f"{request.headers['authorization']} {request.content.decode()}"
            return httpx.Response(status, json={"code": "validation_failed", "message": f"bad: {sent}"})

        return answer

    failures: list[Any] = [echo(422), echo(500), httpx.ReadError("")]
    shown: list[str] = [repr(auth), str(auth), repr(auth.sessions)]
    caplog.clear()
    for failure in failures:
        for call in (
            lambda: auth.sign_in_with_password("ada@example.com", PASSWORD),
            lambda: auth.update_user(password=PASSWORD),
            lambda: auth.sign_out("others"),
        ):
            service.answers = [failure]
            with pytest.raises((AuthRefused, AuthUnavailable)) as caught:
                await call()
            shown.append(f"{caught.value!r} {caught.value} {caught.value.hint}")
        service.answers = [failure]
        await auth.sessions.stop_auto_refresh()
        refreshing = asyncio.create_task(auth.refresh(force=True))
        await clock.advance(1)
        shown.append(f"{await refreshing!r}")
    text = f"{shown!r}{caplog.text}"
    assert "validation_failed" in text
    for secret in ("correct", "horse", session.access_token, session.refresh_token):
        assert secret not in text
