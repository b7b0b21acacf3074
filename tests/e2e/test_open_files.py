"""A server whose open files are used up says so to each client and to its operator, and goes on."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import free_ports

from backbeat.load.file_limit import raise_file_limit

FILES = 150
SOCKETS = 200
PATIENCE = 20.0
COMMAND = [
    str(Path(sys.executable).parent / "backbeat"),
    "serve",
    "--jwt-secret=a secret of at least thirty-two bytes",
    "--database-url=postgresql://nobody@127.0.0.1:1/none",
]
ASK = b"GET /healthcheck HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def status(port: int) -> tuple[int, asyncio.StreamWriter]:
    """Connect, and ask; the status of the answer, and the connection, which stays open if it was served."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(ASK)
    answer = int((await reader.readuntil(b"\r\n")).split()[1])
    if answer != 200:
        writer.close()
    return answer, writer


async def until_served(port: int) -> None:
    """Wait until somebody is answered with 200."""
    while True:
        try:
            answer, writer = await status(port)
        except (OSError, asyncio.IncompleteReadError):
            answer = 0
        else:
            writer.close()
        if answer == 200:
            return
        await asyncio.sleep(0.05)


async def use_up(port: int) -> list[int]:
    """Open more connections than the server may have; what each was answered."""
    async with asyncio.timeout(PATIENCE):
        await until_served(port)
        opened = [await status(port) for _ in range(SOCKETS)]
        for _, writer in opened:
            writer.close()
        await until_served(port)
    return [answer for answer, _ in opened]


def test_who_is_one_too_many_is_answered_and_the_operator_told(tmp_path: Path) -> None:
    """Everybody gets an answer: 200, or 503 with the reason. When some have left, others are served again."""
    assert raise_file_limit() > SOCKETS + 100
    (port,), log = free_ports(1), tmp_path / "log"
    with (
        log.open("w") as told,
        subprocess.Popen(
            [*COMMAND, f"--port={port}"],
            stderr=told,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES)),  # noqa: PLW1509
        ) as server,
    ):
        try:
            answers = asyncio.run(use_up(port))
        finally:
            server.terminate()
    assert set(answers) == {200, 503}
    assert answers.index(503) == answers.count(200)
    text = log.read_text()
    assert text.count("too few open files") == 1
    assert "Traceback" not in text
