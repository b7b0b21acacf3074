"""Run mixed traffic for as long as one likes: `python -m tests.soak --seconds 600`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
from importlib.resources import files

import structlog
import uvloop
from tests.clusters import CLUSTERS
from tests.integration.conftest import LOGIN, PASSWORD, logged_in
from tests.soak.run import Unsteady, soak

from backbeat.postgres.database import MIGRATIONS, migrate


def main() -> int:
    """Soak, and tell how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long")
    parser.add_argument("--seed", type=int, help="decides what the clients do; random unless given")
    parser.add_argument("--clients", type=int, default=24, help="how many there are at a time")
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], default="uvloop", help="which event loop")
    parser.add_argument("--log-level", default="error", help="from which level on the server's log is shown")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    level = logging.getLevelNamesMapping()[options.log_level.upper()]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(level))
    folders = (MIGRATIONS, files("backbeat.local") / "sql" / "migrations")
    with CLUSTERS["embedded"]() as url:
        asyncio.run(migrate(url, login=LOGIN, password=PASSWORD, folders=folders))
        work = soak(
            url,
            logged_in(url),
            seconds=options.seconds,
            seed=seed,
            clients=options.clients,
            tell=lambda line: print(line, flush=True),
        )
        try:
            if options.loop == "uvloop":
                uvloop.run(work)
            else:
                asyncio.run(work)
        except Unsteady as unsteady:
            print(f"\n=== seed {seed}\n{unsteady}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
