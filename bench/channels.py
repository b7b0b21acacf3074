"""How long 1,000 channels take to join over one socket: all at once, or one after the other.

    python bench/channels.py [--channels 1000] [--rounds 3]

Starts `backbeat serve` beside a temporary Postgres. Both ways join the same channels on the same server in
the same run, in turns, with a new socket each time. The opponent waits for each reply before it sends the
next join, as every client has to whose server does one thing at a time. Public channels need no database;
private ones ask it about their policies. A heartbeat is sent right behind the thousand joins: when it is
answered before the last of them is, joins that wait for the database hold up nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import websockets

from backbeat.local.postgres import EmbeddedPostgres
from backbeat.postgres.database import migrate
from backbeat.tokens.keys import ApiKeys
from backbeat.tokens.verifier import sign

SECRET = "super-secret-jwt-token-with-at-least-32-characters-long"  # noqa: S105 - publicly known
LOGIN, PASSWORD = "bench", "bench"
PORT = 26_831
URL = f"ws://127.0.0.1:{PORT}/socket/websocket?vsn=2.0.0&apikey={ApiKeys.of(SECRET).anon}"
POLICY = """
create policy hear on realtime.messages for select to authenticated
  using ((select realtime.topic()) like 'room-%');
"""


@contextmanager
def server(database_url: str, channels: int) -> Iterator[None]:
    """Run the installed command, without the limits that would be in the way."""
    command = [Path(sys.executable).parent / "backbeat", "serve", "--port", PORT, "--jwt-secret", SECRET]
    command += ["--database-url", database_url, "--max-channels", channels, "--max-joins-per-second", 0]
    process = subprocess.Popen([str(part) for part in command], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


async def connect() -> websockets.ClientConnection:
    """Open a socket; tried again until the server is there."""
    while True:
        try:
            return await websockets.connect(URL, compression=None, max_queue=None)
        except OSError:
            await asyncio.sleep(0.02)


class Joins:
    """The joins of one round.

    Args:
        channels: how many.
        private: whether the policies are asked.
    """

    def __init__(self, channels: int, *, private: bool) -> None:
        claims = {"role": "authenticated", "sub": "00000000-0000-0000-0000-00000000000a"}
        token = sign({**claims, "exp": int(time.time()) + 3600}, SECRET)
        payload = {"access_token": token, "config": {"private": private}}
        self.frames = [
            json.dumps([str(number), str(number), f"realtime:room-{number}", "phx_join", payload])
            for number in range(1, channels + 1)
        ]

    async def all_at_once(self) -> tuple[float, float]:
        """Send every join, then a heartbeat, then read the answers.

        Returns:
            Seconds until the last join was answered, and until the heartbeat was.
        """
        heard = 0.0
        async with await connect() as socket:
            started = time.perf_counter()
            for frame in self.frames:
                await socket.send(frame)
            sent = time.perf_counter()
            await socket.send('[null,"heartbeat","phoenix","heartbeat",{}]')
            missing = len(self.frames)
            while missing or not heard:
                message = json.loads(await socket.recv())
                if message[1] == "heartbeat":
                    heard = time.perf_counter() - sent
                else:
                    missing -= is_join_reply(message)
            return time.perf_counter() - started, heard

    async def one_after_the_other(self) -> float:
        """Wait for each answer before the next join is sent.

        Returns:
            Seconds until the last join was answered.
        """
        async with await connect() as socket:
            started = time.perf_counter()
            for frame in self.frames:
                await socket.send(frame)
                while not is_join_reply(json.loads(await socket.recv())):
                    pass
            return time.perf_counter() - started


def is_join_reply(message: list[Any]) -> bool:
    """Whether this is the answer to a join; a refused one ends the comparison."""
    if message[3] != "phx_reply":
        return False
    if message[4]["status"] != "ok":
        raise SystemExit(f"{message[2]}: {message[4]['response']}")
    return True


async def compare(options: argparse.Namespace) -> None:
    """Measure both ways in turns and print the ratios."""
    for private in (False, True):
        joins = Joins(options.channels, private=private)
        await joins.all_at_once()
        together, beats, apart = [], [], []
        for _ in range(options.rounds):
            seconds, beat = await joins.all_at_once()
            together.append(seconds)
            beats.append(beat)
            apart.append(await joins.one_after_the_other())
        ratios = sorted(slow / fast for slow, fast in zip(apart, together, strict=True))
        print(
            f"{options.channels} {'private' if private else 'public '} channels"
            f"   all at once {statistics.median(together) * 1000:6.0f} ms"
            f"   one after the other {statistics.median(apart) * 1000:6.0f} ms"
            f"   ratio {statistics.median(ratios):4.1f} (from {ratios[0]:.1f} to {ratios[-1]:.1f})"
            f"   heartbeat meanwhile {statistics.median(beats) * 1000:5.1f} ms"
        )


def main() -> None:
    """Start a Postgres and a server of our own, and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--channels", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with EmbeddedPostgres.ephemeral() as postgres:
        asyncio.run(migrate(postgres.url, login=LOGIN, password=PASSWORD))
        with psycopg.connect(postgres.url) as connection:
            connection.execute(POLICY)
        login = f"postgresql://{LOGIN}:{PASSWORD}@127.0.0.1:{urlsplit(postgres.url).port}/postgres"
        with server(login, options.channels):
            asyncio.run(compare(options))


if __name__ == "__main__":
    main()
