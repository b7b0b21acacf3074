"""Fan-out beside its peers: the same load client against one server at a time, in turns, in one run.

    make install-tests && python bench/fanout.py [--rounds 3] [--seconds 1.0] [--only NAME ...]

Each contender is a process on the first core, the load client (`peers/load.c`) one on the second:

* `ours`: the installed `backbeat serve` beside a temporary Postgres: with its limits on (and high), its
  metrics, and a token of its own for each member, which is verified at the join.
* `C`: `peers/limit.c`, one prebuilt frame and one `send` for each delivery; no tokens, limits or metrics.
  What one thread can do that does not put messages together.
* `ws`: the WebSocket server that most of Node uses, as its documentation shows a broadcast.
* `socketio`: python-socketio on uvicorn and uvloop, as its documentation shows a room.

A payload has 200 bytes. A rate is what all members receive together, for each second of CPU time that the
server's process used, so that it matters less what else the machine does. Ratios are taken within a round;
the median is printed with the smallest and the largest, and in brackets what is wanted. `client` is the CPU
time the load client used in a second against ours: close to 1, it is what was measured, and not the server.
Every delivery is counted; one that is missing ends the bench.

Needs a C compiler, and Node with the packages of the interop tests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from urllib.parse import urlsplit
from urllib.request import urlopen

from backbeat.cli import logs
from backbeat.load.file_limit import raise_file_limit
from backbeat.local.postgres import EmbeddedPostgres
from backbeat.postgres.database import migrate
from backbeat.tokens.keys import ApiKeys
from backbeat.tokens.verifier import sign

SECRET = "super-secret-jwt-token-with-at-least-32-characters-long"  # noqa: S105 - publicly known
LOGIN, PASSWORD = "bench", "bench"
PORT: Final = 26_841
PEERS: Final = Path(__file__).parent / "peers"
INTEROP: Final = Path(__file__).parents[1] / "tests" / "interop" / "package.json"
CONTENDERS: Final = ("C", "ws", "socketio", "ours")
MANY: Final = 10_000_000
"""A limit that is on, and never reached."""
CONNECTIONS: Final = 10_100
"""As many as one workload has."""
PATIENCE: Final = 180.0
"""Seconds one measurement may take."""

Figures = Mapping[str, float]
Options = Sequence[object]


def per_cpu_second(name: str) -> Callable[[Figures], float]:
    """A rate for each second of the server's CPU time."""
    return lambda figures: figures[name] / max(figures["server_cpu"], 0.001)


@dataclass(frozen=True)
class Workload:
    """What is measured.

    Attributes:
        title: what it is.
        load: the options of the load client.
        figure: what is read from what it prints.
        wanted: the ratio of ours to a peer that is wanted, by peer.
        less: whether less is better.
        peers: who competes.
    """

    title: str
    load: Options
    figure: Callable[[Figures], float]
    wanted: Mapping[str, float]
    less: bool = False
    peers: Sequence[str] = ("C", "ws", "socketio")


def fanout(title: str, members: int, window: int, *, of_c: float, of_ws: float, topics: int = 1) -> Workload:
    """Messages that are published as fast as they arrive."""
    load = ("--members", members, "--window", window, "--topics", topics)
    return Workload(title, load, per_cpu_second("deliveries"), {"C": of_c, "ws": of_ws})


EIGHT: Final = ("--members", 1000, "--window", 8)
WORKLOADS: Final[Mapping[str, Workload]] = {
    "one": fanout("1 topic, 1,000 members, 1 in flight", 1000, 1, of_c=0.65, of_ws=1.2),
    "eight": fanout("1 topic, 1,000 members, 8 in flight", 1000, 8, of_c=3.0, of_ws=5),
    "large": fanout("1 topic, 5,000 members, 4 in flight", 5000, 4, of_c=1.8, of_ws=3.5),
    "small": fanout("1 topic, 100 members, 32 in flight", 100, 32, of_c=5, of_ws=7),
    "topics": fanout("1,000 topics, 10 members", 10_000, 512, of_c=0.6, of_ws=1.0, topics=1000),
    "heartbeats": Workload(
        "heartbeats and replies, 1,000 sockets",
        ("--mode", "heartbeats", "--members", 1000),
        per_cpu_second("answers"),
        {"C": 0.40, "ws": 1.2},
    ),
    "joins": Workload(
        "handshake and join, 5,000 sockets",
        ("--mode", "idle", "--members", 5000),
        lambda figures: figures["connections"] / max(figures["joins_server_cpu"], 0.001),
        {"ws": 1.0},
    ),
    "memory": Workload(
        "KiB of a joined connection, 10,000 of them",
        ("--mode", "idle", "--members", 10_000),
        lambda figures: figures["kib"],
        {},
        less=True,
    ),
    "latency": Workload(
        "ms to deliver (p50), 1,000 members, 100,000/s",
        ("--mode", "paced", "--members", 1000, "--rate", 100_000),
        lambda figures: figures["p50"],
        {"C": 1.5},
        less=True,
        peers=("C", "ws"),
    ),
    "probes": Workload(
        "ms to answer a heartbeat (p99) meanwhile, 8 in flight",
        (*EIGHT, "--probes", 20),
        lambda figures: figures["p99"],
        {},
        less=True,
        peers=("C", "ws"),
    ),
    "mixed": Workload(
        "1 topic, 1,000 members, half vsn 1, 8 in flight",
        (*EIGHT, "--mixed", 1),
        per_cpu_second("deliveries"),
        {},
        peers=(),
    ),
}


# Contenders -------------------------------------------------------------------------------------------------


def prepare(folder: Path) -> None:
    """Compile what is written in C, and mint a token for each connection."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise SystemExit("This bench needs a C compiler, and found neither cc nor gcc.")
    for name in ("load", "limit"):
        subprocess.run([compiler, "-O2", "-o", folder / name, PEERS / f"{name}.c"], check=True)
    claims = {"role": "authenticated", "aud": "authenticated", "exp": int(time.time()) + 36_000}
    tokens = (sign({**claims, "sub": str(uuid.UUID(int=n))}, SECRET) for n in range(CONNECTIONS))
    (folder / "tokens").write_text("\n".join(tokens))


def wait_for(port: int) -> None:
    """Wait until `backbeat serve` is well."""
    started = time.monotonic()
    while time.monotonic() - started < PATIENCE:
        with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/healthcheck", timeout=5):
            return
        time.sleep(0.05)
    raise SystemExit("backbeat serve did not start")


class Bench:
    """Measures one contender at a time.

    Args:
        folder: what `prepare` made.
        database_url: where ours finds its Postgres.
        seconds: how long to measure.
        scale: what numbers of members and topics are multiplied by.
    """

    def __init__(self, folder: Path, database_url: str, *, seconds: float, scale: float) -> None:
        cores = sorted(os.sched_getaffinity(0))
        self._server_core, self._client_core = cores[0], cores[-1]
        self._folder = folder
        self._database_url = database_url
        self._seconds = seconds
        self._scale = scale

    def measure(self, name: str, workload: Workload) -> Figures:
        """Measure a workload once."""
        with self._contender(name) as where:
            load = on_core(self._client_core, self._folder / "load")
            command = [*load, *where, "--seconds", self._seconds, *self._scaled(workload.load)]
            done = subprocess.run(
                [str(part) for part in command], capture_output=True, text=True, timeout=PATIENCE, check=False
            )
        if done.returncode:
            raise SystemExit(f"{workload.title}, {name}: {done.stderr}")
        figures: Figures = json.loads(done.stdout)
        # The limit drops what does not fit into a socket; the others have to keep it.
        if figures["closed"] or (figures.get("lost") and name != "C"):
            raise SystemExit(f"{workload.title}, {name} lost something: {done.stdout}")
        return figures

    def _scaled(self, options: Options) -> Iterator[object]:
        """Fewer members and topics, if only a try is wanted."""
        for name, value in zip(options[::2], options[1::2], strict=True):
            if name in {"--members", "--topics"} and isinstance(value, int):
                yield from (name, max(1, round(value * self._scale)))
            else:
                yield from (name, value)

    @contextmanager
    def _contender(self, name: str) -> Iterator[Options]:
        """Have a server run; yield the options that lead the load client to it."""
        path = "/"
        match name:
            case "C":
                command: Options = (self._folder / "limit", 0)
            case "ws":
                command = ("node", PEERS / "ws.mjs", 0, INTEROP)
            case "socketio":
                command = (sys.executable, PEERS / "python_socketio.py", 0)
                path = "/socket.io/?EIO=4&transport=websocket"
            case _:
                command = self._backbeat()
                path = f"/socket/websocket?apikey={ApiKeys.of(SECRET).anon}&vsn="
        process = subprocess.Popen(
            [str(part) for part in (*on_core(self._server_core), *command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert process.stdout is not None
            if name == "ours":
                wait_for(PORT)
                options: Options = (
                    *("--port", PORT, "--path", f"{path}2.0.0", "--old-path", f"{path}1.0.0"),
                    *("--tokens", self._folder / "tokens"),
                )
            else:
                dialect = "socketio" if name == "socketio" else "phoenix"
                port = process.stdout.readline().strip()
                options = ("--port", port, "--path", path, "--dialect", dialect)
            yield (*options, "--pid", process.pid)
        finally:
            # Some wait for their clients when they are asked to end.
            process.kill()
            process.communicate()

    def _backbeat(self) -> Options:
        command = [Path(sys.executable).parent / "backbeat", "serve", "--port", PORT, "--max-channels", MANY]
        command += ["--jwt-secret", SECRET, "--database-url", self._database_url]
        for limit in ("concurrent-users", "joins-per-second", "events-per-second"):
            command += [f"--max-{limit}", MANY]
        return command


def on_core(core: int, *command: object) -> Options:
    """A command that runs on one core."""
    return ("taskset", "-c", core, *command)


# The table --------------------------------------------------------------------------------------------------

Rounds = Sequence[Mapping[str, Figures]]


def number(value: float) -> str:
    """A figure of any size, to three digits or so."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def ratio(workload: Workload, rounds: Rounds, peer: str) -> str:
    """Ours to a peer's: the median of the rounds, the range, and what is wanted."""
    if peer not in workload.peers:
        return ""
    ratios = sorted(workload.figure(each["ours"]) / workload.figure(each[peer]) for each in rounds)
    text = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    if peer in workload.wanted:
        text += f" [{'≤' if workload.less else '≥'} {workload.wanted[peer]:g}]"
    return text


def row(workload: Workload, rounds: Rounds) -> list[str]:
    """One line of the table."""
    figures = [
        number(statistics.median(workload.figure(each[name]) for each in rounds)) if name in rounds[0] else ""
        for name in CONTENDERS
    ]
    client = statistics.median(each["ours"].get("client_cpu", 0.0) for each in rounds)
    return [
        workload.title,
        *figures,
        *(ratio(workload, rounds, peer) for peer in CONTENDERS[:2]),
        number(client),
    ]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each measurement takes")
    parser.add_argument("--scale", type=float, default=1.0, help="how many members, of those it says")
    parser.add_argument("--only", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    options = parser.parse_args()
    logs.configure("warning")
    raise_file_limit()
    with TemporaryDirectory() as name, EmbeddedPostgres.ephemeral() as postgres:
        prepare(Path(name))
        asyncio.run(migrate(postgres.url, login=LOGIN, password=PASSWORD))
        database_url = f"postgresql://{LOGIN}:{PASSWORD}@127.0.0.1:{urlsplit(postgres.url).port}/postgres"
        bench = Bench(Path(name), database_url, seconds=options.seconds, scale=options.scale)
        print("| | C | ws | socketio | ours | ours to C | ours to ws | client |")
        print("|---|" + "---:|" * 7)
        for workload in (WORKLOADS[name] for name in options.only):
            rounds = [
                {name: bench.measure(name, workload) for name in (*workload.peers, "ours")}
                for _ in range(options.rounds)
            ]
            print("| " + " | ".join(row(workload, rounds)) + " |", flush=True)


if __name__ == "__main__":
    main()
