"""What a user holds of a channel: subscribe, listen, send, be present."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack, overload

import msgspec

from backbeat.client.config import ChannelConfig
from backbeat.client.consumers import MAXSIZE, Consumers
from backbeat.client.dispatcher import Handler
from backbeat.client.engine import inputs
from backbeat.client.engine.membership import ChannelState
from backbeat.client.events import (
    BroadcastEvent,
    ChangeEvent,
    ChannelDenied,
    Event,
    Gap,
    StatusEvent,
    SystemEvent,
)
from backbeat.client.presence import ChannelPresence
from backbeat.client.selectors import Broadcast, Change, ChangeOptions, Presence, Selector, Wish
from backbeat.client.streams import EventStream, OverflowPolicy
from backbeat.errors import BackbeatError, ConfigurationError, NotSubscribed
from backbeat.protocol import reasons
from backbeat.protocol.bindings import ANY

if TYPE_CHECKING:
    from backbeat.client.client import RealtimeClient
    from backbeat.client.explain import ChannelReport

__all__ = ["Channel", "SendReceipt"]

H = TypeVar("H", bound=Handler)
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class SendReceipt:
    """What is known about something that was sent.

    Attributes:
        via: how it was sent.
        acknowledged: whether the server said that it took it.
    """

    via: Literal["socket", "http"]
    acknowledged: bool


class Channel:
    """A channel of a client; made by `RealtimeClient.channel`.

    ::

        async with client.channel("room", private=True) as channel:
            await channel.send("cursor", {"x": 1})

    What it listens to is said before `subscribe`; after `unsubscribe` it can be subscribed again.

    Attributes:
        topic: the topic, without the prefix.
        presence: who is present.
    """

    def __init__(self, client: RealtimeClient, number: int, topic: str, config: ChannelConfig) -> None:
        self.topic = topic
        self.presence = ChannelPresence(self)
        self.client = client
        self.number = number
        self._config = config
        self._given = config
        self._consumers = Consumers(
            f"channel {topic!r}",
            client.driver.tasks,
            failed=client.handler_failed,
            overflowed=client.overflowed,
        )

    def __repr__(self) -> str:
        return f"<Channel {self.topic!r} {self.state}>"

    # What is known ------------------------------------------------------------------------------------------

    @property
    def config(self) -> ChannelConfig:
        """What the channel asks for."""
        return self._config

    @property
    def given_config(self) -> ChannelConfig:
        """What the channel was made with, before anybody listened to anything."""
        return self._given

    @property
    def state(self) -> str:
        """`closed`, `joining`, `joined`, `errored`, `denied` or `leaving`."""
        membership = self.client.engine.channels.get(self.number)
        return (ChannelState.CLOSED if membership is None else membership.state).value

    @property
    def is_joined(self) -> bool:
        """Whether the server has the channel joined, as far as is known."""
        return self.state == ChannelState.JOINED.value

    @property
    def last_error(self) -> BackbeatError | None:
        """Why the channel is not joined, or was not, the last time."""
        membership = self.client.engine.channels.get(self.number)
        return None if membership is None else membership.last_error

    @property
    def waiting(self) -> int:
        """How many events wait for handlers and streams."""
        return self._consumers.waiting

    def explain(self) -> ChannelReport:
        """Say why the channel is in the state it is in, with which token, and what to do about it."""
        return self.client.reporter.channel(self)

    # Subscribing --------------------------------------------------------------------------------------------

    async def subscribe(
        self, *, ready: Literal["joined", "streaming"] | None = None, timeout: float | None = None
    ) -> Self:
        """Join the channel, and wait until that is done. Does nothing if it is joined.

        When the wait ends in vain because of something that may pass, the channel goes on trying; its status
        events tell. `unsubscribe` ends that.

        Args:
            ready: what to wait for: the server's reply, or also that row changes stream. By default the
                latter, if the channel listens to any.
            timeout: seconds to wait; `join_timeout` of the settings by default.

        Raises:
            Refusal: the server says no, and why.
            TokenUnavailable: it takes a user's token, and there is none.
            ConnectFailed: there was no connection in time.
            NoReply: the server did not answer in time.
        """
        self._gather()
        settings = self.client.settings
        await self.client.driver.ask(
            lambda ticket: inputs.Subscribe(
                ticket,
                self.number,
                self.topic,
                self._config,
                ready or ("streaming" if self._config.changes else "joined"),
                settings.join_timeout if timeout is None else timeout,
            )
        )
        return self

    async def unsubscribe(self) -> bool:
        """Leave the channel, and wait until the server let go of it; after `leave_timeout` at the latest.

        Returns:
            Whether the server said so.
        """
        acknowledged = await self.client.driver.ask(lambda ticket: inputs.Unsubscribe(ticket, self.number))
        self._consumers.end(None)
        return bool(acknowledged)

    async def reconfigure(self, *, timeout: float | None = None, **changes: Any) -> Self:
        """Leave, and join again with other settings, and with what is listened to by now.

        Args:
            timeout: seconds to wait for the join.
            changes: attributes of `ChannelConfig`.
        """
        await self.client.driver.ask(lambda ticket: inputs.Unsubscribe(ticket, self.number))
        self._config = replace(self._config, **changes)
        self._given = replace(self._given, **changes)
        return await self.subscribe(timeout=timeout)

    async def __aenter__(self) -> Self:
        try:
            return await self.subscribe()
        except BaseException:
            await self.client.remove(self)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.client.remove(self)

    def _gather(self) -> None:
        """Ask for what is listened to."""
        if self.is_subscribed:
            return
        changes = dict.fromkeys(self._given.changes)
        for wish in self._consumers.wishes:
            changes.update(dict.fromkeys(wish.bindings))
        self._config = replace(self._config, changes=tuple(changes))

    @property
    def is_subscribed(self) -> bool:
        """Whether the channel is joined, or shall be."""
        membership = self.client.engine.channels.get(self.number)
        return membership is not None and membership.wanted

    # Listening ----------------------------------------------------------------------------------------------

    def on_broadcast(self, event: str = ANY, handler: Handler | None = None) -> Callable[[H], H]:
        """Call a handler with each `BroadcastEvent`; without a handler, use it as a decorator.

        Args:
            event: only broadcasts of this event; `*` for all.
            handler: a function, sync or async.
        """
        return self._on(handler, Broadcast(event))

    def on_change(
        self,
        table: str = ANY,
        handler: Handler | None = None,
        *,
        model: type[Any] | None = None,
        **options: Unpack[ChangeOptions],
    ) -> Callable[[H], H]:
        """Call a handler with each `Insert`, `Update` and `Delete`; without a handler, use it as a decorator.

        Args:
            table: the table; `*` for all that are published.
            handler: a function, sync or async.
            model: the type of `new`: a msgspec Struct, a dataclass, a TypedDict or a pydantic model.
            options: `event`, `schema`, `filter` and `select`, as of `Change`.

        Raises:
            ConfigurationError: the channel is subscribed, and did not ask for these changes.
        """
        return self._on(handler, Change(table, model=model, **options))

    def on_presence(self, handler: Handler | None = None) -> Callable[[H], H]:
        """Call a handler with each `PresenceSync`, `PresenceJoin`, `PresenceLeave` and `PresenceUpdate`.

        Raises:
            ConfigurationError: the channel is subscribed without presence.
        """
        return self._on(handler, Presence())

    def on_system(self, handler: Handler | None = None) -> Callable[[H], H]:
        """Call a handler with each `SystemEvent`."""
        return self._on(handler, SystemEvent)

    def on_status(self, handler: Handler | None = None) -> Callable[[H], H]:
        """Call a handler with each `StatusEvent` and each `Gap`."""
        return self._on(handler, StatusEvent, Gap)

    def off(self, handler: Handler) -> None:
        """Call a handler no more."""
        self._consumers.off(handler)

    def events(
        self,
        *selectors: Selector,
        maxsize: int = MAXSIZE,
        overflow: OverflowPolicy | str = OverflowPolicy.DROP_OLDEST,
    ) -> EventStream[Any]:
        """Events, from now on, as an async iterator that ends when the channel is left.

        Args:
            selectors: what is wanted: `Broadcast(…)`, `Change(…)`, `Presence()`, types of events; nothing
                stands for everything.
            maxsize: how many events may wait to be taken.
            overflow: what happens to more.

        Raises:
            ConfigurationError: the channel is subscribed, and did not ask for what is wanted.
        """
        wish = self._wish(*selectors)
        return self._consumers.stream(wish, maxsize=maxsize, overflow=overflow)

    def broadcasts(self, event: str = ANY, *, maxsize: int = MAXSIZE) -> EventStream[BroadcastEvent]:
        """Broadcasts of an event, or of all, as an async iterator."""
        return self.events(Broadcast(event), maxsize=maxsize)

    @overload
    def changes(
        self, table: str = ANY, *, model: type[R], maxsize: int = MAXSIZE, **options: Unpack[ChangeOptions]
    ) -> EventStream[ChangeEvent[R]]: ...

    @overload
    def changes(
        self, table: str = ANY, *, maxsize: int = MAXSIZE, **options: Unpack[ChangeOptions]
    ) -> EventStream[ChangeEvent[dict[str, Any]]]: ...

    def changes(
        self,
        table: str = ANY,
        *,
        model: type[Any] | None = None,
        maxsize: int = MAXSIZE,
        **options: Unpack[ChangeOptions],
    ) -> EventStream[Any]:
        """Row changes as an async iterator; its arguments are those of `on_change` and `events`."""
        return self.events(Change(table, model=model, **options), maxsize=maxsize)

    def _on(self, handler: Handler | None, *selectors: Selector) -> Callable[[H], H]:
        return self._consumers.register(self._wish(*selectors), handler)

    def _wish(self, *selectors: Selector) -> Wish:
        wish = Wish(*selectors)
        presence = any(isinstance(selector, Presence) for selector in selectors)
        if self.is_subscribed:
            if not set(wish.bindings) <= set(self._config.changes):
                raise self._too_late("postgres_changes")
            if presence and not self._config.presence:
                raise self._too_late("presence")
        elif presence:
            self.want_presence()
        return wish

    def want_presence(self) -> None:
        """Ask for presence at the next join."""
        if not self.is_subscribed:
            self._config = replace(self._config, presence=True)

    def _too_late(self, kind: str) -> ConfigurationError:
        return ConfigurationError(
            f"cannot add `{kind}` callbacks for {self.topic} after `subscribe()`.",
            hint="Say what the channel listens to before it is subscribed, or call `reconfigure()`.",
            topic=self.topic,
        )

    def deliver(self, event: Event, matched: tuple[int, ...]) -> None:
        """Pass an event on to handlers and streams; called by the client."""
        self._consumers.put(event, [self._config.changes[index] for index in matched] if matched else ())
        if isinstance(event, ChannelDenied):
            self._consumers.end(event.error)

    def end(self, error: BackbeatError | None) -> None:
        """End every stream; called by the client."""
        self._consumers.end(error)

    async def settled(self) -> None:
        """Wait until every handler was called for what came so far."""
        await self._consumers.dispatcher.idle()

    # Sending ------------------------------------------------------------------------------------------------

    async def send(
        self,
        event: str,
        payload: Mapping[str, Any] | bytes | bytearray | memoryview,
        *,
        ack: bool | None = None,
        timeout: float | None = None,
        on_offline: Literal["buffer", "fail"] = "buffer",
    ) -> SendReceipt:
        """Send a broadcast over the socket.

        Args:
            event: the event, chosen by the application.
            payload: what is encoded as a JSON object, or bytes.
            ack: whether to wait for the server's word that it took it; the channel has to be made with `ack`.
            timeout: seconds to wait; `push_timeout` of the settings by default.
            on_offline: what happens while the channel is not joined: wait in a bounded buffer, or fail.

        Raises:
            NotSubscribed: the channel was not subscribed.
            Refusal: the server says no.
            NoReply: it did not answer in time.
            PushDropped: too much waits, or the channel was left.
            ConnectionLost: the connection went before the answer.
        """
        if ack and not self._config.ack:
            raise ConfigurationError(
                "The channel does not ask for acknowledgements.", hint="Make it with `ack=True`."
            )
        if not self.is_subscribed:
            raise self.not_subscribed(event)
        content, is_json = encode_payload(payload, limit=self.client.settings.max_payload_bytes)
        wait = self._config.ack if ack is None else ack
        await self.client.driver.room()
        await self.client.driver.ask(
            lambda ticket: inputs.Broadcast(
                ticket,
                self.number,
                event,
                content,
                is_json,
                self.client.settings.push_timeout if timeout is None else timeout,
                hold=on_offline == "buffer",
                wait=wait,
            )
        )
        return SendReceipt("socket", acknowledged=wait)

    async def http_send(
        self, event: str, payload: Mapping[str, Any] | bytes, *, timeout: float | None = None
    ) -> SendReceipt:
        """Send a broadcast over HTTP; works without being subscribed.

        Args:
            event: the event, chosen by the application.
            payload: what is encoded as a JSON object, or bytes.
            timeout: seconds to wait; `push_timeout` of the settings by default.

        Raises:
            Refusal: the server says no.
            NoReply: it did not answer in time.
            ClientError: it cannot be reached.
        """
        return await self.client.broadcast_http(
            self.topic, event, payload, private=self._config.private, timeout=timeout
        )

    def not_subscribed(self, name: str) -> NotSubscribed:
        """The error for who sends too early."""
        return NotSubscribed(
            f"tried to push '{name}' to '{self.topic}' before joining.",
            hint="Use channel.subscribe() before pushing events",
            topic=self.topic,
        )


def encode_payload(payload: object, *, limit: int) -> tuple[bytes, bool]:
    """Encode what is to be sent.

    Args:
        payload: a mapping, or bytes.
        limit: how large it may be, in bytes.

    Returns:
        The bytes, and whether they are JSON.

    Raises:
        BadRequest: it is neither, or too large.
    """
    if isinstance(payload, bytes | bytearray | memoryview):
        content, is_json = bytes(payload), False
    elif isinstance(payload, Mapping):
        content, is_json = msgspec.json.encode(dict(payload)), True
    else:
        raise reasons.PAYLOAD_NOT_OBJECT.refusal()
    if len(content) > limit:
        raise reasons.PAYLOAD_TOO_LARGE.refusal(context=f"It has {len(content)} bytes.")
    return content, is_json
