"""`AsyncRealtimeClient`: a client of ours behind the methods of the one of `realtime`."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Coroutine, Mapping
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx

from backbeat.client import RealtimeClient
from backbeat.client.endpoint import Endpoint
from backbeat.client.events import ConnectionChanged
from backbeat.compat.channel import AsyncRealtimeChannel
from backbeat.compat.message import Message
from backbeat.compat.types import (
    DEFAULT_HEARTBEAT_INTERVAL,
    DEFAULT_TIMEOUT,
    PHOENIX_CHANNEL,
    VSN,
    ChannelEvents,
    RealtimeChannelOptions,
)
from backbeat.errors import ConfigurationError, ConnectFailed
from backbeat.protocol.messages import TOPIC_PREFIX

__all__ = ["AsyncRealtimeClient"]

LONGEST_PAUSE = 60.0
"""Seconds between two attempts to connect."""


class AsyncRealtimeClient:
    """A client with the names of `realtime`, and the behaviour of `backbeat.RealtimeClient`.

    Args:
        url: the URL of the realtime service, or of the project.
        token: the project's API key.
        auto_reconnect: whether a lost connection is opened again. That is tried until it works.
        params: more parameters for the socket.
        hb_interval: seconds between two heartbeats.
        max_retries: how many attempts `connect` makes.
        initial_backoff: seconds before the second attempt; twice as long before each other one.
        timeout: seconds that anything is waited for.

    Attributes:
        backbeat: the client that does the work.
        channels: the channels, by their topics with the prefix.
        access_token: the token that was given to `set_auth`; before, the API key.

    Raises:
        ValueError: that is no URL.
        ConfigurationError: there is no API key.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        auto_reconnect: bool = True,
        params: dict[str, Any] | None = None,
        hb_interval: float = DEFAULT_HEARTBEAT_INTERVAL,
        max_retries: int = 5,
        initial_backoff: float = 1.0,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        if urlsplit(url).scheme not in ("ws", "wss", "http", "https"):
            raise ValueError("url must be a valid WebSocket URL or HTTP URL string")
        self.params = params or {}
        more = {name: str(value) for name, value in self.params.items() if name != "apikey"}
        self.apikey = token or self.params.get("apikey") or dict(parse_qsl(urlsplit(url).query)).get("apikey")
        self.access_token = self.apikey
        self.auto_reconnect = auto_reconnect
        self.hb_interval = hb_interval
        self.max_retries = max_retries
        self.initial_backoff = initial_backoff
        self.timeout = timeout
        self.channels: dict[str, AsyncRealtimeChannel] = {}
        self._endpoint = Endpoint.of(url, vsn=VSN, params=more)
        self.url = self._endpoint.socket_url
        self.http_endpoint = self._endpoint.http_url
        self.backbeat = RealtimeClient(
            url,
            self.apikey or "",
            params=more,
            http=partial(httpx.AsyncClient, limits=httpx.Limits(max_keepalive_connections=0)),
            heartbeat_interval=hb_interval,
            open_timeout=timeout,
            join_timeout=timeout,
            push_timeout=timeout,
            backoff=tuple(min(initial_backoff * 2**n, LONGEST_PAUSE) for n in range(8)),
        )
        self.backbeat.on(ConnectionChanged, handler=self._connection_changed)
        self.is_closed = False
        self._failures = 0
        self._giving_up: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<AsyncRealtimeClient {self.url} {self.backbeat.state} channels={len(self.channels)}>"

    # The connection -----------------------------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """Whether the socket is open."""
        return self.backbeat.is_connected

    def endpoint_url(self) -> str:
        """The URL that is opened, with the API key."""
        return self._endpoint.socket(self.apikey)

    async def connect(self) -> None:
        """Open the connection.

        Raises:
            BackbeatError: the server refuses it, or none of `max_retries` attempts succeeded.
        """
        self.is_closed = False
        if self.is_connected:
            return
        self._failures = 0
        giving_up = self._giving_up = self._giving_up or asyncio.get_running_loop().create_future()
        connecting = asyncio.ensure_future(self.backbeat.connect())
        try:
            await asyncio.wait({connecting, giving_up}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._giving_up = None
            if not connecting.done():
                connecting.cancel()
        if giving_up.done():
            await self.backbeat.disconnect()
            giving_up.result()
        await connecting

    async def _connection_changed(self, event: ConnectionChanged) -> None:
        if event.state != "backoff":
            return
        self._failures += 1
        if self.auto_reconnect and (self._giving_up is None or self._failures < self.max_retries):
            return
        if self._giving_up is None:
            await self.backbeat.disconnect()
        elif not self._giving_up.done():
            self._giving_up.set_exception(event.error or ConnectFailed("The server cannot be reached."))

    async def listen(self) -> None:
        """Do nothing; deprecated, for whoever is connected listens."""
        warnings.warn("listen() is deprecated, and does nothing.", DeprecationWarning, stacklevel=2)

    async def close(self) -> None:
        """Close the connection. Channels stay, and join again after `connect`."""
        self.is_closed = True
        for channel in self.channels.values():
            channel.release()
        await self.backbeat.disconnect()

    # Channels -----------------------------------------------------------------------------------------------

    def channel(self, topic: str, params: RealtimeChannelOptions | None = None) -> AsyncRealtimeChannel:
        """The channel of a topic; the same one as before, if it was not left.

        Args:
            topic: the topic, without the prefix.
            params: what the channel is; of no meaning for one that exists.
        """
        topic = TOPIC_PREFIX + topic
        existing = self.channels.get(topic)
        if existing is not None:
            return existing
        channel = self.channels[topic] = AsyncRealtimeChannel(self, topic, params)
        return channel

    def get_channels(self) -> list[AsyncRealtimeChannel]:
        """The channels that were not left."""
        return list(self.channels.values())

    async def remove_channel(self, channel: AsyncRealtimeChannel) -> None:
        """Leave a channel; close the connection after the last one."""
        await channel.unsubscribe()
        if not self.channels:
            await self.close()

    async def remove_all_channels(self) -> None:
        """Leave all channels, and close the connection."""
        for channel in self.get_channels():
            await channel.unsubscribe()
        await self.close()

    def forget(self, channel: AsyncRealtimeChannel) -> None:
        """A channel was left."""
        if self.channels.get(channel.topic) is channel:
            del self.channels[channel.topic]

    # Tokens and messages ------------------------------------------------------------------------------------

    async def set_auth(self, token: str | None) -> None:
        """Use a user's token from now on; joined channels are told at once.

        Args:
            token: the token. None, or an API key that is no JWT, stands for nobody: channels that are
                somebody's business are left.
        """
        before, self.access_token = self.access_token, token
        if token and (token != self.apikey or token.count(".") == 2):
            await self.backbeat.set_auth(token)
        elif before not in (None, self.apikey):
            await self.backbeat.clear_auth()

    async def send(self, message: Message | Mapping[str, Any]) -> None:
        """Send a message of the protocol: a broadcast, a presence or a token of a channel, or a heartbeat.

        Args:
            message: its refs mean nothing.

        Raises:
            ConfigurationError: there is no such channel, or no such event.
        """
        if isinstance(message, Mapping):
            message = Message(**message)
        if message.topic == PHOENIX_CHANNEL and message.event == ChannelEvents.heartbeat:
            await self.backbeat.ping()
            return
        channel = self.channels.get(message.topic)
        if channel is None:
            raise ConfigurationError(
                f"There is no channel {message.topic!r}.", hint="Make it with `channel()`, and subscribe it."
            )
        await channel.push(message.event, dict(message.payload))

    def start(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        """Do something in the background."""
        self.backbeat.driver.tasks.start(work, name=name)
