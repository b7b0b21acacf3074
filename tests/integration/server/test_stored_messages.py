"""Broadcasts that the database stores: replayed to joiners, and said when they begin to arrive."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg
    from tests.integration.server.conftest import Running

    Connection = psycopg.AsyncConnection[Any]

TOPIC = "realtime:open-1"


async def test_stored_messages_are_replayed(server: Running, database: Connection) -> None:
    """The newest ones since a time, oldest first, text and binary; a later one arrives live, and once."""
    since = int(time.time() * 1000) - 60_000
    async with server.client() as witness, server.client() as client:
        await witness.join(TOPIC, token=server.token(), private=True)
        await witness.message()
        for number in range(3):
            await database.execute(
                "select realtime.send(jsonb_build_object('n', %s::int), 'hi', 'open-1')", (number,)
            )
        await database.execute(r"select realtime.send_binary('\x0102', 'hi', 'open-1')")
        for _ in range(4):
            # All of them have come through the stream: whoever joins now gets none of them live.
            await witness.socket.recv()
        replay = {"replay": {"since": since, "limit": 3}}
        await client.join(TOPIC, token=server.token(), private=True, broadcast=replay)
        assert (await client.message())[4]["status"] == "ok"
        replayed = [(await client.message())[4] for _ in range(2)]
        assert [each["payload"]["n"] for each in replayed] == [1, 2]
        assert all(each["meta"]["replayed"] is True for each in replayed)
        binary = await client.socket.recv()
        assert isinstance(binary, bytes)
        assert binary.endswith(b"\x01\x02")
        await database.execute("""select realtime.send('{"n": 3}', 'hi', 'open-1')""")
        live = await client.socket.recv()
        assert isinstance(live, bytes)
        assert json.loads(live[live.rindex(b'{"') :])["n"] == 3


async def test_nothing_older_than_asked_for_is_replayed(server: Running, database: Connection) -> None:
    """`since` in the future leaves nothing."""
    async with server.client() as witness, server.client() as client:
        await witness.join(TOPIC, token=server.token(), private=True)
        await witness.message()
        await database.execute("""select realtime.send('{"n": 1}', 'hi', 'open-1')""")
        # It has come through the stream: whoever joins now does not get it live.
        await witness.socket.recv()
        replay = {"replay": {"since": int(time.time() * 1000) + 30_000}}
        await client.join(TOPIC, token=server.token(), private=True, broadcast=replay)
        await client.message()
        beat = await client.push("phoenix", "heartbeat", {})
        assert (await client.message())[1] == beat


async def test_a_trigger_broadcasts_row_changes(server: Running, database: Connection) -> None:
    """`realtime.broadcast_changes` in a trigger tells operation, record and old record, in commit order."""
    await database.execute(
        """
        create function tell() returns trigger language plpgsql as $$
        begin
          perform realtime.broadcast_changes(
            'open-1', tg_op, tg_op, tg_table_name, tg_table_schema, new, old
          );
          return null;
        end $$;
        create trigger tell after insert or update or delete on plans for each row execute function tell();
        """
    )
    async with server.client() as client:
        ready = {"replication_ready": True}
        await client.join(TOPIC, token=server.token(), private=True, broadcast=ready)
        assert (await client.until("system"))[4]["message"] == "Replication connection established"
        await database.execute("insert into plans values (1)")
        await database.execute("update plans set id = 2")
        await database.execute("delete from plans")
        heard = []
        for _ in range(3):
            frame = await client.socket.recv()
            assert isinstance(frame, bytes)
            heard.append(json.loads(frame.split(b"}", 1)[1]))
    assert [each["operation"] for each in heard] == ["INSERT", "UPDATE", "DELETE"]
    assert [each["record"] for each in heard] == [{"id": 1}, {"id": 2}, None]
    assert [each["old_record"] for each in heard] == [None, {"id": 1}, {"id": 2}]
