"""A whole project on a laptop: Postgres, auth, REST and realtime, started in order and ended in order.

Everything that can be wrong is found before anything is served: the ports are taken first, then Postgres
starts, then the schema is brought up to date, then the seed is run. What fails leaves nothing behind it
running.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from backbeat.errors import StartError
from backbeat.local.auth import Auth
from backbeat.local.caller import CrossOrigin
from backbeat.local.postgres import EmbeddedPostgres
from backbeat.local.rest import Rest
from backbeat.postgres.database import MIGRATIONS, Database, inspect, migrate
from backbeat.protocol.bindings import BigNumbers
from backbeat.server.app import create_app, realtime_routes, run_realtime
from backbeat.server.entrance import ConnectionSettings
from backbeat.server.http import HttpServer
from backbeat.server.limits import LimitSettings
from backbeat.server.listener import listen
from backbeat.server.settings import Settings
from backbeat.tokens.verifier import Verifier

if TYPE_CHECKING:
    import socket
    from types import TracebackType

    from backbeat.tokens.keys import ApiKeys

__all__ = ["DEFAULT_SECRET", "Options", "Project"]

DEFAULT_SECRET: Final = "super-secret-jwt-token-with-at-least-32-characters-long"  # noqa: S105 - publicly known
DEFAULT_PUBLISHABLE_KEY: Final = "sb_publishable_ACJWlzQHlZjBrEguHvfOxg_3BJgxAaH"
DEFAULT_SECRET_KEY: Final = "sb_secret_N7UND0UgjKTVK-Uodkm0Hg_xSvEMPvz"  # noqa: S105 - publicly known
DATABASE_PASSWORD: Final = "postgres"  # noqa: S105 - publicly known

LOGIN: Final = "backbeat_dev"
"""The role the local server logs in as; not the one `backbeat migrate` prepares, whose password is not
ours."""

LOCAL_MIGRATIONS: Final = files("backbeat.local") / "sql" / "migrations"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a local project can be told; the defaults are those of the documentation people paste from.

    Attributes:
        host: the address to listen on.
        port: the port of the project URL; 0 takes a free one.
        database_port: the port of the embedded Postgres; 0 takes a free one.
        data: where the database lives between runs.
        ephemeral: whether to use a temporary folder instead, removed at the end.
        seed: an SQL file to run once; and once more whenever it changes.
        database_url: an existing Postgres 14 or newer to use instead, as a role that may create roles.
        jwt_secret: the secret that tokens and keys are signed with.
        publishable_key: the opaque key of role `anon`.
        secret_key: the opaque key of role `service_role`.
        big_numbers: how `int8` and `numeric` are written in row changes: `number` or `text`.
        change_delay: seconds that row changes are held back, so that the REST answer of a write arrives
            first.
        explain: whether refusals carry hints.
        token_lifetime: how long access tokens live, in seconds.
        connections: who may connect, and how long that and a message may take.
        limits: how much clients may do.
    """

    host: str = "127.0.0.1"
    port: int = 54321
    database_port: int = 54322
    data: Path = Path(".backbeat")
    ephemeral: bool = False
    seed: Path | None = None
    database_url: str | None = field(default=None, repr=False)
    jwt_secret: str = field(default=DEFAULT_SECRET, repr=False)
    publishable_key: str = field(default=DEFAULT_PUBLISHABLE_KEY, repr=False)
    secret_key: str = field(default=DEFAULT_SECRET_KEY, repr=False)
    big_numbers: BigNumbers = "number"
    change_delay: float = 0.02
    explain: bool = True
    token_lifetime: int = 3600
    connections: ConnectionSettings = ConnectionSettings()  # noqa: RUF009 - frozen
    limits: LimitSettings = LimitSettings()  # noqa: RUF009 - frozen


class Project:
    """A local project. Enter it in the main thread, before an event loop runs; then `serve`.

    Args:
        options: what to run, and where.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self._resources = ExitStack()
        self._listeners: Sequence[socket.socket] = ()
        self._database_url = ""
        self._settings: Settings | None = None

    def __enter__(self) -> Self:
        with ExitStack() as resources:
            self._start(resources)
            self._resources = resources.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    def _start(self, resources: ExitStack) -> None:
        """Take the ports, start Postgres, prepare the database; in this order, or not at all.

        Raises:
            StartError: a port is taken, Postgres is missing or unfit, or the seed has an error.
            MigrationError: the database could not be prepared.
            ConfigurationError: a setting makes no sense.
        """
        options = self.options
        seed = _read(options.seed) if options.seed else None
        login_password = _derived_password(options.jwt_secret)
        # Settings check themselves; better now than with a database running.
        settings = Settings(
            database_url="",
            jwt_secret=options.jwt_secret,
            publishable_key=options.publishable_key,
            secret_key=options.secret_key,
            big_numbers=options.big_numbers,
            change_delay=options.change_delay,
            explain=options.explain,
            metrics_open=True,
            connections=options.connections,
            limits=options.limits,
        )
        self._listeners = listen(options.host, options.port, flag="--port")
        for listener in self._listeners:
            resources.callback(listener.close)
        self._database_url = options.database_url or self._start_postgres(resources)
        inspect(self._database_url, flag="--database-url")
        asyncio.run(
            migrate(
                self._database_url,
                login=LOGIN,
                password=login_password,
                folders=(MIGRATIONS, LOCAL_MIGRATIONS),
            )
        )
        if options.seed and seed is not None:
            _plant(self._database_url, options.seed, seed)
        login = make_conninfo(self._database_url, user=LOGIN, password=login_password)
        self._settings = settings.with_database(login)

    def _start_postgres(self, resources: ExitStack) -> str:
        options = self.options
        if options.ephemeral:
            context = EmbeddedPostgres.ephemeral(port=options.database_port, password=DATABASE_PASSWORD)
            return resources.enter_context(context).url
        postgres = EmbeddedPostgres(options.data, port=options.database_port, password=DATABASE_PASSWORD)
        return resources.enter_context(postgres).url

    @property
    def url(self) -> str:
        """The project URL, which clients build every other URL from."""
        host, port = self._listeners[0].getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    @property
    def database_url(self) -> str:
        """How to reach the database; without the password when it is not the embedded one."""
        if self.options.database_url is None:
            return self._database_url
        parts = conninfo_to_dict(self._database_url)
        parts.pop("password", None)
        return make_conninfo("", **parts)

    @property
    def keys(self) -> ApiKeys:
        """The project's API keys."""
        assert self._settings is not None
        return self._settings.keys

    async def serve(self, stop: asyncio.Event, *, ready: Callable[[], None]) -> None:
        """Serve the project until the event is set.

        Args:
            stop: set when it is time to go.
            ready: called when everything works, row changes included.
        """
        assert self._settings is not None
        options, settings = self.options, self._settings
        verifier = Verifier(settings.jwt_secret)
        async with AsyncExitStack() as resources:
            owner = Database(self._database_url, size=4, name="backbeat auth")
            callers = Database(settings.database_url, size=10, name="backbeat rest")
            for database in (owner, callers):
                await database.open()
                resources.push_async_callback(database.aclose)
            realtime, feed = await resources.enter_async_context(run_realtime(settings))
            auth = Auth(
                database=owner,
                keys=settings.keys,
                verifier=verifier,
                jwt_secret=settings.jwt_secret,
                issuer=f"{self.url}/auth/v1",
                token_lifetime=options.token_lifetime,
            )
            resources.push_async_callback(auth.aclose)
            rest = Rest(database=callers, keys=settings.keys, verifier=verifier)
            app = create_app([*auth.routes(), *rest.routes(), *realtime_routes(realtime, feed)])
            server = HttpServer(CrossOrigin(app), self._listeners, realtime=realtime)
            announcing = asyncio.create_task(_announce(feed.streaming, ready), name="announce")
            try:
                await server.run_until(stop)
            finally:
                announcing.cancel()


async def _announce(streaming: asyncio.Event, ready: Callable[[], None]) -> None:
    await streaming.wait()
    ready()


def _derived_password(secret: str) -> str:
    """The server's own database password: the same at every start, stored nowhere, known to nobody."""
    return hmac.new(secret.encode(), b"backbeat database login", hashlib.sha256).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartError(
            f"Cannot read the seed file {path}: {error.strerror}.", hint="Check --seed."
        ) from error


def _plant(url: str, path: Path, seed: bytes) -> None:
    """Run a seed file in one transaction, unless this very text has been run before.

    Raises:
        StartError: the file has an error; nothing of it was kept.
    """
    digest = hashlib.sha256(seed).hexdigest()
    try:
        with psycopg.connect(url) as connection:
            connection.execute(
                "create table if not exists backbeat.seeds"
                " (sha256 text primary key, planted_at timestamptz not null default now())"
            )
            if (
                connection.execute("select from backbeat.seeds where sha256 = %s", (digest,)).fetchone()
                is None
            ):
                connection.execute(seed)
                connection.execute("insert into backbeat.seeds (sha256) values (%s)", (digest,))
    except psycopg.Error as error:
        position = error.diag.statement_position
        line = (
            f", line {seed.decode(errors='replace')[: int(position)].count(chr(10)) + 1}" if position else ""
        )
        raise StartError(
            f"The seed file {path} has an error{line}: {str(error).strip()}",
            hint="Nothing of it was kept. Mend the file and start again.",
        ) from error
