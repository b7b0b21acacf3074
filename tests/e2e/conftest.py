"""A real browser, and the band app as a newcomer starts it: one command in a process of its own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Self

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[2]
BACKBEAT = str(Path(sys.executable).parent / "backbeat")
CHROMIUM = "/usr/bin/chromium"
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
READY_TIMEOUT = 60.0
USERS = {
    "eric": ("eric@ipodshuffle.com", "test123"),
    "mike": ("mike@ipodshuffle.com", "test123"),
    "olga": ("olga@ipodshuffle.com", "test123"),
}


def free_ports(count: int) -> list[int]:
    """Ports below the range the kernel hands out: nobody takes them between two starts of a server."""
    ports: list[int] = []
    candidate = 20_000 + os.getpid() % 5_000
    while len(ports) < count:
        candidate += 1
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", candidate)) != 0:
                ports.append(candidate)
    return ports


class Program:
    """A command in a process of its own, its output read as it comes.

    Args:
        command: what to run.
        ready: a regular expression for the line that says it works.
        environment: more variables than ours.
    """

    def __init__(self, command: list[str], *, ready: str, **environment: str) -> None:
        self.command = command
        self._environment = environment
        self.lines: list[str] = []
        self.heard_at: list[float] = []
        self.started_in = 0.0
        self._ready = ready
        self._news = threading.Condition()
        self._ended = False
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    @property
    def output(self) -> str:
        """Everything it has printed."""
        return "".join(self.lines)

    def start(self, ready: str | None = None) -> None:
        """Start it and wait until it says that it works.

        Args:
            ready: another line to wait for.
        """
        began = time.monotonic()
        self.lines.clear()
        self.heard_at.clear()
        self._ended = False
        self._process = subprocess.Popen(
            self.command,
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | self._environment,
        )
        self._reader = threading.Thread(target=self._read, args=[self._process.stdout], daemon=True)
        self._reader.start()
        self.says(ready or self._ready, timeout=READY_TIMEOUT)
        self.started_in = time.monotonic() - began

    def _read(self, output: IO[str]) -> None:
        for line in output:
            with self._news:
                self.lines.append(line)
                self.heard_at.append(time.time())
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def says(self, pattern: str, *, since: int = 0, timeout: float = 15.0) -> int:
        """Wait for a line that it prints.

        Args:
            pattern: a regular expression.
            since: how many lines are not looked at.
            timeout: seconds to wait.

        Returns:
            The number of the line.
        """
        deadline = time.monotonic() + timeout
        looked_at = since
        with self._news:
            while True:
                for number in range(looked_at, len(self.lines)):
                    if re.search(pattern, self.lines[number]):
                        return number
                looked_at = len(self.lines)
                assert not self._ended, f"it ended before it said {pattern!r}:\n{self.output}"
                left = deadline - time.monotonic()
                assert left > 0, f"it never said {pattern!r}:\n{self.output}"
                self._news.wait(left)

    def type(self, line: str) -> None:
        """Type a line."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal and wait for the end."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            return process.wait(20)
        finally:
            process.kill()
            process.wait()
            assert self._reader is not None
            self._reader.join(5)
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()


class Dev(Program):
    """`backbeat dev` on ports of its own.

    Args:
        arguments: further flags.
    """

    def __init__(self, *arguments: str) -> None:
        self.port, self.database_port = free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}"
        self.database_url = f"postgresql://postgres:postgres@127.0.0.1:{self.database_port}/postgres"
        ports = ["--port", str(self.port), "--db-port", str(self.database_port)]
        super().__init__([BACKBEAT, "dev", *ports, *arguments], ready="Stop it with Ctrl-C")


class BandApp(Program):
    """The band app as `make demo` runs it, on ports of its own.

    Args:
        data: the folder of its database.
    """

    def __init__(self, data: Path) -> None:
        port, database_port, page_port = free_ports(3)
        self.url = f"http://127.0.0.1:{page_port}"
        self.project_url = f"http://127.0.0.1:{port}"
        self.database_url = f"postgresql://postgres:postgres@127.0.0.1:{database_port}/postgres"
        ports = ["--port", port, "--db-port", database_port, "--page-port", page_port]
        command = [sys.executable, "examples/rockon/demo.py", "--data", data, *ports]
        super().__init__([str(part) for part in command], ready="Eric and Mike play")


class Terminal(Program):
    """The band app in a terminal.

    Args:
        who: who plays.
        url: the project's URL.
        sessions: the folder that keeps who is signed in.
    """

    def __init__(self, who: str, url: str, sessions: Path) -> None:
        arguments = [who, "--url", url, "--sessions", str(sessions)]
        command = [sys.executable, "-m", "examples.rockon.terminal", *arguments]
        super().__init__(command, ready="Password of|Real-time sync connected")

    def sign_in(self, password: str) -> None:
        """Give the password, and wait until every list is live."""
        self.type(password)
        self.says("connection: live")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A data folder that a database running as another user can reach."""
    path = Path(tempfile.mkdtemp(prefix="backbeat-test-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def dev() -> Iterator[Dev]:
    """`backbeat dev`, shared by the tests of a module."""
    with Dev("--ephemeral") as dev:
        yield dev


@pytest.fixture(scope="module")
def band_app() -> Iterator[BandApp]:
    """The band app, shared by the tests of a module."""
    path = Path(tempfile.mkdtemp(prefix="backbeat-test-"))
    try:
        with BandApp(path) as app:
            yield app
    finally:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, without a screen; for one module only, for it keeps an event loop running in this thread."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()


class Visitor:
    """One person at the band app, in a browser profile of their own.

    Args:
        page: the page.
        url: where the band app is.
    """

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        self.sent: list[str] = []
        page.set_default_timeout(15_000)
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("websocket", lambda ws: ws.on("framesent", self._frame))

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _frame(self, payload: str | bytes) -> None:
        if isinstance(payload, str):
            self.sent.append(payload)

    def sign_in(self, name: str) -> None:
        """Open the page, sign in, and wait until everything is live."""
        email, password = USERS[name]
        self.page.goto(self.url)
        self.page.get_by_test_id("sign-in-email").fill(email)
        self.page.get_by_test_id("sign-in-password").fill(password)
        self.page.get_by_test_id("sign-in").click()
        self.live()

    def live(self) -> None:
        """Wait until row changes of every list flow."""
        self.page.wait_for_selector('[data-testid="connection"][data-state="live"]')

    def log(self) -> list[str]:
        """The lines of the page's log."""
        entries = self.page.evaluate("window.rockon.log.map(entry => entry.text)")
        return [str(entry) for entry in entries]

    def add_song(self, title: str) -> float:
        """Add a song through the page.

        Returns:
            When it was saved, in milliseconds since the epoch.
        """
        self.page.get_by_test_id("add-songs").click()
        form = self.page.get_by_test_id("form-songs")
        form.locator('[name="title"]').fill(title)
        saved = form.get_by_test_id("save").evaluate(
            "button => { const now = Date.now(); button.click(); return now; }"
        )
        self.song(title).wait_for()
        return float(saved)

    def song(self, title: str) -> Any:
        """The row of a song."""
        return self.page.get_by_test_id("row-songs").filter(has_text=title)

    def toast(self, text: str) -> Any:
        """The toast that says this."""
        return self.page.get_by_test_id("toast").filter(has_text=text).first


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[[str], Visitor]]:
    """Open the band app in a browser profile of its own, as often as a test likes."""
    contexts = []

    def open_page(url: str) -> Visitor:
        context = browser.new_context(viewport={"width": 1280, "height": 860})
        contexts.append(context)
        return Visitor(context.new_page(), url)

    yield open_page
    for context in contexts:
        context.close()
