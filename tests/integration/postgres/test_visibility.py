"""Who sees which version of a row, asked of a real Postgres: every known trap is a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator
from dataclasses import dataclass
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest
from psycopg import sql

from backbeat.postgres import members as members_module
from backbeat.postgres import visibility as module
from backbeat.postgres.conditions import Limit, Member, Owner
from backbeat.postgres.members import Users
from backbeat.postgres.policies import Access, Audience
from backbeat.postgres.question import Question, Version
from backbeat.postgres.visibility import Visibility
from backbeat.tokens.claims import Claims

ANNA, BEN, CARA = (UUID(int=n) for n in (0xA, 0xB, 0xC))


def claims(user: UUID | None, role: str = "authenticated", **more: Any) -> Claims:
    return Claims.of({"role": role, "exp": 2**31, **({"sub": str(user)} if user else {}), **more})


@dataclass
class Songs:
    """A table of songs with row security, and the means to ask about its rows."""

    admin: psycopg.Connection[Any]
    visibility: Visibility

    def run(self, statement: LiteralString, *params: Any) -> str:
        """Run statements as the superuser, in one transaction; return its number."""
        with self.admin.transaction():
            self.admin.execute(statement, params or None)
            row = self.admin.execute("select pg_current_xact_id()::xid::text").fetchone()
        assert row is not None
        return str(row[0])

    def policy(self, condition: LiteralString, kind: LiteralString = "permissive") -> None:
        """Give the table one policy for reading."""
        self.run(
            "drop policy if exists it on songs;"
            f" create policy it on songs as {kind} for select to authenticated using ({condition})"
        )

    def oid(self, table: str = "songs") -> int:
        row = self.admin.execute("select %s::regclass::oid::int8", (table,)).fetchone()
        assert row is not None
        return int(row[0])

    def selected(self, who: Claims) -> set[int]:
        """The ids a plain SELECT shows somebody: the truth."""
        with self.admin.transaction(force_rollback=True):
            self.admin.execute(
                "select set_config('role', %s, true), set_config('request.jwt.claims', %s, true),"
                " set_config('request.jwt.claim.sub', %s, true)",
                (who.role, who.json, who.sub),
            )
            return {row[0] for row in self.admin.execute("select id from songs").fetchall()}

    def version(self, song: int, *, xid: str | None = None, **values: str | None) -> Version:
        """A version of a row: what it holds now, unless told otherwise."""
        cursor = self.admin.execute("select * from songs where id = %s", (song,))
        result, now = cursor.pgresult, {}
        assert result is not None
        for index, column in enumerate(cursor.description or ()):
            now[column.name] = result.get_value(0, index)
        now |= {name: None if value is None else value.encode() for name, value in values.items()}
        return Version((str(song),), xid, now)

    async def seen(
        self, versions: list[Version], *viewers: Claims, table: str = "songs"
    ) -> dict[Claims, set[int]]:
        """Ask who sees which versions, as often as the catalogue changes under the question."""
        oid = self.oid(table)
        found: dict[Claims, set[int]] = {}
        by_role: dict[str, list[Claims]] = {}
        for viewer in viewers:
            by_role.setdefault(viewer.role, []).append(viewer)
        while True:
            access = await self.visibility.access({(oid, role) for role in by_role})
            questions = []
            for role, members in by_role.items():
                known = access[oid, role]
                assert known is not None
                questions.append(
                    Question(known, versions, {viewer: range(len(versions)) for viewer in members})
                )
            answers = await self.visibility.ask({oid}, questions, ())
            if answers is not None:
                for answer in answers:
                    found |= answer
                return {viewer: found.get(viewer, set()) for viewer in viewers}

    async def ids(self, who: Claims) -> set[int]:
        """The ids of all songs somebody is found to see."""
        songs = [row[0] for row in self.admin.execute("select id from songs order by id").fetchall()]
        answer = await self.seen([self.version(song) for song in songs], who)
        return {songs[index] for index in answer[who]}

    async def access(self, role: str = "authenticated") -> Access:
        """What the catalogue alone says, read anew."""
        pair = self.oid(), role
        while True:
            known = (await self.visibility.access({pair}))[pair]
            assert known is not None
            if await self.visibility.ask({pair[0]}, [], ()) is not None:
                return known

    async def audience(self, role: str = "authenticated") -> Audience:
        return (await self.access(role)).audience


@pytest.fixture
def admin(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "create table songs (id int primary key, owner uuid, title text, secret text);"
            "alter table songs enable row level security;"
            "create table members (band int, member uuid);"
            "alter table members enable row level security;"
            "create policy own on members for select using (member = auth.uid())"
        )
        connection.execute(
            sql.SQL("insert into songs values (1, {a}, 'One', 's'), (2, {b}, 'Two', 's')").format(
                a=str(ANNA), b=str(BEN)
            )
        )
        connection.execute(
            sql.SQL("insert into members values (1, {a}), (2, {b}), (1, {c})").format(
                a=str(ANNA), b=str(BEN), c=str(CARA)
            )
        )
        yield connection


@pytest.fixture
async def songs(admin: psycopg.Connection[Any], login_url: str) -> AsyncIterator[Songs]:
    visibility = Visibility(login_url)
    yield Songs(admin, visibility)
    await visibility.aclose()


POLICIES: list[LiteralString] = [
    "true",
    "false",
    "auth.uid() = owner",
    "(select auth.uid()) = owner",
    "id in (select band from members)",
    "id in (select band from members where member = auth.uid())",
    "exists (select from members m where m.band = songs.id and m.member = (auth.jwt() ->> 'sub')::uuid)",
    "not exists (select from members m where m.band = songs.id)",
    "auth.role() = 'authenticated' and title like 'T%'",
    "auth.uid() = owner or (auth.jwt() -> 'app' ->> 'admin')::boolean",
]


@pytest.mark.parametrize("condition", POLICIES)
async def test_the_answer_is_that_of_a_plain_select(songs: Songs, condition: LiteralString) -> None:
    """Whatever the policy says, it is Postgres that says it."""
    songs.policy(condition)
    viewers = [claims(ANNA), claims(BEN), claims(CARA), claims(None), claims(CARA, app={"admin": True})]
    found = [await songs.ids(viewer) for viewer in viewers]
    assert found == [songs.selected(viewer) for viewer in viewers]


@pytest.mark.parametrize("condition", POLICIES)
async def test_restrictive_policies_take_away(songs: Songs, condition: LiteralString) -> None:
    """Every restrictive policy has to agree."""
    songs.run("create policy everything on songs for select using (true)")
    songs.policy(condition, "restrictive")
    viewers = [claims(ANNA), claims(BEN), claims(None)]
    found = [await songs.ids(viewer) for viewer in viewers]
    assert found == [songs.selected(viewer) for viewer in viewers]


OPEN = "alter table songs disable row level security"
FORCED = "alter table songs force row level security"


@pytest.mark.parametrize(
    ("change", "role", "expected"),
    [
        ("create policy p on songs for select using (true)", "authenticated", Audience.EVERYBODY),
        ("create policy p on songs using (true)", "authenticated", Audience.EVERYBODY),
        ("create policy p on songs for insert with check (true)", "authenticated", Audience.NOBODY),
        ("create policy p on songs for select", "authenticated", Audience.NOBODY),
        ("create policy p on songs for select to anon using (true)", "authenticated", Audience.NOBODY),
        ("create policy p on songs for select to anon using (true)", "anon", Audience.EVERYBODY),
        ("create policy p on songs for select using (auth.uid() = owner)", "authenticated", Audience.ASK),
        ("create policy p on songs for select using (1 = 1)", "authenticated", Audience.ASK),
        ("select", "service_role", Audience.EVERYBODY),
        (OPEN, "anon", Audience.EVERYBODY),
        (f"{OPEN}; revoke all on songs from anon", "anon", Audience.NOBODY),
        (f"{OPEN}; revoke usage on schema public from anon, public", "anon", Audience.NOBODY),
        (f"{OPEN}; alter table songs drop constraint songs_pkey", "anon", Audience.NOBODY),
        ("alter table songs owner to anon", "anon", Audience.EVERYBODY),
        (
            "alter table songs owner to anon; alter table songs force row level security",
            "anon",
            Audience.NOBODY,
        ),
    ],
)
async def test_the_catalogue_decides_the_extremes(
    songs: Songs, change: LiteralString, role: str, expected: Audience
) -> None:
    """And a plain SELECT would agree."""
    songs.run(change)
    assert await songs.audience(role) is expected


MINE = Member("public", "members", "member", (("band", "band"),))


@pytest.mark.parametrize(
    ("condition", "limits"),
    [
        ("auth.uid() = owner", {Owner("owner")}),
        ("auth.uid() = owner and public.calm()", {Owner("owner")}),
        ("auth.uid() = owner and public.wild()", ()),
        ("auth.uid() = owner and 1 operator(public.~~~) 1", ()),
        ("auth.uid() = owner and set_config('a.b', 'c', true) is not null", ()),
        ("owner = (select auth.uid())", {Owner("owner")}),
        ("auth.uid() in (owner)", {Owner("owner")}),
        ("auth.uid() = (select owner)", ()),
        ("auth.uid()::text = title", ()),
        ("auth.uid() = md5(title)::uuid", ()),
        ("auth.uid() operator(public.=) owner", ()),
        ("public.uid() = owner", ()),
        ("band in (select band from members where member = auth.uid())", {MINE}),
        ("band in (select m.band from members m where (select auth.uid()) = m.member and level > 1)", {MINE}),
        ("band = (select m.band from members m where m.member = auth.uid())", {MINE}),
        ("auth.uid() in (select member from members where members.band = songs.band)", {MINE}),
        ("auth.uid() = any (select member from members where members.band = songs.band)", {MINE}),
        ("exists (select from members m where m.band = songs.band and m.member = auth.uid())", {MINE}),
        ("exists (select * from members m where songs.band = m.band and m.member = auth.uid())", {MINE}),
        (
            "exists (select 1 from members m where m.label = songs.title and m.member = auth.uid())",
            {Member("public", "members", "member", (("label", "title"),))},
        ),
        (
            "exists (select 1 from members where member = auth.uid() and level > 1)",
            {Member("public", "members", "member", ())},
        ),
        ("band in (select band from members where member = auth.uid() limit 1)", ()),
        ("band in (select band from members where member = auth.uid() union select 1)", ()),
        ("band in (select max(band) from members where member = auth.uid())", ()),
        ("exists (select count(*) from members where member = auth.uid())", ()),
        ("exists (select from members m where m.band = songs.band and (m.member = auth.uid() or true))", ()),
        ("exists (select from members m, songs s where m.band = s.band and m.member = auth.uid())", ()),
        ("exists (select from glance m where m.band = songs.band and m.member = auth.uid())", ()),
        ("exists (select from hidden m where m.band = songs.band and m.member = auth.uid())", ()),
        ("not band in (select band from members where member = auth.uid())", ()),
    ],
)
async def test_whom_a_policy_lets_through_is_read_from_its_condition(
    songs: Songs, condition: LiteralString, limits: Collection[Limit]
) -> None:
    """As Postgres writes it, whatever was typed."""
    songs.run(
        "create function public.uid() returns uuid language sql stable as 'select auth.uid()';"
        "create operator public.= (leftarg = uuid, rightarg = uuid, function = uuid_ne);"
        "create function public.calm() returns boolean language sql stable return true;"
        "create function public.wild() returns boolean language sql volatile return true;"
        "create function public.wild(int, int) returns boolean language sql volatile return true;"
        "create operator public.~~~ (leftarg = int, rightarg = int, function = public.wild);"
        "alter table songs add band int;"
        "alter table members add label varchar, add level int;"
        "create table hidden (like members);"
        "revoke all on hidden from service_role, authenticated, anon;"
        "create view glance as select * from members"
    )
    songs.policy(condition)
    assert {*(await songs.access()).limits} == {*limits}


async def members(songs: Songs) -> Users | None:
    """Who is in band 1 and 3, as far as that can be read."""
    return await songs.visibility.members(await songs.access(), MINE, [("1",), ("3",)])


@pytest.fixture
def bands(songs: Songs) -> Songs:
    """The songs are for the members of their band."""
    songs.run("alter table songs add band int")
    songs.policy("band in (select band from members where member = auth.uid())")
    return songs


async def test_members_are_read_past_their_own_policies(bands: Songs) -> None:
    """Each of them would be shown to nobody else."""
    found = await members(bands)
    assert found is not None
    assert {values: {*users} for values, users in found.items()} == {("1",): {str(ANNA), str(CARA)}}


async def test_beside_nothing_there_is_nobody(bands: Songs) -> None:
    """A row without a band is nobody's; the table is not read for that."""
    assert await bands.visibility.members(await bands.access(), MINE, []) == {}
    assert await members(bands) is not None


async def test_more_members_than_are_worth_reading_are_not_read(
    bands: Songs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then everybody is asked."""
    monkeypatch.setattr(members_module, "MOST", 2)
    assert await members(bands) is None


async def test_members_that_cannot_be_read_are_left_alone_for_a_while(bands: Songs) -> None:
    """Everybody is asked instead; the table is not tried again at once."""
    asked = await bands.access(), MINE, [("1",)]
    with psycopg.connect(bands.admin.info.dsn, password=bands.admin.info.password) as other:
        other.execute("lock table members")
        assert await bands.visibility.members(*asked) is None
    assert await bands.visibility.members(*asked) is None


UID = "create or replace function auth.uid() returns uuid language sql stable"


@pytest.mark.parametrize(
    ("change", "known"),
    [
        ("select", True),
        (f"{UID} as $$ select nullif(current_setting('request.jwt.claim.sub', true), '')::uuid; $$", True),
        (f"{UID} as $$ select null::uuid $$", False),
        (f"{UID} return null::uuid", False),
        ("alter function auth.uid() set search_path = ''", False),
        ("create function auth.uid(int) returns uuid language sql as 'select null::uuid'", False),
        ("alter function auth.uid() rename to who", False),
    ],
)
async def test_the_meaning_of_uid_is_known_by_its_definition(
    songs: Songs, change: LiteralString, known: bool
) -> None:
    """Any other than the usual ones is not trusted to be the user of the token."""
    songs.policy("auth.uid() = owner")
    songs.run(change)
    assert (await songs.access()).uid_is_sub is known


async def test_a_transaction_that_takes_its_time_holds_up_nothing(songs: Songs) -> None:
    """Not even one that has gone on from a savepoint."""
    songs.policy("true")
    with psycopg.connect(songs.admin.info.dsn, password=songs.admin.info.password) as other:
        other.execute("insert into members values (9, null)")
        with other.transaction():
            other.execute("insert into members values (9, null)")
        async with asyncio.timeout(5):
            assert (await songs.access()).audience is Audience.EVERYBODY
        other.rollback()


async def test_a_changed_policy_makes_the_question_void(songs: Songs) -> None:
    """What was read from the catalogue before does not decide anything after."""
    songs.policy("true")
    pair = songs.oid(), "authenticated"
    await songs.visibility.access({pair})
    songs.policy("false")
    assert await songs.visibility.ask({pair[0]}, [], ()) is None


@pytest.mark.parametrize(
    "change",
    [
        "revoke select (title) on songs from authenticated; revoke select on songs from authenticated",
        "alter table songs disable row level security",
        "alter table songs rename column title to name",
        "alter table songs drop constraint songs_pkey",
        "alter role authenticated bypassrls",
        "grant service_role to authenticated",
        "revoke usage on schema public from public",
        "create function f() returns int immutable language sql as 'select 1'",
        "drop table songs",
    ],
)
async def test_any_change_of_what_was_read_is_noticed(songs: Songs, change: LiteralString) -> None:
    """Grants, roles, columns, keys and functions are as good as policies."""
    pair = songs.oid(), "authenticated"
    await songs.visibility.access({pair})
    try:
        songs.run(change)
        assert await songs.visibility.ask({pair[0]}, [], ()) is None
    finally:
        # Roles belong to the cluster, which other tests use too.
        songs.run("alter role authenticated nobypassrls; revoke service_role from authenticated")


async def test_a_table_that_is_gone_is_known_to_be_gone(songs: Songs) -> None:
    """Nobody sees anything of it, and nothing fails."""
    pair = songs.oid(), "authenticated"
    songs.run("drop table songs")
    assert await songs.visibility.access({pair}) == {pair: None}


IDENTITY = "(current_setting('request.jwt.claims', true)::jsonb ->> 'sub')::uuid"
GULLIBLE = f"create function who() returns uuid immutable language sql as $$ select {IDENTITY} $$"


@pytest.mark.parametrize(
    "definitions",
    [
        f"create function me() returns uuid immutable language sql as $$ select {IDENTITY} $$",
        f"create function me() returns uuid immutable language plpgsql as $$ begin return {IDENTITY}; end $$",
        f"create function me() returns uuid immutable language sql begin atomic select {IDENTITY}; end",
        "create function me() returns uuid immutable language sql as $$ select auth.uid() $$",
        f"{GULLIBLE}; create function me() returns uuid stable language sql as $$ select who() $$",
        f"{GULLIBLE}; create function me() returns uuid language plpgsql as $$ begin return who(); end $$",
        f"create function me() returns uuid stable language plpgsql as $$ begin return {IDENTITY}; end $$",
        "create function me() returns uuid stable security definer language sql as $$ select auth.uid() $$",
    ],
)
async def test_no_plan_answers_for_somebody_else(songs: Songs, definitions: LiteralString) -> None:
    """A function wrongly declared IMMUTABLE is folded into a plan; that plan must serve one viewer only."""
    songs.run(definitions)
    songs.policy("me() = owner")
    anna, ben = claims(ANNA), claims(BEN)
    versions = [songs.version(1), songs.version(2)]
    answers = [await songs.seen(versions, anna, ben) for _ in range(8)]
    assert answers == [{anna: {0}, ben: {1}}] * 8


async def test_a_policy_that_changes_the_role_does_not_change_it_for_others(songs: Songs) -> None:
    """The role is set again for each viewer, and the login has no rights to fall back on."""
    songs.run(
        "create function evil() returns boolean language plpgsql as $$ begin"
        "  if auth.uid() = '00000000-0000-0000-0000-00000000000a' then"
        "    perform set_config('role', session_user, true); end if;"
        "  return true; end $$"
    )
    songs.policy("evil() and auth.uid() = owner")
    anna, ben, cara = claims(ANNA), claims(BEN), claims(CARA)
    found = await songs.seen([songs.version(1), songs.version(2)], anna, ben, cara)
    assert (found[ben], found[cara]) == ({1}, set())


async def test_a_policy_that_changes_the_claims_does_not_change_them_for_others(songs: Songs) -> None:
    """Claims are set again as well."""
    songs.run(
        "create function evil() returns boolean language plpgsql as $$ begin"
        f"  perform set_config('request.jwt.claim.sub', '{ANNA}', false); return true; end $$"
    )
    songs.policy("auth.uid() = owner and evil()")
    ben, nobody = claims(BEN), claims(None)
    found = await songs.seen([songs.version(1), songs.version(2)], ben, nobody)
    assert found[nobody] == set()


async def test_an_error_in_a_policy_denies_only_whom_it_is_about(songs: Songs) -> None:
    """A claim that cannot be cast is its owner's problem."""
    songs.policy("(auth.jwt() ->> 'band')::int = id")
    good, bad = claims(ANNA, band="1"), claims(BEN, band="two")
    found = await songs.seen([songs.version(1), songs.version(2)], bad, good)
    assert (found, songs.visibility.denied_by_error) == ({bad: set(), good: {0}}, 2)


async def test_a_policy_that_takes_too_long_denies_only_whom_it_is_about(
    admin: psycopg.Connection[Any], login_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slow one is looked for by halves, and not asked again for a while."""
    monkeypatch.setattr(module, "STATEMENT_TIMEOUT", 200)
    monkeypatch.setattr(module, "PATIENCE", (200, 1))
    songs = Songs(admin, Visibility(login_url))
    songs.policy(f"case when auth.uid() = '{BEN}' then pg_sleep(60) is not null else true end")
    viewers = [claims(UUID(int=n)) for n in range(8, 16)]
    for _ in range(2):
        found = await songs.seen([songs.version(1)], *viewers)
        assert {viewer for viewer, seen in found.items() if not seen} == {claims(BEN)}
    await songs.visibility.aclose()


async def test_a_locked_table_is_waited_for(
    songs: Songs, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Altering a table is no reason to lose its changes."""
    songs.policy("auth.uid() = owner")
    anna, version = claims(ANNA), songs.version(1)
    await songs.seen([version], anna)
    waiting = asyncio.Event()
    patiently = Visibility._patiently

    async def observed(self: Visibility, *args: Any) -> Any:
        waiting.set()
        return await patiently(self, *args)

    monkeypatch.setattr(Visibility, "_patiently", observed)
    with psycopg.connect(database_url) as other:
        other.execute("lock table songs in access exclusive mode")
        answer = asyncio.create_task(songs.seen([version], anna))
        await waiting.wait()
        other.rollback()
    assert await answer == {anna: {0}}


async def test_the_version_a_transaction_left_behind_is_known_by_its_number(songs: Songs) -> None:
    """Its content is not looked at: the number is enough."""
    songs.policy("auth.uid() = owner")
    xid = songs.run("update songs set title = 'New' where id = 1")
    anna = claims(ANNA)
    assert await songs.seen([songs.version(1, xid=xid, title="whatever")], anna) == {anna: {0}}


async def test_a_row_that_was_moved_is_not_shown_as_it_was(songs: Songs) -> None:
    """Anna's version must not reach Ben because the row is his by now."""
    songs.policy("auth.uid() = owner")
    written = songs.run("update songs set secret = 'for Anna' where id = 1")
    version = songs.version(1, xid=written)
    songs.run("update songs set owner = %s, secret = 'for Ben' where id = 1", BEN)
    anna, ben = claims(ANNA), claims(BEN)
    found = await songs.seen([version], anna, ben)
    assert (found, songs.visibility.dropped_stale) == ({anna: set(), ben: set()}, 1)


async def test_a_row_moved_within_its_transaction_is_not_shown_as_it_was(songs: Songs) -> None:
    """The transaction is the same, the version is not: only its last change may be known by its number."""
    songs.policy("auth.uid() = owner")
    version = songs.version(1, secret="for Anna")
    songs.run("update songs set owner = %s, secret = 'for Ben' where id = 1", BEN)
    ben = claims(BEN)
    assert await songs.seen([version], ben) == {ben: set()}


async def test_a_row_written_in_a_savepoint_is_recognised_by_its_content(songs: Songs) -> None:
    """A subtransaction has a number of its own."""
    songs.policy("auth.uid() = owner")
    with songs.admin.transaction(), songs.admin.transaction():
        songs.admin.execute("update songs set title = 'New' where id = 1")
    anna = claims(ANNA)
    assert await songs.seen([songs.version(1, xid="3")], anna) == {anna: {0}}


async def test_a_row_touched_again_without_a_difference_is_still_shown(songs: Songs) -> None:
    """What is sent is what is there."""
    songs.policy("auth.uid() = owner")
    version = songs.version(1, xid=songs.run("update songs set title = 'New' where id = 1"))
    songs.run("update songs set title = title where id = 1")
    anna = claims(ANNA)
    assert await songs.seen([version], anna) == {anna: {0}}


@pytest.mark.parametrize("value", [None, ""])
async def test_null_and_the_empty_text_differ(songs: Songs, value: str | None) -> None:
    """Contents are compared exactly."""
    songs.policy("true or auth.uid() = owner")
    songs.run("update songs set title = %s where id = 1", value)
    anna = claims(ANNA)
    found = await songs.seen([songs.version(1, title=None), songs.version(1, title="")], anna)
    assert found == {anna: {0 if value is None else 1}}


async def test_a_row_is_read_once_for_all_who_see_the_same_version(songs: Songs) -> None:
    """A hot row does not cost a statement a viewer."""
    songs.policy("auth.uid() is not null")
    xid = songs.run("update songs set title = 'New' where id = 1")
    version = songs.version(1, xid=xid)
    songs.run("update songs set title = title where id = 1")
    viewers = [claims(UUID(int=n)) for n in range(20)]
    reads = 0
    compare = Visibility._compare

    async def counted(self: Visibility, *args: Any) -> Any:
        nonlocal reads
        reads += 1
        return await compare(self, *args)

    songs.visibility._compare = counted.__get__(songs.visibility)  # type: ignore[method-assign]
    found = await songs.seen([version], *viewers)
    assert (reads, all(found.values())) == (1, True)


async def test_a_role_with_some_columns_is_asked_by_content(songs: Songs) -> None:
    """Such a role may not read `xmin`; what it may read is compared, and nothing else."""
    songs.run(
        "revoke select on songs from authenticated; grant select (id, title, owner) on songs to authenticated"
    )
    songs.policy("auth.uid() = owner")
    anna = claims(ANNA)
    versions = [songs.version(1, secret="other"), songs.version(1, title="other")]
    assert await songs.seen(versions, anna) == {anna: {0}}


async def test_a_grant_that_changes_before_rows_are_compared_withholds_nothing(
    songs: Songs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The role may read all it is sent before and after: that it is granted anew in between is no refusal."""
    songs.policy("auth.uid() = owner")
    compare, granted = Visibility._compare, False

    async def overtaken(self: Visibility, *args: Any) -> Any:
        nonlocal granted
        if not granted:
            granted = True
            songs.run(
                "revoke select on songs from authenticated;"
                " grant select (id, title, owner, secret) on songs to authenticated"
            )
        return await compare(self, *args)

    monkeypatch.setattr(Visibility, "_compare", overtaken)
    anna = claims(ANNA)
    found = await songs.seen([songs.version(1, xid="3")], anna)
    assert (granted, found, songs.visibility.denied_by_error) == (True, {anna: {0}}, 0)


async def test_a_policy_that_fails_when_rows_are_compared_gives_no_answer(
    songs: Songs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its viewer is missing in the answer, and told so, as when it fails at once; others have theirs."""
    songs.run("create table switch (divisor int); insert into switch values (1)")
    songs.run("grant select on switch to authenticated")
    songs.policy("auth.uid() = owner and (id = 2 or 1 / (select divisor from switch) = 1)")
    xid = songs.run("update songs set title = 'New' where id = 2")
    compare = Visibility._compare

    async def broken(self: Visibility, *args: Any) -> Any:
        songs.run("update switch set divisor = 0")
        return await compare(self, *args)

    monkeypatch.setattr(Visibility, "_compare", broken)
    anna, ben = claims(ANNA), claims(BEN)
    known = (await songs.visibility.access({(songs.oid(), "authenticated")}))[songs.oid(), "authenticated"]
    assert known is not None
    versions = [songs.version(1, xid="3"), songs.version(2, xid=xid)]
    question = Question(known, versions, {anna: range(2), ben: range(2)})
    answers = await songs.visibility.ask({songs.oid()}, [question], ())
    assert (answers, songs.visibility.denied_by_error) == ([{ben: {1}}], 2)


async def test_roles_are_asked_separately(songs: Songs) -> None:
    """One table, two roles, two answers."""
    songs.run(
        "create policy guests on songs for select to anon using (title = 'One' and auth.role() = 'anon')"
    )
    songs.policy("auth.uid() = owner")
    guest, ben = claims(None, "anon"), claims(BEN)
    assert await songs.seen([songs.version(1), songs.version(2)], guest, ben) == {guest: {0}, ben: {1}}


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        ("uuid", "00000000-0000-0000-0000-00000000000a"),
        ("text", 'quote " comma , backslash \\ brace { and ünïcode'),
        ("timestamptz", "2026-01-01 12:00:00.123+00"),
        ("numeric", "1.50"),
        ("bytea", "\\x00ff"),
        ("date", "2026-02-28"),
        ("char(5)", "ab   "),
        ('"Mood"', "so so"),
    ],
)
async def test_a_key_may_be_of_any_type(songs: Songs, type_: LiteralString, value: str) -> None:
    """Keys travel as text and come back as what they were."""
    songs.run("create type \"Mood\" as enum ('so so', 'fine')")
    songs.run(f'create table "Odd Name" ("The Key" {type_} primary key, owner uuid)')
    songs.run('alter table "Odd Name" enable row level security')
    songs.run('create policy own on "Odd Name" using (owner = auth.uid())')
    songs.run('insert into "Odd Name" values (%s, %s)', value, ANNA)
    anna, ben = claims(ANNA), claims(BEN)
    version = Version((value,), None, {"The Key": value.encode(), "owner": str(ANNA).encode()})
    assert await songs.seen([version], anna, ben, table='"Odd Name"') == {anna: {0}, ben: set()}


async def test_a_key_may_have_several_columns(songs: Songs) -> None:
    """All of them have to match, in the order of the key."""
    songs.run(
        "create table plays (song int, day date, owner uuid, primary key (day, song));"
        "alter table plays enable row level security;"
        "create policy own on plays using (owner = auth.uid())"
    )
    songs.run("insert into plays values (1, '2026-01-01', %s), (2, '2026-01-01', %s)", ANNA, BEN)
    keys = [("2026-01-01", "1"), ("2026-01-01", "2"), ("2026-01-02", "1")]
    anna = claims(ANNA)
    versions = [Version(key, None, {}) for key in keys]
    assert await songs.seen(versions, anna, table="plays") == {anna: {0}}


async def test_a_partitioned_table_is_asked_as_a_whole(songs: Songs) -> None:
    """With `publish_via_partition_root` its policies are those of the root."""
    songs.run(
        "create table plays (id int primary key, owner uuid) partition by range (id);"
        "create table plays_1 partition of plays for values from (0) to (10);"
        "alter table plays enable row level security;"
        "create policy own on plays using (owner = auth.uid())"
    )
    xid = songs.run("insert into plays values (1, %s)", ANNA)
    anna, ben = claims(ANNA), claims(BEN)
    assert await songs.seen([Version(("1",), xid, {})], anna, ben, table="plays") == {anna: {0}, ben: set()}


async def test_rows_of_tables_that_inherit_do_not_count(songs: Songs) -> None:
    """A child may hold a row with the same key, under policies of the parent."""
    songs.policy("auth.uid() = owner")
    songs.run("create table singles () inherits (songs)")
    songs.run("insert into singles values (3, %s, 'Three')", ANNA)
    anna = claims(ANNA)
    version = Version(("3",), None, {"id": b"3"})
    assert await songs.seen([version], anna) == {anna: set()}


async def test_the_function_follows_its_table(songs: Songs) -> None:
    """A key that was renamed and got another type is asked as it is now."""
    songs.policy("auth.uid() = owner")
    anna = claims(ANNA)
    await songs.seen([songs.version(1)], anna)
    songs.run("alter table songs rename id to number; alter table songs alter number type text; ")
    version = Version(("1",), None, {"number": b"1"})
    assert await songs.seen([version], anna) == {anna: {0}}


async def test_everybody_is_asked_about_their_own_rows_only(songs: Songs) -> None:
    """A filter has narrowed down what matters to whom; the answers keep the numbers."""
    songs.policy("true or auth.uid() = owner")
    anna, ben, pair = claims(ANNA), claims(BEN), (songs.oid(), "authenticated")
    access = (await songs.visibility.access({pair}))[pair]
    assert access is not None
    question = Question(access, [songs.version(1), songs.version(2)], {anna: [1], ben: [0, 1]})
    assert await songs.visibility.ask({pair[0]}, [question], ()) == [{anna: {1}, ben: {0, 1}}]


async def test_a_large_audience_is_asked_in_chunks(songs: Songs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is left out at the seams."""
    monkeypatch.setattr(module, "CHUNK", 3)
    songs.policy("auth.uid() = owner")
    viewers = [claims(UUID(int=n)) for n in range(20)]
    found = await songs.seen([songs.version(1), songs.version(2)], *viewers)
    assert {viewer: seen for viewer, seen in found.items() if seen} == {claims(ANNA): {0}, claims(BEN): {1}}


async def test_nobody_is_asked_before_a_transaction_is_over(songs: Songs, database_url: str) -> None:
    """The stream tells of a commit before it can be seen: asking then would lose the change."""
    songs.policy("auth.uid() = owner")
    anna, oid = claims(ANNA), songs.oid()
    access = (await songs.visibility.access({(oid, "authenticated")}))[oid, "authenticated"]
    assert access is not None
    with psycopg.connect(database_url) as other:
        row = other.execute("select pg_current_xact_id()::xid::text::int8").fetchone()
        assert row is not None
        other.execute("insert into songs values (3, %s)", (ANNA,))
        question = Question(access, [Version(("3",), str(row[0]), {})], {anna: [0]})
        answer = asyncio.create_task(songs.visibility.ask({oid}, [question], {row[0]}))
        done, _ = await asyncio.wait([answer], timeout=0.05)
        other.commit()
    assert (done, await answer) == (set(), [{anna: {0}}])


async def test_a_lost_connection_is_told_and_made_again(songs: Songs) -> None:
    """The functions of the old one are gone, and are made again too."""
    songs.policy("auth.uid() = owner")
    anna, version = claims(ANNA), songs.version(1)
    await songs.seen([version], anna)
    songs.run(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name like '%visibility'"
    )
    with pytest.raises(psycopg.OperationalError):
        await songs.seen([version], anna)
    assert await songs.seen([version], anna) == {anna: {0}}


async def test_the_login_sees_nothing_itself(songs: Songs) -> None:
    """Between two viewers nobody is asked: the session has no rights of its own."""
    songs.policy("true")
    async with songs.visibility._dedicated.hold() as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute("select count(*) from songs")
