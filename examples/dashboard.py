"""A live dashboard: the last reading of each sensor, as soon as it is committed.

backbeat dev                           # in one terminal
python examples/dashboard.py           # in another
python examples/dashboard.py feed      # and one more, which writes a reading every second

Who may see the readings is a policy of the table. This one lets everybody; with another, only the rows that
it lets through would arrive here.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import random
from dataclasses import dataclass

import psycopg
from rich.live import Live
from rich.table import Column, Table

from backbeat import Change, RealtimeClient
from backbeat.client.events import Gap, Insert
from backbeat.local.project import DEFAULT_PUBLISHABLE_KEY

SCHEMA = """
create table if not exists readings (
  id bigint generated always as identity primary key, sensor text not null, value float8 not null);
alter table readings enable row level security;
drop policy if exists "everybody reads" on readings;
create policy "everybody reads" on readings for select using (true);
grant select on readings to anon, authenticated;
do $$ begin alter publication supabase_realtime add table readings;
exception when duplicate_object then null; end $$
"""


@dataclass
class Reading:
    """A row of `readings`."""

    id: int
    sensor: str
    value: float


def put(last: dict[str, Reading], reading: Reading) -> None:
    """Take a reading; an older one does not replace a newer one."""
    if (before := last.get(reading.sensor)) is None or before.id < reading.id:
        last[reading.sensor] = reading


def draw(last: dict[str, Reading]) -> Table:
    """Draw the last reading of each sensor."""
    table = Table("Sensor", Column("Value", justify="right"), Column("Reading", justify="right"))
    for sensor, reading in sorted(last.items()):
        table.add_row(sensor, f"{reading.value:.2f}", str(reading.id))
    return table


async def watch(url: str, key: str, database_url: str) -> None:
    """Show the dashboard, and keep it current."""
    last: dict[str, Reading] = {}
    async with RealtimeClient(url, key) as client:
        channel = client.channel("dashboard")
        async with channel.events(Change("readings", event="INSERT", model=Reading), Gap) as events:
            # First subscribe, then read: what is written in between is there twice, and nothing is missing.
            await channel.subscribe()
            await read(last, database_url)
            with Live(draw(last), auto_refresh=False) as live:
                async for event in events:
                    match event:
                        case Insert(new=reading):
                            put(last, reading)
                        case Gap(missing="changes"):
                            await read(last, database_url)
                    live.update(draw(last), refresh=True)


async def read(last: dict[str, Reading], database_url: str) -> None:
    """Read the last reading of each sensor."""
    query = "select distinct on (sensor) id, sensor, value from readings order by sensor, id desc"
    async with await psycopg.AsyncConnection.connect(database_url) as database:
        async for row in await database.execute(query):
            put(last, Reading(*row))


async def feed(database_url: str) -> None:
    """Write a reading every second."""
    insert = "insert into readings (sensor, value) values (%s, %s)"
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as database:
        for sensor in itertools.cycle(["attic", "cellar", "garden"]):
            await database.execute(insert, (sensor, random.gauss(20, 3)))
            print(sensor)
            await asyncio.sleep(1)


def main() -> None:
    """Make the table, then watch it or write to it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="?", choices=["watch", "feed"], default="watch")
    parser.add_argument("--url", default="http://127.0.0.1:54321")
    parser.add_argument("--key", default=DEFAULT_PUBLISHABLE_KEY)
    parser.add_argument("--database-url", default="postgresql://postgres:postgres@127.0.0.1:54322/postgres")
    given = parser.parse_args()
    with psycopg.connect(given.database_url, autocommit=True) as connection:
        connection.execute(SCHEMA)
    database_url = given.database_url
    asyncio.run(feed(database_url) if given.what == "feed" else watch(given.url, given.key, database_url))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
