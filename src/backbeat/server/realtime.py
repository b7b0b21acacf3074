"""The running server, apart from its port: who is connected, what is shared, and who owns the tasks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from backbeat.errors import Refusal, Retry
from backbeat.protocol import closings, reasons
from backbeat.server.entrance import Entrance
from backbeat.server.hub import Hub
from backbeat.server.limits import ProjectLimits
from backbeat.server.metrics import Metrics
from backbeat.server.slow_senders import SlowSenders
from backbeat.tokens.claims import TokenSource, fingerprint

if TYPE_CHECKING:
    from collections.abc import Hashable

    from backbeat.postgres.authorize import Permissions
    from backbeat.postgres.messages import StoredMessage
    from backbeat.protocol.bindings import Binding
    from backbeat.server.keyring import Keyring
    from backbeat.server.settings import Settings
    from backbeat.server.socket import Socket
    from backbeat.tokens.claims import Claims, Token

__all__ = ["Authorization", "ChangeSource", "Realtime"]

log = structlog.get_logger("backbeat.realtime")

SWEEP_INTERVAL: Final = 5.0
"""Seconds between looks for sockets that fell silent, or less where a quarter of a timeout is less."""

MAX_KNOWN_KEYS: Final = 64
"""How many verified API keys are remembered: a project has four, and people mint a few."""


class Authorization(Protocol):
    """Decides what a token may do on a private channel; `backbeat.postgres.authorize` asks Postgres."""

    async def probe(
        self, topic: str, claims: Claims, headers: Mapping[str, str], *, presence: bool
    ) -> Permissions:
        """Answer for one topic, or raise a `Refusal`."""


class ChangeSource(Protocol):
    """What comes out of the database by itself; `backbeat.server.feed` is the one that delivers."""

    streaming: asyncio.Event
    """Set while every commit arrives."""

    async def subscribe(self, subscriber: Hashable, bindings: Sequence[Binding], claims: Claims) -> None:
        """Start delivering to a subscriber, replacing what it had; or raise a `Refusal`."""

    def unsubscribe(self, subscriber: Hashable) -> None:
        """Stop delivering; nothing happens to one who never subscribed."""

    def hand_over(self, subscriber: Hashable, successor: Hashable, claims: Claims) -> None:
        """Give what somebody is subscribed to to a successor with other claims, without a gap."""

    async def replay(self, topic: str, *, since_ms: int, limit: int) -> Sequence[StoredMessage]:
        """Read the newest stored messages of a private channel, oldest first; or raise a `Refusal`."""


class Realtime:
    """What all sockets of a server share.

    Args:
        settings: what the server was told.
        keyring: verifies tokens.
        authorizer: decides about private channels.
        changes: keeps change subscriptions.
        metrics: what counts; its own if None.
        clock: seconds since the epoch; tokens are measured against it.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        keyring: Keyring,
        authorizer: Authorization,
        changes: ChangeSource,
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.keyring = keyring
        self.authorizer = authorizer
        self.changes = changes
        self.metrics = metrics or Metrics()
        self.now = clock
        self.draining = False
        self.limits = ProjectLimits(settings.limits)
        self.entrance = Entrance(settings.connections)
        self._slow_senders: SlowSenders[Socket] = SlowSenders(settings.connections)
        self.loop = asyncio.get_running_loop()
        self.hub = Hub(self.loop.call_soon, self.metrics)
        self._keys = settings.keys
        self._known_keys: dict[str, Token] = {}
        self._known_generation = keyring.generation
        self._learning: asyncio.Task[None] | None = None
        self._sockets: set[Socket] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        shortest = min(settings.idle_timeout, settings.alone_timeout, settings.connections.message_timeout)
        self._sweep_interval = min(SWEEP_INTERVAL, shortest / 4)
        self._sweeper = self.loop.call_later(self._sweep_interval, self._sweep)
        self.metrics.watch("backbeat_tcp_connections", lambda: self.entrance.total)
        self.metrics.watch("phoenix_connections_max", lambda: settings.limits.max_concurrent_users or inf)
        self.metrics.watch("backbeat_users", lambda: self.limits.users)
        self.metrics.watch("backbeat_rooms", lambda: len(self.hub))
        self.metrics.watch(
            "backbeat_write_buffer_bytes", lambda: sum(socket.waiting_bytes for socket in self._sockets)
        )

    def __repr__(self) -> str:
        return f"<Realtime sockets={len(self._sockets)} rooms={len(self.hub)} tasks={len(self._tasks)}>"

    async def aclose(self) -> None:
        """Close every socket, stop every task, and wait for them."""
        self._sweeper.cancel()
        self.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def drain(self) -> None:
        """Take no more sockets and joins, and send away those who are here."""
        self.draining = True
        for socket in list(self._sockets):
            socket.shutdown()

    # Tokens -------------------------------------------------------------------------------------------------

    def verify(self, value: str) -> Token:
        """Verify a user's token.

        Raises:
            TokenRefused: it does not verify; the error says why.
        """
        return self.keyring.verify_now(value, now=self.now())

    def verify_api_key(self, key: str) -> Token:
        """Verify the key a socket connects with, opaque or JWT.

        Raises:
            TokenRefused: it does not verify; with the texts of a refused connect.
        """
        if self._known_generation != self.keyring.generation:
            self._known_keys.clear()
            self._known_generation = self.keyring.generation
        token = self._known_keys.get(key)
        if token is None:
            token = self._verify_new_key(key)
            if len(self._known_keys) >= MAX_KNOWN_KEYS:
                self._known_keys.pop(next(iter(self._known_keys)))
            self._known_keys[key] = token
        if token.claims.exp <= self.now():
            raise reasons.TOKEN_EXPIRED_AT_CONNECT.refusal(context=token.describe(self.now()))
        return token

    def _verify_new_key(self, key: str) -> Token:
        value = self._keys.token_of(key)
        try:
            return self.keyring.verify_now(value, now=self.now(), source=TokenSource.API_KEY)
        except Refusal as refusal:
            if refusal.retry is Retry.REFRESH:
                context = f"This is the {TokenSource.API_KEY.value} {fingerprint(value)}."
                raise reasons.TOKEN_EXPIRED_AT_CONNECT.refusal(context=context) from refusal
            if self.keyring.may_learn(value, refusal):
                # A handshake is answered at once; the next one will find the key, if there is one.
                self._learn_keys()
            raise

    def _learn_keys(self) -> None:
        if self._learning is None or self._learning.done():
            self._learning = self.spawn(self.keyring.refresh(), name="unknown API key")

    def still_valid(self, token: Token) -> Token:
        """Return a token that was verified before, if it has not ended since.

        Raises:
            TokenRefused: it has expired.
        """
        now = self.now()
        if token.claims.exp <= now:
            raise reasons.TOKEN_EXPIRED.refusal(
                context=token.describe(now), seconds=int(now - token.claims.exp)
            )
        return token

    # Sockets ------------------------------------------------------------------------------------------------

    def connected(self, socket: Socket) -> None:
        """A socket opened."""
        self._sockets.add(socket)
        self.metrics.connects += 1
        self.metrics.connections = len(self._sockets)

    def disconnected(self, socket: Socket) -> None:
        """A socket ended."""
        self._sockets.discard(socket)
        self._slow_senders.forget(socket)
        self.metrics.connections = len(self._sockets)

    def count_refusal(self, refusal: Refusal) -> None:
        """Count a refusal by its code."""
        self.metrics.refusals[refusal.code] += 1

    def _sweep(self) -> None:
        """Close sockets that sent nothing for too long, that have no channel any more, or that dawdle.

        Every byte is a sign of life, those of an unfinished message too: a client that sends a large one over
        a slow line cannot put a heartbeat into the middle of it. How long it may take is another question.
        Of the others, the channels are told to mind the ends of their tokens.
        """
        now = self.loop.time()
        held: list[tuple[Socket, bytearray, int]] = []
        for socket in list(self._sockets):
            if socket.last_seen < now - self.settings.idle_timeout:
                socket.end(closings.IDLE)
                continue
            if socket.alone_since < now - self.settings.alone_timeout:
                socket.end(closings.NO_CHANNELS)
                continue
            if (parser := socket.parser) is not None and (buffer := parser.unfinished) is not None:
                held.append((socket, buffer, parser.held))
            for channel in socket.channels.values():
                channel.mind_expiry()
        for socket in self._slow_senders.look(held, now):
            socket.end(closings.MESSAGE_TOO_SLOW)
        self._sweeper = self.loop.call_later(self._sweep_interval, self._sweep)

    # Tasks --------------------------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Start a task the server owns: it is awaited or cancelled, and its failure is reported.

        Args:
            work: what to run.
            name: what to call it in the log.
        """
        task = self.loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.metrics.handler_failures += 1
            log.error("task failed", task=task.get_name(), exc_info=error)
