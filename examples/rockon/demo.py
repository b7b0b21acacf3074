"""Runs the band app: a local project with the band's schema, and a page that uses it.

python examples/rockon/demo.py [--port 54321] [--db-port 54322] [--page-port 54320] [--data DIR | --ephemeral]
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter
from rich.console import Console
from starlette.applications import Starlette
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from backbeat.cli import logs, run_app
from backbeat.cli.dev import announce
from backbeat.cli.process import interruptible, run
from backbeat.errors import StartError
from backbeat.local.project import Options, Project
from backbeat.server.http import HttpServer
from backbeat.server.listener import listen

if TYPE_CHECKING:
    import socket

    from starlette.requests import Request
    from starlette.responses import Response

HERE = Path(__file__).parent
SUPABASE_JS = HERE / "node_modules" / "@supabase" / "supabase-js" / "dist" / "umd" / "supabase.js"
PASSWORD = "test123"  # noqa: S105 - the demo's users are printed on purpose
USERS = [
    {"name": "Eric", "email": "eric@ipodshuffle.com", "password": PASSWORD},
    {"name": "Mike", "email": "mike@ipodshuffle.com", "password": PASSWORD},
    {"name": "Olga", "email": "olga@ipodshuffle.com", "password": PASSWORD},
]
PR_SET_PDEATHSIG = 1


def page(project: Project) -> Starlette:
    """Serve the page, supabase-js as its package ships it, and what the page has to know.

    Args:
        project: what the page talks to.
    """

    async def config(_: Request) -> Response:
        settings = {"url": project.url, "anonKey": project.keys.publishable, "users": USERS}
        return JSONResponse(settings, headers={"cache-control": "no-store"})

    async def supabase_js(_: Request) -> Response:
        return FileResponse(SUPABASE_JS, media_type="text/javascript")

    return Starlette(
        routes=[
            Route("/config.json", config),
            Route("/vendor/supabase.js", supabase_js),
            Mount("/", StaticFiles(directory=HERE / "web", html=True)),
        ]
    )


def demo(
    *,
    port: int = 54321,
    db_port: int = 54322,
    page_port: int = 54320,
    data: Path = Path(".backbeat") / "rockon",
    ephemeral: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Run the band app.

    Parameters
    ----------
    port
        The port of the project URL.
    db_port
        The port of its Postgres.
    page_port
        The port of the page.
    data
        The folder of the database, kept between runs.
    ephemeral
        Use a temporary folder instead.
    """
    logs.configure("warning")
    if not SUPABASE_JS.exists():
        raise StartError(
            "supabase-js is not installed.", hint="Run `make demo`, or `npm ci` in examples/rockon."
        )
    options = Options(
        port=port, database_port=db_port, data=data, ephemeral=ephemeral, seed=HERE / "schema.sql"
    )
    listeners = listen("127.0.0.1", page_port, flag="--page-port")
    with interruptible(), Project(options) as project:
        run(lambda stop: serve(project, listeners, stop))


async def serve(project: Project, listeners: list[socket.socket], stop: asyncio.Event) -> None:
    """Serve the project and the page until the event is set."""
    address, port = listeners[0].getsockname()[:2]

    def ready() -> None:
        announce(project)
        console = Console(highlight=False, soft_wrap=True)
        console.print("The band app", style="bold green", end=" ")
        console.print(f"is at http://{address}:{port}")
        for user in USERS:
            console.print(f"  {user['email']:<24} {user['password']}", markup=False)
        console.print("  Eric and Mike play in one band; Olga is in another.\n", style="dim")

    async with asyncio.TaskGroup() as servers:
        servers.create_task(HttpServer(page(project), listeners).run_until(stop))
        servers.create_task(project.serve(stop, ready=ready))


def end_with_parent() -> None:
    """Ask the kernel to stop us when `make` is gone, however it went; nobody would stop us then."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit(1)


if __name__ == "__main__":
    end_with_parent()
    run_app(App(default_command=demo, help="The band app, on a local Backbeat project."))
