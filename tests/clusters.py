"""Clusters that a test starts: the embedded Postgres, and PostgreSQL 15 of Debian where it is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from backbeat.local.postgres import EmbeddedPostgres

DEBIAN = Path("/usr/lib/postgresql/15/bin")


class Cluster(NamedTuple):
    """A cluster that runs."""

    url: str
    """Where its superuser logs in."""


@contextmanager
def embedded() -> Iterator[str]:
    """The Postgres of the local project."""
    with EmbeddedPostgres.ephemeral() as server:
        yield server.url


@contextmanager
def debian() -> Iterator[str]:
    """Debian's PostgreSQL 15, on a socket of its own."""
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"stdout": subprocess.DEVNULL, "cwd": "/"}
        if os.geteuid() == 0:  # Postgres refuses to run as root
            shutil.chown(folder, "nobody")
            options |= {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}

        def run(*command: str) -> None:
            subprocess.run(command, check=True, **options)

        data = f"{folder}/data"
        control = f"{DEBIAN}/pg_ctl", "-D", data, "-w", "-l", f"{folder}/log"
        settings = f"-k {folder} -c listen_addresses= -c wal_level=logical -c fsync=off"
        run(f"{DEBIAN}/initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        run(*control, "-o", settings, "start")
        try:
            yield f"postgresql://postgres@/postgres?host={folder}"
        finally:
            run(*control, "-m", "fast", "stop")


CLUSTERS = {"embedded": embedded, "debian15": debian}

FLAVOURS = (
    "embedded",
    pytest.param(
        "debian15",
        marks=pytest.mark.skipif(
            not (DEBIAN / "postgres").exists() or not Path("/usr/share/postgresql/15/postgres.bki").exists(),
            reason="Debian's PostgreSQL 15 is not installed",
        ),
    ),
)
"""The keys of `CLUSTERS`, as parameters of a test or a fixture."""
