"""`RealtimeClient` for blocking code: the asyncio client on a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import random as chance
import ssl as tls
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar, Unpack
from weakref import WeakValueDictionary

from backbeat.client import client as asyncio_client
from backbeat.client.consumers import MAXSIZE
from backbeat.client.driver import system_clock
from backbeat.client.engine.link import LinkState
from backbeat.client.provider import Auth
from backbeat.client.streams import OverflowPolicy
from backbeat.errors import ClientClosed, ConfigurationError
from backbeat.sync.callbacks import BATCH, Callback, Callbacks, Dispatch, Handler
from backbeat.sync.channel import Channel
from backbeat.sync.io_thread import IoThread, thread_name
from backbeat.sync.session import AuthContext, SessionTokens
from backbeat.sync.streams import EventStream

if TYPE_CHECKING:
    import httpx

    from backbeat.client import channel as asyncio_channel
    from backbeat.client.channel import SendReceipt
    from backbeat.client.client import ClientStats
    from backbeat.client.engine.tokens import AuthState
    from backbeat.client.engine.turn import Now
    from backbeat.client.events import Event
    from backbeat.client.explain import ClientReport
    from backbeat.client.provider import TokenArgument
    from backbeat.client.selectors import Change
    from backbeat.client.settings import ClientSettings, SettingsOptions
    from backbeat.client.transport import Transport
    from backbeat.errors import BackbeatError
    from backbeat.protocol.join import Replay

__all__ = ["RealtimeClient"]

log = logging.getLogger("backbeat.client")

H = TypeVar("H", bound=Handler)

LOOK_AFTER: Final = 1.0
"""Seconds after which `run_forever` looks whether the connection failed for good."""


class RealtimeClient:
    """A client of a realtime server, for scripts, threads and notebooks, for Flask and Django.

    ::

        with RealtimeClient(url, apikey, token=read_token) as client:
            with client.channel("room", private=True) as channel:
                channel.send("hello", {"n": 1})

    It has the names of `backbeat.RealtimeClient`, without `await`, and their arguments, results and errors.
    The connection lives on a thread of its own, which the first call that needs it starts, and `close` ends.
    Every method may be called from any thread, and from callbacks.

    Args:
        url: the URL of the project, of its realtime service, or of the socket itself.
        apikey: the project's anon or publishable key.
        token: the user's token: a text, a function that returns it and may block, an async function, which
            runs on the client's loop, an `AuthContext` of this package; or None.
        settings: how the client behaves.
        api_key_in: whether the key goes into the URL of the socket, or into a header.
        headers: more headers for the upgrade and for HTTP.
        params: more parameters for the socket, such as `log_level`.
        ssl: how TLS is done; None stands for the system's certificates.
        transport: another way to open sockets than over the network.
        http: makes the HTTP client.
        clock: tells the time.
        random: gives numbers from 0 to 1, for jitter.
        dispatch: where callbacks run, one after the other: `thread` for one thread of the client, `inline`
            for whoever calls `poll` or `run_forever`, or an executor, which keeps the order of each channel.
        options: attributes of `ClientSettings`, such as `heartbeat_interval`.

    Raises:
        ConfigurationError: the URL, the key or a setting cannot be used.
        TypeError: `token` is nothing that gives tokens.
    """

    def __init__(
        self,
        url: str,
        apikey: str,
        *,
        token: TokenArgument | AuthContext = None,
        settings: ClientSettings | None = None,
        api_key_in: Literal["query", "header", "both"] = "query",
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        ssl: tls.SSLContext | None = None,
        transport: Transport | None = None,
        http: Callable[[], httpx.AsyncClient] | None = None,
        clock: Callable[[], Now] = system_clock,
        random: Callable[[], float] = chance.random,
        dispatch: Dispatch = "thread",
        **options: Unpack[SettingsOptions],
    ) -> None:
        make = partial(
            asyncio_client.RealtimeClient,
            url,
            apikey,
            token=SessionTokens(token) if isinstance(token, AuthContext) else token,
            settings=settings,
            api_key_in=api_key_in,
            headers=headers,
            params=params,
            ssl=ssl,
            transport=transport,
            http=http,
            clock=clock,
            random=random,
            **options,
        )
        self._set_up(make, dispatch)

    def _set_up(self, make: Callable[[], asyncio_client.RealtimeClient], dispatch: Dispatch) -> None:
        self._make = make
        self._dispatch = dispatch
        self._inner = inner = make()
        self.settings = inner.settings
        name = thread_name()
        self.callbacks = Callbacks(dispatch, name=name)
        self.io = IoThread(
            name,
            owner=f"RealtimeClient of {self.endpoint_url}",
            closing=inner.close,
            ended=self.callbacks.stop,
        )
        self._channels: WeakValueDictionary[asyncio_channel.Channel, Channel] = WeakValueDictionary()

    def __repr__(self) -> str:
        return f"<RealtimeClient {self.endpoint_url} {self.state} channels={len(self._inner.channels)}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if "io" in self.__dict__:
            self.io.abandon()

    def recreate(self) -> Self:
        """Make another client with the same arguments, without channels; in a child process after a fork."""
        client = object.__new__(type(self))
        client._set_up(self._make, self._dispatch)
        return client

    # The connection -----------------------------------------------------------------------------------------

    @property
    def endpoint_url(self) -> str:
        """Where the socket is opened, without the key."""
        return self._inner.endpoint_url

    @property
    def state(self) -> str:
        """`idle`, `connecting`, `open`, `draining`, `backoff`, `fatal` or `closed`."""
        return "fatal" if self.io.forked else self._inner.state

    @property
    def is_connected(self) -> bool:
        """Whether the socket is open."""
        return self._inner.is_connected and not self.io.forked

    def connect(self) -> None:
        """Open the connection, and wait until it is open; however many attempts that takes."""
        self.io.call(self._inner.connect)

    def disconnect(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection. Channels stay, and join again after `connect` or the next subscription."""
        self.io.call(self._inner.disconnect, code, reason)

    def close(self) -> None:
        """End everything: channels, connection, timers, threads. Idempotent.

        A callback that runs is waited for, `close_timeout` seconds at most.
        """
        self.io.close()
        if not self.callbacks.join(self.settings.close_timeout):
            log.warning("a callback of %r still runs", self)

    def ping(self) -> float:
        """Send a heartbeat now."""
        return self.io.call(self._inner.ping)

    # Channels -----------------------------------------------------------------------------------------------

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels that were not removed."""
        return self.io.run(lambda: tuple(self._channel(each) for each in self._inner.channels))

    def channel(
        self,
        topic: str,
        *,
        private: bool = False,
        ack: bool = False,
        receive_own: bool = False,
        presence: bool = False,
        presence_key: str = "",
        replay: Replay | None = None,
        replication_ready: bool = False,
        changes: tuple[Change[Any], ...] | list[Change[Any]] = (),
    ) -> Channel:
        """The channel of a topic; the same one as before, if it was not removed."""
        return self.io.run(
            lambda: self._channel(
                self._inner.channel(
                    topic,
                    private=private,
                    ack=ack,
                    receive_own=receive_own,
                    presence=presence,
                    presence_key=presence_key,
                    replay=replay,
                    replication_ready=replication_ready,
                    changes=changes,
                )
            )
        )

    def _channel(self, inner: asyncio_channel.Channel) -> Channel:
        channel = self._channels.get(inner)
        if channel is None:
            channel = self._channels[inner] = Channel(self, inner)
        return channel

    def remove(self, channel: Channel) -> bool:
        """Leave a channel, and forget it."""
        return self.io.call(self._inner.remove, channel.inner)

    def remove_all(self) -> None:
        """Leave all channels, forget them, and disconnect."""
        self.io.call(self._inner.remove_all)

    def broadcast_http(
        self,
        topic: str,
        event: str,
        payload: Mapping[str, Any] | bytes,
        *,
        private: bool = False,
        timeout: float | None = None,
    ) -> SendReceipt:
        """Send a broadcast over HTTP, without a channel."""
        return self.io.call(
            self._inner.broadcast_http, topic, event, payload, private=private, timeout=timeout
        )

    # Tokens -------------------------------------------------------------------------------------------------

    @property
    def auth_state(self) -> AuthState:
        """What is known about the token in use; not the token."""
        return self.io.run(lambda: self._inner.auth_state)

    def set_auth(
        self, token: str | Literal[Auth.SOURCE] | None = Auth.SOURCE, *, pin: bool = True
    ) -> AuthState:
        """Use a token from now on; without an argument, go back to what the client was made with."""
        return self.io.call(self._inner.set_auth, token, pin=pin)

    def clear_auth(self) -> AuthState:
        """Be nobody: channels that are somebody's business are left at once, and hear nothing more."""
        return self.io.call(self._inner.clear_auth)

    def auth_ready(self) -> AuthState:
        """Wait until the token source has answered, if it is being asked or was never asked."""
        return self.io.call(self._inner.auth_ready)

    # Listening ----------------------------------------------------------------------------------------------

    def on(self, *kinds: type[Event], handler: Handler | None = None) -> Callable[[H], H]:
        """Call a handler with each event of some kinds, of the client and of all channels."""
        return self.listen(self.io.run(self._inner.on, *kinds), handler)

    def off(self, handler: Handler) -> None:
        """Call a handler no more."""
        self.io.run(self._inner.off, self.callback(handler))

    def events(
        self,
        *kinds: type[Event],
        maxsize: int = MAXSIZE,
        overflow: OverflowPolicy | str = OverflowPolicy.DROP_OLDEST,
        timeout: float | None = None,
    ) -> EventStream[Any]:
        """Events of some kinds, of the client and of all channels, as an iterator.

        Args:
            kinds: types from `backbeat.client.events`; nothing stands for all.
            maxsize: how many events may wait to be taken.
            overflow: what happens to more.
            timeout: seconds that the iteration waits for each event before it raises `TimeoutError`.
        """
        inner = self.io.run(self._inner.events, *kinds, maxsize=maxsize, overflow=overflow)
        return EventStream(self, inner, timeout=timeout)

    def listen(self, register: Callable[[Callback], object], handler: Handler | None) -> Callable[[H], H]:
        """Register a handler, and return what registers others; called by channels."""

        def add(handler: H) -> H:
            self.io.run(register, self.callback(handler))
            return handler

        if handler is not None:
            add(handler)
        return add

    def callback(self, handler: Handler) -> Callback:
        """A handler as the asyncio client calls it; called by channels."""
        return Callback(self, self.callbacks, handler)

    def poll(self, timeout: float | None = 0.0) -> int:
        """Run the callbacks that wait, in this thread; for `dispatch="inline"`.

        Args:
            timeout: seconds to wait for the first one; None waits until the client is closed.

        Returns:
            How many there were.

        Raises:
            ConfigurationError: callbacks run elsewhere.
        """
        if not self.callbacks.inline:
            raise ConfigurationError(
                "Callbacks run in a thread, and need no `poll()`.",
                hint='Make the client with dispatch="inline".',
            )
        ran = 0
        while ran < BATCH and self.callbacks.run_one(timeout if ran == 0 else 0.0):
            ran += 1
            self._hand_over()
        return ran

    def run_forever(self) -> None:
        """Wait until the client is closed, and run its callbacks meanwhile if nobody else does.

        Raises:
            BackbeatError: the connection failed for good.
        """
        while not self.callbacks.wait_stopped(0.0 if self.callbacks.inline else LOOK_AFTER):
            if self.callbacks.inline:
                self.poll(LOOK_AFTER)
            if (error := self.io.run(self._fatal_error)) is not None:
                raise error

    def _hand_over(self) -> None:
        """Let the loop, which waited for a callback, pass on the next event."""
        with suppress(ClientClosed):
            self.io.call(asyncio.sleep, 0)

    def _fatal_error(self) -> BackbeatError | None:
        link = self._inner.engine.link
        return link.error if link.state is LinkState.FATAL else None

    # Looking ------------------------------------------------------------------------------------------------

    def explain(self) -> ClientReport:
        """Say how the connection, the token and each channel are, why, and what to do about it."""
        return self.io.run(self._inner.explain)

    def stats(self) -> ClientStats:
        """Numbers, as of now."""
        return self.io.run(self._inner.stats)
