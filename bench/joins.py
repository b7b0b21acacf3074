"""How long Postgres needs to authorize joins of private channels: one round trip, or one for each statement.

Both ways ask the same question of the same policies through the same pool in the same run, in turns, so that
what else the machine does falls on both. This is the loopback: over a network, where a round trip costs more,
the difference grows.

Run it with `.venv/bin/python bench/joins.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import psycopg
from psycopg.errors import InsufficientPrivilege

from backbeat.local.postgres import EmbeddedPostgres
from backbeat.postgres.authorize import Authorizer, Grants, Permissions
from backbeat.postgres.database import Database, become, migrate
from backbeat.tokens.claims import Claims

LOGIN, PASSWORD = "bench", "bench"
ROOMS = 1_000
USERS = 10_000

POLICIES = f"""
create table public.rooms (topic text, user_id uuid, primary key (topic, user_id));
grant select on public.rooms to authenticated;
insert into public.rooms
  select 'room:' || n % {ROOMS}, lpad(n::text, 32, '0')::uuid from generate_series(0, {USERS - 1}) n;
create policy hear on realtime.messages for select to authenticated using (
  exists (select from public.rooms r
    where r.user_id = (select auth.uid()) and r.topic = (select realtime.topic()))
);
create policy speak on realtime.messages for insert to authenticated with check (
  extension = 'broadcast' and exists (select from public.rooms r
    where r.user_id = (select auth.uid()) and r.topic = (select realtime.topic()))
);
analyze public.rooms;
"""

Ask = Callable[[str, Claims], Awaitable[Permissions]]


def statement_by_statement(database: Database) -> Ask:
    """The same question in the way it is usually written: two transactions, each statement awaited."""

    async def ask(topic: str, claims: Claims) -> Permissions:
        ids = [uuid.uuid4(), uuid.uuid4()]
        settings = {"realtime_topic": topic, "request_headers": "{}"}
        async with database.connection() as connection:
            async with connection.transaction(force_rollback=True):
                await connection.execute("set local role supabase_realtime_admin")
                await connection.execute(
                    "insert into realtime.messages (id, topic, extension)"
                    " values (%s, %s, 'broadcast'), (%s, %s, 'presence')",
                    (ids[0], topic, ids[1], topic),
                )
                await become(connection, claims, **settings)
                rows = await (
                    await connection.execute(
                        "select extension from realtime.messages where id = any(%s)", (ids,)
                    )
                ).fetchall()
            writable = set()
            async with connection.transaction(force_rollback=True):
                await become(connection, claims, **settings)
                for extension in ("broadcast", "presence"):
                    try:
                        async with connection.transaction():
                            await connection.execute(
                                "insert into realtime.messages (topic, extension) values (%s, %s)",
                                (topic, extension),
                            )
                    except InsufficientPrivilege:
                        continue
                    writable.add(extension)
        readable = {row[0] for row in rows}
        return Permissions(
            Grants("broadcast" in readable, "presence" in readable),
            Grants("broadcast" in writable, "presence" in writable),
        )

    return ask


def one_round_trip(database: Database) -> Ask:
    """What the server does."""
    authorizer = Authorizer(database)
    return lambda topic, claims: authorizer.probe(topic, claims, {})


def claims_of(number: int) -> Claims:
    """The claims of one of the users."""
    values = {"sub": str(uuid.UUID(int=int(f"0x{number:032d}", 16))), "role": "authenticated", "exp": 4e9}
    return Claims.of({**values, "email": f"user{number}@example.com", "aud": "authenticated"})


async def measure(ask: Ask, joins: int, clients: int) -> tuple[float, list[float]]:
    """Let clients join one after the other.

    Returns:
        Joins per second, and the seconds each one took.
    """
    seconds: list[float] = []
    numbers = iter(range(joins))

    async def client() -> None:
        for number in numbers:
            started = time.perf_counter()
            permissions = await ask(f"room:{number % ROOMS}", claims_of(number % USERS))
            seconds.append(time.perf_counter() - started)
            assert permissions.read == Grants(True, True), permissions
            assert permissions.write == Grants(True, False), permissions

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    return joins / (time.perf_counter() - started), seconds


async def compare(url: str, options: argparse.Namespace) -> None:
    """Measure both ways in turns, and print the ratios."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(POLICIES.encode())
    login = f"postgresql://{LOGIN}:{PASSWORD}@127.0.0.1:{urlsplit(url).port}/postgres"
    database = Database(login, size=options.connections)
    await database.open()
    ways = {
        "statement by statement": statement_by_statement(database),
        "one round trip": one_round_trip(database),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    latencies: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, ask in ways.items():
            rate, seconds = await measure(ask, options.joins, options.clients)
            rates[name].append(rate)
            latencies[name] += seconds
    await database.aclose()
    for name in ways:
        cuts = statistics.quantiles(latencies[name], n=100)
        print(
            f"{name:24s} {statistics.median(rates[name]):7.0f} joins/s"
            f"   p50 {cuts[49] * 1e3:7.2f} ms   p99 {cuts[98] * 1e3:7.2f} ms"
        )
    ratios = sorted(one / other for other, one in zip(*rates.values(), strict=True))
    median = statistics.median(ratios)
    print(f"one round trip is {median:.1f} times as fast (from {ratios[0]:.1f} to {ratios[-1]:.1f})")


def main() -> None:
    """Start a Postgres of our own and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--joins", type=int, default=500, help="joins per round and way")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=4, help="how many join at the same time")
    parser.add_argument("--connections", type=int, default=2, help="size of the pool")
    parser.add_argument(
        "--delay", type=float, default=0.0, help="round trip time to Postgres, in milliseconds"
    )
    options = parser.parse_args()
    with EmbeddedPostgres.ephemeral() as server:
        asyncio.run(migrate(server.url, login=LOGIN, password=PASSWORD))
        asyncio.run(compare(server.url, options))


if __name__ == "__main__":
    main()
