"""What `backbeat dev` costs, and how fast a commit reaches a subscriber.

    python bench/dev.py [--changes 300]

Starts the installed command cold, on a temporary database, and prints: seconds to the first confirmed change
subscription, memory of all its processes, and milliseconds from COMMIT to the delivery of a row at two users
whose policy lets them see it. The opponent of the last figure is a reader that polls the table in the same
run, every 100 ms, as the polling design does at its best.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import psycopg
import websockets

from backbeat.tokens.keys import ApiKeys
from backbeat.tokens.verifier import sign

SECRET = "super-secret-jwt-token-with-at-least-32-characters-long"  # noqa: S105 - publicly known
PORT, DATABASE_PORT = 26_821, 26_822
DATABASE = f"postgresql://postgres:postgres@127.0.0.1:{DATABASE_PORT}/postgres"
USERS = [f"00000000-0000-0000-0000-00000000000{digit}" for digit in "ab"]
SCHEMA = """
create table members (user_id uuid primary key);
create table songs (id bigint generated always as identity primary key, title text);
alter table songs enable row level security;
create policy members on songs for select to authenticated
  using (auth.uid() in (select user_id from members));
alter publication supabase_realtime add table songs;
"""


def percentile(values: list[float], share: float) -> float:
    """A percentile of measured values."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def resident_of(process: psutil.Process) -> int:
    """The memory a process takes, its share of what it shares counted; 0 for one that has just ended."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.NoSuchProcess:
        return 0


async def subscribe(user: str) -> websockets.ClientConnection:
    """Connect, join, and wait until row changes flow; retried until the server is there."""
    token = sign({"role": "authenticated", "sub": user, "exp": int(time.time()) + 3600}, SECRET)
    url = f"ws://127.0.0.1:{PORT}/realtime/v1/websocket?vsn=2.0.0&apikey={ApiKeys.of(SECRET).anon}"
    changes = [{"event": "INSERT", "schema": "public", "table": "songs"}]
    while True:
        try:
            socket = await websockets.connect(url)
            break
        except OSError:
            await asyncio.sleep(0.02)
    join = {"access_token": token, "config": {"postgres_changes": changes}}
    await socket.send(json.dumps(["1", "1", "realtime:songs", "phx_join", join]))
    while True:
        message = json.loads(await socket.recv())
        if message[3] == "system":
            if message[4]["status"] != "ok":
                raise SystemExit(message[4]["message"])
            return socket


async def latencies(
    sockets: list[websockets.ClientConnection], count: int
) -> tuple[list[float], list[float]]:
    """Milliseconds from COMMIT to delivery at each user, and to the next poll of a polling reader."""
    arrivals: list[tuple[int, float]] = []
    found: list[tuple[int, float]] = []
    committed: dict[int, float] = {}
    done = asyncio.Event()

    async def listen(socket: websockets.ClientConnection) -> None:
        for _ in range(count):
            message: Any = json.loads(await socket.recv())
            arrivals.append((message[4]["data"]["record"]["id"], time.perf_counter()))

    async def poll(reader: psycopg.AsyncConnection[Any]) -> None:
        seen = 0
        while not done.is_set():
            await asyncio.sleep(0.1)
            rows = await (await reader.execute("select id from songs where id > %s", (seen,))).fetchall()
            found.extend((number, time.perf_counter()) for (number,) in rows)
            seen = max([seen, *(number for (number,) in rows)])

    async with (
        await psycopg.AsyncConnection.connect(DATABASE, autocommit=True) as writer,
        await psycopg.AsyncConnection.connect(DATABASE, autocommit=True) as reader,
    ):
        await writer.execute("insert into members select unnest(%s::uuid[])", (USERS,))
        polling = asyncio.create_task(poll(reader))
        listening = [asyncio.create_task(listen(socket)) for socket in sockets]
        for _ in range(count):
            row = await (
                await writer.execute("insert into songs (title) values ('x') returning id")
            ).fetchone()
            assert row is not None
            committed[row[0]] = time.perf_counter()
            await asyncio.sleep(0.01)
        await asyncio.gather(*listening)
        done.set()
        await polling
    delivered, polled = (
        [(now - committed[number]) * 1000 for number, now in seen] for seen in (arrivals, found)
    )
    return delivered, polled


async def main(count: int) -> None:
    """Measure and print."""
    seed = Path(__file__).with_suffix(".sql")
    seed.write_text(SCHEMA)
    command = [Path(sys.executable).parent / "backbeat", "dev", "--ephemeral", "--seed", seed]
    command += ["--port", str(PORT), "--db-port", str(DATABASE_PORT), "--change-delay", "0"]
    started = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)  # noqa: ASYNC220
    try:
        sockets = [await subscribe(user) for user in USERS]
        subscribed = time.perf_counter() - started
        delivered, polled = await latencies(sockets, count)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        resident = sum(map(resident_of, family)) / 1e6
        print(f"cold start to two confirmed subscriptions   {subscribed:6.2f} s")
        print(f"memory of all {len(family)} processes (PSS)          {resident:6.0f} MB")
        for name, values in (("delivered", delivered), ("polled every 100 ms", polled)):
            print(
                f"commit to row, {name:<20} p50 {statistics.median(values):7.2f} ms   "
                f"p99 {percentile(values, 0.99):7.2f} ms"
            )
        ratio = statistics.median(polled) / statistics.median(delivered)
        print(f"polled to delivered, medians                {ratio:6.1f} times")
        for socket in sockets:
            await socket.close()
    finally:
        process.terminate()
        process.wait(20)
        seed.unlink()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--changes", type=int, default=300)
    asyncio.run(main(parser.parse_args().changes))
