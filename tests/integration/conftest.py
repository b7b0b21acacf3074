"""A real Postgres for the integration ring: one cluster for the run, a fresh database for each test."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from importlib.resources import files
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
import pytest
from tests.clusters import CLUSTERS, Cluster

from backbeat.postgres.database import MIGRATIONS, migrate

LOGIN = "backbeat_test"
PASSWORD = "the server's own password"
TEMPLATE = "backbeat_template"

_numbers = itertools.count(1)


def with_database(url: str, name: str) -> str:
    """The same server, another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def logged_in(url: str) -> str:
    """The same database, as the server logs in."""
    parts = urlsplit(url)
    where = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{LOGIN}:{quote(PASSWORD)}@{where}"))


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """One cluster for the whole run, with a migrated database to copy from.

    Its parameter is a key of `CLUSTERS`, for the modules that are run on several.
    """
    with CLUSTERS[getattr(request, "param", "embedded")]() as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"create database {TEMPLATE}")
        folders = (MIGRATIONS, files("backbeat.local") / "sql" / "migrations")
        asyncio.run(migrate(with_database(url, TEMPLATE), login=LOGIN, password=PASSWORD, folders=folders))
        yield Cluster(url)


@pytest.fixture
def database_url(postgres: Cluster) -> Iterator[str]:
    """A fresh, migrated database of this test's own; the URL logs in as the superuser."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"create database {name} template {TEMPLATE}")
        try:
            yield with_database(postgres.url, name)
        finally:
            connection.execute(f"drop database {name} with (force)")


@pytest.fixture
def login_url(database_url: str) -> str:
    """The same database, logged in as the server logs in: no superuser, no rights of its own."""
    return logged_in(database_url)
