"""What the database broadcasts: which rows reach which channel, in which form, and what is dropped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import websockets
from structlog.testing import capture_logs
from tests.integration.server.conftest import PATIENCE, Running, running, slot_is_active

from backbeat.server.limits import LimitSettings

if TYPE_CHECKING:
    import psycopg

    from backbeat.server.settings import Settings

    Connection = psycopg.AsyncConnection[Any]

TOPIC = "open-1"
VERSIONS = pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
BINARY = pytest.mark.parametrize("payload", [b"", b"\x00\xff", bytes(range(16))], ids=["none", "two", "16"])


class Member:
    """A client in one channel, of either version.

    Args:
        socket: the connection.
    """

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self._socket = socket

    async def heard(self) -> str | bytes:
        """The next frame."""
        async with asyncio.timeout(PATIENCE):
            return await self._socket.recv()

    async def event(self) -> str:
        """The user event of the next broadcast, whatever its form."""
        frame = await self.heard()
        if isinstance(frame, bytes):
            return frame[5 + frame[1] : 5 + frame[1] + frame[2]].decode()
        message = json.loads(frame)
        payload = message["payload"] if isinstance(message, dict) else message[4]
        return str(payload["event"])


@asynccontextmanager
async def member(server: Running, vsn: str = "2.0.0", *, private: bool = True) -> AsyncIterator[Member]:
    """Join the topic."""
    url = f"{server.url}/socket/websocket?vsn={vsn}&apikey={server.realtime.settings.keys.anon}"
    topic, payload = (
        f"realtime:{TOPIC}",
        {"config": {"private": private}, "access_token": server.token()},
    )
    async with websockets.connect(url) as socket:
        await socket.send(
            json.dumps(
                ["1", "1", topic, "phx_join", payload]
                if vsn == "2.0.0"
                else {"topic": topic, "event": "phx_join", "payload": payload, "ref": "1", "join_ref": "1"}
            )
        )
        client = Member(socket)
        reply = await client.heard()
        assert '"status":"ok"' in str(reply), reply
        yield client


@asynccontextmanager
async def streaming(database: Connection, settings: Settings) -> AsyncIterator[Running]:
    """Run a server with settings of its own, until its slot is gone again."""
    async with running(settings) as server:
        async with asyncio.timeout(PATIENCE):
            await server.feed.streaming.wait()
        yield server
    async with asyncio.timeout(PATIENCE):
        while await slot_is_active(database):
            await asyncio.sleep(0.02)


async def send(database: Connection, payload: object, event: str, *, private: bool = True) -> str:
    """Store a message and return the id of its row."""
    if isinstance(payload, bytes):
        await database.execute(
            "select realtime.send_binary(%s, %s, %s, %s)", (payload, event, TOPIC, private)
        )
    else:
        await database.execute(
            "select realtime.send(%s::jsonb, %s, %s, %s)", (json.dumps(payload), event, TOPIC, private)
        )
    row = await (
        await database.execute("select id::text from realtime.messages where event = %s", (event,))
    ).fetchone()
    assert row is not None
    return str(row[0])


# What arrives -----------------------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize("private", [False, True], ids=["public", "private"])
async def test_a_row_reaches_the_channel_it_names(
    server: Running, database: Connection, vsn: str, private: bool
) -> None:
    """Public and private channels of one name are told apart by the column `private`."""
    async with member(server, vsn, private=private) as client:
        await send(database, {}, "for the other", private=not private)
        await send(database, {}, "for this one", private=private)
        assert await client.event() == "for this one"


async def test_vsn_1_gets_a_json_message_as_an_object(server: Running, database: Connection) -> None:
    """With the id of the row in `meta`, and in the payload, where `realtime.send` puts it."""
    async with member(server, "1.0.0") as client:
        row = await send(database, {"n": 1}, "hi")
        assert json.loads(await client.heard()) == {
            "topic": f"realtime:{TOPIC}",
            "event": "broadcast",
            "ref": None,
            "payload": {
                "event": "hi",
                "type": "broadcast",
                "meta": {"id": row},
                "payload": {"n": 1, "id": row},
            },
        }


async def test_an_id_of_the_senders_own_stays(server: Running, database: Connection) -> None:
    """The payload has the sender's, `meta` the row's."""
    async with member(server, "1.0.0") as client:
        row = await send(database, {"id": "mine"}, "hi")
        payload = json.loads(await client.heard())["payload"]
    assert (payload["payload"], payload["meta"]) == ({"id": "mine"}, {"id": row})


@BINARY
async def test_vsn_2_gets_bytes_as_they_were_stored(
    server: Running, database: Connection, payload: bytes
) -> None:
    """None at all, two, and as many as a UUID has; with the id of the row as metadata."""
    async with member(server) as client:
        row = await send(database, payload, "hi")
        topic, metadata = f"realtime:{TOPIC}".encode(), json.dumps({"id": row}).replace(" ", "").encode()
        header = bytes((4, len(topic), 2, len(metadata), 0))
        assert await client.heard() == header + topic + b"hi" + metadata + payload


@BINARY
async def test_vsn_1_gets_no_bytes(server: Running, database: Connection, payload: bytes) -> None:
    """What is stored afterwards arrives."""
    async with member(server, "1.0.0") as client:
        await send(database, payload, "bytes")
        await send(database, {}, "json")
        assert await client.event() == "json"


async def test_a_row_inserted_by_hand_is_a_broadcast(server: Running, database: Connection) -> None:
    """Whatever its extension is called, and without the functions."""
    async with member(server) as client:
        await database.execute(
            "insert into realtime.messages (topic, extension, payload, event, private)"
            " values (%s, 'presence', '{}', 'by hand', true)",
            (TOPIC,),
        )
        assert await client.event() == "by hand"


async def test_a_table_of_the_same_name_is_no_broadcast(server: Running, database: Connection) -> None:
    """Only `realtime.messages` is; a published `public.messages` is a table like others."""
    await database.execute("create table public.messages (like realtime.messages including defaults)")
    await database.execute("alter publication supabase_realtime add table public.messages")
    async with member(server) as client:
        await database.execute(
            "insert into public.messages (topic, extension, payload, event, private)"
            " values (%s, 'broadcast', '{}', 'not this', true)",
            (TOPIC,),
        )
        await send(database, {}, "this")
        assert await client.event() == "this"


async def test_what_is_updated_or_deleted_is_no_broadcast(server: Running, database: Connection) -> None:
    """Only what is inserted is."""
    async with member(server) as client:
        row = await send(database, {}, "inserted")
        await database.execute("update realtime.messages set event = 'updated' where id = %s", (row,))
        await database.execute("delete from realtime.messages where id = %s", (row,))
        await send(database, {}, "the next")
        assert [await client.event() for _ in range(2)] == ["inserted", "the next"]


async def test_what_was_rolled_back_is_no_broadcast(server: Running, database: Connection) -> None:
    """A message goes out when its transaction commits."""
    async with member(server) as client:
        async with database.transaction(force_rollback=True):
            await send(database, {}, "rolled back")
        await send(database, {}, "committed")
        assert await client.event() == "committed"


async def test_stored_messages_are_counted_and_timed(server: Running, database: Connection) -> None:
    """Like any broadcast, and apart; with the time since their commit."""
    metrics = server.realtime.metrics
    async with member(server) as client:
        await send(database, {}, "one")
        await client.heard()
    assert (metrics.messages_from_database, metrics.broadcasts, metrics.deliveries) == (1, 1, 1)
    assert list(metrics.commit_latency.samples())[-1] == ("_count", "", 1)


# What is dropped --------------------------------------------------------------------------------------------


async def test_a_row_without_an_event_is_logged_and_skipped(server: Running, database: Connection) -> None:
    """It costs only itself."""
    async with member(server) as client:
        with capture_logs() as lines:
            await database.execute(
                "insert into realtime.messages (topic, extension, payload, private)"
                " values (%s, 'broadcast', '{}', true)",
                (TOPIC,),
            )
            await send(database, {}, "the next")
            assert await client.event() == "the next"
    (line,) = lines
    assert (line["code"], line["log_level"]) == ("UnableToBroadcastChanges", "warning")
    assert "event" in line["reason"]


async def test_a_row_that_fits_no_header_is_logged_and_skipped(server: Running, database: Connection) -> None:
    """An event of 256 bytes cannot be written to vsn 2."""
    async with member(server) as client:
        with capture_logs() as lines:
            await send(database, {}, "e" * 256)
            await send(database, {}, "the next")
            assert await client.event() == "the next"
    assert [line["code"] for line in lines] == ["UnableToBroadcastChanges"]


@pytest.mark.parametrize("payload", [{"text": "x" * 100}, b"x" * 101], ids=["json", "bytes"])
async def test_a_large_row_is_logged_and_skipped(
    database: Connection, settings: Callable[..., Settings], payload: object
) -> None:
    """The limit is that of every broadcast."""
    async with (
        streaming(database, settings(max_payload_bytes=100)) as server,
        member(server) as client,
    ):
        with capture_logs() as lines:
            await send(database, payload, "large")
            await send(database, {}, "small")
            assert await client.event() == "small"
    assert [line["code"] for line in lines] == ["UnableToBroadcastChanges"]


async def test_rows_beyond_the_rate_are_logged_and_skipped(
    database: Connection, settings: Callable[..., Settings]
) -> None:
    """The first ones arrive; the channel lives, for its client did nothing wrong."""
    limits = LimitSettings(max_events_per_second=1)
    async with streaming(database, settings(limits=limits)) as server, member(server) as client:
        with capture_logs() as lines:
            await database.execute(
                "select realtime.send('{}', 'e', %s) from generate_series(1, 100)", (TOPIC,)
            )
            assert await client.event() == "e"
            async with asyncio.timeout(PATIENCE):
                while server.realtime.metrics.messages_from_database + len(lines) < 100:
                    await asyncio.sleep(0.01)
        assert server.realtime.metrics.channels == 1
    assert {line["code"] for line in lines} == {"MessagePerSecondRateLimitReached"}


async def test_a_message_for_nobody_is_dropped(server: Running, database: Connection) -> None:
    """And leaves no room behind."""
    async with member(server) as client:
        await database.execute("select realtime.send('{}', 'e', 'open-nobody')")
        await send(database, {}, "the next")
        assert await client.event() == "the next"
        assert len(server.realtime.hub) == 1
