"""A channel's presence, as its user holds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from backbeat.client.engine import inputs
from backbeat.client.selectors import Presence
from backbeat.protocol import reasons

if TYPE_CHECKING:
    from backbeat.client.channel import Channel
    from backbeat.client.events import PresenceEvent
    from backbeat.client.streams import EventStream

__all__ = ["ChannelPresence"]


class ChannelPresence:
    """Who is present in a channel.

    What was tracked last is tracked again whenever the channel comes back. Servers allow few calls (five in
    30 s): one too many waits its turn, and a newer one takes its place.

    Args:
        channel: the channel.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @property
    def state(self) -> Mapping[str, tuple[Mapping[str, Any], ...]]:
        """Who is present, as far as is known: what each tracks, by key."""
        membership = self._channel.client.engine.channels.get(self._channel.number)
        return {} if membership is None else membership.presences

    async def track(self, payload: Mapping[str, Any], *, timeout: float | None = None) -> None:
        """Be present, and tell the others something about oneself; in place of what was told before.

        Args:
            payload: what to tell: a JSON object.
            timeout: seconds to wait for the server's word; `push_timeout` of the settings by default.

        Raises:
            NotSubscribed: the channel was not subscribed.
            Refusal: the server says no.
            NoReply: it did not answer in time.
        """
        if not isinstance(payload, Mapping):
            raise reasons.PRESENCE_NOT_OBJECT.refusal()
        await self._call(dict(payload), timeout)

    async def untrack(self, *, timeout: float | None = None) -> None:
        """Be present no more.

        Args:
            timeout: seconds to wait for the server's word; `push_timeout` of the settings by default.
        """
        await self._call(None, timeout)

    def events(self, *, maxsize: int = 1000) -> EventStream[PresenceEvent]:
        """Who comes and goes, as an async iterator."""
        return self._channel.events(Presence(), maxsize=maxsize)

    async def _call(self, payload: dict[str, Any] | None, timeout: float | None) -> None:
        channel = self._channel
        if not channel.is_subscribed:
            raise channel.not_subscribed("presence")
        default = channel.client.settings.push_timeout
        await channel.client.driver.ask(
            lambda ticket: inputs.Track(
                ticket, channel.number, payload, default if timeout is None else timeout
            )
        )
