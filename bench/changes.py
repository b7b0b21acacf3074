"""Row changes under row level security, from COMMIT to the last of many subscribers.

    python bench/changes.py [--subscribers 100 1000] [--large] [--seconds 1.0]

Starts a temporary Postgres and three servers in turns. Each has the same stream, the same fan-out and the
same clients: one socket, one user and one token for each subscriber. They differ in how they find out who may
see a row:

* `ours`: as it ships.
* `asked`: ours with the classification of policies off: every subscriber is asked about every row.
* `loop`: the opponent, re-created from the description of the original (specification of the server, 12.4,
  12.5 and 13). For each change all subscriptions to the table are put into an array, and the JSON is made in
  SQL. For each subscription its filters are looked at, and a prepared statement is executed with its role and
  claims set. Up to 100 changes a poll. It is spared the reading of the slot by SQL.

The rows of three tables are for everybody, for their owner, and for the ten members of a room. For each the
bench prints changes and deliveries a second while a queue is drained, the CPU time of Postgres and of the
server for a change, the ratio to the loop, and the time from before the INSERT to the delivery at 100 changes
a second, if the server is fast enough for that. The clients run on the same machine, in one process.

`--memory` prints instead what one subscription adds to the server beyond its channel.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import re
import secrets
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, cast
from unittest.mock import patch
from urllib.parse import urlsplit
from uuid import UUID

import psutil
import psycopg
import uvloop
from psycopg import sql

from backbeat.cli import logs
from backbeat.cli.process import run
from backbeat.load.file_limit import raise_file_limit
from backbeat.local.postgres import EmbeddedPostgres
from backbeat.postgres.changes import Changes, Delivery
from backbeat.postgres.database import migrate
from backbeat.postgres.pgoutput import Insert
from backbeat.postgres.subscriptions import Subscription, Subscriptions
from backbeat.postgres.transactions import Transaction
from backbeat.protocol.bindings import Binding, parse_binding
from backbeat.server.app import create_app, realtime_routes, run_realtime
from backbeat.server.http import HttpServer
from backbeat.server.limits import LimitSettings
from backbeat.server.listener import listen
from backbeat.server.settings import Settings
from backbeat.tokens.claims import Claims
from backbeat.tokens.keys import ApiKeys
from backbeat.tokens.verifier import sign
from backbeat.websocket.frames import Opcode, client_frame

SECRET = "super-secret-jwt-token-with-at-least-32-characters-long"  # noqa: S105 - publicly known
LOGIN, PASSWORD = "bench", "bench"
WAYS: Final = ("loop", "asked", "ours")
TABLES: Final = {"everybody": "true", "own rows": "auth.uid() = col", "membership": "in (select …)"}
MEMBERS = 10
"""How many users share a room."""
RATE = 100
"""Changes a second while the latency is measured."""
POLL: Final = (0.1, 100)
"""Seconds between the polls of the original, and how many changes it takes at once."""
AT_ONCE = 50
"""How many sockets are being opened at the same time."""
PATIENCE = 60.0
"""Seconds after which a delivery that is missing ends the bench."""

SCHEMA = """
create table "everybody" (id bigint primary key, owner uuid, room int, body text);
create table "own rows" (like "everybody" including all);
create table "membership" (like "everybody" including all);
create table members (member uuid, room int, primary key (member, room));
create index on members (room);
alter table "everybody" enable row level security;
alter table "own rows" enable row level security;
alter table "membership" enable row level security;
create policy it on "everybody" for select to authenticated using (true);
create policy it on "own rows" for select to authenticated using (auth.uid() = owner);
create policy it on "membership" for select to authenticated
  using (room in (select m.room from members m where m.member = auth.uid()));
grant select on "everybody", "own rows", "membership", members to authenticated;
grant select on members to service_role;
insert into "everybody"
  select -n, lpad(n::text, 32, '0')::uuid, n % 1000, repeat('x', 100) from generate_series(1, 20000) n;
insert into "own rows" select * from "everybody";
insert into "membership" select * from "everybody";
alter publication supabase_realtime add table "everybody", "own rows", "membership";
create procedure write(target text, first bigint, count int, users int, rooms int) language plpgsql as $$
begin
  for n in first .. first + count - 1 loop
    execute format('insert into %I values ($1, $2, $3, $4)', target)
      using n, lpad((n % users)::text, 32, '0')::uuid, n % rooms, repeat('x', 100);
    commit;
  end loop;
end $$;
"""

ORIGINAL = """
create schema original;
create type original.filter as (name text, op text, value text);
create type original.value as (name text, type text, value jsonb, selectable boolean);
create table original.subscriptions (
  id bigint primary key, entity regclass not null, filters original.filter[] not null default '{}',
  claims jsonb not null, role regrole not null, action text not null default '*', selected text[]
);
create index on original.subscriptions (entity);
create function original.matches(columns original.value[], filters original.filter[]) returns boolean
language sql stable as $matches$
  select cardinality(filters) = 0 or (
    select coalesce(bool_and(c.value #>> '{}' = f.value), false)
    from unnest(filters) f left join unnest(columns) c on c.name = f.name
  )
$matches$;
create function original.see(entity_ regclass, keys bigint[])
returns table (key bigint, subscriptions bigint[], data jsonb)
language plpgsql as $see$
declare
  everybody original.subscriptions[];
  columns original.value[];
  record_ jsonb;
  role_ regrole;
  selected_ text[];
  id_ bigint;
  claims_ jsonb;
  seen boolean;
begin
  foreach key in array keys loop
    execute format('select to_jsonb(t) from %s t where id = %L::bigint', entity_, key) into record_;
    everybody := array(
      select s from original.subscriptions s where s.entity = entity_ and s.action in ('*', 'INSERT')
    );
    for role_, selected_ in select distinct s.role, s.selected from unnest(everybody) s loop
      columns := array(
        select row(a.attname, t.typname, record_ -> a.attname::text,
          has_column_privilege(role_, entity_, a.attnum, 'SELECT'))::original.value
        from pg_attribute a join pg_type t on t.oid = a.atttypid
        where a.attrelid = entity_ and a.attnum > 0 and not a.attisdropped
      );
      data := (
        select jsonb_build_object(
          'schema', 'public', 'table', c.relname, 'type', 'INSERT', 'errors', null,
          'commit_timestamp', to_char(now() at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
          'columns', (
            select jsonb_agg(jsonb_build_object('name', v.name, 'type', v.type))
            from unnest(columns) v where v.selectable
          ),
          'record', (select jsonb_object_agg(v.name, v.value) from unnest(columns) v where v.selectable)
        )
        from pg_class c where c.oid = entity_
      );
      subscriptions := '{}';
      if exists (select from pg_prepared_statements where name = 'original') then
        deallocate original;
      end if;
      execute format(
        'prepare original as select exists (select from %s where id = %L::bigint)', entity_, key
      );
      for id_, claims_ in
        select s.id, s.claims from unnest(everybody) s
        where s.role = role_ and s.selected is not distinct from selected_
          and original.matches(columns, s.filters)
      loop
        perform set_config('role', role_::text, true), set_config('request.jwt.claims', claims_::text, true);
        execute 'execute original' into seen;
        if seen then
          subscriptions := subscriptions || id_;
        end if;
      end loop;
      perform set_config('role', 'none', true);
      return next;
    end loop;
  end loop;
end $see$;
"""


def user(number: int) -> str:
    """The id of a user."""
    return str(UUID(f"{number:032d}"))


# The servers ------------------------------------------------------------------------------------------------


class Loop(Changes):
    """The opponent: every subscription is asked on its own about every change.

    Args:
        database_url: the login of the server.
        deliver: takes what is to be sent.
        admin_url: the superuser, as whom the original works.
        options: the rest of what `Changes` is made with.
    """

    def __init__(
        self,
        database_url: str,
        *,
        deliver: Callable[[Sequence[Delivery]], Awaitable[None]],
        admin_url: str,
        **options: Any,
    ) -> None:
        super().__init__(database_url, deliver=deliver, **options)
        self._send = deliver
        self._admin_url = admin_url
        self._admin: psycopg.AsyncConnection[Any] | None = None
        self._lock = asyncio.Lock()
        self._known: dict[int, tuple[Hashable, int]] = {}
        self._next_poll = 0.0

    async def subscribe(self, subscriber: Hashable, bindings: Sequence[Binding], claims: Claims) -> None:
        """Write subscriptions into the table that the loop reads."""
        async with self._lock:
            if self._admin is None:
                self._admin = await psycopg.AsyncConnection.connect(self._admin_url, autocommit=True)
            if any(known == subscriber for known, _ in self._known.values()):
                return  # Again, for the server has looked at the publication in the meantime.
            for binding in bindings:
                number = len(self._known) + 1
                self._known[number] = subscriber, binding.id
                await self._admin.execute(
                    "insert into original.subscriptions (id, entity, claims, role)"
                    " values (%s, %s::text::regclass, %s, %s::text::regrole)",
                    (number, f'"{binding.table}"', claims.json, claims.role),
                )

    def unsubscribe(self, subscriber: Hashable) -> None:
        """Leave the subscriptions where they are: nobody leaves while it is measured."""

    async def handle(self, transactions: Sequence[Transaction]) -> None:
        """Poll: at once while there is something, otherwise from time to time."""
        interval, most = POLL
        loop = asyncio.get_running_loop()
        rows = [
            event for transaction in transactions for event in transaction.events if isinstance(event, Insert)
        ]
        for start in range(0, len(rows), most):
            await asyncio.sleep((self._next_poll - loop.time()) % interval if self._idle(loop) else 0)
            by_table: dict[str, list[Insert]] = {}
            for row in rows[start : start + most]:
                by_table.setdefault(row.relation.table, []).append(row)
            for table, members in by_table.items():
                await self._send(await self._see(table, members))
            self._next_poll = loop.time()

    def _idle(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether the last poll found nothing, so that the next one waits for its time."""
        return loop.time() - self._next_poll > POLL[0] / 10

    async def _see(self, table: str, rows: Sequence[Insert]) -> list[Delivery]:
        assert self._admin is not None
        keys = [int(row.new[0]) for row in rows if isinstance(row.new[0], bytes)]
        there = sql.SQL("select count(*) from {} where id = any(%s)").format(sql.Identifier(table))
        async with self._lock:
            # The stream tells of a commit a moment before anybody sees what was committed.
            while True:
                cursor = await self._admin.execute(there, (keys,))
                if await cursor.fetchone() == (len(keys),):
                    break
                await asyncio.sleep(0.001)
            cursor = await self._admin.execute(
                "select * from original.see(%s::text::regclass, %s::bigint[])", (f'"{table}"', keys)
            )
            found = await cursor.fetchall()
        return [
            Delivery(
                json.dumps(data, separators=(",", ":")).encode(),
                [(self._known[number][0], (self._known[number][1],)) for number in seen],
            )
            for _, seen, data in found
            if seen
        ]

    async def aclose(self) -> None:
        """Close the connections."""
        await super().aclose()
        if self._admin is not None:
            await self._admin.close()


def serve(way: str, database_url: str, admin_url: str) -> None:
    """Run one of the servers, and print its port."""
    logs.configure("warning")
    made = {
        "ours": Changes,
        "asked": partial(Changes, classify=False),
        "loop": partial(Loop, admin_url=admin_url),
    }
    nobody_is_slow = 1 << 30
    settings = Settings(
        database_url=database_url,
        jwt_secret=SECRET,
        write_buffer_bytes=nobody_is_slow,
        idle_timeout=3600,
        limits=LimitSettings(max_concurrent_users=0, max_joins_per_second=0),
    )
    listeners = listen("127.0.0.1", 0, flag="")

    async def main(stop: asyncio.Event) -> None:
        with patch("backbeat.server.feed.Changes", made[way]):
            async with run_realtime(settings) as (realtime, feed):
                await feed.streaming.wait()
                print(listeners[0].getsockname()[1], flush=True)
                server = HttpServer(create_app(realtime_routes(realtime, feed)), listeners, realtime=realtime)
                await server.run_until(stop)

    run(main)


@contextmanager
def server(way: str, database_url: str, admin_url: str) -> Iterator[tuple[int, psutil.Process]]:
    """Have a server in a process of its own; yields its port."""
    command = [sys.executable, __file__, "--serve", way, database_url, admin_url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline()), psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


# The clients ------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What all clients together have received.

    Attributes:
        missing: how many deliveries are still to come.
        done: set when none is.
        sent: when each row was written, by its key, while latencies are measured.
        latencies: seconds.
    """

    missing: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)
    sent: dict[int, float] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)

    def expect(self, deliveries: int) -> None:
        """Begin to wait for deliveries."""
        self._no_more_than_that()
        self.missing = deliveries
        self.done.clear()

    def received(self, count: int) -> None:
        """Count deliveries."""
        self.missing -= count
        if self.missing <= 0:
            self.done.set()

    async def wait(self) -> None:
        """Wait for what is expected."""
        async with asyncio.timeout(PATIENCE):
            await self.done.wait()
        self._no_more_than_that()

    def _no_more_than_that(self) -> None:
        if self.missing < 0:
            raise SystemExit(f"Somebody was sent {-self.missing} changes more than they may see.")


CHANGE: Final = b'[null,null,"realtime:rows","postgres_changes",'
KEY = re.compile(rb'"id":(\d+)')


class Client(asyncio.Protocol):
    """A subscriber that does as little as it can: it counts frames.

    Args:
        tally: where to count.
        join: the frame that joins.
        sampled: whether this one looks at the rows while latencies are measured.

    Attributes:
        subscribed: done when the server has confirmed the subscription.
    """

    def __init__(self, tally: Tally, join: bytes, *, sampled: bool) -> None:
        self._tally = tally
        self._join = join
        self._sampled = sampled
        self._data = b""
        self._upgraded = False
        self.subscribed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        # uvloop's transports are no subclasses of asyncio's.
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(upgrade())

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever is waiting learns of it."""
        if not self.subscribed.done():
            self.subscribed.set_exception(exc or ConnectionError("closed by the server"))

    def data_received(self, data: bytes) -> None:
        """Walk over the frames."""
        if self._data:
            data = self._data + data
        position = 0
        if not self._upgraded:
            position = data.find(b"\r\n\r\n") + 4
            if position < 4:
                self._data = data
                return
            self._upgraded = True
            assert self.transport is not None
            self.transport.write(self._join)
        count, size = 0, len(data)
        while size - position >= 2:
            length, start = data[position + 1], position + 2
            if length == 126:
                if size - position < 4:
                    break
                length, start = int.from_bytes(data[position + 2 : position + 4]), position + 4
            elif length == 127:
                raise RuntimeError("no frame is that long")
            if size - start < length:
                break
            position = start + length
            if not self.subscribed.done():
                self._begin(data[start:position])
            if not data.startswith(CHANGE, start):
                continue
            count += 1
            if self._sampled and self._tally.sent:
                found = KEY.search(data, start, position)
                if found and (sent := self._tally.sent.get(int(found[1]))):
                    self._tally.latencies.append(time.perf_counter() - sent)
        self._data = data[position:]
        if count:
            self._tally.received(count)

    def _begin(self, message: bytes) -> None:
        if b"Subscribed to PostgreSQL" in message:
            self.subscribed.set_result(None)
        elif b'"status":"error"' in message:
            self.subscribed.set_exception(RuntimeError(message.decode()))


def upgrade() -> bytes:
    """What opens a WebSocket."""
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    return (
        f"GET /socket/websocket?vsn=2.0.0&apikey={ApiKeys.of(SECRET).anon} HTTP/1.1\r\nHost: bench\r\n"
        f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: {key}\r\n\r\n"
    ).encode()


def join(number: int) -> bytes:
    """The frame with which a user joins, for the changes of all tables."""
    claims = {
        "role": "authenticated",
        "aud": "authenticated",
        "sub": user(number),
        "exp": int(time.time()) + 36_000,
        "iat": int(time.time()),
        "iss": "http://127.0.0.1:54321/auth/v1",
        "email": f"user-{number}@example.com",
        "phone": "",
        "app_metadata": {"provider": "email", "providers": ["email"]},
        "user_metadata": {"email": f"user-{number}@example.com", "email_verified": True, "name": "x" * 40},
        "session_id": user(number + 1_000_000),
        "amr": [{"method": "password", "timestamp": int(time.time())}],
        "is_anonymous": False,
    }
    changes = [{"event": "INSERT", "schema": "public", "table": table} for table in TABLES]
    payload = {"access_token": sign(claims, SECRET), "config": {"postgres_changes": changes}}
    text = json.dumps(["1", "1", "realtime:rows", "phx_join", payload])
    return client_frame(Opcode.TEXT, text.encode(), os.urandom(4))


async def connect(port: int, tally: Tally, subscribers: int) -> list[Client]:
    """Open one socket for each subscriber, and wait for all subscriptions."""
    turn = asyncio.Semaphore(AT_ONCE)
    loop = asyncio.get_running_loop()

    async def one(number: int) -> Client:
        async with turn:
            make = partial(Client, tally, join(number), sampled=number % max(1, subscribers // 100) == 0)
            _, client = await loop.create_connection(make, "127.0.0.1", port)
            await client.subscribed
            return client

    async with asyncio.timeout(PATIENCE):
        return await asyncio.gather(*(one(number) for number in range(subscribers)))


# Measuring --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What was measured of one server, with one table.

    Attributes:
        changes: drained in a second.
        deliveries: in a second.
        postgres: microseconds of CPU for a change.
        server: microseconds of CPU for a change.
        latencies: milliseconds at `RATE` changes a second; empty when the server is slower than that.
    """

    changes: float
    deliveries: float
    postgres: float
    server: float
    latencies: list[float]

    def row(self, opponent: Result) -> str:
        """Write a line of the table."""
        latency = "      falls behind"
        if self.latencies:
            ordered = sorted(self.latencies)
            p50, p99 = statistics.median(ordered), ordered[int(len(ordered) * 0.99)]
            latency = f"{p50:8.1f} {p99:8.1f}"
        return (
            f"{self.changes:10,.0f} {self.changes / opponent.changes:7.1f} {self.deliveries:12,.0f}"
            f" {self.postgres:10,.0f} {self.server:10,.0f} {latency}"
        )


def cpu(processes: Sequence[psutil.Process]) -> float:
    """Seconds of CPU that processes have used."""
    times = [process.cpu_times() for process in processes]
    return sum(each.user + each.system for each in times)


class Bench:
    """The subscribers of one server, and a writer.

    Args:
        writer: writes rows as the superuser.
        tally: where the clients count.
        subscribers: how many there are.
        postgres: the processes of Postgres.
        server: the process of the server.
        seconds: how long to measure.
    """

    next_key = 1

    def __init__(
        self,
        writer: psycopg.AsyncConnection[Any],
        tally: Tally,
        subscribers: int,
        *,
        postgres: psutil.Process,
        server: psutil.Process,
        seconds: float,
    ) -> None:
        self._writer = writer
        self._tally = tally
        self._subscribers = subscribers
        self._postgres = postgres
        self._server = server
        self._seconds = seconds

    def _fan_out(self, table: str) -> int:
        return {"everybody": self._subscribers, "own rows": 1, "membership": MEMBERS}[table]

    async def _drain(self, table: str, count: int) -> float:
        """Write rows as fast as Postgres can, and wait until everybody has theirs."""
        first, Bench.next_key = Bench.next_key, Bench.next_key + count
        self._tally.expect(count * self._fan_out(table))
        started = time.perf_counter()
        rooms = self._subscribers // MEMBERS
        await self._writer.execute(
            "call write(%s, %s, %s, %s, %s)", (table, first, count, self._subscribers, rooms)
        )
        await self._tally.wait()
        return time.perf_counter() - started

    async def _latencies(self, table: str) -> list[float]:
        count = int(RATE * self._seconds)
        self._tally.sent, self._tally.latencies = {}, []
        self._tally.expect(count * self._fan_out(table))
        statement = sql.SQL("insert into {} values (%s, %s, %s, repeat('x', 100))").format(
            sql.Identifier(table)
        )
        rooms = self._subscribers // MEMBERS
        started = time.perf_counter()
        for turn in range(count):
            await asyncio.sleep(max(0.0, started + turn / RATE - time.perf_counter()))
            key, Bench.next_key = Bench.next_key, Bench.next_key + 1
            self._tally.sent[key] = time.perf_counter()
            # Users in another order than they connected, and each of them sampled.
            owner = key * max(1, self._subscribers // 100) % self._subscribers
            await self._writer.execute(statement, (key, user(owner), owner % rooms))
        await self._tally.wait()
        self._tally.sent = {}
        return [seconds * 1000 for seconds in self._tally.latencies]

    async def measure(self, table: str) -> Result:
        """Measure with one table. Queues get longer until draining one takes long enough."""
        count = 10
        while True:
            postgres = [self._postgres, *self._postgres.children(recursive=True)]
            before = cpu(postgres), cpu([self._server])
            elapsed = await self._drain(table, count)
            after = cpu(postgres), cpu([self._server])
            if elapsed > self._seconds / 2:
                break
            count = int(count * min(10.0, self._seconds / elapsed)) + 1
        latencies = await self._latencies(table) if count / elapsed > RATE * 1.2 else []
        return Result(
            count / elapsed,
            count * self._fan_out(table) / elapsed,
            (after[0] - before[0]) / count * 1e6,
            (after[1] - before[1]) / count * 1e6,
            latencies,
        )


async def compare(postgres: EmbeddedPostgres, login: str, subscribers: int, seconds: float) -> None:
    """Measure all servers with one number of subscribers, and print a table."""
    results: dict[tuple[str, str], Result] = {}
    assert postgres.pid is not None
    async with await psycopg.AsyncConnection.connect(postgres.url, autocommit=True) as writer:
        await writer.execute("truncate members, original.subscriptions")
        rooms = subscribers // MEMBERS
        await writer.execute(
            "insert into members select lpad(n::text, 32, '0')::uuid, n %% %s from generate_series(0, %s) n",
            (rooms, subscribers - 1),
        )
        await writer.execute("vacuum analyze")
        for way in WAYS:
            with server(way, login, postgres.url) as (port, process):
                tally = Tally()
                clients = await connect(port, tally, subscribers)
                bench = Bench(
                    writer,
                    tally,
                    subscribers,
                    postgres=psutil.Process(postgres.pid),
                    server=process,
                    seconds=seconds,
                )
                for table in TABLES:
                    results[table, way] = await bench.measure(table)
                for client in clients:
                    if client.transport is not None:
                        client.transport.close()
    print(f"\n{subscribers:,} subscribers, as many users")
    print(
        f"{'policy':28} {'changes/s':>10} {'x loop':>7} {'deliveries/s':>12} {'PG us':>10} {'server us':>10}"
        f" {'p50 ms':>8} {'p99 ms':>8}"
    )
    for table, policy in TABLES.items():
        for way in WAYS:
            print(f"{policy:20} {way:7} {results[table, way].row(results[table, 'loop'])}", flush=True)


# Memory -----------------------------------------------------------------------------------------------------


def memory(count: int = 10_000) -> None:
    """Print what a subscription to a table takes beside the channel, which has the token and the claims."""
    claims = [Claims.of({"role": "authenticated", "sub": user(n), "exp": 2**31}) for n in range(count)]
    members: list[Hashable] = [object() for _ in range(count)]
    binding = parse_binding({"table": "own rows"}, 12_345_678)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    subscriptions = Subscriptions()
    for member, whose in zip(members, claims, strict=True):
        wanted = Subscription(member, whose, binding, 0, "public", "own rows")
        subscriptions.replace(member, [wanted])
    taken = (tracemalloc.get_traced_memory()[0] - before) / len(subscriptions)
    tracemalloc.stop()
    print(f"{taken:,.0f} bytes for each of {count:,} subscriptions")


def main() -> None:
    """Start a Postgres, and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--subscribers", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--large", action="store_true", help="10,000 subscribers too, which takes minutes")
    parser.add_argument("--seconds", type=float, default=1.0, help="to drain, and to measure latencies")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    raise_file_limit()
    if options.serve:
        serve(*options.serve)
    elif options.memory:
        memory()
    else:
        with EmbeddedPostgres.ephemeral() as postgres:
            asyncio.run(migrate(postgres.url, login=LOGIN, password=PASSWORD))
            with psycopg.connect(postgres.url) as connection:
                connection.execute(SCHEMA)
                connection.execute(ORIGINAL)
            login = f"postgresql://{LOGIN}:{PASSWORD}@127.0.0.1:{urlsplit(postgres.url).port}/postgres"
            for subscribers in options.subscribers + [10_000] * options.large:
                uvloop.run(compare(postgres, login, subscribers, options.seconds))


if __name__ == "__main__":
    main()
