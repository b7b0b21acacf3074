"""The command line: one file a command. What is wrong is one message, and an exit code that is not zero."""

from __future__ import annotations

import sys

from cyclopts import App
from cyclopts.config import Env, Toml
from rich.console import Console

from backbeat.cli.dev import dev
from backbeat.cli.migrate import migrate
from backbeat.cli.serve import serve
from backbeat.errors import BackbeatError
from backbeat.version import VERSION

__all__ = ["app", "main", "run_app"]

app = App(
    name="backbeat",
    help="Authenticated realtime for Postgres, for supabase-js and its kin.",
    version=VERSION,
    help_epilogue=(
        "Every flag can also be set as an environment variable (--jwt-secret as BACKBEAT_JWT_SECRET) or in "
        "./backbeat.toml (under the name of the command, such as [dev]). A flag wins over the environment, "
        "and the environment over the file."
    ),
    config=[
        Env("BACKBEAT_", command=False),
        Toml("backbeat.toml", search_parents=False, use_commands_as_keys=True),
    ],
)
app.command(dev)
app.command(serve)
app.command(migrate)
# By name: it imports the client, which no server needs.
app.command(
    "backbeat.cli.bench:bench",
    help="Measure what a server of this protocol can do: ours, a self-hosted Supabase, or any other.",
)


def main() -> None:
    """Run the command line and exit."""
    run_app(app)


def run_app(app: App) -> None:
    """Run a command line; an error of ours becomes one message, and exit code 1.

    Args:
        app: what to run, with the arguments of this process.
    """
    try:
        app()
    except BackbeatError as error:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print("backbeat:", style="bold red", end=" ")
        console.print(error.message, markup=False)
        if error.hint:
            console.print(error.hint, markup=False, style="yellow")
        sys.exit(1)
