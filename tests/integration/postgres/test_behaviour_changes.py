"""Row changes of tables of every kind, and of tables that change: what arrives, and what is said instead."""

from __future__ import annotations

import re
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from tests.integration.postgres.conftest import ANNA, BEN, Band, claims

SHOWS = {"table": "shows"}


async def brief(band: Band, who: str) -> list[tuple[str, Any, Any]]:
    """What somebody was sent: what happened, the new row, and what is told of the old one."""
    return [(data["type"], data.get("record"), data.get("old_record")) for data in await band.data(who)]


def at_least(band: Band, version: int) -> None:
    """Skip the test on a Postgres that is too old for it."""
    if band.admin.info.server_version < version * 10_000:
        pytest.skip(f"Postgres {version} and newer")


# Which columns of the old row -------------------------------------------------------------------------------


async def test_without_an_identity_inserts_arrive(band: Band) -> None:
    """Anything else Postgres refuses to write as long as the table is published: nothing can be missed."""
    await band.run("alter table shows replica identity nothing")
    await band.subscribe("anna", claims(ANNA), SHOWS)
    await band.run("insert into shows values (1, 'Bern')")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        await band.run("delete from shows")
    assert await brief(band, "anna") == [("INSERT", {"id": 1, "city": "Bern"}, None)]


async def test_the_identity_may_be_an_index(band: Band) -> None:
    """Its columns are told of the old row, then, and can be filtered by."""
    await band.run(
        "alter table shows alter city set not null, add seats int",
        "create unique index by_city on shows (city)",
        "alter table shows replica identity using index by_city",
        "insert into shows values (1, 'Bern', 5)",
    )
    await band.subscribe("anna", claims(ANNA), {**SHOWS, "filter": "city=eq.Bern"})
    await band.run("update shows set seats = 6")
    await band.run("delete from shows")
    assert await brief(band, "anna") == [
        ("UPDATE", {"id": 1, "city": "Bern", "seats": 6}, {"city": "Bern"}),
        ("DELETE", None, {"city": "Bern"}),
    ]


async def test_an_identity_without_the_key_tells_nothing_of_a_guarded_row(band: Band) -> None:
    """Only the primary key may be told of it, and that did not come along."""
    await band.run(
        "alter table songs alter title set not null",
        "create unique index by_title on songs (title)",
        "alter table songs replica identity using index by_title",
        f"insert into songs values (1, '{ANNA}', 'One')",
    )
    await band.subscribe("ben", claims(BEN))
    await band.run("delete from songs")
    assert await brief(band, "ben") == [("DELETE", None, {})]


async def test_a_key_of_several_columns_is_told_whole(band: Band) -> None:
    """Of the old row, too, and also where the rows are guarded."""
    await band.run(
        "create table seats (hall text, n int, owner uuid, primary key (n, hall))",
        "alter table seats enable row level security",
        "create policy own on seats for select to authenticated using (auth.uid() = owner and true)",
        "alter publication supabase_realtime add table seats",
    )
    await band.subscribe("anna", claims(ANNA), {"table": "seats"})
    await band.run(f"insert into seats values ('A', 1, '{ANNA}'), ('A', 2, '{BEN}'), ('B', 1, '{BEN}')")
    await band.settle()
    await band.run("update seats set hall = 'C' where hall = 'A' and n = 1")
    await band.settle()
    await band.run("delete from seats where hall = 'C'")
    assert await brief(band, "anna") == [
        ("INSERT", {"hall": "A", "n": 1, "owner": str(ANNA)}, None),
        ("UPDATE", {"hall": "C", "n": 1, "owner": str(ANNA)}, {"hall": "A", "n": 1}),
        ("DELETE", None, {"hall": "C", "n": 1}),
    ]


async def test_without_a_key_a_deletion_is_told_with_a_full_identity(band: Band) -> None:
    """An UPDATE says what is wrong with the table (8.5, rule 3)."""
    await band.run(
        "insert into shows values (1, 'Bern')",
        "alter table shows drop constraint shows_pkey, replica identity full",
    )
    await band.subscribe("anna", claims(ANNA), SHOWS)
    await band.run("update shows set city = 'Basel'")
    await band.run("delete from shows")
    assert [(data["old_record"], data["errors"]) for data in await band.data("anna")] == [
        ({}, ["Error 400: Bad Request, no primary key"]),
        ({"id": 1, "city": "Basel"}, None),
    ]


# Which columns ----------------------------------------------------------------------------------------------


async def test_bytes_are_written_once(band: Band) -> None:
    """As hex digits."""
    await band.run("alter table shows add raw bytea")
    await band.subscribe("anna", claims(ANNA), SHOWS)
    await band.run("insert into shows values (1, null, '\\x00ff5c')")
    assert await band.records("anna", "raw") == ["00ff5c"]


async def test_a_selection_holds_for_every_event(band: Band) -> None:
    """The key is always there, and what a filter looks at need not be."""
    await band.run("alter table shows add seats int, add note text, replica identity full")
    entry = {**SHOWS, "select": ["seats"], "filter": "city=eq.Bern"}
    await band.subscribe("anna", claims(ANNA), entry)
    await band.run("insert into shows values (1, 'Bern', 5, 'x'), (2, 'Basel', 6, 'x')")
    await band.run("update shows set seats = seats + 10")
    await band.run("delete from shows")
    assert await brief(band, "anna") == [
        ("INSERT", {"id": 1, "seats": 5}, None),
        ("UPDATE", {"id": 1, "seats": 15}, {"id": 1, "seats": 5}),
        ("DELETE", None, {"id": 1, "seats": 15}),
    ]


async def test_two_selections_of_one_subscriber_are_two_deliveries(band: Band) -> None:
    """Each names its own entry."""
    await band.subscribe("anna", claims(ANNA), {**SHOWS, "select": ["city"]}, {**SHOWS, "select": ["id"]})
    await band.run("insert into shows values (1, 'Bern')")
    found = sorted((ids, data["record"]) for ids, data in await band.received("anna"))
    assert found == [((1,), {"id": 1, "city": "Bern"}), ((2,), {"id": 1})]


async def test_generated_columns_come_along_where_postgres_publishes_them(band: Band) -> None:
    """Stored ones from 18 on; virtual ones never."""
    at_least(band, 18)
    await band.run(
        "alter table shows add loud text generated always as (upper(city)) stored,"
        " add quiet text generated always as (lower(city)) virtual"
    )
    await band.subscribe("anna", claims(ANNA), {**SHOWS, "filter": "loud=eq.BERN"})
    await band.run("insert into shows values (1, 'Bern'), (2, 'Basel')")
    assert await brief(band, "anna") == [("INSERT", {"id": 1, "city": "Bern", "loud": "BERN"}, None)]


@pytest.mark.parametrize(
    "hidden",
    [
        "alter publication supabase_realtime set table songs, shows (id)",
        (
            "alter table shows drop city, add city text generated always as ('Bern') stored;"
            "alter publication supabase_realtime set (publish_generated_columns = none)"
        ),
    ],
    ids=["not in the list of columns", "generated"],
)
async def test_a_column_that_is_not_published_cannot_be_selected(band: Band, hidden: LiteralString) -> None:
    """Its values never come along; without a selection it is not among the columns."""
    at_least(band, 18)
    await band.run(hidden)
    message = await band.refusal(claims(ANNA), {**SHOWS, "select": ["id", "city"]})
    assert "invalid column for select city: it is not published" in message
    await band.subscribe("anna", claims(ANNA), SHOWS)
    await band.run("insert into shows (id) values (1)")
    assert await band.records("anna", "city") == [None]
    assert [column["name"] for column in (await band.data("anna"))[0]["columns"]] == ["id"]


# Which tables -----------------------------------------------------------------------------------------------


PARTITIONED = (
    "create table plays (at date, n int, song text, primary key (at, n)) partition by range (at)",
    "create table plays_2025 partition of plays for values from ('2025-01-01') to ('2026-01-01')",
)


async def test_partitions_have_their_own_names(band: Band) -> None:
    """A row that moves is deleted from one and inserted into the other."""
    await band.run(
        *PARTITIONED,
        "create table plays_2026 partition of plays for values from ('2026-01-01') to ('2027-01-01')",
        "alter publication supabase_realtime add table plays",
    )
    assert "Please check Realtime is enabled" in await band.refusal(claims(ANNA), {"table": "plays"})
    await band.subscribe("anna", claims(ANNA), {"schema": "public"})
    await band.run("insert into plays values ('2025-05-05', 1, 'One')")
    await band.run("update plays set at = '2026-05-05'")
    found = [(data["table"], data["type"]) for data in await band.data("anna")]
    assert found == [("plays_2025", "INSERT"), ("plays_2025", "DELETE"), ("plays_2026", "INSERT")]


async def test_a_publication_may_give_partitions_the_name_of_their_table(band: Band) -> None:
    """Policies are then those of the table, and a partition that is attached later belongs to it at once."""
    await band.run(
        *PARTITIONED,
        "alter table plays enable row level security",
        "create policy known on plays for select using (song <> 'Secret' and auth.uid() is not null)",
        "alter publication supabase_realtime add table plays",
        "alter publication supabase_realtime set (publish_via_partition_root = true)",
    )
    await band.subscribe("anna", claims(ANNA), {"table": "plays", "filter": "n=eq.1"})
    await band.run("insert into plays values ('2025-05-05', 1, 'One'), ('2025-05-06', 1, 'Secret')")
    await band.settle()
    await band.run(
        "create table later (like plays including all)",
        "alter table plays attach partition later for values from ('2026-01-01') to ('2027-01-01')",
        "insert into plays values ('2026-05-05', 1, 'Two')",
    )
    found = [(data["table"], data["record"]["song"]) for data in await band.data("anna")]
    assert found == [("plays", "One"), ("plays", "Two")]


async def test_tables_of_one_name_in_two_schemas_are_two(band: Band) -> None:
    """A schema may be named, left to the default, or any."""
    await band.run(
        "create schema tour",
        "grant usage on schema tour to authenticated",
        "create table tour.shows (id int primary key, city text)",
        "grant select on tour.shows to authenticated",
        "alter publication supabase_realtime add table tour.shows",
    )
    schemas: list[dict[str, str]] = [{}, {"schema": "tour"}, {"schema": "*"}]
    await band.subscribe("anna", claims(ANNA), *({**SHOWS, **each} for each in schemas), *schemas[1:])
    await band.run("insert into shows values (1, 'Bern')", "insert into tour.shows values (1, 'Basel')")
    found = [(ids, data["schema"]) for ids, data in await band.received("anna")]
    assert found == [((5, 3, 1), "public"), ((5, 4, 3, 2), "tour")]


@pytest.mark.parametrize(
    "name", ["a b", "a,b", "a.b", "a\tb", 'a"b', "a'b", "a\\b", "🎸", "Select", "a_%", "{a}"]
)
async def test_any_name_is_a_name(band: Band, name: str) -> None:
    """Of a schema, a table or a column."""
    for statement in (
        "create schema {0}",
        "grant usage on schema {0} to authenticated",
        "create table {0}.{0} (id int primary key, {0} uuid)",
        "grant select on {0}.{0} to authenticated",
        "alter table {0}.{0} enable row level security",
        "create policy own on {0}.{0} using ({0} = auth.uid() and true)",
        "alter publication supabase_realtime add table {0}.{0}",
    ):
        await band.admin.execute(sql.SQL(statement).format(sql.Identifier(name)))
    await band.subscribe("anna", claims(ANNA), {"schema": name, "table": name, "select": [name]})
    insert = sql.SQL("insert into {0}.{0} values (1, {1}), (2, {2})")
    await band.admin.execute(insert.format(sql.Identifier(name), str(ANNA), str(BEN)))
    (data,) = await band.data("anna")
    assert (data["schema"], data["table"], data["record"]) == (name, name, {"id": 1, name: str(ANNA)})


async def test_a_role_without_any_right_to_a_table_is_told_so(band: Band) -> None:
    """However many there are; the subscription itself is no secret to keep."""
    await band.run("revoke all on shows from anon", "revoke usage on schema public from anon")
    for n in range(12):
        await band.subscribe(f"guest {n}", claims(None, "anon"), SHOWS)
    await band.run("insert into shows values (1, 'Bern')")
    for n in range(12):
        (data,) = await band.data(f"guest {n}")
        assert (data["record"], data["columns"], data["errors"]) == ({}, [], ["Error 401: Unauthorized"])


# Which events -----------------------------------------------------------------------------------------------

FILTERS = {
    "id=eq.2": [2],
    "id=neq.2": [1, 3],
    "id=lt.2": [1],
    "id=lte.2": [1, 2],
    "id=gt.2": [3],
    "id=gte.2": [2, 3],
    "id=in.(1,3)": [1, 3],
    "city=like.B%": [1, 2],
    "city=ilike.b%": [1, 2],
    "city=is.null": [3],
    "city=match.^B.*l$": [2],
    "city=imatch.^b.*L$": [2],
    "city=isdistinct.Bern": [2, 3],
    "city=not.eq.Bern": [2],
    "id=gt.1,city=like.B%": [2],
    "id=gt.1,id=lt.3": [2],
}
"""And the rows they let through."""


async def test_every_operator_filters_every_event(band: Band) -> None:
    """The new row, and of a deleted one what its identity tells."""
    await band.run("alter table shows add seats int, replica identity full")
    await band.subscribe("anna", claims(ANNA), *({**SHOWS, "filter": each} for each in FILTERS))
    await band.run("insert into shows values (1, 'Bern'), (2, 'Basel'), (3, null)")
    await band.run("update shows set seats = 5")
    await band.run("delete from shows")
    found: dict[str, dict[str, list[int]]] = {each: {} for each in FILTERS}
    for ids, data in await band.received("anna"):
        row = data.get("record") or data["old_record"]
        for number in ids:
            found[list(FILTERS)[number - 1]].setdefault(data["type"], []).append(row["id"])
    assert found == {
        each: dict.fromkeys(["INSERT", "UPDATE", "DELETE"], rows) for each, rows in FILTERS.items()
    }


async def test_an_emptied_table_is_not_told(band: Band) -> None:
    """TRUNCATE says nothing about rows; what comes after it arrives."""
    await band.run("insert into shows values (1, 'Bern')")
    await band.subscribe("anna", claims(ANNA), SHOWS)
    await band.run("truncate shows", "insert into shows values (2, 'Basel')")
    assert await brief(band, "anna") == [("INSERT", {"id": 2, "city": "Basel"}, None)]


async def test_a_hundred_thousand_rows_of_one_transaction(band: Band) -> None:
    """Each arrives once, in order."""
    await band.subscribe("anna", claims(ANNA), {**SHOWS, "select": ["id"]})
    await band.run("insert into shows select n, 'Bern' from generate_series(1, 100000) n")
    await band.settle()
    ids = [int(re.search(rb'"record":\{"id":(\d+)', each.data)[1]) for each in band.deliveries]  # type: ignore[index]
    assert ids == [*range(1, 100_001)]


# Tables that change -----------------------------------------------------------------------------------------


async def test_a_renamed_column_has_its_new_name_at_once(band: Band) -> None:
    """With the first change after it; so has one that was added."""
    await band.subscribe("anna", claims(ANNA), SHOWS)
    await band.run("insert into shows values (1, 'Bern')")
    await band.settle()
    await band.run("alter table shows rename city to place", "alter table shows add seats int")
    await band.run("insert into shows values (2, 'Basel', 5)")
    assert [(data["record"], len(data["columns"])) for data in await band.data("anna")] == [
        ({"id": 1, "city": "Bern"}, 2),
        ({"id": 2, "place": "Basel", "seats": 5}, 3),
    ]


async def test_a_table_made_anew_is_the_table(band: Band) -> None:
    """Subscriptions are for names."""
    await band.subscribe("anna", claims(ANNA), SHOWS)
    await band.run("insert into shows values (1, 'Bern')")
    await band.settle()
    await band.run(
        "drop table shows",
        "create table shows (city text primary key)",
        "grant select on shows to authenticated",
        "alter publication supabase_realtime add table shows",
    )
    await band.run("insert into shows values ('Basel')")
    assert await band.records("anna", "city") == ["Bern", "Basel"]


async def test_another_type_of_a_column_is_told_at_once(band: Band) -> None:
    """Name and JSON."""
    await band.subscribe("anna", claims(ANNA), SHOWS)
    await band.run("alter table shows alter city type int using 5")
    await band.run("insert into shows values (1, 7)")
    (data,) = await band.data("anna")
    assert (data["columns"][1]["type"], data["record"]["city"]) == ("int4", 7)


async def test_a_table_is_heard_while_it_is_published(band: Band) -> None:
    """Whoever wants all tables of a schema hears it from when it comes to when it goes."""
    await band.subscribe("anna", claims(ANNA), {"schema": "public"})
    await band.run("create table venues (id int primary key)", "insert into venues values (1)")
    await band.run("alter publication supabase_realtime add table venues")
    await band.run("insert into venues values (2)")
    await band.run("alter publication supabase_realtime drop table venues")
    await band.run("insert into venues values (3)")
    assert await band.records("anna") == [2]
