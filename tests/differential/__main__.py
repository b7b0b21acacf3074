"""Play scripts until enough cases were decided: `python -m tests.differential --cases 1000000`."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import random
import sys
import time
from dataclasses import replace
from importlib.resources import files
from urllib.parse import urlsplit, urlunsplit

import psycopg
import structlog
from tests.clusters import CLUSTERS
from tests.differential.run import Difference, Report, play
from tests.differential.script import Script, make

from backbeat.postgres.database import MIGRATIONS, migrate

LOGIN, PASSWORD, TEMPLATE = "backbeat_fuzz", "fuzz", "backbeat_fuzz_template"

_numbers = itertools.count(1)


def _url(server: str, database: str, *, login: bool = False) -> str:
    parts = urlsplit(server)
    where = parts.netloc.rpartition("@")[2]
    netloc = f"{LOGIN}:{PASSWORD}@{where}" if login else parts.netloc
    return urlunsplit(parts._replace(netloc=netloc, path=f"/{database}"))


def once(server: str, script: Script, *, calm: bool) -> Report:
    """Play a script on a database of its own."""
    name = f"fuzz_{next(_numbers)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"create database {name} template {TEMPLATE}".encode())
        try:
            return asyncio.run(play(script, _url(server, name), _url(server, name, login=True), calm=calm))
        finally:
            connection.execute(f"drop database {name} with (force)".encode())


def shrink(server: str, script: Script, *, calm: bool) -> tuple[Script, str]:
    """Leave steps out as long as there is still a difference."""
    text, size = "", len(script.steps) // 2
    while size:
        at = 0
        while at < len(script.steps):
            smaller = replace(script, steps=script.steps[:at] + script.steps[at + size :])
            try:
                once(server, smaller, calm=calm)
                at += size
            except Difference as difference:
                script, text = smaller, str(difference)
        size //= 2
    return script, text


def main() -> int:
    """Play, and tell how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="pairs of change and subscriber")
    parser.add_argument("--seed", type=int, help="of the first script; random unless given")
    parser.add_argument("--steps", type=int, default=60, help="of each script")
    parser.add_argument("--mode", choices=["calm", "race"], help="both in turn unless given")
    parser.add_argument("--once", action="store_true", help="the first script only")
    parser.add_argument("--go-on", action="store_true", help="do not stop at a difference")
    parser.add_argument("--no-shrink", action="store_true", help="show differences as they were found")
    parser.add_argument("--postgres", choices=CLUSTERS, default="embedded", help="where to play them")
    options = parser.parse_args()
    first = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    modes = [options.mode] if options.mode else ["calm", "race"]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    total, scripts, failed, started = Report(), 0, 0, time.monotonic()
    with CLUSTERS[options.postgres]() as server:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"create database {TEMPLATE}".encode())
        folders = (MIGRATIONS, files("backbeat.local") / "sql" / "migrations")
        asyncio.run(migrate(_url(server, TEMPLATE), login=LOGIN, password=PASSWORD, folders=folders))
        for seed in itertools.count(first):
            for mode in modes:
                calm = mode == "calm"
                script = make(seed, calm=calm, steps=options.steps)
                scripts += 1
                try:
                    report = once(server, script, calm=calm)
                except Difference as difference:
                    failed += 1
                    text = str(difference)
                    if not options.no_shrink:
                        script, smaller = shrink(server, script, calm=calm)
                        text = smaller or text
                    print(f"\n=== {mode}, seed {seed}\n{text}\n{script}\n", flush=True)
                    if not options.go_on:
                        return 1
                    continue
                total += report
            if options.once or total.cases >= options.cases:
                break
    print(
        f"{total}; {scripts} scripts from seed {first}, {failed} with differences,"
        f" {time.monotonic() - started:.0f} s"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
