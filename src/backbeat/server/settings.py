"""Everything a realtime server can be told, with its default."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import get_args

from backbeat.errors import ConfigurationError
from backbeat.protocol.bindings import BigNumbers
from backbeat.server.entrance import ConnectionSettings
from backbeat.server.limits import LimitSettings
from backbeat.tokens.keys import ApiKeys

__all__ = ["Settings"]

SIZES = (
    "max_channels",
    "max_frame_bytes",
    "max_payload_bytes",
    "write_buffer_bytes",
    "database_connections",
    "max_retained_wal_bytes",
)

MIN_SECRET_BYTES = 32
"""RFC 7518, section 3.2: an HS256 key is at least as long as the hash."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The settings of one server.

    Attributes:
        database_url: where Postgres is, and the login of the server: no superuser, no inheritance, member of
            the API roles, with REPLICATION.
        jwt_secret: the secret that user tokens and JWT keys are signed with (HS256).
        jwks: the path or URL of a JSON Web Key Set, for tokens signed otherwise; empty for none.
        publishable_key: the opaque key that stands for role `anon`; empty for none.
        secret_key: the opaque key that stands for role `service_role`; empty for none.
        publication: the publication whose tables people subscribe to.
        durable_slot: the name of a replication slot that Postgres keeps while the server is away, with all
            that is committed meanwhile; empty for a temporary one, which leaves a gap. Only one server can
            stream from it.
        max_retained_wal_bytes: how much WAL Postgres may keep for the slot; with more, the slot is dropped
            and made anew, which leaves a gap.
        withhold_deletes: whether the deletion of a row is told only where row level security hides nothing.
            Otherwise every subscriber of a table learns the primary keys of deleted rows.
        big_numbers: how `int8` and `numeric` are written in row changes, where a subscription does not say:
            `number`, or `text`, which JavaScript does not round.
        change_delay: how long row changes are held back, in seconds; broadcasts never are. A client that
            recognises its own change by the key its REST call returns needs the REST answer to arrive first.
        explain: whether refusals carry a hint: which token, which policy, what to do. Good on a laptop; on
            the internet it tells strangers more than they need.
        private_only: whether public channels are refused.
        max_channels: how many channels one socket may hold.
        max_frame_bytes: the largest message a client may send.
        max_payload_bytes: the largest payload of a broadcast or of a tracked presence.
        write_buffer_bytes: how much, beside one message of the largest size, may wait for a client that reads
            slowly before it is dropped.
        idle_timeout: seconds without a frame after which a socket is closed.
        alone_timeout: seconds after which a socket that left all its channels is closed; one that never
            joined is left alone.
        database_connections: connections for authorizing private channels.
        limits: how much clients may do.
        connections: who may connect, and how long that and a message may take.
        metrics_jwt_secret: what the bearer token of whoever reads `/metrics` is signed with (HS256); empty
            for no such token.
        metrics_open: whether everybody may read `/metrics` when there is no such secret; else, only this
            machine may.
    """

    database_url: str = field(repr=False)
    jwt_secret: str = field(repr=False)
    jwks: str = ""
    publishable_key: str = field(default="", repr=False)
    secret_key: str = field(default="", repr=False)
    publication: str = "supabase_realtime"
    durable_slot: str = ""
    max_retained_wal_bytes: int = 1 << 30
    withhold_deletes: bool = False
    big_numbers: BigNumbers = "number"
    change_delay: float = 0.0
    explain: bool = False
    private_only: bool = False
    max_channels: int = 100
    max_frame_bytes: int = 5_000_000
    max_payload_bytes: int = 3_000_500
    write_buffer_bytes: int = 1_048_576
    idle_timeout: float = 60.0
    alone_timeout: float = 600.0
    database_connections: int = 3
    limits: LimitSettings = LimitSettings()  # noqa: RUF009 - frozen
    connections: ConnectionSettings = ConnectionSettings()  # noqa: RUF009 - frozen
    metrics_jwt_secret: str = field(default="", repr=False)
    metrics_open: bool = False

    def __post_init__(self) -> None:
        if len(self.jwt_secret.encode()) < MIN_SECRET_BYTES:
            raise ConfigurationError(
                f"The JWT secret is shorter than {MIN_SECRET_BYTES} bytes.",
                hint="Give the secret your tokens are signed with: --jwt-secret, or BACKBEAT_JWT_SECRET.",
            )
        if self.metrics_jwt_secret and len(self.metrics_jwt_secret.encode()) < MIN_SECRET_BYTES:
            raise ConfigurationError(
                f"The setting metrics_jwt_secret is shorter than {MIN_SECRET_BYTES} bytes."
            )
        for name in SIZES:
            if getattr(self, name) < 1:
                raise ConfigurationError(f"The setting {name} must be at least 1.")
        if self.durable_slot and not re.fullmatch(r"[a-z0-9_]{1,63}", self.durable_slot):
            raise ConfigurationError(
                "The setting durable_slot is no name of a slot.",
                hint="Use at most 63 lower-case letters, digits and underscores.",
            )
        if self.big_numbers not in get_args(BigNumbers):
            raise ConfigurationError("The setting big_numbers is either number or text.")
        # Written so that NaN is refused too.
        if not (self.change_delay >= 0 and self.idle_timeout > 0 and self.alone_timeout > 0):
            raise ConfigurationError(
                "The settings change_delay, idle_timeout and alone_timeout are lengths of time."
            )

    def with_database(self, url: str) -> Settings:
        """The same settings with another database."""
        return replace(self, database_url=url)

    @property
    def keys(self) -> ApiKeys:
        """The API keys of the project."""
        return ApiKeys.of(self.jwt_secret, publishable=self.publishable_key, secret=self.secret_key)
