"""A server without a port and without a database, and clients that speak to it through memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.server.listeners import TOPIC, Turns

from backbeat.errors import Refusal
from backbeat.postgres.authorize import Permissions
from backbeat.postgres.messages import StoredMessage
from backbeat.protocol.bindings import Binding
from backbeat.server.hub import Hub
from backbeat.server.keyring import Keyring
from backbeat.server.metrics import Metrics
from backbeat.server.realtime import Realtime
from backbeat.server.room import Room
from backbeat.server.settings import Settings
from backbeat.server.socket import Socket
from backbeat.tokens.claims import Claims
from backbeat.tokens.verifier import sign
from backbeat.websocket.frames import Opcode, client_frame

SECRET = "a secret of at least thirty-two bytes"


class Clock:
    """The time tokens are measured against."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Policies:
    """Stands in for the policies on realtime.messages: answers when it is told to."""

    def __init__(self) -> None:
        self.answers: dict[str, Permissions | Exception] = {}
        self.asked: list[tuple[str, Claims]] = []
        self.open = asyncio.Event()
        self.open.set()

    async def probe(self, topic: str, claims: Claims, _: Mapping[str, str], *, presence: bool) -> Permissions:
        """Answer with what was set for the topic, grant everything else; presence only if asked about."""
        self.asked.append((topic, claims))
        await self.open.wait()
        answer = self.answers.get(topic, Permissions.all())
        if isinstance(answer, Exception):
            raise answer
        if presence:
            return answer
        read, write = (replace(grants, presence=False) for grants in (answer.read, answer.write))
        return replace(answer, read=read, write=write)


class Subscriptions:
    """Stands in for the change source: remembers who subscribed, and refuses what it is told to."""

    def __init__(self) -> None:
        self.held: dict[Hashable, tuple[list[Binding], Claims]] = {}
        self.refuse_with: Refusal | None = None
        self.streaming = asyncio.Event()
        self.streaming.set()
        self.stored: list[StoredMessage] | Refusal = []
        self.reading = asyncio.Event()
        self.reading.set()

    async def subscribe(self, subscriber: Hashable, bindings: Sequence[Binding], claims: Claims) -> None:
        """Hold a subscription."""
        await asyncio.sleep(0)
        if self.refuse_with is not None:
            raise self.refuse_with
        self.held[subscriber] = list(bindings), claims

    def unsubscribe(self, subscriber: Hashable) -> None:
        """Drop a subscription."""
        self.held.pop(subscriber, None)

    def hand_over(self, subscriber: Hashable, successor: Hashable, claims: Claims) -> None:
        """Give a subscription to a successor."""
        if subscriber in self.held:
            self.held[successor] = self.held.pop(subscriber)[0], claims

    async def replay(self, topic: str, *, since_ms: int, limit: int) -> list[StoredMessage]:
        """Read what is stored for a topic."""
        assert since_ms
        await self.reading.wait()
        if isinstance(self.stored, Refusal):
            raise self.stored
        return [message for message in self.stored if message.topic == topic][-limit:]


class Transport(asyncio.Transport):
    """Records what the server writes."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: asyncio.Protocol
        self.written: list[bytes] = []
        self.closed = False
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Record a write; nothing may be written to a closed connection."""
        assert not self.closed
        assert not self.aborted
        self.written.append(bytes(data))

    def close(self) -> None:
        """Remember that the server closed the connection; the protocol hears of it in the next turn."""
        self._end()
        self.closed = True

    def can_write_eof(self) -> bool:
        """As a connection without TLS."""
        return True

    def write_eof(self) -> None:
        """The server has said its last word; a client that hears it hangs up."""
        self.close()

    def abort(self) -> None:
        """Remember that the server cut the connection."""
        self._end()
        self.aborted = True

    def is_closing(self) -> bool:
        """Whether the connection ends."""
        return self.closed or self.aborted

    def _end(self) -> None:
        if not self.is_closing():
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Take the limits; nothing is ever buffered here."""

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0


class Client:
    """A client of the server under test."""

    def __init__(self, realtime: Realtime, *, vsn: str, apikey: str, path: str, headers: str = "") -> None:
        self.vsn = vsn
        self.state = SimpleNamespace(connections=set())
        self.transport = Transport()
        self.socket = Socket(realtime, server_state=self.state)  # type: ignore[arg-type]
        self.transport.protocol = self.socket
        self.socket.connection_made(self.transport)
        head = (
            f"GET {path}?apikey={apikey}&vsn={vsn} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"Sec-WebSocket-Version: 13\r\n{headers}\r\n"
        )
        self.socket.data_received(head.encode())
        self.response = self.transport.written.pop(0) if self.transport.written else b""

    def push(
        self, topic: str, event: str, payload: object, *, ref: str | None = "1", join_ref: str | None = "1"
    ) -> None:
        """Send one message as text."""
        if self.vsn == "1.0.0":
            message: object = {
                "topic": topic, "event": event, "payload": payload, "ref": ref, "join_ref": join_ref,
            }  # fmt: skip
        else:
            message = [join_ref, ref, topic, event, payload]
        self.send(Opcode.TEXT, json.dumps(message).encode())

    def join(self, topic: str, payload: object = None, *, ref: str = "1", **config: Any) -> None:
        """Join a topic with a configuration."""
        self.push(topic, "phx_join", payload or {"config": config}, ref=ref, join_ref=ref)

    def send(self, opcode: int, data: bytes) -> None:
        """Send one frame."""
        self.socket.data_received(client_frame(opcode, data, b"mask"))

    def frames(self) -> list[tuple[int, bytes]]:
        """Take every frame that has arrived, with its opcode."""
        data, frames = b"".join(self.transport.written), []
        self.transport.written.clear()
        while data:
            length, start = data[1], 2
            if length == 126:
                length, start = int.from_bytes(data[2:4], "big"), 4
            elif length == 127:
                length, start = int.from_bytes(data[2:10], "big"), 10
            frames.append((data[0] & 15, data[start : start + length]))
            data = data[start + length :]
        return frames

    def messages(self) -> list[list[Any]]:
        """Take every text message that has arrived, as `[join_ref, ref, topic, event, payload]`."""
        messages = []
        for opcode, data in self.frames():
            assert opcode == Opcode.TEXT, (opcode, data)
            message = json.loads(data)
            if isinstance(message, dict):
                message = [None, message["ref"], message["topic"], message["event"], message["payload"]]
            messages.append(message)
        return messages

    async def settled(self) -> list[list[Any]]:
        """Let every task of the server take its steps, then take the messages."""
        for _ in range(20):
            await asyncio.sleep(0)
        return self.messages()

    def drop(self) -> None:
        """Lose the connection."""
        self.socket.connection_lost(None)


class Server:
    """The server under test with everything a test may turn."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.policies = Policies()
        self.subscriptions = Subscriptions()
        self.keyring = Keyring(SECRET)
        self.realtime = Realtime(
            Settings(database_url="", jwt_secret=SECRET, publishable_key="sb_publishable_x", **settings),
            keyring=self.keyring,
            authorizer=self.policies,
            changes=self.subscriptions,
            clock=self.clock,
        )

    def token(self, *, secret: str = SECRET, **claims: Any) -> str:
        """Mint a user's token, good for a minute."""
        defaults = {"role": "authenticated", "sub": "u1", "exp": int(self.clock.now) + 60}
        merged = {name: value for name, value in (defaults | claims).items() if value is not None}
        return sign(merged, secret)

    def client(
        self,
        vsn: str = "2.0.0",
        *,
        apikey: str = "sb_publishable_x",
        path: str = "/realtime/v1/websocket",
        headers: str = "",
    ) -> Client:
        """Connect a client."""
        return Client(self.realtime, vsn=vsn, apikey=apikey, path=path, headers=headers)

    async def joined(self, vsn: str = "2.0.0", topic: str = "realtime:room", **config: Any) -> Client:
        """Connect a client that has joined a topic and has nothing left to read."""
        client = self.client(vsn)
        client.join(topic, {"access_token": self.token(), "config": config})
        assert (await client.settled())[0][4]["status"] == "ok"
        return client


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Server]]:
    """Start servers with settings of the test's choice; all are closed at the end."""
    servers: list[Server] = []

    def begin(**settings: Any) -> Server:
        servers.append(Server(**settings))
        return servers[-1]

    yield begin
    for server in servers:
        await server.realtime.aclose()
        assert len(server.realtime.hub) == 0


@pytest.fixture
async def server(start: Callable[..., Server]) -> Server:
    """A server with the default settings."""
    return start()


# The fan-out alone ------------------------------------------------------------------------------------------


@pytest.fixture
def turns() -> Turns:
    """The turns of an event loop."""
    return Turns()


@pytest.fixture
def metrics() -> Metrics:
    """The counters."""
    return Metrics()


@pytest.fixture
def hub(turns: Turns, metrics: Metrics) -> Hub:
    """A hub without rooms."""
    return Hub(turns, metrics)


@pytest.fixture
def room(hub: Hub) -> Room:
    """A room without members."""
    return hub.room(TOPIC, private=False)
