"""`backbeat bench`: what a server can do on this machine."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import sys
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec
from cyclopts import Parameter
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from backbeat.cli.process import interruptible, run
from backbeat.client.endpoint import Endpoint
from backbeat.errors import ConfigurationError, StartError
from backbeat.load.bench import Bench, Options, Side
from backbeat.load.crew import Crew, Helper
from backbeat.load.file_limit import raise_file_limit
from backbeat.load.processes import cpu_seconds, names, owners
from backbeat.load.report import Report
from backbeat.load.workload import ROWS, Kind, Workload, fitted, scaled
from backbeat.local.project import DEFAULT_PUBLISHABLE_KEY

__all__ = ["bench"]

DEFAULT_PORT: Final = 54321
"""Where `backbeat dev` serves."""

SPARE_FILES: Final = 64
"""Files a process has open besides its sockets."""

MAX_PROCESSES: Final = 4
"""Processes of the client where nobody says how many."""

_KINDS: Final = [kind.value for kind in Kind]

WIDE: Final = 150
"""Columns of a table that goes into a file."""

INTERRUPTED: Final = 130
"""The exit code after Ctrl-C."""


def bench(
    url: str = "http://127.0.0.1:54321",
    *,
    api_key: Annotated[str, Parameter(show_default=False)] = DEFAULT_PUBLISHABLE_KEY,
    seconds: float = 1.0,
    members: int = 1000,
    only: str = "",
    processes: int = 0,
    private: Annotated[bool, Parameter(negative="")] = False,
    token: Annotated[str, Parameter(show_default=False)] = "",
    pid: int = 0,
    baseline: bool = True,
    json: Annotated[bool, Parameter(negative="")] = False,
    yes_load_this_server: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Measure what a server of this protocol can do: ours, a self-hosted Supabase, or any other.

    It opens up to 10,000 sockets and sends as fast as the server takes it. How to read the table is told in
    docs/bench.md.

    Parameters
    ----------
    url
        The URL of the project, of its realtime service, or of the socket itself.
    api_key
        A key of the project; the well-known publishable one of a local project by default.
    seconds
        How long each row is measured, at each of the two servers.
    members
        Members where the table has 1,000; all other rows in proportion.
    only
        What to measure, separated by commas: fanout, topics, heartbeats, joins, latency.
    processes
        Processes that make the load; 0 for one less than there are processors, four at most.
    private
        Join private channels; their policies have to allow it.
    token
        The token of a user, for private channels.
    pid
        The process of the server, where it is not found by its port: its processor time is measured.
    baseline
        Compare with the plainest server there can be, on this machine.
    json
        Print the results as JSON.
    yes_load_this_server
        Load a server that is not on this machine. It takes its bandwidth and its quota.
    """
    if seconds <= 0 or members < 1 or processes < 0:
        raise ConfigurationError("--seconds and --members have to be above 0, and --processes at least 0.")
    endpoint = Endpoint.of(url, vsn="2.0.0")
    local = is_here(endpoint.socket_url)
    if not local and not yes_load_this_server:
        raise ConfigurationError(
            f"{urlsplit(endpoint.socket_url).hostname} is not this machine. This is a load test, which takes "
            "all the bandwidth and quota there is.",
            hint="If the server is yours to load, add --yes-load-this-server.",
        )
    size = processes or min(MAX_PROCESSES, max(1, (os.cpu_count() or 1) - 1))
    rows, notes = plan(members, processes=size, files=raise_file_limit())
    notes += others_are_busy(os.getloadavg()[0], os.cpu_count() or 1)
    report = Report(endpoint.socket_url, notes=notes)
    kinds = kinds_of(only)
    target = Side("server", endpoint.socket(api_key), tuple(pids_of(endpoint.socket_url, pid, local=local)))
    options = Options(rows, kinds, seconds, private, token, start=command_for(endpoint.socket_url))
    _explain(report, target, local=local, baseline=baseline)
    with interruptible():
        run(lambda stop: _until(stop, _measure(options, target, report, size, local and baseline), report))
    _show(report, options.start, as_json=json)
    if report.interrupted:
        sys.exit(INTERRUPTED)
    if not report.complete:
        sys.exit(1)


# Before -----------------------------------------------------------------------------------------------------


def is_here(url: str) -> bool:
    """Whether a server is on this machine: every address of its name is a loopback address.

    Raises:
        StartError: the name has no address.
    """
    host = urlsplit(url).hostname or ""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise StartError(f"There is no host {host}: {error.strerror}.", hint="Check the URL.") from None
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


def command_for(url: str) -> str:
    """The command that starts a server of ours where the URL says."""
    port = urlsplit(url).port
    return "backbeat dev" if port in (None, DEFAULT_PORT) else f"backbeat dev --port {port}"


def kinds_of(only: str) -> frozenset[Kind]:
    """Read which rows are wanted.

    Raises:
        ConfigurationError: one of the words is none of theirs.
    """
    words = [word.strip() for word in only.split(",") if word.strip()]
    unknown = [word for word in words if word not in _KINDS]
    if unknown:
        raise ConfigurationError(
            f"--only does not know {unknown[0]!r}.",
            hint=f"It knows {', '.join(_KINDS)}.",
        )
    return frozenset(map(Kind, words))


def plan(members: int, *, processes: int, files: int) -> tuple[list[Workload], list[str]]:
    """The rows, as large as the limit on open files lets them be, and what is to be said about that.

    Args:
        members: where the table has 1,000.
        processes: how many share the sockets.
        files: how many each of them may have open.
    """
    rows = scaled(ROWS, members)
    room = (files - SPARE_FILES) * processes
    # Where rows are measured in turns, the sockets of two servers are open.
    smaller = [fitted([row], room if row.kind is Kind.TOPICS else room // 2)[0] for row in rows]
    if smaller == rows:
        return rows, []
    note = f"A process may have {files:,} files open here (ulimit -n), so some rows have fewer members."
    return smaller, [note]


def others_are_busy(load: float, processors: int) -> list[str]:
    """What is to be said when other programs take the processors.

    Args:
        load: the load average of the last minute, before anything was measured.
        processors: how many there are.
    """
    if load <= processors:
        return []
    note = (
        f"The load average was {load:.1f} on {processors} processors at first: the figures could be higher."
    )
    return [note]


def pids_of(url: str, pid: int, *, local: bool) -> list[int]:
    """The processes of the server, as far as they are known.

    Raises:
        ConfigurationError: the one that was named is not there.
    """
    parts = urlsplit(url)
    if pid and cpu_seconds([pid]) is None:
        raise ConfigurationError(
            f"There is no process {pid} on this machine, or nothing in /proc to see it by."
        )
    if pid or not local:
        return [pid] if pid else []
    return owners(parts.port or (443 if parts.scheme == "wss" else 80))


def _explain(report: Report, target: Side, *, local: bool, baseline: bool) -> None:
    if not local:
        report.notes.append(
            "No baseline and no ratio: they would compare this machine with the way to another."
        )
    elif not baseline:
        report.notes.append(
            "No baseline: absolute figures tell about this machine as much as about the server."
        )
    known = names(target.pids)
    if known:
        report.notes.append(f"The processor time of the server is that of process {', '.join(known)}.")
    else:
        report.notes.append("The processor time of the server is not known; see --pid.")


# Meanwhile --------------------------------------------------------------------------------------------------


async def _until(stop: asyncio.Event, measuring: Coroutine[Any, Any, None], report: Report) -> None:
    """Measure until it is done, or somebody has had enough."""
    task = asyncio.create_task(measuring)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        if not task.done():
            report.interrupted = True
            task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        if not report.interrupted:
            raise


async def _measure(options: Options, target: Side, report: Report, size: int, compare: bool) -> None:
    """Start the processes, and measure."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )
    bar = progress.add_task("starting", total=1.0)
    async with AsyncExitStack() as stack:
        crew = await stack.enter_async_context(Crew(size))
        baseline = None
        if compare:
            helper = await stack.enter_async_context(Helper("backbeat.load.baseline"))
            baseline = Side(
                "baseline", f"ws://127.0.0.1:{int(await helper.read())}/?vsn=2.0.0", (helper.pid,)
            )
        with progress:

            def told(what: str, part: float) -> None:
                progress.update(bar, description=what, completed=part)

            await Bench(crew, target, baseline, options=options, report=report, progress=told).run()


# Afterwards -------------------------------------------------------------------------------------------------


def _show(report: Report, start: str, *, as_json: bool) -> None:
    """Print the results: to standard output what was measured, and below it what is to be known."""
    remarks = report.remarks(start)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(report.as_json())).decode())  # noqa: T201
    else:
        _print_table(report)
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    for remark in remarks:
        console.print(remark, markup=False)


def _print_table(report: Report) -> None:
    console = Console(highlight=False)
    if not sys.stdout.isatty():
        console.width = WIDE
    table = Table(title=report.url, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("per second")
    for name in ("server", "baseline", "ratio", "per CPU second", "ratio", "client CPU"):
        table.add_column(name, justify="right")
    for row in report.rows:
        table.add_row(*row.cells())
    console.print(table)
