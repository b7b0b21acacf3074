"""Whatever happens in whatever order, the invariants of the client specification hold (7.5)."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.unit.client.world import World, jwt

from backbeat.client import events
from backbeat.client.config import ChangeBinding
from backbeat.client.engine import effects, inputs
from backbeat.client.engine.link import LinkState
from backbeat.client.engine.membership import ChannelState
from backbeat.protocol.codec import V2
from backbeat.tokens.unverified import moment, read_claims

USERS = ("eric", "mike")
TOPICS = ("one", "two", "three")
KINDS: dict[str, dict[str, Any]] = {
    "private": {"private": True},
    "changes": {"changes": (ChangeBinding(table="songs"),)},
    "public": {},
}


class Watched(World):
    """A world that checks every frame when it is written, and every event when it is told."""

    def __init__(self) -> None:
        self.user: str | None = "eric"
        """Who is signed in, as far as the client was told."""
        self.over: set[int] = set()
        """The questions that were answered, or are not wanted any more."""
        self.topics_of: dict[int, tuple[str, dict[str, Any]]] = {}
        super().__init__(source=True, token_max_age=30)

    def _send(self, effect: effects.Send) -> None:
        before = len(self.sent)
        super()._send(effect)
        for frame in self.sent[before:]:
            if isinstance(frame, str):
                self._check_frame(frame)

    def resolve(self, value: str | None, request: int | None = None) -> None:
        """Let the source answer."""
        self.over.add(self.asked[-1] if request is None else request)
        super().resolve(value, request)

    def fail_token(self, error: Exception, request: int | None = None) -> None:
        """Let the source raise."""
        self.over.add(self.asked[-1])
        super().fail_token(error, request)

    def _check_frame(self, frame: str) -> None:
        message = V2.decode(frame.encode())
        payload = json.loads(message.payload)
        token = payload.get("access_token")
        if token is None:
            return
        newest = self.engine.keeper.current
        # INV-3: no frame carries a token older than the newest one, nor one that has ended.
        assert newest is not None
        assert token == newest.value
        expires_at = moment(read_claims(token), "exp")
        assert expires_at is None or expires_at > self.wall

    def _carry_out(self, effect: effects.Effect) -> None:
        if isinstance(effect, effects.Emit):
            self._check_event(effect)
        elif isinstance(effect, effects.AskToken):
            # INV-6: the one before was answered, or is not wanted any more.
            assert self.asked[-1:] == [] or self.asked[-1] in self.over
        elif isinstance(effect, effects.StopAsking):
            self.over.add(effect.request)
        super()._carry_out(effect)

    def _check_event(self, effect: effects.Emit) -> None:
        # INV-11: everything that is not good news has a reason.
        if isinstance(effect.event, events.Interrupted | events.ChannelDenied):
            assert effect.event.error.message
            assert effect.event.error.code
        # INV-12: what one identity may see is not given to another.
        if isinstance(effect.event, events.BroadcastEvent) and effect.event.payload is not None:
            whose = effect.event.payload.get("for")
            assert whose is None or whose == self.identity()

    def identity(self) -> str | None:
        """Whose token is the newest."""
        token = self.engine.keeper.current
        return None if token is None else token.sub


class Law(RuleBasedStateMachine):
    """Random moves of the user, the token source, the clock and the network."""

    def __init__(self) -> None:
        super().__init__()
        self.world = Watched()
        self.tickets: dict[int, float] = {}
        self.numbers: dict[str, int] = {}
        self.tokens: dict[str, str] = {}

    def mint(self, user: str, lives: float) -> str:
        """A token that is good from now on."""
        return jwt(user, lives=lives, now=self.world.wall)

    @initialize()
    def begin(self) -> None:
        """A channel of each kind, joined by somebody."""
        for topic, kind in zip(TOPICS, KINDS, strict=True):
            self.subscribe(topic, kind)
        self.answer(USERS[0], 3600.0)

    # The user -----------------------------------------------------------------------------------------------

    @rule(topic=st.sampled_from(TOPICS), kind=st.sampled_from(sorted(KINDS)))
    def subscribe(self, topic: str, kind: str) -> None:
        """Subscribe a channel, or the one of this topic again."""
        if topic in self.numbers:
            number = self.numbers[topic]
            config = self.world.topics_of[number][1]
        else:
            number, config = None, KINDS[kind]
        number, ticket = self.world.subscribe(topic, channel=number, timeout=10.0, **config)
        self.numbers[topic] = number
        self.world.topics_of[number] = topic, config
        self.tickets[ticket] = self.world.steady + 10.0

    @rule(topic=st.sampled_from(TOPICS))
    def remove(self, topic: str) -> None:
        """Leave a channel and forget it."""
        if topic in self.numbers:
            number = self.numbers.pop(topic)
            self.tickets[self.world.unsubscribe(number)] = self.world.steady + 5.0
            self.world.tell(inputs.RemoveChannel(number))

    @rule(user=st.sampled_from(USERS), lives=st.sampled_from([5.0, 90.0, 3600.0]), pin=st.booleans())
    def set_auth(self, user: str, lives: float, pin: bool) -> None:
        """Give an explicit token."""
        self.tickets[self.world.set_auth(self.mint(user, lives), pin=pin)] = self.world.steady

    @rule()
    def use_source(self) -> None:
        """Go back to the source."""
        self.tickets[self.world.use_source()] = self.world.steady + 10.0

    @rule()
    def clear_auth(self) -> None:
        """Sign out."""
        self.tickets[self.world.clear_auth()] = self.world.steady

    @rule(topic=st.sampled_from(TOPICS), track=st.booleans())
    def push(self, topic: str, track: bool) -> None:
        """Send something."""
        if topic in self.numbers:
            number = self.numbers[topic]
            ticket = self.world.track(number, {"n": 1}) if track else self.world.broadcast(number)
            self.tickets[ticket] = self.world.steady + 10.0

    @rule()
    def disconnect_and_connect(self) -> None:
        """Close the connection, and want it again."""
        self.tickets[self.world.command(inputs.Disconnect)] = self.world.steady
        self.world.command(inputs.Connect)

    # The source ---------------------------------------------------------------------------------------------

    def is_asked(self) -> bool:
        """Whether a question is open."""
        return self.world.engine.keeper.state().pending

    @precondition(is_asked)
    @rule(user=st.sampled_from(USERS), lives=st.sampled_from([-10.0, 5.0, 90.0, 3600.0]))
    def answer(self, user: str, lives: float) -> None:
        """The source answers the newest question."""
        self.world.resolve(self.mint(user, lives))

    @precondition(lambda self: self.world.cancelled)
    @rule(user=st.sampled_from(USERS))
    def answer_too_late(self, user: str) -> None:
        """The source answers a question that counts no more."""
        before = self.world.engine.keeper.current
        self.world.resolve(self.mint(user, 3600.0), self.world.cancelled[-1])
        assert self.world.engine.keeper.current is before

    @precondition(is_asked)
    @rule()
    def answer_nobody(self) -> None:
        """The source says that nobody is signed in."""
        self.world.resolve(None)

    @precondition(is_asked)
    @rule()
    def fail(self) -> None:
        """The source raises."""
        self.world.fail_token(RuntimeError("no network"))

    @rule(signed_out=st.booleans())
    def source_changed(self, signed_out: bool) -> None:
        """The source says that something changed."""
        self.world.tell(inputs.SourceChanged(signed_out=signed_out))

    # The world ----------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 11.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        """Timers run out."""
        self.world.advance(seconds)

    @rule(seconds=st.sampled_from([10.0, 4000.0]))
    def sleep(self, seconds: float) -> None:
        """The machine sleeps."""
        self.world.sleep(seconds)

    @rule(code=st.sampled_from([1000, 1006, 1012]))
    def cut(self, code: int) -> None:
        """The connection goes."""
        self.world.server.close(code)

    @rule(away=st.booleans())
    def server_away(self, away: bool) -> None:
        """The server cannot be reached, or can again."""
        self.world.server.unreachable(away)

    @rule(status=st.sampled_from([401, 429, 503]))
    def refuse_upgrade(self, status: int) -> None:
        """The next upgrade is refused."""
        self.world.server.refuse_upgrades(status)

    @rule(
        topic=st.sampled_from(TOPICS),
        reason=st.sampled_from(
            [
                "InvalidJWTToken: Token has expired 3 seconds ago",
                "Unauthorized: You do not have permissions to read from this Channel topic: x",
                "RealtimeRestarting: Realtime is restarting, please standby",
                "ChannelRateLimitReached: Too many channels",
                "something new",
            ]
        ),
    )
    def refuse_join(self, topic: str, reason: str) -> None:
        """The next join of a topic is refused."""
        self.world.server.refuse_join(topic, reason, times=1)

    @rule(event=st.sampled_from(["phx_join", "phx_leave", "heartbeat", "broadcast", "presence"]))
    def ignore(self, event: str) -> None:
        """The next message of a kind is lost."""
        self.world.server.ignore(event, times=1)

    @rule(event=st.sampled_from(["phx_join", "phx_leave", "broadcast", "presence"]))
    def hold(self, event: str) -> None:
        """The server is slow."""
        self.world.server.hold(event)

    @rule()
    def release(self) -> None:
        """The server is no longer slow."""
        self.world.server.release()

    @rule(topic=st.sampled_from(TOPICS), how=st.sampled_from(["shut_down", "crash", "expired"]))
    def end_channel(self, topic: str, how: str) -> None:
        """The server ends a channel."""
        for connection, _ in self.world.server.channels(topic):
            if how == "crash":
                connection.crash(topic)
            else:
                text = (
                    "Token has expired 1 seconds ago" if how == "expired" else "Too many messages per second"
                )
                connection.shut_down(topic, text)

    @rule(topic=st.sampled_from(TOPICS))
    def someone_elses(self, topic: str) -> None:
        """The server sends what only the user of the channel's token may see."""
        for connection, channel in self.world.server.channels(topic):
            if channel.request.private:
                claims = read_claims(channel.token) if channel.token else None
                whose = None if claims is None else claims["sub"]
                connection.broadcast(topic, "x", json.dumps({"for": whose}).encode(), is_json=True, meta=None)

    # What always holds --------------------------------------------------------------------------------------

    @invariant()
    def there_is_one_socket_at_most(self) -> None:
        """INV-5."""
        assert self.world.most_open_sockets <= 1

    @invariant()
    def everybody_who_waits_is_settled_in_time(self) -> None:
        """INV-2."""
        late = [ticket for ticket, deadline in self.tickets.items() if deadline < self.world.steady]
        assert all(self.world.settled(ticket) for ticket in late)

    @invariant()
    def an_open_connection_is_watched(self) -> None:
        """INV-1: there is always a timer that would notice that it is dead."""
        if self.world.engine.link.state is LinkState.OPEN:
            assert {timer.name for timer in self.world.timers} & {"heartbeat", "heartbeat timeout"}

    @invariant()
    def nothing_waits_for_nothing(self) -> None:
        """A channel that is wanted is joined, or something will happen that may get it joined."""
        world = self.world
        for membership in world.engine.channels.values():
            if not membership.wanted or membership.state in (ChannelState.JOINED, ChannelState.DENIED):
                continue
            names = {timer.name for timer in world.timers if timer.subject in (0, membership.number)}
            assert (
                names & {"join", "leave", "rejoin", "reconnect", "opening", "pace", "token answer"}
                or world.engine.link.state in (LinkState.IDLE, LinkState.FATAL)
                or world.engine.keeper.usable is None
                or any(each.state is ChannelState.LEAVING for each in world.engine.channels.values())
            ), (membership, names, world.engine.link.state)

    @invariant()
    def the_server_knows_the_newest_token(self) -> None:
        """A joined channel that is somebody's business was told the newest token that has not ended."""
        keeper = self.world.engine.keeper
        token = keeper.usable
        for membership in self.world.engine.channels.values():
            if membership.state is ChannelState.JOINED and membership.config.guarded:
                told = membership.ledger.told
                if token is not None:
                    assert told is not None
                    assert told.value == token.value
                elif keeper.current is None:
                    assert told is None

    def teardown(self) -> None:
        """In the end everything can be closed, and nothing is left."""
        self.no_join_changed_hands()
        ticket = self.world.command(inputs.Close)
        assert self.world.settled(ticket)
        assert self.world.timers == set()
        assert self.world.server.connections == []
        assert all(self.world.settled(ticket) for ticket in self.tickets)

    def no_join_changed_hands(self) -> None:
        """A private channel is never handed from one user to another by a push: it is left and joined."""
        users: dict[tuple[int, str | None], set[str]] = {}
        for each in self.world.server.received:
            private = each.event == "phx_join" and each.payload["config"]["private"]
            key = each.connection, each.message.join_ref
            if private or (each.event == "access_token" and key in users):
                claims = read_claims(each.payload.get("access_token") or "")
                users.setdefault(key, set()).update([] if claims is None else [claims["sub"]])
        assert all(len(subs) <= 1 for subs in users.values())


TestLaw = Law.TestCase
TestLaw.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
