"""Policies of a real Postgres at work: at a join, and when a token or a policy changes afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.integration.server.conftest import ERIC, MIKE, RawClient, Running

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.AsyncConnection[Any]

ROOM = "realtime:room"
REFUSED = "Unauthorized: You do not have permissions to read from this Channel topic: {}"

BY_ROLE = "create policy hear_role on realtime.messages for select to authenticated using (true)"
BY_SUB = f"""
create policy hear_sub on realtime.messages for select using (auth.uid() = '{ERIC}');
create policy speak_sub on realtime.messages for insert with check (auth.uid() = '{ERIC}');
"""
BY_TOPIC = "create policy hear_topic on realtime.messages for select using (realtime.topic() = 'room')"


async def answer(client: RawClient, topic: str, token: str | None) -> str:
    """Join a private channel; return `ok`, or the reason why not."""
    await client.join(topic, token=token, private=True)
    reply = (await client.until("phx_reply"))[4]
    return str(reply["response"].get("reason", reply["status"]))


async def ended(client: RawClient) -> str:
    """The reason of a channel that is shut down, which is said before it is closed."""
    system, close = await client.message(), await client.message()
    assert (system[3], close[3]) == ("system", "phx_close")
    return str(system[4]["message"])


async def test_policies_by_role_decide_about_a_join(server: Running, database: Connection) -> None:
    """The role of the join's token, or of the key of the connection when it has none."""
    await database.execute(BY_ROLE.encode())
    async with server.client() as client:
        assert await answer(client, ROOM, server.token()) == "ok"
        assert await answer(client, "realtime:other", None) == REFUSED.format("other")


async def test_policies_by_user_decide_about_a_join(server: Running, database: Connection) -> None:
    """The subject of the join's token."""
    await database.execute(BY_SUB.encode())
    async with server.client() as client:
        assert await answer(client, ROOM, server.token(ERIC)) == "ok"
        assert await answer(client, "realtime:other", server.token(MIKE)) == REFUSED.format("other")


async def test_policies_by_topic_decide_about_a_join(server: Running, database: Connection) -> None:
    """The topic as policies see it, without the prefix."""
    await database.execute(BY_TOPIC.encode())
    async with server.client() as client:
        assert await answer(client, ROOM, server.token()) == "ok"
        assert await answer(client, "realtime:rooms", server.token()) == REFUSED.format("rooms")


async def test_a_policy_that_raises_refuses_the_join(server: Running, database: Connection) -> None:
    """What cannot be decided is not granted, and what Postgres said stays in the log."""
    await database.execute(
        "create policy broken on realtime.messages for select using ((topic || ' secret')::int = 1)"
    )
    async with server.client() as client:
        assert await answer(client, ROOM, server.token()) == REFUSED.format("room")


async def test_a_role_that_does_not_exist_refuses_the_join(server: Running) -> None:
    """The token is good, but Postgres knows no such role."""
    async with server.client() as client:
        assert await answer(client, ROOM, server.token(role="drummer")) == REFUSED.format("room")


async def test_a_new_token_without_rights_ends_the_channel(server: Running, database: Connection) -> None:
    """The policies are asked again with the new user."""
    await database.execute(BY_SUB.encode())
    async with server.client() as client:
        assert await answer(client, ROOM, server.token(ERIC)) == "ok"
        await client.push(ROOM, "access_token", {"access_token": server.token(MIKE)})
        assert await ended(client) == REFUSED.format("room").removeprefix("Unauthorized: ")


async def test_a_public_channel_goes_on_with_any_good_token(server: Running) -> None:
    """No policy is asked, not even for a role that does not exist."""
    async with server.client() as client:
        join = await client.join("realtime:open", token=server.token(), broadcast={"ack": True})
        await client.message()
        await client.push("realtime:open", "access_token", {"access_token": server.token(role="drummer")})
        sent = await client.push("realtime:open", "broadcast", {"n": 1}, join_ref=join)
        reply = await client.message()
        assert (reply[1], reply[4]["status"]) == (sent, "ok")


async def test_a_policy_that_changed_counts_for_the_next_token(server: Running, database: Connection) -> None:
    """The same user, the same topic, a fresh token: what was allowed is not any more."""
    await database.execute(BY_SUB.encode())
    async with server.client() as client:
        assert await answer(client, ROOM, server.token(ERIC)) == "ok"
        await database.execute("drop policy hear_sub on realtime.messages")
        await client.push(ROOM, "access_token", {"access_token": server.token(ERIC, jti="next")})
        assert await ended(client) == REFUSED.format("room").removeprefix("Unauthorized: ")


async def test_a_right_to_presence_that_is_gone_ends_the_channel(
    server: Running, database: Connection
) -> None:
    """Even if broadcasts may still be heard: the client holds a state that is not its business any more."""
    await database.execute(BY_ROLE.encode())
    async with server.client() as client:
        await client.join(ROOM, token=server.token(), private=True, presence={"enabled": True})
        await client.until("presence_state")
        await database.execute("alter policy hear_role on realtime.messages using (extension = 'broadcast')")
        await client.push(ROOM, "access_token", {"access_token": server.token(jti="next")})
        text = "You no longer have permission to read from this Channel topic: room"
        assert await ended(client) == text


@pytest.mark.parametrize("presence", [True, False])
async def test_a_channel_stays_while_its_rights_do(
    server: Running, database: Connection, presence: bool
) -> None:
    """A fresh token of the same user changes nothing; the next broadcast is acknowledged."""
    await database.execute(BY_SUB.encode())
    async with server.client() as client:
        join = await client.join(
            ROOM, token=server.token(ERIC), private=True, presence={"enabled": presence},
            broadcast={"ack": True},
        )  # fmt: skip
        await client.until("presence_state" if presence else "phx_reply")
        await client.push(ROOM, "access_token", {"access_token": server.token(ERIC, jti="next")})
        sent = await client.push(ROOM, "broadcast", {"n": 1}, join_ref=join)
        reply = await client.message()
        assert (reply[1], reply[4]["status"]) == (sent, "ok")


async def test_a_right_to_broadcasts_that_is_new_works_at_once(server: Running, database: Connection) -> None:
    """A member of presence alone hears broadcasts after its next token."""
    await database.execute(BY_SUB.encode())
    await database.execute(
        f"create policy watch on realtime.messages for select using "
        f"(extension = 'presence' and auth.uid() = '{MIKE}')"
    )
    async with server.client() as listener, server.client() as sender:
        assert await answer(sender, ROOM, server.token(ERIC)) == "ok"
        await listener.join(ROOM, token=server.token(MIKE), private=True, presence={"enabled": True})
        await listener.until("presence_state")
        await database.execute(BY_ROLE.encode())
        await listener.push(ROOM, "access_token", {"access_token": server.token(MIKE, jti="next")})
        # Answered only when the policies have decided: until then, what arrives for the channel waits.
        await listener.push(ROOM, "presence", {"event": "untrack"})
        await listener.until("phx_reply")
        await sender.push(ROOM, "broadcast", {"n": 1})
        assert (await listener.until("broadcast"))[4] == {"n": 1}


async def test_a_right_to_send_that_is_gone_is_told_at_the_next_send(
    server: Running, database: Connection
) -> None:
    """The channel stays, for it may still be heard."""
    await database.execute(BY_ROLE.encode())
    await database.execute(BY_SUB.encode())
    async with server.client() as client:
        join = await client.join(ROOM, token=server.token(ERIC), private=True, broadcast={"ack": True})
        await client.until("phx_reply")
        await client.push(ROOM, "access_token", {"access_token": server.token(MIKE)})
        await client.push(ROOM, "broadcast", {"n": 1}, join_ref=join)
        text = "You do not have permissions to send to this Channel topic: room"
        assert (await client.message())[4] == {"status": "error", "response": {"reason": text}}
