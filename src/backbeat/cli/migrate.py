"""`backbeat migrate`: prepare a database for `backbeat serve`."""

from __future__ import annotations

import asyncio
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from backbeat.cli import logs
from backbeat.postgres import database

__all__ = ["migrate"]


def migrate(
    *,
    database_url: Annotated[str, Parameter(show_default=False)],
    login: str = "backbeat",
    login_password: Annotated[str | None, Parameter(show_default=False)] = None,
    log_level: str = "warning",
) -> None:
    """Prepare a database: roles, schemas, publications, and the login of the server.

    Safe to run again, and from two places at once. User tables are never touched.

    Parameters
    ----------
    database_url
        The database, as a role that may create roles, schemas and publications; normally a superuser.
    login
        The role that `backbeat serve` logs in as; made when it does not exist.
    login_password
        Its password; without it, the one it has is kept.
    log_level
        debug, info, warning or error.
    """
    logs.configure(log_level)
    database.inspect(database_url, flag="--database-url")
    applied = asyncio.run(database.migrate(database_url, login=login, password=login_password))
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{len(applied)} migrations applied, the database is up to date.")
    if login_password is None:
        console.print(f"If it has no password yet: alter role {login} password '…';", markup=False)
