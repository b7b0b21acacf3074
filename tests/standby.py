"""A standby of an embedded Postgres: made by pg_basebackup, fed by streaming, promoted at will."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from backbeat.local.postgres import EmbeddedPostgres, _find_binaries

SETTINGS = """
hot_standby_feedback = on
wal_retrieve_retry_interval = 100ms
"""
"""Slots can be copied to it, and it does not wait for seconds for a primary that is gone."""


@contextmanager
def standby_of(primary: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    """Run a standby until the block ends.

    Args:
        primary: what it follows.
    """
    with tempfile.TemporaryDirectory(prefix="backbeat-standby-") as folder:
        data = Path(folder)
        # Postgres may run as another user than the tests.
        data.chmod(0o711)
        cluster = data / "postgres"
        backup = [str(_find_binaries() / "bin" / "pg_basebackup"), "-d", primary.url, "-D", str(cluster)]
        options = [
            "--write-recovery-conf",
            "--create-slot",
            "--slot=standby",
            "--checkpoint=fast",
            "--no-sync",
        ]
        subprocess.run([*backup, *options], check=True, timeout=60)
        with (cluster / "postgresql.auto.conf").open("a") as configuration:
            configuration.write(SETTINGS)
        owner = (primary.data / "postgres").stat()
        for path in (cluster, *cluster.rglob("*")):
            shutil.chown(path, owner.st_uid, owner.st_gid)
        password = conninfo_to_dict(primary.url)["password"]
        assert password is not None
        with EmbeddedPostgres(data, port=0, password=str(password), fsync=False) as standby:
            yield standby


def promote(standby: EmbeddedPostgres) -> None:
    """Make a primary of a standby."""
    with psycopg.connect(standby.url, autocommit=True) as connection:
        connection.execute("select pg_promote(true, 60)")


def demote(primary: EmbeddedPostgres) -> None:
    """Let a primary that was shut down come back as a standby that nobody feeds."""
    cluster = (primary.data / "postgres").resolve()
    signal = cluster / "standby.signal"
    signal.touch()
    shutil.chown(signal, cluster.stat().st_uid, cluster.stat().st_gid)
    primary.start()
