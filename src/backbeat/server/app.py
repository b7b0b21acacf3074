"""The realtime server put together: its parts, its HTTP routes, its port."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from backbeat.postgres.authorize import Authorizer
from backbeat.postgres.database import Database
from backbeat.server.feed import Feed
from backbeat.server.keyring import Keyring
from backbeat.server.realtime import Realtime
from backbeat.server.socket import PATHS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.responses import Response

    from backbeat.server.settings import Settings

__all__ = ["create_app", "realtime_routes", "run_realtime"]


@asynccontextmanager
async def run_realtime(settings: Settings) -> AsyncIterator[tuple[Realtime, Feed]]:
    """Run everything of a server but its port, until the block ends.

    Postgres need not be there yet: public channels work without it, and everything else begins when it comes.

    Args:
        settings: what the server was told.
    """
    keyring = Keyring(settings.jwt_secret, source=settings.jwks or None)
    await keyring.start()
    database = Database(settings.database_url, size=settings.database_connections)
    await database.open()
    feed = Feed(settings, database)
    realtime = Realtime(settings, keyring=keyring, authorizer=Authorizer(database), changes=feed)
    feeding = realtime.spawn(feed.run(realtime), name="feed")
    try:
        yield realtime, feed
    finally:
        feeding.cancel()
        await realtime.aclose()
        await database.aclose()
        await keyring.aclose()


def realtime_routes(realtime: Realtime, feed: Feed) -> list[Route]:
    """The HTTP routes of the realtime server."""

    async def healthcheck(_: Request) -> Response:
        return JSONResponse({"status": "ok", "changes": feed.state.phase.value})

    async def metrics(_: Request) -> Response:
        media_type = "text/plain; version=0.0.4; charset=utf-8"
        return PlainTextResponse(realtime.metrics.exposition(), media_type=media_type)

    async def not_an_upgrade(_: Request) -> Response:
        return JSONResponse(
            {"error": "This is a WebSocket: connect with an upgrade request"}, status_code=400
        )

    return [
        Route("/healthcheck", healthcheck),
        Route("/metrics", metrics),
        *(Route(path, not_an_upgrade) for path in sorted(PATHS)),
    ]


def create_app(realtime: Realtime, feed: Feed) -> Starlette:
    """The HTTP application of `backbeat serve`."""
    return Starlette(routes=realtime_routes(realtime, feed))
