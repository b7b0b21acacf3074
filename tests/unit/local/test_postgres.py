"""The embedded Postgres: what it decides before it starts anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from backbeat.local import postgres as module
from backbeat.local.postgres import EmbeddedPostgres

NOT_OURS = module._Account(uid=4_000_001, gid=4_000_001)


def test_the_url_of_the_defaults() -> None:
    """The documented URL comes out of the documented settings."""
    server = EmbeddedPostgres(Path("data"), port=54322, password="postgres")
    assert server.url == "postgresql://postgres:postgres@127.0.0.1:54322/postgres"


def test_the_url_quotes_the_password() -> None:
    """A password may hold characters that mean something in a URL."""
    server = EmbeddedPostgres(Path("data"), port=1, password="a/b@c:d é%")
    assert server.url == "postgresql://postgres:a%2Fb%40c%3Ad%20%C3%A9%25@127.0.0.1:1/postgres"


def test_the_url_of_an_ipv6_address() -> None:
    """An address with colons stands in brackets."""
    server = EmbeddedPostgres(Path("data"), port=1, password="x", host="::1")
    assert server.url == "postgresql://postgres:x@[::1]:1/postgres"


def test_a_repr_without_the_password() -> None:
    """Whoever prints a server does not print its password."""
    assert "s3cret" not in repr(EmbeddedPostgres(Path("data"), port=1, password="s3cret"))


@pytest.mark.parametrize("password", ["", "two\nlines"])
def test_a_password_initdb_would_cut(password: str) -> None:
    """A password that is not one line, of which initdb reads the first, is refused."""
    with pytest.raises(ValueError, match="one line"):
        EmbeddedPostgres(Path("data"), port=1, password=password)


def test_another_user_is_stopped_by_one_private_folder(tmp_path: Path) -> None:
    """One folder without x for others is enough to make what is below it unreachable."""
    inner = tmp_path / "private" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "private").chmod(0o700)
    assert not NOT_OURS.can_reach(inner)


def test_another_user_reaches_the_programs_of_the_system() -> None:
    """Folders and programs open to all are reachable."""
    assert NOT_OURS.can_reach(Path("/usr/bin/env").resolve())


def test_two_data_folders_have_two_fallbacks() -> None:
    """Folders with the same name in different projects do not share a cluster."""
    one, two = Path("/root/one/rockon/.backbeat"), Path("/root/two/rockon/.backbeat")
    assert module._fallback_home(one) != module._fallback_home(two)


def test_a_fallback_is_named_after_the_project() -> None:
    """People recognise whose data it is."""
    assert module._fallback_home(Path("/root/Rock On!/.backbeat")).name.startswith("rock-on-")


@pytest.mark.parametrize("text", ["", "not a number\n", "\n\n\n"])
def test_a_garbled_pid_file_names_nobody(tmp_path: Path, text: str) -> None:
    """A pid file that was cut off by a crash is as good as none."""
    (tmp_path / "postmaster.pid").write_text(text)
    assert module._read_pid_file(tmp_path) is None


def test_a_short_pid_file_is_that_of_a_starting_server(tmp_path: Path) -> None:
    """Postgres writes the status last."""
    (tmp_path / "postmaster.pid").write_text("4711\n/data\n")
    assert module._read_pid_file(tmp_path) == module._Server(4711, "starting")
