"""One joined topic of one socket: join, token, broadcast, presence, row changes, leave.

A channel is `JOINING` until its join is answered, then `JOINED`, in the end `CLOSED`. While something it
asked the database decides what it may do (a join, a new token), what arrives for it waits in order; other
channels of the socket, and its heartbeats, do not.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from backbeat.errors import Refusal, TokenRefused
from backbeat.postgres.authorize import Permissions
from backbeat.protocol import reasons
from backbeat.protocol.join import JoinRequest
from backbeat.protocol.messages import TOPIC_PREFIX, BinaryBroadcast, Event, Incoming, Message
from backbeat.server.cancellation import unless_cancelled
from backbeat.server.delivery import Hears, TextDelivery, UserBroadcast
from backbeat.server.outbox import Outbox
from backbeat.server.realtime import SWEEP_INTERVAL
from backbeat.server.replay import Replayed
from backbeat.server.subscription import ChangeSubscription
from backbeat.server.tracker import Tracker
from backbeat.tokens.keys import is_opaque
from backbeat.websocket.frames import CloseCode

if TYPE_CHECKING:
    from backbeat.postgres.messages import StoredMessage
    from backbeat.server.delivery import Delivery
    from backbeat.server.realtime import Realtime
    from backbeat.server.room import Room
    from backbeat.server.socket import Socket
    from backbeat.tokens.claims import Token

__all__ = ["Channel"]

log = structlog.get_logger("backbeat.channel")

MAX_BACKLOG: Final = 100
"""Messages that may wait while a join or a new token is being decided; the next is refused. Together they may
be as large as one message may be."""

MAX_TOPIC: Final = 2048
"""Characters of a topic: it stands in every message and every log line."""

REPLICATION_PATIENCE: Final = 60.0
"""Seconds to wait for the replication stream, for a channel that asked to be told."""


class Phase(Enum):
    """Where in its life a channel is."""

    JOINING = "joining"
    JOINED = "joined"
    CLOSED = "closed"


class _TokenPush(msgspec.Struct):
    access_token: str | None


class Channel:
    """A channel that a socket is joining, or has joined.

    Args:
        realtime: the server.
        socket: the connection it belongs to.
        join: the `phx_join` message.
        replaces: the join refs of earlier channels of the topic that this join ended; they are closed after
            the reply.

    Attributes:
        outbox: speaks to the client.
        permissions: what the token may do here.
        room: where it is a member, once joined.
        tracker: its presence.
    """

    __slots__ = (
        "_backlog",
        "_busy",
        "_changes",
        "_expiry",
        "_phase",
        "_readiness",
        "_ref",
        "_replaces",
        "_replay",
        "_request",
        "_token",
        "hears",
        "join_ref",
        "outbox",
        "permissions",
        "realtime",
        "room",
        "serializer",
        "socket",
        "topic",
        "tracker",
        "write",
    )

    def __init__(
        self, realtime: Realtime, socket: Socket, join: Message, *, replaces: tuple[str | None, ...] = ()
    ) -> None:
        self.realtime = realtime
        self.socket = socket
        self.serializer = socket.serializer
        self.write = socket.write
        self.topic = join.topic
        self.join_ref = join.join_ref or join.ref
        self.hears = Hears.NOTHING
        self.outbox = Outbox(socket, join.topic, self.join_ref, explain=realtime.settings.explain)
        self._ref = join.ref
        self._replaces = replaces
        self._request = JoinRequest()
        self._token: Token = socket.token
        self.permissions = Permissions.none()
        self.room: Room | None = None
        self.tracker = Tracker(self)
        self._readiness: asyncio.Task[None] | None = None
        self._phase = Phase.JOINING
        self._busy: asyncio.Task[None] | None = None
        self._changes: ChangeSubscription | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._replay: Replayed | None = None
        self._backlog: deque[Incoming] | None = None

    def __repr__(self) -> str:
        return f"<Channel {self.topic!r} {self._phase.value} role={self._token.claims.role}>"

    @property
    def sub_topic(self) -> str:
        """The topic without its prefix, as policies and people know it."""
        return self.topic.removeprefix(TOPIC_PREFIX)

    @property
    def private(self) -> bool:
        """Whether policies decide what the channel may do."""
        return self._request.private

    # Joining ------------------------------------------------------------------------------------------------

    def join(self, payload: bytes) -> None:
        """Answer the join: at once when nothing has to be asked, else as soon as the database has decided.

        Args:
            payload: the join payload, JSON text.
        """
        try:
            request = JoinRequest.parse(payload)
            self._request = request.without_token()
            self.tracker.on = request.presence
            self._check_join()
        except Refusal as refusal:
            self._refuse_join(refusal)
            return
        if request.problems:
            log.warning(
                "join payload", code="InvalidJoinPayload", topic=self.topic, problems=request.problems
            )
        if request.access_token is not None:
            self._verify(request.access_token, self._join_with, self._refuse_join)
            return
        try:
            # The connection's token was good when the socket opened; it may have ended since.
            self._join_with(self.realtime.still_valid(self.socket.token))
        except Refusal as refusal:
            self._refuse_join(refusal)

    def _join_with(self, token: Token) -> None:
        self._token = token
        if self._request.private:
            self.occupy(self._join_private)
        else:
            self._admit(Permissions.all())

    def _check_join(self) -> None:
        """The checks of section 3.4 that need nothing but what is at hand."""
        if not self.sub_topic:
            raise reasons.TOPIC_NAME_REQUIRED.refusal()
        if len(self.topic) > MAX_TOPIC:
            raise reasons.UNREADABLE_JOIN.refusal(detail=f"the topic is longer than {MAX_TOPIC} characters")
        if self.realtime.draining:
            raise reasons.RESTARTING.refusal(topic=self.sub_topic)
        if self.realtime.settings.private_only and not self._request.private:
            raise reasons.PRIVATE_ONLY.refusal(topic=self.sub_topic)
        if reason := self.socket.limits.join(self.realtime.loop.time()):
            raise reason.refusal(topic=self.sub_topic)
        if len(self.socket.channels) > self.realtime.settings.max_channels:
            raise reasons.CHANNEL_LIMIT.refusal(topic=self.sub_topic)
        if self._request.replay_requested and not self._request.private:
            raise reasons.REPLAY_PUBLIC.refusal(topic=self.sub_topic)
        if self._request.replay_malformed:
            raise reasons.REPLAY_MALFORMED.refusal(topic=self.sub_topic)

    async def _join_private(self) -> None:
        room = self.realtime.hub.room(self.topic, private=True)
        try:
            with room.tap() as passing:
                permissions = await self._ask_permissions()
                replayed = await self._stored_messages(permissions)
                self._admit(permissions, replayed, passing)
        except Refusal as refusal:
            self._refuse_join(refusal)
        finally:
            self.realtime.hub.release(room, private=True)

    async def _ask_permissions(self) -> Permissions:
        """Ask Postgres what the token may do here.

        Raises:
            Refusal: nothing may be read, or the question could not be answered.
        """
        permissions = await unless_cancelled(
            self.realtime.authorizer.probe(
                self.sub_topic, self._token.claims, self.socket.headers, presence=self.tracker.on
            )
        )
        if not permissions.read.broadcast and not permissions.read.presence:
            raise reasons.UNAUTHORIZED.refusal(topic=self.sub_topic, context=self.who())
        return permissions

    async def _stored_messages(self, permissions: Permissions) -> Sequence[StoredMessage]:
        """Read the stored messages that were asked for.

        Raises:
            Refusal: broadcasts may not be read, or the database could not be.
        """
        replay = self._request.replay
        if replay is None:
            return ()
        if not permissions.read.broadcast:
            raise reasons.UNAUTHORIZED.refusal(topic=self.sub_topic, context=self.who())
        return await unless_cancelled(
            self.realtime.changes.replay(self.sub_topic, since_ms=replay.since, limit=replay.limit)
        )

    async def ask_again(self) -> None:
        """Ask Postgres anew what the token may do, and hear what it says.

        Raises:
            Refusal: nothing may be read, or the question could not be answered.
        """
        self.permissions = await self._ask_permissions()
        self._hear()

    def who(self) -> str:
        """Say which token is asking, for a hint."""
        return self._token.describe(self.realtime.now())

    def _admit(
        self,
        permissions: Permissions,
        replayed: Sequence[StoredMessage] = (),
        passing: Sequence[Delivery] = (),
    ) -> None:
        """Answer ok, then enter the room: the reply precedes everything else of this channel.

        Args:
            permissions: what the token may do.
            replayed: stored messages to send first.
            passing: stored messages that passed while those were read.
        """
        if reason := self.socket.limits.enter():
            self._refuse_join(reason.refusal(topic=self.sub_topic))
            return
        request = self._request
        self.permissions = permissions
        self.room = self.realtime.hub.room(self.topic, private=request.private)
        # One text for all members of a room, in place of one each.
        self.topic = self.room.topic
        self.outbox.enter(self.room, self)
        entries = [
            {**entry, "id": number} for entry, number in zip(request.changes, request.change_ids, strict=True)
        ]
        self.outbox.send(
            Event.REPLY,
            b'{"status":"ok","response":{"postgres_changes":%b}}' % msgspec.json.encode(entries),
            ref=self._ref,
        )
        self._close_replaced()
        self._phase = Phase.JOINED
        self._hear()
        self._watch_expiry()
        self.realtime.metrics.joins += 1
        self.realtime.metrics.channels += 1
        self.tracker.begin(request.presence_key)
        if request.replay is not None:
            self._replay = Replayed(self.realtime.loop, self.room, self)
            if frames := self._replay.begin(replayed, passing, self.join_ref):
                self.outbox.frames(frames)
        if request.replication_ready:
            self._readiness = self.realtime.spawn(self._say_when_replicating(), name=f"ready {self.topic}")
        if request.changes:
            self._changes = self._change_subscription()
            self._changes.start(self._token)

    async def _say_when_replicating(self) -> None:
        """Say that broadcasts from the database arrive, as soon as they do (section 3.7)."""
        try:
            async with asyncio.timeout(REPLICATION_PATIENCE):
                await self.realtime.changes.streaming.wait()
        except TimeoutError:
            self.shut_down(reasons.NOT_REPLICATING.refusal(topic=self.sub_topic))
        else:
            self.outbox.system("Replication connection established")

    def _change_subscription(self) -> ChangeSubscription:
        request = self._request
        return ChangeSubscription(self.realtime, self.outbox, request.changes, request.change_ids)

    def _refuse_join(self, refusal: Refusal) -> None:
        self.realtime.count_refusal(refusal)
        log.info(
            "join refused",
            code=refusal.code,
            topic=self.topic,
            reason=refusal.message,
            hint=refusal.hint,
            # A token that was refused is named in the hint; this would be another one.
            **({} if isinstance(refusal, TokenRefused) else {"token": self.who()}),
        )
        self.outbox.reply_error(refusal, self._ref, text=refusal.reason)
        self._close_replaced()
        waiting = self._backlog
        self.close()
        for message in waiting or ():
            # The topic is not joined now: whoever sent it is told so.
            self.socket.guarded(message, self.socket.dispatch)
        if refusal.code == reasons.JOIN_LIMIT.code:
            # Stock clients join again at once and for ever; a connection that is closed waits first.
            self.socket.close(CloseCode.GOING_AWAY, refusal.message, name=refusal.code)

    def _close_replaced(self) -> None:
        """Tell the client that replaced channels are gone: after the new reply, under their own refs."""
        for ref in self._replaces:
            self.outbox.send(Event.CLOSE, b"{}", ref=ref, join_ref=ref)
        self._replaces = ()

    # Receiving ----------------------------------------------------------------------------------------------

    def receive(self, message: Incoming) -> None:
        """Handle one message for this topic, or let it wait its turn."""
        if self._busy is None:
            self._handle(message)
        elif not self._wait(message):
            refusal = reasons.JOIN_BACKLOG.refusal(topic=self.sub_topic)
            self.realtime.count_refusal(refusal)
            self.outbox.reply_error(refusal, message.ref)

    def _wait(self, message: Incoming) -> bool:
        """Let a message wait; False if there are too many already."""
        if self._backlog is None:
            self._backlog = deque()
        size = sum(len(each.payload) for each in self._backlog) + len(message.payload)
        if len(self._backlog) >= MAX_BACKLOG or size > self.realtime.settings.max_frame_bytes:
            return False
        self._backlog.append(message)
        return True

    def _handle(self, message: Incoming) -> None:
        if self._phase is not Phase.JOINED:
            return
        if isinstance(message, BinaryBroadcast):
            self._broadcast_binary(message)
        elif handler := HANDLERS.get(message.event):
            handler(self, message)
        else:
            self._unknown(message)

    def _unknown(self, message: Message) -> None:
        if not self._may_send_event():
            return
        self.realtime.metrics.unknown_events += 1
        log.info("unknown event", topic=self.topic, event_name=message.event[:64])

    def _leave(self, message: Message) -> None:
        if message.join_ref is not None and message.join_ref != self.join_ref:
            return
        self.outbox.reply_ok(message.ref)
        self.outbox.close()
        self.close()

    # Broadcast ----------------------------------------------------------------------------------------------

    def _broadcast(self, message: Message) -> None:
        if self._may_broadcast(message.payload, message.ref):
            if not message.payload.startswith(b"{"):
                self._refuse_push(reasons.PAYLOAD_NOT_OBJECT.refusal(topic=self.sub_topic), message.ref)
                return
            self._publish(TextDelivery(Event.BROADCAST, message.payload, sender=self._left_out()), message)

    def _broadcast_binary(self, message: BinaryBroadcast) -> None:
        if self._may_broadcast(message.payload, message.ref):
            delivery = UserBroadcast(
                message.user_event, message.payload, is_json=message.is_json, sender=self._left_out()
            )
            self._publish(delivery, message)

    def _left_out(self) -> Channel | None:
        return None if self._request.self_broadcast else self

    def _may_broadcast(self, payload: bytes, ref: str | None) -> bool:
        """Check permission, rate and size; the sender is told when the answer is no."""
        if not self.permissions.write.broadcast:
            refusal = self.permissions.write_refusal or reasons.BROADCAST_DENIED.refusal(
                topic=self.sub_topic, context=self.who()
            )
        elif not self._may_send_event():
            return False
        elif len(payload) > self.realtime.settings.max_payload_bytes:
            refusal = reasons.PAYLOAD_TOO_LARGE.refusal(topic=self.sub_topic)
        else:
            return True
        self._refuse_push(refusal, ref)
        return False

    def _may_send_event(self) -> bool:
        """Count one event; one too many ends the channel of whoever sent it, and of nobody else."""
        if reason := self.socket.limits.event(self.realtime.loop.time()):
            self.shut_down(reason.refusal(topic=self.sub_topic))
            return False
        return True

    def _publish(self, delivery: Delivery, message: Incoming) -> None:
        assert self.room is not None
        self.room.publish(delivery, len(message.payload))
        if self._request.ack:
            self.outbox.reply_ok(message.ref)

    def _refuse_push(self, refusal: Refusal, ref: str | None) -> None:
        """Refuse a broadcast: as its reply where replies are asked for, else as a system message."""
        self.realtime.count_refusal(refusal)
        if not self._request.ack:
            self.outbox.system_error(refusal)
        elif refusal.code == reasons.PAYLOAD_TOO_LARGE.code:
            # Clients know this one as a bare text in place of an object.
            self.outbox.send(Event.REPLY, b'{"status":"error","response":"payload_size_exceeded"}', ref=ref)
        else:
            self.outbox.reply_error(refusal, ref)

    # Tokens -------------------------------------------------------------------------------------------------

    def _access_token(self, message: Message) -> None:
        """Take a new token (section 4). There is never a reply; a token that is refused ends the channel."""
        try:
            value = _token_push.decode(message.payload).access_token
        except msgspec.DecodeError:
            self._unknown(message)
            return
        if value is None or is_opaque(value) or self._token.is_from(value):
            return
        self._verify(value, self._renew, self.shut_down)

    def _verify(
        self, value: str, then: Callable[[Token], None], otherwise: Callable[[Refusal], None]
    ) -> None:
        """Verify a token: at once, unless it names a key that has to be fetched first."""
        try:
            token = self.realtime.verify(value)
        except Refusal as refusal:
            if self.realtime.keyring.may_learn(value, refusal):
                self.occupy(partial(self._verify_later, value, then, otherwise))
            else:
                otherwise(refusal)
        else:
            then(token)

    async def _verify_later(
        self, value: str, then: Callable[[Token], None], otherwise: Callable[[Refusal], None]
    ) -> None:
        try:
            token = await unless_cancelled(self.realtime.keyring.verify(value, now=self.realtime.now()))
        except Refusal as refusal:
            otherwise(refusal)
        else:
            then(token)

    def _renew(self, token: Token) -> None:
        """Go on with a new token."""
        before, self._token = self._token.claims, token
        self._watch_expiry()
        if (self._token.claims.sub, self._token.claims.role) != (before.sub, before.role):
            self._fall_silent()
        if self._request.private:
            self.occupy(self._renew_permissions)
        elif self._changes is not None:
            self._changes.start(self._token)

    def _fall_silent(self) -> None:
        """Hear nothing more of what another identity was allowed to hear; from this message on."""
        if self._changes is not None:
            before, self._changes = self._changes, self._change_subscription()
            self.realtime.changes.hand_over(before, self._changes, self._token.claims)
            before.stop()
        if self._request.private and self.room is not None:
            self.room.leave(self)
            # Still a member, so that the room is not forgotten meanwhile; but deaf.
            self.hears = Hears.NOTHING
            self.room.enter(self)
            self.tracker.go_deaf()

    async def _renew_permissions(self) -> None:
        """Ask again with the new token; what was granted and no longer is ends the channel."""
        before = self.permissions.read
        try:
            permissions = await self._ask_permissions()
        except Refusal as refusal:
            self.shut_down(refusal)
            return
        if (before.broadcast and not permissions.read.broadcast) or (
            self.tracker.on and before.presence and not permissions.read.presence
        ):
            self.shut_down(reasons.PERMISSION_REVOKED.refusal(topic=self.sub_topic, context=self.who()))
            return
        self.permissions = permissions
        self._hear()
        self.tracker.hear_again()
        if self._changes is not None:
            self._changes.start(self._token)

    def _hear(self) -> None:
        """Enter the room with the rights the permissions give."""
        assert self.room is not None
        self.room.leave(self)
        read = self.permissions.read
        self.hears = (Hears.BROADCAST if read.broadcast else Hears.NOTHING) | (
            Hears.PRESENCE if read.presence else Hears.NOTHING
        )
        self.room.enter(self)

    def _watch_expiry(self) -> None:
        """Look at the token again when it ends."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        self.mind_expiry()

    def mind_expiry(self) -> None:
        """Set a timer for the end of the token when it is near; asked at every sweep.

        A timer for each channel from the beginning costs more memory than the rest of the channel, and would
        be late after the clock was set or the machine slept.
        """
        left = self._token.claims.exp - self.realtime.now()
        if left < SWEEP_INTERVAL and self._expiry is None and self._phase is Phase.JOINED:
            self._expiry = self.realtime.loop.call_later(max(0.0, left), self._check_expiry)

    def _check_expiry(self) -> None:
        self._expiry = None
        try:
            self.realtime.still_valid(self._token)
        except Refusal as refusal:
            self.shut_down(refusal)
        else:
            self.mind_expiry()

    # Ending -------------------------------------------------------------------------------------------------

    def shut_down(self, refusal: Refusal) -> None:
        """End the channel because of an error; stock clients stay down until they are told to join again."""
        if self._phase is Phase.CLOSED:
            return
        self.realtime.count_refusal(refusal)
        log.warning(
            "channel shut down",
            code="ChannelShutdown",
            cause=refusal.code,
            topic=self.topic,
            reason=refusal.message,
            token=self.who(),
        )
        self.outbox.system_error(refusal)
        self.outbox.close()
        self.close()

    def farewell(self) -> None:
        """Say that the server is about to end the connection; clients come back by themselves."""
        if self._phase is Phase.JOINED:
            self.outbox.system("Server requested disconnect")

    def superseded(self) -> tuple[str | None, ...]:
        """End without a word, for another join of the topic; return the join refs it has to close."""
        refs = (*self._replaces, self.join_ref)
        self.close()
        return refs

    def crash(self) -> None:
        """End the channel because the server failed; stock clients join again by themselves."""
        self.outbox.send(Event.ERROR, b'{"reason":"channel_crash"}', ref=self.join_ref)
        self.close()

    def close(self) -> None:
        """Leave the room, stop every task and timer, and be forgotten by the socket. Writes nothing."""
        if self._phase is Phase.CLOSED:
            return
        joined, self._phase = self._phase is Phase.JOINED, Phase.CLOSED
        for task in (self._busy, self._readiness):
            # What ends the channel may be one of them; it has nothing left to do.
            if task is not None and task is not asyncio.current_task():
                task.cancel()
        if self._expiry is not None:
            self._expiry.cancel()
        self._backlog = None
        self.socket.forget(self)
        if joined:
            self.realtime.metrics.channels -= 1
        if self._changes is not None:
            self._changes.stop()
        if self.room is not None:
            self.room.leave(self, gone=self.socket.gone)
            if self._replay is not None:
                # Not before: leaving writes what is on its way, copies of replayed messages among it.
                self._replay.end()
            self.tracker.untrack()
            self.realtime.hub.release(self.room, private=self._request.private)

    # Tasks --------------------------------------------------------------------------------------------------

    def occupy(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run something that decides what the channel may do; messages wait until it is done."""
        self._busy = self.realtime.spawn(self._work(work), name=f"{self.topic}")

    async def _work(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception:
            log.exception("channel failed", topic=self.topic)
            self.realtime.metrics.handler_failures += 1
            if self._phase is Phase.JOINING:
                self._refuse_join(reasons.UNKNOWN_ERROR.refusal(topic=self.sub_topic))
            else:
                self.crash()
        if self._busy is not asyncio.current_task():
            # One decision led to the next: a key was fetched, now the policies are asked.
            return
        self._busy = None
        while self._backlog and self._busy is None:
            self.socket.guarded(self._backlog.popleft(), self._handle)
        if not self._backlog:
            self._backlog = None


_token_push = msgspec.json.Decoder(_TokenPush)

HANDLERS: Final[Mapping[str, Callable[[Channel, Message], None]]] = {
    Event.LEAVE: Channel._leave,  # noqa: SLF001
    Event.BROADCAST: Channel._broadcast,  # noqa: SLF001
    Event.PRESENCE: lambda channel, message: channel.tracker.handle(message),
    Event.ACCESS_TOKEN: Channel._access_token,  # noqa: SLF001
}
"""What a joined channel understands; everything else is unknown, and counted."""
