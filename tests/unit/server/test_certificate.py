"""The certificate of the port, and what is said when it cannot be used."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from tests.certificates import certificate

from backbeat.cli import app
from backbeat.errors import ConfigurationError, StartError
from backbeat.server.certificate import Certificate


def test_without_files_there_is_no_tls() -> None:
    """The port speaks plain HTTP."""
    assert Certificate.of(None, None) is None


def test_a_certificate_and_its_key_are_read(tmp_path: Path) -> None:
    """And HTTP/1.1 is all that is offered: there is no HTTP/2 behind it."""
    context = Certificate(*certificate(tmp_path)).context
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_tls_1_1_is_refused(tmp_path: Path) -> None:
    """With the alert `protocol_version` (RFC 8446, appendix D)."""
    context = Certificate(*certificate(tmp_path)).context
    hello = b"\x03\x02" + bytes(32) + b"\x00" + b"\x00\x04\xc0\x0a\x00\x2f" + b"\x01\x00"
    handshake = b"\x01" + len(hello).to_bytes(3, "big") + hello
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    received.write(b"\x16\x03\x01" + len(handshake).to_bytes(2, "big") + handshake)
    with pytest.raises(ssl.SSLError, match=r"(?i)unsupported.protocol"):
        context.wrap_bio(received, sent, server_side=True).do_handshake()
    assert sent.read()[-2:] == b"\x02\x46"


@pytest.mark.parametrize(("given", "missing"), [("cert", "--tls-key"), ("key", "--tls-cert")])
def test_one_without_the_other_is_refused(tmp_path: Path, given: str, missing: str) -> None:
    """The flag that is missing is named."""
    cert, key = certificate(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        Certificate.of(cert if given == "cert" else None, key if given == "key" else None)
    assert missing in caught.value.hint


@pytest.mark.parametrize(("wrong", "flag"), [(0, "--tls-cert"), (1, "--tls-key")])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, wrong: int, flag: str) -> None:
    """With its flag."""
    paths = list(certificate(tmp_path))
    paths[wrong] = tmp_path / "missing.pem"
    with pytest.raises(StartError, match=r"missing\.pem: No such file") as caught:
        Certificate(*paths)
    assert flag in caught.value.hint


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    """Both files are named."""
    (tmp_path / "other").mkdir()
    cert, _ = certificate(tmp_path)
    _, key = certificate(tmp_path / "other")
    with pytest.raises(StartError, match="was not made for the key") as caught:
        Certificate(cert, key)
    assert "--tls-key" in caught.value.hint


def test_files_that_are_something_else_are_refused(tmp_path: Path) -> None:
    """A certificate is no key."""
    cert, _ = certificate(tmp_path)
    with pytest.raises(StartError, match="are no certificate and key") as caught:
        Certificate(cert, cert)
    assert "PEM" in caught.value.hint


def test_a_key_with_a_password_is_refused(tmp_path: Path) -> None:
    """Nobody is there to type it, and OpenSSL would ask the terminal."""
    with pytest.raises(StartError, match="protected by a password"):
        Certificate(*certificate(tmp_path, password=b"hush"))


def test_a_renewed_certificate_is_read(tmp_path: Path) -> None:
    """Once, for handshakes from then on."""
    read = Certificate(*certificate(tmp_path))
    before = read.context
    assert not read.refresh()
    certificate(tmp_path)
    assert read.refresh()
    assert read.context is not before
    assert not read.refresh()


def test_of_a_renewal_that_is_wrong_the_old_certificate_stays(tmp_path: Path) -> None:
    """Such as one whose key comes a moment later; then it is right."""
    cert, key = certificate(tmp_path)
    read = Certificate(cert, key)
    before = read.context
    (tmp_path / "new").mkdir()
    new_cert, new_key = certificate(tmp_path / "new")
    new_cert.replace(cert)
    with pytest.raises(StartError, match="was not made for the key"):
        read.refresh()
    assert read.context is before
    new_key.replace(key)
    assert read.refresh()


async def test_who_runs_the_server_is_told_of_renewals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that fail, with what to do, and those that do not."""
    monkeypatch.setattr("backbeat.server.certificate.LOOK_INTERVAL", 0.001)
    cert, _ = certificate(tmp_path)
    read = Certificate(*certificate(tmp_path))
    with structlog.testing.capture_logs() as logs:
        following = asyncio.create_task(read.follow())
        cert.unlink()
        await until(lambda: logs)
        certificate(tmp_path)
        await until(lambda: logs[-1]["event"] == "certificate renewed")
        following.cancel()
    assert logs[0]["event"] == "certificate not renewed"
    assert "--tls-cert" in logs[0]["hint"]


async def until(seen: Callable[[], object]) -> None:
    """Wait until something was seen."""
    async with asyncio.timeout(10):
        while not seen():
            await asyncio.sleep(0.001)


def test_serve_reads_the_certificate_before_anything_starts(tmp_path: Path) -> None:
    """Neither port nor database is touched."""
    command = ["serve", "--database-url", "postgresql://127.0.0.1:1/x", "--jwt-secret", "s" * 32]
    with pytest.raises(StartError, match="Cannot read"):
        app([*command, "--tls-cert", str(tmp_path / "none"), "--tls-key", str(tmp_path / "none")])
