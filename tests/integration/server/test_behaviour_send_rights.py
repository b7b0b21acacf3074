"""Who may store a broadcast: `realtime.send` and `realtime.send_binary` have the rights of their caller."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege
from tests.integration.server.conftest import ERIC, MIKE

if TYPE_CHECKING:
    Connection = psycopg.AsyncConnection[Any]

FUNCTIONS = pytest.mark.parametrize(
    "call", ["realtime.send('{}', 'e', %s)", r"realtime.send_binary('\x00', 'e', %s)"], ids=["json", "bytes"]
)
CALLERS = pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])


async def send_as(
    database: Connection, call: str, topic: str, *, role: str = "authenticated", **claims: object
) -> None:
    """Call a function in a transaction of a role."""
    async with database.transaction():
        await database.execute(f"set local role {role}".encode())
        await database.execute("select set_config('request.jwt.claims', %s, true)", (json.dumps(claims),))
        await database.execute(f"select {call}".encode(), (topic,))


async def topics(database: Connection) -> list[str]:
    """The topics of the stored messages."""
    cursor = await database.execute("select topic from realtime.messages order by topic")
    return [topic for (topic,) in await cursor.fetchall()]


# Policies ---------------------------------------------------------------------------------------------------


@FUNCTIONS
async def test_policies_see_the_topic_of_what_is_sent(database: Connection, call: str) -> None:
    """One topic is open, the other is not; the caller's transaction goes on."""
    for topic in ("open-1", "shut-1"):
        await send_as(database, call, topic)
    assert await topics(database) == ["open-1"]


@FUNCTIONS
async def test_a_topic_set_beforehand_opens_nothing(database: Connection, call: str) -> None:
    """The function sets `realtime.topic()` to what is sent."""
    async with database.transaction():
        await database.execute("set local role authenticated")
        await database.execute("select set_config('realtime.topic', 'open-1', true)")
        await database.execute(f"select {call}".encode(), ("shut-1",))
    assert await topics(database) == []


@FUNCTIONS
async def test_a_restrictive_policy_takes_away(database: Connection, call: str) -> None:
    """What the permissive one gives."""
    await database.execute(
        "create policy quiet on realtime.messages as restrictive for insert"
        " with check (realtime.topic() <> 'open-2')"
    )
    for topic in ("open-1", "open-2"):
        await send_as(database, call, topic)
    assert await topics(database) == ["open-1"]


@FUNCTIONS
async def test_a_policy_is_for_its_roles(database: Connection, call: str) -> None:
    """What `authenticated` may, `anon` may not."""
    await send_as(database, call, "open-1", role="anon")
    assert await topics(database) == []


@FUNCTIONS
async def test_a_role_that_bypasses_policies_may_send_anywhere(database: Connection, call: str) -> None:
    """`service_role` needs none."""
    await send_as(database, call, "shut-1", role="service_role")
    assert await topics(database) == ["shut-1"]


@FUNCTIONS
async def test_policies_see_the_claims_of_the_caller(database: Connection, call: str) -> None:
    """Eric may write to a topic of his own, and Mike not."""
    await database.execute(
        "create policy own on realtime.messages for insert to authenticated"
        " with check (realtime.topic() = 'of-' || (select auth.uid()))"
    )
    for sub in (ERIC, MIKE):
        await send_as(database, call, f"of-{ERIC}", sub=sub)
    assert await topics(database) == [f"of-{ERIC}"]


async def test_a_policy_may_be_for_bytes_alone(database: Connection) -> None:
    """Policies see the columns of the row."""
    await database.execute(
        "create policy bytes on realtime.messages for insert to authenticated"
        " with check (binary_payload is not null)"
    )
    await send_as(database, "realtime.send('{}', 'e', %s)", "json")
    await send_as(database, "realtime.send_binary('', 'e', %s)", "bytes")
    assert await topics(database) == ["bytes"]


# Triggers ---------------------------------------------------------------------------------------------------

TRIGGER = """
create function tell() returns trigger language plpgsql {rights} as $$
begin
  perform realtime.broadcast_changes('shut-1', tg_op, tg_op, tg_table_name, tg_table_schema, new, old);
  return null;
end $$;
create trigger tell after insert on plans for each row execute function tell();
grant insert on plans to authenticated;
"""


@pytest.mark.parametrize(("rights", "stored"), [("security definer", ["shut-1"]), ("", [])])
async def test_a_trigger_may_send_what_its_owner_may(
    database: Connection, rights: str, stored: list[str]
) -> None:
    """With SECURITY DEFINER; without, what whoever changed the row may."""
    await database.execute(TRIGGER.format(rights=rights).encode())
    async with database.transaction():
        await database.execute("set local role authenticated")
        await database.execute("insert into plans values (1)")
    assert await topics(database) == stored


@FUNCTIONS
async def test_a_trigger_on_messages_runs_as_the_caller(database: Connection, call: str) -> None:
    """Nobody gets more rights by sending."""
    await database.execute("create table seen (role text); grant insert on seen to authenticated")
    await database.execute(
        """
        create function look() returns trigger language plpgsql as $$
        begin insert into public.seen values (current_user); return new; end $$;
        create trigger look before insert on realtime.messages for each row execute function look();
        """
    )
    await send_as(database, call, "open-1")
    row = await (await database.execute("select role from seen")).fetchone()
    assert row == ("authenticated",)


# The schema -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["send", "send_binary", "broadcast_changes", "topic"])
async def test_a_function_belongs_to_the_server_and_runs_as_its_caller(
    database: Connection, function: str
) -> None:
    """So it can be replaced by nobody else, and gives no rights."""
    cursor = await database.execute(
        "select pg_get_userbyid(proowner)::text, prosecdef from pg_proc"
        " where pronamespace = 'realtime'::regnamespace and proname = %s",
        (function,),
    )
    assert await cursor.fetchall() == [("supabase_realtime_admin", False)]


@CALLERS
@pytest.mark.parametrize(
    "statement",
    [
        "drop table realtime.messages",
        "truncate realtime.messages",
        "alter table realtime.messages disable row level security",
        "alter table realtime.messages add column note text",
        "create policy mine on realtime.messages for select using (true)",
        "drop policy hear on realtime.messages",
        "delete from realtime.messages",
        "create table realtime.mine (id int)",
        "create function realtime.mine() returns int language sql return 1",
        "drop function realtime.topic()",
        "create or replace function realtime.topic() returns text language sql return 'open-1'",
        "drop schema realtime cascade",
        "set role supabase_realtime_admin",
    ],
)
async def test_callers_change_nothing_of_the_schema(database: Connection, role: str, statement: str) -> None:
    """Whatever their token says, they send and receive."""
    await database.execute(f"set session authorization {role}".encode())
    with pytest.raises(InsufficientPrivilege):
        await database.execute(statement.encode())


@CALLERS
async def test_callers_do_not_see_what_was_migrated(database: Connection, role: str) -> None:
    """The ledger belongs to who migrates."""
    cursor = await database.execute("select 'backbeat.migrations'::regclass::text")
    assert await cursor.fetchone() == ("backbeat.migrations",)
    await database.execute(f"set role {role}".encode())
    with pytest.raises(InsufficientPrivilege):
        await database.execute("select * from backbeat.migrations")


@pytest.mark.parametrize("command", ["select", "insert", "update", "all"])
async def test_the_owner_of_a_project_writes_its_policies(database: Connection, command: str) -> None:
    """Creates, alters and drops them."""
    clause = {"select": "using (true)", "insert": "with check (true)"}.get(
        command, "using (true) with check (true)"
    )
    await database.execute(f"create policy p on realtime.messages for {command} to anon {clause}".encode())
    await database.execute("alter policy p on realtime.messages to authenticated")
    await database.execute("drop policy p on realtime.messages")
