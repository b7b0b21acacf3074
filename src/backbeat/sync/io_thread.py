"""The event loop of a blocking client, on a thread of its own, and how other threads use it (7.9).

Three rules:

1. What belongs to the loop is touched on its thread; before it starts and after it ended, under the lock.
2. Nobody waits for the loop in a thread that runs an event loop.
3. Once the end is decided nothing is submitted, so that nobody waits for an answer that cannot come.
"""

from __future__ import annotations

import asyncio
import atexit
import inspect
import itertools
import logging
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Coroutine
from concurrent import futures
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

from backbeat.errors import ClientClosed, ClientForked, SyncCallInAsyncContext

__all__ = ["IoThread", "thread_name"]

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("backbeat.client")

EXIT_PATIENCE: Final = 5.0
"""Seconds the goodbye to the server may take when the interpreter exits."""

LOOK_UP: Final = 0.5
"""Seconds after which whoever waits for the loop notices Ctrl-C at the latest."""

_numbers = itertools.count(1)
_started: weakref.WeakSet[IoThread] = weakref.WeakSet()


def thread_name() -> str:
    """How the names of the threads of another client begin."""
    return f"backbeat-{next(_numbers)}"


class IoThread:
    """Runs an event loop from the first call to the last.

    Args:
        name: how the names of its threads begin.
        owner: what it is for; in warnings.
        closing: ends everything that runs on the loop.
        ended: called once when the thread is about to end, on that thread.

    Attributes:
        forked: whether this is a copy in a child process, which has no such thread.
    """

    def __init__(
        self,
        name: str,
        *,
        owner: str,
        closing: Callable[[], Coroutine[Any, Any, None]],
        ended: Callable[[], None],
    ) -> None:
        self.forked = False
        self._name = name
        self._owner = owner
        self._closing = closing
        self._ended = ended
        # Reentrant: a garbage collection under the lock may end a stream, which posts.
        self._lock = threading.RLock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False

    @property
    def closed(self) -> bool:
        """Whether nothing more is accepted."""
        return self._stopping

    def call(self, work: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a coroutine function on the loop, and wait for it; the thread is started if need be.

        What interrupts the wait, such as Ctrl-C, cancels the coroutine.

        Raises:
            SyncCallInAsyncContext: this thread runs an event loop, which would stand still meanwhile.
            ClientForked: the thread runs in another process.
            ClientClosed: the end came before, or meanwhile.
        """
        _refuse_in_event_loop()
        future = self._submit(work, *args, **kwargs)
        try:
            return _result(future)
        except futures.CancelledError:
            raise self._closed_error() from None
        finally:
            future.cancel()

    async def bridge(self, work: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a coroutine function on the loop, and await it on another one.

        Raises:
            ClientForked: the thread runs in another process.
            ClientClosed: the end came before, or meanwhile.
        """
        future = self._submit(work, *args, **kwargs)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._stopping or (task is not None and task.cancelling()):
                raise
            raise self._closed_error() from None

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that does not wait where nothing interferes with it, and return what it returns.

        Raises:
            ClientForked: the thread runs in another process.
        """
        future: futures.Future[T] = futures.Future()
        with self._lock:
            self._refuse_if_forked()
            if self._loop is None or self._thread is threading.current_thread():
                return work(*args, **kwargs)
            if not self._stopping:
                self._loop.call_soon_threadsafe(_answer, future, partial(work, *args, **kwargs))
                ending = None
            else:
                ending = self._thread
        if ending is None:
            return future.result()
        ending.join()
        with self._lock:
            return work(*args, **kwargs)

    def post(self, work: Callable[[], None]) -> None:
        """Have a function called, without waiting; for finalizers, which run anywhere and at any time."""
        with self._lock:
            if self.forked or self._stopping:
                return
            if self._loop is None:
                work()
            else:
                self._loop.call_soon_threadsafe(work)

    def close(self, timeout: float | None = None) -> None:
        """End everything on the loop, then the thread. Idempotent; does nothing in a child process.

        Args:
            timeout: seconds to wait; None waits as long as it takes.

        Raises:
            SyncCallInAsyncContext: this thread runs an event loop, which would stand still meanwhile.
        """
        if self.forked:
            return
        if not self._stopping:
            _refuse_in_event_loop()
            try:
                self._submit(self._closing).result(timeout)
            except (ClientClosed, futures.CancelledError):
                pass  # Another thread was faster.
            except TimeoutError:
                log.warning("%s was cut off: the server did not answer its goodbye", self._owner)
            self._stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def abandon(self) -> None:
        """Say that nobody closed this, and end it without waiting."""
        with self._lock:
            if self._loop is None or self._stopping or self.forked:
                return
            asyncio.run_coroutine_threadsafe(self._close_and_stop(), self._loop)
            self._stopping = True
        self._warn()

    def leave_at_exit(self) -> None:
        """Say that nobody closed this, and end it before the interpreter does."""
        try:
            self._warn()
        finally:
            self.close(EXIT_PATIENCE)

    def forget_after_fork(self) -> None:
        """Notice that this is a child process; called there."""
        # Whoever held the lock is not here to let go of it.
        self._lock = threading.RLock()
        self.forked = self._loop is not None

    def _warn(self) -> None:
        warnings.warn(f"unclosed {self._owner}", ResourceWarning, stacklevel=3, source=self)

    def _submit(
        self, work: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> futures.Future[T]:
        with self._lock:
            self._refuse_if_forked()
            if self._stopping:
                raise self._closed_error()
            loop = self._start() if self._loop is None else self._loop
            return asyncio.run_coroutine_threadsafe(work(*args, **kwargs), loop)

    def _refuse_if_forked(self) -> None:
        if self.forked:
            raise ClientForked(
                "This process was forked after the client was started, and has no part in its connection.",
                hint="Make another one here; `recreate()` of a client makes one with the same arguments.",
            )

    def _closed_error(self) -> ClientClosed:
        return ClientClosed(f"The {self._owner} is closed.", hint="Make another one.")

    def _start(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        loop.set_default_executor(_DaemonThreads(self._name))
        self._thread = threading.Thread(target=self._run, args=(loop,), name=f"{self._name} I/O", daemon=True)
        self._thread.start()
        self._loop = loop
        _started.add(self)
        return loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.run_forever()
        except BaseException:
            # An async token function may have called `sys.exit()`.
            log.exception("the event loop of %s broke down", self._owner)
        finally:
            with self._lock:
                self._stopping = True
            _started.discard(self)
            self._ended()
            loop.run_until_complete(_cancel_all())
            loop.close()

    async def _close_and_stop(self) -> None:
        try:
            await self._closing()
        finally:
            asyncio.get_running_loop().stop()

    def _stop(self) -> None:
        with self._lock:
            if self._loop is not None and not self._stopping:
                self._stopping = True
                self._loop.call_soon_threadsafe(self._loop.stop)


class _DaemonThreads(futures.ThreadPoolExecutor):
    """Runs each call in a thread of its own, which does not hold up the end of the interpreter.

    What waits for it does not end because a token function hangs, or a name server.

    Args:
        name: what the threads are called.
    """

    def __init__(self, name: str) -> None:
        super().__init__(max_workers=1)
        self._name = name

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> futures.Future[T]:
        """Run a call."""
        future: futures.Future[T] = futures.Future()
        work = partial(fn, *args, **kwargs)
        threading.Thread(
            target=_answer, args=(future, work), name=f"{self._name} helper", daemon=True
        ).start()
        return future


def _answer(future: futures.Future[T], work: Callable[[], T]) -> None:
    """Settle a future with what a call returns or raises."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits
        future.set_exception(error)
    else:
        future.set_result(result)


def _result(future: futures.Future[T]) -> T:
    """Wait for a result, and look up now and then.

    A signal that comes just before the wait begins, or to another thread, does not end it, and on Windows
    none does: Python gets to handle it when this thread runs again.
    """
    while True:
        try:
            return future.result(LOOK_UP)
        except TimeoutError:
            if future.done():  # meanwhile, or with such an error of its own
                return future.result()


async def _cancel_all() -> None:
    """Cancel what runs, and wait until it has ended."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()


def _refuse_in_event_loop() -> None:
    """Refuse to wait where an event loop would stand still."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    if _in_notebook():
        return
    raise SyncCallInAsyncContext(
        f"{_public_call()}() of the blocking client would stop the event loop that runs in this thread.",
        hint="Await the same call of `backbeat.RealtimeClient` or `backbeat.session.AuthContext`, or use"
        " `asyncio.to_thread`.",
    )


def _public_call() -> str:
    """What the user called: the last function of this package on the way out."""
    frame, name = inspect.currentframe(), ""
    while frame is not None and frame.f_globals.get("__name__", "").startswith(__package__):
        name = frame.f_code.co_qualname
        frame = frame.f_back
    return name


def _in_notebook() -> bool:
    """Whether cells of a notebook run here: its loop stands still during every cell anyway."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return hasattr(shell, "kernel")


def _at_exit() -> None:
    for thread in list(_started):
        thread.leave_at_exit()


def _after_fork() -> None:
    for thread in list(_started):
        thread.forget_after_fork()
    _started.clear()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
