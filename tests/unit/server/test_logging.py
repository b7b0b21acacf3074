"""What the server says to its operator: every refusal once, with its code, and never a token."""

from __future__ import annotations

from typing import Any

from structlog.testing import capture_logs

from backbeat.postgres.authorize import Permissions

ROOM = "realtime:room"


async def test_a_refused_join_is_one_line_with_its_code(server: Any) -> None:
    """Topic, reason, and which token was asked with."""
    server.policies.answers["room"] = Permissions.none()
    token = server.token()
    client = server.client()
    with capture_logs() as lines:
        client.join(ROOM, {"access_token": token, "config": {"private": True}})
        await client.settled()
    (line,) = lines
    assert (line["event"], line["code"], line["topic"]) == ("join refused", "Unauthorized", ROOM)
    assert "user token" in line["token"]
    assert token not in str(lines)


async def test_a_refused_connect_is_one_line_with_its_code(server: Any) -> None:
    """The key itself is not in it."""
    with capture_logs() as lines:
        server.client(apikey="eyJ.secret.key")
    (line,) = lines
    assert (line["event"], line["code"]) == ("connect refused", "MalformedJWT")
    assert "eyJ.secret.key" not in str(lines)


async def test_a_channel_that_is_shut_down_is_one_line_with_its_cause(server: Any) -> None:
    """A bad new token: which code, on which topic."""
    client = server.client()
    client.join(ROOM)
    with capture_logs() as lines:
        client.push(ROOM, "access_token", {"access_token": "eyJ.secret.token"})
    (line,) = lines
    assert (line["code"], line["cause"], line["topic"]) == ("ChannelShutdown", "MalformedJWT", ROOM)
    assert "eyJ.secret.token" not in str(lines)


async def test_a_join_payload_with_mistakes_is_logged_and_goes_on(server: Any) -> None:
    """The operator learns which fields a client sends wrongly; the client is joined all the same."""
    client = server.client()
    with capture_logs() as lines:
        client.join(ROOM, private="perhaps")
    (line,) = lines
    assert line["code"] == "InvalidJoinPayload"
    assert line["problems"] == ("private: unable to parse, expected a boolean",)
    assert client.messages()[0][4]["status"] == "ok"
