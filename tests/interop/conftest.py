"""Other people's clients, unmodified, against the installed command, with somebody to cut the wire."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

import psycopg
import pytest
from tests.e2e.conftest import Program, free_ports

from backbeat.tokens.keys import ApiKeys
from backbeat.tokens.verifier import sign

HERE = Path(__file__).parent
NODE: Final = ("node", str(HERE / "supabase_js" / "play.mjs"))
PYTHON: Final = (str(HERE / ".venv" / "bin" / "python"), str(HERE / "realtime_py" / "play.py"))

PATIENCE: Final = 25.0
"""Seconds after which a script is killed that should have given up by itself, and said why, after 18."""

SECRET = "super-secret-jwt-token-with-at-least-32-characters-long"
PUBLISHABLE = "sb_publishable_ACJWlzQHlZjBrEguHvfOxg_3BJgxAaH"


class Wire:
    """A way to the server that can break.

    Args:
        port: where the server is.
    """

    def __init__(self, port: int) -> None:
        self.port = 0
        self._server_port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wire", daemon=True)
        self._ends: set[asyncio.StreamWriter] = set()
        self._frozen: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Break every connection."""
        self._run(self._cut())

    def freeze(self) -> None:
        """Let nothing more through on the connections there are; new ones work."""
        self._run(self._freeze())

    def _run(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._cut()
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))

    async def _cut(self) -> None:
        for end in self._ends:
            end.transport.abort()

    async def _freeze(self) -> None:
        self._frozen |= self._ends

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends.add(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            self._hang_up(writer)
            return
        self._ends.add(far_writer)
        await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                if writer not in self._frozen:
                    writer.write(data)
                    await writer.drain()
        except OSError:
            pass
        finally:
            self._hang_up(writer)

    def _hang_up(self, writer: asyncio.StreamWriter) -> None:
        self._ends.discard(writer)
        self._frozen.discard(writer)
        writer.close()


class Stage:
    """A project, the wire to it, and what a script may ask for; `notes` is what scripts had to say.

    Args:
        project: `backbeat dev`.
        wire: the way to it.
        database_url: its database, as the owner.

    Attributes:
        url: where clients find it.
        key: the key they come with.
    """

    def __init__(self, project: Program, wire: Wire, database_url: str) -> None:
        self._project = project
        self._database_url = database_url
        self.notes: list[object] = []
        self.url = f"http://127.0.0.1:{wire.port}"
        self.key = PUBLISHABLE
        self._actions: dict[str, Callable[..., object]] = {
            "sql": self._sql,
            "token": self._token,
            "cut": wire.cut,
            "freeze": wire.freeze,
            "restart": self._restart,
            "note": self.notes.append,
        }

    def _sql(self, statement: str) -> None:
        with psycopg.connect(self._database_url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def _token(self, claims: dict[str, Any], seconds: int) -> str:
        return sign(claims | {"exp": int(time.time()) + seconds}, SECRET)

    def _restart(self) -> None:
        self._project.stop()
        self._project.start()

    def play(self, command: Sequence[str], scenario: str, **context: object) -> None:
        """Run a script that plays a scenario, do what it asks for, and fail with what it prints.

        Args:
            command: the script.
            scenario: which one.
            context: what the script has to know besides where the server is.
        """
        keys = ApiKeys.of(SECRET)
        context |= {
            "url": self.url,
            "key": self.key,
            "anon": keys.anon,
            "service": keys.service,
        }
        printed: list[str] = []
        seen = len(self._project.lines)
        with subprocess.Popen(
            [*command, scenario, json.dumps(context)],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            killer = threading.Timer(PATIENCE, process.kill)
            killer.start()
            try:
                assert process.stdin is not None
                assert process.stdout is not None
                for line in process.stdout:
                    if not line.startswith('{"ask"'):
                        printed.append(line)
                        continue
                    request = json.loads(line)
                    answer = self._actions[request["ask"]](*request["with"])
                    process.stdin.write(json.dumps({"answer": answer}) + "\n")
                    process.stdin.flush()
            finally:
                killer.cancel()
        if process.returncode != 0:
            server = "".join(self._project.lines[seen:][-40:])
            pytest.fail(f"{scenario}: {''.join(printed)}--- what the server printed\n{server}", pytrace=False)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """A project of this module's own. Its database outlives a restart."""
    folder = Path(tempfile.mkdtemp(prefix="backbeat-test-"))
    port, database_port = free_ports(2)
    command = [Path(sys.executable).parent / "backbeat", "dev", "--port", port, "--db-port", database_port]
    command += ["--data", folder / "data", "--seed", HERE / "schema.sql"]
    database_url = f"postgresql://postgres:postgres@127.0.0.1:{database_port}/postgres"
    try:
        with (
            Program([str(part) for part in command], ready="Stop it with Ctrl-C") as project,
            Wire(port) as wire,
        ):
            yield Stage(project, wire, database_url)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
