"""Tables, policies, users and what happens to them: made from a seed, and nothing but the seed."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from uuid import UUID

from backbeat.tokens.claims import Claims

__all__ = [
    "CREW",
    "ROLES",
    "Define",
    "End",
    "Filter",
    "Gate",
    "Script",
    "Settle",
    "Step",
    "Subscribe",
    "Table",
    "Unsubscribe",
    "Want",
    "Write",
    "make",
]

ROLES = ("authenticated", "anon", "service_role")
CREW = "fuzz_crew"
"""A role that others may be members of. Roles belong to the cluster: whoever runs scripts creates it."""

WRITERS = 3

UUIDS = [str(UUID(int=n)) for n in (0xA, 0xB, 0xC, 0xD)]

POOLS: dict[str, list[str]] = {
    "int": ["1", "2", "3", "4", "-7"],
    "bigint": ["1", "2", "9007199254740993", "-1"],
    "uuid": UUIDS,
    "text": ["", "a", "A", "a,b", "NULL", '"q"', "back\\slash", " ü🎸", "{x}", "it's"],
    "varchar(9)": ["", "a", "b ", "%", "_"],
    "char(4)": ["a", "ab", "abcd"],
    "numeric": ["1", "1.0", "1.50", "1.5", "-0.10", "12345678901234567890.5", "NaN"],
    # Without -0, which differs from 0 for us, and not in JSON.
    "float8": ["0", "1.5", "1e300", "NaN"],
    "boolean": ["t", "f"],
    "date": ["2024-02-29", "0044-03-15 BC", "infinity"],
    "timestamptz": ["2024-01-01 12:00:00+02", "2024-01-01 10:00:00.5+00", "-infinity"],
    "interval": ["1 day", "24:00:00", "1 mon", "30 days"],
    "mood": ["happy", "sad"],
    "small": ["1", "2", "3"],
    "inet": ["10.0.0.1", "10.0.0.0/8", "::1"],
    "int4[]": ["{}", "{1,2}", "{NULL}"],
    "numrange": ["[1.0,2]", "[1,2]", "empty"],
    "jsonb": ['{"n": 1.0}', '{"n": 1}', "[]", '"x"'],
}
"""Values of the types that tables are made of: few, so that rows meet, and among them equal ones that are
written differently."""

KEY_TYPES = (
    "int",
    "int",
    "int",
    "bigint",
    "uuid",
    "text",
    "varchar(9)",
    "char(4)",
    "numeric",
    "float8",
    "boolean",
    "date",
    "timestamptz",
    "interval",
    "mood",
    "small",
    "inet",
    "numrange",
    "jsonb",
    "int4[]",
)

FUNCTIONS = """
create function my_bands() returns setof int stable security definer language sql set search_path = '' as
  $$ select band from public.members where member = auth.uid() $$;
create function plays(b int) returns boolean stable language plpgsql as
  $$ begin return exists (select from public.members m where m.band = b and m.member = auth.uid()); end $$;
create function gullible() returns uuid {immutable} language sql as
  $$ select (current_setting('request.jwt.claims', true)::jsonb ->> 'sub')::uuid $$;
-- Volatile: the planner would call it for its estimates, and fail where no row ever gets that far.
create function level() returns int volatile language plpgsql as
  $$ begin return (auth.jwt() ->> 'level')::int; end $$;
-- Whoever climbs is the login from there on, in the middle of a query: what follows must not fail for that.
grant usage on schema auth to public;
create function climb() returns boolean volatile cost 0.0001 language plpgsql as $$ begin
  if auth.uid() = '00000000-0000-0000-0000-00000000000a' then
    perform set_config('role', session_user, true);
  end if;
  return true; end $$;
create function switch() returns boolean stable language sql as $$ select true $$;
"""

LOG = """
create type mood as enum ('happy', 'sad');
create domain small as int check (value < 10);
create table written (
  seq bigint generated always as identity primary key, xid xid8 not null, tab text not null,
  kind text not null, identity text not null, old jsonb, new jsonb
);
create index on written (xid);
create function write_down() returns trigger language plpgsql as $$ begin
  insert into public.written (xid, tab, kind, identity, old, new) values (
    pg_current_xact_id(), tg_table_name, tg_op, (select relreplident from pg_class where oid = tg_relid),
    case when tg_op <> 'INSERT' then to_jsonb(old) end, case when tg_op <> 'DELETE' then to_jsonb(new) end
  );
  return null; end $$;
create table members (band int, member uuid, level int);
create table bands (id int, leader uuid);
alter table members enable row level security;
alter table bands enable row level security;
"""

NOTE = "execute function write_down()"

CONDITIONS = [
    "true",
    "true",
    "false",
    "auth.uid() = owner",
    "auth.uid() = owner",
    "(select auth.uid()) = owner",
    "owner = (auth.jwt() ->> 'sub')::uuid",
    "owner is distinct from auth.uid()",
    "band in (select band from members where member = auth.uid())",
    "band in (select m.band from members m)",
    "exists (select from members m where m.band = {table}.band and m.member = auth.uid() and m.level > 1)",
    "not exists (select from members m where m.band = {table}.band)",
    "band in (select id from bands where leader = auth.uid() or id in (select m.band from members m))",
    "band in (select my_bands())",
    "plays(band)",
    "gullible() = owner",
    "level() >= band",
    "10 / band > 3",
    "auth.role() = 'authenticated'",
    "current_user = 'anon' or owner = auth.uid()",
    "secret = 'open'",
    "secret = 'open' or auth.uid() = owner",
    "title like 'a%%'",
    "climb() and auth.uid() = owner",
    "switch() and band > 1",
]


def literal(text: str | None) -> str:
    """Write an SQL literal."""
    return "null" if text is None else "'" + text.replace("'", "''") + "'"


def ident(name: str) -> str:
    """Write an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the publication."""

    name: str
    key: tuple[str, ...]
    columns: dict[str, str]
    """Types by name."""

    @property
    def sql(self) -> str:
        return "public." + ident(self.name)


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter as a client writes it, and as SQL does: an expression about the row `r`."""

    table: str
    columns: tuple[str, ...]
    text: str
    sql: str


@dataclass(frozen=True, slots=True)
class Want:
    """A binding."""

    event: str
    table: str | None
    filter: Filter | None = None
    select: tuple[str, ...] | None = None

    @property
    def entry(self) -> dict[str, Any]:
        """Write it as a client does."""
        entry: dict[str, Any] = {"event": self.event, "schema": "public"}
        if self.table is not None:
            entry["table"] = self.table
        if self.filter is not None:
            entry["filter"] = self.filter.text
        if self.select is not None:
            entry["select"] = list(self.select)
        return entry


@dataclass(frozen=True, slots=True)
class Write:
    """A statement in the transaction of a writer, which begins where none is open."""

    writer: int
    sql: str


@dataclass(frozen=True, slots=True)
class End:
    """The end of a writer's transaction."""

    writer: int
    how: str


@dataclass(frozen=True, slots=True)
class Define:
    """A transaction that changes definitions, and perhaps rows."""

    sql: str


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Somebody subscribes, or does so again with another token."""

    who: str
    claims: Claims
    wants: tuple[Want, ...]


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Somebody leaves."""

    who: str


@dataclass(frozen=True, slots=True)
class Gate:
    """What the stream tells is held back, or let through."""

    open: bool


@dataclass(frozen=True, slots=True)
class Settle:
    """Everything committed so far is handled before anything else happens."""


Step: TypeAlias = Write | End | Define | Subscribe | Unsubscribe | Gate | Settle


@dataclass(frozen=True, slots=True)
class Script:
    """All there is to a case; playing any part of `steps` makes sense."""

    seed: int
    setup: str
    tables: dict[str, Table]
    steps: list[Step]

    def __str__(self) -> str:
        """Show everything, to be read by those who look for the cause."""
        lines = [f"-- seed {self.seed}", self.setup.strip()]
        for step in self.steps:
            match step:
                case Write(writer, sql):
                    lines.append(f"/* writer {writer} */ {sql};")
                case End(writer, how):
                    lines.append(f"/* writer {writer} */ {how};")
                case Define(sql):
                    lines.append(f"begin; {sql}; commit;")
                case Subscribe(who, claims, wants):
                    entries = [want.entry for want in wants]
                    lines.append(f"-- {who} subscribes as {claims.json} to {json.dumps(entries)}")
                case _:
                    lines.append(f"-- {step}")
        return "\n".join(lines)


def make(seed: int, *, calm: bool, steps: int = 60) -> Script:
    """Make a script.

    Args:
        seed: of everything.
        calm: whether everything is handled before the next transaction; otherwise it is held back at times.
        steps: how many, more or less.
    """
    return _Maker(random.Random(seed)).make(  # noqa: S311 (no secret)
        seed, calm=calm, steps=steps
    )


@dataclass
class _Maker:
    rng: random.Random
    tables: dict[str, Table] = field(default_factory=dict)
    policies: dict[str, list[str]] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)
    named: int = 0
    conditions: list[str] = field(init=False)

    def __post_init__(self) -> None:
        # Where one policy changes the role and another asks for it, the plan decides who sees what.
        left_out = "climb" if self.chance(0.7) else "current_user"
        self.conditions = [each for each in CONDITIONS if left_out not in each]

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def make(self, seed: int, *, calm: bool, steps: int) -> Script:
        # One function wrongly declared is enough for no plan to be used twice, in the whole database.
        immutable = self.rng.choice(["immutable", "stable"])
        setup = [LOG, FUNCTIONS.replace("{immutable}", immutable)]
        setup += [
            f"insert into members values {self._member()}, {self._member()}, {self._member()}",
            f"insert into bands values (1, '{UUIDS[0]}'), (2, '{UUIDS[1]}')",
            "create policy own on members for select using (member = auth.uid())",
            "create policy those on bands for select using ("
            + self.rng.choice(
                ["true", "leader = auth.uid()", "id in (select band from members where level > 1)"]
            )
            + ")",
        ]
        for name in ["songs", 'The "Shows"'][: self.rng.choice([1, 1, 2])]:
            setup += self._create(name)
        for _ in range(self.rng.randint(0, 6)):
            setup.append(self._insert(self._table()))
        made: list[Step] = [self._subscribe(f"subscriber {n}") for n in range(self.rng.randint(4, 9))]
        while len(made) < steps:
            made += self._next(calm=calm)
        made += [End(writer, "commit") for writer in sorted(self.open)]
        made.append(Settle())
        return Script(seed, ";\n".join(text.strip().rstrip(";") for text in setup) + ";", self.tables, made)

    # Tables -------------------------------------------------------------------------------------------------

    def _create(self, name: str) -> list[str]:
        rng = self.rng
        key = ["id"] if self.chance(0.7) else ["id", "owner" if self.chance(0.3) else "Second Part"]
        columns = {"id": rng.choice(KEY_TYPES)}
        if "Second Part" in key:
            columns["Second Part"] = rng.choice(KEY_TYPES)
        columns |= {"owner": "uuid", "band": "int", "title": "text", "secret": "text"}
        columns["extra"] = rng.choice(list(POOLS))
        names = list(columns)
        rng.shuffle(names)
        rng.shuffle(key)
        table = Table(name, tuple(key), {name: columns[name] for name in names})
        self.tables[name] = table
        self.policies[name] = []
        described = ", ".join(f"{ident(column)} {kind}" for column, kind in table.columns.items())
        statements = [
            f"create table {table.sql} ({described}, primary key ({', '.join(map(ident, key))}))",
            f"create trigger w after insert or update or delete on {table.sql} for each row {NOTE}",
            f"alter publication supabase_realtime add table {table.sql}",
        ]
        if self.chance(0.3):
            statements.append(f"alter table {table.sql} replica identity full")
        if self.chance(0.9):
            statements.append(f"alter table {table.sql} enable row level security")
        statements += [self._policy(table) for _ in range(rng.randint(1, 3))]
        if self.chance(0.3):
            statements.append(self._grant(table))
        return statements

    def _policy(self, table: Table) -> str:
        self.named += 1
        name = f"p{self.named}"
        self.policies[table.name].append(name)
        kind = "restrictive" if self.chance(0.2) else "permissive"
        to = self.rng.choice(["public", "public", "authenticated", "anon", "authenticated, anon", CREW])
        command = self.rng.choice(["select", "select", "all", "update"])
        return (
            f"create policy {name} on {table.sql} as {kind} for {command} to {to}"
            f" using ({self._condition(table)})"
        )

    def _condition(self, table: Table) -> str:
        condition = self.rng.choice(self.conditions)
        if self.chance(0.15) and "climb" not in condition:
            other = self.rng.choice([c for c in self.conditions if "climb" not in c])
            condition = f"({condition}) {self.rng.choice(['and', 'or'])} ({other})"
        return condition.replace("{table}", ident(table.name)).replace("%%", "%")

    def _grant(self, table: Table) -> str:
        role = self.rng.choice(["authenticated", "anon"])
        if self.chance(0.3):
            return f"grant select on {table.sql} to {role}"
        kept = [column for column in table.columns if column in table.key or self.chance(0.7)]
        if self.chance(0.15):
            kept.remove(self.rng.choice(table.key))
        revoke = f"revoke select on {table.sql} from {role}"
        names = ", ".join(map(ident, kept))
        every = ", ".join(map(ident, table.columns))
        revoke += f"; revoke select ({every}) on {table.sql} from {role}"
        return f"{revoke}; grant select ({names}) on {table.sql} to {role}" if kept else revoke

    def _table(self) -> Table:
        return self.rng.choice(list(self.tables.values()))

    # Writes -------------------------------------------------------------------------------------------------

    def _value(self, table: Table, column: str) -> str:
        if column not in table.key and self.chance(0.15):
            return "null"
        if column == "band":
            return self.rng.choice(["1", "2", "3", "0"])
        if column == "secret":
            return literal(self.rng.choice(["open", "closed", "x"]))
        return literal(self.rng.choice(POOLS[table.columns[column]]))

    def _row(self, table: Table) -> str:
        return "(" + ", ".join(self._value(table, column) for column in table.columns) + ")"

    def _insert(self, table: Table) -> str:
        rows = ", ".join(self._row(table) for _ in range(self.rng.choice([1, 1, 2, 4])))
        return f"insert into {table.sql} values {rows} on conflict do nothing"

    def _where(self, table: Table) -> str:
        if self.chance(0.15):
            return "true"
        if self.chance(0.3):
            return f"owner = '{self.rng.choice(UUIDS)}'"
        column = self.rng.choice(table.key)
        return f"{ident(column)} = {self._value(table, column)}"

    def _update(self, table: Table) -> str:
        others = [column for column in table.columns if column not in table.key]
        column = self.rng.choice([*others, "owner", "secret"])
        if column in table.key:
            column = "title"
        change = f"{ident(column)} = {self._value(table, column)}"
        if self.chance(0.3):
            second = self.rng.choice([name for name in others if name != column])
            change += f", {ident(second)} = {self._value(table, second)}"
        if self.chance(0.1):
            change = "title = title"
        return f"update {table.sql} set {change} where {self._where(table)}"

    def _move(self, table: Table) -> str:
        """Change a key, unless it is taken or several rows would get it."""
        column = self.rng.choice(table.key)
        others = [ident(name) for name in table.key if name != column]
        same = "".join(f" and o.{name} = t.{name}" for name in others)
        value, kind = self._value(table, column), table.columns[column]
        change = f"{ident(column)} = {value}"
        if "owner" not in table.key and self.chance(0.5):
            change += f", owner = {self._value(table, 'owner')}"
        return (
            f"update {table.sql} t set {change} where {ident(column)} = {self._value(table, column)}"
            f" and (t.{ident(column)} = {value}::{kind} or not exists"
            f" (select from {table.sql} o where o.{ident(column)} = {value}::{kind}{same}))"
        )

    def _rewritten(self) -> list[str]:
        """Write a row and, in the same transaction, give it to somebody else, with its key spelled anew."""
        table, rng = self._table(), self.rng
        row = {column: self._value(table, column) for column in table.columns}
        place = " and ".join(f"{ident(name)} = {row[name]}" for name in table.key)
        column = rng.choice([name for name in table.columns if name != "owner"])
        kind = table.columns[column]
        pool = ", ".join(map(literal, POOLS[kind]))
        change = (
            f"{ident(column)} = (select s from unnest(array[{pool}]::{kind}[]) s"
            f" where s = {row[column]}::{kind} order by s::text {rng.choice(['desc', 'asc'])} limit 1)"
            if column in table.key and kind != "int4[]"
            else f"{ident(column)} = {self._value(table, column)}"
        )
        if "owner" not in table.key:
            change += f", owner = '{rng.choice(UUIDS)}'"
        return [
            f"insert into {table.sql} values ({', '.join(row.values())}) on conflict do nothing",
            f"update {table.sql} set {change} where {place}",
        ]

    def _member(self) -> str:
        return f"({self.rng.randint(1, 3)}, '{self.rng.choice(UUIDS)}', {self.rng.randint(0, 3)})"

    def _statement(self) -> str:
        table, rng = self._table(), self.rng
        pick = rng.random()
        if pick < 0.33:
            return self._insert(table)
        if pick < 0.6:
            return self._update(table)
        if pick < 0.7:
            return self._move(table)
        if pick < 0.8:
            return f"delete from {table.sql} where {self._where(table)}"
        if pick < 0.9:
            return self._membership()
        keys = ", ".join(map(ident, table.key))
        return (
            f"insert into {table.sql} values {self._row(table)} on conflict ({keys})"
            f" do update set secret = excluded.secret, title = {self._value(table, 'title')}"
        )

    def _membership(self) -> str:
        rng = self.rng
        return rng.choice(
            [
                f"insert into members values {self._member()}",
                f"delete from members where band = {rng.randint(1, 3)} and member = '{rng.choice(UUIDS)}'",
                f"update members set level = {rng.randint(0, 3)} where member = '{rng.choice(UUIDS)}'",
                f"update bands set leader = '{rng.choice(UUIDS)}' where id = {rng.randint(1, 2)}",
            ]
        )

    def _transaction(self, writer: int) -> list[Step]:
        """Go on with a writer's transaction, or begin one; perhaps end it."""
        rng = self.rng
        steps: list[Step] = []
        self.open.add(writer)
        for _ in range(rng.choice([1, 1, 2, 3, 5])):
            if self.chance(0.15):
                steps += [Write(writer, statement) for statement in self._rewritten()]
            elif self.chance(0.25):
                steps.append(Write(writer, "savepoint s"))
                steps += [Write(writer, self._statement()) for _ in range(rng.randint(1, 2))]
                steps.append(Write(writer, rng.choice(["rollback to savepoint s", "release savepoint s"])))
            else:
                steps.append(Write(writer, self._statement()))
        if self.chance(0.75):
            steps.append(End(writer, "commit" if self.chance(0.88) else "rollback"))
            self.open.discard(writer)
        return steps

    # What else happens --------------------------------------------------------------------------------------

    def _next(self, *, calm: bool) -> list[Step]:
        pick = self.rng.random()
        if pick < 0.68:
            return self._transaction(self.rng.randrange(WRITERS))
        if pick < 0.82:
            ends: list[Step] = [End(writer, "commit") for writer in sorted(self.open)]
            self.open.clear()
            return [*ends, Define(self._definition())]
        if pick < 0.88 or calm:
            who = f"subscriber {self.rng.randrange(9)}"
            return [Unsubscribe(who)] if self.chance(0.25) else [self._subscribe(who)]
        return [Settle()] if self.chance(0.25) else [Gate(self.chance(0.4))]

    def _definition(self) -> str:
        table = self._table()
        known = self.policies[table.name]
        definitions = [
            lambda: self._policy(table),
            lambda: self._grant(table),
            lambda: self._grant(table),
            lambda: f"grant select on {table.sql} to authenticated, anon",
            lambda: (
                f"alter table {table.sql} {self.rng.choice(['enable', 'enable', 'disable'])}"
                " row level security"
            ),
            lambda: f"alter table {table.sql} replica identity {self.rng.choice(['full', 'default'])}",
            lambda: (
                "create or replace function switch() returns boolean stable language sql as"
                f" $$ select {self.rng.choice(['true', 'false', 'null::boolean'])} $$"
            ),
            lambda: f"grant {CREW} to authenticated with inherit {self.rng.choice(['true', 'false'])}",
            lambda: f"revoke {CREW} from authenticated",
            self._membership,
        ]
        if known:
            name = self.rng.choice(known)
            definitions += [
                lambda: f"alter policy {name} on {table.sql} using ({self._condition(table)})",
                lambda: f"alter policy {name} on {table.sql} using ({self._condition(table)})",
                lambda: self._drop(table, name),
            ]
        statement = self.rng.choice(definitions)()
        # Rows written in the same transaction become visible together with the definition.
        if self.chance(0.3):
            statement = f"{self._statement()}; {statement}"
        if self.chance(0.2):
            statement = f"{statement}; {self._statement()}"
        return statement

    def _drop(self, table: Table, name: str) -> str:
        self.policies[table.name].remove(name)
        return f"drop policy {name} on {table.sql}"

    # Subscribers --------------------------------------------------------------------------------------------

    def _subscribe(self, who: str) -> Subscribe:
        rng = self.rng
        values: dict[str, Any] = {
            "role": rng.choice([*["authenticated"] * 5, "anon", "anon", "service_role"])
        }
        values["exp"] = 2**31
        if self.chance(0.9):
            values["sub"] = rng.choice(UUIDS)
        if self.chance(0.5):
            values["level"] = rng.choice([1, 2, "3", "high"])
        table = self._table()
        others = [column for column in table.columns if column not in table.key]
        select = tuple(sorted(rng.sample(others, 2))) if self.chance(0.15) else None
        wants = []
        for _ in range(rng.choice([1, 1, 2, 3])):
            event = rng.choice(["*", "*", "*", "INSERT", "UPDATE", "DELETE"])
            if select is not None:
                wants.append(Want(event, table.name, self._filter(table), select))
            elif self.chance(0.3):
                wants.append(Want(event, None))
            else:
                another = self._table()
                wants.append(Want(event, another.name, self._filter(another)))
        return Subscribe(who, Claims.of(values), tuple(wants))

    def _filter(self, table: Table) -> Filter | None:
        if self.chance(0.6):
            return None
        parts = [self._condition_of_filter(table) for _ in range(self.rng.choice([1, 1, 2]))]
        columns, texts, sqls = zip(*parts, strict=True)
        return Filter(table.name, columns, ",".join(texts), " and ".join(f"({each})" for each in sqls))

    def _condition_of_filter(self, table: Table) -> tuple[str, str, str]:
        rng = self.rng
        plain = [
            c for c, kind in table.columns.items() if kind in ("int", "bigint", "uuid", "text", "boolean")
        ]
        column = rng.choice(plain)
        kind, name = table.columns[column], f"r.{ident(column)}"
        operator = rng.choice(["eq", "eq", "neq", "in", "is", "isdistinct"])
        values = [rng.choice(POOLS[kind]) for _ in range(3)]
        if column == "band":
            values = [rng.choice(["1", "2", "3"]) for _ in range(3)]
        if column == "secret":
            values = [rng.choice(["open", "closed"]) for _ in range(3)]
        one = f"{literal(values[0])}::{kind}"
        text, sql = {
            "eq": (_quoted(values[0]), f"{name} = {one}"),
            "neq": (_quoted(values[0]), f"{name} <> {one}"),
            "in": (
                "(" + ",".join(map(_quoted, values)) + ")",
                f"{name} in ({', '.join(f'{literal(value)}::{kind}' for value in values)})",
            ),
            "is": ("null", f"{name} is null"),
            "isdistinct": (_quoted(values[0]), f"{name} is distinct from {one}"),
        }[operator]
        if self.chance(0.25):
            return column, f"{column}=not.{operator}.{text}", f"not ({sql})"
        return column, f"{column}={operator}.{text}", sql


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
