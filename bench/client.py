"""Our client beside `realtime` from PyPI and `@supabase/realtime-js` on Node: one server, one run, in turns.

    make install-tests && python bench/client.py [--rounds 3] [--flat]

Starts a temporary Postgres and a server of ours without limits; each client runs in a process of its own,
`bench/clients/`. What is measured:

* `received/s`: broadcasts of about 100 bytes that a callback gets, on one channel. The client is stopped
  (SIGSTOP) while the messages are sent, and let go when the server holds them all: neither the sender nor the
  server is what it waits for. `CPU` is what the client uses for 1,000 of them, in milliseconds.
  `async for` takes them from a stream instead.
* `round trips/s`: broadcasts sent to oneself, each when the one before is back. Mostly the server and the
  kernel.
* `joins/s`: channels joined over one socket, all asked for at once. Ours paces joins to what servers allow;
  that is switched off.
* `KiB/channel`: how much larger the process is with these channels joined (unique set size, after a
  collection of garbage).

The opponent for every ratio is `realtime`. The Python clients run on asyncio's own loop, and ours on uvloop
too. The JavaScript client has the transport `ws`.

`--flat` prints instead what our client holds before and after 1,000 lost connections with ten channels, and
before and after 10,000 channels that were joined and removed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import secrets
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psutil
from websockets.sync.client import ClientConnection, connect

from backbeat.cli import logs
from backbeat.cli.process import run
from backbeat.client import ClientSettings, RealtimeClient
from backbeat.client.events import Resumed
from backbeat.client.transport import Socket, WebSocketTransport
from backbeat.local.postgres import EmbeddedPostgres
from backbeat.postgres.database import migrate
from backbeat.protocol.codec import V2, encode_user_broadcast_push
from backbeat.server.app import create_app, realtime_routes, run_realtime
from backbeat.server.http import HttpServer
from backbeat.server.limits import LimitSettings
from backbeat.server.listener import listen
from backbeat.server.settings import Settings
from backbeat.tokens.keys import ApiKeys
from backbeat.websocket.frames import Opcode, client_frame

SECRET = "super-secret-jwt-token-with-at-least-32-characters-long"  # noqa: S105 - publicly known
KEY = ApiKeys.of(SECRET).anon
LOGIN, PASSWORD = "bench", "bench"
CLIENTS = Path(__file__).parent / "clients"
INTEROP = Path(__file__).parents[1] / "tests" / "interop"
WAYS: Final[Mapping[str, Sequence[object]]] = {
    "realtime": (INTEROP / ".venv/bin/python", CLIENTS / "realtime_py.py"),
    "realtime-js": ("node", "--expose-gc", CLIENTS / "realtime_js.mjs", INTEROP / "package.json"),
    "ours": (sys.executable, CLIENTS / "ours.py", "asyncio"),
    "ours, uvloop": (sys.executable, CLIENTS / "ours.py", "uvloop"),
}
OPPONENT: Final = "realtime"
PATIENCE = 60.0
"""Seconds after which a client that says nothing ends the bench."""
BATCH = 1000
"""Messages that are given to the kernel at once."""
PAYLOAD = b'{"x":0.25,"y":0.75,"user":"somebody","text":"what people draw on a board together"}'


# The server -------------------------------------------------------------------------------------------------


def serve(database_url: str) -> None:
    """Run a server without limits, and print its port."""
    logs.configure("warning")
    settings = Settings(
        database_url=database_url,
        jwt_secret=SECRET,
        write_buffer_bytes=1 << 30,
        idle_timeout=3600,
        max_channels=100_000,
        limits=LimitSettings(max_concurrent_users=0, max_joins_per_second=0, max_events_per_second=0),
    )
    listeners = listen("127.0.0.1", 0, flag="")

    async def main(stop: asyncio.Event) -> None:
        async with run_realtime(settings) as (realtime, feed):
            await feed.streaming.wait()
            print(listeners[0].getsockname()[1], flush=True)
            server = HttpServer(create_app(realtime_routes(realtime, feed)), listeners, realtime=realtime)
            await server.run_until(stop)

    run(main)


@contextmanager
def running(command: Sequence[object]) -> Iterator[subprocess.Popen[str]]:
    """Have a program run, and end it."""
    process = subprocess.Popen(
        [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


# The clients ------------------------------------------------------------------------------------------------


class Player:
    """A client in a process of its own.

    Args:
        process: the process.
        name: what to call it when it fails.
    """

    def __init__(self, process: subprocess.Popen[str], name: str) -> None:
        self._process = process
        self._name = name
        self._usage = psutil.Process(process.pid)

    def expect(self, word: str) -> None:
        """Wait until the client says something."""
        assert self._process.stdout is not None
        killer = threading.Timer(PATIENCE, self._process.kill)
        began = time.perf_counter()
        killer.start()
        said = self._process.stdout.readline().strip()
        killer.cancel()
        if said != word:
            seconds = time.perf_counter() - began
            raise SystemExit(f"{self._name} said {said!r} instead of {word!r}, after {seconds:.0f} seconds.")

    def go_on(self) -> None:
        """Let the client do what comes next."""
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)

    def stop(self) -> None:
        """Let the client do nothing."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go."""
        os.kill(self._process.pid, signal.SIGCONT)

    @property
    def memory(self) -> int:
        """Bytes that nobody else uses."""
        return int(self._usage.memory_full_info().uss)

    @property
    def cpu(self) -> float:
        """Seconds of processor time so far."""
        times = self._usage.cpu_times()
        return times.user + times.system


@dataclass
class Result:
    """What one run told.

    Attributes:
        rate: how many a second.
        cpu: processor time of the client for one, in seconds.
        memory: how much larger the client is for one, in bytes.
    """

    rate: float
    cpu: float
    memory: float


class Flood:
    """A sender who does as little as possible for each message.

    Args:
        socket: what to send through.
        topic: where to send.
    """

    def __init__(self, socket: ClientConnection, topic: str) -> None:
        self._topic = f"realtime:{topic}"
        self._socket = socket
        self._socket.send(V2.encode_push("1", "1", self._topic, "phx_join", b'{"config":{}}').decode())
        self._answered("1")
        broadcast = encode_user_broadcast_push("1", "2", self._topic, "said", PAYLOAD, is_json=True)
        self._frame = client_frame(Opcode.BINARY, broadcast, b"\x37\xfa\x21\x3d")

    def send(self, count: int) -> None:
        """Send so many broadcasts, and wait until the server has passed them on."""
        whole, rest = divmod(count, BATCH)
        batch = self._frame * BATCH
        for _ in range(whole):
            self._socket.socket.sendall(batch)
        self._socket.socket.sendall(self._frame * rest)
        self._socket.send('[null,"3","phoenix","heartbeat",{}]')
        self._answered("3")

    def _answered(self, ref: str) -> None:
        mark = f'"{ref}"'
        while mark not in str(self._socket.recv(timeout=60)):
            pass


def play(way: str, url: str, what: str, count: int) -> Result:
    """Run a client once.

    Args:
        way: which client.
        url: where the realtime service is.
        what: `receive`, `stream`, `talk` or `join`.
        count: how often.
    """
    topic = secrets.token_hex(8)
    with running([*WAYS[way], url, KEY, what, topic, count]) as process:
        player = Player(process, f"{way} ({what})")
        player.expect("ready")
        memory = player.memory
        if what in ("receive", "stream"):
            player.stop()
            address = f"{url.replace('http', 'ws', 1)}/websocket?vsn=2.0.0&apikey={KEY}"
            with connect(address, compression=None) as socket:
                Flood(socket, topic).send(count)
        cpu, began = player.cpu, time.perf_counter()
        player.go_on()
        player.resume()
        player.expect("done")
        seconds = time.perf_counter() - began
        return Result(count / seconds, (player.cpu - cpu) / count, (player.memory - memory) / count)


def compare(url: str, options: argparse.Namespace) -> None:
    """Run all clients in turns, and print the medians."""
    counts = {"receive": options.messages, "stream": options.messages, "talk": options.trips}
    counts["join"] = options.channels
    results: dict[tuple[str, str], list[Result]] = {}
    for number in range(options.rounds):
        for what, count in counts.items():
            for way in WAYS:
                if what == "stream" and not way.startswith("ours"):
                    continue
                # The slowest takes as long for a part as the others do for all.
                part = count // 5 if what == "receive" and way == OPPONENT else count
                results.setdefault((way, what), []).append(play(way, url, what, part))
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    print(
        f"{'':22} {'received/s':>11} {'ratio':>6} {'CPU ms':>7} {'round trips/s':>14} {'ratio':>6}"
        f" {'joins/s':>8} {'ratio':>6} {'KiB/channel':>12}"
    )
    for way in WAYS:
        row = [f"{way:22}"]
        for what, width in (("receive", 11), ("talk", 14), ("join", 8)):
            rate, base = (median(results[name, what], "rate") for name in (way, OPPONENT))
            row.append(f"{rate:{width},.0f} {rate / base:6.1f}")
            if what == "receive":
                row.append(f"{median(results[way, what], 'cpu') * 1e6:7.1f}")
        row.append(f"{median(results[way, 'join'], 'memory') / 1024:12.1f}")
        print(" ".join(row))
        if (way, "stream") in results:
            rate = median(results[way, "stream"], "rate")
            ratio = rate / median(results[OPPONENT, "receive"], "rate")
            cpu = median(results[way, "stream"], "cpu") * 1e6
            print(f"{way + ', async for':22} {rate:11,.0f} {ratio:6.1f} {cpu:7.1f}")


def median(results: Sequence[Result], name: str) -> float:
    """The median of one number over the rounds."""
    return float(statistics.median(getattr(result, name) for result in results))


# What stays ------------------------------------------------------------------------------------------------


class Fragile(WebSocketTransport):
    """Connections that can be cut."""

    last: Socket | None = None

    async def open(self, url: str, headers: Mapping[str, str]) -> Socket:
        """Open a connection over the network."""
        self.last = await super().open(url, headers)
        return self.last


def held() -> str:
    """What this process holds."""
    gc.collect()
    size = psutil.Process().memory_full_info().uss
    return f"{len(gc.get_objects()):9,} objects {len(asyncio.all_tasks()):4} tasks {size / 2**20:7.1f} MiB"


async def reconnects(url: str, count: int, every: int) -> None:
    """Lose connections, and print what is held."""
    transport = Fragile()
    settings = ClientSettings(backoff=(0.001,), joins_per_second=1_000_000)
    async with RealtimeClient(url, KEY, settings=settings, transport=transport) as client:
        channels = [client.channel(f"room-{n}") for n in range(10)]
        for channel in channels:
            channel.on_broadcast("said", print)
            await channel.subscribe()
        async with client.events(Resumed) as back:
            for number in range(count + 1):
                if number % every == 0:
                    print(f"{number:6,} lost connections    {held()}", flush=True)
                assert transport.last is not None
                transport.last.abort()
                for _ in channels:
                    await back.next(timeout=30)


async def removals(url: str, count: int, every: int) -> None:
    """Join and remove channels, and print what is held."""
    async with RealtimeClient(url, KEY, settings=ClientSettings(joins_per_second=1_000_000)) as client:
        await client.channel("stays").subscribe()
        for number in range(count + 1):
            if number % every == 0:
                print(f"{number:6,} channels removed    {held()}", flush=True)
            channel = client.channel(f"room-{number}")
            channel.on_broadcast("said", print)
            await channel.subscribe()
            await client.remove(channel)


async def flat(url: str) -> None:
    """Print what stays of what went."""
    await reconnects(url, 1000, 200)
    await removals(url, 10_000, 2000)


def main() -> None:
    """Start a Postgres and a server of our own, and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=200_000, help="to receive")
    parser.add_argument("--trips", type=int, default=3000)
    parser.add_argument("--channels", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--flat", action="store_true")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    with EmbeddedPostgres.ephemeral() as postgres:
        asyncio.run(migrate(postgres.url, login=LOGIN, password=PASSWORD))
        login = f"postgresql://{LOGIN}:{PASSWORD}@127.0.0.1:{urlsplit(postgres.url).port}/postgres"
        with running([sys.executable, __file__, "--serve", login]) as server:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{int(server.stdout.readline())}/socket"
            if options.flat:
                asyncio.run(flat(url))
            else:
                compare(url, options)


if __name__ == "__main__":
    main()
