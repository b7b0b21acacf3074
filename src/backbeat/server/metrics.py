"""What the server counts. Plain integers, for they are counted on hot paths; exported when somebody looks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields

__all__ = ["Metrics"]


@dataclass(slots=True)
class Metrics:
    """Counters since the server started.

    Attributes:
        connections: sockets that are open now.
        connects: sockets that were ever opened.
        channels: channels that are joined now.
        joins: joins that succeeded.
        messages_in: messages from clients.
        deliveries: frames written to clients by fan-outs.
        slow_readers: sockets dropped because they did not read.
        frames_dropped: frames that broke the protocol, by code.
        refusals: refused connects, joins, tokens and pushes, by code.
        unknown_events: events nobody understands.
        handler_failures: exceptions of ours that cost a message or a channel.
        changes_sent: row changes handed to channels.
        messages_from_database: broadcasts that came out of realtime.messages.
    """

    connections: int = 0
    connects: int = 0
    channels: int = 0
    joins: int = 0
    messages_in: int = 0
    deliveries: int = 0
    slow_readers: int = 0
    frames_dropped: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    unknown_events: int = 0
    handler_failures: int = 0
    changes_sent: int = 0
    messages_from_database: int = 0

    def exposition(self) -> str:
        """The counters in the text format Prometheus reads (version 0.0.4)."""
        lines: list[str] = []
        for each in fields(self):
            value = getattr(self, each.name)
            name = f"backbeat_{each.name}"
            lines.append(f"# TYPE {name} {'gauge' if each.name in GAUGES else 'counter'}")
            if isinstance(value, Counter):
                lines += [f'{name}{{code="{code}"}} {count}' for code, count in sorted(value.items())]
            else:
                lines.append(f"{name} {value}")
        return "\n".join(lines) + "\n"


GAUGES = frozenset({"connections", "channels"})
