"""From a commit to what each subscriber is sent, through a real replication stream."""

from __future__ import annotations

import asyncio
from typing import Any, LiteralString
from uuid import UUID

import pytest
from tests.integration.postgres.conftest import ANNA, BEN, Band, claims

from backbeat.errors import Unavailable
from backbeat.postgres import visibility as visibility_module
from backbeat.postgres.changes import Changes
from backbeat.protocol.bindings import parse_binding
from backbeat.tokens.claims import Claims

A1 = f"insert into songs values (1, '{ANNA}', 'One')"
B2 = f"insert into songs values (2, '{BEN}', 'Two')"


# What an event looks like -----------------------------------------------------------------------------------


async def test_an_insert_is_described_as_clients_read_it(band: Band) -> None:
    """Schema, table, type, time, columns, record, errors (specification, 8.4)."""
    await band.subscribe("anna", claims(ANNA))
    await band.run(A1)
    ((ids, data),) = await band.received("anna")
    when = data.pop("commit_timestamp")
    assert (len(when), when[-1], ids) == (24, "Z", (1,))
    assert data == {
        "schema": "public",
        "table": "songs",
        "type": "INSERT",
        "columns": [
            {"name": "id", "type": "int4"},
            {"name": "owner", "type": "uuid"},
            {"name": "title", "type": "text"},
        ],
        "record": {"id": 1, "owner": str(ANNA), "title": "One"},
        "errors": None,
    }


async def test_an_update_tells_the_key_of_the_old_row(band: Band) -> None:
    """With the default identity that is all that is known of it."""
    await band.run(A1)
    await band.subscribe("anna", claims(ANNA))
    await band.run("update songs set title = 'New'")
    (data,) = await band.data("anna")
    assert (data["record"]["title"], data["old_record"]) == ("New", {"id": 1})


async def test_a_changed_key_is_told(band: Band) -> None:
    """The old row has the old key, the new row the new one."""
    await band.run(A1)
    await band.subscribe("anna", claims(ANNA))
    await band.run("update songs set id = 5")
    (data,) = await band.data("anna")
    assert (data["record"]["id"], data["old_record"]) == (5, {"id": 1})


@pytest.mark.parametrize("identity", ["default", "full"])
async def test_a_deleted_row_under_row_security_is_told_by_its_key_to_everybody(
    band: Band, identity: LiteralString
) -> None:
    """Nobody can be asked about a row that is gone (8.5, rule 5)."""
    await band.run(A1, f"alter table songs replica identity {identity}")
    await band.subscribe("ben", claims(BEN))
    await band.run("delete from songs")
    (data,) = await band.data("ben")
    assert ("record" not in data, data["old_record"]) == (True, {"id": 1})


async def test_a_deleted_row_without_row_security_is_told_as_its_identity_has_it(band: Band) -> None:
    """All of it, with a full identity."""
    await band.run("insert into shows values (1, 'Bern')", "alter table shows replica identity full")
    await band.subscribe("anna", claims(ANNA), {"table": "shows"})
    await band.run("delete from shows")
    (data,) = await band.data("anna")
    assert data["old_record"] == {"id": 1, "city": "Bern"}


async def test_an_old_row_that_could_not_be_checked_is_told_by_its_key(band: Band) -> None:
    """The row was Ben's: what he had written in it is not for Anna, full identity or not."""
    await band.run(B2, "alter table songs replica identity full")
    await band.subscribe("anna", claims(ANNA))
    await band.run(f"update songs set owner = '{ANNA}', title = 'Gift'")
    (data,) = await band.data("anna")
    assert (data["record"]["title"], data["old_record"]) == ("Gift", {"id": 2})


async def test_an_old_row_that_everybody_may_see_is_told_whole(band: Band) -> None:
    """Nothing has to be checked."""
    await band.run(
        "insert into shows values (1, 'Bern')",
        "alter table shows replica identity full",
        "alter table shows enable row level security",
        "create policy everybody on shows using (true)",
    )
    await band.subscribe("anna", claims(ANNA), {"table": "shows"})
    await band.run("update shows set city = 'Basel'")
    (data,) = await band.data("anna")
    assert data["old_record"] == {"id": 1, "city": "Bern"}


@pytest.mark.parametrize("identity", ["default", "full"])
async def test_a_large_value_that_was_not_touched(band: Band, identity: LiteralString) -> None:
    """With a full identity it comes from the old row, otherwise the key is absent (8.6)."""
    await band.run(
        f"alter table songs replica identity {identity}",
        "alter table songs alter title set storage external",
        f"insert into songs values (1, '{ANNA}', repeat('x', 5000))",
        "alter table songs add mark int",
    )
    await band.subscribe("anna", claims(ANNA))
    await band.run("update songs set mark = 1")
    (data,) = await band.data("anna")
    assert data["record"].get("title") == (None if identity == "default" else "x" * 5000)


async def test_a_selection_shows_the_key_and_what_was_selected(band: Band) -> None:
    """The others are neither in the record nor among the columns."""
    await band.subscribe("anna", claims(ANNA), {"table": "songs", "select": ["title"]})
    await band.run(A1)
    (data,) = await band.data("anna")
    names = [column["name"] for column in data["columns"]]
    assert (names, data["record"]) == (["id", "title"], {"id": 1, "title": "One"})


async def test_an_oversized_change_keeps_its_short_values(band: Band) -> None:
    """And says why (8.7)."""
    await band.subscribe("anna", claims(ANNA))
    await band.run(f"insert into songs values (1, '{ANNA}', repeat('x', 1048577))")
    (data,) = await band.data("anna")
    assert (data["record"], data["errors"]) == (
        {"id": 1, "owner": str(ANNA)},
        ["Error 413: Payload Too Large"],
    )


async def test_types_of_the_user_are_told_by_name(band: Band) -> None:
    """Also those that are younger than the server's knowledge of types."""
    await band.subscribe("anna", claims(ANNA), {"table": "shows"})
    await band.run(
        "create type mood as enum ('fine', 'so so')",
        "create type place as (hall text, seats int)",
        "alter table shows add m mood, add p place, add t text[]",
        "insert into shows values (1, 'Bern', 'so so', row('A \"B\"', 5), '{a,NULL}')",
    )
    (data,) = await band.data("anna")
    assert [column["type"] for column in data["columns"]] == ["int4", "text", "mood", "place", "_text"]
    assert data["record"] == {
        "id": 1,
        "city": "Bern",
        "m": "so so",
        "p": {"hall": 'A "B"', "seats": 5},
        "t": ["a", None],
    }


# Who gets what ----------------------------------------------------------------------------------------------


async def test_everybody_gets_their_own_rows(band: Band) -> None:
    """Two users, two rows, one transaction."""
    await band.subscribe("anna", claims(ANNA))
    await band.subscribe("ben", claims(BEN))
    await band.run(A1, B2)
    assert (await band.records("anna"), await band.records("ben")) == ([1], [2])


async def test_without_a_policy_nobody_gets_anything(band: Band) -> None:
    """Row security denies by default."""
    await band.run("drop policy own on songs")
    await band.subscribe("anna", claims(ANNA))
    await band.run(A1)
    assert await band.data("anna") == []


async def test_service_role_gets_everything(band: Band) -> None:
    """It bypasses row security."""
    await band.subscribe("service", claims(None, "service_role"))
    await band.run(A1, B2)
    assert await band.records("service") == [1, 2]


async def test_a_policy_takes_effect_with_the_next_change(band: Band) -> None:
    """From own rows to all, to none, and back, each between two changes."""
    await band.subscribe("ben", claims(BEN))
    steps: list[LiteralString] = [
        "alter policy own on songs using (true)",
        "alter policy own on songs using (false)",
        "alter policy own on songs using (auth.uid() <> owner)",
    ]
    for number, step in enumerate(steps, 10):
        await band.run(step)
        await band.run(f"insert into songs values ({number}, '{ANNA}', '')")
        await band.settle()
    assert await band.records("ben") == [10, 12]


async def test_only_the_owner_is_asked_about_a_row(band: Band) -> None:
    """Where the policy asks for nothing but the owner, the others need not be asked."""
    await band.subscribe("anna", claims(ANNA))
    await band.subscribe("ben", claims(BEN))
    await band.run(A1)
    assert (await band.records("anna"), await band.records("ben"), band.changes.checked) == ([1], [], 1)


async def test_a_row_of_somebody_else_is_sent_with_the_policy_that_shows_it(band: Band) -> None:
    """Ben was not worth asking when the catalogue was last read; one transaction changes that, and writes."""
    await band.subscribe("ben", claims(BEN))
    await band.run(A1)
    await band.settle()
    await band.run("alter policy own on songs using (true)", f"insert into songs values (3, '{ANNA}', '')")
    assert await band.records("ben") == [3]


async def test_another_meaning_of_uid_is_learnt_at_once(band: Band) -> None:
    """Once `auth.uid()` may be anybody, everybody is asked."""
    await band.subscribe("ben", claims(BEN))
    await band.run(A1)
    await band.settle()
    await band.run(
        "create or replace function auth.uid() returns uuid language sql stable"
        f" as $$ select '{ANNA}'::uuid $$",
        f"insert into songs values (3, '{ANNA}', '')",
    )
    assert await band.records("ben") == [3]


@pytest.fixture
async def gigs(band: Band) -> Band:
    """A table whose rows are for the members of a crew; members see each other only by themselves."""
    await band.run(
        "create table crew (gig int, member uuid, primary key (gig, member))",
        "alter table crew enable row level security",
        "create policy own on crew for select to authenticated using (member = auth.uid())",
        "create table gigs (id int primary key, place text)",
        "alter table gigs enable row level security",
        "create policy crew on gigs for select to authenticated"
        " using (id in (select c.gig from crew c where c.member = auth.uid()))",
        "alter publication supabase_realtime add table gigs",
        f"insert into crew values (1, '{ANNA}')",
    )
    await band.subscribe("anna", claims(ANNA), {"table": "gigs"})
    await band.subscribe("ben", claims(BEN), {"table": "gigs"})
    await band.settle()
    return band


async def test_only_members_are_asked_about_a_row(gigs: Band) -> None:
    """Ben is in no crew, so it is no use to ask as Ben."""
    await gigs.run("insert into gigs values (1, 'Bern')")
    assert (await gigs.records("anna"), await gigs.records("ben"), gigs.changes.checked) == ([1], [], 1)


async def test_a_member_since_the_same_transaction_is_asked(gigs: Band) -> None:
    """The crew is read when the transaction is over for everybody."""
    await gigs.run(f"insert into crew values (2, '{BEN}')", "insert into gigs values (2, 'Basel')")
    assert await gigs.records("ben") == [2]


async def test_a_member_may_still_be_refused(gigs: Band) -> None:
    """Who stands in the table is asked; Postgres says who sees the row."""
    await gigs.run("create policy nights on gigs as restrictive for select using (place <> 'Bern')")
    await gigs.run("insert into gigs values (1, 'Bern')")
    assert (await gigs.records("anna"), gigs.changes.checked) == ([], 1)


@pytest.mark.parametrize(
    "change",
    [
        "revoke select on crew from service_role",
        "alter table crew rename to team",
        "alter table crew rename gig to show",
        "alter policy crew on gigs using (id + 0 in (select c.gig from crew c where c.member = auth.uid()))",
    ],
)
async def test_a_change_of_how_members_are_found_is_noticed(gigs: Band, change: LiteralString) -> None:
    """Whoever is let through from then on is sent the row, known to be a member or not."""
    await gigs.run("insert into gigs values (1, 'Bern')")
    assert await gigs.records("anna") == [1]
    await gigs.run(change, f"insert into {'team' if 'team' in change else 'crew'} values (2, '{BEN}')")
    await gigs.run("insert into gigs values (2, 'Basel')")
    assert (await gigs.records("anna"), await gigs.records("ben")) == ([1], [2])


async def test_members_are_found_under_new_names_of_columns(gigs: Band) -> None:
    """Two columns that swap their names within the transaction mean something else from then on."""
    await gigs.run(
        "alter table crew add other int",
        f"insert into crew values (7, '{BEN}', 3)",
        "alter policy crew on gigs using (id in (select c.other from crew c where c.member = auth.uid()))",
    )
    await gigs.run("insert into gigs values (3, 'Bern')")
    assert await gigs.records("ben") == [3]
    await gigs.run(
        "alter table crew rename gig to x",
        "alter table crew rename other to gig",
        "alter table crew rename x to other",
        f"insert into crew (other, gig, member) values (9, 4, '{BEN}')",
        "insert into gigs values (4, 'Basel')",
    )
    assert await gigs.records("ben") == [3, 4]


@pytest.mark.parametrize("spelling", ["upper", "braces", "bare"])
async def test_an_owner_is_known_in_every_spelling(band: Band, spelling: str) -> None:
    """What Postgres reads as the same UUID is the same owner."""
    sub = {"upper": str(ANNA).upper(), "braces": f"{{{ANNA}}}", "bare": ANNA.hex}[spelling]
    await band.subscribe("anna", Claims.of({"role": "authenticated", "exp": 2**31, "sub": sub}))
    await band.run(A1)
    assert await band.records("anna") == [1]


@pytest.mark.parametrize(
    ("policy", "dropped"), [("auth.uid() = owner", 0), ("auth.uid() = owner or false", 1)]
)
async def test_a_row_that_moved_on_does_not_carry_its_past_along(
    band: Band, policy: LiteralString, dropped: int
) -> None:
    """The insert was Anna's alone; when it is looked at, the row is Ben's already, who may not be asked."""
    await band.run(f"alter policy own on songs using ({policy})")
    await band.subscribe("anna", claims(ANNA))
    await band.subscribe("ben", claims(BEN))
    band.open.clear()
    await band.run(f"insert into songs values (1, '{ANNA}', 'for Anna')")
    await band.run(f"update songs set owner = '{BEN}', title = 'for Ben'")
    band.open.set()
    assert (await band.records("anna", "title"), await band.records("ben", "title")) == ([], ["for Ben"])
    assert band.changes.dropped_stale == dropped


@pytest.mark.parametrize(
    ("again", "overtaken"),
    [
        ("delete from songs where id = 1", 1),
        (f"update songs set owner = '{BEN}' where id = 1", 1),
        (f"update songs set owner = '{BEN}', id = 3 where id = 1", 1),
        ("update songs set title = '' where id = 2", 0),
    ],
)
async def test_a_change_that_was_overtaken_is_counted(
    band: Band, again: LiteralString, overtaken: int
) -> None:
    """Whether Anna could have seen the row cannot be told any more."""
    await band.subscribe("anna", claims(ANNA), {"table": "songs", "event": "INSERT"})
    band.open.clear()
    await band.run(A1, B2)
    await band.run(again)
    band.open.set()
    assert (await band.records("anna"), band.changes.overtaken) == ([] if overtaken else [1], overtaken)


async def test_a_change_that_came_after_the_question_has_overtaken_nothing(band: Band) -> None:
    """Anna was asked about the row while it was there, and sees it no more for another reason."""
    await band.run("create policy none on songs as restrictive for select using (title <> 'One')")
    await band.subscribe("anna", claims(ANNA))
    await band.run(f"insert into songs values (1, '{ANNA}', 'One')")
    await band.settle()
    await band.run("delete from songs")
    await band.settle()
    assert band.changes.overtaken == 0


async def test_a_row_that_moved_within_its_transaction_does_not_either(band: Band) -> None:
    """What a transaction wrote and overwrote was never there for anybody."""
    await band.subscribe("anna", claims(ANNA))
    await band.subscribe("ben", claims(BEN))
    await band.run(
        f"insert into songs values (1, '{ANNA}', 'for Anna')",
        f"update songs set owner = '{BEN}', title = 'for Ben'",
    )
    assert (await band.data("anna"), await band.records("ben", "title")) == ([], ["for Ben", "for Ben"])


async def test_an_insert_shows_the_row_as_its_transaction_left_it(band: Band) -> None:
    """Whoever waits for new rows gets one that a trigger or a second statement completed."""
    await band.subscribe(
        "ben", claims(BEN), {"table": "songs", "event": "INSERT", "filter": "title=eq.for Ben"}
    )
    await band.run(
        f"insert into songs values (1, '{ANNA}', 'for Anna')",
        f"update songs set owner = '{BEN}', title = 'for Ben', id = 2",
    )
    assert [(data["type"], data["record"]["id"]) for data in await band.data("ben")] == [("INSERT", 2)]


async def test_a_row_that_its_transaction_removed_was_never_there(band: Band) -> None:
    """Nor is it taken for another one with its key that the transaction made after it."""
    await band.subscribe("anna", claims(ANNA), {"table": "songs", "event": "INSERT"})
    await band.run(
        f"insert into songs values (1, '{ANNA}', 'first'), (2, '{ANNA}', 'first')",
        "update songs set title = 'second'",
        "delete from songs",
        f"insert into songs values (1, '{ANNA}', 'third')",
    )
    assert await band.records("anna", "title") == ["third"]


async def test_rules_that_were_opened_later_do_not_show_what_was_overwritten_before(band: Band) -> None:
    """The first version was Anna's secret, and opening the table afterwards does not make it Ben's."""
    await band.run(A1)
    await band.subscribe("ben", claims(BEN))
    band.open.clear()
    await band.run("update songs set title = 'secret'", "update songs set title = 'public'")
    await band.run("create policy anybody on songs for select using (true)")
    band.open.set()
    assert await band.records("ben", "title") == ["public"]


async def test_a_key_that_is_spelled_differently_is_the_same_key(band: Band) -> None:
    """1.5 and 1.50 are one row: what it was before its last change in the transaction is nobody's."""
    await band.run(
        "create table bills (amount numeric primary key, owner uuid)",
        "alter table bills enable row level security",
        "create policy own on bills for select to authenticated using (auth.uid() = owner or false)",
        "alter publication supabase_realtime add table bills",
        f"insert into bills values (1.5, '{BEN}')",
    )
    await band.subscribe("ben", claims(BEN), {"table": "bills"})
    await band.run(
        f"update bills set owner = '{ANNA}'",
        f"update bills set amount = 1.50, owner = '{BEN}'",
    )
    assert await band.records("ben", "owner") == [str(BEN)]


async def test_arrays_are_keys_too(band: Band) -> None:
    """A primary key may hold an array; rows are found by it."""
    await band.run(
        "create table seats (id int4[], owner uuid, primary key (id, owner))",
        "alter table seats enable row level security",
        "create policy own on seats for select to authenticated using (auth.uid() = owner or false)",
        "alter publication supabase_realtime add table seats",
    )
    await band.subscribe("anna", claims(ANNA), {"table": "seats"})
    await band.run(f"insert into seats values ('{{1,2}}', '{ANNA}'), ('{{}}', '{ANNA}')")
    assert await band.records("anna") == [[1, 2], []]


async def test_rows_written_in_savepoints_arrive(band: Band) -> None:
    """Their versions carry the number of a subtransaction; one that was rolled back never was."""
    await band.subscribe("anna", claims(ANNA))
    async with band.admin.transaction():
        async with band.admin.transaction():
            await band.admin.execute(A1)
        async with band.admin.transaction(force_rollback=True):
            await band.admin.execute(f"insert into songs values (9, '{ANNA}', 'never')")
    assert await band.records("anna") == [1]


async def test_columns_the_role_may_not_select_are_not_shown(band: Band) -> None:
    """Neither their values nor their names."""
    await band.run("revoke select on shows from anon", "grant select (id) on shows to anon")
    await band.subscribe("guest", claims(None, "anon"), {"table": "shows"})
    await band.run("insert into shows values (1, 'Bern')")
    (data,) = await band.data("guest")
    assert (data["columns"], data["record"]) == ([{"name": "id", "type": "int4"}], {"id": 1})


async def test_column_privileges_and_row_security_go_together(band: Band) -> None:
    """A role that may read some columns gets its own rows, with these columns."""
    await band.run("revoke select on songs from authenticated")
    await band.run("grant select (id, owner) on songs to authenticated")
    await band.subscribe("anna", claims(ANNA))
    await band.run(A1, B2)
    assert [data["record"] for data in await band.data("anna")] == [{"id": 1, "owner": str(ANNA)}]


@pytest.mark.parametrize(
    ("statement", "shown"),
    [
        ("insert into shows values (2, 'Bern')", {"record": {}}),
        ("update shows set city = 'Basel'", {"record": {}, "old_record": {}}),
        ("delete from shows", {"old_record": {}}),
    ],
)
async def test_a_role_that_may_not_select_the_key_is_told_so(
    band: Band, statement: LiteralString, shown: dict[str, Any]
) -> None:
    """An event without content, and the reason (8.5, rule 3)."""
    await band.run("insert into shows values (1, 'Bern')")
    await band.run("revoke select on shows from anon", "grant select (city) on shows to anon")
    await band.subscribe("guest", claims(None, "anon"), {"table": "shows"})
    await band.run(statement)
    (data,) = await band.data("guest")
    assert data == {
        "schema": "public",
        "table": "shows",
        "type": statement.split()[0].upper(),
        "commit_timestamp": None,
        "columns": [],
        **shown,
        "errors": ["Error 401: Unauthorized"],
    }


async def test_a_table_without_a_key_says_so_on_an_insert(band: Band) -> None:
    """There is nothing to look a row up by."""
    await band.run("alter table shows drop constraint shows_pkey")
    await band.subscribe("anna", claims(ANNA), {"table": "shows"})
    await band.run("insert into shows values (1, 'Bern')")
    (data,) = await band.data("anna")
    assert data["errors"] == ["Error 400: Bad Request, no primary key"]


async def test_an_error_in_a_policy_withholds_from_one_and_is_counted(band: Band) -> None:
    """The others get the change."""
    await band.run("alter policy own on songs using (auth.uid() = owner or 1 / (id - id) = 1)")
    await band.subscribe("anna", claims(ANNA))
    await band.subscribe("ben", claims(BEN))
    await band.run(A1)
    received = await band.records("anna"), await band.records("ben")
    assert (received, band.changes.denied_by_error) == (([1], []), 1)


# Which changes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ("INSERT", ["INSERT"]),
        ("UPDATE", ["UPDATE"]),
        ("DELETE", ["DELETE"]),
        ("*", ["INSERT", "UPDATE", "DELETE"]),
    ],
)
async def test_only_the_wanted_events_arrive(band: Band, event: str, expected: list[str]) -> None:
    """In the order of the commits."""
    await band.subscribe("anna", claims(ANNA), {"table": "shows", "event": event})
    await band.run("insert into shows values (1, 'Bern')")
    await band.run("update shows set city = 'Basel'")
    await band.run("delete from shows")
    assert [data["type"] for data in await band.data("anna")] == expected


async def test_all_matching_bindings_are_named_in_one_delivery(band: Band) -> None:
    """The last one first; those that do not match are left out."""
    await band.subscribe(
        "anna",
        claims(ANNA),
        {"table": "songs"},
        {"table": "songs", "event": "DELETE"},
        {"table": "songs", "filter": "title=eq.One"},
        {"schema": "public"},
        {"schema": "*"},
    )
    await band.run(A1)
    assert [ids for ids, _ in await band.received("anna")] == [(5, 4, 3, 1)]


async def test_those_who_see_the_same_share_one_delivery(band: Band) -> None:
    """The JSON is written once."""
    for n in range(3):
        await band.subscribe(f"guest {n}", claims(UUID(int=n)), {"table": "shows"})
    await band.run("insert into shows values (1, 'Bern')")
    await band.settle()
    assert [len(delivery.recipients) for delivery in band.deliveries] == [3]


async def test_those_who_want_big_numbers_as_text_share_another(band: Band) -> None:
    """The JSON is written once for each form, and each has every digit."""
    await band.run(
        "create table bills (id int8 primary key, sum numeric, parts int8[])",
        "alter publication supabase_realtime add table bills",
    )
    for who, entry in {"anna": {}, "ben": {"big_numbers": "text"}, "carl": {"big_numbers": "text"}}.items():
        await band.subscribe(who, claims(ANNA), {"table": "bills", **entry})
    await band.run(
        "insert into bills values (9007199254740993, 0.12345678901234567890, '{9007199254740995}')"
    )
    await band.settle()
    assert [(len(each.recipients), each.data.partition(b'"record":')[2]) for each in band.deliveries] == [
        (
            1,
            b'{"id":9007199254740993,"sum":0.12345678901234567890,"parts":[9007199254740995]},"errors":null}',
        ),
        (
            2,
            b'{"id":"9007199254740993","sum":"0.12345678901234567890","parts":["9007199254740995"]},"errors":null}',
        ),
    ]


async def test_a_wildcard_sees_tables_that_are_published_later(band: Band) -> None:
    """But never the stored messages, which share the stream."""
    await band.subscribe("anna", claims(ANNA), {"schema": "*"})
    await band.run("create table venues (id int primary key)")
    await band.run("alter publication supabase_realtime add table venues")
    await band.run("insert into venues values (7)")
    assert [(data["table"], data["record"]) for data in await band.data("anna")] == [("venues", {"id": 7})]


async def test_names_need_no_luck(band: Band) -> None:
    """Blanks, quotes, dots, wildcards of LIKE and signs of other scripts are part of a name."""
    await band.run(
        'create schema "My Schema"',
        'grant usage on schema "My Schema" to authenticated',
        'create table "My Schema"."a.b ""ü"" 🎸 _%" ("The Id" int primary key, o uuid)',
        'grant select on "My Schema"."a.b ""ü"" 🎸 _%" to authenticated',
        'alter table "My Schema"."a.b ""ü"" 🎸 _%" enable row level security',
        'create policy own on "My Schema"."a.b ""ü"" 🎸 _%" using (o = auth.uid())',
        'alter publication supabase_realtime add table "My Schema"."a.b ""ü"" 🎸 _%"',
    )
    name = 'a.b "ü" 🎸 _%'
    await band.subscribe("anna", claims(ANNA), {"schema": "My Schema", "table": name})
    await band.run(f'insert into "My Schema"."a.b ""ü"" 🎸 _%" values (1, \'{ANNA}\')')
    (data,) = await band.data("anna")
    assert (data["table"], data["record"]["The Id"]) == (name, 1)


@pytest.mark.parametrize(
    ("type_", "filter_", "matching", "other"),
    [
        ("int", "eq.5", "5", "6"),
        ("int", "neq.5", "6", "5"),
        ("int", "not.eq.5", "6", "5"),
        ("int", "in.(1, 2)", "2", "3"),
        ("int", "not.in.(1,2)", "3", "2"),
        ("int", "is.null", None, "3"),
        ("int", "not.is.null", "3", None),
        ("int", "isdistinct.5", None, "5"),
        ("text", 'eq."a,b"', "a,b", "a"),
        ("text", "eq.a'b\\c", "a'b\\c", "a"),
        ("text", "eq.", "", None),
        ("varchar(3)", "eq.abc", "abc", "ab"),
        ("char(5)", "eq.ab", "ab", "a"),
        ("boolean", "eq.true", "t", "f"),
        ("boolean", "is.true", "t", None),
        ("boolean", "not.is.true", None, "t"),
        ("numeric", "eq.1.5", "1.50", "1.51"),
        ("float8", "eq.0", "-0", "1"),
        ("float8", "eq.1e3", "1000", "100"),
        (
            "uuid",
            "eq.A0EEBC999C0B4EF8BB6D6BB9BD380A11",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            str(UUID(int=1)),
        ),
        ("date", "eq.28 Feb 2026", "2026-02-28", "2026-02-27"),
        ("timestamptz", "eq.2026-01-01T13:00:00+01", "2026-01-01 12:00:00+00", "2026-01-01 13:00:00+00"),
        ("bytea", "eq.00ff", "\\x00ff", "\\x00fe"),
        ("inet", "eq.10.0.0.1/32", "10.0.0.1", "10.0.0.2"),
        ("mood", "eq.fine", "fine", "so so"),
        ("posint", "eq.5", "5", "6"),
        ("int", "gte.10", "10", "9"),
        ("text", "like.%a_", "ab", "a"),
        ("varchar(3)", "not.imatch.^A", "b", None),
        ("jsonb", "eq.1", "1.0", "2"),
        ("mood", "gt.fine", "so so", "fine"),
    ],
)
async def test_a_filter_compares_as_the_type_of_its_column_does(
    band: Band, type_: LiteralString, filter_: str, matching: str | None, other: str | None
) -> None:
    """Postgres reads the value of the filter."""
    await band.run(
        "create type mood as enum ('fine', 'so so')",
        "create domain posint as int check (value > 0)",
        f"create table things (id int primary key, c {type_})",
        "alter publication supabase_realtime add table things",
    )
    await band.subscribe("anna", claims(ANNA), {"table": "things", "filter": f"c={filter_}"})
    await band.admin.execute("insert into things values (1, %s), (2, %s)", (matching, other))
    assert await band.records("anna") == [1]


async def test_all_conditions_have_to_be_met(band: Band) -> None:
    """A comma is an AND."""
    await band.subscribe("anna", claims(ANNA), {"table": "shows", "filter": "id=in.(1,2),city=eq.Bern"})
    await band.run("insert into shows values (1, 'Bern'), (2, 'Basel'), (3, 'Bern')")
    assert await band.records("anna") == [1]


@pytest.mark.parametrize(("identity", "expected"), [("default", 0), ("full", 1)])
async def test_a_filter_on_a_deleted_row_sees_its_identity(
    band: Band, identity: LiteralString, expected: int
) -> None:
    """What did not come along matches nothing."""
    await band.run("insert into shows values (1, 'Bern')", f"alter table shows replica identity {identity}")
    await band.subscribe("anna", claims(ANNA), {"table": "shows", "filter": "city=eq.Bern"})
    await band.run("delete from shows")
    assert len(await band.data("anna")) == expected


# Subscribing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry",
    [
        {"table": "nope"},
        {"schema": "nope"},
        {"schema": "realtime", "table": "messages"},
        {"table": "SONGS"},
        {"table": "song_"},
    ],
)
async def test_a_table_that_is_not_published_is_refused(band: Band, entry: dict[str, Any]) -> None:
    """Names are names, not patterns."""
    message = await band.refusal(claims(ANNA), entry)
    assert message.startswith("Unable to subscribe to changes with given parameters. Please check Realtime")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"filter": "nope=eq.1"}, "ERROR P0001 (raise_exception) invalid column for filter nope"),
        (
            {"filter": "id=eq.abc"},
            'invalid_text_representation) invalid input syntax for type integer: "abc"',
        ),
        ({"filter": "id=in.(1,x)"}, "ERROR 22P02 (invalid_text_representation) invalid input syntax"),
        (
            {"filter": "id=eq.99999999999"},
            'ERROR 22003 (numeric_value_out_of_range) value "99999999999" is out',
        ),
        ({"filter": f"id=in.({'1,' * 100}1)"}, "too many values for `in` filter. Maximum 100"),
        ({"filter": "id=is.NULL"}, "invalid value for is filter: must be null, true, false, or unknown"),
        ({"filter": "title=is.true"}, "is true filter requires a boolean column, got text"),
        ({"filter": "title=eq.\x00"}, "NUL"),
        ({"filter": "data=eq.{}"}, "operator does not exist: json = json"),
        ({"select": ["nope"]}, "invalid column for select nope"),
    ],
)
async def test_what_does_not_suit_the_table_is_refused(
    band: Band, entry: dict[str, Any], expected: str
) -> None:
    """The text says what, in the words of the original."""
    await band.run("alter table songs add data json")
    message = await band.refusal(claims(ANNA), {"table": "songs", **entry})
    assert expected in message


async def test_a_column_the_role_may_not_read_cannot_be_filtered_by(band: Band) -> None:
    """A filter would tell its value."""
    await band.run("revoke select on shows from anon", "grant select (id) on shows to anon")
    message = await band.refusal(claims(None, "anon"), {"table": "shows", "filter": "city=eq.Bern"})
    assert "invalid column for filter city" in message


@pytest.mark.parametrize("role", ["nobody at all", "postgres", "pg_read_all_data"])
async def test_a_role_the_server_may_not_assume_is_refused(band: Band, role: str) -> None:
    """A token may name any role; the login is a member of a few."""
    message = await band.refusal(claims(ANNA, role), {"table": "songs"})
    assert f'role "{role}"' in message


async def test_one_bad_binding_spoils_them_all(band: Band) -> None:
    """All or nothing."""
    await band.refusal(claims(ANNA), {"table": "songs"}, {"table": "nope"})
    await band.run(A1)
    assert await band.data("refused") == []


async def test_a_refused_token_ends_what_the_former_one_had(band: Band) -> None:
    """Nothing goes on in the name of claims that were replaced."""
    await band.subscribe("refused", claims(ANNA))
    await band.refusal(claims(BEN), {"table": "nope"})
    await band.run(A1)
    assert await band.data("refused") == []


async def test_a_new_token_replaces_the_former_one(band: Band) -> None:
    """From then on the rows of the new user arrive, each once."""
    await band.subscribe("somebody", claims(ANNA))
    await band.run(A1)
    await band.settle()
    await band.subscribe("somebody", claims(BEN))
    await band.run(f"update songs set title = 'New' where owner = '{ANNA}'", B2)
    assert await band.records("somebody") == [1, 2]


async def test_whoever_unsubscribed_gets_nothing_any_more(band: Band) -> None:
    """Not even what was committed before and is handled after."""
    await band.subscribe("anna", claims(ANNA))
    band.open.clear()
    await band.run(A1)
    band.changes.unsubscribe("anna")
    band.open.set()
    assert await band.data("anna") == []


async def test_whoever_unsubscribes_while_subscribing_stays_away(band: Band) -> None:
    """The answer of the database comes too late."""
    attempt = asyncio.create_task(band.subscribe("anna", claims(ANNA)))
    await asyncio.sleep(0)
    band.changes.unsubscribe("anna")
    await attempt
    assert band.changes.subscribers() == []


async def test_unsubscribing_somebody_unknown_does_nothing(band: Band) -> None:
    """A channel may close before it had anything."""
    band.changes.unsubscribe("nobody")


async def test_a_database_that_is_away_is_told_as_such() -> None:
    """Trying again helps."""

    async def never(_: object) -> None:
        raise AssertionError

    changes = Changes("postgresql://127.0.0.1:1/none", deliver=never)
    with pytest.raises(Unavailable):
        await changes.subscribe("anna", [parse_binding({"table": "songs"}, 1)], claims(ANNA))


# Many, and trouble ------------------------------------------------------------------------------------------


async def test_the_order_of_commits_is_kept(band: Band) -> None:
    """Across tables, batches and ways of deciding."""
    await band.subscribe("anna", claims(ANNA), {"schema": "public"})
    for n in range(300):
        await band.run(f"insert into songs values ({n}, '{ANNA}', '')", f"insert into shows values ({n}, '')")
    received = [(data["record"]["id"], data["table"]) for data in await band.data("anna")]
    assert received == [(n, table) for n in range(300) for table in ("songs", "shows")]


async def test_a_transaction_too_large_to_be_handled_at_once(band: Band) -> None:
    """Its parts do not know how it ends, and are exact all the same."""
    await band.subscribe("anna", claims(ANNA))
    await band.run(
        f"insert into songs select n, '{ANNA}', 'before' from generate_series(1, 1000) n",
        "update songs set title = 'after' where id <= 10",
    )
    received = [(data["type"], data["record"]["title"]) for data in await band.data("anna")]
    assert received == [("INSERT", "before")] * 990 + [("UPDATE", "after")] * 10


async def test_dropping_a_table_harms_nobody_else(band: Band) -> None:
    """Its last changes cannot be checked any more; those of other tables arrive."""
    await band.subscribe("anna", claims(ANNA), {"schema": "public"})
    band.open.clear()
    await band.run(A1)
    await band.run("drop table songs")
    await band.run("insert into shows values (1, 'Bern')")
    band.open.set()
    assert [data["table"] for data in await band.data("anna")] == ["shows"]


async def test_a_column_that_is_renamed_or_dropped_meanwhile(band: Band) -> None:
    """What is shown is what may be read now."""
    await band.subscribe("anna", claims(ANNA))
    band.open.clear()
    await band.run(A1)
    await band.run("alter table songs drop column title")
    band.open.set()
    assert [data["record"] for data in await band.data("anna")] == [{"id": 1, "owner": str(ANNA)}]


async def test_changes_wait_for_a_database_that_lost_the_connection(band: Band) -> None:
    """What is being handled is not lost."""
    await band.subscribe("anna", claims(ANNA))
    await band.run(A1)
    await band.settle()
    await band.run(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name like '%visibility'",
        "update songs set title = 'New'",
    )
    assert await band.records("anna", "title") == ["One", "New"]


async def test_a_table_that_cannot_be_asked_about_holds_up_nothing(band: Band) -> None:
    """Here for want of temporary functions: its rows are withheld, those of others arrive."""
    await band.run(
        "do $$ begin"
        " execute format('revoke temporary on database %I from public', current_database());"
        " end $$"
    )
    await band.subscribe("anna", claims(ANNA), {"schema": "public"})
    await band.run(A1, "insert into shows values (1, 'Bern')")
    assert [data["table"] for data in await band.data("anna")] == ["shows"]


async def test_many_users_are_told_apart(band: Band, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of a hundred gets theirs, over several calls, and nothing else."""
    monkeypatch.setattr(visibility_module, "CHUNK", 30)
    for n in range(100):
        await band.subscribe(f"user {n}", claims(UUID(int=n)))
    await band.run(
        "insert into songs select n, lpad(to_hex(n % 100), 32, '0')::uuid, '' from generate_series(0, 299) n"
    )
    received = [await band.records(f"user {n}") for n in range(100)]
    assert received == [[n, n + 100, n + 200] for n in range(100)]
