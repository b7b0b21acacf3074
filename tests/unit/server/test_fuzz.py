"""Whatever clients send, in whatever order: nobody but the sender is harmed, and nothing stays behind.

Three parts: single frames of any kind; clients of one server that do everything at any time; and what those
two found, as small tests of its own. `BACKBEAT_FUZZ=n` makes the first two n times as long.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import tracemalloc
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import pytest
import structlog.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from tests.unit.server.conftest import Client, Server

from backbeat.postgres.authorize import Grants, Permissions
from backbeat.protocol import reasons
from backbeat.protocol.presence import PresenceMap, sync
from backbeat.server.limits import LimitSettings
from backbeat.websocket.frames import CloseCode, Opcode, client_frame

T = TypeVar("T")

EFFORT = int(os.environ.get("BACKBEAT_FUZZ", "1"))
UNLIMITED = LimitSettings(
    max_concurrent_users=0,
    max_joins_per_second=0,
    max_events_per_second=0,
    max_presence_events_per_second=0,
    max_client_presence_events_per_window=0,
)
SETTLED = 25
"""Turns of the event loop after which the server has nothing left to do."""
VERSIONS = pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
ROOM = "realtime:room"
YES, NO = Grants(broadcast=True, presence=True), Grants(broadcast=False, presence=False)


def effort(examples: int, **more: Any) -> settings:
    """How long to try, and without a clock: the machine is shared."""
    return settings(
        max_examples=examples * EFFORT,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        **more,
    )


class Arena:
    """A server with a loop of its own, for tests that cannot be coroutines.

    Attributes:
        server: the server.
        escaped: what reached the event loop as an unhandled exception.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._stack.enter_context(structlog.testing.capture_logs())
        self._runner = self._stack.enter_context(asyncio.Runner())
        self.escaped: list[dict[str, Any]] = []
        self._runner.get_loop().set_exception_handler(lambda _, context: self.escaped.append(context))
        self.server = self.run(self._start())

    async def _start(self) -> Server:
        return Server(limits=UNLIMITED, max_payload_bytes=2_000, max_frame_bytes=5_000)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine."""
        return self._runner.run(work)

    def close(self) -> None:
        """End the server and the loop."""
        self.run(self.server.realtime.aclose())
        self._stack.close()

    def timers(self) -> list[str]:
        """Every timer that is still to fire, but the sweep's."""
        scheduled = self._runner.get_loop()._scheduled  # type: ignore[attr-defined]
        sweeper = self.server.realtime._sweeper
        return [repr(each) for each in scheduled if not each.cancelled() and each is not sweeper]

    def check_nothing_is_left(self) -> None:
        """Once everybody is gone, so is every trace of them."""
        realtime = self.server.realtime
        assert self.escaped == []
        assert len(realtime.hub) == 0
        assert realtime._tasks == set()
        assert realtime._sockets == set()
        assert (realtime.metrics.channels, realtime.metrics.connections) == (0, 0)
        assert self.server.subscriptions.held == {}
        assert self.timers() == []


@contextmanager
def arena() -> Iterator[Arena]:
    """Make a server, and check in the end that it failed nowhere and kept nothing."""
    it = Arena()
    try:
        yield it
        assert it.server.realtime.metrics.handler_failures == 0
        it.check_nothing_is_left()
    finally:
        it.close()


async def turns(count: int = SETTLED) -> None:
    """Let every task of the server take its steps."""
    for _ in range(count):
        await asyncio.sleep(0)


# Single frames ----------------------------------------------------------------------------------------------

words = st.sampled_from(
    [
        "phx_join", "phx_leave", "phx_close", "phx_error", "phx_reply", "heartbeat", "access_token",
        "broadcast", "presence", "presence_state", "presence_diff", "postgres_changes", "system", "",
    ]
)  # fmt: skip
topics = st.sampled_from(
    [ROOM, "realtime:", "realtime:room:private", "phoenix", "", "room", "realtime:\u0000"]
)
long_text = st.integers(0, 4_000).map("ü".__mul__)
hostile_keys = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["__proto__", "constructor", "phx_ref", "metas", "\u0000", '"', "\u2028", "x" * 300]),
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), hostile_keys
)
anything = st.recursive(
    scalars | long_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(hostile_keys, inner, max_size=3),
    max_leaves=8,
)
tokens = st.one_of(
    st.sampled_from(["", "null", "sb_", "sb_x", "a.b.c", "..", "%00.%ff.%", "Bearer x", "é.é.é"]),
    st.lists(
        st.one_of(anything.map(lambda value: json.dumps(value).encode()), st.binary(max_size=40)),
        min_size=3,
        max_size=3,
    ).map(lambda parts: ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)),
    st.fixed_dictionaries({"alg": st.sampled_from(["HS256", "none", "ES256", "b64"]) | anything}).map(
        lambda head: base64.urlsafe_b64encode(json.dumps(head).encode()).decode().rstrip("=") + ".e30.e30"
    ),
)
configs = st.fixed_dictionaries(
    {},
    optional={
        "private": st.booleans() | anything,
        "broadcast": st.dictionaries(st.sampled_from(["self", "ack", "replay"]), anything) | anything,
        "presence": st.fixed_dictionaries({"enabled": st.booleans(), "key": scalars}) | anything,
        "postgres_changes": st.lists(
            st.dictionaries(st.sampled_from(["event", "schema", "table", "filter", "select"]), anything)
            | anything,
            max_size=3,
        )
        | anything,
    },
)
join_payloads = st.fixed_dictionaries(
    {"config": configs | anything}, optional={"access_token": tokens | anything, "user_token": tokens}
)
presence_payloads = st.fixed_dictionaries(
    {"event": st.sampled_from(["track", "UNTRACK", "x"]) | anything}, optional={"payload": anything}
)
payloads = st.one_of(
    join_payloads, presence_payloads, st.fixed_dictionaries({"access_token": tokens | anything}), anything
)
refs = st.none() | st.sampled_from(["1", "2", ""]) | long_text
array_messages = st.tuples(refs, refs, topics | hostile_keys, words | long_text, payloads).map(list)
object_messages = st.fixed_dictionaries(
    {"topic": topics, "event": words | long_text, "payload": payloads, "ref": refs},
    optional={"join_ref": refs},
)
texts = st.one_of(array_messages, object_messages, anything).map(
    lambda value: json.dumps(value, ensure_ascii=False).encode()
)
headers = st.tuples(*[st.binary(max_size=4) | st.sampled_from([b"1", ROOM.encode(), b"x" * 255])] * 5)
binaries = st.tuples(headers, st.integers(0, 2), st.binary(max_size=30) | st.just(b'{"x":1}')).map(
    lambda parts: bytes((3, *map(len, parts[0]), parts[1])) + b"".join(parts[0]) + parts[2]
)


@st.composite
def mutated(draw: st.DrawFn, bases: st.SearchStrategy[bytes]) -> bytes:
    """Bytes that were a frame's, with a piece cut out, doubled or replaced."""
    data = draw(bases)
    start = draw(st.integers(0, len(data)))
    end = draw(st.integers(start, len(data)))
    return (
        data[:start] + draw(st.sampled_from([b"", data[start:end] * 2]) | st.binary(max_size=4)) + data[end:]
    )


frames = st.one_of(
    st.tuples(st.just(Opcode.TEXT), texts | mutated(texts) | st.binary(max_size=60)),
    st.tuples(st.just(Opcode.BINARY), binaries | mutated(binaries) | st.binary(max_size=60)),
    st.tuples(st.sampled_from([Opcode.PING, Opcode.PONG, Opcode.CLOSE]), st.binary(max_size=130)),
    st.tuples(st.integers(0, 255), st.binary(max_size=20)),
)


@VERSIONS
@effort(60)
@given(sent=st.lists(frames, max_size=8))
def test_no_frame_harms_anybody_else(vsn: str, sent: list[tuple[int, bytes]]) -> None:
    """Between any two frames of a vandal in the same room, others go on talking: all arrives, in order."""

    async def attack(server: Server) -> None:
        vandal, sender, listener = server.client(vsn), server.client(), server.client()
        vandal.join(ROOM, presence={"enabled": True}, broadcast={"self": True})
        for client in (sender, listener):
            client.join(ROOM)
            client.messages()
        for number, (opcode, data) in enumerate(sent):
            if not vandal.transport.is_closing():
                vandal.send(opcode, data)
            sender.push(ROOM, "broadcast", {"number": number})
            await turns(2)
        await turns()
        heard = [json.loads(data)[4] for opcode, data in listener.frames() if opcode == Opcode.TEXT]
        numbers = [payload["number"] for payload in heard if payload.keys() == {"number"}]
        assert numbers == list(range(len(sent)))
        for client in (vandal, sender, listener):
            client.drop()
        await turns()

    with arena() as it:
        it.run(attack(it.server))


@effort(40)
@given(data=st.lists(st.binary(max_size=300), max_size=4))
def test_no_bytes_harm_the_server(data: list[bytes]) -> None:
    """Bytes that are no frames close their connection at most."""

    async def attack(server: Server) -> None:
        client = server.client()
        for piece in data:
            if not client.transport.is_closing():
                client.socket.data_received(piece)
        client.drop()
        await turns()

    with arena() as it:
        it.run(attack(it.server))


@effort(60)
@given(token=tokens)
def test_no_token_breaks_the_handshake(token: str) -> None:
    """Whatever stands in place of an API key is answered in HTTP."""

    async def connect(server: Server) -> None:
        key = token.encode().decode("latin-1")
        client = server.client(apikey="", headers=f"x-api-key: {key}\r\n")
        assert client.response.startswith(b"HTTP/1.1 4")
        client.drop()

    with arena() as it:
        it.run(connect(it.server))


# Many clients, any order ------------------------------------------------------------------------------------

OPEN_TO: Final[dict[str, Permissions | Exception]] = {
    "open": Permissions.all(),
    "listen": Permissions(read=YES, write=NO),
    "present": Permissions(
        read=Grants(broadcast=False, presence=True), write=Grants(broadcast=False, presence=True)
    ),
    "closed": Permissions.none(),
    "away": reasons.DATABASE_UNREACHABLE.refusal(),
    "fickle": Permissions.all(),
}
"""What the policies answer, by sub-topic; `fickle` changes its mind."""


@dataclass
class Join:
    """One join of a client, as its model knows it."""

    topic: str
    private: bool
    hears_itself: bool
    number: int
    certain: bool
    """Whether it hears every broadcast of its room for as long as it lives."""
    since: int = 0
    joined: bool = False
    present: PresenceMap | None = None


@dataclass
class Sent:
    """One broadcast."""

    sender: Person
    topic: str
    opaque: bool
    handled_at: int | None = None
    room: tuple[str, bool] | None = None


@dataclass(eq=False)
class Person:
    """A client, and what it may expect.

    Attributes:
        current: its latest join of each topic, by the join's ref; whether it was answered or not.
        heard: the broadcasts it received, in order.
    """

    client: Client
    joins: dict[str, Join] = field(default_factory=dict)
    current: dict[str, str] = field(default_factory=dict)
    leaves: dict[str, str] = field(default_factory=dict)
    heard: list[int] = field(default_factory=list)
    closed: bool = False
    gone: bool = False


def refs_of(state: PresenceMap) -> dict[str, set[str]]:
    """A state of presences, by what tells metas apart."""
    return {key: {meta["phx_ref"] for meta in metas} for key, metas in state.items()}


class Crowd(RuleBasedStateMachine):
    """Several clients of one server. Rules queue what they do; `turn` lets it all happen in one turn."""

    def __init__(self) -> None:
        super().__init__()
        self.arena = Arena()
        self.server = self.arena.server
        self.server.policies.answers |= OPEN_TO
        self.queue: list[Callable[[], None]] = []
        self.sent: dict[int, Sent] = {}
        self.refs = 0
        self.step = 0
        self.acks: dict[tuple[Person, str], int] = {}
        self.people: list[Person] = []
        self.arena.run(self.connect_all())

    async def connect_all(self) -> None:
        self.people = [self.connect(vsn) for vsn in ("2.0.0", "2.0.0", "1.0.0", "1.0.0")]

    def connect(self, vsn: str) -> Person:
        return Person(self.server.client(vsn))

    # What clients do

    who = st.integers(0, 3)
    # Most of it in one room: that is where clients meet.
    names = st.sampled_from(["open"] * 5 + ["fickle"] * 2 + sorted(OPEN_TO))

    def later(self, who: int, act: Callable[[Person], None]) -> None:
        """Queue something for whoever sits in a seat by then."""

        def now() -> None:
            person = self.people[who]
            if not person.gone and not person.client.transport.is_closing():
                self.step += 1
                act(person)
                self.observe()

        self.queue.append(now)

    def ref(self) -> str:
        self.refs += 1
        return str(self.refs)

    @rule(
        who=who,
        name=names,
        private=st.booleans(),
        itself=st.booleans(),
        presence=st.booleans(),
        key=hostile_keys,
        changes=st.booleans(),
    )
    def join(
        self,
        who: int,
        name: str,
        *,
        private: bool,
        itself: bool,
        presence: bool,
        key: str,
        changes: bool,
    ) -> None:
        def act(person: Person) -> None:
            ref, topic = self.ref(), f"realtime:{name}"
            certain = not private or name in ("open", "listen")
            person.joins[ref] = Join(topic, private, itself, self.step, certain)
            person.client.join(
                topic,
                ref=ref,
                private=private,
                broadcast={"self": itself, "ack": True},
                presence={"enabled": presence, "key": key},
                postgres_changes=[{"event": "*", "schema": "public"}] if changes else [],
            )
            # What was on its way to the channel this join replaces stands in front of its reply.
            self.observe()
            person.current[topic] = ref

        self.later(who, act)

    @initialize(private=st.booleans(), itself=st.booleans(), presence=st.booleans())
    def begin(self, private: bool, itself: bool, presence: bool) -> None:
        """Begin together."""
        self.meet("open", private, itself, presence)

    @rule(name=names, private=st.booleans(), itself=st.booleans(), presence=st.booleans())
    def meet(self, name: str, private: bool, itself: bool, presence: bool) -> None:
        """All join one room."""
        for who in range(4):
            self.join(
                who,
                name,
                private=private,
                itself=itself,
                presence=presence,
                key=f"key {who // 2}",
                changes=False,
            )

    @rule(
        name=names, kind=st.sampled_from(["text", "json", "opaque"]), count=st.sampled_from([0, 1, SETTLED])
    )
    def chat(self, name: str, kind: str, count: int) -> None:
        """After all that is queued, all say something in one room, and the server gets some turns."""
        for who in range(4):
            self.broadcast(who, name, kind, 2)
        self.arena.run(self.act(count))

    @rule(who=who, name=names)
    def leave(self, who: int, name: str) -> None:
        def act(person: Person) -> None:
            topic, ref = f"realtime:{name}", self.ref()
            person.leaves[ref] = topic
            person.client.push(topic, "phx_leave", {}, ref=ref, join_ref=person.current.get(topic))

        self.later(who, act)

    @rule(who=who, name=names, kind=st.sampled_from(["text", "json", "opaque"]), burst=st.integers(1, 3))
    def broadcast(self, who: int, name: str, kind: str, burst: int) -> None:
        def act(person: Person) -> None:
            topic = f"realtime:{name}"
            for _ in range(burst):
                ref, number = self.ref(), len(self.sent)
                opaque = kind == "opaque" and person.client.vsn == "2.0.0"
                self.sent[number] = Sent(person, topic, opaque)
                self.acks[person, ref] = number
                if kind == "text" or person.client.vsn == "1.0.0":
                    person.client.push(topic, "broadcast", {"n": number}, ref=ref)
                    continue
                data = b"%d" % number if opaque else b'{"n":%d}' % number
                head = b"1", ref.encode(), topic.encode(), b"event", b""
                frame = bytes((3, *map(len, head), not opaque)) + b"".join(head) + data
                person.client.send(Opcode.BINARY, frame)

        self.later(who, act)

    @rule(who=who, name=names, payload=st.dictionaries(hostile_keys, scalars, max_size=2) | scalars)
    def track(self, who: int, name: str, payload: object) -> None:
        push = {"event": "track", "payload": payload}
        self.later(who, lambda it: it.client.push(f"realtime:{name}", "presence", push, ref=self.ref()))

    @rule(who=who, name=names)
    def untrack(self, who: int, name: str) -> None:
        push = {"event": "untrack"}
        self.later(who, lambda it: it.client.push(f"realtime:{name}", "presence", push, ref=self.ref()))

    @rule(who=who, name=names, sub=st.sampled_from(["u1", "u2", None]), good=st.booleans())
    def renew(self, who: int, name: str, sub: str | None, good: bool) -> None:
        def act(person: Person) -> None:
            topic = f"realtime:{name}"
            ref = person.current.get(topic)
            if ref is not None and person.joins[ref].private:
                # Another identity hears nothing until the policies have answered for it.
                person.joins[ref].certain = False
            secret = {} if good else {"secret": "another secret of more than thirty-two bytes"}
            token = self.server.token(sub=sub, **secret)
            person.client.push(topic, "access_token", {"access_token": token}, ref=self.ref())

        self.later(who, act)

    @rule(who=who, frame=st.tuples(st.sampled_from([Opcode.TEXT, Opcode.BINARY]), st.binary(max_size=30)))
    def garbage(self, who: int, frame: tuple[int, bytes]) -> None:
        self.later(who, lambda person: person.client.send(*frame))

    @rule(who=who)
    def close(self, who: int) -> None:
        self.later(who, lambda person: person.client.send(Opcode.CLOSE, b""))

    @rule(who=who)
    def close_idle(self, who: int) -> None:
        self.later(who, lambda person: person.client.socket.close(CloseCode.NORMAL, "idle"))

    @rule(who=who)
    def lose(self, who: int) -> None:
        def act(person: Person) -> None:
            person.client.drop()
            person.gone = person.client.transport.closed = True

        self.later(who, act)

    @rule(who=who)
    def read_slowly(self, who: int) -> None:
        self.later(who, lambda person: person.client.socket.pause_writing())

    # What the world does

    @rule()
    def hold_policies(self) -> None:
        self.queue.append(self.server.policies.open.clear)

    @rule()
    def let_policies_answer(self) -> None:
        self.queue.append(self.server.policies.open.set)

    @rule(answer=st.sampled_from([Permissions.all(), Permissions.none(), OPEN_TO["present"]]))
    def change_policies(self, answer: Permissions) -> None:
        self.queue.append(lambda: self.server.policies.answers.update(fickle=answer))

    @precondition(lambda self: self.queue)
    @rule(count=st.integers(0, 3))
    def turn(self, count: int) -> None:
        """Everything queued happens at once, then the server gets a few turns."""
        self.arena.run(self.act(count))

    @precondition(lambda self: self.queue)
    @rule()
    def settle(self) -> None:
        """Everything queued happens at once, then the server gets all the turns it needs."""
        self.arena.run(self.act(SETTLED))

    async def act(self, count: int) -> None:
        queue, self.queue = self.queue, []
        for each in queue:
            each()
        for _ in range(count):
            await asyncio.sleep(0)
            self.observe()
        if count == SETTLED:
            self.check_settled()
        for seat, person in enumerate(self.people):
            if person.gone or person.client.transport.is_closing():
                if not person.gone:
                    person.client.drop()
                    person.gone = True
                self.people[seat] = self.connect(person.client.vsn)
        self.observe()

    # What must hold

    def observe(self) -> None:
        """Let everybody read what has arrived."""
        for person in self.people:
            for opcode, data in person.client.frames():
                assert not person.closed, "nothing follows a close frame"
                if opcode == Opcode.CLOSE:
                    person.closed = True
                elif opcode == Opcode.BINARY:
                    self.read_binary(person, data)
                elif opcode == Opcode.TEXT:
                    message = json.loads(data)
                    if isinstance(message, dict):
                        message = [None, *(message[key] for key in ("ref", "topic", "event", "payload"))]
                    self.read(person, message)
        metrics = self.server.realtime.metrics
        assert metrics.handler_failures == 0
        assert self.arena.escaped == []

    def read_binary(self, person: Person, data: bytes) -> None:
        topic = data[5 : 5 + data[1]].decode()
        payload = data[5 + data[1] + data[2] + data[3] :]
        self.read_broadcast(person, topic, json.loads(payload)["n"] if data[4] else int(payload))

    def read(self, person: Person, message: list[Any]) -> None:
        join_ref, ref, topic, event, payload = message
        join = self.joined(person, topic)
        if event == "phx_reply":
            self.read_reply(person, str(ref), topic, payload["status"])
        elif event in ("phx_close", "phx_error"):
            if ref is not None and ref == person.current.get(topic):
                person.joins[ref].joined = False
        else:
            assert join is not None, f"{event} outside of a channel"
            assert join_ref in (None, person.current[topic])
            if event == "broadcast":
                self.read_broadcast(
                    person, topic, payload["n"] if "n" in payload else payload["payload"]["n"]
                )
            elif event == "presence_state":
                join.present = {key: entry["metas"] for key, entry in payload.items()}
            elif event == "presence_diff" and join.present is not None:
                joins, leaves = (
                    {key: entry["metas"] for key, entry in payload[part].items()}
                    for part in ("joins", "leaves")
                )
                join.present = sync(join.present, joins, leaves)

    def read_reply(self, person: Person, ref: str, topic: str, status: str) -> None:
        join = self.joined(person, topic)
        if ref in person.joins:
            assert not person.joins[ref].joined, "one reply to a join"
            if status == "ok":
                person.current[topic] = ref
                person.joins[ref].joined, person.joins[ref].since = True, self.step
        elif person.leaves.get(ref) == topic and status == "ok":
            if join is not None:
                join.joined = False
        elif status == "ok":
            assert join is not None, "an answer outside of a channel"
            if (number := self.acks.get((person, ref))) is not None:
                sent = self.sent[number]
                assert sent.handled_at is None, "one answer to a broadcast"
                sent.handled_at, sent.room = self.step, (topic, join.private)

    def read_broadcast(self, person: Person, topic: str, number: int) -> None:
        join, sent = self.joined(person, topic), self.sent[number]
        assert join is not None, "a broadcast outside of a channel"
        assert sent.topic == topic
        assert number not in person.heard, "twice"
        assert sent.sender is not person or join.hears_itself, "its own"
        assert sent.handled_at is None or sent.handled_at >= join.since, "from before its join"
        assert sent.room in (None, (topic, join.private)), "from another room"
        earlier = [
            each
            for each in person.heard
            if self.sent[each].sender is sent.sender and self.sent[each].topic == topic
        ]
        assert not earlier or earlier[-1] < number, "out of order"
        person.heard.append(number)

    def joined(self, person: Person, topic: str) -> Join | None:
        """The channel a client has on a topic, as far as it can know."""
        join = person.joins.get(person.current.get(topic, ""))
        return join if join is not None and join.joined else None

    def check_settled(self) -> None:
        """Nobody who was there missed anything; rooms hold members only; clients know who is present."""
        there = [each for each in self.people if not (each.closed or each.gone)]
        there = [each for each in there if not each.client.transport.is_closing()]
        for person in there:
            for number, sent in self.sent.items():
                join = self.joined(person, sent.topic)
                if join is not None and self.must_have_heard(person, join, sent):
                    assert number in person.heard, "missed"
        realtime = self.server.realtime
        channels = {channel for socket in realtime._sockets for channel in socket.channels.values()}
        for (topic, private), room in realtime.hub._rooms.items():
            members = {member for group in room._groups.values() for member in group}
            assert members <= channels
            assert room.presence._tracked.keys() <= members
            assert not room._pending
            refs = refs_of(room.presence.state())
            for person in there:
                join = self.joined(person, topic)
                if join is not None and join.certain and join.private == private and join.present is not None:
                    assert refs_of(join.present) == refs, "wrong about who is there"
        if self.server.policies.open.is_set():
            assert realtime._tasks == set()

    def must_have_heard(self, person: Person, join: Join, sent: Sent) -> bool:
        """Whether a broadcast was handled while a client was in its room, and could be written to it."""
        return (
            sent.handled_at is not None
            and sent.handled_at > join.since
            and sent.room == (join.topic, join.private)
            and sent.sender is not person
            and join.certain
            and not (sent.opaque and person.client.vsn == "1.0.0")
        )

    def teardown(self) -> None:
        """Everybody goes; nothing is left."""
        try:
            self.arena.run(self.everybody_goes())
            self.arena.check_nothing_is_left()
        finally:
            self.arena.close()

    async def everybody_goes(self) -> None:
        self.server.policies.open.set()
        await self.act(SETTLED)
        for person in self.people:
            if not person.gone:
                person.client.drop()
        await turns()


TestCrowd = pytest.mark.timeout(600)(Crowd.TestCase)
TestCrowd.settings = effort(60, stateful_step_count=60)


# Found by the above -----------------------------------------------------------------------------------------


async def test_nothing_is_handled_after_the_server_closed(server: Any) -> None:
    """RFC 6455, section 5.5.1: no data follows a close frame; nobody joins through a closing door."""
    client = server.client()
    client.socket.close(CloseCode.NORMAL, "idle timeout")
    client.join(ROOM)
    assert [opcode for opcode, _ in client.frames()] == [Opcode.CLOSE]
    assert len(server.realtime.hub) == 0


async def test_an_answer_to_our_close_is_seen_behind_other_frames(server: Any) -> None:
    """What a client sent before it read our close arrives in one piece with its answer."""
    client = server.client()
    client.socket.close(CloseCode.NORMAL, "idle timeout")
    heartbeat = client_frame(Opcode.TEXT, b'[null,"1","phoenix","heartbeat",{}]', b"mask")
    client.socket.data_received(heartbeat + client_frame(Opcode.CLOSE, b"", b"mask"))
    assert client.transport.closed


async def test_a_room_outlives_a_member_that_changes_its_identity(server: Any) -> None:
    """While policies are asked about a new user, the others may go; who comes then meets who stayed."""
    stays, goes, comes = server.client(), server.client(), server.client()
    for client in (stays, goes):
        client.join(ROOM, private=True)
        await client.settled()
    server.policies.open.clear()
    stays.push(ROOM, "access_token", {"access_token": server.token(sub="somebody else")})
    goes.drop()
    server.policies.open.set()
    await stays.settled()
    comes.join(ROOM, private=True)
    await comes.settled()
    comes.push(ROOM, "broadcast", {"n": 1})
    assert [message[4] for message in await stays.settled()] == [{"n": 1}]


async def test_presence_is_right_after_a_change_of_identity(server: Any) -> None:
    """Whoever came and went while policies were asked is known afterwards."""
    changes, comes = server.client(), server.client()
    changes.join(ROOM, private=True, presence={"enabled": True})
    comes.join(ROOM, private=True, presence={"enabled": True, "key": "ann"})
    await changes.settled()
    server.policies.open.clear()
    changes.push(ROOM, "access_token", {"access_token": server.token(sub="somebody else")})
    comes.push(ROOM, "presence", {"event": "track", "payload": {}})
    server.policies.open.set()
    heard = json.dumps([message[4] for message in await changes.settled()])
    assert '"ann"' in heard


@pytest.mark.parametrize("depth", [100, 900, 920, 935, 940, 945, 950, 960, 5_000])
async def test_deep_presences_harm_nobody_else(depth: int) -> None:
    """Whatever is tracked can be written to others, and untracked; what cannot is refused to its sender."""
    nested = b'{"a":' * depth + b"1" + b"}" * depth
    with structlog.testing.capture_logs():
        server = Server(limits=UNLIMITED)
        for extra in range(12):
            tracks, other = server.client(), server.client()
            tracks.join(ROOM, presence={"enabled": True})
            payload = nested if not extra else b'{"a":' * extra + nested + b"}" * extra
            push = b'["1","2","%b","presence",{"event":"track","payload":%b}]' % (ROOM.encode(), payload)
            tracks.send(Opcode.TEXT, push)
            other.join(ROOM, presence={"enabled": True})
            for client in (tracks, other):
                client.drop()
        await server.realtime.aclose()
    assert server.realtime.metrics.handler_failures == 0
    assert len(server.realtime.hub) == 0


async def test_what_waits_for_a_join_that_is_refused_is_answered(server: Any) -> None:
    """As on any topic that is not joined: a leave succeeds, a broadcast is refused (section 3.1)."""
    server.policies.answers["room"] = Permissions.none()
    server.policies.open.clear()
    client = server.client()
    client.join(ROOM, ref="1", private=True)
    client.push(ROOM, "broadcast", {}, ref="2")
    client.push(ROOM, "phx_leave", {}, ref="3")
    server.policies.open.set()
    answers = {message[1]: message[4]["status"] for message in await client.settled()}
    assert answers == {"1": "error", "2": "error", "3": "ok"}


async def test_a_message_that_waited_is_counted_once(server: Any) -> None:
    """It came once."""
    client = server.client()
    client.join(ROOM, private=True)
    client.push(ROOM, "broadcast", {"n": 1})
    await client.settled()
    assert server.realtime.metrics.messages_in == 2


async def test_long_refs_are_not_kept(server: Any) -> None:
    """A cache of thousands of strings of any length would hold gigabytes of what clients make up."""
    client = server.client()
    tracemalloc.start()
    try:
        for number in range(20):
            client.push("phoenix", "heartbeat", {}, ref=str(number) * 100_000)
            client.messages()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000


async def test_a_key_whose_algorithm_is_no_text_is_refused(server: Any) -> None:
    """A header may hold any JSON; it is answered, and nothing is raised into the event loop."""
    head = base64.urlsafe_b64encode(b'{"alg":[]}').decode().rstrip("=")
    assert b" 401 " in server.client(apikey=f"{head}.e30.e30").response
