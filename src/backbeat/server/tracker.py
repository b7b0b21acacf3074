"""The presence of one channel: what it tracks, and what its client knows of the others (section 7)."""

from __future__ import annotations

import secrets
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from backbeat.errors import Refusal
from backbeat.protocol import reasons
from backbeat.protocol.messages import Event
from backbeat.protocol.presence import encode_state
from backbeat.server.delivery import Hears, TextDelivery

if TYPE_CHECKING:
    from backbeat.protocol.messages import Message
    from backbeat.protocol.presence import PresenceMap
    from backbeat.protocol.reasons import Reason
    from backbeat.server.channel import Channel
    from backbeat.server.limits import Window

__all__ = ["Tracker"]


class _Push(msgspec.Struct):
    event: str | None = None
    payload: msgspec.Raw = msgspec.Raw(b"{}")


_push = msgspec.json.Decoder(_Push)
# The values of a tracked object stay text: they are passed on, and never looked into.
_tracked = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Tracker:
    """Handles the presence messages of a channel.

    Args:
        channel: whose presence it is.
    """

    __slots__ = ("_channel", "_key", "_seen", "_window", "on")

    def __init__(self, channel: Channel) -> None:
        self.on = False
        """Whether the client takes part: it said so when joining, or tracked something since."""
        self._channel = channel
        # Made when they are needed: most members only listen.
        self._key: str | None = None
        self._window: Window | None = None
        self._seen: PresenceMap | None = None

    def begin(self, key: str | None) -> None:
        """Take part from now on, if the client wants to.

        Args:
            key: what to track under; None for a random key.
        """
        self._key = key
        if self.on:
            self._send_state()

    def handle(self, message: Message) -> None:
        """Handle one presence message."""
        channel = self._channel
        if self._window is None:
            self._window = channel.realtime.limits.channel()
        if reason := channel.socket.limits.presence(channel.realtime.loop.time(), self._window):
            channel.shut_down(reason.refusal(topic=channel.sub_topic))
            return
        channel.realtime.metrics.presence_events += 1
        try:
            push = _push.decode(message.payload)
        except (msgspec.DecodeError, RecursionError):
            self._refuse(reasons.PRESENCE_NOT_OBJECT, message)
            return
        event = (push.event or "").lower()
        if event == "track":
            self._track(push.payload, message)
            return
        if event == "untrack":
            self.untrack()
        elif event and self.on:
            self._refuse(reasons.PRESENCE_UNKNOWN_EVENT, message)
            return
        channel.outbox.reply_ok(message.ref)

    def _track(self, payload: msgspec.Raw, message: Message) -> None:
        channel = self._channel
        assert channel.room is not None
        if not self.on:
            # Presence was off at the join: the first `track` turns it on, with the state others got then.
            self.on = True
            if channel.private:
                channel.occupy(partial(self._ask_and_track, payload, message))
                return
            self._send_state()
        if not channel.permissions.write.presence:
            refusal = channel.permissions.write_refusal or reasons.PRESENCE_DENIED.refusal(
                topic=channel.sub_topic, context=channel.who()
            )
            self._say_no(refusal, message)
            return
        if len(message.payload) > channel.realtime.settings.max_payload_bytes:
            channel.shut_down(reasons.PRESENCE_TOO_LARGE.refusal(topic=channel.sub_topic))
            return
        try:
            tracked = _tracked.decode(payload)
        except msgspec.DecodeError:
            self._refuse(reasons.PRESENCE_NOT_OBJECT, message)
            return
        self._key = self._key or secrets.token_hex(16)
        self._publish(channel.room.presence.track(channel, self._key, tracked, secrets.token_urlsafe(12)))
        channel.outbox.reply_ok(message.ref)

    async def _ask_and_track(self, payload: msgspec.Raw, message: Message) -> None:
        try:
            await self._channel.ask_again()
        except Refusal as refusal:
            self.on = False
            self._say_no(refusal, message)
            return
        self._send_state()
        self._track(payload, message)

    def untrack(self) -> None:
        """Stop being present; nothing happens to a channel that is not."""
        if self._channel.room is not None:
            self._publish(self._channel.room.presence.untrack(self._channel))

    def go_deaf(self) -> None:
        """The channel hears nothing for a while: remember what its client knows."""
        if self.on and self._channel.room is not None:
            self._seen = self._channel.room.presence.state()

    def hear_again(self) -> None:
        """The channel hears again: tell the client who came or went meanwhile, for no diff will."""
        seen, self._seen = self._seen, None
        if (
            seen is not None
            and self._channel.room is not None
            and seen != self._channel.room.presence.state()
        ):
            self._send_state()

    def _send_state(self) -> None:
        """Send who is here, even if it is nobody: stock clients hold every diff back until then."""
        channel = self._channel
        if channel.room is not None and channel.permissions.read.presence:
            channel.outbox.send(Event.PRESENCE_STATE, encode_state(channel.room.presence.state()))

    def _publish(self, diff: bytes | None) -> None:
        if diff is not None and self._channel.room is not None:
            delivery = TextDelivery(Event.PRESENCE_DIFF, diff, audience=Hears.PRESENCE)
            self._channel.room.publish(delivery, len(diff))

    def _refuse(self, reason: Reason, message: Message) -> None:
        self._say_no(reason.refusal(topic=self._channel.sub_topic), message)

    def _say_no(self, refusal: Refusal, message: Message) -> None:
        self._channel.realtime.count_refusal(refusal)
        self._channel.outbox.reply_error(refusal, message.ref)
