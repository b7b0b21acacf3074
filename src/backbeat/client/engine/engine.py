"""The engine: one input, one turn, the effects of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backbeat.client import events
from backbeat.client.engine import inputs
from backbeat.client.engine.heartbeat import BEAT
from backbeat.client.engine.keeper import ANSWER, REFRESH, RETRY, TokenKeeper
from backbeat.client.engine.link import TIMERS, Link
from backbeat.client.engine.membership import ChannelState, Membership
from backbeat.client.engine.roster import PACE, Roster
from backbeat.client.engine.turn import Turn
from backbeat.client.engine.wire import Wire
from backbeat.errors import BackbeatError, ClientClosed, NotSubscribed, ProtocolError
from backbeat.protocol.messages import PHOENIX, TOPIC_PREFIX, Event, Message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from backbeat.client.engine.effects import Effect
    from backbeat.client.engine.turn import Now
    from backbeat.client.settings import ClientSettings

__all__ = ["Engine"]


class Engine:
    """A client without I/O.

    Args:
        settings: how it behaves.
        static: the user's token, if it is a fixed one.
        can_ask: whether there is a token source, which `AskToken` asks.
        random: returns numbers from 0 to 1, for jitter.

    Attributes:
        link: the connection; to look at.
        keeper: the tokens; to look at.
        channels: the channels by their numbers; to look at.
    """

    def __init__(
        self,
        settings: ClientSettings,
        *,
        static: str | None = None,
        can_ask: bool = False,
        random: Callable[[], float],
    ) -> None:
        self.settings = settings
        self._turn = Turn(settings, random)
        self._wire = Wire(settings.vsn, max_frame_bytes=settings.max_frame_bytes)
        self._roster = Roster(self._turn)
        self._drift: float | None = None
        self._is_closed = False
        self.stale = 0
        self.link = Link(self._turn, self._wire, self)
        self.keeper = TokenKeeper(self._turn, static=static, can_ask=can_ask, changed=self._token_changed)
        self.channels: dict[int, Membership] = {}
        self._removed: set[int] = set()
        self._handlers: Mapping[type[inputs.Input], Callable[[Any], None]] = {
            inputs.SocketOpened: self._socket_opened,
            inputs.SocketRefused: self._socket_refused,
            inputs.SocketFailed: self._socket_failed,
            inputs.SocketClosed: self._socket_closed,
            inputs.FramesReceived: self._frames,
            inputs.FrameWritten: self._written,
            inputs.TimerFired: self._fired,
            inputs.TokenResolved: self._token_resolved,
            inputs.TokenFailed: self._token_failed,
            inputs.SourceChanged: self._source_changed,
            inputs.SetAuth: self._set_auth,
            inputs.UseSource: self._use_source,
            inputs.ClearAuth: self._clear_auth,
            inputs.AuthReady: self._auth_ready,
            inputs.Connect: self._connect,
            inputs.Disconnect: self._disconnect,
            inputs.Close: self._close,
            inputs.Ping: self._ping,
            inputs.Subscribe: self._subscribe,
            inputs.Unsubscribe: self._unsubscribe,
            inputs.RemoveChannel: self._remove,
            inputs.Broadcast: self._broadcast,
            inputs.Track: self._track,
        }

    @property
    def now(self) -> Now:
        """The time of the last input."""
        return self._turn.now

    def handle(self, given: inputs.Input, now: Now) -> list[Effect]:
        """Take one input.

        Args:
            given: what happened.
            now: what the clocks say.

        Returns:
            What has to be done, in this order.
        """
        self._turn.now = now
        self._notice_sleep(now)
        self._handlers[type(given)](given)
        self._roster.advance()
        self._forget_removed()
        return self._turn.take()

    def _forget_removed(self) -> None:
        """Forget the channels that were removed, as soon as they are left."""
        for number in [n for n in self._removed if self.channels[n].state is ChannelState.CLOSED]:
            self._removed.discard(number)
            del self.channels[number]

    def _notice_sleep(self, now: Now) -> None:
        """Notice that the machine slept: the wall clock went on, the steady one did not (R-8).

        Somebody who sets the clock looks the same; a token too many is asked for then, and nothing else.
        """
        drift, before = now.wall - now.steady, self._drift
        self._drift = drift
        if before is not None and drift - before > self._turn.settings.wake_jump and not self._is_closed:
            self._woke(drift - before)

    def _notice_stall(self) -> None:
        """Notice it where the steady clock goes on during sleep: by a heartbeat that is much too late."""
        late = self.link.heartbeat.late
        if late > max(self.settings.wake_jump, 2 * self.settings.heartbeat_interval):
            self._woke(late)

    def _woke(self, slept: float) -> None:
        self._turn.emit(events.Woke(at=self._turn.now.wall, slept=slept))
        if any(each.wanted for each in self.channels.values()):
            self.keeper.ask(anew=True)
        self.link.woke()

    # What the socket says -----------------------------------------------------------------------------------

    def _socket_opened(self, given: inputs.SocketOpened) -> None:
        self.link.socket_opened(given.connection, given.server_time)

    def _socket_refused(self, given: inputs.SocketRefused) -> None:
        self.link.socket_refused(given.connection, given.status, given.body, given.retry_after)

    def _socket_failed(self, given: inputs.SocketFailed) -> None:
        self.link.socket_failed(given.connection, given.reason)

    def _socket_closed(self, given: inputs.SocketClosed) -> None:
        self.link.socket_closed(given.connection, given.code, given.reason)

    def _frames(self, given: inputs.FramesReceived) -> None:
        if given.connection != self.link.connection or not self.link.is_open:
            self.stale += len(given.frames)
            return
        self.link.heard_at = self._turn.now.wall
        for frame in given.frames:
            try:
                self._read(frame)
            except ProtocolError as error:
                self._turn.emit(
                    events.BadFrame(at=self._turn.now.wall, reason=error.message, size=len(frame))
                )

    def _written(self, given: inputs.FrameWritten) -> None:
        membership = self.channels.get(given.channel)
        if given.connection == self.link.connection and membership is not None:
            membership.written(given.ref)

    def _read(self, data: str | bytes) -> None:
        message = self._wire.read(data)
        if message.topic == PHOENIX:
            if isinstance(message, Message) and message.event == Event.REPLY:
                self.link.heartbeat_answered(message.ref)
            return
        membership = self._roster.owner(message.topic.removeprefix(TOPIC_PREFIX))
        if membership is None:
            self.stale += 1
        else:
            membership.receive(message)

    # What the link says -------------------------------------------------------------------------------------

    def link_connecting(self) -> None:
        """A socket is being opened: the token of every channel is asked for anew."""
        for membership in self._each():
            membership.link_connecting()

    def link_opened(self) -> None:
        """Every channel joins again."""
        for membership in self._each():
            membership.link_opened()

    def link_lost(self, error: BackbeatError) -> None:
        """Every channel is interrupted."""
        for membership in self._each():
            membership.link_lost(error, self.link.heard_at)

    def link_failed(self, error: BackbeatError) -> None:
        """No channel will come back by itself."""
        for membership in self._each():
            membership.link_failed(error)

    def _each(self) -> list[Membership]:
        return list(self.channels.values())

    # Timers -------------------------------------------------------------------------------------------------

    def _fired(self, given: inputs.TimerFired) -> None:
        timer = given.timer
        if timer in (ANSWER, REFRESH, RETRY):
            self.keeper.fired(timer)
        elif timer in TIMERS:
            if timer == BEAT:
                self._notice_stall()
                self.keeper.ask_if_old()
            self.link.fired(timer)
        elif timer != PACE and (membership := self.channels.get(timer.subject)) is not None:
            membership.fired(timer.name)

    # Tokens -------------------------------------------------------------------------------------------------

    def _token_changed(self) -> None:
        for membership in self._each():
            membership.token_changed()

    def _token_resolved(self, given: inputs.TokenResolved) -> None:
        self.keeper.answered(given.request, given.value)

    def _token_failed(self, given: inputs.TokenFailed) -> None:
        self.keeper.failed(given.request, given.error)

    def _source_changed(self, given: inputs.SourceChanged) -> None:
        self.keeper.source_changed(signed_out=given.signed_out)

    def _set_auth(self, given: inputs.SetAuth) -> None:
        if self._refuse(given.ticket):
            return
        self.keeper.set(given.token, pin=given.pin)
        self.keeper.wait(0, given.ticket)

    def _use_source(self, given: inputs.UseSource) -> None:
        if not self._refuse(given.ticket):
            self.keeper.wait(self.keeper.use_source(), given.ticket)

    def _clear_auth(self, given: inputs.ClearAuth) -> None:
        if self._refuse(given.ticket):
            return
        self.keeper.clear()
        self.keeper.wait(0, given.ticket)

    def _auth_ready(self, given: inputs.AuthReady) -> None:
        if not self._refuse(given.ticket):
            self.keeper.wait(self.keeper.newest, given.ticket)

    # The connection -----------------------------------------------------------------------------------------

    def _connect(self, given: inputs.Connect) -> None:
        if self._refuse(given.ticket):
            return
        if self.link.is_open:
            self._turn.settle(given.ticket)
            return
        self.keeper.ask()
        self.link.connect(given.ticket)

    def _disconnect(self, given: inputs.Disconnect) -> None:
        if not self._refuse(given.ticket):
            self.link.disconnect(given.ticket, given.code, given.reason)

    def _ping(self, given: inputs.Ping) -> None:
        if self._refuse(given.ticket):
            return
        if self.link.is_open:
            self.link.heartbeat.ping(given.ticket)
        else:
            error = self.link.error or ClientClosed("The client is not connected.", code="NotConnected")
            self._turn.fail(given.ticket, error)

    def _close(self, given: inputs.Close) -> None:
        if not self._is_closed:
            self._is_closed = True
            error = ClientClosed("The client was closed.")
            for membership in self._each():
                membership.close(error)
            self.channels.clear()
            self._removed.clear()
            self.keeper.close()
            self._turn.stop(PACE)
        self.link.close(given.ticket)

    def _refuse(self, ticket: int) -> bool:
        """Whether the client is closed; whoever still wants something is told."""
        if self._is_closed:
            self._turn.fail(ticket, ClientClosed("The client is closed.", hint="Make another one."))
        return self._is_closed

    # Channels -----------------------------------------------------------------------------------------------

    def _subscribe(self, given: inputs.Subscribe) -> None:
        if self._refuse(given.ticket):
            return
        membership = self.channels.get(given.channel)
        if membership is None:
            membership = Membership(
                given.channel,
                given.topic,
                given.config,
                turn=self._turn,
                link=self.link,
                keeper=self.keeper,
                roster=self._roster,
            )
            self.channels[given.channel] = membership
        membership.subscribe(given)

    def _unsubscribe(self, given: inputs.Unsubscribe) -> None:
        membership = self.channels.get(given.channel)
        if membership is None:
            self._turn.settle(given.ticket, False)
            return
        membership.unsubscribe(given.ticket)
        if not any(each.wanted for each in self.channels.values()):
            self.link.not_needed()

    def _remove(self, given: inputs.RemoveChannel) -> None:
        if given.channel in self.channels:
            self._removed.add(given.channel)

    def _broadcast(self, given: inputs.Broadcast) -> None:
        if (membership := self._member(given.ticket, given.channel)) is not None:
            membership.broadcast(given)

    def _track(self, given: inputs.Track) -> None:
        if (membership := self._member(given.ticket, given.channel)) is not None:
            membership.track(given)

    def _member(self, ticket: int, channel: int) -> Membership | None:
        if self._refuse(ticket):
            return None
        membership = self.channels.get(channel)
        if membership is None:
            self._turn.fail(
                ticket,
                NotSubscribed(
                    "tried to push before joining.", hint="Use channel.subscribe() before pushing events"
                ),
            )
        return membership
