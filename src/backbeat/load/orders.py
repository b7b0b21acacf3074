"""What the processes of the load client say to each other: one line of JSON each."""

from __future__ import annotations

import msgspec

from backbeat.load.refusals import Refusal
from backbeat.load.workload import Kind

__all__ = ["Answer", "Close", "Closed", "Open", "Opened", "Order", "Ran", "Run", "Settle", "Settled"]


class Open(msgspec.Struct, tag=True):
    """Open sockets, and join.

    Attributes:
        side: which server; `server` or `baseline`.
        url: of the socket, with the key.
        topics: the whole topics, each of which every member of it joins.
        members: sockets for each topic.
        private: whether policies decide about the channels.
        token: a user's token.
        patience: seconds to wait for one socket.
    """

    side: str
    url: str
    topics: list[str]
    members: int
    private: bool = False
    token: str = ""
    patience: float = 10.0

    def __repr__(self) -> str:
        return f"Open({self.side!r}, {len(self.topics)} topics, {self.members} members)"


class Run(msgspec.Struct, tag=True):
    """Measure.

    Attributes:
        side: which server.
        kind: what.
        run: eight hexadecimal digits that mark the messages of this run.
        begin: when, in nanoseconds of the monotonic clock.
        warm: seconds before anything counts.
        seconds: seconds that count.
        window: messages in flight, for all topics of this process together.
        members: members of a topic, by process; several when it is spread over them.
        process: which of them this is; the first one sends.
        rate: messages to send each second, where that is fixed.
        pids: the processes of the server, if they are known.
    """

    side: str
    kind: Kind
    run: str
    begin: int
    warm: float
    seconds: float
    window: int = 1
    members: list[int] = []
    process: int = 0
    rate: float = 0.0
    pids: list[int] = []


class Settle(msgspec.Struct, tag=True):
    """Wait until everything that was sent has come, and say what has not.

    Attributes:
        side: which server.
        sent: messages of the one topic that is spread over processes; None where each knows its own.
        patience: seconds without any progress after which the rest is missing.
    """

    side: str
    sent: int | None
    patience: float


class Close(msgspec.Struct, tag=True):
    """Close the sockets of one side."""

    side: str


Order = Open | Run | Settle | Close


class Opened(msgspec.Struct, tag=True):
    """The sockets are open.

    Attributes:
        joined: how many members each topic has got here.
        seconds: how long it took.
        cpu: seconds of processor time it took here.
        refusals: what was refused, and how often.
    """

    joined: list[int]
    seconds: float
    cpu: float
    refusals: list[tuple[Refusal, int]]


class Ran(msgspec.Struct, tag=True):
    """What was measured.

    Attributes:
        count: deliveries, or replies.
        seconds: how long they were counted.
        cpu: seconds of processor time of this process in them.
        server_cpu: the same of the server, if it is known.
        sent: messages sent in the whole run.
            refusals: what was refused, and how often.
    """

    count: int
    seconds: float
    cpu: float
    server_cpu: float | None
    sent: int
    refusals: list[tuple[Refusal, int]]


class Settled(msgspec.Struct, tag=True):
    """Whether everything came, once.

    Attributes:
        expected: how many deliveries, or replies, there should be.
        missing: how many did not come.
        repeated: how many came again.
    latencies: how many took how long, as `Histogram.counts`.
        refusals: what was refused meanwhile, and how often.
    """

    expected: int
    missing: int
    repeated: int
    latencies: dict[int, int]
    refusals: list[tuple[Refusal, int]]


class Closed(msgspec.Struct, tag=True):
    """The sockets are closed.

    Attributes:
        refusals: what was refused since the last answer, and how often.
    """

    refusals: list[tuple[Refusal, int]]


Answer = Opened | Ran | Settled | Closed
