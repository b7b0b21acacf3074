"""What a channel gives its user, and what it missed (client specification, 1.15 to 1.21 and 7.4)."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from tests.unit.client.world import START, World, jwt

from backbeat.client import events
from backbeat.client.config import ChangeBinding
from backbeat.errors import BackbeatError
from backbeat.protocol.join import Replay

SONGS = ChangeBinding(table="songs")


def payloads(world: World) -> list[object]:
    """The payloads of the broadcasts that were delivered, in order."""
    return [event.payload for event in world.of(events.BroadcastEvent)]


# Broadcasts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
def test_broadcasts_are_delivered_in_the_order_of_the_wire(vsn: str) -> None:
    """Text and binary, with what the server says about them."""
    world = World(vsn=vsn)
    world.joined()
    world.server.broadcast("room", "a", {"n": 1}, meta={"id": "x"})
    text = {"type": "broadcast", "event": "b", "payload": [2]}
    world.server.connections[0].send("room", "broadcast", text)
    if vsn == "2.0.0":
        world.server.broadcast("room", "c", b"\xff")
    found = world.of(events.BroadcastEvent)
    assert [(e.event, e.payload) for e in found][:2] == [("a", {"n": 1}), ("b", [2])]
    assert found[0].meta == {"id": "x"}
    assert [e.payload for e in found[2:]] == ([b"\xff"] if vsn == "2.0.0" else [])


def test_nothing_is_delivered_before_the_join_is_accepted() -> None:
    """Nor while the channel leaves."""
    world = World()
    world.server.ignore("phx_join", times=1)
    channel, _ = world.subscribe()
    frame = '[null,null,"realtime:room","broadcast",{"event":"x","payload":{}}]'
    world.server.raw(frame)
    world.server.connections[0].reply(world.server.of("phx_join")[0].message)
    world.server.ignore("phx_leave")
    world.unsubscribe(channel)
    world.server.raw(frame)
    assert payloads(world) == []


# Row changes ------------------------------------------------------------------------------------------------


def changes(world: World) -> list[events.ChangeEvent[dict[str, Any]]]:
    """The changes that were delivered, in order."""
    return world.of(events.ChangeEvent)


def test_values_have_the_type_of_their_column() -> None:
    """Whole numbers and decimals stay exact; what is no number of its type stays as it came."""
    world = World()
    world.joined(changes=(SONGS,))
    columns = {
        "a": "int8",
        "b": "numeric",
        "c": "float8",
        "d": "bool",
        "e": "_numeric",
        "f": "jsonb",
        "g": "timestamptz",
        "h": "numeric",
        "i": "float4",
        "j": "text",
    }
    record = (
        b'{"a":9223372036854775807,"b":1.500,"c":1,"d":true,"e":[1.10,null],"f":{"x":[1.5]},'
        b'"g":"2024-01-01T10:00:00+00:00","h":null,"i":0.5,"j":"1.0"}'
    )
    world.server.change("songs", "INSERT", msgspec.Raw(record), columns=columns)  # type: ignore[arg-type]
    (change,) = changes(world)
    assert change.new == {
        "a": 9223372036854775807,
        "b": Decimal("1.500"),
        "c": 1.0,
        "d": True,
        "e": [Decimal("1.10"), None],
        "f": {"x": [1.5]},
        "g": "2024-01-01T10:00:00+00:00",
        "h": None,
        "i": 0.5,
        "j": "1.0",
    }
    assert str(change.new["b"]) == "1.500"
    assert isinstance(change.new["c"], float)
    assert isinstance(change.new["f"]["x"][0], float)
    assert change.columns == columns


def test_each_kind_of_change_has_its_type() -> None:
    """An INSERT has no old row, a DELETE no new one, and trouble is a list of texts."""
    world = World()
    world.joined(changes=(SONGS,))
    world.server.change("songs", "INSERT", {"id": 1})
    world.server.change("songs", "UPDATE", {"id": 1}, old={"id": 1}, errors=["Error 413: Payload Too Large"])
    world.server.change("songs", "DELETE", old={"id": 1})
    assert [type(change) for change in changes(world)] == [events.Insert, events.Update, events.Delete]
    assert [change.type for change in changes(world)] == ["INSERT", "UPDATE", "DELETE"]
    assert [(change.new, change.old) for change in changes(world)] == [
        ({"id": 1}, {}),
        ({"id": 1}, {"id": 1}),
        ({}, {"id": 1}),
    ]
    assert changes(world)[1].errors == ("Error 413: Payload Too Large",)


def test_what_the_server_leaves_out_of_changes_is_said_once_for_each_join() -> None:
    """With the way out; each cause on its own."""
    world = World()
    world.joined(changes=(SONGS,))
    denied, keyless = "Error 401: Unauthorized", "Error 400: Bad Request, no primary key"
    for error in (denied, denied, keyless):
        world.server.change("songs", "INSERT", {}, errors=[error])
    said = world.of(events.ChangeIncomplete)
    assert [event.errors for event in said] == [(denied,), (keyless,)]
    assert ["SELECT" in said[0].hint, "primary key" in said[1].hint] == [True, True]


def test_a_change_names_the_bindings_it_is_for() -> None:
    """One frame, several bindings; an event that a binding does not want is not for it."""
    world = World()
    world.joined(changes=(SONGS, ChangeBinding(event="DELETE", table="songs"), ChangeBinding(table="news")))
    world.server.change("songs", "INSERT", {"id": 1})
    world.server.change("songs", "DELETE", old={"id": 1})
    assert world.bindings == [(0,), (0, 1)]


# What is wrong ----------------------------------------------------------------------------------------------

ROOM = '[null,null,"realtime:room",'
NONSENSE = [
    "",
    "{}",
    "[]",
    "null",
    "[" * 5000,
    "\ud800",
    '["1","1","realtime:room","phx_reply"]',
    '["1","1","realtime:room","phx_reply",7]',
    '["1","1","realtime:room","phx_reply",{"status":5}]',
    ROOM + '"broadcast",[1]]',
    ROOM + '"broadcast",{"payload":{}}]',
    ROOM + '"postgres_changes",{"ids":"x"}]',
    ROOM + '"postgres_changes",{"ids":[1],"data":{"schema":1}}]',
    ROOM + '"presence_state",{"a":{"metas":[{}]}}]',
    ROOM + '"presence_state",{"a":7}]',
    ROOM + '"presence_diff",{}]',
    ROOM + '"presence_diff",{"joins":{"a":{"metas":[{"phx_ref":1}]}},"leaves":{}}]',
    ROOM + '"system",[]]',
    b"",
    b"\x04",
    b"\x04\xff\xff\xff\x01realtime:room",
    b"\x04\x0d\x02\x00\x01realtime:roomhi{",
    b"\x04\x0d\x02\x01\x01realtime:roomhi7{}",
    b"\x09whatever",
]


@pytest.mark.parametrize("frame", NONSENSE, ids=range(len(NONSENSE)))
def test_nonsense_costs_its_frame_and_is_reported(frame: str | bytes) -> None:
    """The next message is delivered."""
    world = World()
    world.joined(presence=True, changes=(SONGS,))
    world.server.raw(frame)
    world.server.broadcast("room", "a", {"n": 1})
    assert len(world.of(events.BadFrame)) == 1
    assert payloads(world) == [{"n": 1}]


@pytest.mark.parametrize(
    "frame",
    [
        ROOM + '"something_new",{}]',
        '[null,"77","realtime:room","phx_reply",{"status":"ok","response":{}}]',
        '["1","1","realtime:room","phx_reply",{"status":"error","response":{"reason":"too late"}}]',
        '[null,null,"realtime:elsewhere","broadcast",{"event":"x","payload":{}}]',
        '[null,null,"phoenix","phx_reply",{"status":"ok","response":{}}]',
        '["9",null,"realtime:room","broadcast",{"event":"x","payload":{}}]',
        ROOM + '"postgres_changes",{"ids":[123],"data":{"schema":"public","table":"songs","type":"INSERT"}}]',
        ROOM + '"presence_diff",{"joins":{},"leaves":{"nobody":{"metas":[{"phx_ref":"x"}]}}}]',
    ],
)
def test_what_is_for_nobody_is_nothing(frame: str) -> None:
    """Unknown events, unknown refs, a second reply, another join, unknown numbers, unknown keys."""
    world = World()
    channel = world.joined(changes=(SONGS,))
    world.server.raw(frame)
    assert world.state(channel) == "joined"
    assert payloads(world) == []
    assert changes(world) == []


def test_a_frame_that_is_too_large_is_dropped() -> None:
    """Whatever it holds."""
    world = World(max_frame_bytes=1000)
    world.joined()
    world.server.raw('[null,null,"realtime:room","broadcast",{"event":"%s"}]' % ("x" * 1000))
    assert "larger than 1000 bytes" in world.of(events.BadFrame)[0].reason


# What the server says ---------------------------------------------------------------------------------------


def test_what_the_server_says_is_passed_on_and_explained() -> None:
    """A refused broadcast that nobody waited for is not silent: its meaning and the token are named."""
    world = World(token=jwt())
    world.joined(private=True)
    connection = world.server.connections[0]
    connection.system("room", "Replication connection established")
    connection.system(
        "room", "You do not have permissions to send to this Channel topic: room", status="error"
    )
    fine, bad = world.of(events.SystemEvent)
    assert (fine.status, fine.error) == ("ok", None)
    assert isinstance(bad.error, BackbeatError)
    assert "INSERT policy" in bad.error.hint
    assert "static token" in bad.error.hint


# Interruptions ----------------------------------------------------------------------------------------------


def gaps(world: World) -> list[tuple[str, float, float]]:
    """What is said to be missing."""
    return [(gap.missing, gap.since, gap.until) for gap in world.of(events.Gap)]


def test_a_private_channel_asks_for_what_it_missed() -> None:
    """From two seconds before it was last heard of, by the server's clock; and nothing comes twice."""
    world = World(token=jwt())
    world.server.server_time = START + 100
    world.joined(private=True)
    world.server.broadcast("room", "a", 1, private=True, meta={"id": "1"})
    world.advance(10)
    heard_at = world.engine.link.heard_at
    world.server.stored["room"] = [("a", 1, "1"), ("b", 2, "2")]
    world.server.cut()
    world.advance(1)
    join = world.server.joins()[-1]
    skew = START + 100 - world.wall
    assert join["config"]["broadcast"]["replay"] == {"since": int((heard_at - 2 + skew) * 1000), "limit": 25}
    world.server.broadcast("room", "b", 2, private=True, meta={"id": "2"})
    assert payloads(world) == [1, 2]
    assert world.of(events.BroadcastEvent)[-1].replayed
    assert gaps(world) == []


def test_more_than_a_server_replays_is_a_gap() -> None:
    """Twenty-five messages came, so there may have been more."""
    world = World(token=jwt())
    world.joined(private=True)
    world.server.stored["room"] = [("a", n, str(n)) for n in range(40)]
    world.server.cut()
    world.advance(1)
    assert len(payloads(world)) == 25
    assert [gap[0] for gap in gaps(world)] == ["broadcasts"]


def test_a_replay_that_is_refused_is_a_gap() -> None:
    """The channel joins without it, at once."""
    world = World(token=jwt())
    channel = world.joined(private=True)
    reason = "UnableToReplayMessages: Realtime was unable to replay messages"
    world.server.refuse_join("room", reason, times=1)
    world.server.cut()
    world.advance(1)
    assert world.state(channel) == "joined"
    assert "replay" not in world.server.joins()[-1]["config"]["broadcast"]
    assert [gap[0] for gap in gaps(world)] == ["broadcasts"]


def test_a_public_channel_says_from_when_to_when_broadcasts_are_missing() -> None:
    """Nobody stores them."""
    world = World()
    world.joined()
    world.advance(10)
    world.server.cut()
    world.advance(1)
    (gap,) = gaps(world)
    assert gap == ("broadcasts", START, START + 11)


def test_row_changes_of_an_interruption_are_a_gap() -> None:
    """Until they stream again."""
    world = World(token=jwt())
    world.joined(private=True, changes=(SONGS,))
    world.server.cut()
    world.advance(1)
    assert gaps(world) == [("changes", START, START + 1)]


def test_row_changes_that_stop_and_come_back_are_a_gap() -> None:
    """The channel stays; what the server says about the time is what counts, and it is said once."""
    world = World(token=jwt())
    world.joined(private=True, changes=(SONGS,))
    connection = world.server.connections[0]
    connection.system(
        "room", "Unable to subscribe to changes: gone", extension="postgres_changes", status="error"
    )
    world.advance(5)
    connection.system("room", "Subscribed to PostgreSQL", extension="postgres_changes")
    assert gaps(world) == [("changes", START, START + 5)]
    connection.system(
        "room",
        "Subscribed to PostgreSQL",
        extension="postgres_changes",
        gap_since="2023-11-14T22:13:00Z",
        gap_until="2023-11-14T22:13:10Z",
    )
    assert gaps(world)[1:] == [("changes", START - 20, START - 10)]


def test_the_first_join_may_ask_for_stored_messages() -> None:
    """Only the first; afterwards it is asked for what was missed."""
    world = World(token=jwt())
    world.joined(private=True, replay=Replay(123, 5))
    assert world.server.joins()[0]["config"]["broadcast"]["replay"] == {"since": 123, "limit": 5}
    world.server.cut()
    world.advance(1)
    assert world.server.joins()[1]["config"]["broadcast"]["replay"]["since"] > 123


def test_an_interruption_over_several_attempts_is_one() -> None:
    """It is told from when it began, and its end comes once."""
    world = World()
    world.joined()
    world.server.cut()
    world.server.unreachable()
    world.advance(30)
    world.server.unreachable(False)
    world.advance(10)
    (resumed,) = world.of(events.Resumed)
    assert resumed.downtime == pytest.approx(world.of(events.Resumed)[0].at - START)
    assert len(gaps(world)) == 1
