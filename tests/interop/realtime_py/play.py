"""Plays one scenario: python play.py SCENARIO CONTEXT; or prints their names: python play.py --list.

Runs in an environment of its own, see `requirements.in`. The protocol is that of `supabase_js/play.mjs`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, Final
from uuid import uuid4

from realtime import AsyncRealtimeClient  # type: ignore[import-not-found]
from realtime.exceptions import RealtimeHTTPError  # type: ignore[import-not-found]
from realtime.types import RealtimeAcknowledgementStatus  # type: ignore[import-not-found]

PATIENCE: Final = 18.0
LINES_KEPT: Final = 80
LINE_LENGTH: Final = 300

SAMPLE: Final = """
insert into samples (id, big, exact, rough, yes, words, at, document, numbers, names) values (
  {id}, 9007199254740993, 1.10, 'NaN', true, 'naïve 🎸', '2026-01-02 03:04:05.6+00',
  '{{"a": [1.0, null]}}', '{{1,2}}', '{{a,"b c"}}'
)
"""

CONTEXT: dict[str, Any] = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}

Scenario = Callable[[], Awaitable[None]]
SCENARIOS: dict[str, Scenario] = {}

trace: deque[str] = deque(maxlen=LINES_KEPT)
waiting: list[str] = []


class Tracer(logging.Handler):
    """Keeps what the client logs, for the day something fails."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line, unless it says again in other words what came or went."""
        if record.getMessage().startswith(("parsed message", "realtime:")):
            return
        trace.append(f"{record.relativeCreated:6.0f} ms  {record.getMessage()[:LINE_LENGTH]}")


def scenario(function: Scenario) -> Scenario:
    """Name a scenario after its function: the first underscore stands for a dot."""
    SCENARIOS[function.__name__.replace("_", ".", 1)] = function
    return function


# What every scenario needs ----------------------------------------------------------------------------------


class Inbox:
    """Things in the order they came.

    Args:
        name: what to call it when nothing comes.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._items: asyncio.Queue[Any] = asyncio.Queue()

    def put(self, *item: Any) -> None:
        """Put something in: the only argument, or all of them."""
        self._items.put_nowait(item[0] if len(item) == 1 else item)

    async def next(self) -> Any:
        """Take the next thing out."""
        waiting.append(self.name)
        item = await self._items.get()
        waiting.remove(self.name)
        return item

    async def until(self, matches: Callable[[Any], bool]) -> Any:
        """Take things out until one matches, and return that."""
        while not matches(item := await self.next()):
            trace.append(f"{self.name} went on after {item}")
        return item


async def ask(action: str, *arguments: object) -> Any:
    """Ask the test to do something."""
    trace.append(f"asking for {action} {arguments}")
    print(json.dumps({"ask": action, "with": arguments}), flush=True)
    return json.loads(await asyncio.to_thread(sys.stdin.readline))["answer"]


def unique(name: str) -> str:
    """A name nobody else uses."""
    return f"{name}-{uuid4()}"


async def connect(token: str | None = None, **options: Any) -> AsyncRealtimeClient:
    """A client, with the token of a user if there is one."""
    client = AsyncRealtimeClient(f"{CONTEXT['url']}/realtime/v1", CONTEXT["key"], **options)
    if token is not None:
        await client.set_auth(token)
    return client


async def a_user(seconds: int = 600) -> str:
    """The token of somebody new."""
    return str(await ask("token", {"role": "authenticated", "sub": str(uuid4())}, seconds))


def config(
    *, private: bool = False, key: str = "", presence: bool = False, **broadcast: Any
) -> dict[str, Any]:
    """The options of a channel."""
    return {
        "config": {
            "broadcast": {"ack": False, "self": False} | broadcast,
            "presence": {"key": key, "enabled": presence},
            "private": private,
        }
    }


class Member:
    """A client in a room.

    Args:
        client: the client.
        topic: the room.
        options: of the channel.
    """

    def __init__(self, client: AsyncRealtimeClient, topic: str, options: dict[str, Any]) -> None:
        self.client = client
        self.channel = client.channel(topic, options)
        self.statuses = Inbox(f"statuses of {topic}")
        self.said = Inbox(f"broadcasts in {topic}")
        self.system = Inbox(f"system messages of {topic}")
        self.rows = Inbox(f"rows in {topic}")
        self.channel.on_broadcast("*", self.said.put)
        self.channel.on_system(self.system.put)

    def changes(self, event: str, table: str, filter: str | None = None) -> None:  # noqa: A002
        """Ask for row changes."""
        self.channel.on_postgres_changes(
            event, lambda change: self.rows.put(change["data"]), table, filter=filter
        )

    async def subscribe(self) -> tuple[str, str]:
        """Subscribe, and say what became of it."""
        await self.channel.subscribe(lambda status, error: self.statuses.put(status.value, str(error or "")))
        status, reason = await self.statuses.next()
        return status, reason

    async def subscribed(self) -> None:
        """Subscribe and expect that it works."""
        expect(await self.subscribe(), ("SUBSCRIBED", ""))

    async def flowing(self) -> None:
        """Subscribe and wait until row changes flow."""
        await self.subscribed()
        await self.system.until(lambda payload: payload.extension == "postgres_changes")

    async def say(self, payload: dict[str, Any]) -> None:
        """Broadcast something."""
        await self.channel.send_broadcast("said", payload)

    async def acknowledged(self, payload: dict[str, Any]) -> str:
        """Broadcast something and say how that was answered."""
        answer = Inbox("the acknowledgement")
        push = await self.channel.push(
            "broadcast", {"type": "broadcast", "event": "said", "payload": payload}
        )
        for status in RealtimeAcknowledgementStatus:
            push.receive(status, lambda *_, status=status: answer.put(status.value))
        return str(await answer.next())


async def member(topic: str, token: str | None = None, **options: Any) -> Member:
    """Somebody who has joined."""
    somebody = Member(await connect(token), topic, config(**options))
    await somebody.subscribed()
    return somebody


def expect(actual: object, expected: object) -> None:
    """Fail unless two things are equal."""
    assert actual == expected, f"expected {expected!r}, got {actual!r}"


async def say_to(listeners: list[Member], speaker: Member, payload: dict[str, Any]) -> None:
    """Broadcast something and wait until others have it."""
    await speaker.say(payload)
    for listener in listeners:
        expect((await listener.said.next())["payload"], payload)


# Broadcast --------------------------------------------------------------------------------------------------


@scenario
async def broadcast_both_ways() -> None:
    """What one says the other hears, and nobody hears themselves."""
    topic = unique("room")
    ann, bob = await member(topic), await member(topic)
    await say_to([bob], ann, {"n": 1, "text": "naïve 🎸", "deep": [{"a": [None, True, 1.5]}]})
    await say_to([ann], bob, {"n": 2})


@scenario
async def broadcast_oneself() -> None:
    """With `self` the sender hears themselves."""
    ann = await member(unique("room"), self=True)
    await say_to([ann], ann, {"n": 1})


@scenario
async def broadcast_acknowledged() -> None:
    """With `ack` sending is answered."""
    ann = await member(unique("room"), ack=True)
    expect(await ann.acknowledged({"n": 1}), "ok")


@scenario
async def broadcast_in_order() -> None:
    """Many messages, if fewer than one may send in a second, arrive all, once, and in order."""
    topic = unique("room")
    ann, bob = await member(topic), await member(topic)
    for n in range(80):
        await ann.say({"n": n})
    for n in range(80):
        expect((await bob.said.next())["payload"], {"n": n})


@scenario
async def broadcast_left_and_joined_anew() -> None:
    """A channel that was left hears nothing more; joined anew, it hears again."""
    topic = unique("room")
    ann, bob = await member(topic, ack=True), await member(topic)
    beside = Member(bob.client, unique("room"), config(self=True))
    await beside.subscribed()
    await bob.channel.unsubscribe()
    expect((await bob.statuses.next())[0], "CLOSED")
    # Nothing orders what two sockets send: it has been sent to all who are there once it is answered.
    expect(await ann.acknowledged({"n": 1}), "ok")
    # To this client any `phx_close` of a topic means the channel it has by then. What follows the answer to a
    # leave must have come before it joins anew; on one socket everything comes in order.
    await say_to([beside], beside, {})
    again = Member(bob.client, topic, config())
    await again.subscribed()
    await say_to([again], ann, {"n": 2})


# Private channels -------------------------------------------------------------------------------------------


@scenario
async def private_members() -> None:
    """Whom the policies let in speak with each other."""
    topic = unique("open")
    eric = await member(topic, await a_user(), private=True, ack=True)
    mike = await member(topic, await a_user(), private=True)
    await say_to([mike], eric, {"n": 1})
    await say_to([eric], mike, {"n": 2})


@scenario
async def private_refused() -> None:
    """Whom they do not let in are told so, with the text that clients match on."""
    topic = unique("open")
    stranger = Member(await connect(), topic, config(private=True))
    status, reason = await stranger.subscribe()
    expect(status, "CHANNEL_ERROR")
    text = f"Unauthorized: You do not have permissions to read from this Channel topic: {topic}"
    assert json.loads(reason)["reason"].startswith(text), reason


@scenario
async def private_listeners() -> None:
    """Who may listen and not speak hears an error when they try."""
    listener = await member(unique("quiet"), await a_user(), private=True, ack=True)
    expect(await listener.acknowledged({"n": 1}), "error")


# Presence ---------------------------------------------------------------------------------------------------


def attend(somebody: Member) -> Inbox:
    """What somebody sees after every sync: who is there, without the references."""
    seen = Inbox("what is seen")

    def sync() -> None:
        state = somebody.channel.presence_state()
        seen.put(
            {
                key: [{name: v for name, v in meta.items() if name != "presence_ref"} for meta in metas]
                for key, metas in state.items()
            }
        )

    somebody.channel.on_presence_sync(sync)
    return seen


@scenario
async def presence_come_and_go() -> None:
    """Both see who tracks themselves, what they change, and that they left; so does who comes later."""
    topic = unique("room")
    people = [Member(await connect(), topic, config(key=key)) for key in ("ann", "bob")]
    views = [attend(somebody) for somebody in people]
    for somebody in people:
        await somebody.subscribed()

    async def all_see(expected: object) -> None:
        for seen in views:
            await seen.until(lambda state: bool(state == expected))

    ann = people[0].channel
    await ann.track({"mood": "calm"})
    await all_see({"ann": [{"mood": "calm"}]})
    await ann.track({"mood": "wild"})
    await all_see({"ann": [{"mood": "wild"}]})
    late = Member(await connect(), topic, config(key="eve"))
    seen = attend(late)
    await late.subscribed()
    expect(await seen.next(), {"ann": [{"mood": "wild"}]})
    await ann.untrack()
    await all_see({})


@scenario
async def presence_disconnecting() -> None:
    """Who disconnects is gone for the others."""
    topic = unique("room")
    ann, bob = [Member(await connect(), topic, config(key=key)) for key in ("ann", "bob")]
    seen = attend(bob)
    for somebody in (ann, bob):
        await somebody.subscribed()
    await ann.channel.track({})
    await seen.until(lambda state: "ann" in state)
    await ann.client.close()
    await seen.until(lambda state: "ann" not in state)


# Row changes ------------------------------------------------------------------------------------------------


@scenario
async def changes_events() -> None:
    """Insert, update and delete reach who asked for them, filtered by a column, and nothing else does."""
    paper, other = unique("paper"), unique("paper")
    reader = Member(await connect(), unique("room"), config())
    reader.changes("*", "news", f"paper=eq.{paper}")
    await reader.flowing()
    for name in (other, paper):
        await ask("sql", f"insert into news (paper, headline) values ('{name}', 'first')")
        await ask("sql", f"update news set headline = 'second' where paper = '{name}'")
        await ask("sql", f"delete from news where paper = '{name}'")
    heard = [await reader.rows.next() for _ in range(3)]
    rows = [(row["type"], row.get("record"), row.get("old_record")) for row in heard]
    first = {"id": rows[0][1]["id"], "paper": paper, "headline": "first"}
    second = first | {"headline": "second"}
    expect(rows, [("INSERT", first, None), ("UPDATE", second, first), ("DELETE", None, second)])


@scenario
async def changes_own_rows() -> None:
    """Everybody gets the rows that the policies show them."""
    people = {}
    for sub in (str(uuid4()), str(uuid4())):
        token = await ask("token", {"role": "authenticated", "sub": sub}, 600)
        people[sub] = somebody = Member(await connect(token), unique("room"), config())
        somebody.changes("INSERT", "songs")
        await somebody.flowing()
    for title in ("first", "second"):
        for sub in people:
            await ask("sql", f"insert into songs (owner, title) values ('{sub}', '{title}')")
    for sub, somebody in people.items():
        for title in ("first", "second"):
            row = (await somebody.rows.next())["record"]
            expect((row["owner"], row["title"]), (sub, title))


# Tokens -----------------------------------------------------------------------------------------------------


@scenario
async def session_outlives_its_token() -> None:
    """Who refreshes their token outlives the first one; who does not is told, and put out."""
    topic, first = unique("open"), await a_user(5)
    careful, careless = [await member(topic, first, private=True) for _ in range(2)]
    lasting = await a_user()
    await careful.client.set_auth(lasting)
    status, reason = await careless.statuses.next()
    expect(status, "CHANNEL_ERROR")
    assert json.loads(reason)["message"].startswith("Token has expired "), reason
    expect((await careless.statuses.next())[0], "CLOSED")
    await say_to([careful], await member(topic, lasting, private=True), {"still": "there"})


# Reconnecting -----------------------------------------------------------------------------------------------


async def overcome(trouble: str) -> None:
    """Two people to whom everything works, then trouble, after which everything works again."""
    topic, paper, token = unique("open"), unique("paper"), await a_user()
    people = []
    for key in ("ann", "bob"):
        client = await connect(token, initial_backoff=0.2, max_retries=10)
        somebody = Member(client, topic, config(private=True, key=key))
        somebody.changes("*", "news", f"paper=eq.{paper}")
        people.append(somebody)
    views = [attend(somebody) for somebody in people]

    async def everything_works() -> None:
        for somebody in people:
            await somebody.system.until(lambda payload: payload.extension == "postgres_changes")
            await somebody.channel.track({"since": time.monotonic()})
        for seen in views:
            await seen.until(lambda state: sorted(state) == ["ann", "bob"])
        ann, bob = people
        await say_to([bob], ann, {"n": 1})
        await say_to([ann], bob, {"n": 2})
        await ask("sql", f"insert into news (paper) values ('{paper}')")
        for somebody in people:
            expect((await somebody.rows.next())["record"]["paper"], paper)

    for somebody in people:
        await somebody.subscribed()
    await everything_works()
    asked = asyncio.create_task(ask(trouble))
    for somebody in people:
        expect((await somebody.statuses.next())[0], "CHANNEL_ERROR")
    await asked
    for somebody in people:
        await somebody.statuses.until(lambda status: bool(status[0] == "SUBSCRIBED"))
    await everything_works()


@scenario
async def reconnect_cut() -> None:
    """The connection breaks."""
    await overcome("cut")


@scenario
async def reconnect_restarted() -> None:
    """The server restarts."""
    await overcome("restart")


# From the database, with others, and over HTTP --------------------------------------------------------------


@scenario
async def database_sent() -> None:
    """What SQL sends reaches a private channel, with the id of the message."""
    topic = unique("open")
    reader = Member(await connect(await a_user()), topic, config(private=True, replication_ready=True))
    await reader.subscribed()
    await reader.system.until(lambda payload: payload.extension == "system")
    await ask("sql", f"select realtime.send('{{\"n\": 1}}', 'sql', '{topic}')")
    heard = await reader.said.next()
    expect((heard["event"], heard["payload"]["n"]), ("sql", 1))
    expect(heard["meta"]["id"], heard["payload"]["id"])


@scenario
async def database_replayed() -> None:
    """Who joins later has the stored messages replayed, oldest first."""
    topic, since = unique("open"), int(time.time() * 1000) - 60_000
    for n in range(3):
        await ask("sql", f"select realtime.send('{{\"n\": {n}}}', 'sql', '{topic}')")
    reader = await member(topic, await a_user(), private=True, replay={"since": since, "limit": 2})
    for n in (1, 2):
        heard = await reader.said.next()
        expect((heard["payload"]["n"], heard["meta"]["replayed"]), (n, True))


@scenario
async def together_answers() -> None:
    """Meets a client in another language, answers what it asks, and goes when that has gone."""
    somebody = Member(await connect(), CONTEXT["topic"], config(key="python"))
    joins, leaves = Inbox("who joins"), Inbox("who leaves")
    somebody.channel.on_presence_join(lambda key, _, new: joins.put(key, new))
    somebody.channel.on_presence_leave(lambda key, *_: leaves.put(key, None))
    await somebody.subscribed()
    await somebody.channel.track({"language": "Python 🐍"})
    _, metas = await joins.until(lambda item: bool(item[0] == "javascript"))
    expect(metas[0]["language"], "JavaScript 🟨")
    for n in range(5):
        question = (await somebody.said.until(lambda message: bool(message["event"] == "said")))["payload"]
        expect(question, {"n": n, "text": "naïve 🎸"})
        await somebody.channel.send_broadcast("answer", question)
    await leaves.until(lambda item: bool(item[0] == "javascript"))


@scenario
async def http_sent() -> None:
    """`http_send` names topic and event in the path, whatever is in them."""
    topic = unique("röom/with spaces?")
    listener = await member(topic)
    await (await connect()).channel(topic).http_send("Ünïcode 🎶", {"n": 1})
    heard = await listener.said.next()
    expect((heard["event"], heard["payload"]), ("Ünïcode 🎶", {"n": 1}))


@scenario
async def http_private() -> None:
    """Over HTTP a private topic takes what the policies let one say, and tells who may not."""
    topic = unique("open")
    listener = await member(topic, await a_user(), private=True)
    speaker = (await connect(await a_user())).channel(topic, config(private=True))
    await speaker.http_send("said", {"n": 1})
    expect((await listener.said.next())["payload"], {"n": 1})
    stranger = (await connect()).channel(topic, config(private=True))
    try:
        await stranger.http_send("said", {"n": 2})
    except RealtimeHTTPError as error:
        expect(error.status, 403)
    else:
        raise AssertionError("a stranger could send")


# What callbacks are given -----------------------------------------------------------------------------------

CHANCE: Final = ("id", "ids", "commit_timestamp", "presence_ref")


def described(value: Any) -> Any:
    """A value as JSON: with the names of its types, and without what is another one each time."""
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, dict):
        return {
            name: type(each).__name__ if name in CHANCE else described(each) for name, each in value.items()
        }
    if isinstance(value, list):
        return [described(each) for each in value]
    if isinstance(value, str):
        return re.sub("open-[0-9a-f-]{36}", "the topic", value)
    if isinstance(value, int | float | None):
        return value
    return {type(value).__name__: described(vars(value)) if hasattr(value, "__dict__") else str(value)}


@scenario
async def callbacks_shapes() -> None:
    """One of everything, noted for whoever wants to compare it."""
    topic, token = f"open-{uuid4()}", await a_user()
    row = uuid4().int % 2**31
    seen = Inbox("what callbacks are given")

    def note(kind: str) -> Callable[..., None]:
        return lambda *given: seen.put((kind, given))

    client = await connect(token)
    channel = client.channel(topic, config(private=True, key="ann", self=True, replication_ready=True))
    channel.on_postgres_changes("*", note("change"), "samples", filter=f"id=eq.{row}").on_system(
        note("system")
    )
    channel.on_broadcast("SAID", note("broadcast")).on_broadcast("sql", note("broadcast"))
    channel.on_presence_join(note("join")).on_presence_leave(note("leave"))
    channel.on_presence_sync(lambda: seen.put(("sync", (channel.presence_state(),))))
    await channel.subscribe(note("status"))
    noted: dict[str, list[Any]] = {}

    async def until(kind: str, count: int) -> None:
        while len(noted.get(kind, [])) < count:
            what, given = await seen.next()
            noted.setdefault(what, []).append([described(each) for each in given])

    await until("system", 2)
    await channel.send_broadcast("said", {"n": 1, "f": 1.5, "deep": [{"a": None}]})
    await ask("sql", f"select realtime.send('{{\"n\": 1}}', 'sql', '{topic}')")
    await until("broadcast", 2)
    await channel.track({"mood": "calm"})
    await until("sync", 2)
    await channel.untrack()
    await until("sync", 3)
    await ask("sql", SAMPLE.format(id=row))
    await ask("sql", f"update samples set words = 'others' where id = {row}")
    await ask("sql", f"delete from samples where id = {row}")
    await until("change", 3)
    await client.remove_channel(channel)
    await until("status", 2)
    stranger = (await connect()).channel(topic, config(private=True))
    await stranger.subscribe(lambda status, error: seen.put(("refused", (status, json.loads(str(error))))))
    await until("refused", 1)
    # The hint, where there is one, may be another.
    refusal = noted["refused"][0][1]
    refusal["reason"] = refusal["reason"].partition(". Hint:")[0]
    await ask("note", noted)


# Playing ----------------------------------------------------------------------------------------------------


async def play(name: str) -> None:
    """Play a scenario; explain what it did when it fails."""
    try:
        async with asyncio.timeout(PATIENCE):
            await SCENARIOS[name]()
    except BaseException:
        print(f"Waiting for: {', '.join(waiting) or 'nothing'}\n--- what the clients did", file=sys.stderr)
        print(*trace, sep="\n", file=sys.stderr, flush=True)
        raise


if sys.argv[1] == "--list":
    print(json.dumps(list(SCENARIOS)))
else:
    logging.getLogger("realtime").addHandler(Tracer())
    logging.getLogger("realtime").setLevel(logging.DEBUG)
    logging.getLogger("realtime").propagate = False
    asyncio.run(play(sys.argv[1]))
