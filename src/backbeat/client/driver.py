"""Drives the engine on an event loop: sockets, timers, tasks and futures. It decides nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from backbeat.client import events
from backbeat.client.engine import effects, inputs
from backbeat.client.engine.turn import Now
from backbeat.client.tasks import Tasks
from backbeat.errors import UpgradeRefused

if TYPE_CHECKING:
    from backbeat.client.engine import Engine
    from backbeat.client.provider import TokenSource
    from backbeat.client.transport import Socket

__all__ = ["Driver", "system_clock"]

log = logging.getLogger("backbeat.client")

MAX_WAITING_FRAMES: Final = 1000
MAX_WAITING_BYTES: Final = 4 * 1024 * 1024
"""What may wait to be written before senders have to wait."""


def system_clock() -> Now:
    """What this machine's clocks say."""
    return Now(time.monotonic(), time.time())


class Driver:
    """Carries out what the engine wants, and tells it what happens.

    Args:
        engine: the engine.
        open_socket: opens a connection.
        source: gives tokens, if the engine may ask.
        deliver: passes an event on to the user.
        clock: tells the time.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        open_socket: Callable[[], Any],
        source: TokenSource | None,
        deliver: Callable[[effects.Emit], None],
        clock: Callable[[], Now] = system_clock,
    ) -> None:
        self.engine = engine
        self.clock = clock
        self.tasks = Tasks(self._task_failed)
        self.frames_sent = 0
        self.frames_received = 0
        self._open_socket = open_socket
        self._source = source
        self._deliver = deliver
        self._tickets = 0
        self._futures: dict[int, asyncio.Future[Any]] = {}
        self._timers: dict[effects.Timer, asyncio.TimerHandle] = {}
        self._asking: dict[int, asyncio.Task[None]] = {}
        self._connections: dict[int, _Connection] = {}
        self._following = False
        self._carry_out: dict[type[effects.Effect], Callable[[Any], None]] = {
            effects.OpenSocket: self._do_open,
            effects.CloseSocket: self._do_close,
            effects.Send: self._do_send,
            effects.StartTimer: self._do_start,
            effects.StopTimer: self._do_stop,
            effects.AskToken: self._do_ask,
            effects.StopAsking: self._do_stop_asking,
            effects.Settle: self._do_settle,
            effects.Emit: self._do_emit,
        }

    def tell(self, given: inputs.Input) -> None:
        """Tell the engine something, and do what it wants."""
        for effect in self.engine.handle(given, self.clock()):
            self._carry_out[type(effect)](effect)

    async def ask(self, make: Callable[[int], inputs.Input]) -> Any:
        """Give the engine a command, and wait until it is settled.

        Args:
            make: makes the command with a ticket.
        """
        self._tickets += 1
        ticket = self._tickets
        future = asyncio.get_running_loop().create_future()
        self._futures[ticket] = future
        try:
            self.tell(make(ticket))
            return await future
        finally:
            self._futures.pop(ticket, None)

    async def room(self) -> None:
        """Wait while too much waits to be written."""
        connection = self._connections.get(self.engine.link.connection)
        if connection is not None:
            await connection.room.wait()

    async def aclose(self) -> None:
        """Stop everything; the engine was told before."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        await self.tasks.aclose()

    def follow(self) -> None:
        """Begin to listen to the token source, if it tells about changes."""
        if self._following or self._source is None:
            return
        self._following = True
        if (changes := self._source.changes()) is not None:
            self.tasks.start(self._follow(changes), name="token source")

    async def _follow(self, changes: Any) -> None:
        try:
            async for signed_out in changes:
                self.tell(inputs.SourceChanged(signed_out=signed_out))
        except Exception as error:
            # Its token is still asked for, at every join and at heartbeats.
            log.exception("the token source tells of no more changes")
            self._tell_user(events.TokenProviderFailed(at=self.clock().wall, error=error))

    def _tell_user(self, event: events.Event) -> None:
        self._do_emit(effects.Emit(event, None))

    def _task_failed(self, name: str, error: Exception) -> None:
        """A mistake of ours: say so, and do not trust the connection."""
        log.error("%s failed", name, exc_info=error)
        self._tell_user(events.HandlerFailed(at=self.clock().wall, handler=name, error=error))
        connection = self._connections.get(self.engine.link.connection)
        if connection is not None:
            connection.abort()

    # What the engine wants ----------------------------------------------------------------------------------

    def _do_open(self, effect: effects.OpenSocket) -> None:
        connection = _Connection(self, effect.connection)
        self._connections[effect.connection] = connection
        connection.task = self.tasks.start(
            connection.run(self._open_socket), name=f"socket {effect.connection}"
        )
        # A task that is cancelled before its first step never runs, and tells nobody that it is over.
        connection.task.add_done_callback(lambda _: connection.end(inputs.SocketClosed(effect.connection)))

    def forget(self, number: int) -> None:
        """A connection is gone."""
        self._connections.pop(number, None)

    def _do_close(self, effect: effects.CloseSocket) -> None:
        connection = self._connections.get(effect.connection)
        if connection is not None:
            connection.close(effect.code, effect.reason, silent=effect.silent)

    def _do_send(self, effect: effects.Send) -> None:
        connection = self._connections.get(effect.connection)
        if connection is not None:
            connection.put(effect)

    def _do_start(self, effect: effects.StartTimer) -> None:
        self._do_stop(effects.StopTimer(effect.timer))
        loop = asyncio.get_running_loop()
        self._timers[effect.timer] = loop.call_later(effect.delay, partial(self._fire, effect.timer))

    def _do_stop(self, effect: effects.StopTimer) -> None:
        timer = self._timers.pop(effect.timer, None)
        if timer is not None:
            timer.cancel()

    def _fire(self, timer: effects.Timer) -> None:
        del self._timers[timer]
        self.tell(inputs.TimerFired(timer))

    def _do_ask(self, effect: effects.AskToken) -> None:
        self.follow()
        task = self.tasks.start(self._ask_source(effect), name="token")
        self._asking[effect.request] = task

    async def _ask_source(self, effect: effects.AskToken) -> None:
        assert self._source is not None
        try:
            answer = await self._source.token(refused=effect.refused)
        except Exception as error:
            log.warning("Error fetching access token from callback", exc_info=error)
            given: inputs.Input = inputs.TokenFailed(effect.request, error)
        else:
            given = inputs.TokenResolved(effect.request, answer)  # type: ignore[arg-type] # the engine checks
        finally:
            self._asking.pop(effect.request, None)
        self.tell(given)

    def _do_stop_asking(self, effect: effects.StopAsking) -> None:
        task = self._asking.pop(effect.request, None)
        # A source may call `set_auth` itself, and is not cancelled for that: its answer just counts no more.
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    def _do_settle(self, effect: effects.Settle) -> None:
        future = self._futures.pop(effect.ticket, None)
        if future is None or future.done():
            return
        if effect.error is not None:
            future.set_exception(effect.error)
        else:
            future.set_result(effect.value)

    def _do_emit(self, effect: effects.Emit) -> None:
        try:
            self._deliver(effect)
        except Exception:
            log.exception("an event could not be delivered: %s", type(effect.event).__name__)


class _Connection:
    """One socket, from opening to the end.

    Args:
        driver: whose.
        number: how the engine calls it.
    """

    def __init__(self, driver: Driver, number: int) -> None:
        self._driver = driver
        self._number = number
        self._socket: Socket | None = None
        self._waiting: deque[effects.Send] = deque()
        self._bytes = 0
        self._something = asyncio.Event()
        self.room = asyncio.Event()
        self.room.set()
        self.task: asyncio.Task[None] | None = None
        self._ended = False

    async def run(self, open_socket: Callable[[], Any]) -> None:
        """Open the socket, and carry frames until it is gone; the engine is told in any case."""
        end: inputs.Input = inputs.SocketClosed(self._number)
        try:
            self._socket = socket = await open_socket()
            self._driver.tell(inputs.SocketOpened(self._number, socket.server_time))
            writing = self._driver.tasks.start(self._write(socket), name=f"writer {self._number}")
            try:
                async for frames in socket.frames():
                    self._driver.frames_received += len(frames)
                    self._driver.tell(inputs.FramesReceived(self._number, frames))
                    # Handlers and streams take what came before more of it comes.
                    await asyncio.sleep(0)
            finally:
                writing.cancel()
            end = inputs.SocketClosed(self._number, *socket.closing)
        except UpgradeRefused as refused:
            end = inputs.SocketRefused(self._number, refused.status, refused.body, refused.retry_after)
        except OSError as error:
            end = inputs.SocketFailed(self._number, _plain(error))
        finally:
            self.end(end)

    def end(self, how: inputs.Input) -> None:
        """The socket is gone, or never was: tell the engine, once."""
        if self._ended:
            return
        self._ended = True
        if self._socket is not None:
            self._socket.abort()
        self.room.set()
        self._driver.forget(self._number)
        self._driver.tell(how)

    def put(self, effect: effects.Send) -> None:
        """Have a frame written."""
        self._waiting.append(effect)
        self._bytes += effect.size
        if len(self._waiting) > MAX_WAITING_FRAMES or self._bytes > MAX_WAITING_BYTES:
            self.room.clear()
        self._something.set()

    async def _write(self, socket: Socket) -> None:
        try:
            while True:
                while self._waiting:
                    effect = self._waiting.popleft()
                    self._bytes -= effect.size
                    if (frame := effect.compose()) is not None:
                        self._driver.frames_sent += 1
                        await socket.send(frame)
                        if effect.receipt is not None:
                            self._driver.tell(inputs.FrameWritten(self._number, *effect.receipt))
                self.room.set()
                self._something.clear()
                await self._something.wait()
        except OSError:
            # The reader learns it too, and tells.
            socket.abort()

    def close(self, code: int, reason: str, *, silent: bool) -> None:
        """Close the socket, or give up opening it."""
        if self._socket is None:
            if self.task is not None:
                self.task.cancel()
        elif silent:
            self.abort()
        else:
            self._driver.tasks.start(self._close(self._socket, code, reason), name="closing")

    async def _close(self, socket: Socket, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(self._driver.engine.settings.close_timeout):
                await self._written()
                await socket.close(code, reason)
        except (TimeoutError, OSError):
            pass  # The other side does not answer; it is cut off below.
        finally:
            socket.abort()

    async def _written(self) -> None:
        """Wait until what was sent before the goodbye is written."""
        while self._waiting:
            self.room.clear()
            await self.room.wait()

    def abort(self) -> None:
        """Cut the connection."""
        if self._socket is not None:
            self._socket.abort()


def _plain(error: OSError) -> str:
    """What went wrong, without anything that may hold a key."""
    return error.strerror or str(error) or type(error).__name__
