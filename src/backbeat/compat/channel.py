"""`AsyncRealtimeChannel`: a channel of ours behind the methods of one of `realtime`."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from enum import Enum
from typing import TYPE_CHECKING, Any, Self

from backbeat.client import Channel, events
from backbeat.compat.exceptions import RealtimeHTTPError
from backbeat.compat.message import (
    ErrorSystemPayload,
    ReplyPostgresChanges,
    SuccessSystemPayload,
    SystemCallback,
)
from backbeat.compat.presence import AsyncRealtimePresence
from backbeat.compat.push import AsyncPush
from backbeat.compat.shapes import broadcast_payload, changes_payload, failure, reason_of
from backbeat.compat.types import (
    BroadcastCallback,
    BroadcastPayload,
    ChannelEvents,
    ChannelStates,
    PostgresChangesCallback,
    PostgresChangesPayload,
    PresenceOnJoinCallback,
    PresenceOnLeaveCallback,
    RealtimeAcknowledgementStatus,
    RealtimeChannelOptions,
    RealtimePostgresChangesListenEvent,
    RealtimePresenceState,
    RealtimeSubscribeStates,
    SubscribeCallback,
)
from backbeat.errors import (
    BackbeatError,
    ClientError,
    ConfigurationError,
    NoReply,
    NotSubscribed,
    Refusal,
    TokenUnavailable,
)
from backbeat.protocol.join import Replay
from backbeat.protocol.messages import TOPIC_PREFIX

if TYPE_CHECKING:
    from backbeat.compat.client import AsyncRealtimeClient

__all__ = ["AsyncRealtimeChannel"]

log = logging.getLogger("backbeat.compat")


class AsyncRealtimeChannel:
    """A channel; made by `AsyncRealtimeClient.channel`.

    Callbacks may be async. One that raises is logged, and costs the others nothing.

    Args:
        socket: the client.
        topic: the topic, with its prefix.
        params: what the channel is.

    Attributes:
        presence: who is present.
        timeout: seconds that answers are waited for.
        broadcast_endpoint_url: where broadcasts go over HTTP.
    """

    def __init__(
        self, socket: AsyncRealtimeClient, topic: str, params: RealtimeChannelOptions | None = None
    ) -> None:
        self.socket = socket
        self.topic = topic
        self.params = params or {
            "config": {
                "broadcast": {"ack": False, "self": False},
                "presence": {"key": "", "enabled": False},
                "private": False,
            }
        }
        self.presence = AsyncRealtimePresence()
        self.timeout = socket.timeout
        self.broadcast_callbacks: list[BroadcastCallback] = []
        self.system_callbacks: list[SystemCallback] = []
        self.postgres_changes_callbacks: list[PostgresChangesCallback] = []
        self.subscribe_callback: SubscribeCallback | None = None
        self.broadcast_endpoint_url = f"{socket.http_endpoint}/api/broadcast"
        self._channel: Channel | None = None
        self._hears_presence = False
        self._told: RealtimeSubscribeStates | None = None
        self._answered: asyncio.Future[None] | None = None
        self._last_words: dict[str, Any] | None = None
        """What the server said before it ended the channel."""
        self._changes_broken = False

    def __repr__(self) -> str:
        return f"<AsyncRealtimeChannel {self.topic!r} {self.state.value}>"

    # States -------------------------------------------------------------------------------------------------

    @property
    def state(self) -> ChannelStates:
        """Where in its life the channel is."""
        state = "closed" if self._channel is None else self._channel.state
        return ChannelStates.ERRORED if state == "denied" else ChannelStates(state)

    @property
    def is_closed(self) -> bool:
        """Whether it was not subscribed, or was left."""
        return self.state is ChannelStates.CLOSED

    @property
    def is_joining(self) -> bool:
        """Whether the server is being asked."""
        return self.state is ChannelStates.JOINING

    @property
    def is_leaving(self) -> bool:
        """Whether it is being left."""
        return self.state is ChannelStates.LEAVING

    @property
    def is_errored(self) -> bool:
        """Whether it is interrupted, or refused."""
        return self.state is ChannelStates.ERRORED

    @property
    def is_joined(self) -> bool:
        """Whether the server has it joined, as far as is known."""
        return self.state is ChannelStates.JOINED

    # Subscribing --------------------------------------------------------------------------------------------

    async def subscribe(self, callback: SubscribeCallback | None = None) -> Self:
        """Join the channel, and wait until the callback was told how that went.

        The callback goes on being told: what interrupts the channel, and that it is back. A refusal is told
        as `CHANNEL_ERROR`, with the server's answer as JSON; `__cause__` of that exception has a code and a
        hint. A channel that is refused joins again when there is another token.

        Args:
            callback: given the state and, for `CHANNEL_ERROR`, an exception.

        Raises:
            BackbeatError: the client cannot connect.
        """
        if callback is not None:
            self.subscribe_callback = callback
        await self.socket.connect()
        if self._channel is None:
            self._channel = self._make()
        if not self.is_joined:
            answered = self._answered = self._answered or asyncio.get_running_loop().create_future()
            self.socket.start(self._join(self._channel), name=f"join of {self.topic}")
            await asyncio.shield(answered)
        return self

    async def join(self) -> Self:
        """Subscribe; deprecated."""
        warnings.warn("join() is deprecated: call subscribe().", DeprecationWarning, stacklevel=2)
        return await self.subscribe()

    async def _join(self, channel: Channel) -> None:
        try:
            await channel.subscribe(ready="joined", timeout=self.timeout)
        except BackbeatError as error:
            await channel.settled()
            if self._answered is not None:
                # Nothing happened to the channel itself: it just takes too long.
                await self._tell(*failure(error, None))

    def _make(self) -> Channel:
        """Make the channel that is behind this one, with all that is listened to."""
        config: Mapping[str, Any] = self.params.get("config", {})
        broadcast = config.get("broadcast") or {}
        presence = config.get("presence") or {}
        replay = broadcast.get("replay")
        self._hears_presence = self.presence.is_wanted or bool(presence.get("enabled"))
        channel = self.socket.backbeat.channel(
            self.topic,
            private=bool(config.get("private")),
            ack=bool(broadcast.get("ack")),
            receive_own=bool(broadcast.get("self")),
            presence=self._hears_presence,
            presence_key=presence.get("key") or "",
            replay=Replay(replay["since"], replay.get("limit", 25)) if replay else None,
            replication_ready=bool(broadcast.get("replication_ready")),
        )
        channel.on_status(self._status)
        channel.on_system(self._system)
        if self._hears_presence:
            channel.on_presence(self.presence.take)
        for each in self.broadcast_callbacks:
            self._hear_broadcasts(channel, each)
        for one in self.postgres_changes_callbacks:
            self._hear_changes(channel, one)
        return channel

    async def unsubscribe(self) -> None:
        """Leave the channel, and wait until the server let go of it. It can be subscribed again."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await self.socket.backbeat.remove(channel)
            await channel.settled()
        self.release()
        self.socket.forget(self)

    def release(self) -> None:
        """Let whoever waits for the subscription wait no longer."""
        answered, self._answered = self._answered, None
        if answered is not None and not answered.done():
            answered.set_result(None)

    # What happens -------------------------------------------------------------------------------------------

    async def _status(self, event: events.StatusEvent | events.Gap) -> None:
        words, self._last_words = self._last_words, None
        if isinstance(event, events.Subscribed | events.Resumed):
            await self._tell(RealtimeSubscribeStates.SUBSCRIBED, None)
        elif isinstance(event, events.ChannelClosed):
            await self._tell(RealtimeSubscribeStates.CLOSED, None)
        elif isinstance(event, events.ChannelDenied):
            await self._tell(*failure(event.error, words))
        elif isinstance(event, events.Interrupted) and not self.socket.is_closed:
            if (
                isinstance(event.error, TokenUnavailable)
                and self._told is RealtimeSubscribeStates.CHANNEL_ERROR
            ):
                # It was said why; it will not come back by itself.
                await self._tell(RealtimeSubscribeStates.CLOSED, None)
            else:
                await self._tell(*failure(event.error, words))

    async def _system(self, event: events.SystemEvent) -> None:
        if event.status == "ok":
            for callback in self.system_callbacks:
                await _call(callback, SuccessSystemPayload(event.topic, event.extension, event.message))
            if self._changes_broken and event.extension == ChannelEvents.postgres_changes:
                self._changes_broken = False
                await self._tell(RealtimeSubscribeStates.SUBSCRIBED, None)
            return
        words = asdict(ErrorSystemPayload(event.topic, event.extension, event.message))
        if event.extension == ChannelEvents.postgres_changes and isinstance(event.error, BackbeatError):
            # The channel stays joined, but row changes do not arrive.
            self._changes_broken = True
            await self._tell(*failure(event.error, words))
        else:
            self._last_words = words

    async def _tell(self, state: RealtimeSubscribeStates, error: Exception | None) -> None:
        is_new = state is not RealtimeSubscribeStates.CLOSED or self._told is not state
        self._told = state
        try:
            if self.subscribe_callback is not None and is_new:
                await _call(self.subscribe_callback, state, error)
        finally:
            self.release()

    # Listening ----------------------------------------------------------------------------------------------

    def on_broadcast(self, event: str, callback: Callable[[BroadcastPayload], object]) -> Self:
        """Call back with each broadcast.

        Args:
            event: of this event, in any letter case; `*` for all.
            callback: given a `BroadcastPayload`.
        """
        wanted = BroadcastCallback(callback, event)
        self.broadcast_callbacks.append(wanted)
        if self._channel is not None:
            self._hear_broadcasts(self._channel, wanted)
        return self

    def _hear_broadcasts(self, channel: Channel, wanted: BroadcastCallback) -> None:
        channel.on_broadcast(wanted.event, lambda event: wanted.callback(broadcast_payload(event)))

    def on_postgres_changes(
        self,
        event: RealtimePostgresChangesListenEvent | str,
        callback: Callable[[PostgresChangesPayload], object],
        table: str | None = None,
        schema: str | None = None,
        filter: str | None = None,  # noqa: A002 - the name `realtime` gives it
        select: list[str] | None = None,
    ) -> Self:
        """Call back with each row change.

        Args:
            event: `INSERT`, `UPDATE`, `DELETE` or `*`.
            callback: given a `PostgresChangesPayload`.
            table: of this table; None for all that are published.
            schema: where the table is.
            filter: only rows that meet these conditions.
            select: only these columns, and the primary key.

        Raises:
            ConfigurationError: the channel is subscribed, and the server was not asked for this.
        """
        wanted = PostgresChangesCallback(callback, event, table, schema, filter, select)
        if self._channel is not None:
            self._hear_changes(self._channel, wanted)
        self.postgres_changes_callbacks.append(wanted)
        return self

    def _hear_changes(self, channel: Channel, wanted: PostgresChangesCallback) -> None:
        channel.on_change(
            wanted.table or "*",
            lambda event: wanted.callback(changes_payload(event)),
            event=_word(wanted.event),
            schema=wanted.schema or "public",
            filter=wanted.filter,
            select=wanted.select,
        )

    def on_system(self, callback: SystemCallback) -> Self:
        """Call back with each system message that says that something works.

        The others are told to the callback of `subscribe`.
        """
        self.system_callbacks.append(callback)
        return self

    def on_presence_sync(self, callback: Callable[[], object]) -> Self:
        """Call back after each change of who is present; see `presence_state`."""
        self.presence.on_sync(callback)
        return self._hear_presence()

    def on_presence_join(self, callback: PresenceOnJoinCallback) -> Self:
        """Call back with the key, those present under it before, and those that came."""
        self.presence.on_join(callback)
        return self._hear_presence()

    def on_presence_leave(self, callback: PresenceOnLeaveCallback) -> Self:
        """Call back with the key, those left under it, and those that went."""
        self.presence.on_leave(callback)
        return self._hear_presence()

    def _hear_presence(self) -> Self:
        """Join anew if the server was not asked for presence."""
        if self._channel is not None and not self._hears_presence:
            self._hears_presence = True
            self.socket.start(self._join_for_presence(self._channel), name=f"presence of {self.topic}")
        return self

    async def _join_for_presence(self, channel: Channel) -> None:
        await channel.unsubscribe()
        if self._channel is channel:
            channel.on_presence(self.presence.take)
            await self._join(channel)

    def presence_state(self) -> RealtimePresenceState:
        """Who is present, by key."""
        return self.presence.state

    # Sending ------------------------------------------------------------------------------------------------

    async def push(self, event: str, payload: dict[str, Any], timeout: float | None = None) -> AsyncPush:
        """Send something.

        Args:
            event: `broadcast`, `presence` or `access_token`.
            payload: what goes with it.
            timeout: seconds to wait for the answer.

        Raises:
            NotSubscribed: the channel was not subscribed.
            ConfigurationError: there is no such event.
            BackbeatError: a broadcast nobody answers could not be sent.
        """
        event, channel = _word(event), self._channel
        if channel is None:
            raise NotSubscribed(
                f"tried to push '{event}' to '{self.topic}' before joining.",
                hint="Use channel.subscribe() before pushing events",
                topic=self.topic,
            )
        push = AsyncPush(event, payload, timeout or self.timeout)
        work = self._work(channel, push)
        if event == ChannelEvents.broadcast and channel.is_joined and not channel.config.ack:
            await work
        else:
            self.socket.start(self._deliver(push, work), name=f"{event} to {self.topic}")
            # It has its place in the order of things when this returns.
            await asyncio.sleep(0)
        return push

    def _work(self, channel: Channel, push: AsyncPush) -> Awaitable[object]:
        payload = push.payload
        if push.event == ChannelEvents.broadcast:
            return channel.send(payload["event"], payload.get("payload") or {}, timeout=push.timeout)
        if push.event == ChannelEvents.presence:
            if payload.get("event") == "untrack":
                return channel.presence.untrack(timeout=push.timeout)
            return channel.presence.track(payload.get("payload") or {}, timeout=push.timeout)
        if push.event == ChannelEvents.access_token:
            return self.socket.set_auth(payload.get("access_token"))
        raise ConfigurationError(
            f"Servers know no {push.event!r} of a client.",
            hint="Send a broadcast: its own event can have any name.",
            topic=self.topic,
        )

    async def _deliver(self, push: AsyncPush, work: Awaitable[object]) -> None:
        try:
            await work
        except BackbeatError as error:
            late = isinstance(error, NoReply)
            status = RealtimeAcknowledgementStatus.Timeout if late else RealtimeAcknowledgementStatus.Error
            if not push.answered(status, {"reason": reason_of(error)}):
                log.warning("a %s to %s was not delivered: %s", push.event, self.topic, error)
        else:
            push.answered(RealtimeAcknowledgementStatus.Ok, ReplyPostgresChanges())

    async def send_broadcast(self, event: str, data: Any) -> None:
        """Send a broadcast.

        Args:
            event: the event, chosen by the application.
            data: a JSON object, or bytes.

        Raises:
            NotSubscribed: the channel was not subscribed.
            BackbeatError: it could not be sent.
        """
        await self.push(ChannelEvents.broadcast, {"type": "broadcast", "event": event, "payload": data})

    async def track(self, user_status: dict[str, Any]) -> None:
        """Be present, and tell the others something about oneself; anew after each interruption."""
        await self.send_presence("track", user_status)

    async def untrack(self) -> None:
        """Be present no more."""
        await self.send_presence("untrack", {})

    async def send_presence(self, event: str, data: Any) -> None:
        """Track or untrack.

        Args:
            event: `track` or `untrack`.
            data: what to track.
        """
        await self.push(ChannelEvents.presence, {"event": event, "payload": data})

    async def http_send(self, event: str, payload: Any, *, timeout: float | None = None) -> None:
        """Send a broadcast over HTTP; works without being subscribed.

        Args:
            event: the event, chosen by the application.
            payload: a JSON object, or bytes.
            timeout: seconds to wait.

        Raises:
            ValueError: the payload is None.
            RealtimeHTTPError: the server does not take it, or does not answer.
        """
        if payload is None:
            raise ValueError("Payload is required for http_send()")
        try:
            await self.socket.backbeat.broadcast_http(
                self.topic.removeprefix(TOPIC_PREFIX),
                event,
                payload,
                private=bool(self.params.get("config", {}).get("private")),
                timeout=timeout or self.timeout,
            )
        except Refusal as error:
            raise RealtimeHTTPError(error.message, error.status) from error
        except ClientError as error:
            raise RealtimeHTTPError(error.message) from error


def _word(name: str) -> Any:
    """The text of a name, which may be that of an enumeration."""
    return name.value if isinstance(name, Enum) else name


async def _call(callback: Callable[..., object], *arguments: object) -> None:
    result = callback(*arguments)
    if isinstance(result, Awaitable):
        await result
