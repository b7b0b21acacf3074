"""`RealtimeClient`: one socket, one token, any number of channels."""

from __future__ import annotations

import logging
import random as chance
import ssl as tls
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack

import httpx

from backbeat.client.channel import Channel, SendReceipt, encode_payload
from backbeat.client.config import ChannelConfig
from backbeat.client.consumers import MAXSIZE, Consumers
from backbeat.client.dispatcher import Handler
from backbeat.client.driver import Driver, system_clock
from backbeat.client.endpoint import Endpoint
from backbeat.client.engine import Engine, inputs
from backbeat.client.engine.membership import ChannelState
from backbeat.client.events import Event, HandlerFailed, Overflow
from backbeat.client.explain import ClientReport, Reporter
from backbeat.client.http import BroadcastApi
from backbeat.client.journal import write_down
from backbeat.client.provider import Auth, TokenArgument, TokenSource, check_token
from backbeat.client.selectors import Change, Wish
from backbeat.client.settings import ClientSettings, SettingsOptions
from backbeat.client.streams import EventStream, OverflowPolicy
from backbeat.client.transport import Transport, WebSocketTransport
from backbeat.errors import ClientClosed, ConfigurationError
from backbeat.protocol.join import Replay
from backbeat.protocol.messages import TOPIC_PREFIX

if TYPE_CHECKING:
    from backbeat.client.engine.effects import Emit
    from backbeat.client.engine.tokens import AuthState
    from backbeat.client.engine.turn import Now

__all__ = ["ClientStats", "RealtimeClient"]

log = logging.getLogger("backbeat.client")

H = TypeVar("H", bound=Handler)


@dataclass(frozen=True, slots=True)
class ClientStats:
    """Numbers about a client.

    Attributes:
        connections: how many sockets were open so far.
        channels: how many channels there are.
        joined: how many of them are joined.
        joins: how many joins were sent for those that exist.
        frames_sent: how many frames were sent.
        frames_received: how many frames came.
        frames_stale: how many of them belonged to nothing that exists any more.
        latency: seconds the last heartbeat took, if there was one.
        tasks: how many tasks run.
        waiting: how many events wait for handlers and streams.
    """

    connections: int
    channels: int
    joined: int
    joins: int
    frames_sent: int
    frames_received: int
    frames_stale: int
    latency: float | None
    tasks: int
    waiting: int


class RealtimeClient:
    """A client of a realtime server: Backbeat's, or Supabase's.

    ::

        async with RealtimeClient(url, apikey, token=auth) as client:
            async with client.channel("room", private=True) as channel:
                await channel.send("hello", {"n": 1})

    Making one opens nothing. The socket is opened by the first subscription, or by `connect`, and is opened
    again whenever it is lost.

    Args:
        url: the URL of the project, of its realtime service, or of the socket itself.
        apikey: the project's anon or publishable key.
        token: the user's token: a text, a function, sync or async, that returns it, an object with an async
            `token()`, such as `backbeat.session.AuthContext`; or None.
        settings: how the client behaves.
        api_key_in: whether the key goes into the URL of the socket, or into a header, where proxies do not
            log it.
        headers: more headers for the upgrade and for HTTP.
        params: more parameters for the socket, such as `log_level`.
        ssl: how TLS is done; None stands for the system's certificates.
        transport: another way to open sockets than over the network.
        http: makes the HTTP client.
        clock: tells the time.
        random: gives numbers from 0 to 1, for jitter.
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
        token: TokenArgument = None,
        settings: ClientSettings | None = None,
        api_key_in: Literal["query", "header", "both"] = "query",
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        ssl: tls.SSLContext | None = None,
        transport: Transport | None = None,
        http: Callable[[], httpx.AsyncClient] | None = None,
        clock: Callable[[], Now] = system_clock,
        random: Callable[[], float] = chance.random,
        **options: Unpack[SettingsOptions],
    ) -> None:
        if not apikey or not isinstance(apikey, str):
            raise ConfigurationError("API key is required to connect to Realtime")
        self.settings = replace(settings or ClientSettings(), **options)
        for advice in self.settings.advice():
            log.warning(advice)
        self._endpoint = Endpoint.of(url, vsn=self.settings.vsn, params=params)
        self._headers = dict(headers or {})
        if api_key_in != "query":
            self._headers["x-api-key"] = apikey
        self._socket_url = self._endpoint.socket(None if api_key_in == "header" else apikey)
        self._transport = transport or WebSocketTransport(
            ssl=ssl, max_frame_bytes=self.settings.max_frame_bytes
        )
        static = check_token(token) if isinstance(token, str) else None
        source = None if token is None or isinstance(token, str) else TokenSource(token)
        self.engine = Engine(self.settings, static=static, can_ask=source is not None, random=random)
        self.driver = Driver(
            self.engine,
            open_socket=self._open_socket,
            source=source,
            deliver=self._deliver,
            clock=clock,
        )
        self.reporter = Reporter(self.engine, self.endpoint_url)
        make_http = http or partial(httpx.AsyncClient, headers=headers, verify=ssl or True)
        self._http = BroadcastApi(self._endpoint, apikey, make_http)
        self._numbers = 0
        self._channels: dict[str, Channel] = {}
        self._by_number: dict[int, Channel] = {}
        self._consumers = Consumers(
            "the client", self.driver.tasks, failed=self.handler_failed, overflowed=self.overflowed
        )
        self._closed = False

    def __repr__(self) -> str:
        return f"<RealtimeClient {self.endpoint_url} {self.state} channels={len(self._channels)}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # The connection -----------------------------------------------------------------------------------------

    @property
    def endpoint_url(self) -> str:
        """Where the socket is opened, without the key."""
        return self._endpoint.socket(None)

    @property
    def state(self) -> str:
        """`idle`, `connecting`, `open`, `draining`, `backoff`, `fatal` or `closed`."""
        return self.engine.link.state.value

    @property
    def is_connected(self) -> bool:
        """Whether the socket is open."""
        return self.engine.link.is_open

    async def connect(self) -> None:
        """Open the connection, and wait until it is open; however many attempts that takes.

        Raises:
            Refusal: the server refuses the connection, and would refuse it again.
            ClientClosed: the client is closed.
        """
        await self.driver.ask(inputs.Connect)

    async def disconnect(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection. Channels stay, and join again after `connect` or the next subscription.

        Args:
            code: the close code.
            reason: the same for people.
        """
        await self.driver.ask(lambda ticket: inputs.Disconnect(ticket, code, reason))

    async def close(self) -> None:
        """End everything: channels, connection, timers, tasks. Idempotent."""
        await self.driver.ask(inputs.Close)
        await self.driver.aclose()
        await self._http.aclose()
        self._closed = True
        for channel in self._by_number.values():
            channel.end(None)
        self._channels.clear()
        self._by_number.clear()
        self._consumers.end(None)

    async def ping(self) -> float:
        """Send a heartbeat now.

        Returns:
            The seconds until its answer.

        Raises:
            BackbeatError: there is no connection, or no answer.
        """
        latency: float = await self.driver.ask(inputs.Ping)
        return latency

    async def _open_socket(self) -> Any:
        return await self._transport.open(self._socket_url, self._headers)

    # Channels -----------------------------------------------------------------------------------------------

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels that were not removed."""
        return tuple(self._channels.values())

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
        """The channel of a topic; the same one as before, if it was not removed.

        Args:
            topic: the topic, with or without the prefix `realtime:`.
            private: whether policies on `realtime.messages` decide who may join.
            ack: whether the server answers broadcasts.
            receive_own: whether the channel receives its own broadcasts.
            presence: whether it receives who is present; also by listening to that.
            presence_key: the key to be present under; empty for a random one.
            replay: the stored messages to begin with; private channels only.
            replication_ready: whether to be told when broadcasts from the database arrive.
            changes: the row changes to receive; also by listening to them.

        Raises:
            ConfigurationError: the topic is empty, the channel exists with another configuration, or a
                public channel asks for stored messages.
        """
        if topic[: len(TOPIC_PREFIX)].lower() == TOPIC_PREFIX:
            topic = topic[len(TOPIC_PREFIX) :]
        if not topic:
            raise ConfigurationError("You must provide a topic name", code="TopicNameRequired")
        if replay is not None and not private:
            raise ConfigurationError(
                f"tried to use replay on public channel '{topic}'. It must be a private channel."
            )
        config = ChannelConfig(
            private=private,
            ack=ack,
            receive_own=receive_own,
            presence=presence,
            presence_key=presence_key,
            replay=replay,
            replication_ready=replication_ready,
            changes=tuple(dict.fromkeys(change.binding() for change in changes)),
        )
        existing = self._channels.get(topic)
        if existing is None:
            return self._add(topic, config)
        if existing.given_config != config:
            raise ConfigurationError(
                f"The channel {topic!r} exists with another configuration.",
                code="ChannelConfigConflict",
                hint="Remove it first, or call `reconfigure()` on it.",
                topic=topic,
            )
        return existing

    def _add(self, topic: str, config: ChannelConfig) -> Channel:
        if self._closed:
            raise ClientClosed("The client is closed.", hint="Make another one.")
        self._numbers += 1
        channel = Channel(self, self._numbers, topic, config)
        self._channels[topic] = channel
        self._by_number[channel.number] = channel
        return channel

    async def remove(self, channel: Channel) -> bool:
        """Leave a channel, and forget it.

        Returns:
            Whether the server said that it let go of it.
        """
        if self._channels.get(channel.topic) is channel:
            del self._channels[channel.topic]
        try:
            return await channel.unsubscribe()
        finally:
            self.driver.tell(inputs.RemoveChannel(channel.number))
            self._by_number.pop(channel.number, None)

    async def remove_all(self) -> None:
        """Leave all channels, forget them, and disconnect."""
        for channel in self.channels:
            await self.remove(channel)
        await self.disconnect()

    async def broadcast_http(
        self,
        topic: str,
        event: str,
        payload: Mapping[str, Any] | bytes,
        *,
        private: bool = False,
        timeout: float | None = None,
    ) -> SendReceipt:
        """Send a broadcast over HTTP, without a channel.

        Args:
            topic: the topic, without the prefix.
            event: the event.
            payload: what is encoded as a JSON object, or bytes.
            private: whether it is for the private channel of that topic.
            timeout: seconds to wait; `push_timeout` of the settings by default.

        Raises:
            Refusal: the server says no.
            NoReply: it did not answer in time.
            ClientError: it cannot be reached.
        """
        content, is_json = encode_payload(payload, limit=self.settings.max_payload_bytes)
        await self.auth_ready()
        token = self.engine.keeper.usable
        await self._http.send(
            topic,
            event,
            content,
            is_json=is_json,
            private=private,
            token=None if token is None else token.value,
            timeout=self.settings.push_timeout if timeout is None else timeout,
        )
        return SendReceipt("http", acknowledged=True)

    # Tokens -------------------------------------------------------------------------------------------------

    @property
    def auth_state(self) -> AuthState:
        """What is known about the token in use; not the token."""
        return self.engine.keeper.state()

    async def set_auth(
        self, token: str | Literal[Auth.SOURCE] | None = Auth.SOURCE, *, pin: bool = True
    ) -> AuthState:
        """Use a token from now on; without an argument, go back to what the client was made with.

        Args:
            token: the user's token. Channels that are joined are told at once. None does what `clear_auth`
                does: nobody is signed in.
            pin: whether it stays until `set_auth()` or `clear_auth()`; else only until the token source
                answers the next time.

        Raises:
            TypeError: that is no token.
        """
        if token is None:
            return await self.clear_auth()
        if token is Auth.SOURCE:
            return await self._auth(inputs.UseSource)
        value = check_token(token)
        return await self._auth(lambda ticket: inputs.SetAuth(ticket, value, pin))

    async def clear_auth(self) -> AuthState:
        """Be nobody: channels that are somebody's business are left at once, and hear nothing more."""
        return await self._auth(inputs.ClearAuth)

    async def auth_ready(self) -> AuthState:
        """Wait until the token source has answered, if it is being asked or was never asked."""
        return await self._auth(inputs.AuthReady)

    async def _auth(self, make: Callable[[int], inputs.Input]) -> AuthState:
        state: AuthState = await self.driver.ask(make)
        return state

    # Listening ----------------------------------------------------------------------------------------------

    def on(self, *kinds: type[Event], handler: Handler | None = None) -> Callable[[H], H]:
        """Call a handler with each event of some kinds, of the client and of all channels.

        Args:
            kinds: types from `backbeat.client.events`; nothing stands for all.
            handler: a function, sync or async; without one, use this as a decorator.
        """
        return self._consumers.register(Wish(*kinds), handler)

    def off(self, handler: Handler) -> None:
        """Call a handler no more."""
        self._consumers.off(handler)

    def events(
        self,
        *kinds: type[Event],
        maxsize: int = MAXSIZE,
        overflow: OverflowPolicy | str = OverflowPolicy.DROP_OLDEST,
    ) -> EventStream[Any]:
        """Events of some kinds, of the client and of all channels, as an async iterator.

        Args:
            kinds: types from `backbeat.client.events`; nothing stands for all.
            maxsize: how many events may wait to be taken.
            overflow: what happens to more.
        """
        return self._consumers.stream(Wish(*kinds), maxsize=maxsize, overflow=overflow)

    def _deliver(self, effect: Emit) -> None:
        write_down(effect.event)
        if effect.channel is not None and (channel := self._by_number.get(effect.channel)) is not None:
            channel.deliver(effect.event, effect.bindings)
        self._consumers.put(effect.event)

    def _report(self, event: Event) -> None:
        self._consumers.put(event)

    def handler_failed(self, handler: str, error: Exception) -> None:
        """Tell that a handler raised; it was logged."""
        self._report(HandlerFailed(at=self.driver.clock().wall, handler=handler, error=error))

    def overflowed(self, consumer: str, dropped: int) -> None:
        """Tell that events were lost; those of the client only to the log, or it would go on for ever."""
        event = Overflow(at=self.driver.clock().wall, consumer=consumer, dropped=dropped)
        write_down(event)
        if "the client" not in consumer:
            self._report(event)

    # Looking ------------------------------------------------------------------------------------------------

    def explain(self) -> ClientReport:
        """Say how the connection, the token and each channel are, why, and what to do about it."""
        return self.reporter.client(self.channels)

    def stats(self) -> ClientStats:
        """Numbers, as of now."""
        memberships = self.engine.channels.values()
        return ClientStats(
            connections=self.engine.link.opened,
            channels=len(self._channels),
            joined=sum(each.state is ChannelState.JOINED for each in memberships),
            joins=sum(each.joins for each in memberships),
            frames_sent=self.driver.frames_sent,
            frames_received=self.driver.frames_received,
            frames_stale=self.engine.stale,
            latency=self.engine.link.heartbeat.latency,
            tasks=len(self.driver.tasks),
            waiting=self._consumers.waiting + sum(each.waiting for each in self._by_number.values()),
        )
