"""`backbeat dev`: a whole project on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from backbeat.cli import logs
from backbeat.cli.process import interruptible, run
from backbeat.load.file_limit import raise_file_limit
from backbeat.local.project import (
    DEFAULT_PUBLISHABLE_KEY,
    DEFAULT_SECRET,
    DEFAULT_SECRET_KEY,
    Options,
    Project,
)
from backbeat.protocol.bindings import BigNumbers
from backbeat.server.entrance import ConnectionSettings
from backbeat.server.limits import LimitSettings

__all__ = ["announce", "dev"]


def dev(
    *,
    host: str = "127.0.0.1",
    port: int = 54321,
    db_port: int = 54322,
    data: Path = Path(".backbeat"),
    ephemeral: Annotated[bool, Parameter(negative="")] = False,
    seed: Path | None = None,
    database_url: Annotated[str | None, Parameter(show_default=False)] = None,
    jwt_secret: Annotated[str, Parameter(show_default=False)] = DEFAULT_SECRET,
    publishable_key: Annotated[str, Parameter(show_default=False)] = DEFAULT_PUBLISHABLE_KEY,
    secret_key: Annotated[str, Parameter(show_default=False)] = DEFAULT_SECRET_KEY,
    big_numbers: BigNumbers = "number",
    change_delay: float = 20.0,
    explain: bool = True,
    connections: Annotated[
        ConnectionSettings, Parameter(name="*", negative_iterable=())
    ] = ConnectionSettings(),  # noqa: B008 - frozen
    limits: Annotated[LimitSettings, Parameter(name="*")] = LimitSettings(),  # noqa: B008 - frozen
    log_level: str = "info",
) -> None:
    """Run a whole project on this machine: Postgres, auth, REST and realtime.

    Parameters
    ----------
    host
        The address to listen on.
    port
        The port of the project URL; 0 takes a free one.
    db_port
        The port of the embedded Postgres; 0 takes a free one.
    data
        The folder of the database, kept between runs.
    ephemeral
        Use a temporary folder instead, and remove it at the end.
    seed
        An SQL file to run once; and once more whenever it changes.
    database_url
        Use this Postgres (14 or newer, wal_level = logical) instead of the embedded one.
    jwt_secret
        What tokens and keys are signed with; the well-known secret of a local project by default.
    publishable_key
        The opaque key of role anon.
    secret_key
        The opaque key of role service_role.
    big_numbers
        How bigint and numeric are written in row changes, where a subscription does not say: as text,
        JavaScript does not round them.
    change_delay
        Milliseconds that row changes are held back, so that the answer to a write arrives before its event.
    explain
        Whether refusals carry hints: which token, which policy, what to do.
    log_level
        debug, info, warning or error.
    """
    logs.configure(log_level)
    raise_file_limit()
    options = Options(
        host=host,
        port=port,
        database_port=db_port,
        data=data,
        ephemeral=ephemeral,
        seed=seed,
        database_url=database_url,
        jwt_secret=jwt_secret,
        publishable_key=publishable_key,
        secret_key=secret_key,
        big_numbers=big_numbers,
        change_delay=change_delay / 1000,
        explain=explain,
        connections=connections,
        limits=limits,
    )
    with interruptible(), Project(options) as project:
        run(lambda stop: project.serve(stop, ready=lambda: announce(project)))


def announce(project: Project) -> None:
    """Print what a developer copies: the URLs and the keys.

    Args:
        project: one that serves.
    """
    console = Console(highlight=False, soft_wrap=True)
    keys = project.keys
    facts = {
        "Project URL": project.url,
        "Database URL": project.database_url,
        "Publishable key": keys.publishable,
        "Secret key": keys.secret,
        "anon key": keys.anon,
        "service_role key": keys.service,
    }
    if project.options.jwt_secret == DEFAULT_SECRET:
        facts["JWT secret"] = DEFAULT_SECRET
    console.print("\nBackbeat is ready.", style="bold green")
    for name, value in facts.items():
        console.print(f"  {name:<17}", style="dim", end=" ")
        console.print(value, markup=False)
    console.print("  Stop it with Ctrl-C.\n", style="dim")
