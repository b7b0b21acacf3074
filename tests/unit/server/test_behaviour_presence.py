"""Presence, with either version of the protocol: who is told what, who may track, and what ends a channel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.server.conftest import Client, Server

from backbeat.postgres.authorize import Grants, Permissions
from backbeat.protocol import reasons
from backbeat.server.limits import LimitSettings

ROOM = "realtime:room"
OK = {"status": "ok", "response": {}}
ON: dict[str, Any] = {"presence": {"enabled": True, "key": "eric"}}

BOTH = Grants(broadcast=True, presence=True)
BROADCAST = Grants(broadcast=True, presence=False)
PRESENCE = Grants(broadcast=False, presence=True)
NONE = Grants(broadcast=False, presence=False)

VERSIONS = pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
PRIVACY = pytest.mark.parametrize("private", [False, True], ids=["public", "private"])


def presence(client: Client, event: str, *, ref: str = "2", **rest: object) -> None:
    """Send a presence message."""
    client.push(ROOM, "presence", {"type": "presence", "event": event} | rest, ref=ref)


def events(messages: list[list[Any]]) -> list[str]:
    """The events of messages, in order."""
    return [message[3] for message in messages]


# State and diffs --------------------------------------------------------------------------------------------


@VERSIONS
@PRIVACY
async def test_a_state_comes_with_the_join_and_a_diff_with_the_track(
    server: Server, vsn: str, private: bool
) -> None:
    """Empty at first; then the tracker's own diff, then the answer."""
    client = server.client(vsn)
    client.join(ROOM, private=private, **ON)
    assert [message[3:] for message in await client.settled()][1:] == [["presence_state", {}]]
    presence(client, "track", payload={"plays": "bass"})
    diff, reply = await client.settled()
    assert diff[4]["joins"]["eric"]["metas"][0]["plays"] == "bass"
    assert reply[3:] == ["phx_reply", OK]


@VERSIONS
@PRIVACY
async def test_no_state_comes_where_presence_is_off(server: Server, vsn: str, private: bool) -> None:
    """The reply is all there is."""
    client = server.client(vsn)
    client.join(ROOM, private=private, presence={"enabled": False})
    assert events(await client.settled()) == ["phx_reply"]


async def test_public_channels_hear_diffs_although_presence_is_off(server: Server) -> None:
    """As clients of the original are used to."""
    tracker, listener = await server.joined(**ON), await server.joined()
    presence(tracker, "track")
    assert events(await listener.settled()) == ["presence_diff"]


async def test_private_channels_hear_no_diffs_while_presence_is_off(server: Server) -> None:
    """The policies were not asked whether they may."""
    tracker, listener = await server.joined(private=True, **ON), await server.joined(private=True)
    presence(tracker, "track")
    assert await listener.settled() == []


@VERSIONS
@PRIVACY
async def test_the_first_track_turns_presence_on(server: Server, vsn: str, private: bool) -> None:
    """State, diff, answer; from then on diffs of others arrive."""
    client, other = await server.joined(vsn, private=private), await server.joined(private=private, **ON)
    presence(client, "track")
    assert events(await client.settled()) == ["presence_state", "presence_diff", "phx_reply"]
    presence(other, "track")
    assert events(await client.settled()) == ["presence_diff"]


async def test_a_track_without_a_payload_tracks_an_empty_object(server: Server) -> None:
    """Nothing but the ref is in the meta."""
    client = await server.joined(**ON)
    presence(client, "track")
    (meta,) = (await client.settled())[0][4]["joins"]["eric"]["metas"]
    assert list(meta) == ["phx_ref"]


async def test_what_was_untracked_can_be_tracked_again(server: Server) -> None:
    """The same object joins, leaves and joins, the last time without a former ref."""
    client = await server.joined(**ON)
    for event in ("track", "untrack", "track"):
        presence(client, event, payload={"plays": "bass"})
    diffs = [message[4] for message in await client.settled() if message[3] == "presence_diff"]
    assert [(list(diff["joins"]), list(diff["leaves"])) for diff in diffs] == [
        (["eric"], []), ([], ["eric"]), (["eric"], []),
    ]  # fmt: skip
    assert "phx_ref_prev" not in diffs[2]["joins"]["eric"]["metas"][0]


@pytest.mark.parametrize("event", ["TRACK", "Track"])
async def test_the_case_of_an_event_does_not_matter(server: Server, event: str) -> None:
    """Clients of the original write it as they like."""
    client = await server.joined(**ON)
    presence(client, event)
    assert events(await client.settled()) == ["presence_diff", "phx_reply"]


# Presence that is off ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", ["untrack", "dance"])
@PRIVACY
async def test_where_presence_is_off_other_events_are_answered_and_ignored(
    server: Server, event: str, private: bool
) -> None:
    """Ok, and nothing else."""
    client = await server.joined(private=private)
    presence(client, event)
    assert [message[3:] for message in await client.settled()] == [["phx_reply", OK]]


@pytest.mark.parametrize("event", ["untrack", "dance"])
async def test_only_a_track_turns_presence_on(server: Server, event: str) -> None:
    """After anything else, a private channel hears no diff, and no policy was asked."""
    client = await server.joined(private=True)
    presence(client, event)
    await client.settled()
    tracker = await server.joined(private=True, **ON)
    presence(tracker, "track")
    assert await client.settled() == []
    assert len(server.policies.asked) == 2


# Rights -----------------------------------------------------------------------------------------------------


async def test_who_may_use_presence_only_joins_tracks_and_hears_no_broadcast(server: Server) -> None:
    """Rights are given for each extension apart."""
    server.policies.answers["room"] = Permissions(PRESENCE, PRESENCE)
    client = await server.joined(private=True, **ON)
    server.policies.answers.clear()
    sender = await server.joined(private=True)
    sender.push(ROOM, "broadcast", {"n": 1})
    presence(client, "track")
    assert events(await client.settled()) == ["presence_diff", "phx_reply"]


async def test_who_may_only_see_presence_gets_the_state(server: Server) -> None:
    """With whoever is there."""
    tracker = await server.joined(private=True, **ON)
    presence(tracker, "track")
    server.policies.answers["room"] = Permissions(PRESENCE, NONE)
    client = server.client()
    client.join(ROOM, private=True, **ON)
    assert list((await client.settled())[1][4]) == ["eric"]


async def test_who_may_only_see_presence_gets_the_diffs(server: Server) -> None:
    """Of those who may track."""
    tracker = await server.joined(private=True, **ON)
    server.policies.answers["room"] = Permissions(PRESENCE, NONE)
    client = await server.joined(private=True, **ON)
    presence(tracker, "track")
    assert events(await client.settled()) == ["presence_diff"]


async def test_who_may_only_see_presence_cannot_track(server: Server) -> None:
    """It is refused, nobody hears of it, and the channel lives."""
    server.policies.answers["room"] = Permissions(PRESENCE, NONE)
    client, other = [await server.joined(private=True, **ON) for _ in range(2)]
    presence(client, "track")
    assert [message[4]["status"] for message in await client.settled()] == ["error"]
    assert await other.settled() == []
    assert list(client.socket.channels) == [ROOM]


async def test_who_may_not_see_presence_gets_no_state(server: Server) -> None:
    """Although it asked for presence at the join."""
    server.policies.answers["room"] = Permissions(BROADCAST, BROADCAST)
    client = server.client()
    client.join(ROOM, private=True, **ON)
    assert events(await client.settled()) == ["phx_reply"]


@pytest.mark.parametrize("when", ["join", "track"])
async def test_who_may_not_see_presence_gets_no_diffs(server: Server, when: str) -> None:
    """Whether it asked for presence at the join, or by tracking."""
    server.policies.answers["room"] = Permissions(BROADCAST, BROADCAST)
    client = await server.joined(private=True, presence={"enabled": when == "join"})
    if when == "track":
        presence(client, "track")
        await client.settled()
    server.policies.answers.clear()
    tracker = await server.joined(private=True, **ON)
    presence(tracker, "track")
    assert await client.settled() == []


@pytest.mark.parametrize("write", [BOTH, NONE], ids=["allowed", "denied"])
async def test_policies_are_asked_once_however_often_it_is_tracked(server: Server, write: Grants) -> None:
    """The answer of the join holds until there is another token."""
    server.policies.answers["room"] = Permissions(BOTH, write)
    client = await server.joined(private=True, **ON)
    for number in range(3):
        presence(client, "track", payload={"n": number})
    await client.settled()
    assert len(server.policies.asked) == 1


@pytest.mark.parametrize("write", [BOTH, NONE], ids=["allowed", "denied"])
async def test_a_late_question_is_asked_once_as_well(server: Server, write: Grants) -> None:
    """Once at the join, once for the track that turned presence on, and no more."""
    server.policies.answers["room"] = Permissions(BOTH, write)
    client = await server.joined(private=True)
    for number in range(3):
        presence(client, "track", payload={"n": number})
    await client.settled()
    assert len(server.policies.asked) == 2


async def test_presence_on_a_public_channel_asks_no_policy(server: Server) -> None:
    """Everybody may see and track."""
    client = await server.joined(**ON)
    presence(client, "track")
    await client.settled()
    assert server.policies.asked == []


@VERSIONS
async def test_a_database_that_gives_no_answer_refuses_the_track(server: Server, vsn: str) -> None:
    """The reply says why."""
    client = await server.joined(vsn, private=True)
    server.policies.answers["room"] = reasons.POOL_EXHAUSTED.refusal(topic="room")
    presence(client, "track")
    refused = {"status": "error", "response": {"reason": "Please increase your connection pool size"}}
    assert [message[4] for message in await client.settled()] == [refused]


async def test_a_track_that_got_no_answer_can_be_repeated(server: Server) -> None:
    """The channel lives, and the policies are asked again."""
    client = await server.joined(private=True)
    server.policies.answers["room"] = reasons.POOL_EXHAUSTED.refusal(topic="room")
    presence(client, "track")
    await client.settled()
    server.policies.answers.clear()
    presence(client, "track")
    assert events(await client.settled()) == ["presence_state", "presence_diff", "phx_reply"]


async def test_public_presence_does_not_notice_an_exhausted_pool(server: Server) -> None:
    """While a private track waits for a connection, a public one is answered."""
    private = await server.joined(private=True)
    server.policies.open.clear()
    presence(private, "track")
    public = await server.joined(**ON)
    presence(public, "track")
    assert events(await public.settled()) == ["presence_diff", "phx_reply"]
    assert await private.settled() == []


async def test_a_policy_that_fails_refuses_the_track(server: Server) -> None:
    """The reply has the refusal that the failure was given; the channel lives."""
    failed = reasons.POLICY_FAILED.refusal(topic="room")
    server.policies.answers["room"] = replace(Permissions(BOTH, NONE), write_refusal=failed)
    client = await server.joined(private=True, **ON)
    presence(client, "track")
    (reply,) = await client.settled()
    assert reply[4] == {"status": "error", "response": {"reason": failed.message}}
    assert list(client.socket.channels) == [ROOM]


# What makes no sense, and what is too much ------------------------------------------------------------------


async def test_an_unknown_event_is_counted_by_its_code(server: Server) -> None:
    """An operator sees that clients send what is not understood."""
    client = await server.joined(**ON)
    presence(client, "dance")
    assert server.realtime.metrics.refusals == {"UnknownPresenceEvent": 1}


async def test_a_message_without_an_event_is_answered(server: Server) -> None:
    """Ok, and nothing else."""
    client = await server.joined(**ON)
    client.push(ROOM, "presence", {"type": "presence"})
    assert [message[3:] for message in await client.settled()] == [["phx_reply", OK]]


@VERSIONS
@pytest.mark.parametrize("payload", ["bass", 5, None, ["bass"], True])
async def test_what_is_no_object_is_not_tracked(server: Server, vsn: str, payload: object) -> None:
    """The reply says so, nobody hears of it, and the channel lives."""
    client = await server.joined(vsn, **ON)
    presence(client, "track", payload=payload)
    text = "Presence track payload must be a map"
    refused = {"status": "error", "response": {"reason": text}}
    assert [message[4] for message in await client.settled()] == [refused]
    assert list(client.socket.channels) == [ROOM]


@VERSIONS
@PRIVACY
async def test_a_large_payload_ends_the_channel(
    start: Callable[..., Server], vsn: str, private: bool
) -> None:
    """With its reason; what was tracked before leaves."""
    server = start(max_payload_bytes=200)
    client, other = [await server.joined(vsn, private=private, **ON) for _ in range(2)]
    presence(client, "track", payload={"n": 1})
    await client.settled()
    await other.settled()
    presence(client, "track", payload={"n": "x" * 200})
    messages = await client.settled()
    assert [message[3] for message in messages] == ["system", "phx_close"]
    assert messages[0][4]["message"] == "Track message size exceeded"
    assert [list(message[4]["leaves"]) for message in await other.settled()] == [["eric"]]


async def test_presence_limits_of_two_sockets_are_apart(server: Server) -> None:
    """What one uses up, the other has."""
    first, second = await server.joined(**ON), await server.joined(**ON)
    for _ in range(6):
        presence(first, "track")
    await second.settled()
    presence(second, "track")
    assert events(await second.settled())[-1] == "phx_reply"


async def test_the_number_of_presence_messages_is_a_setting(start: Callable[..., Server]) -> None:
    """One more ends the channel."""
    server = start(limits=LimitSettings(max_client_presence_events_per_window=2))
    client = await server.joined(**ON)
    for event in ("track", "untrack", "track"):
        presence(client, event)
    messages = await client.settled()
    assert events(messages).count("phx_reply") == 2
    assert messages[-2][4]["message"] == "Client presence rate limit exceeded"


async def test_the_window_of_presence_messages_is_a_setting(
    start: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it has passed, all of them are there again."""
    limits = LimitSettings(max_client_presence_events_per_window=1, client_presence_window_ms=2000)
    server = start(limits=limits)
    client = await server.joined(**ON)
    presence(client, "track")
    later = server.realtime.loop.time() + 2.5
    with monkeypatch.context() as patched:
        patched.setattr(server.realtime.loop, "time", lambda: later)
        presence(client, "untrack")
    assert events(await client.settled()).count("phx_reply") == 2


async def test_seeing_presence_uses_up_no_limit(start: Callable[..., Server]) -> None:
    """However many diffs arrive, who listens may track (limits are on what somebody does)."""
    limits = LimitSettings(max_presence_events_per_second=20, max_client_presence_events_per_window=0)
    server = start(limits=limits)
    listener, tracker = await server.joined(**ON), await server.joined(**ON)
    for number in range(30):
        presence(tracker, "track", payload={"n": number})
    await listener.settled()
    presence(listener, "track")
    assert events(await listener.settled())[-1] == "phx_reply"
