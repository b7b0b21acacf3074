"""A new token on a joined channel: what is asked again, what stays, and what ends the channel."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from structlog.testing import capture_logs
from tests.unit.server.conftest import SECRET

from backbeat.postgres.authorize import Grants, Permissions
from backbeat.protocol import reasons
from backbeat.server.keyring import Keyring
from backbeat.tokens.claims import fingerprint

ROOM = "realtime:room"
BOTH, NEITHER = Grants(broadcast=True, presence=True), Grants(broadcast=False, presence=False)
ONLY_BROADCAST, ONLY_PRESENCE = (
    Grants(broadcast=True, presence=False),
    Grants(broadcast=False, presence=True),
)
NO_LONGER = "You no longer have permission to read from this Channel topic: room"
NOT_AT_ALL = "You do not have permissions to read from this Channel topic: room"
VERSIONS = pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])


def refresh(client: Any, token: object) -> None:
    """Send a new token on the channel."""
    client.push(ROOM, "access_token", {"access_token": token}, ref="2")


def shutdown(messages: list[list[Any]]) -> str:
    """The reason of a channel that was shut down; stock clients want both messages, in this order."""
    system, close = messages
    assert (system[3], system[4]["status"], close[3]) == ("system", "error", "phx_close")
    return str(system[4]["message"])


# What is not looked at --------------------------------------------------------------------------------------


@VERSIONS
async def test_on_a_public_channel_no_policy_is_asked(server: Any, vsn: str) -> None:
    """There, everybody may do everything, whatever the token."""
    server.policies.answers["room"] = Permissions.none()
    client = await server.joined(vsn)
    refresh(client, server.token(sub="u2", role="nobody"))
    assert await client.settled() == []
    assert server.policies.asked == []


async def test_the_same_token_again_is_not_asked_about(server: Any) -> None:
    """Stock clients send their token after every join."""
    token = server.token()
    client = server.client()
    client.join(ROOM, {"access_token": token, "config": {"private": True}})
    await client.settled()
    refresh(client, token)
    assert await client.settled() == []
    assert len(server.policies.asked) == 1


@VERSIONS
@pytest.mark.parametrize("payload", [{}, {"access_token": 5}, {"access_token": {"token": "a"}}, [], "a.b.c"])
async def test_what_carries_no_token_is_an_unknown_event(server: Any, vsn: str, payload: object) -> None:
    """Counted, not answered, and the channel keeps its token."""
    client = await server.joined(vsn)
    client.push(ROOM, "access_token", payload)
    assert await client.settled() == []
    assert server.realtime.metrics.unknown_events == 1


@VERSIONS
@pytest.mark.parametrize("value", ["sb_publishable_x", None])
async def test_an_ignored_token_does_not_extend_the_old_one(server: Any, vsn: str, value: object) -> None:
    """The channel ends when the token ends that it has."""
    client = await server.joined(vsn)
    refresh(client, value)
    server.clock.now += 60
    client.socket.channels[ROOM]._check_expiry()
    assert shutdown(client.messages()) == "Token has expired 0 seconds ago"


# Bad tokens -------------------------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize(
    ("claims", "text"),
    [
        ({"exp": 1_699_999_993}, "Token has expired 7 seconds ago"),
        ({"role": None}, "Fields `role` and `exp` are required in JWT"),
        ({"exp": None}, "Fields `role` and `exp` are required in JWT"),
        ({"secret": "x" * 40}, "Failed to validate JWT signature"),
    ],
    ids=["expired", "no role", "no exp", "signature"],
)
async def test_a_bad_token_ends_the_channel(
    server: Any, vsn: str, private: bool, claims: dict[str, Any], text: str
) -> None:
    """Private or not: nobody goes on in the name of a token that is refused."""
    client = await server.joined(vsn, private=private)
    refresh(client, server.token(**claims))
    assert shutdown(client.messages()) == text


@VERSIONS
@pytest.mark.parametrize("token", ["", " ", "a.b.c", "null"])
async def test_what_is_no_token_ends_the_channel(server: Any, vsn: str, token: str) -> None:
    """An empty text is not null: it was meant as a token."""
    client = await server.joined(vsn)
    refresh(client, token)
    assert shutdown(client.messages()) == "The token provided is not a valid JWT"


async def test_an_unknown_signing_key_is_named(server: Any, tmp_path: Path) -> None:
    """After the key set was looked at once more, and without a code in front."""
    path = tmp_path / "jwks.json"
    path.write_text('{"keys":[]}')
    keyring = server.realtime.keyring = Keyring(SECRET, source=str(path))
    await keyring.start()
    client = await server.joined()
    claims = {"role": "authenticated", "exp": int(server.clock.now) + 60}
    signing = ec.generate_private_key(ec.SECP256R1())
    refresh(client, jwt.encode(claims, signing, algorithm="ES256", headers={"kid": "k9"}))
    await asyncio.wait({client.socket.channels[ROOM]._busy})
    await keyring.aclose()
    text = 'Failed to generate JWT signer for key ID (kid) "k9", check your JWT secret or JWKS configuration'
    assert shutdown(client.messages()) == text


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"exp": 1_699_999_999}, "InvalidJWTToken: Token has expired 1 seconds ago"),
        ({"role": None}, "InvalidJWTToken: Fields `role` and `exp` are required in JWT"),
        ("garbage", "MalformedJWT: The token provided is not a valid JWT"),
    ],
    ids=["expired", "no role", "malformed"],
)
async def test_each_join_of_a_socket_is_looked_at_for_itself(server: Any, change: Any, text: str) -> None:
    """A token that was good for the first channel says nothing about the second; the first stays."""
    client = await server.joined()
    token = change if isinstance(change, str) else server.token(**change)
    client.join("realtime:second", {"access_token": token, "config": {}}, ref="2")
    (reply,) = client.messages()
    assert reply[4] == {"status": "error", "response": {"reason": text}}
    assert list(client.socket.channels) == [ROOM]


# Policies ---------------------------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (BOTH, ONLY_PRESENCE, NO_LONGER),
        (BOTH, ONLY_BROADCAST, NO_LONGER),
        (BOTH, NEITHER, NOT_AT_ALL),
        (ONLY_PRESENCE, NEITHER, NOT_AT_ALL),
        (ONLY_BROADCAST, NEITHER, NOT_AT_ALL),
        (ONLY_PRESENCE, ONLY_BROADCAST, NO_LONGER),
        (ONLY_BROADCAST, ONLY_PRESENCE, NO_LONGER),
    ],
)
async def test_a_right_to_read_that_is_gone_ends_the_channel(
    server: Any, vsn: str, before: Grants, after: Grants, text: str
) -> None:
    """Whichever it is, and even if another one was granted instead."""
    server.policies.answers["room"] = Permissions(before, BOTH)
    client = await server.joined(vsn, private=True, presence={"enabled": True})
    server.policies.answers["room"] = Permissions(after, BOTH)
    refresh(client, server.token(sub="u2"))
    assert shutdown(await client.settled()) == text


@VERSIONS
@pytest.mark.parametrize(
    ("before", "after"),
    [(ONLY_PRESENCE, ONLY_PRESENCE), (ONLY_BROADCAST, ONLY_BROADCAST), (BOTH, BOTH), (ONLY_PRESENCE, BOTH)],
)
async def test_a_channel_whose_rights_remain_stays(
    server: Any, vsn: str, before: Grants, after: Grants
) -> None:
    """Nothing is said about it."""
    server.policies.answers["room"] = Permissions(before, BOTH)
    client = await server.joined(vsn, private=True, presence={"enabled": True})
    server.policies.answers["room"] = Permissions(after, BOTH)
    refresh(client, server.token(sub="u2"))
    assert await client.settled() == []
    assert list(client.socket.channels) == [ROOM]


@VERSIONS
async def test_what_may_be_sent_changes_with_the_token(server: Any, vsn: str) -> None:
    """The channel stays, for it may still be read; the next broadcast is refused."""
    client = await server.joined(vsn, private=True, broadcast={"ack": True})
    server.policies.answers["room"] = Permissions(BOTH, NEITHER)
    refresh(client, server.token(sub="u2"))
    await client.settled()
    client.push(ROOM, "broadcast", {"n": 1}, ref="3")
    (reply,) = client.messages()
    text = "You do not have permissions to send to this Channel topic: room"
    assert (reply[1], reply[4]) == ("3", {"status": "error", "response": {"reason": text}})


async def test_what_was_sent_behind_a_token_is_judged_by_it(server: Any) -> None:
    """A broadcast waits until the policies have answered for the new token."""
    client = await server.joined(private=True, broadcast={"ack": True})
    server.policies.answers["room"] = Permissions(BOTH, NEITHER)
    server.policies.open.clear()
    refresh(client, server.token(sub="u2"))
    client.push(ROOM, "broadcast", {"n": 1}, ref="3")
    assert await client.settled() == []
    server.policies.open.set()
    assert [message[4]["status"] for message in await client.settled()] == ["error"]


@VERSIONS
@pytest.mark.parametrize(
    "why",
    [
        reasons.DATABASE_UNREACHABLE,
        reasons.POOL_EXHAUSTED,
        reasons.QUERY_CANCELED,
        reasons.MISSING_PARTITION,
        reasons.POLICY_FAILED,
    ],
    ids=lambda why: why.code,
)
async def test_a_database_that_gives_no_answer_ends_the_channel(
    server: Any, vsn: str, why: reasons.Reason
) -> None:
    """Nobody goes on without permissions; the text is the one of a join, without its code."""
    client = await server.joined(vsn, private=True)
    server.policies.answers["room"] = why.refusal(topic="room")
    refresh(client, server.token(sub="u2"))
    assert shutdown(await client.settled()) == why.text.format(topic="room")


async def test_a_failure_of_ours_costs_the_channel(server: Any) -> None:
    """The client hears `phx_error`, and joins again by itself."""
    client = await server.joined(private=True)
    server.policies.answers["room"] = RuntimeError("a typo")
    refresh(client, server.token(sub="u2"))
    with capture_logs():
        (error,) = await client.settled()
    assert error == ["1", "1", ROOM, "phx_error", {"reason": "channel_crash"}]


# The end of a token -----------------------------------------------------------------------------------------


@VERSIONS
async def test_a_channel_ends_with_its_token(server: Any, vsn: str) -> None:
    """The timer of the channel finds out by itself."""
    client = server.client(vsn)
    client.join(ROOM, {"access_token": server.token(exp=int(server.clock.now) + 1), "config": {}})
    client.messages()
    server.clock.now += 1
    expiry = client.socket.channels[ROOM]._expiry
    assert expiry.when() <= server.realtime.loop.time() + 1
    expiry._run()
    assert shutdown(client.messages()) == "Token has expired 0 seconds ago"


async def test_a_far_end_is_found_by_the_sweep(server: Any) -> None:
    """Clocks are set and laptops sleep: no timer is longer than the time between two sweeps."""
    client = server.client()
    client.join(ROOM, {"access_token": server.token(exp=int(server.clock.now) + 86_400), "config": {}})
    channel = client.socket.channels[ROOM]
    timers = [channel._expiry]
    server.clock.now += 86_398
    server.realtime._sweep()
    timers.append(channel._expiry)
    assert timers[0] is None
    assert timers[1].when() <= server.realtime.loop.time() + 2
    server.clock.now += 2
    timers[1]._run()
    assert shutdown(client.messages()[1:]) == "Token has expired 0 seconds ago"


async def test_a_clock_that_was_set_back_ends_no_channel_early(server: Any) -> None:
    """When the timer rings too early, the token is still good, and the next sweep looks again."""
    client = server.client()
    client.join(ROOM, {"access_token": server.token(exp=int(server.clock.now) + 1), "config": {}})
    channel = client.socket.channels[ROOM]
    server.clock.now -= 3600
    channel._expiry._run()
    assert list(client.socket.channels) == [ROOM]
    assert channel._expiry is None


async def test_a_new_token_moves_the_end(server: Any) -> None:
    """The old token's end means nothing any more."""
    client = await server.joined()
    refresh(client, server.token(exp=int(server.clock.now) + 120))
    server.clock.now += 61
    client.socket.channels[ROOM]._check_expiry()
    assert await client.settled() == []
    assert list(client.socket.channels) == [ROOM]


async def test_a_shutdown_is_logged_with_the_token_it_had(server: Any) -> None:
    """By fingerprint and role: the operator can tell which token it was, and not whose."""
    token = server.token(sub="somebody")
    client = server.client()
    client.join(ROOM, {"access_token": token, "config": {}})
    with capture_logs() as lines:
        refresh(client, "")
    (line,) = lines
    assert fingerprint(token) in line["token"]
    assert "role authenticated" in line["token"]
    assert "somebody" not in str(line)
