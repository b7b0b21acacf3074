"""Where the callbacks of a blocking client run: one thread, the user's own loop, or an executor (7.9).

The asyncio client calls handlers one after the other, in order, from a bounded queue for each channel. Here
each such call is passed on to where it shall run, and waited for: order, bound and reports stay as they are.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from backbeat.errors import ClientError, ConfigurationError

__all__ = ["Callback", "Callbacks", "Dispatch", "Handler"]

Handler: TypeAlias = Callable[[Any], object]
"""A function that takes an event."""

Dispatch: TypeAlias = "Literal['thread', 'inline'] | Executor"
"""Where callbacks run."""

BATCH: Final = 1000
"""Callbacks that one `poll` runs at most, so that it ends even if events keep coming."""


@dataclass(frozen=True, slots=True)
class _Call:
    handler: Handler
    event: Any
    done: Future[None]

    def given_up(self, execution: Future[None]) -> None:
        """Notice that an executor let go of it; the next event must not wait for that."""
        if execution.cancelled():
            self.done.set_exception(ClientError("The executor was shut down before it ran this callback."))


class Callbacks:
    """Runs callbacks, never on the I/O thread.

    Args:
        dispatch: `thread` for one thread, `inline` for whoever calls `poll`, or an executor.
        name: what the thread is called.

    Raises:
        ConfigurationError: `dispatch` is none of these.
    """

    def __init__(self, dispatch: Dispatch, *, name: str) -> None:
        if dispatch not in ("thread", "inline") and not isinstance(dispatch, Executor):
            raise ConfigurationError("`dispatch` is 'thread', 'inline' or an Executor.")
        self._dispatch = dispatch
        self._name = name
        self._waiting: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._here = threading.local()

    @property
    def inline(self) -> bool:
        """Whether callbacks wait for `poll`."""
        return self._dispatch == "inline"

    @property
    def running_here(self) -> bool:
        """Whether the caller is a callback."""
        return getattr(self._here, "depth", 0) > 0

    def submit(self, handler: Handler, event: Any) -> Future[None]:
        """Have a callback called; only called on the I/O thread."""
        call = _Call(handler, event, Future())
        if isinstance(self._dispatch, Executor):
            self._dispatch.submit(self._run, call).add_done_callback(call.given_up)
            return call.done
        self._waiting.put(call)
        if self._dispatch == "thread" and self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"{self._name} callbacks", daemon=True)
            self._thread.start()
        return call.done

    def run_one(self, timeout: float | None) -> bool:
        """Run the next callback.

        Args:
            timeout: seconds to wait for it; None waits for ever.

        Returns:
            Whether there was one.
        """
        try:
            call = self._waiting.get(block=timeout != 0, timeout=timeout)
        except queue.Empty:
            return False
        if call is None:
            self._waiting.put(None)  # for others who wait
            return False
        self._run(call)
        return True

    def wait_stopped(self, timeout: float) -> bool:
        """Wait until there will be no more callbacks; return whether that is so."""
        return self._stopped.wait(timeout)

    def stop(self) -> None:
        """Call none of those any more that wait."""
        self._stopped.set()
        self._waiting.put(None)

    def join(self, timeout: float) -> bool:
        """Wait for the callback that runs, unless that is who waits.

        Returns:
            Whether it ended in time.
        """
        thread = self._thread
        if thread is None or self.running_here:
            return True
        thread.join(timeout)
        return not thread.is_alive()

    def _work(self) -> None:
        while self.run_one(None):
            pass

    def _run(self, call: _Call) -> None:
        if self._stopped.is_set() or not call.done.set_running_or_notify_cancel():
            return
        self._here.depth = getattr(self._here, "depth", 0) + 1
        try:
            call.handler(call.event)
        except Exception as error:  # noqa: BLE001 - the asyncio client, which waits, reports it
            call.done.set_exception(error)
        except BaseException as error:
            # Ctrl-C or `sys.exit()`: for whoever polls, never for the event loop, which would break down.
            if self.inline:
                call.done.set_result(None)
                raise
            call.done.set_exception(ClientError(f"A callback raised {type(error).__name__}."))
        else:
            call.done.set_result(None)
        finally:
            self._here.depth -= 1


class Callback:
    """A handler, as the asyncio client calls it. Equal to every other one of the same handler.

    Args:
        owner: the client; as long as somebody listens, it is not thrown away.
        callbacks: where it runs.
        handler: the function.

    Raises:
        ConfigurationError: it is a coroutine function.
    """

    def __init__(self, owner: object, callbacks: Callbacks, handler: Handler) -> None:
        if inspect.iscoroutinefunction(handler):
            raise ConfigurationError(
                "A handler of the blocking client is a plain function, and not a coroutine function.",
                hint="Use `backbeat.RealtimeClient` for those.",
            )
        self.__qualname__ = getattr(handler, "__qualname__", type(handler).__name__)
        self._owner = owner
        self._callbacks = callbacks
        self._handler = handler

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Callback) and other._handler == self._handler

    def __hash__(self) -> int:
        return hash(self._handler)

    async def __call__(self, event: Any) -> None:
        """Have the handler called, and wait until it returns."""
        await asyncio.wrap_future(self._callbacks.submit(self._handler, event))
