"""The law of tokens: each row of the table in the client specification, 2.5, with a clock of our own."""

from __future__ import annotations

import pytest
from tests.unit.client.world import START, World, jwt

from backbeat.client import events
from backbeat.client.config import ChangeBinding
from backbeat.client.engine import inputs
from backbeat.client.engine.tokens import Source
from backbeat.errors import Denied, TokenUnavailable

T0, T1, T2 = jwt(), jwt(), jwt()
SONGS = (ChangeBinding(table="songs"),)
EXPIRED_TEXT = "Token has expired 3 seconds ago"


def provided(token: str | None = T0) -> World:
    """A client whose source answers at once; every next answer is the newest `world.answer`."""
    return World(source=True, answer=token)


# A: being told, and asking ----------------------------------------------------------------------------------


def test_a1_making_a_client_does_nothing() -> None:
    """No socket, no timer, no question."""
    world = World(source=True, answer=T1)
    assert (world.opens, world.asked, world.timers) == (0, [], set())


def test_a2_a_token_before_any_channel_waits_for_the_join() -> None:
    """It opens no socket, and its source is known."""
    world = World()
    world.set_auth(T1)
    assert world.opens == 0
    assert world.engine.keeper.state().source is Source.MANUAL
    world.joined()
    assert world.join_tokens() == [T1]


def test_a3_each_joined_channel_is_told_once() -> None:
    """Two are joined and told, with nothing but the token; one that was left is not, and joins with it."""
    world = World()
    world.joined("one")
    gone = world.joined("gone")
    world.joined("two")
    world.unsubscribe(gone)
    world.set_auth(T1)
    assert world.pushed_tokens() == [{"access_token": T1}] * 2
    assert [each.topic for each in world.server.of("access_token")] == ["one", "two"]
    world.subscribe("gone", channel=gone)
    join = world.server.joins("gone")[-1]
    assert join["access_token"] == T1
    assert join["version"].startswith("backbeat-py/")


def test_a4_the_same_token_again_is_not_told_again() -> None:
    """Once in total."""
    world = World()
    world.joined()
    world.set_auth(T1)
    world.set_auth(T1)
    assert len(world.pushed_tokens()) == 1


def test_a5_what_is_no_jwt_is_used_and_said() -> None:
    """It is pushed if no JWT was in use; else the channels of that user are left, and come back with it."""
    world = World()
    world.joined()
    world.set_auth("sb-key")
    assert world.pushed_tokens() == [{"access_token": "sb-key"}]
    assert world.of(events.NotAJwt)
    world = World()
    world.set_auth(T1)
    world.joined(private=True)
    world.set_auth("sb-key")
    assert world.pushed_tokens() == []
    assert world.join_tokens() == [T1, "sb-key"]


def test_a6_a_token_during_a_join_is_told_after_it() -> None:
    """The join carried the old one; the new one follows its reply, and not before."""
    world = World(token=T0)
    world.server.ignore("phx_join", times=1)
    world.subscribe()
    world.set_auth(T1)
    assert world.pushed_tokens() == []
    join = world.server.of("phx_join")[0].message
    assert join.join_ref is not None
    connection = world.server.connections[0]
    connection.reply(join, response={"postgres_changes": []})
    assert world.join_tokens() == [T0]
    assert [each.payload for each in world.server.of("access_token")] == [{"access_token": T1}]


def test_a7_a_token_while_disconnected_waits_for_the_rejoin() -> None:
    """It starts no connection."""
    world = World(token=T0)
    world.joined()
    world.server.unreachable()
    world.server.cut()
    opens = world.opens
    world.set_auth(T1)
    assert world.opens == opens
    world.server.unreachable(False)
    world.advance(30)
    assert world.join_tokens() == [T0, T1]
    assert world.pushed_tokens() == []


@pytest.mark.parametrize(("answer", "pushes"), [(T0, 0), (T1, 1)])
def test_a8_set_auth_without_a_token_asks_the_source(answer: str, pushes: int) -> None:
    """Once; a value that has changed is told."""
    world = provided(T0)
    world.joined()
    asked = len(world.asked)
    world.answer = answer
    ticket = world.use_source()
    assert len(world.asked) == asked + 1
    assert len(world.pushed_tokens()) == pushes
    assert world.outcome(ticket).value.source is Source.PROVIDER


def test_a9_set_auth_without_a_token_ends_a_pin() -> None:
    """The source is asked once, and its value takes over; the change of source is said."""
    world = provided(T0)
    world.set_auth(T1)
    world.joined()
    assert (world.join_tokens(), world.asked) == ([T1], [])
    world.use_source()
    assert len(world.asked) == 1
    assert world.pushed_tokens() == [{"access_token": T0}]
    assert [(e.before, e.source) for e in world.of(events.TokenSourceChanged)][-1] == ("manual", "provider")


def test_a10_without_a_source_the_explicit_token_stays() -> None:
    """There is nothing to go back to."""
    world = World()
    world.set_auth(T0)
    world.joined()
    world.use_source()
    world.joined("other")
    assert world.join_tokens() == [T0, T0]
    assert world.pushed_tokens() == []


def test_a11_clear_auth_really_clears() -> None:
    """No push, for servers ignore it: the user's channels are left; public ones join without a token."""
    world = World()
    world.set_auth(T0)
    public, private = world.joined("public"), world.joined("private", private=True)
    world.clear_auth()
    assert world.pushed_tokens() == []
    assert world.engine.keeper.current is None
    assert (world.state(public), world.state(private)) == ("joined", "errored")
    assert [each.topic for each in world.server.of("phx_leave")] == ["private"]
    world.joined("next")
    assert world.join_tokens("next") == [None]


def test_a12_an_explicit_token_wins_over_a_pending_answer() -> None:
    """The answer that was on its way counts no more; with `pin=False` the source is asked again later."""
    world = World(source=True)
    world.subscribe()
    pending = world.asked[-1]
    world.set_auth(T1, pin=False)
    world.resolve(T0, pending)
    assert pending in world.cancelled
    assert world.join_tokens() == [T1]
    assert world.pushed_tokens() == []
    world.use_source()
    world.resolve(T2)
    assert world.pushed_tokens() == [{"access_token": T2}]


def test_a13_a_sign_out_wins_over_an_older_answer() -> None:
    """Two questions overlap; the newest says nobody, the older one's token comes later and is ignored."""
    world = World(source=True)
    world.use_source()
    world.use_source()
    oldest, newest = world.asked
    world.resolve(None, newest)
    world.resolve(T1, oldest)
    assert world.engine.keeper.current is None
    world.subscribe()
    world.resolve(None)
    assert world.join_tokens() == [None]


def test_a14_the_newest_question_stays_open_when_an_older_one_is_answered() -> None:
    """Connecting then asks no third time."""
    world = World(source=True)
    world.use_source()
    world.use_source()
    oldest, newest = world.asked
    world.resolve(T0, oldest)
    world.command(inputs.Connect)
    assert len(world.asked) == 2
    world.resolve(T1, newest)
    assert world.engine.keeper.current is not None
    assert world.engine.keeper.current.value == T1


def test_a15_a_source_may_set_a_token_itself() -> None:
    """The explicit token is kept, and the source's own answer counts no more."""
    world = World(source=True)
    world.subscribe()
    world.set_auth(T1)
    world.resolve(None, world.asked[0])
    assert world.join_tokens() == [T1]
    assert world.engine.keeper.state().pinned
    assert world.pushed_tokens() == []


def test_a16_a_source_that_fails_leaves_the_token_in_use() -> None:
    """It is said, not raised; the question is asked once."""
    world = World(source=True)
    world.subscribe()
    world.resolve(T0)
    ticket = world.use_source()
    world.fail_token(RuntimeError("no network"))
    assert world.outcome(ticket).error is None
    assert isinstance(world.outcome(ticket).value.last_error, RuntimeError)
    assert [str(e.error) for e in world.of(events.TokenProviderFailed)] == ["no network"]
    world.advance(20)
    assert len(world.asked) == 2
    assert world.pushed_tokens() == []


def test_a17_a_source_that_never_answered_is_asked_again() -> None:
    """After 1, 2, 5 and 10 seconds; the connection is there, and no private channel is joined blindly."""
    world = World(source=True)
    private, ticket = world.subscribe("private", private=True)
    public, _ = world.subscribe("public")
    world.fail_token(RuntimeError("no network"))
    assert world.engine.link.is_open
    assert (world.state(private), world.state(public)) == ("errored", "joined")
    for delay in (1, 2, 5, 10):
        asked = len(world.asked)
        world.advance(delay - 0.5)
        assert len(world.asked) == asked
        world.advance(0.5)
        assert len(world.asked) == asked + 1
        world.fail_token(RuntimeError("no network"))
    assert world.join_tokens("private") == []
    assert isinstance(world.outcome(ticket).error, TokenUnavailable)
    world.advance(10)
    world.resolve(T1)
    assert world.join_tokens("private") == [T1]
    assert world.pushed_tokens("public") == [{"access_token": T1}]


def test_a18_a_source_that_fails_during_a_subscription_costs_nothing() -> None:
    """The join carries the token of before."""
    world = World(source=True)
    world.subscribe("one")
    world.resolve(T0)
    world.subscribe("two", private=True)
    world.fail_token(RuntimeError("no network"))
    assert world.join_tokens("two") == [T0]


def test_a19_a_source_that_says_nobody_clears_the_token() -> None:
    """The next joins carry none; channels that are somebody's business are left."""
    world = provided(T0)
    channel = world.joined(private=True)
    public = world.joined("public")
    world.answer = None
    world.use_source()
    assert world.pushed_tokens() == []
    assert (world.state(channel), world.state(public)) == ("errored", "joined")
    world.joined("next")
    assert world.join_tokens("next") == [None]


def test_a20_the_same_answer_changes_nothing() -> None:
    """No frame is sent."""
    world = provided(T0)
    world.joined()
    sent = len(world.sent)
    world.use_source()
    assert len(world.sent) == sent


def test_a21_a_source_that_hangs_is_given_up() -> None:
    """After `auth_timeout`, with a name; the join goes on with the token of before."""
    world = World(source=True)
    world.subscribe("one")
    world.resolve(T0)
    world.subscribe("two")
    hanging = world.asked[-1]
    world.advance(10)
    assert hanging in world.cancelled
    assert [e.error.code for e in world.of(events.TokenProviderFailed)] == ["TokenProviderTimeout"]  # type: ignore[attr-defined]
    assert world.join_tokens("two") == [T0]


class Session:
    """Something with a token in it."""

    access_token = T1


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        ({"access_token": T1}, "item 'access_token'"),
        (Session(), "attribute `access_token`"),
        (7, "a str or None, and not a int"),
    ],
)
def test_a22_what_is_no_token_is_explained(value: object, advice: str) -> None:
    """The message names the shape that was expected, and never holds the token."""
    world = World(source=True)
    world.subscribe()
    world.resolve(value)  # type: ignore[arg-type]
    (failed,) = world.of(events.TokenProviderFailed)
    assert isinstance(failed.error, TypeError)
    assert advice in str(failed.error)
    assert T1 not in str(failed.error)


# B: the client's own moves ----------------------------------------------------------------------------------


def test_b1_connecting_asks_once_and_joins_wait() -> None:
    """One question for the connection and all joins after it."""
    world = World(source=True)
    world.command(inputs.Connect)
    world.subscribe()
    assert len(world.asked) == 1
    assert world.join_tokens() == []
    world.resolve(T1)
    assert world.join_tokens() == [T1]


def test_b2_connecting_with_an_explicit_token_asks_nobody() -> None:
    """Neither without a source, nor with a pin over one."""
    world = World(source=True)
    world.set_auth(T1)
    world.command(inputs.Connect)
    world.joined()
    assert (world.asked, world.join_tokens()) == ([], [T1])


def test_b3_a_heartbeat_asks_when_the_token_is_old() -> None:
    """By default after a minute; with `token_max_age=0`, at each. Only a value that changed is told."""
    world = provided(T0)
    world.joined()
    asked = len(world.asked)
    world.advance(25)
    assert len(world.asked) == asked
    world.answer = T1
    world.advance(50)
    assert len(world.asked) == asked + 1
    assert world.pushed_tokens() == [{"access_token": T1}]
    world = World(source=True, answer=T0, token_max_age=0)
    world.joined()
    asked = len(world.asked)
    world.advance(50)
    assert len(world.asked) == asked + 2
    assert world.pushed_tokens() == []


def test_b4_a_heartbeat_leaves_an_explicit_token_alone() -> None:
    """With or without a source behind it."""
    world = World(source=True, token_max_age=0)
    world.set_auth(T1)
    world.joined()
    world.advance(100)
    assert (world.asked, world.pushed_tokens()) == ([], [])


@pytest.mark.parametrize("delay", [0.03, 5.0])
def test_b5_the_first_join_waits_for_the_token(delay: float) -> None:
    """However long it takes, the join carries it, and no push follows."""
    world = World(source=True)
    world.subscribe(private=True)
    world.advance(delay)
    assert world.join_tokens() == []
    world.resolve(T1)
    assert (world.join_tokens(), world.pushed_tokens(), len(world.asked)) == ([T1], [], 1)


def test_b6_an_accepted_join_asks_nothing() -> None:
    """The join itself carried the newest token."""
    world = provided(T1)
    world.joined()
    assert (len(world.asked), world.pushed_tokens()) == (1, [])


def test_b7_an_accepted_join_with_an_explicit_token_says_nothing_more() -> None:
    """What the server was told is what is in use."""
    world = World()
    world.set_auth(T1)
    world.joined()
    assert (world.asked, world.pushed_tokens()) == ([], [])


def test_b8_a_reconnect_asks_once_and_joins_with_the_answer() -> None:
    """A token that was rotated meanwhile is in the join; no push corrects it."""
    world = provided(T0)
    world.joined("one", private=True)
    world.joined("two", private=True)
    asked = len(world.asked)
    world.answer = T1
    world.server.cut()
    world.advance(5)
    assert len(world.asked) == asked + 1
    assert world.join_tokens("one") == [T0, T1]
    assert world.join_tokens("two") == [T0, T1]
    assert world.pushed_tokens() == []


def test_b9_a_reconnect_with_an_explicit_token_keeps_it() -> None:
    """Nobody is asked."""
    world = World()
    world.set_auth(T0)
    world.joined()
    world.server.cut()
    world.advance(5)
    assert (world.join_tokens(), world.asked) == ([T0, T0], [])


def test_b10_a_subscription_after_a_disconnect_asks_once() -> None:
    """The freshest token is in the join."""
    world = provided(T0)
    channel = world.joined()
    world.command(inputs.Disconnect)
    asked = len(world.asked)
    world.answer = T1
    world.subscribe(channel=channel)
    assert len(world.asked) == asked + 1
    assert world.join_tokens() == [T0, T1]


@pytest.mark.parametrize("topic", ["room", "other"])
def test_b11_b12_removing_a_channel_keeps_an_explicit_token(topic: str) -> None:
    """The same topic or another: the token is there; the old channel was really left."""
    world = World()
    world.set_auth(T0)
    world.remove(world.joined("room", private=True))
    world.joined(topic, private=True)
    assert len(world.server.of("phx_leave")) == 1
    assert (world.join_tokens(), world.asked) == ([T0, T0], [])


def test_b13_subscribing_again_asks_again() -> None:
    """A channel that comes back after its removal joins with a fresh token."""
    world = provided(T0)
    world.remove(world.joined())
    asked = len(world.asked)
    world.answer = T1
    world.joined()
    assert len(world.asked) > asked
    assert world.join_tokens() == [T0, T1]


def test_b14_removing_all_channels_keeps_an_explicit_token() -> None:
    """Disconnecting too."""
    world = World()
    world.set_auth(T0)
    for topic in ("one", "two"):
        world.remove(world.joined(topic))
    world.command(inputs.Disconnect)
    world.joined("three")
    assert world.join_tokens("three") == [T0]


def test_b15_after_sleep_no_ended_token_is_sent() -> None:
    """The machine wakes with a token that has ended: a fresh one is asked for before any join."""
    world = World(source=True)
    short = jwt(lives=600)
    world.subscribe(private=True)
    world.resolve(short)
    world.sleep(3600)
    world.server.cut()
    asked = len(world.asked)
    world.advance(2)
    assert world.join_tokens() == [short]
    fresh = jwt(now=START + 3600)
    world.resolve(fresh)
    world.advance(1)
    assert world.join_tokens() == [short, fresh]
    assert len(world.asked) - asked <= 1
    assert world.of(events.Woke)


# C: what the server says ------------------------------------------------------------------------------------


def test_c1_a_refused_token_is_replaced_at_once() -> None:
    """The source is asked for another one, and the join is sent again; only then comes a wait."""
    world = provided(T0)
    world.server.refuse_join("room", f"InvalidJWTToken: {EXPIRED_TEXT}", times=1)
    world.answer = lambda: T1 if world.refused_asked else T0
    world.joined()
    assert (world.join_tokens(), len(world.refused_asked)) == ([T0, T1], 1)


def test_c1_a_token_refused_twice_is_waited_with_and_the_clock_suspected() -> None:
    """The server calls a token expired that has time left here."""
    world = provided(T0)
    world.server.refuse_join("room", f"InvalidJWTToken: {EXPIRED_TEXT}")
    world.subscribe(timeout=100)
    assert len(world.join_tokens()) == 2
    assert world.of(events.ClockSkewSuspected)[0].seconds_left > 0
    world.advance(1)
    assert len(world.join_tokens()) == 3
    assert len(world.refused_asked) == 1


def test_c2_a_channel_that_is_closed_for_its_token_comes_back() -> None:
    """The user sees an interruption and its end, and no bare closing."""
    world = provided(T0)
    channel = world.joined(private=True)
    world.answer = T1
    world.server.connections[0].shut_down("room", EXPIRED_TEXT)
    assert world.state(channel) == "joined"
    assert world.join_tokens() == [T0, T1]
    assert len(world.refused_asked) == 1
    statuses = [type(event).__name__ for event in world.of(events.StatusEvent)]
    assert statuses == ["Subscribed", "Interrupted", "Resumed"]


def test_c3_a_denied_channel_waits_for_another_token() -> None:
    """Nobody asks, nothing is tried again, until the token is another."""
    world = provided(T0)
    reason = "You do not have permissions to read from this Channel topic: room"
    world.server.refuse_join("room", f"Unauthorized: {reason}")
    channel, ticket = world.subscribe(private=True)
    assert isinstance(world.outcome(ticket).error, Denied)
    world.advance(20)
    assert (world.state(channel), len(world.join_tokens()), len(world.asked)) == ("denied", 1, 1)
    world.server.refuse_join("room", "", times=0)
    world.set_auth(T1)
    assert (world.state(channel), world.join_tokens()) == ("joined", [T0, T1])


@pytest.mark.parametrize(
    "reason",
    [
        "MalformedJWT: The token provided is not a valid JWT",
        "JwtSignatureError: Failed to validate JWT signature",
    ],
)
def test_c4_a_token_that_is_none_is_replaced_once(reason: str) -> None:
    """With a source once more, then never; without one, never."""
    for world, joins in ((provided(T0), 2), (World(token=T0), 1)):
        world.server.refuse_join("room", reason)
        channel, ticket = world.subscribe()
        assert world.outcome(ticket).error is not None
        world.advance(60)
        assert (world.state(channel), len(world.join_tokens())) == ("denied", joins)


def test_c5_a_revoked_permission_is_final() -> None:
    """Until the token is another; nobody is asked for one."""
    world = provided(T0)
    channel = world.joined(private=True)
    asked = len(world.asked)
    world.server.connections[0].shut_down(
        "room", "You no longer have permission to read from this Channel topic: room"
    )
    assert (world.state(channel), len(world.asked)) == ("denied", asked)
    (denied,) = world.of(events.ChannelDenied)
    assert "no longer" in denied.error.message


# D: what happens to the session -----------------------------------------------------------------------------


def test_d1_d3_a_refreshed_token_is_told_once_on_each_channel() -> None:
    """The same user: no channel is left."""
    world = provided(T0)
    for topic in ("one", "two"):
        world.joined(topic, private=True)
    world.answer = T1
    world.tell(inputs.SourceChanged())
    assert world.pushed_tokens() == [{"access_token": T1}] * 2
    assert world.server.of("phx_leave") == []


def test_d2_another_user_is_another_membership() -> None:
    """Channels that are somebody's business are left first, with their presence, and joined as the other."""
    world = provided(T0)
    channel = world.joined("room", private=True, presence=True)
    world.track(channel, {"name": "eric"})
    world.joined("public")
    other = jwt("mike")
    world.answer = other
    world.tell(inputs.SourceChanged())
    assert world.join_tokens("room") == [T0, other]
    assert world.pushed_tokens("room") == []
    order = [each.event for each in world.server.received if each.topic == "room"]
    assert order == ["phx_join", "presence", "phx_leave", "phx_join"]
    assert world.pushed_tokens("public") == [{"access_token": other}]


def test_d4_a_refreshed_token_that_is_the_same_says_nothing() -> None:
    """The same event twice costs no frame."""
    world = provided(T0)
    world.joined()
    sent = len(world.sent)
    world.tell(inputs.SourceChanged())
    world.tell(inputs.SourceChanged())
    assert len(world.sent) == sent


def test_d5_a_restored_session_comes_before_the_first_join() -> None:
    """Whatever the order of the session's answer and the connection's."""
    world = World(source=True)
    world.slow_upgrades = True
    world.subscribe(private=True)
    world.resolve(T1)
    assert world.join_tokens() == []
    world.open_socket()
    assert world.join_tokens() == [T1]


def test_d6_without_a_session_private_channels_wait() -> None:
    """Nobody is signed in: the private channel says what it waits for, and joins when somebody is."""
    world = provided(None)
    channel, ticket = world.subscribe("private", private=True)
    world.joined("public")
    assert world.join_tokens() == [None]
    world.advance(10)
    error = world.outcome(ticket).error
    assert isinstance(error, TokenUnavailable)
    assert "nobody is signed in" in error.message
    world.answer = T1
    world.tell(inputs.SourceChanged())
    assert world.state(channel) == "joined"
    assert world.join_tokens("private") == [T1]


def test_d7_signing_out_ends_what_was_the_users() -> None:
    """Its channels are left at once, nothing more is delivered, and its token is never sent again.

    A channel of row changes comes back without it, for some rows are everybody's.
    """
    world = provided(T0)
    private = world.joined("private", private=True)
    rows = world.joined("rows", changes=SONGS)
    world.server.ignore("phx_leave")
    world.answer = None
    world.tell(inputs.SourceChanged(signed_out=True))
    assert {each.topic for each in world.server.of("phx_leave")} == {"private", "rows"}
    sent = len(world.sent)
    world.server.change("songs", "INSERT", {"id": 1})
    world.server.broadcast("private", "secret", {}, private=True)
    assert not world.of(events.ChangeEvent)
    assert not world.of(events.BroadcastEvent)
    world.advance(30)
    assert (world.state(private), world.state(rows)) == ("errored", "joined")
    assert world.join_tokens("rows") == [T0, None]
    assert not any(T0 in str(frame) for frame in world.sent[sent:])


def test_d8_d9_other_events_never_fall_back_to_the_api_key() -> None:
    """The source is asked again, and what it says is used."""
    world = provided(T0)
    world.joined(private=True)
    world.answer = T1
    world.tell(inputs.SourceChanged())
    assert world.pushed_tokens() == [{"access_token": T1}]
    assert world.engine.keeper.current is not None


def test_d10_a_pinned_token_does_not_follow_the_session() -> None:
    """Whoever pins a token has said what is to be used."""
    world = provided(T0)
    world.set_auth(T1)
    channel = world.joined(private=True)
    world.tell(inputs.SourceChanged(signed_out=True))
    assert (world.state(channel), world.asked) == ("joined", [])


def test_e3_a_hundred_subscriptions_ask_once() -> None:
    """All joins carry the answer."""
    world = World(source=True)
    for number in range(100):
        world.subscribe(f"room {number}", private=True)
    world.resolve(T1)
    world.advance(10)
    assert (len(world.asked), set(world.join_tokens()), len(world.join_tokens())) == (1, {T1}, 100)


# Between the rows -------------------------------------------------------------------------------------------


def test_a_token_is_replaced_before_it_ends() -> None:
    """One minute before, or two heartbeats."""
    world = World(source=True, answer=T0, token_max_age=10_000)
    world.joined()
    asked = len(world.asked)
    world.advance(3539)
    assert len(world.asked) == asked
    world.answer = T1
    world.advance(2)
    assert world.pushed_tokens() == [{"access_token": T1}]


def test_a_pinned_token_that_ends_soon_is_said() -> None:
    """One minute before, for nobody will replace it."""
    world = World()
    world.set_auth(jwt(lives=120))
    world.advance(59)
    assert world.of(events.PinnedTokenExpiring) == []
    world.advance(2)
    assert round(world.of(events.PinnedTokenExpiring)[0].seconds_left) == 60


def test_a_join_without_a_user_is_said_where_rows_are_wanted() -> None:
    """The channel joins, and the tables are named; `require_user_token` refuses instead."""
    world = World()
    world.joined(changes=SONGS)
    assert world.of(events.JoinedAsAnon)[0].tables == ("public.songs",)
    world = World(require_user_token=True)
    _, ticket = world.subscribe(changes=SONGS)
    assert isinstance(world.outcome(ticket).error, TokenUnavailable)
    assert world.join_tokens() == []
    world.joined("public")


def test_a_source_whose_tokens_have_ended_is_asked_again_and_not_believed() -> None:
    """A join never carries a token that has ended."""
    world = World(source=True)
    world.subscribe(private=True)
    world.resolve(jwt(lives=-5))
    assert world.join_tokens() == []
    world.advance(1)
    world.resolve(T1)
    assert world.join_tokens() == [T1]
