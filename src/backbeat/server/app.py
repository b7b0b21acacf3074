"""The realtime server put together: its parts, its HTTP routes, its port."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Route

from backbeat.postgres.authorize import Authorizer
from backbeat.postgres.database import Database
from backbeat.server.broadcast_api import broadcast_routes
from backbeat.server.feed import Feed
from backbeat.server.health import MetricsAccess, operations_routes
from backbeat.server.keyring import Keyring
from backbeat.server.metrics import Metrics
from backbeat.server.realtime import Realtime
from backbeat.server.socket import PATHS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from backbeat.server.settings import Settings

__all__ = ["create_app", "realtime_routes", "run_realtime"]


@asynccontextmanager
async def run_realtime(settings: Settings) -> AsyncIterator[tuple[Realtime, Feed]]:
    """Run everything of a server but its port, until the block ends.

    Postgres need not be there yet: public channels work without it, and everything else begins when it comes.

    Args:
        settings: what the server was told.
    """
    metrics = Metrics()
    keyring = Keyring(settings.jwt_secret, source=settings.jwks or None)
    database = Database(settings.database_url, size=settings.database_connections)
    feed = Feed(settings, database)
    authorizer = Authorizer(database, observe=metrics.authorizations.observe)
    async with AsyncExitStack() as resources:
        resources.push_async_callback(keyring.aclose)
        await keyring.start()
        resources.push_async_callback(database.aclose)
        await database.open()
        realtime = Realtime(settings, keyring=keyring, authorizer=authorizer, changes=feed, metrics=metrics)
        resources.push_async_callback(realtime.aclose)
        realtime.spawn(feed.run(realtime), name="feed")
        yield realtime, feed


def realtime_routes(realtime: Realtime, feed: Feed) -> list[Route]:
    """The HTTP routes of the realtime server."""
    settings = realtime.settings
    access = MetricsAccess(settings.metrics_jwt_secret, anyone=settings.metrics_open)

    async def not_an_upgrade(_: Request) -> Response:
        return JSONResponse(
            {"error": "This is a WebSocket: connect with an upgrade request"}, status_code=400
        )

    return [
        *operations_routes(realtime, feed, feed.database, access=access),
        *broadcast_routes(realtime, limiter=realtime.limits),
        *(Route(path, not_an_upgrade) for path in sorted(PATHS)),
    ]


def create_app(routes: Sequence[BaseRoute]) -> Starlette:
    """Make an HTTP application that says in JSON what it does not have.

    Args:
        routes: what it has.
    """

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return JSONResponse({"message": error.detail.lower()}, error.status_code, headers=error.headers)

    return Starlette(routes=routes, exception_handlers={HTTPException: refused})
