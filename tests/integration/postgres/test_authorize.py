"""Private channels: the policies on realtime.messages decide, and the question leaves no trace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from backbeat.errors import Denied, Unavailable
from backbeat.postgres import authorize
from backbeat.postgres.authorize import Authorizer, Grants, Permissions
from backbeat.postgres.database import Database
from backbeat.tokens.claims import Claims

ANN = "00000000-0000-4000-8000-00000000000a"
BOB = "00000000-0000-4000-8000-00000000000b"

NOTHING = Grants(broadcast=False, presence=False)
EVERYTHING = Grants(broadcast=True, presence=True)

MEMBERS = f"""
create table public.members (topic text, user_id uuid);
grant select on public.members to authenticated;
insert into public.members values ('band', '{ANN}');
create policy hear on realtime.messages for select to authenticated using (
  exists (select from public.members m where m.topic = realtime.topic() and m.user_id = auth.uid())
);
create policy speak on realtime.messages for insert to authenticated with check (
  extension = 'broadcast'
  and exists (select from public.members m where m.topic = realtime.topic() and m.user_id = auth.uid())
);
"""


def claims_of(sub: str, role: str = "authenticated", **more: Any) -> Claims:
    """The claims of somebody whose token does not expire."""
    return Claims.of({"sub": sub, "role": role, "exp": time.time() + 3600, **more})


@pytest.fixture
async def admin(database_url: str) -> AsyncIterator[psycopg.AsyncConnection[tuple[Any, ...]]]:
    """The owner of the project, who writes the policies."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
async def database(login_url: str) -> AsyncIterator[Database]:
    """The server's pool, with a single connection, so that nothing can hide on another one."""
    database = Database(login_url, size=1)
    await database.open()
    yield database
    await database.aclose()


@pytest.fixture
def authorizer(database: Database) -> Authorizer:
    return Authorizer(database)


Admin = psycopg.AsyncConnection[tuple[Any, ...]]


async def test_without_a_policy_nobody_gets_in(authorizer: Authorizer) -> None:
    """Row level security denies by default."""
    assert await authorizer.probe("band", claims_of(ANN), {}) == Permissions.none()


async def test_a_member_gets_what_the_policies_grant(authorizer: Authorizer, admin: Admin) -> None:
    """SELECT policies grant receiving, INSERT policies sending, each for its extensions."""
    await admin.execute(MEMBERS)
    permissions = await authorizer.probe("band", claims_of(ANN), {})
    assert permissions == Permissions(read=EVERYTHING, write=Grants(broadcast=True, presence=False))


@pytest.mark.parametrize(
    ("topic", "claims"),
    [
        pytest.param("band", claims_of(BOB), id="another user"),
        pytest.param("label", claims_of(ANN), id="another topic"),
        pytest.param("band", claims_of(ANN, role="anon"), id="another role"),
    ],
)
async def test_the_policies_see_topic_user_and_role(
    authorizer: Authorizer, admin: Admin, topic: str, claims: Claims
) -> None:
    """Whoever the policy does not name gets nothing."""
    await admin.execute(MEMBERS)
    assert await authorizer.probe(topic, claims, {}) == Permissions.none()


async def test_the_policies_see_extension(authorizer: Authorizer, admin: Admin) -> None:
    """A policy may grant presence without broadcast."""
    await admin.execute("create policy p on realtime.messages for select using (extension = 'presence')")
    permissions = await authorizer.probe("band", claims_of(ANN), {})
    assert permissions.read == Grants(broadcast=False, presence=True)


async def test_the_policies_see_every_claim(authorizer: Authorizer, admin: Admin) -> None:
    """Claims beyond role and sub reach the policies as they stood in the token."""
    await admin.execute(
        "create policy p on realtime.messages for select using (auth.jwt() -> 'app' ->> 'band' = 'Grüße')"
    )
    permissions = await authorizer.probe("band", claims_of(ANN, app={"band": "Grüße"}), {})
    assert permissions.read == EVERYTHING


async def test_the_policies_see_headers(authorizer: Authorizer, admin: Admin) -> None:
    """The caller's headers are in request.headers, as JSON."""
    await admin.execute(
        "create policy p on realtime.messages for select using "
        "(current_setting('request.headers')::json ->> 'x-stage' = 'main')"
    )
    permissions = await authorizer.probe("band", claims_of(ANN), {"x-stage": "main"})
    assert permissions.read == EVERYTHING


async def test_presence_is_asked_about_only_when_wanted(authorizer: Authorizer, admin: Admin) -> None:
    """Without presence no row of that extension is tried."""
    await admin.execute(
        "create policy r on realtime.messages for select"
        " using (extension = 'broadcast' or topic::uuid is null);"
        "create policy w on realtime.messages for insert"
        " with check (extension = 'broadcast' or topic::uuid is null)"
    )
    permissions = await authorizer.probe("band", claims_of(ANN), {}, presence=False)
    broadcast = Grants(broadcast=True, presence=False)
    assert permissions == Permissions(read=broadcast, write=broadcast)


async def test_service_role_passes_every_policy(authorizer: Authorizer) -> None:
    """A role that bypasses row level security may do everything."""
    assert await authorizer.probe("band", claims_of("", role="service_role"), {}) == Permissions.all()


async def test_a_new_policy_holds_at_once(authorizer: Authorizer, admin: Admin) -> None:
    """A connection that was asked before does not answer from memory."""
    before = await authorizer.probe("band", claims_of(ANN), {})
    await admin.execute("create policy p on realtime.messages for select using (true)")
    after = await authorizer.probe("band", claims_of(ANN), {})
    assert (before.read, after.read) == (NOTHING, EVERYTHING)


async def test_a_prepared_plan_serves_one_role_only(authorizer: Authorizer, admin: Admin) -> None:
    """However often one role asks on a connection, the next role gets its own policies."""
    await admin.execute(MEMBERS)
    for _ in range(7):  # Postgres settles for a generic plan after five
        await authorizer.probe("band", claims_of("", role="service_role"), {})
    assert await authorizer.probe("band", claims_of(BOB), {}) == Permissions.none()


async def test_nothing_stays_in_the_table(authorizer: Authorizer, admin: Admin) -> None:
    """The rows of the question are rolled back."""
    await admin.execute(MEMBERS)
    await authorizer.probe("band", claims_of(ANN), {})
    assert await (await admin.execute("select * from realtime.messages")).fetchall() == []


async def test_nothing_reaches_the_stream(authorizer: Authorizer, admin: Admin) -> None:
    """Of the publication of realtime.messages, a slot sees only what somebody stores."""
    await admin.execute(MEMBERS)
    await admin.execute("select pg_create_logical_replication_slot('watch', 'pgoutput', true)")
    await authorizer.probe("band", claims_of(ANN), {})
    await admin.execute("select realtime.send('{}', 'stored', 'band')")
    rows = await admin.execute(
        "select count(*) from pg_logical_slot_get_binary_changes('watch', null, null, 'proto_version', '1', "
        "'publication_names', 'supabase_realtime_messages_publication') where substr(data, 1, 1) = 'I'"
    )
    # A temporary slot that is dropped with its session may still be in the way of dropping the database.
    await admin.execute("select pg_drop_replication_slot('watch')")
    assert await rows.fetchone() == (1,)


async def test_settings_do_not_reach_the_next_user(authorizer: Authorizer, database: Database) -> None:
    """Role, claims and topic end with the question."""
    await authorizer.probe("band", claims_of(ANN), {"x-stage": "main"})
    async with database.connection() as connection:
        row = await (
            await connection.execute(
                "select current_user = session_user, current_setting('statement_timeout'), "
                "concat(current_setting('request.jwt.claims', true), realtime.topic(), "
                "current_setting('request.jwt.claim.sub', true), current_setting('request.headers', true))"
            )
        ).fetchone()
    assert row == (True, "0", "")


async def test_a_select_policy_that_raises_denies(authorizer: Authorizer, admin: Admin) -> None:
    """The caller gets the answer that a policy's "no" has."""
    await admin.execute("create policy p on realtime.messages for select using (topic::uuid is not null)")
    with pytest.raises(Denied) as refusal:
        await authorizer.probe("secret", claims_of(ANN), {})
    assert refusal.value.reason == (
        "Unauthorized: You do not have permissions to read from this Channel topic: secret"
    )


async def test_the_hint_names_the_class_of_an_error_without_its_data(
    authorizer: Authorizer, admin: Admin
) -> None:
    """What a policy raised may hold the data of others."""
    await admin.execute("create policy p on realtime.messages for select using (topic::uuid is not null)")
    with pytest.raises(Denied) as refusal:
        await authorizer.probe("secret", claims_of(ANN), {})
    assert refusal.value.hint == (
        "A SELECT policy failed: InvalidTextRepresentation (22P02). "
        "A policy on realtime.messages raised an error, so nothing is granted."
    )


async def test_the_log_says_what_a_policy_raised(authorizer: Authorizer, admin: Admin) -> None:
    """The operator gets the text that the caller does not."""
    await admin.execute("create policy p on realtime.messages for select using (topic::uuid is not null)")
    with capture_logs() as logs, pytest.raises(Denied):
        await authorizer.probe("secret", claims_of(ANN), {})
    assert logs[0]["error"] == 'invalid input syntax for type uuid: "secret"'


async def test_an_insert_policy_that_raises_leaves_reading(authorizer: Authorizer, admin: Admin) -> None:
    """Who may read joins; sending is refused, and says that the policy failed."""
    await admin.execute(
        "create policy r on realtime.messages for select using (true);"
        "create policy w on realtime.messages for insert with check (topic::uuid is not null)"
    )
    permissions = await authorizer.probe("band", claims_of(ANN), {})
    assert (permissions.read, permissions.write) == (EVERYTHING, NOTHING)
    assert permissions.write_refusal is not None
    assert "An INSERT policy failed: InvalidTextRepresentation" in permissions.write_refusal.hint


@pytest.mark.parametrize("role", ["nobody_knows", "postgres", "none"])
async def test_a_role_the_server_may_not_take_denies(authorizer: Authorizer, role: str) -> None:
    """A token may name only the roles the server's login is a member of."""
    with pytest.raises(Denied):
        await authorizer.probe("band", claims_of(ANN, role=role), {})


@pytest.mark.parametrize(
    ("topic", "sub"),
    [("band\0", ANN), ("band", ANN + "\0"), ("band\ud800", ANN)],
    ids=["topic", "sub", "half"],
)
async def test_what_postgres_cannot_hold_is_refused(
    authorizer: Authorizer, admin: Admin, topic: str, sub: str
) -> None:
    """A NUL must not silently end a topic or a name: the rest would be asked about."""
    await admin.execute(MEMBERS)
    claims = Claims(role="authenticated", exp=0, sub=sub, json="{}")
    with pytest.raises(Denied):
        await authorizer.probe(topic, claims, {})


async def test_a_missing_partition_is_named(authorizer: Authorizer, admin: Admin) -> None:
    """Without a partition for today nothing can be asked."""
    await drop_partitions(admin)
    with pytest.raises(Unavailable) as refusal:
        await authorizer.probe("band", claims_of(ANN), {})
    assert refusal.value.code == "MissingPartition"


async def drop_partitions(admin: Admin) -> None:
    """Leave realtime.messages without a place for any row."""
    await admin.execute("""
        do $$ declare each regclass; begin
          for each in select inhrelid from pg_inherits where inhparent = 'realtime.messages'::regclass loop
            execute format('drop table %s', each);
          end loop;
        end $$
    """)


async def test_a_database_without_our_schema_is_named(authorizer: Authorizer, admin: Admin) -> None:
    """What is ours to prepare is not blamed on the caller."""
    await admin.execute("drop table realtime.messages")
    with pytest.raises(Unavailable) as refusal:
        await authorizer.probe("band", claims_of(ANN), {})
    assert "backbeat migrate" in refusal.value.hint


SLOW = """
create function public.slow() returns boolean language plpgsql as $$
begin
  perform pg_advisory_lock(1);
  return true;
end $$;
create policy p on realtime.messages for select using (public.slow());
"""
"""A policy that waits until the lock is free."""


@pytest.fixture
async def waiting(authorizer: Authorizer, admin: Admin) -> AsyncIterator[asyncio.Task[Permissions]]:
    """A question that waits inside of a policy."""
    await admin.execute(SLOW)
    await admin.execute("select pg_advisory_lock(1)")
    task = asyncio.create_task(authorizer.probe("band", claims_of(ANN), {}))
    await until_somebody_waits(admin)
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until_somebody_waits(admin: Admin) -> None:
    """Return when a policy waits for the lock."""
    waiting = (
        "select 1 from pg_locks where locktype = 'advisory' and not granted "
        "and database = (select oid from pg_database where datname = current_database())"
    )
    while await (await admin.execute(waiting)).fetchone() is None:
        await asyncio.sleep(0.005)


async def signal_backend(admin: Admin, call: str) -> None:
    """Cancel or terminate what the server's pool is doing; with a timeout, return when it has ended.

    Until then it still looks as if it waited.
    """
    await admin.execute(
        f"select {call} from pg_stat_activity "
        "where application_name = 'backbeat' and datname = current_database()"
    )


async def test_a_cancelled_policy_is_named(waiting: asyncio.Task[Permissions], admin: Admin) -> None:
    """Cancelling is not the caller's fault: try again."""
    await signal_backend(admin, "pg_cancel_backend(pid)")
    with pytest.raises(Unavailable) as refusal:
        await waiting
    assert refusal.value.reason == "QueryCanceled: Query was cancelled, please try again"


async def test_a_slow_policy_is_stopped(
    authorizer: Authorizer, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres ends a policy that takes longer than the question allows."""
    monkeypatch.setattr(authorize, "LIMIT_TIME", (b"set local statement_timeout = '20ms'", ()))
    await admin.execute("create policy p on realtime.messages for select using (pg_sleep(60) is null)")
    with pytest.raises(Unavailable) as refusal:
        await authorizer.probe("band", claims_of(ANN), {})
    assert refusal.value.code == "QueryCanceled"


async def test_a_lost_connection_is_replaced_once(waiting: asyncio.Task[Permissions], admin: Admin) -> None:
    """When the connection dies under the question, it is asked again on another one."""
    await signal_backend(admin, "pg_terminate_backend(pid, 15000)")
    await until_somebody_waits(admin)
    await admin.execute("select pg_advisory_unlock(1)")
    assert (await waiting).read == EVERYTHING


async def test_a_connection_lost_twice_is_told(waiting: asyncio.Task[Permissions], admin: Admin) -> None:
    """The second loss is an answer; the log has what Postgres said last."""
    with capture_logs() as logs:
        for _ in range(2):
            await until_somebody_waits(admin)
            await signal_backend(admin, "pg_terminate_backend(pid, 15000)")
        with pytest.raises(Unavailable) as refusal:
            await waiting
    assert refusal.value.code == "UnableToConnectToProject"
    assert "gave no answer" in refusal.value.hint
    assert "closed the connection" in logs[-1]["error"]


async def test_an_abandoned_question_leaves_the_connection_usable(
    waiting: asyncio.Task[Permissions], authorizer: Authorizer, admin: Admin
) -> None:
    """A client that leaves while its join is decided harms nobody."""
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await admin.execute("drop policy p on realtime.messages")
    assert await authorizer.probe("band", claims_of(ANN), {}) == Permissions.none()


async def test_a_rollback_of_somebody_else_takes_nothing_away(
    authorizer: Authorizer, database: Database
) -> None:
    """Then psycopg deallocates all prepared statements of the connection, those of the question too."""
    assert await authorizer.probe("band", claims_of(ANN), {}) == Permissions.none()
    async with database.connection() as connection:
        for _ in range(10):  # Enough that psycopg prepares it.
            await connection.execute("select 1")
        with pytest.raises(psycopg.errors.DivisionByZero):
            async with connection.transaction():
                await connection.execute("select 1 / 0")
        kept = await connection.execute("select from pg_prepared_statements where name like 'backbeat%'")
        assert kept.rowcount == 0
    assert await authorizer.probe("band", claims_of(ANN), {}) == Permissions.none()


async def test_every_connection_busy_is_named(login_url: str) -> None:
    """Who waits too long for a connection learns that there are too few."""
    database = Database(login_url, size=1, wait=0.05)
    await database.open()
    await database._pool.wait()
    try:
        async with database.connection():
            with pytest.raises(Unavailable) as refusal:
                await Authorizer(database).probe("band", claims_of(ANN), {})
    finally:
        await database.aclose()
    assert refusal.value.code == "IncreaseConnectionPool"


async def test_no_database_is_named(unused_tcp_port: int) -> None:
    """A database that is not there is not a pool that is too small."""
    database = Database(f"postgresql://nobody@127.0.0.1:{unused_tcp_port}/none", size=1, wait=0.05)
    await database.open()
    try:
        with pytest.raises(Unavailable) as refusal:
            await Authorizer(database).probe("band", claims_of(ANN), {})
    finally:
        await database.aclose()
    assert refusal.value.code == "UnableToConnectToProject"


async def test_many_at_once_get_their_own_answers(login_url: str, admin: Admin) -> None:
    """Questions that share a few connections never get each other's answers."""
    await admin.execute(MEMBERS)
    database = Database(login_url, size=3)
    await database.open()
    authorizer = Authorizer(database)
    try:
        answers = await asyncio.gather(
            *(authorizer.probe("band", claims_of(ANN if n % 2 else BOB), {}) for n in range(60))
        )
    finally:
        await database.aclose()
    assert [answer.read.broadcast for answer in answers] == [bool(n % 2) for n in range(60)]


async def test_the_time_of_every_answer_is_observed(database: Database) -> None:
    """Failures take time too."""
    seconds: list[float] = []
    authorizer = Authorizer(database, observe=seconds.append)
    await authorizer.probe("band", claims_of(ANN), {})
    with pytest.raises(Denied):
        await authorizer.probe("band", claims_of(ANN, role="nobody_knows"), {})
    assert len(seconds) == 2
