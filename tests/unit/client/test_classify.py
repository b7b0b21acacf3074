"""What a refusal means: every text a server may say, and texts nobody knows (client specification, 1.25)."""

from __future__ import annotations

import json
from string import Formatter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbeat.client.engine import classify
from backbeat.errors import Denied, RateLimited, Refusal, Retry, TokenRefused, Unavailable
from backbeat.protocol.reasons import REASONS, Reason, Where, explained

CASES = [(name, where) for name, reason in REASONS.items() for where in reason.where]


def said(reason: Reason, *, explain: bool) -> tuple[Refusal, str, str]:
    """A refusal of ours, its text in a join reply, and its text everywhere else."""
    fields = {name: "7" for _, name, _, _ in Formatter().parse(reason.text) if name}
    refusal = reason.refusal(**fields | {"topic": "7"})
    return (
        refusal,
        explained(refusal.reason, refusal, explain=explain),
        explained(refusal.message, refusal, explain=explain),
    )


def understood(where: Where, joined: str, text: str, status: int) -> Refusal:
    """What the client makes of it."""
    if where is Where.JOIN:
        return classify.join_refusal(joined, topic="7")
    if where is Where.SYSTEM:
        return classify.system_refusal(text, topic="7")
    if where in (Where.REPLY, Where.BATCH):
        return classify.reply_refusal(text, topic="7")
    body = json.dumps({"error" if where is Where.CONNECT else "message": text}).encode()
    if where is Where.CONNECT:
        return classify.connect_refusal(status, body)
    return classify.http_refusal(status, body, topic="7")


@pytest.mark.parametrize("explain", [True, False])
@pytest.mark.parametrize(("name", "where"), CASES, ids=[f"{name}-{where.value}" for name, where in CASES])
def test_every_refusal_of_ours_is_understood(name: str, where: Where, explain: bool) -> None:
    """The same class, code and policy come out as went in, and some hint, wherever it is met."""
    reason = REASONS[name]
    refusal, joined, text = said(reason, explain=explain)
    if where is Where.HTTP and reason.error is TokenRefused:
        text = "Unauthorized"  # all refused tokens read like that there
    found = understood(where, joined, text, refusal.status)
    assert found.hint
    if where is Where.HTTP:
        assert found.status == refusal.status
        return
    assert (type(found), found.code, found.retry) == (type(refusal), refusal.code, refusal.retry)
    if where is not Where.CONNECT:
        assert found.message == refusal.message


def test_of_two_that_read_alike_the_closer_one_counts() -> None:
    """A filter that cannot be evaluated is not mended by waiting for the stream."""
    text = REASONS["CHANGES_UNFILTERED"].refusal(detail="title").message
    assert "Simplify the pattern" in classify.system_refusal(text, topic="7").hint


@pytest.mark.parametrize(
    ("code", "error", "retry"),
    [
        ("InitializingProjectConnection", Unavailable, Retry.BACKOFF),
        ("DatabaseLackOfConnections", Unavailable, Retry.BACKOFF),
        ("TimeoutOnRpcCall", Unavailable, Retry.BACKOFF),
        ("ErrorOnRpcCall", Unavailable, Retry.BACKOFF),
        ("MusterJoinError", Unavailable, Retry.BACKOFF),
        ("DatabaseConnectionRateLimitReached", RateLimited, Retry.SLOW),
        ("TenantNotFound", Denied, Retry.NEVER),
        ("RealtimeDisabledForTenant", Denied, Retry.NEVER),
        ("InvalidJWTToken", TokenRefused, Retry.REFRESH),
        ("SomethingNew", Unavailable, Retry.BACKOFF),
    ],
)
def test_codes_of_other_servers_are_understood(code: str, error: type[Refusal], retry: Retry) -> None:
    """Whatever their text; a code nobody knows keeps it, and is tried again."""
    found = classify.join_refusal(f"{code}: some text", topic="room", context="Asked with X.")
    assert (type(found), found.code, found.retry, found.topic) == (error, code, retry, "room")
    assert "some text" in found.message
    assert found.hint.startswith("Asked with X.")


@pytest.mark.parametrize(
    ("status", "body", "error", "retry"),
    [
        (401, b"", TokenRefused, Retry.NEVER),
        (403, b"<html>", Denied, Retry.NEVER),
        (404, b'{"error":5}', Denied, Retry.NEVER),
        (429, b"\xff", RateLimited, Retry.SLOW),
        (500, b'{"message":"oops"}', Unavailable, Retry.BACKOFF),
        (503, b"[]", Unavailable, Retry.BACKOFF),
        (200, b"hello", Denied, Retry.NEVER),
    ],
)
def test_an_answer_nobody_knows_goes_by_its_status(
    status: int, body: bytes, error: type[Refusal], retry: Retry
) -> None:
    """And always has a text and a hint."""
    found = classify.connect_refusal(status, body)
    assert (type(found), found.retry, found.status) == (error, retry, status)
    assert found.message
    assert found.hint


def test_the_hint_of_the_server_knows_the_case() -> None:
    """It stands before ours."""
    body = json.dumps({"error": "API key is missing", "code": "MissingAPIKey", "hint": "Look here."}).encode()
    assert classify.connect_refusal(401, body).hint == "Look here."
    text = "Unauthorized: no. Hint: Ask Eric. Error code: Unauthorized."
    assert classify.join_refusal(text, topic="x").hint == "Ask Eric."


@given(st.text(), st.binary(), st.integers(100, 599))
def test_any_text_is_understood_somehow(text: str, body: bytes, status: int) -> None:
    """Nothing is raised, and nothing is lost."""
    for read in (classify.join_refusal, classify.reply_refusal, classify.system_refusal):
        assert isinstance(read(text, topic="x"), Refusal)
    assert classify.connect_refusal(status, body).message
    assert classify.http_refusal(status, body, topic="x").message
