"""What the server counts, and how Prometheus reads it.

Hot paths add to plain integers; everything else happens when somebody looks. The names that dashboards of
Supabase Realtime know are kept (server specification, section 10.6). They are the reason why the text is
written here: their counters lack the suffix `_total`, which client libraries append. Names of our own begin
with `backbeat_`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from math import inf
from typing import Final, Literal

from backbeat.errors import Denied, TokenRefused
from backbeat.protocol.reasons import REASONS

__all__ = ["CONTENT_TYPE", "FAMILIES", "Family", "Histogram", "Metrics"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

MILLISECONDS: Final = (1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 5000.0, 15_000.0)
BYTES: Final = (250.0, 1000.0, 5000.0, 25_000.0, 100_000.0, 500_000.0, 1_000_000.0, 3_000_000.0)

AUTH_CODES: Final = frozenset(
    reason.code for reason in REASONS.values() if issubclass(reason.error, TokenRefused | Denied)
)
"""The codes that say no to a token, or to what it may do."""


class Histogram:
    """How often values fell into which range.

    Args:
        bounds: the upper bounds of the ranges, ascending; each belongs to its range.
        scale: what an observed value is multiplied by: durations are observed in seconds, and some are
            exported in milliseconds.
    """

    __slots__ = ("_bounds", "_counts", "_scale", "_sum")

    def __init__(self, bounds: tuple[float, ...], *, scale: float = 1.0) -> None:
        self._bounds = bounds
        self._scale = scale
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        value *= self._scale
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def samples(self) -> Iterator[tuple[str, str, float]]:
        """The samples of the text format: suffix, label, value. Each range includes those below it."""
        for bound, count in zip((*self._bounds, inf), accumulate(self._counts), strict=True):
            yield "_bucket", f'{{le="{_number(bound)}"}}', count
        yield "_sum", "", self._sum
        yield "_count", "", sum(self._counts)


def _milliseconds() -> Histogram:
    return Histogram(MILLISECONDS, scale=1000)


@dataclass(slots=True)
class Metrics:
    """Counters since the server started, and what is true now.

    Attributes:
        connections: sockets that are open now.
        connects: sockets that were ever opened.
        channels: channels that are joined now.
        joins: joins that succeeded.
        messages_in: messages from clients, heartbeats included.
        broadcasts: broadcasts published in a room.
        presence_events: presence messages from clients.
        deliveries: messages written to clients by fan-outs, one for each recipient.
        bytes_in: bytes read from sockets.
        bytes_out: bytes written to sockets.
        payload_sizes: bytes of each broadcast.
        slow_readers: connections dropped because they did not read.
        closes: sockets that the server closed or cut, by what for.
        frames_dropped: frames that broke the protocol, by code.
        refusals: refused connects, joins, tokens, pushes and requests, by code.
        unknown_events: events nobody understands.
        handler_failures: exceptions of ours that cost a message or a channel.
        changes_sent: row changes written to channels.
        messages_from_database: broadcasts that came out of realtime.messages.
        commit_latency: seconds from the commit of a stored message to its broadcast.
        authorizations: seconds that a question to the policies took, the wait for a connection included.
        replays: seconds that reading stored messages took.
    """

    connections: int = 0
    connects: int = 0
    channels: int = 0
    joins: int = 0
    messages_in: int = 0
    broadcasts: int = 0
    presence_events: int = 0
    deliveries: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    payload_sizes: Histogram = field(default_factory=lambda: Histogram(BYTES))
    slow_readers: int = 0
    closes: Counter[str] = field(default_factory=Counter)
    frames_dropped: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    unknown_events: int = 0
    handler_failures: int = 0
    changes_sent: int = 0
    messages_from_database: int = 0
    commit_latency: Histogram = field(default_factory=_milliseconds)
    authorizations: Histogram = field(default_factory=_milliseconds)
    replays: Histogram = field(default_factory=_milliseconds)
    _watched: dict[str, Callable[[], float | None]] = field(default_factory=dict, repr=False)

    @property
    def auth_failures(self) -> Mapping[str, int]:
        """The refusals that said no to a token, or to what it may do, by code."""
        return {code: count for code, count in self.refusals.items() if code in AUTH_CODES}

    def watch(self, name: str, read: Callable[[], float | None]) -> None:
        """Let something be read whenever somebody looks, in place of being counted here.

        Args:
            name: the name of a family without an attribute.
            read: returns the value, or None while there is none.
        """
        assert any(family.name == name and not family.attribute for family in FAMILIES), name
        self._watched[name] = read

    def exposition(self) -> str:
        """Everything, in the text format of Prometheus (`CONTENT_TYPE`).

        What is watched by nobody, or has no value at the moment, is left out.
        """
        lines: list[str] = []
        for family in FAMILIES:
            samples = [
                f"{family.name}{suffix}{labels} {_number(value)}"
                for suffix, labels, value in self._samples(family)
            ]
            if samples:
                lines += [
                    f"# HELP {family.name} {family.help}",
                    f"# TYPE {family.name} {family.kind}",
                    *samples,
                ]
        return "\n".join(lines) + "\n"

    def _samples(self, family: Family) -> Iterator[tuple[str, str, float]]:
        if not family.attribute:
            read = self._watched.get(family.name)
            value = read() if read is not None else None
        else:
            value = getattr(self, family.attribute)
        if isinstance(value, Histogram):
            yield from value.samples()
        elif isinstance(value, Mapping):
            for code, count in sorted(value.items()):
                yield "", f'{{code="{_escaped(code)}"}}', count
        elif value is not None:
            yield "", "", value


def _number(value: float) -> str:
    """Write a number; whole ones without a fraction."""
    if value == inf:
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(value)


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


@dataclass(frozen=True, slots=True)
class Family:
    """One metric as it is exported.

    Attributes:
        name: its name.
        kind: its type.
        help: what it tells, in one line without a backslash.
        attribute: where it stands in `Metrics`; empty when it is watched.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    attribute: str = ""


FAMILIES: Final = (
    # Connections
    Family("realtime_connections_connected", "gauge", "Sockets that are open.", "connections"),
    Family("phoenix_connections_total", "gauge", "Sockets that are open.", "connections"),
    Family("phoenix_connections_active", "gauge", "Sockets that are open.", "connections"),
    Family(
        "backbeat_tcp_connections", "gauge", "Connections that are open, those of HTTP requests included."
    ),
    Family("phoenix_connections_max", "gauge", "How many users the server takes."),
    Family("backbeat_connects_total", "counter", "Sockets that were ever opened.", "connects"),
    Family("backbeat_users", "gauge", "Sockets that have joined a channel; the limit counts these."),
    Family(
        "backbeat_slow_readers_total",
        "counter",
        "Connections dropped for reading too slowly.",
        "slow_readers",
    ),
    Family("backbeat_closes_total", "counter", "Sockets that the server closed, by code.", "closes"),
    Family("backbeat_write_buffer_bytes", "gauge", "Bytes that wait for clients to read them."),
    Family("realtime_channel_input_bytes", "counter", "Bytes read from sockets.", "bytes_in"),
    Family("realtime_channel_output_bytes", "counter", "Bytes written to sockets.", "bytes_out"),
    # Channels
    Family("backbeat_channels", "gauge", "Channels that are joined.", "channels"),
    Family("backbeat_rooms", "gauge", "Topics that somebody has joined, public and private ones apart."),
    Family("realtime_channel_joins", "counter", "Joins that succeeded.", "joins"),
    Family(
        "realtime_channel_error",
        "counter",
        "Refused connects, joins, tokens, messages and requests, by code.",
        "refusals",
    ),
    Family(
        "backbeat_auth_failures_total",
        "counter",
        "Those of them that said no to a token or to what it may do, by code.",
        "auth_failures",
    ),
    # Messages
    Family("backbeat_messages_in_total", "counter", "Messages from clients, heartbeats too.", "messages_in"),
    Family(
        "realtime_channel_events",
        "counter",
        "Broadcasts published; from sockets, over HTTP and from the database.",
        "broadcasts",
    ),
    Family("realtime_channel_presence_events", "counter", "Presence messages.", "presence_events"),
    Family("backbeat_deliveries_total", "counter", "Messages sent, once for each recipient.", "deliveries"),
    Family("realtime_payload_size", "histogram", "Bytes of each broadcast.", "payload_sizes"),
    Family(
        "backbeat_frames_dropped_total", "counter", "Frames that are no message, by code.", "frames_dropped"
    ),
    Family("backbeat_unknown_events_total", "counter", "Events nobody understands.", "unknown_events"),
    Family(
        "backbeat_handler_failures_total",
        "counter",
        "Failures of the server itself; the log has a traceback for each.",
        "handler_failures",
    ),
    # The database
    Family(
        "realtime_tenants_read_authorization_check",
        "histogram",
        "Milliseconds to ask the policies about a private channel, the wait for a connection included.",
        "authorizations",
    ),
    Family("realtime_tenants_replay", "histogram", "Milliseconds to read stored messages.", "replays"),
    Family(
        "backbeat_database_broadcasts_total",
        "counter",
        "Broadcasts that came out of realtime.messages.",
        "messages_from_database",
    ),
    Family(
        "realtime_tenants_broadcast_from_database_latency_committed_at",
        "histogram",
        "Milliseconds from the commit of a stored message to its broadcast, by the two clocks.",
        "commit_latency",
    ),
    Family("realtime_subscriptions_manager_subscribers", "gauge", "Channels subscribed to row changes."),
    Family("realtime_channel_db_events", "counter", "Row changes written to channels.", "changes_sent"),
    Family(
        "backbeat_changes_checked_total", "counter", "Pairs of row and viewer that Postgres was asked about."
    ),
    Family(
        "backbeat_changes_dropped_stale_total",
        "counter",
        "Those of them not sent because the row had changed again; the later change follows.",
    ),
    Family(
        "backbeat_changes_overtaken_total",
        "counter",
        "Row changes that somebody asked about did not see, while the row had changed again by then.",
    ),
    Family(
        "backbeat_changes_denied_by_error_total",
        "counter",
        "Those of them not sent because a policy failed or took too long.",
    ),
    Family("backbeat_stream_up", "gauge", "1 while every commit arrives, else 0."),
    Family("backbeat_stream_since_seconds", "gauge", "Since when that is so, in seconds since 1970."),
    Family(
        "backbeat_replication_lag_seconds",
        "gauge",
        "Seconds since all commits had been handled; about 1 when idle.",
    ),
    Family(
        "backbeat_replication_lag_bytes",
        "gauge",
        "Bytes of WAL written since what was last acknowledged, other tables included.",
    ),
    Family(
        "backbeat_retained_wal_bytes",
        "gauge",
        "Bytes of WAL that Postgres keeps for the slot; bounded by max_retained_wal_bytes.",
    ),
)
"""Everything that is exported, in this order."""
