"""What `docs/sessions.md` shows is run, in its order, against a real project."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest
from tests.auth_service import serving_auth
from tests.examples import examples
from tests.integration.server.conftest import SECRET, Running

from backbeat import RealtimeClient

PAGE = Path(__file__).parents[3] / "docs" / "sessions.md"
EMAIL = "ada@example.com"
PASSWORD = "correct horse"
PATIENCE = 30.0


async def test_the_examples_run(
    server: Running,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One after the other, as a reader would try them."""
    monkeypatch.setenv("HOME", str(tmp_path))
    async with serving_auth(database_url, secret=SECRET) as service:
        async with service.program() as auth:
            session = await auth.sign_up(EMAIL, PASSWORD)
        names: dict[str, Any] = {
            "url": service.url,
            "apikey": service.keys.publishable,
            "email": EMAIL,
            "password": PASSWORD,
        }

        def client(_: str, __: str, **options: Any) -> RealtimeClient:
            # Here auth and realtime are two servers; a project has one URL for both.
            return RealtimeClient(server.url, server.realtime.settings.keys.anon, **options)

        async with asyncio.timeout(PATIENCE):
            monkeypatch.setattr("backbeat.client.RealtimeClient", client)
            for example in examples(PAGE):
                running = eval(example, names)  # noqa: S307 - our own page
                if inspect.iscoroutine(running):
                    await running
    printed = capsys.readouterr().out
    assert session is not None
    for line in (
        f"signed in as {session.user_id}",
        f"new tokens for {session.user_id}",
        f"kept for {session.user_id}",
        f"online as {session.user_id}",
        "INITIAL_SESSION <Session of",
    ):
        assert line in printed
