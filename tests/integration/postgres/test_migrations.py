"""What `migrate` makes of a database: roles, schema, functions, publications, and what it leaves alone.

Roles belong to a cluster, so these tests have clusters of their own: the embedded one, and PostgreSQL 15 of
Debian where it is installed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege
from tests.clusters import CLUSTERS, FLAVOURS

from backbeat.errors import MigrationError
from backbeat.postgres.database import migrate

LOGIN = "backbeat_server"

Admin = psycopg.AsyncConnection[tuple[Any, ...]]

_numbers = itertools.count(1)


flavours = pytest.mark.parametrize("fresh_cluster", FLAVOURS, indirect=True)


@pytest.fixture
def fresh_cluster(request: pytest.FixtureRequest) -> Iterator[str]:
    """A cluster that has none of our roles."""
    with CLUSTERS[request.param]() as url:
        yield url


@pytest.fixture(scope="module", params=FLAVOURS, name="cluster")
def shared_cluster(request: pytest.FixtureRequest) -> Iterator[str]:
    """A cluster for all tests of this file that do not mind roles."""
    with CLUSTERS[request.param]() as url:
        yield url


def new_database(cluster: str) -> str:
    """Create an empty database and return its URL. The clusters of this file are thrown away as a whole."""
    name = f"migrated_{next(_numbers)}"
    with psycopg.connect(cluster, autocommit=True) as connection:
        connection.execute(f"create database {name}")
    return urlunsplit(urlsplit(cluster)._replace(path=f"/{name}"))


def as_login(url: str, login: str = LOGIN) -> str:
    """The same database, logged in as the server."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{login}:secret@{host}"))


@pytest.fixture
def empty(cluster: str) -> str:
    """A database that nobody prepared."""
    return new_database(cluster)


@pytest.fixture
async def url(empty: str) -> str:
    """A migrated database."""
    await migrate(empty, login=LOGIN, password="secret")
    return empty


@pytest.fixture
async def admin(url: str) -> AsyncIterator[Admin]:
    """The superuser in a migrated database."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
async def server(url: str) -> AsyncIterator[Admin]:
    """The server's login in a migrated database."""
    async with await psycopg.AsyncConnection.connect(as_login(url), autocommit=True) as connection:
        yield connection


async def rows(connection: Admin, query: str, *parameters: object) -> list[tuple[Any, ...]]:
    """What a query returns."""
    return await (await connection.execute(query.encode(), parameters)).fetchall()


# Migrating --------------------------------------------------------------------------------------------------


async def catalogue(url: str) -> list[tuple[Any, ...]]:
    """Everything a database consists of, with the transactions that wrote it last."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        return await rows(
            connection,
            "select 'relation', oid, xmin::text from pg_class union all "
            "select 'function', oid, xmin::text from pg_proc union all "
            "select 'schema', oid, xmin::text from pg_namespace union all "
            "select 'publication', oid, xmin::text from pg_publication union all "
            "select 'role', oid, null from pg_roles order by 1, 2",
        )


async def test_the_first_time_everything_is_applied(empty: str) -> None:
    """The names of the files are returned in their order."""
    assert await migrate(empty, login=LOGIN) == [
        "server/0001_roles.sql",
        "server/0002_claims.sql",
        "server/0003_realtime.sql",
        "server/0004_publications.sql",
    ]


async def test_the_second_time_nothing_is_applied(url: str) -> None:
    """What is in the ledger is skipped."""
    assert await migrate(url, login=LOGIN, password="secret") == []


async def test_the_second_time_changes_no_relation_function_or_publication(url: str) -> None:
    """Rows of the catalogue are the same; only rights of the login are granted again, on the schema."""
    before = await catalogue(url)
    await migrate(url, login=LOGIN, password="secret")
    changed = {kind for kind, *_ in set(before) ^ set(await catalogue(url))}
    assert changed <= {"schema"}


@flavours
async def test_two_migrate_a_fresh_database_at_once(fresh_cluster: str) -> None:
    """One of them applies everything, the other one nothing, and both succeed."""
    url = new_database(fresh_cluster)
    applied = await asyncio.gather(*(migrate(url, login=LOGIN, password="secret") for _ in range(2)))
    assert sorted(len(names) for names in applied) == [0, 4]


@flavours
async def test_two_databases_of_a_cluster_are_migrated_at_once(fresh_cluster: str) -> None:
    """Their roles are the same ones, and neither trips over the other."""
    urls = [new_database(fresh_cluster) for _ in range(4)]
    applied = await asyncio.gather(*(migrate(url, login=LOGIN, password="secret") for url in urls))
    assert [len(names) for names in applied] == [4, 4, 4, 4]


async def test_who_may_not_create_roles_is_told_where_it_failed(url: str, cluster: str) -> None:
    """The error names the file."""
    other = new_database(cluster)
    async with await psycopg.AsyncConnection.connect(other, autocommit=True) as connection:
        await connection.execute("create role little login password 'secret'")
        await connection.execute("grant create on database " + urlsplit(other).path[1:] + " to little")
    with pytest.raises(MigrationError, match=r"server/0001_roles\.sql"):
        await migrate(as_login(other, "little"), login=LOGIN)
    async with await psycopg.AsyncConnection.connect(other, autocommit=True) as connection:
        await connection.execute("drop owned by little")
        await connection.execute("drop role little")


async def test_a_failed_migration_leaves_no_trace(empty: str) -> None:
    """The files before the failed one are undone."""
    async with await psycopg.AsyncConnection.connect(empty, autocommit=True) as connection:
        await connection.execute("create schema realtime")
        await connection.execute("create view realtime.messages as select 1 as n")
        with pytest.raises(MigrationError):
            await migrate(empty, login=LOGIN)
        assert await rows(connection, "select to_regnamespace('auth'), to_regnamespace('backbeat')") == [
            (None, None)
        ]


# The server's login -----------------------------------------------------------------------------------------


async def test_the_login_has_no_rights_of_its_own(admin: Admin) -> None:
    """It may replicate, and that is all."""
    query = (
        "select rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication from pg_roles"
    )
    assert await rows(admin, f"{query} where rolname = '{LOGIN}'") == [
        (False, False, False, False, False, True)
    ]


async def test_the_login_cannot_read_user_tables(admin: Admin, server: Admin) -> None:
    """Not even those that the roles it may take can read."""
    await admin.execute("create table public.songs (title text)")
    await admin.execute("grant select on public.songs to anon, authenticated, service_role")
    with pytest.raises(InsufficientPrivilege):
        await server.execute("select * from public.songs")


async def test_the_login_cannot_read_stored_messages(server: Admin) -> None:
    """It has to become their owner first."""
    with pytest.raises(InsufficientPrivilege):
        await server.execute("select * from realtime.messages")


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role", "supabase_realtime_admin"])
async def test_the_login_can_become_a_role_of_the_project(server: Admin, role: str) -> None:
    """It acts as whoever a token names."""
    await server.execute(f"set role {role}")
    assert await rows(server, "select current_user::text") == [(role,)]


async def test_the_login_cannot_become_the_superuser(server: Admin) -> None:
    """A token that names `postgres` gets nowhere."""
    with pytest.raises(InsufficientPrivilege):
        await server.execute("set role postgres")


async def test_the_password_of_the_login_can_be_changed(cluster: str, admin: Admin, url: str) -> None:
    """Migrating again with another password sets it."""
    query = f"select rolpassword from pg_authid where rolname = '{LOGIN}'"
    before = await rows(admin, query)
    await migrate(url, login=LOGIN, password="another")
    changed = await rows(admin, query) != before
    await migrate(url, login=LOGIN, password="secret")
    assert changed


# What was there before --------------------------------------------------------------------------------------


async def test_functions_of_an_existing_auth_schema_are_kept(empty: str) -> None:
    """A project that has auth.uid() keeps its own; what is missing is added."""
    async with await psycopg.AsyncConnection.connect(empty, autocommit=True) as connection:
        await connection.execute("create schema auth")
        await connection.execute(
            "create function auth.uid() returns uuid language sql as 'select null::uuid'"
        )
        await migrate(empty, login=LOGIN)
        sources = await rows(
            connection,
            "select proname, prosrc = 'select null::uuid' from pg_proc"
            " where pronamespace = 'auth'::regnamespace order by 1",
        )
    assert sources == [("email", False), ("jwt", False), ("role", False), ("uid", True)]


async def test_user_tables_are_untouched(empty: str) -> None:
    """Their rights, policies and publications stay as they were."""
    query = "select relacl, relrowsecurity, relowner, xmin::text from pg_class where relname = 'songs'"
    async with await psycopg.AsyncConnection.connect(empty, autocommit=True) as connection:
        await connection.execute("create table public.songs (title text)")
        before = await rows(connection, query)
        await migrate(empty, login=LOGIN)
        assert await rows(connection, query) == before


async def test_an_existing_publication_keeps_its_tables(empty: str) -> None:
    """The project decides what it publishes."""
    async with await psycopg.AsyncConnection.connect(empty, autocommit=True) as connection:
        await connection.execute("create table public.songs (title text)")
        await connection.execute("create publication supabase_realtime for table public.songs")
        await migrate(empty, login=LOGIN)
        published = await rows(
            connection, "select tablename from pg_publication_tables where pubname = 'supabase_realtime'"
        )
    assert published == [("songs",)]


async def test_stored_messages_are_published_as_one_table(admin: Admin) -> None:
    """Inserts only, and under the name of the partitioned table."""
    published = await rows(
        admin,
        "select t.schemaname, t.tablename, p.pubinsert, p.pubupdate, p.pubdelete, p.pubviaroot"
        " from pg_publication p join pg_publication_tables t using (pubname)"
        " where pubname = 'supabase_realtime_messages_publication'",
    )
    assert published == [("realtime", "messages", True, False, False, True)]


# The functions of schema realtime ---------------------------------------------------------------------------


@pytest.mark.parametrize(("setting", "topic"), [("band", "band"), ("", None)])
async def test_topic_is_the_setting(admin: Admin, setting: str, topic: str | None) -> None:
    """An empty setting, which is what a past transaction leaves behind, is none."""
    await admin.execute("select set_config('realtime.topic', %s, false)", (setting,))
    assert await rows(admin, "select realtime.topic()") == [(topic,)]


async def test_topic_without_a_setting_is_null(admin: Admin) -> None:
    """Outside of a channel there is no topic."""
    assert await rows(admin, "select realtime.topic()") == [(None,)]


async def test_send_stores_a_private_broadcast(admin: Admin) -> None:
    """Private is the default."""
    await admin.execute("""select realtime.send('{"n": 1}', 'sung', 'band')""")
    stored = await rows(
        admin,
        "select topic, event, private, extension, payload ->> 'n', binary_payload from realtime.messages",
    )
    assert stored == [("band", "sung", True, "broadcast", "1", None)]


async def test_send_adds_the_id_of_the_row(admin: Admin) -> None:
    """Receivers can tell messages apart."""
    await admin.execute("select realtime.send('{}', 'sung', 'band')")
    assert await rows(admin, "select payload = jsonb_build_object('id', id) from realtime.messages") == [
        (True,)
    ]


@pytest.mark.parametrize("payload", ['{"id": 7}', '["a"]', "1"])
async def test_send_keeps_other_payloads(admin: Admin, payload: str) -> None:
    """An id of the sender's own stays, and what is no object has no place for one."""
    await admin.execute("select realtime.send(%s, 'sung', 'band', false)", (payload,))
    assert await rows(admin, "select payload from realtime.messages") == [(json.loads(payload),)]


async def test_send_sets_the_topic(admin: Admin) -> None:
    """INSERT policies see the topic of the message."""
    async with admin.transaction():
        await admin.execute("select realtime.send('{}', 'sung', 'band')")
        assert await rows(admin, "select realtime.topic()") == [("band",)]


async def test_send_binary_stores_bytes(admin: Admin) -> None:
    """Without an id, for there is no place for it."""
    await admin.execute("select realtime.send_binary('\\x00ff', 'recorded', 'band', false)")
    stored = await rows(
        admin, "select topic, event, private, extension, payload, binary_payload from realtime.messages"
    )
    assert stored == [("band", "recorded", False, "broadcast", None, b"\0\xff")]


async def test_a_message_has_one_payload(admin: Admin) -> None:
    """JSON or bytes, not both."""
    with pytest.raises(psycopg.errors.CheckViolation, match="messages_payload_exclusive"):
        await admin.execute(
            "insert into realtime.messages (topic, extension, payload, binary_payload)"
            " values ('band', 'broadcast', '{}', '')"
        )


SONGS = """
create table public.songs (id int primary key, title text);
create function public.songs_changed() returns trigger language plpgsql as $$
begin
  perform realtime.broadcast_changes(
    'songs', tg_op, tg_op, tg_table_name, tg_table_schema, new, old, tg_level
  );
  return null;
end $$;
create trigger changed after insert or update or delete on public.songs
  for each row execute function public.songs_changed();
"""

OLD, NEW = {"id": 1, "title": "One"}, {"id": 1, "title": "Two"}


@pytest.mark.parametrize(
    ("operation", "statement", "record", "old_record"),
    [
        ("INSERT", "insert into public.songs values (2, 'Three')", {"id": 2, "title": "Three"}, None),
        ("UPDATE", "update public.songs set title = 'Two'", NEW, OLD),
        ("DELETE", "delete from public.songs", None, OLD),
    ],
)
async def test_broadcast_changes_tells_what_happened(
    admin: Admin,
    operation: str,
    statement: str,
    record: dict[str, Any] | None,
    old_record: dict[str, Any] | None,
) -> None:
    """The rows before and after, as far as there are any."""
    await admin.execute(SONGS.encode())
    await admin.execute("insert into public.songs values (1, 'One')")
    await admin.execute("delete from realtime.messages")
    await admin.execute(statement.encode())
    stored = await rows(admin, "select topic, event, private, payload - 'id' from realtime.messages")
    assert stored == [
        (
            "songs",
            operation,
            True,
            {
                "operation": operation,
                "schema": "public",
                "table": "songs",
                "record": record,
                "old_record": old_record,
            },
        )
    ]


async def test_broadcast_changes_refuses_other_operations(admin: Admin) -> None:
    """The error has the text of the original."""
    with pytest.raises(
        psycopg.errors.RaiseException, match="Failed to process the row: Unexpected operation type: TRUNCATE"
    ):
        await admin.execute(
            "select realtime.broadcast_changes("
            "'t', 'e', 'TRUNCATE', 'songs', 'public', null::record, null::record)"
        )


async def test_broadcast_changes_is_for_rows(admin: Admin) -> None:
    """A statement trigger has no rows to tell about."""
    await admin.execute(SONGS.encode())
    await admin.execute(
        "create trigger all_changed after insert on public.songs execute function public.songs_changed()"
    )
    with pytest.raises(psycopg.errors.RaiseException, match="for each row, not for each statement"):
        await admin.execute("insert into public.songs values (1, 'One')")


async def drop_partitions(admin: Admin) -> None:
    """Leave realtime.messages without a place for any row."""
    for (name,) in await rows(
        admin,
        "select inhrelid::regclass::text from pg_inherits where inhparent = 'realtime.messages'::regclass",
    ):
        await admin.execute(f"drop table {name}")


@pytest.mark.parametrize(
    "statement", ["realtime.send('{}', 'e', 'band')", "realtime.send_binary('', 'e', 'band')"]
)
async def test_what_cannot_be_stored_is_a_warning(admin: Admin, statement: str) -> None:
    """The writer's own transaction goes on."""
    await drop_partitions(admin)
    notices: list[tuple[str | None, str | None]] = []
    admin.add_notice_handler(lambda notice: notices.append((notice.severity, notice.message_primary)))
    await admin.execute(f"select {statement}".encode())
    assert notices == [
        ("WARNING", 'WarnSendingBroadcastMessage: no partition of relation "messages" found for row')
    ]


# Row level security -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["anon", "authenticated"])
async def test_without_a_policy_nobody_reads(admin: Admin, role: str) -> None:
    """Row level security is on from the start."""
    await admin.execute("select realtime.send('{}', 'sung', 'band')")
    await admin.execute(f"set role {role}")
    assert await rows(admin, "select event from realtime.messages") == []


@pytest.mark.parametrize("role", ["anon", "authenticated"])
async def test_without_a_policy_nobody_sends(admin: Admin, role: str) -> None:
    """The functions run with the rights of their caller."""
    await admin.execute(f"set role {role}")
    await admin.execute("select realtime.send('{}', 'sung', 'band')")
    await admin.execute("reset role")
    assert await rows(admin, "select event from realtime.messages") == []


async def test_a_policy_lets_send_through(admin: Admin) -> None:
    """It sees the topic of the message."""
    await admin.execute(
        "create policy p on realtime.messages for insert to authenticated"
        " with check (realtime.topic() = 'band')"
    )
    await admin.execute("set role authenticated")
    for topic in ("band", "label"):
        await admin.execute("select realtime.send('{}', 'sung', %s)", (topic,))
    await admin.execute("reset role")
    assert await rows(admin, "select topic from realtime.messages") == [("band",)]


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
async def test_partitions_are_no_way_around_the_policies(admin: Admin, role: str) -> None:
    """Only the table itself can be read."""
    ((partition,), *_) = await rows(
        admin,
        "select inhrelid::regclass::text from pg_inherits where inhparent = 'realtime.messages'::regclass",
    )
    await admin.execute(f"set role {role}")
    with pytest.raises(InsufficientPrivilege):
        await admin.execute(f"select * from {partition}")


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
async def test_callers_cannot_drop_old_messages(admin: Admin, role: str) -> None:
    """Keeping the partitions is the server's business."""
    await admin.execute(f"set role {role}")
    with pytest.raises(InsufficientPrivilege):
        await admin.execute("select realtime.maintain_messages(keep => '0')")


async def test_partitions_belong_to_who_drops_them(admin: Admin) -> None:
    """Whoever migrates, the server's owner role can maintain them."""
    owners = await rows(
        admin,
        "select distinct pg_get_userbyid(relowner)::text from pg_inherits join pg_class on oid = inhrelid"
        " where inhparent = 'realtime.messages'::regclass",
    )
    assert owners == [("supabase_realtime_admin",)]


# The functions policies call --------------------------------------------------------------------------------

SUB = "00000000-0000-4000-8000-00000000000a"


@pytest.mark.parametrize(
    ("function", "value"), [("uid", SUB), ("role", "anon"), ("email", "ann@example.com")]
)
async def test_claims_are_read_from_the_token(admin: Admin, function: str, value: str) -> None:
    """Each function has its claim."""
    claims = {"sub": SUB, "role": "anon", "email": "ann@example.com"}
    await admin.execute("select set_config('request.jwt.claims', %s, false)", (json.dumps(claims),))
    assert await rows(admin, f"select auth.{function}()::text") == [(value,)]


@pytest.mark.parametrize("function", ["uid", "role", "email", "jwt"])
async def test_without_a_token_there_are_no_claims(admin: Admin, function: str) -> None:
    """After a transaction with claims the settings are empty rather than absent."""
    async with admin.transaction():
        await admin.execute("select set_config('request.jwt.claims', '{}', true)")
    assert await rows(admin, f"select auth.{function}()") == [(None,)]
