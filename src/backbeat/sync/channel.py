"""What blocking code holds of a channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack, overload

from backbeat.client.consumers import MAXSIZE
from backbeat.client.selectors import ChangeOptions, Selector
from backbeat.client.streams import OverflowPolicy
from backbeat.errors import ClientClosed, ClientForked
from backbeat.protocol.bindings import ANY
from backbeat.sync.callbacks import Handler
from backbeat.sync.presence import ChannelPresence
from backbeat.sync.streams import EventStream

if TYPE_CHECKING:
    from backbeat.client import channel
    from backbeat.client.channel import SendReceipt
    from backbeat.client.config import ChannelConfig
    from backbeat.client.events import BroadcastEvent, ChangeEvent
    from backbeat.client.explain import ChannelReport
    from backbeat.errors import BackbeatError
    from backbeat.sync.client import RealtimeClient

__all__ = ["Channel"]

H = TypeVar("H", bound=Handler)
R = TypeVar("R")


class Channel:
    """A channel of a client; made by `RealtimeClient.channel`.

    ::

        with client.channel("room", private=True) as channel:
            channel.send("cursor", {"x": 1})

    Arguments, results and errors are those of the asyncio client. Every method may be called from any thread.

    Attributes:
        topic: the topic, without the prefix.
        presence: who is present.
        client: the client.
        inner: the channel of the asyncio client.
    """

    def __init__(self, client: RealtimeClient, inner: channel.Channel) -> None:
        self.topic = inner.topic
        self.client = client
        self._io = client.io
        self.presence = ChannelPresence(client, inner.presence)
        self.inner = inner

    def __repr__(self) -> str:
        return f"<Channel {self.topic!r} {self.state}>"

    # What is known ------------------------------------------------------------------------------------------

    @property
    def config(self) -> ChannelConfig:
        """What the channel asks for."""
        return self.inner.config

    @property
    def state(self) -> str:
        """`closed`, `joining`, `joined`, `errored`, `denied` or `leaving`."""
        return "closed" if self._io.forked else self.inner.state

    @property
    def is_joined(self) -> bool:
        """Whether the server has the channel joined, as far as is known."""
        return self.inner.is_joined and not self._io.forked

    @property
    def is_subscribed(self) -> bool:
        """Whether the channel is joined, or shall be."""
        return self.inner.is_subscribed and not self._io.forked

    @property
    def last_error(self) -> BackbeatError | None:
        """Why the channel is not joined, or was not, the last time."""
        return self.inner.last_error

    @property
    def waiting(self) -> int:
        """How many events wait for handlers and streams."""
        return self._io.run(lambda: self.inner.waiting)

    def explain(self) -> ChannelReport:
        """Say why the channel is in the state it is in, with which token, and what to do about it."""
        return self._io.run(self.inner.explain)

    # Subscribing --------------------------------------------------------------------------------------------

    def subscribe(
        self, *, ready: Literal["joined", "streaming"] | None = None, timeout: float | None = None
    ) -> Self:
        """Join the channel, and wait until that is done. Does nothing if it is joined."""
        self._io.call(self.inner.subscribe, ready=ready, timeout=timeout)
        return self

    def unsubscribe(self) -> bool:
        """Leave the channel, and wait until the server let go of it; after `leave_timeout` at the latest."""
        return self._io.call(self.inner.unsubscribe)

    def reconfigure(self, *, timeout: float | None = None, **changes: Any) -> Self:
        """Leave, and join again with other settings, and with what is listened to by now."""
        self._io.call(self.inner.reconfigure, timeout=timeout, **changes)
        return self

    def __enter__(self) -> Self:
        self._io.call(self.inner.__aenter__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # When the client was closed meanwhile, or this is another process, there is nothing to leave.
        with suppress(ClientClosed, ClientForked):
            self.client.remove(self)

    # Listening ----------------------------------------------------------------------------------------------

    def on_broadcast(self, event: str = ANY, handler: Handler | None = None) -> Callable[[H], H]:
        """Call a handler with each `BroadcastEvent`; without a handler, use it as a decorator."""
        return self._on(handler, partial(self.inner.on_broadcast, event))

    def on_change(
        self,
        table: str = ANY,
        handler: Handler | None = None,
        *,
        model: type[Any] | None = None,
        **options: Unpack[ChangeOptions],
    ) -> Callable[[H], H]:
        """Call a handler with each `Insert`, `Update` and `Delete`; without a handler, use it as a decorator.

        `model` is the type of `new`; `options` are those of `Change`.
        """
        return self._on(handler, partial(self.inner.on_change, table, model=model, **options))

    def on_presence(self, handler: Handler | None = None) -> Callable[[H], H]:
        """Call a handler with each `PresenceSync`, `PresenceJoin`, `PresenceLeave` and `PresenceUpdate`."""
        return self._on(handler, self.inner.on_presence)

    def on_system(self, handler: Handler | None = None) -> Callable[[H], H]:
        """Call a handler with each `SystemEvent`."""
        return self._on(handler, self.inner.on_system)

    def on_status(self, handler: Handler | None = None) -> Callable[[H], H]:
        """Call a handler with each `StatusEvent` and each `Gap`."""
        return self._on(handler, self.inner.on_status)

    def off(self, handler: Handler) -> None:
        """Call a handler no more."""
        self._io.run(self.inner.off, self.client.callback(handler))

    def events(
        self,
        *selectors: Selector,
        maxsize: int = MAXSIZE,
        overflow: OverflowPolicy | str = OverflowPolicy.DROP_OLDEST,
        timeout: float | None = None,
    ) -> EventStream[Any]:
        """Events, from now on, as an iterator that ends when the channel is left.

        Args:
            selectors: what is wanted: `Broadcast(…)`, `Change(…)`, `Presence()`, types of events; nothing
                stands for everything.
            maxsize: how many events may wait to be taken.
            overflow: what happens to more.
            timeout: seconds that the iteration waits for each event before it raises `TimeoutError`.
        """
        inner = self._io.run(self.inner.events, *selectors, maxsize=maxsize, overflow=overflow)
        return EventStream(self.client, inner, timeout=timeout)

    def broadcasts(
        self, event: str = ANY, *, maxsize: int = MAXSIZE, timeout: float | None = None
    ) -> EventStream[BroadcastEvent]:
        """Broadcasts of an event, or of all, as an iterator."""
        inner = self._io.run(self.inner.broadcasts, event, maxsize=maxsize)
        return EventStream(self.client, inner, timeout=timeout)

    @overload
    def changes(
        self,
        table: str = ANY,
        *,
        model: type[R],
        maxsize: int = MAXSIZE,
        timeout: float | None = None,
        **options: Unpack[ChangeOptions],
    ) -> EventStream[ChangeEvent[R]]: ...

    @overload
    def changes(
        self,
        table: str = ANY,
        *,
        maxsize: int = MAXSIZE,
        timeout: float | None = None,
        **options: Unpack[ChangeOptions],
    ) -> EventStream[ChangeEvent[dict[str, Any]]]: ...

    def changes(
        self,
        table: str = ANY,
        *,
        model: type[Any] | None = None,
        maxsize: int = MAXSIZE,
        timeout: float | None = None,
        **options: Unpack[ChangeOptions],
    ) -> EventStream[Any]:
        """Row changes as an iterator; its arguments are those of `on_change` and `events`."""
        inner: Any = self._io.run(partial(self.inner.changes, table, model=model, maxsize=maxsize, **options))
        return EventStream(self.client, inner, timeout=timeout)

    def _on(self, handler: Handler | None, listen: Callable[[], Any]) -> Callable[[H], H]:
        return self.client.listen(self._io.run(listen), handler)

    def settled(self) -> None:
        """Wait until every handler was called for what came so far."""
        if not self.client.callbacks.running_here:  # a handler that waits for itself would wait for ever
            self._io.call(self.inner.settled)

    # Sending ------------------------------------------------------------------------------------------------

    def send(
        self,
        event: str,
        payload: Mapping[str, Any] | bytes | bytearray | memoryview,
        *,
        ack: bool | None = None,
        timeout: float | None = None,
        on_offline: Literal["buffer", "fail"] = "buffer",
    ) -> SendReceipt:
        """Send a broadcast over the socket."""
        return self._io.call(self.inner.send, event, payload, ack=ack, timeout=timeout, on_offline=on_offline)

    def http_send(
        self, event: str, payload: Mapping[str, Any] | bytes, *, timeout: float | None = None
    ) -> SendReceipt:
        """Send a broadcast over HTTP; works without being subscribed."""
        return self._io.call(self.inner.http_send, event, payload, timeout=timeout)
