"""Why things are as they are: the state of a channel or a client, its evidence, what to suspect (7.10)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backbeat.client.engine.link import LinkState
from backbeat.client.engine.membership import ChannelState, Membership
from backbeat.errors import NoReply, Retry, TokenRefused

if TYPE_CHECKING:
    from backbeat.client.channel import Channel
    from backbeat.client.config import ChannelConfig
    from backbeat.client.engine import Engine
    from backbeat.client.engine.tokens import AuthState, ResolvedToken
    from backbeat.errors import BackbeatError

__all__ = ["ChannelReport", "ClientReport", "Reporter", "Suspicion"]


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What may be the matter.

    Attributes:
        cause: what.
        evidence: what speaks for it.
        remedy: what to do.
    """

    cause: str
    evidence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.cause} ({self.evidence}). {self.remedy}".rstrip()


@dataclass(frozen=True, slots=True)
class ChannelReport:
    """Everything known about one channel. Holds no token.

    Attributes:
        topic: the topic, without the prefix.
        state: the state of the channel.
        private: whether policies decide about it.
        connection: the state of the connection.
        error: why it is not joined, or was not, the last time.
        carried: which token the server went by.
        token: the token in use, by now.
        changes: the row changes asked for, in words.
        streaming: whether the server said that it sends them.
        joins: how many joins were sent.
        pending: how many pushes wait.
        suspicions: what may be the matter, the likeliest first.
    """

    topic: str
    state: str
    private: bool
    connection: str
    error: BackbeatError | None
    carried: str
    token: AuthState
    changes: tuple[str, ...]
    streaming: bool
    joins: int
    pending: int
    suspicions: tuple[Suspicion, ...]

    def __str__(self) -> str:
        kind = "private" if self.private else "public"
        lines = [
            f"channel {self.topic!r}: {self.state}, {kind}, over a connection that is {self.connection}",
            f"  carried: {self.carried}",
        ]
        if self.error is not None:
            lines.append(f"  error: {self.error.code}: {self.error}")
        lines += [f"  changes: {each}" for each in self.changes]
        lines += [f"  suspect: {suspicion}" for suspicion in self.suspicions]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class ClientReport:
    """Everything known about a client. Holds no token and no key.

    Attributes:
        url: where it connects to, without the key.
        connection: the state of the connection.
        error: why the connection is not open.
        retry_in: seconds until it is tried again.
        token: the token in use.
        channels: its channels.
    """

    url: str
    connection: str
    error: BackbeatError | None
    retry_in: float | None
    token: AuthState
    channels: tuple[ChannelReport, ...]

    def __str__(self) -> str:
        lines = [f"client of {self.url}: {self.connection}"]
        if self.error is not None:
            lines.append(f"  error: {self.error.code}: {self.error}")
        if self.retry_in is not None:
            lines.append(f"  tries again in {self.retry_in:.1f} s")
        lines.append(f"  token: {self.token.source.value} {self.token.fingerprint}".rstrip())
        lines += [str(channel) for channel in self.channels]
        return "\n".join(lines)


class Reporter:
    """Looks at an engine.

    Args:
        engine: the engine.
        url: where the client connects to, without the key.
    """

    def __init__(self, engine: Engine, url: str) -> None:
        self._engine = engine
        self._url = url

    def channel(self, channel: Channel) -> ChannelReport:
        """Report on a channel."""
        return self._report(channel.topic, channel.config, self._engine.channels.get(channel.number))

    def client(self, channels: tuple[Channel, ...]) -> ClientReport:
        """Report on a client."""
        link = self._engine.link
        now = self._engine.now.wall
        return ClientReport(
            url=self._url,
            connection=link.state.value,
            error=link.error,
            retry_in=None if link.next_attempt_at is None else max(0.0, link.next_attempt_at - now),
            token=self._engine.keeper.state(),
            channels=tuple(self.channel(channel) for channel in channels),
        )

    def _report(self, topic: str, config: ChannelConfig, membership: Membership | None) -> ChannelReport:
        told = None if membership is None else membership.ledger.told
        return ChannelReport(
            topic=topic,
            state=(ChannelState.CLOSED if membership is None else membership.state).value,
            private=config.private,
            connection=self._engine.link.state.value,
            error=None if membership is None else membership.last_error,
            carried=self._carried(membership, told),
            token=self._engine.keeper.state(),
            changes=tuple(map(str, config.changes)),
            streaming=membership is not None and membership.streaming,
            joins=0 if membership is None else membership.joins,
            pending=0 if membership is None else membership.pending,
            suspicions=() if membership is None else tuple(self._suspicions(membership, told)),
        )

    def _carried(self, membership: Membership | None, told: ResolvedToken | None) -> str:
        if membership is None or not membership.joins:
            return "nothing was sent yet"
        if told is None:
            return "the API key alone, no user's token"
        return f"the {told.describe(self._engine.now.wall)}"

    def _suspicions(self, membership: Membership, told: ResolvedToken | None) -> list[Suspicion]:
        found = []
        config, error = membership.config, membership.last_error
        joined = membership.state is ChannelState.JOINED
        if joined and config.changes and told is None:
            found.append(
                Suspicion(
                    "Row level security hides the rows",
                    "the channel asked for row changes with the API key alone",
                    "Sign in, and give the client a `token`.",
                )
            )
        if joined and not membership.streaming:
            found.append(
                Suspicion(
                    "Replication is not ready, or a table is not in the publication",
                    "the channel is joined, and the server did not say that changes stream",
                    "Add the table to the publication `supabase_realtime`; wait a few seconds.",
                )
            )
        if isinstance(error, NoReply) and self._engine.settings.join_timeout <= 5:
            found.append(
                Suspicion(
                    "The refusal came too late to be heard",
                    f"the join timeout is {self._engine.settings.join_timeout:g} s",
                    "Supabase's server answers a refused join after 5 s: wait 7 s at least.",
                )
            )
        if error is not None and error.retry is Retry.REFRESH and told is not None:
            now = self._engine.now.wall
            if told.expires_at is not None and told.expires_at > now:
                found.append(
                    Suspicion(
                        "The clocks differ",
                        f"the server calls a token expired that has {told.expires_at - now:.0f} s left here",
                        "Set the clock of this machine, or of the server.",
                    )
                )
        if isinstance(error, TokenRefused) and error.code == "JwtSignatureError":
            found.append(
                Suspicion(
                    "The token is another project's, or the keys were rotated",
                    "its signature does not fit",
                    "Sign in to this project anew; compare the URL with the token's issuer.",
                )
            )
        if self._engine.link.state is LinkState.FATAL and self._engine.link.error is not None:
            refused = self._engine.link.error
            found.append(
                Suspicion(
                    "The server refuses connections", f"{refused.code}: {refused.message}", refused.hint
                )
            )
        return found
