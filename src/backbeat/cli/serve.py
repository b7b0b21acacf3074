"""`backbeat serve`: the realtime server alone, beside an existing Postgres."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
from cyclopts import Parameter

from backbeat.cli import logs
from backbeat.cli.open_files import within_open_files
from backbeat.cli.process import interruptible, run
from backbeat.errors import Retry, StartError
from backbeat.postgres.database import inspect
from backbeat.protocol.bindings import BigNumbers
from backbeat.server.app import create_app, realtime_routes, run_realtime
from backbeat.server.certificate import Certificate
from backbeat.server.entrance import ConnectionSettings
from backbeat.server.http import HttpServer
from backbeat.server.limits import LimitSettings
from backbeat.server.listener import listen
from backbeat.server.settings import Settings

if TYPE_CHECKING:
    import asyncio

__all__ = ["serve"]

log = structlog.get_logger("backbeat")


def serve(
    *,
    database_url: Annotated[str, Parameter(show_default=False)],
    jwt_secret: Annotated[str, Parameter(show_default=False)],
    host: str = "127.0.0.1",
    port: int = 4000,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    publishable_key: str = "",
    secret_key: str = "",
    publication: str = "supabase_realtime",
    durable_slot: str = "",
    max_retained_wal_bytes: int = 1 << 30,
    withhold_deletes: Annotated[bool, Parameter(negative="")] = False,
    big_numbers: BigNumbers = "number",
    change_delay: float = 0.0,
    explain: bool = False,
    private_only: Annotated[bool, Parameter(negative="")] = False,
    jwks: str = "",
    metrics_jwt_secret: Annotated[str, Parameter(show_default=False)] = "",
    max_channels: int = 100,
    max_frame_bytes: int = 5_000_000,
    max_payload_bytes: int = 3_000_500,
    write_buffer_bytes: int = 1_048_576,
    idle_timeout: float = 60.0,
    alone_timeout: float = 600.0,
    database_connections: int = 3,
    connections: Annotated[
        ConnectionSettings, Parameter(name="*", negative_iterable=())
    ] = ConnectionSettings(),  # noqa: B008 - frozen
    limits: Annotated[LimitSettings, Parameter(name="*")] = LimitSettings(),  # noqa: B008 - frozen
    log_level: str = "info",
) -> None:
    """Run the realtime server beside an existing Postgres that `backbeat migrate` has prepared.

    Parameters
    ----------
    database_url
        Where Postgres is, as the login that `backbeat migrate` made. A direct connection: poolers do not pass
        replication on. With several hosts (host1:port1,host2:port2) it is the primary among them.
    jwt_secret
        What user tokens and JWT keys are signed with (HS256).
    host
        The address to listen on.
    port
        The port; 0 takes a free one.
    tls_cert
        A PEM file with the certificate, and those that lead to a known authority behind it: the port then
        speaks https and wss. Read again when it was renewed.
    tls_key
        A PEM file with the private key of the certificate.
    publishable_key
        An opaque key that stands for role anon.
    secret_key
        An opaque key that stands for role service_role.
    publication
        The publication whose tables can be subscribed to.
    durable_slot
        The name of a replication slot that Postgres keeps while the server is away, so that no row change is
        missed. One server only. Drop it when you stop using it: it keeps WAL. From Postgres 17 on a standby
        can keep a copy (sync_replication_slots) and have it when it is promoted. Without, a slot comes and
        goes with the server.
    max_retained_wal_bytes
        How much WAL Postgres may keep for the slot. With more it is made anew, and row changes are missing.
    withhold_deletes
        Tell the deletion of a row only where row level security hides nothing. Otherwise every subscriber of
        a table learns the primary keys of deleted rows.
    big_numbers
        How bigint and numeric are written in row changes, where a subscription does not say: as text,
        JavaScript does not round them.
    change_delay
        Milliseconds that row changes are held back.
    explain
        Whether refusals carry hints; they name roles and policies, so not on the open internet.
    private_only
        Refuse public channels.
    jwks
        The path or URL of a JSON Web Key Set, for tokens that are signed with RS256, ES256 or EdDSA.
    metrics_jwt_secret
        What the bearer token of a reader of /metrics is signed with; without it, only this machine may read.
    max_channels
        How many channels one socket may hold.
    max_frame_bytes
        The largest message a client may send.
    max_payload_bytes
        The largest payload of a broadcast or of a tracked presence.
    write_buffer_bytes
        How much, beside one message of the largest size, may wait for a client that reads slowly before it is
        dropped.
    idle_timeout
        Seconds without a byte from a client after which its socket is closed.
    alone_timeout
        Seconds after which a socket that left all its channels is closed.
    database_connections
        Connections that ask Postgres what private channels may do.
    log_level
        debug, info, warning or error.
    """
    logs.configure(log_level)
    settings = Settings(
        database_url=database_url,
        jwt_secret=jwt_secret,
        publishable_key=publishable_key,
        secret_key=secret_key,
        publication=publication,
        durable_slot=durable_slot,
        max_retained_wal_bytes=max_retained_wal_bytes,
        withhold_deletes=withhold_deletes,
        big_numbers=big_numbers,
        change_delay=change_delay / 1000,
        explain=explain,
        private_only=private_only,
        jwks=jwks,
        metrics_jwt_secret=metrics_jwt_secret,
        max_channels=max_channels,
        max_frame_bytes=max_frame_bytes,
        max_payload_bytes=max_payload_bytes,
        write_buffer_bytes=write_buffer_bytes,
        idle_timeout=idle_timeout,
        alone_timeout=alone_timeout,
        database_connections=database_connections,
        connections=connections,
        limits=limits,
    )
    settings = within_open_files(settings)
    tls = Certificate.of(tls_cert, tls_key)
    listeners = listen(host, port, flag="--port")
    try:
        inspect(database_url, flag="--database-url")
    except StartError as error:
        if error.retry is not Retry.BACKOFF:
            raise
        # A database that is away is no reason to refuse public channels; the rest begins when it comes.
        log.warning("starting without the database", reason=error.message)

    async def main(stop: asyncio.Event) -> None:
        async with run_realtime(settings) as (realtime, feed):
            if tls is not None:
                realtime.spawn(tls.follow(), name="certificate")
            app = create_app(realtime_routes(realtime, feed))
            server = HttpServer(app, listeners, realtime=realtime, tls=tls)
            address, bound = listeners[0].getsockname()[:2]
            log.info("serving", url=f"{'https' if tls else 'http'}://{address}:{bound}")
            await server.run_until(stop)

    with interruptible():
        run(main)
