"""A blocking session and a blocking client against a real project; and the page that shows them."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.auth_service import AuthService
from tests.examples import examples
from tests.integration.server.conftest import ERIC, Running
from tests.integration.sync.test_threads import threads_of_clients

from backbeat.client.events import Interrupted, Resumed
from backbeat.errors import AuthRefused, ClientClosed
from backbeat.session import AuthChange, AuthEvent
from backbeat.sync import AuthContext, RealtimeClient

EMAIL = "ada@example.com"
PASSWORD = "correct horse"
SOON = 15.0

PAGE = Path(__file__).parents[3] / "docs" / "blocking.md"


def program(service: AuthService) -> AuthContext:
    """A program that signs in."""
    return AuthContext(service.url, service.keys.publishable)


async def test_a_client_follows_the_session(server: Running, service: AuthService) -> None:
    """Who signs up joins as themselves, who signs out hears nothing more, and who signs in again does."""

    def script() -> None:
        with (
            program(service) as auth,
            RealtimeClient(server.url, server.realtime.settings.keys.anon, token=auth) as client,
        ):
            session = auth.sign_up(EMAIL, PASSWORD)
            assert session == auth.session
            channel = client.channel("open-1", private=True).subscribe()
            interrupted, resumed = (channel.events(each, timeout=SOON) for each in (Interrupted, Resumed))
            auth.sign_out()
            assert "nobody" in str(next(interrupted).error)
            assert not channel.is_joined
            auth.sign_in_with_password(EMAIL, PASSWORD)
            assert next(resumed).as_user

    await asyncio.to_thread(script)
    assert threads_of_clients() == []


async def test_what_happens_is_iterated_and_called_back(service: AuthService) -> None:
    """In the same order, until the context is closed; callbacks run on a thread of their own."""
    expected = [
        AuthChange.INITIAL_SESSION,
        AuthChange.SIGNED_IN,
        AuthChange.USER_UPDATED,
        AuthChange.SIGNED_OUT,
    ]
    called: list[tuple[AuthChange, str]] = []

    def call(event: AuthEvent) -> None:
        called.append((event.kind, threading.current_thread().name))

    def script() -> list[AuthChange]:
        with program(service) as auth:
            events = auth.events(timeout=SOON)
            auth.on_change(call)
            auth.sign_up(EMAIL, PASSWORD)
            auth.update_user(data={"plays": "bass"})
            auth.sign_out()
            kinds = [next(events).kind for _ in expected]
            while len(called) < len(expected):
                auth.token()
        assert list(events) == []
        return kinds

    assert await asyncio.to_thread(script) == expected
    assert [kind for kind, _ in called] == expected
    assert all(thread.endswith(" callbacks") for _, thread in called)


async def test_a_refused_sign_in_raises_where_it_was_tried(service: AuthService) -> None:
    """With the error of the asyncio context; a closed one raises, too."""

    def script() -> None:
        with program(service) as auth:
            with pytest.raises(AuthRefused):
                auth.sign_in_with_password(EMAIL, PASSWORD)
            assert auth.token() is None
        with pytest.raises(ClientClosed, match="AuthContext"):
            auth.token()

    await asyncio.to_thread(script)


async def test_the_examples_of_the_page_run(
    server: Running,
    service: AuthService,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One after the other, as a reader would try them."""
    async with service.program() as auth:
        await auth.sign_up(EMAIL, PASSWORD)
    answers: list[str] = []
    names: dict[str, Any] = {
        "url": service.url,
        "apikey": service.keys.publishable,
        "email": EMAIL,
        "password": PASSWORD,
        "read_token": lambda: server.token(ERIC),
        "start_response": lambda status, _: answers.append(status),
    }

    def client(_: str, __: str, **options: Any) -> RealtimeClient:
        # Here auth and realtime are two servers; a project has one URL for both.
        return RealtimeClient(server.url, server.realtime.settings.keys.anon, **options)

    def script() -> None:
        for example in examples(PAGE):
            exec(example, names)  # noqa: S102 - our own page

    monkeypatch.setattr("backbeat.sync.RealtimeClient", client)
    await asyncio.to_thread(script)
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        "the server took it: True",
        "the cursor is at 1",
        "nobody moves it",
        "moved to 2",
        "joined as ada@example.com",
    ]
    assert answers == ["204 No Content"]
