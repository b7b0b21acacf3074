"""The connection: opening, heartbeats, waiting, waking up (client specification, 1.2 to 1.9 and 1.14)."""

from __future__ import annotations

import pytest
from tests.unit.client.world import World, jwt

from backbeat.client import events
from backbeat.client.engine import inputs
from backbeat.client.engine.effects import Timer
from backbeat.errors import (
    ClientClosed,
    ConnectFailed,
    ConnectionLost,
    Denied,
    RateLimited,
    TokenRefused,
    Unavailable,
)


def states(world: World) -> list[str]:
    """The states of the connection, in order."""
    return [event.state for event in world.of(events.ConnectionChanged)]


def test_the_first_subscription_opens_the_socket() -> None:
    """Nothing before it does, and a second one opens no other."""
    world = World()
    assert (world.opens, world.engine.link.state.value) == (0, "idle")
    world.joined("one")
    world.joined("two")
    assert (world.opens, states(world)) == (1, ["connecting", "open"])


def test_an_upgrade_that_is_never_answered_is_given_up() -> None:
    """After `open_timeout` the socket is closed, and the next attempt follows; the waiter is told why."""
    world = World()
    world.slow_upgrades = True
    _, ticket = world.subscribe(timeout=12)
    world.advance(9)
    assert states(world) == ["connecting"]
    world.advance(1)
    assert states(world) == ["connecting", "draining", "backoff"]
    world.advance(1)
    assert (world.opens, world.most_open_sockets) == (2, 1)
    world.advance(1)
    assert isinstance(world.outcome(ticket).error, ConnectFailed)


def test_waits_grow_and_never_end() -> None:
    """1, 2, 5, 10, 10, … seconds."""
    world = World()
    world.server.unreachable()
    world.subscribe()
    world.advance(60)
    waits = [event.retry_in for event in world.of(events.ConnectionChanged) if event.retry_in]
    assert waits == [1, 2, 5, 10, 10, 10, 10, 10, 10]


@pytest.mark.parametrize(("random", "waits"), [(0.0, [0.8, 1.6, 4.0]), (1.0, [1.2, 2.4, 6.0])])
def test_waits_are_spread(random: float, waits: list[float]) -> None:
    """By a fifth in both directions."""
    world = World(jitter=0.2)
    world.engine = type(world.engine)(world.settings, random=lambda: random)
    world.server.unreachable()
    world.subscribe()
    world.advance(9)
    found = [event.retry_in for event in world.of(events.ConnectionChanged) if event.retry_in]
    assert found[:3] == pytest.approx(waits)


def test_waits_begin_anew_only_after_a_stable_connection() -> None:
    """A connection that lasts a moment is no success."""
    world = World()
    world.joined()
    for expected in (1, 2, 5, 10, 10):
        world.server.cut()
        assert world.of(events.ConnectionChanged)[-1].retry_in == expected
        world.advance(expected)
        assert world.engine.link.is_open
    world.advance(5)
    world.server.cut()
    assert world.of(events.ConnectionChanged)[-1].retry_in == 1


@pytest.mark.parametrize("code", [1000, 1001, 1006, 1011, 1012])
def test_every_close_by_the_server_is_followed_by_another_attempt(code: int) -> None:
    """Code 1000 too: only the client itself ends a connection for good."""
    world = World()
    channel = world.joined()
    world.server.close(code, "bye")
    assert world.state(channel) == "errored"
    world.advance(1)
    assert world.state(channel) == "joined"


@pytest.mark.parametrize(
    ("status", "text", "error", "code"),
    [
        (401, "API key is missing", TokenRefused, "MissingAPIKey"),
        (401, "Token has expired", TokenRefused, "InvalidJWTToken"),
        (401, "Failed to validate JWT signature", TokenRefused, "JwtSignatureError"),
        (403, "Realtime was disabled for this tenant", Denied, "RealtimeDisabledForTenant"),
        (404, "Tenant not found", Denied, "TenantNotFound"),
        (404, "", Denied, "UnknownErrorOnChannel"),
    ],
)
def test_a_final_refusal_of_the_upgrade_ends_it(
    status: int, text: str, error: type[Exception], code: str
) -> None:
    """Nobody tries again blindly; the channels and the waiters are told; the next subscription tries once."""
    world = World()
    world.server.refuse_upgrades(status, text)
    channel, ticket = world.subscribe()
    refused = world.outcome(ticket).error
    assert isinstance(refused, error)
    assert text in str(refused)
    assert refused.code == code  # type: ignore[attr-defined]
    world.advance(100)
    assert (world.opens, world.engine.link.state.value, world.state(channel)) == (1, "fatal", "denied")
    _, ticket = world.subscribe(channel=channel)
    assert (world.outcome(ticket).error, world.state(channel)) == (None, "joined")


@pytest.mark.parametrize(
    ("status", "text", "error", "wait"),
    [
        (429, "Too many connected users", RateLimited, 30),
        (429, "Too many joins per second", RateLimited, 30),
        (500, "Error connecting to Realtime", Unavailable, 1),
        (503, "", Unavailable, 1),
    ],
)
def test_a_passing_refusal_of_the_upgrade_is_waited_out(
    status: int, text: str, error: type[Exception], wait: float
) -> None:
    """Limits for 30 seconds at least."""
    world = World()
    world.server.refuse_upgrades(status, text)
    channel, _ = world.subscribe()
    last = world.of(events.ConnectionChanged)[-1]
    assert isinstance(last.error, error)
    assert last.retry_in == wait
    world.advance(wait)
    assert world.state(channel) == "joined"


def test_a_server_may_say_how_long_to_wait() -> None:
    """`Retry-After` counts where it is longer."""
    world = World()
    world.server.refuse_upgrades(503, "", retry_after=77)
    world.subscribe()
    assert world.of(events.ConnectionChanged)[-1].retry_in == 77


def test_heartbeats_are_sent_after_an_interval_and_measured() -> None:
    """With a ref, so that the reply can be told from others; the next one comes after the reply."""
    world = World()
    world.joined()
    world.advance(24)
    assert world.server.of("heartbeat") == []
    world.advance(1)
    (beat,) = world.server.of("heartbeat")
    assert (beat.topic, beat.payload, beat.message.ref is not None) == ("phoenix", {}, True)
    assert [event.status for event in world.of(events.Heartbeat)] == ["sent", "ok"]
    assert world.of(events.Heartbeat)[-1].latency == 0
    world.advance(25)
    assert len(world.server.of("heartbeat")) == 2


def test_a_heartbeat_without_an_answer_ends_the_connection() -> None:
    """After its own timeout; channels are interrupted, and join again over the next connection."""
    world = World()
    channel = world.joined()
    world.server.ignore("heartbeat", times=1)
    world.advance(34)
    assert world.state(channel) == "joined"
    world.advance(1)
    (interrupted,) = world.of(events.Interrupted)
    assert (interrupted.error.code, world.state(channel)) == ("HeartbeatTimeout", "errored")
    world.advance(1)
    assert (world.state(channel), world.opens, world.most_open_sockets) == ("joined", 2, 1)


def test_only_the_reply_to_the_last_heartbeat_counts() -> None:
    """Any other ref, or none, proves nothing."""
    world = World()
    world.joined()
    world.server.ignore("heartbeat")
    world.advance(25)
    for ref in (None, "999"):
        world.server.connections[0].raw(
            f'[null,{"null" if ref is None else chr(34) + ref + chr(34)},"phoenix","phx_reply",'
            '{"status":"ok","response":{}}]'
        )
    world.advance(10)
    assert world.of(events.Heartbeat)[-1].status == "timeout"


def test_a_ping_tells_the_latency_or_fails() -> None:
    """Without a connection, at once; when it goes meanwhile, too."""
    world = World()
    assert isinstance(world.outcome(world.command(inputs.Ping)).error, ClientClosed)
    world.joined()
    assert world.outcome(world.command(inputs.Ping)).value == 0
    world.server.ignore("heartbeat")
    ticket = world.command(inputs.Ping)
    world.server.cut()
    assert isinstance(world.outcome(ticket).error, ConnectionLost)


def test_waking_up_does_not_trust_the_old_connection() -> None:
    """It is asked at once, and given up after five seconds of silence."""
    world = World()
    channel = world.joined()
    world.server.ignore("heartbeat", times=1)
    world.sleep(600)
    world.engine.keeper.ask()
    world.tell(inputs.TimerFired(Timer("stable")))
    assert len(world.server.of("heartbeat")) == 1
    world.advance(5)
    assert world.state(channel) == "errored"
    world.advance(1)
    assert world.state(channel) == "joined"
    assert world.of(events.Woke)[0].slept == pytest.approx(600)


def test_a_heartbeat_that_is_much_too_late_means_sleep_too() -> None:
    """There are systems whose steady clock goes on while they sleep."""
    world = World(source=True, answer=jwt())
    world.joined()
    asked = len(world.asked)
    world.steady += 3000
    world.wall += 3000
    world.tell(inputs.TimerFired(Timer("heartbeat")))
    assert world.of(events.Woke)[0].slept == pytest.approx(2975)
    assert len(world.asked) > asked
    assert len(world.server.of("heartbeat")) == 1


def test_waking_up_does_not_wait_for_the_next_attempt() -> None:
    """Whatever was waited for may be long over."""
    world = World()
    world.joined()
    world.server.unreachable()
    world.server.cut()
    world.advance(20)
    world.server.unreachable(False)
    world.sleep(600)
    world.set_auth(jwt())
    assert world.engine.link.is_open


def test_one_join_for_each_channel_and_connection() -> None:
    """Subscribing while the server is away, and twice, does not double it."""
    world = World()
    world.server.unreachable()
    channel, _ = world.subscribe()
    world.subscribe(channel=channel)
    world.server.unreachable(False)
    world.advance(1)
    assert len(world.server.joins()) == 1
    world.server.cut()
    world.advance(2)
    assert len(world.server.joins()) == 2


def test_joins_are_paced() -> None:
    """Twenty a second, so that a server's limit is not hit by coming back."""
    world = World()
    for number in range(50):
        world.subscribe(f"room {number}")
    assert len(world.server.joins()) == 20
    world.advance(1)
    assert len(world.server.joins()) == 40
    world.server.cut()
    world.advance(5)
    assert {world.state(number) for number in world.engine.channels} == {"joined"}


def test_refs_begin_anew_with_each_connection() -> None:
    """And a join names itself."""
    world = World()
    world.joined()
    world.server.cut()
    world.advance(1)
    joins = [each.message for each in world.server.of("phx_join")]
    assert [(join.ref, join.join_ref) for join in joins] == [("1", "1"), ("1", "1")]


def test_an_idle_connection_is_closed() -> None:
    """Fifty seconds after the last channel went, unless another one comes."""
    world = World()
    channel = world.joined()
    world.unsubscribe(channel)
    world.advance(40)
    other = world.joined("other")
    world.advance(60)
    assert world.engine.link.is_open
    world.unsubscribe(other)
    world.advance(49)
    assert world.engine.link.is_open
    world.advance(1)
    assert world.engine.link.state.value == "idle"
    world.joined()
    assert world.opens == 2


def test_disconnecting_keeps_the_channels() -> None:
    """Nobody reconnects; `connect` brings them back, also when it comes while the socket is closing."""
    world = World()
    channel = world.joined()
    world.command(inputs.Disconnect)
    world.advance(100)
    assert (world.state(channel), world.opens) == ("errored", 1)
    ticket = world.command(inputs.Connect)
    assert (world.outcome(ticket).error, world.state(channel), world.opens) == (None, "joined", 2)


def test_closing_settles_everything() -> None:
    """Every wait ends, every timer stops, and nothing is accepted afterwards."""
    world = World(source=True)
    tickets = [world.subscribe(f"room {n}", private=True)[1] for n in range(3)]
    tickets += [world.command(inputs.Connect), world.command(inputs.AuthReady), world.use_source()]
    tickets += [world.broadcast(1), world.track(2, {}), world.command(inputs.Ping)]
    tickets.append(world.command(inputs.Close))
    assert all(map(world.settled, tickets))
    assert (world.timers, world.server.connections, world.engine.link.state.value) == (set(), [], "closed")
    late = [world.subscribe()[1], world.set_auth(jwt()), world.broadcast(1), world.command(inputs.Connect)]
    assert all(isinstance(world.outcome(ticket).error, ClientClosed) for ticket in late)
    assert world.timers == set()
    assert world.settled(world.command(inputs.Close))


def test_frames_of_an_older_connection_are_not_heard() -> None:
    """They may come late."""
    world = World()
    world.joined()
    world.server.cut()
    world.advance(1)
    world.tell(inputs.FramesReceived(1, ['[null,null,"realtime:room","broadcast",{"event":"x"}]']))
    assert world.of(events.BroadcastEvent) == []
    assert world.engine.stale == 1
