"""The auth service of the local project, on a port of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from backbeat.local.auth import Auth
from backbeat.local.auth.service import Service
from backbeat.postgres.database import Database
from backbeat.server.http import HttpServer
from backbeat.server.listener import listen
from backbeat.session import AuthContext, FileStore
from backbeat.tokens.keys import ApiKeys
from backbeat.tokens.verifier import Verifier


class AuthService:
    """A running auth service.

    Args:
        url: the project's URL.
        keys: its API keys.
        service: what it does, without HTTP.

    Attributes:
        presented: every refresh token that was presented, in order.
    """

    def __init__(self, url: str, keys: ApiKeys, service: Service) -> None:
        self.url = url
        self.keys = keys
        self.service = service
        self.presented: list[str] = []

    def program(self, path: Path | None = None, *, key: str | None = None) -> AuthContext:
        """A program that signs in there, and keeps its session in a file, if there is one."""
        store = None if path is None else FileStore(path, interval=0.02)
        return AuthContext(self.url, key or self.keys.publishable, store=store)


@asynccontextmanager
async def serving_auth(database_url: str, *, secret: str, **options: Any) -> AsyncIterator[AuthService]:
    """Serve `/auth/v1` of a database until the block ends."""
    database = Database(database_url, size=10)
    listeners = listen("127.0.0.1", 0, flag="--port")
    url = f"http://127.0.0.1:{listeners[0].getsockname()[1]}"
    keys = ApiKeys.of(secret, publishable="sb_publishable_test", secret="sb_secret_test")
    auth = Auth(
        database=database,
        keys=keys,
        verifier=Verifier(secret),
        jwt_secret=secret,
        issuer=f"{url}/auth/v1",
        **options,
    )
    running = AuthService(url, keys, auth._service)
    refresh = auth._service.refresh

    async def counting(refresh_token: str | None) -> Any:
        running.presented.append(str(refresh_token))
        return await refresh(refresh_token)

    auth._service.refresh = counting  # type: ignore[method-assign]
    stop = asyncio.Event()
    await database.open()
    serving = asyncio.create_task(HttpServer(Starlette(routes=auth.routes()), listeners).run_until(stop))
    try:
        yield running
    finally:
        stop.set()
        await serving
        await database.aclose()
        await auth.aclose()
