"""The whole path on real parts: a raw socket in front, a real Postgres behind."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
import websockets
from tests.integration.server.conftest import ERIC, MIKE, Running, no_slot, running

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    from backbeat.server.settings import Settings

    Connection = psycopg.AsyncConnection[Any]

SONGS = {"event": "*", "schema": "public", "table": "songs"}
NEWS = {"event": "*", "schema": "public", "table": "news"}


async def test_heartbeats_are_answered_while_a_join_is_in_progress(
    server: Running, database: Connection
) -> None:
    """A join that waits for a lock in the database holds up neither heartbeats nor other channels."""
    async with server.client() as client, database.transaction():
        await database.execute("lock table realtime.messages in access exclusive mode")
        join = await client.join("realtime:open-1", token=server.token(), private=True)
        beat = await client.push("phoenix", "heartbeat", {})
        other = await client.join("realtime:other")
        assert [(await client.message())[1] for _ in range(2)] == [beat, other]
        await database.execute("rollback")
        assert (await client.message())[1] == join


async def test_the_join_reply_precedes_everything_else_of_its_channel(server: Running) -> None:
    """Presence state and system messages follow it."""
    async with server.client() as client:
        await client.join(
            "realtime:x", postgres_changes=[NEWS], presence={"enabled": True}, token=server.token()
        )
        assert [(await client.message())[3] for _ in range(3)] == ["phx_reply", "presence_state", "system"]


async def test_change_subscriptions_are_echoed_with_stable_ids(server: Running) -> None:
    """Every key comes back as it was sent, with the same id in every join."""
    entries = [SONGS | {"filter": f"owner=eq.{ERIC}"}, NEWS | {"event": "insert", "extra": [None]}]
    echoes = []
    async with server.client() as client:
        for topic in ("realtime:a", "realtime:b"):
            await client.join(topic, postgres_changes=entries)
            echoes.append((await client.until("phx_reply"))[4]["response"]["postgres_changes"])
    assert echoes[0] == echoes[1]
    assert [{key: entry[key] for key in entry if key != "id"} for entry in echoes[0]] == entries


async def test_an_empty_presence_state_is_sent(server: Running) -> None:
    """Clients wait for it."""
    async with server.client() as client:
        await client.join("realtime:x", presence={"enabled": True})
        assert (await client.until("presence_state"))[4] == {}


async def test_each_user_receives_their_own_rows(server: Running, database: Connection) -> None:
    """Row level security decides: Mike's songs reach Mike, Eric's reach Eric, in the order of commits."""
    async with server.client() as eric, server.client() as mike:
        await eric.subscribed("realtime:songs", [SONGS], token=server.token(ERIC))
        await mike.subscribed("realtime:songs", [SONGS], token=server.token(MIKE))
        for owner, title in ((ERIC, "one"), (MIKE, "two"), (ERIC, "three"), (MIKE, "four")):
            await database.execute("insert into songs (owner, title) values (%s, %s)", (owner, title))
        heard = [
            [(await client.message())[4]["data"]["record"]["title"] for _ in range(2)]
            for client in (eric, mike)
        ]
    assert heard == [["one", "three"], ["two", "four"]]


async def test_a_change_looks_as_clients_expect(server: Running, database: Connection) -> None:
    """Ids, type, columns, record and old record, for an insert, an update and a delete."""
    async with server.client() as client:
        join = await client.join("realtime:news", token=server.token(), postgres_changes=[NEWS])
        number = (await client.until("phx_reply"))[4]["response"]["postgres_changes"][0]["id"]
        await client.until("system")
        await database.execute("insert into news values (1, 'a')")
        await database.execute("update news set headline = 'b'")
        await database.execute("delete from news")
        insert, update, delete = [await client.message() for _ in range(3)]
    assert join
    assert insert[:4] == [None, None, "realtime:news", "postgres_changes"]
    assert {message[4]["ids"][0] for message in (insert, update, delete)} == {number}
    data = [message[4]["data"] for message in (insert, update, delete)]
    assert [each.pop("type") for each in data] == ["INSERT", "UPDATE", "DELETE"]
    assert all(each.pop("commit_timestamp").endswith("Z") for each in data)
    common = {
        "schema": "public",
        "table": "news",
        "errors": None,
        "columns": [{"name": "id", "type": "int4"}, {"name": "headline", "type": "text"}],
    }
    assert data == [
        common | {"record": {"id": 1, "headline": "a"}},
        common | {"record": {"id": 1, "headline": "b"}, "old_record": {"id": 1}},
        common | {"old_record": {"id": 1}},
    ]


async def test_only_matching_events_arrive(server: Running, database: Connection) -> None:
    """An INSERT subscription hears no update, and an `eq` filter hears no other value."""
    changes = [NEWS | {"event": "INSERT", "filter": "headline=eq.yes"}]
    async with server.client() as client:
        await client.subscribed("realtime:news", changes, token=server.token())
        await database.execute("insert into news values (1, 'no'), (2, 'yes')")
        await database.execute("update news set headline = 'yes'")
        await database.execute("insert into news values (3, 'yes')")
        heard = [(await client.message())[4]["data"]["record"]["id"] for _ in range(2)]
    assert heard == [2, 3]


async def test_a_schema_subscription_hears_every_published_table(
    server: Running, database: Connection
) -> None:
    """Without a table, all published tables of the schema are meant."""
    async with server.client() as client:
        await client.subscribed("realtime:all", [{"event": "*", "schema": "public"}], token=server.token())
        await database.execute("insert into news values (1, 'a')")
        await database.execute("insert into songs (owner, title) values (%s, 'b')", (ERIC,))
        heard = [(await client.message())[4]["data"]["table"] for _ in range(2)]
    assert heard == ["news", "songs"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"table": "plans"}, "Please check Realtime is enabled for the given connect parameters"),
        ({"table": "nope"}, "Please check Realtime is enabled for the given connect parameters"),
        ({"filter": "colour=eq.red"}, "invalid column for filter colour"),
        ({"filter": "id=eq.red"}, "invalid input syntax for type integer"),
        ({"filter": "nonsense"}, "Error parsing `filter` params"),
    ],
)
async def test_a_bad_subscription_is_told_why(server: Running, change: dict[str, str], text: str) -> None:
    """The channel is joined, and a system message says what is wrong with its row changes."""
    async with server.client() as client:
        await client.join("realtime:x", token=server.token(), postgres_changes=[NEWS | change])
        system = await client.until("system")
        assert (system[4]["status"], system[4]["extension"]) == ("error", "postgres_changes")
        assert text in system[4]["message"]


@pytest.mark.parametrize(("withhold", "heard"), [(False, ["songs", "news"]), (True, ["news"])])
async def test_deletions_can_be_withheld_where_rows_are_hidden(
    database: Connection, settings: Callable[..., Settings], withhold: bool, heard: list[str]
) -> None:
    """Under row level security a DELETE tells its key to everybody, unless it is to tell nobody."""
    await database.execute("insert into songs (owner, title) values (%s, 'x')", (MIKE,))
    await database.execute("insert into news values (1, 'x')")
    async with running(settings(withhold_deletes=withhold)) as server:
        async with server.client() as client:
            await client.subscribed("realtime:all", [SONGS, NEWS], token=server.token(ERIC))
            await database.execute("delete from songs")
            await database.execute("delete from news")
            data = [(await client.message())[4]["data"] for _ in heard]
        assert [each["table"] for each in data] == heard
    await no_slot(database)


@pytest.mark.parametrize(
    ("project", "entry", "expected"),
    [("number", {}, 2**63 - 1), ("text", {}, str(2**63 - 1)), ("text", {"big_numbers": "number"}, 2**63 - 1)],
)
async def test_big_numbers_are_written_as_the_entry_or_the_project_wants(
    settings: Callable[..., Settings],
    database: Connection,
    project: str,
    entry: dict[str, str],
    expected: object,
) -> None:
    """An entry that says nothing gets what the project was told."""
    async with running(settings(big_numbers=project)) as server, server.client() as client:
        await database.execute("create table bills (id int8 primary key)")
        await database.execute("alter publication supabase_realtime add table bills")
        await client.subscribed("realtime:bills", [{"table": "bills", **entry}], token=server.token())
        await database.execute("insert into bills values (9223372036854775807)")
        change = await client.until("postgres_changes")
        assert change[4]["data"]["record"] == {"id": expected}


async def test_a_new_token_changes_what_is_seen(server: Running, database: Connection) -> None:
    """After Mike's token, Mike's rows arrive and Eric's no longer do."""
    async with server.client() as client:
        await client.subscribed("realtime:songs", [SONGS], token=server.token(ERIC))
        await client.push("realtime:songs", "access_token", {"access_token": server.token(MIKE)})
        await client.until("system")
        await database.execute(
            "insert into songs (owner, title) values (%s, 'eric'), (%s, 'mike')", (ERIC, MIKE)
        )
        assert (await client.until("postgres_changes"))[4]["data"]["record"]["title"] == "mike"


async def test_private_channels_are_for_those_the_policies_let_in(server: Running) -> None:
    """One topic is open to the user, the other is not, and the reason says so."""
    async with server.client() as client:
        await client.join("realtime:open-1", token=server.token(), private=True)
        assert (await client.message())[4]["status"] == "ok"
        await client.join("realtime:closed", token=server.token(), private=True)
        reply = await client.message()
        text = "Unauthorized: You do not have permissions to read from this Channel topic: closed"
        assert reply[4] == {"status": "error", "response": {"reason": text}}


async def test_sending_is_a_permission_of_its_own(server: Running) -> None:
    """The INSERT policy allows broadcasts and not presence."""
    async with server.client() as client:
        join = await client.join(
            "realtime:open-1", token=server.token(), private=True, broadcast={"ack": True}
        )
        await client.message()
        sent = await client.push("realtime:open-1", "broadcast", {"event": "x"}, join_ref=join)
        reply = await client.message()
        assert (reply[1], reply[4]["status"]) == (sent, "ok")
        await client.push("realtime:open-1", "presence", {"event": "track", "payload": {}}, join_ref=join)
        assert (await client.until("phx_reply"))[4]["status"] == "error"


async def test_the_database_can_broadcast(server: Running, database: Connection) -> None:
    """`realtime.send` reaches the private room of its topic, with the id of the stored message."""
    async with server.client() as client:
        await client.join("realtime:open-1", token=server.token(), private=True)
        await client.message()
        await database.execute("""select realtime.send('{"n": 1}', 'hi', 'open-1')""")
        async with asyncio.timeout(15):
            frame = await client.socket.recv()
        row = await (await database.execute("select id::text from realtime.messages")).fetchone()
    assert isinstance(frame, bytes)
    assert row is not None
    metadata = json.dumps({"id": row[0]}, separators=(",", ":")).encode()
    topic = b"realtime:open-1"
    assert frame.startswith(bytes((4, len(topic), 2, len(metadata), 1)) + topic + b"hi" + metadata)
    assert json.loads(frame.split(metadata, 1)[1]) == {"n": 1, "id": row[0]}


async def test_public_channels_work_without_a_database(settings: Callable[..., Settings]) -> None:
    """A server whose database is away joins public channels and carries broadcasts; private ones are told."""
    away = settings(database_url="postgresql://nobody:x@127.0.0.1:1/none")
    async with running(away) as server, server.client() as client:
        join = await client.join("realtime:x", broadcast={"self": True})
        assert (await client.message())[4]["status"] == "ok"
        await client.push("realtime:x", "broadcast", {"n": 1}, join_ref=join)
        assert (await client.message())[4] == {"n": 1}
        await client.join("realtime:y", private=True, token=server.token())
        assert (await client.message())[4]["response"]["reason"].startswith("UnableToConnectToProject: ")


async def test_a_lost_stream_is_told_and_healed(server: Running, database: Connection) -> None:
    """Channels hear that changes stop, and that they arrive again; then they do."""
    async with server.client() as client:
        await client.subscribed("realtime:news", [NEWS], token=server.token())
        await database.execute(
            "select pg_terminate_backend(active_pid) from pg_replication_slots"
            " where active and database = current_database()"
        )
        lost, restored = await client.until("system"), await client.until("system")
        assert (lost[4]["status"], restored[4]["status"]) == ("error", "ok")
        await database.execute("insert into news values (1, 'again')")
        assert (await client.until("postgres_changes"))[4]["data"]["record"]["headline"] == "again"


async def test_a_failure_of_ours_in_the_feed_is_reported_and_healed(
    server: Running, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A typo while a change is handled costs that change; the channels hear of it, and later ones arrive."""
    async with server.client() as client:
        await client.subscribed("realtime:news", [NEWS], token=server.token())

        def typo(*_: object) -> None:
            monkeypatch.undo()
            raise AttributeError("a typo")

        monkeypatch.setattr("backbeat.server.dispatcher.Dispatcher.deliver", typo)
        monkeypatch.setattr("backbeat.server.feed.RESTART_PAUSE", 0.0)
        await database.execute("insert into news values (1, 'lost')")
        lost, restored = await client.until("system"), await client.until("system")
        assert (lost[4]["status"], restored[4]["status"]) == ("error", "ok")
        await database.execute("insert into news values (2, 'found')")
        assert (await client.until("postgres_changes"))[4]["data"]["record"]["headline"] == "found"
        assert server.realtime.metrics.handler_failures == 1


async def test_stopping_closes_sockets_with_1012(
    database: Connection, settings: Callable[..., Settings]
) -> None:
    """The contract with uvicorn: it hands sockets over, and tells them when the server stops."""
    async with running(settings()) as server, server.client() as client:
        await client.join("realtime:x")
        await client.message()
        server.stop.set()
        assert (await client.message())[4]["message"] == "Server requested disconnect"
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await client.message()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012


async def test_http_and_sockets_share_the_port(server: Running) -> None:
    """Health and metrics answer beside the socket."""
    url = server.url.replace("ws://", "http://")
    async with server.client() as client:
        await client.join("realtime:x")
        await client.message()
        health = await asyncio.to_thread(fetch, f"{url}/healthcheck")
        ready = json.loads(await asyncio.to_thread(fetch, f"{url}/ready"))
        metrics = await asyncio.to_thread(fetch, f"{url}/metrics")
    assert health == "ok"
    assert (ready["ready"], ready["stream"]["phase"]) == (True, "streaming")
    assert "backbeat_channels 1\n" in metrics


async def test_what_is_not_there_is_said_in_json(server: Running) -> None:
    """Other products of a project answer 404, and never hang."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        await asyncio.to_thread(fetch, server.url.replace("ws://", "http://") + "/storage/v1/bucket")
    with caught.value as error:
        assert (error.code, json.loads(error.read())) == (404, {"message": "not found"})


def fetch(url: str) -> str:
    """The body of a page of this machine."""
    with urllib.request.urlopen(url) as response:  # noqa: S310 - loopback
        return str(response.read().decode())
