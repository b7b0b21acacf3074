"""INV-8: no token and no key in a log, a repr, an exception or an event."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.client.conftest import KEY
from tests.unit.client.test_client import jwt

from backbeat.client import events
from backbeat.client.engine import inputs
from backbeat.client.engine.tokens import ResolvedToken, Source
from backbeat.client.transport import WebSocketTransport
from backbeat.errors import BackbeatError

if TYPE_CHECKING:
    from tests.unit.client.conftest import MakeClient

    from backbeat.testing import MemoryServer

TOKENS = tuple(jwt(user) for user in ("eric", "mike"))
SECRETS = (KEY, *TOKENS, *(token.rpartition(".")[2] for token in TOKENS))


def assert_clean(text: str) -> None:
    """Nothing secret is in a text."""
    for secret in SECRETS:
        assert secret not in text, text


async def test_nothing_that_is_shown_holds_a_secret(
    server: MemoryServer, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A whole life of refusals, rotations, failures and cuts: logs, reprs, texts, events, tracebacks."""
    caplog.set_level(logging.DEBUG)
    answers = iter([*TOKENS, {"access_token": TOKENS[0]}, RuntimeError("no network"), None])

    def source() -> Any:
        answer = next(answers, None)
        if isinstance(answer, Exception):
            raise answer
        return answer

    client = make_client(token=source, params={"log_level": "info"}, api_key_in="both", join_timeout=0.05)
    seen: list[events.Event] = []
    client.on(handler=seen.append)
    shown: list[str] = []

    async def attempt(work: Any) -> None:
        try:
            shown.append(repr(await work))
        except (BackbeatError, TypeError) as error:
            shown.append("".join(traceback.format_exception(error)))
            shown.append(repr(error) + str(getattr(error, "hint", "")))
        shown.extend((repr(client), str(client.explain()), repr(client.explain()), repr(client.stats())))
        shown.extend((repr(client.auth_state), repr(client.engine.keeper.current), repr(client.channels)))

    channel = client.channel("room", private=True, ack=True)
    channel.on_broadcast("x", lambda _: 1 / 0)
    await attempt(channel.subscribe())
    await attempt(client.set_auth())
    await attempt(client.set_auth())
    await attempt(client.set_auth())
    await attempt(client.set_auth({"access_token": TOKENS[0]}))  # type: ignore[arg-type]
    await attempt(client.set_auth(TOKENS[1]))
    server.refuse_join(
        "closed", "Unauthorized: You do not have permissions to read from this Channel topic: x"
    )
    await attempt(client.channel("closed", private=True).subscribe())
    server.refuse_join("bad", "JwtSignatureError: Failed to validate JWT signature")
    await attempt(client.channel("bad").subscribe())
    server.broadcast("room", "x", {}, private=True)
    server.cut()
    server.refuse_upgrades(401, "API key is missing")
    await attempt(client.channel("other").subscribe())
    await attempt(client.clear_auth())
    await asyncio.sleep(0)
    await client.close()
    for text in shown:
        assert_clean(text)
    for event in seen:
        assert_clean(repr(event))
    assert seen
    for record in caplog.records:
        assert_clean(record.getMessage() + repr(record.args) + str(record.exc_text))


def test_what_carries_a_token_does_not_show_it() -> None:
    """The values inside of the engine."""
    token = ResolvedToken.of(TOKENS[0], Source.MANUAL, now=0.0)
    for value in (
        token,
        inputs.SetAuth(1, TOKENS[0]),
        inputs.TokenResolved(1, TOKENS[0]),
    ):
        assert_clean(repr(value))
        assert dataclasses.is_dataclass(value)
    assert token.fingerprint in token.describe(0.0)


async def test_a_url_that_cannot_be_opened_is_not_shown() -> None:
    """It would hold the key."""
    with pytest.raises(OSError) as failed:  # noqa: PT011 - whatever the system says
        await WebSocketTransport().open(f"ws://127.0.0.1:1/socket?apikey={KEY.replace(' ', '+')}", {})
    assert_clean("".join(traceback.format_exception(failed.value)))
    assert "apikey" not in str(failed.value)
