"""The installed commands, as people run them: what they print, how they fail, and what they leave behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import websockets.exceptions
import websockets.sync.client
from tests.certificates import certificate
from tests.e2e.conftest import BACKBEAT, Dev, Program, free_ports
from websockets.typing import Origin

from backbeat.local.postgres import EmbeddedPostgres

ANON = "sb_publishable_ACJWlzQHlZjBrEguHvfOxg_3BJgxAaH"
SECRET = "super-secret-jwt-token-with-at-least-32-characters-long"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command that is expected to end by itself."""
    return subprocess.run(
        [BACKBEAT, *arguments],
        env=os.environ | environment,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def children(pid: int) -> list[psutil.Process]:
    """A process and everything below it."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def call(url: str, path: str, body: object = None, **headers: str) -> object:
    """Call an HTTP endpoint of the project."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(  # noqa: S310 - loopback
        url + path, data, {"apikey": ANON, "content-type": "application/json"} | headers
    )
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
        text = response.read()
    return json.loads(text) if text else None


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.fixture(scope="module")
def other_postgres() -> Iterator[EmbeddedPostgres]:
    """A Postgres that was there before."""
    with EmbeddedPostgres.ephemeral() as postgres:
        yield postgres


def test_a_project_is_usable_at_once(folder: Path) -> None:
    """A table made over SQL is there over REST, with the keys of the documentation, and sign-up works."""
    with Dev("--data", str(folder / "data")) as dev:
        with psycopg.connect(dev.database_url, autocommit=True) as database:
            database.execute("create table notes (id int primary key, body text)")
        call(dev.url, "/rest/v1/notes", {"id": 1, "body": "hello"})
        assert call(dev.url, "/rest/v1/notes?select=body") == [{"body": "hello"}]
        session = call(dev.url, "/auth/v1/signup", {"email": "ada@example.com", "password": "correct horse"})
        assert isinstance(session, dict)
        assert session["user"]["email"] == "ada@example.com"
        for fact in (dev.url, dev.database_url, ANON, SECRET):
            assert fact in dev.output


def test_localhost_reaches_the_project_over_both_address_families(folder: Path) -> None:
    """Some clients resolve `localhost` to `::1` first."""
    with Dev("--data", str(folder / "data")) as dev:
        hosts = ["127.0.0.1", "localhost"] + (["[::1]"] if socket.has_ipv6 else [])
        for host in hosts:
            assert call(f"http://{host}:{dev.port}", "/ready")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_signal_leaves_nothing_running(folder: Path, number: signal.Signals) -> None:
    """Ctrl-C, a service manager and a closed terminal end everything in good order."""
    with Dev("--data", str(folder / "data")) as dev:
        family = children(dev.pid)
        assert len(family) > 2
        assert dev.stop(number) == 0
    gone, alive = psutil.wait_procs(family, timeout=10)
    assert gone
    assert alive == []


def test_a_killed_parent_leaves_nothing_running(folder: Path) -> None:
    """After `kill -9` Postgres goes too, and the next start finds its data."""
    dev = Dev("--data", str(folder / "data"))
    with dev:
        with psycopg.connect(dev.database_url, autocommit=True) as database:
            database.execute("create table kept (id int)")
        family = children(dev.pid)
        dev.stop(signal.SIGKILL)
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []
    with dev, psycopg.connect(dev.database_url) as database:
        database.execute("select from kept")


def test_an_ephemeral_project_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder is gone afterwards, and none was made here."""
    monkeypatch.setenv("TMPDIR", "/tmp")  # noqa: S108 - where a database running as another user can reach it
    before = set(Path("/tmp").glob("backbeat-*"))  # noqa: S108
    with Dev("--ephemeral"):
        made = set(Path("/tmp").glob("backbeat-*")) - before  # noqa: S108
        assert made
    assert not any(folder.exists() for folder in made)
    assert list(tmp_path.iterdir()) == []


def test_a_taken_port_is_one_clear_message(folder: Path, taken_port: int) -> None:
    """Which port, and which flag chooses another; nothing was started."""
    ended = run("dev", "--data", str(folder / "data"), "--port", str(taken_port), "--db-port", "0")
    assert ended.returncode == 1
    assert f"Port {taken_port} on 127.0.0.1 is taken." in ended.stderr
    assert "--port" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (folder / "data").exists()


def test_a_taken_database_port_is_one_clear_message(folder: Path, taken_port: int) -> None:
    """The same for Postgres, and its own flag."""
    ended = run("dev", "--data", str(folder / "data"), "--port", "0", "--db-port", str(taken_port))
    assert ended.returncode == 1
    assert str(taken_port) in ended.stderr
    assert "--db-port" in ended.stderr


def test_a_seed_with_an_error_is_one_clear_message(folder: Path) -> None:
    """The file, the line and what Postgres says; nothing of it is kept."""
    seed = folder / "seed.sql"
    seed.write_text("create table good (id int);\n\ncreate tabel bad (id int);\n")
    arguments = ("--data", str(folder / "data"), "--port", "0", "--db-port", "0", "--seed", str(seed))
    ended = run("dev", *arguments)
    assert ended.returncode == 1
    assert f"The seed file {seed} has an error, line 3: " in ended.stderr
    assert 'syntax error at or near "tabel"' in ended.stderr
    seed.write_text("create table good (id int);")
    with Dev("--data", str(folder / "data"), "--seed", str(seed)) as dev:
        assert call(dev.url, "/rest/v1/good") == []


def test_a_missing_seed_is_one_clear_message(folder: Path) -> None:
    """Before anything is started."""
    ended = run("dev", "--data", str(folder / "data"), "--seed", str(folder / "nope.sql"))
    assert (ended.returncode, "Cannot read the seed file" in ended.stderr) == (1, True)


def test_a_seed_runs_once_for_each_version_of_it(folder: Path) -> None:
    """Starting again does not plant it again; changing it does."""
    seed = folder / "seed.sql"
    seed.write_text("create table if not exists t (v int); insert into t values (1);")
    dev = Dev("--data", str(folder / "data"), "--seed", str(seed))
    for expected in ([{"v": 1}], [{"v": 1}], [{"v": 1}, {"v": 2}]):
        if len(expected) == 2:
            seed.write_text("insert into t values (2);")
        with dev:
            assert call(dev.url, "/rest/v1/t?order=v") == expected


def test_an_existing_database_can_be_used(other_postgres: EmbeddedPostgres) -> None:
    """`--database-url` starts no Postgres; the one that is there gets all it needs, and is left running."""
    with Dev("--database-url", other_postgres.url) as dev:
        assert len(children(dev.pid)) == 1
        assert is_ready(dev.url)
        assert "postgres:postgres@" not in dev.output
    with psycopg.connect(other_postgres.url) as database:
        database.execute("select from realtime.messages")


def test_a_database_without_logical_wal_is_refused() -> None:
    """What is wrong, and the statement that mends it."""
    with EmbeddedPostgres.ephemeral() as postgres:
        postgres.stop()
        postgres._settings = postgres._settings | {"wal_level": "replica"}
        postgres.start()
        ended = run("dev", "--port", "0", "--database-url", postgres.url)
    assert ended.returncode == 1
    assert "wal_level = replica" in ended.stderr
    assert "alter system set wal_level = logical" in ended.stderr


def test_a_database_that_is_not_there_is_refused() -> None:
    """One message, and what to check."""
    ended = run("dev", "--port", "0", "--database-url", "postgresql://a:secret@127.0.0.1:1/none")
    assert (ended.returncode, "Cannot connect to the database" in ended.stderr) == (1, True)
    assert "secret" not in ended.stderr


def test_a_short_secret_is_refused() -> None:
    """It is named, and so is the flag."""
    ended = run("serve", "--database-url", "postgresql://x", BACKBEAT_JWT_SECRET="short")
    assert ended.returncode == 1
    assert "JWT secret is shorter than 32 bytes" in ended.stderr


def test_help_names_every_flag() -> None:
    """`backbeat serve --help` is complete."""
    ended = run("serve", "--help", COLUMNS="200")
    assert ended.returncode == 0
    for flag in ("--database-url", "--jwt-secret", "--host", "--port", "--explain", "--publication"):
        assert flag in ended.stdout


def test_serve_faces_the_internet_by_itself(tmp_path: Path) -> None:
    """HTTPS and wss with a certificate, for the pages on a list; without a database, public channels work."""
    cert, key = certificate(tmp_path)
    (port,) = free_ports(1)
    command = [BACKBEAT, "serve", "--database-url", "postgresql://x@127.0.0.1:1/x", "--jwt-secret", SECRET]
    more = ["--publishable-key", ANON, "--port", str(port), "--tls-cert", str(cert), "--tls-key", str(key)]
    trusting = ssl.create_default_context(cafile=cert)
    where = f"wss://localhost:{port}/realtime/v1/websocket?apikey={ANON}&vsn=2.0.0"
    command += [*more, "--allowed-origins", "https://app.example.com,https://*.example.org"]
    with Program(command, ready=f"https://127.0.0.1:{port}"):
        for origin in ("https://app.example.com", "https://www.example.org"):
            with websockets.sync.client.connect(where, ssl=trusting, origin=Origin(origin)) as page:
                page.send('[null,"1","phoenix","heartbeat",{}]')
                assert json.loads(page.recv(timeout=10))[4]["status"] == "ok"
        with pytest.raises(websockets.exceptions.InvalidStatus, match="403"):
            websockets.sync.client.connect(where, ssl=trusting, origin=Origin("https://evil.example"))


def test_migrate_and_serve_beside_an_existing_database(other_postgres: EmbeddedPostgres) -> None:
    """`migrate` prepares the database and the login; `serve` runs realtime alone as that login."""
    for _ in range(2):
        migrated = run("migrate", "--database-url", other_postgres.url, "--login-password", "p w")
        assert migrated.returncode == 0, migrated.stderr
    (port,) = free_ports(1)
    login = other_postgres.url.replace("postgres:postgres@", "backbeat:p%20w@")
    command = [BACKBEAT, "serve", "--database-url", login, "--jwt-secret", SECRET, "--port", str(port)]
    with Program(command, ready="serving") as server:
        wait_for(lambda: is_ready(f"http://127.0.0.1:{port}"))
        with pytest.raises(urllib.error.HTTPError, match="404"):
            call(f"http://127.0.0.1:{port}", "/rest/v1/notes")
        assert SECRET not in server.output


def is_ready(url: str) -> bool:
    """Whether everything of a server works, the replication stream included."""
    try:
        answer = call(url, "/ready")
    except urllib.error.HTTPError as error:
        error.close()
        return False
    return isinstance(answer, dict) and answer["ready"] is True


def wait_for(question: Callable[[], bool]) -> None:
    """Ask until the answer is yes."""
    deadline = time.monotonic() + 20
    while not question():
        assert time.monotonic() < deadline
        time.sleep(0.05)
