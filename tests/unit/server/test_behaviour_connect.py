"""Who may open a socket, and what everybody else is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from structlog.testing import capture_logs
from tests.unit.server.conftest import SECRET

from backbeat.server.keyring import Keyring
from backbeat.server.limits import LimitSettings
from backbeat.tokens.claims import fingerprint

VERSIONS = pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])


def answer(client: Any) -> tuple[int, str]:
    """The status of a refused upgrade, and the text in its body."""
    head, body = client.response.split(b"\r\n\r\n", 1)
    return int(head.split(b" ", 2)[1]), json.loads(body)["error"]


@VERSIONS
@pytest.mark.parametrize("claim", ["role", "exp"])
async def test_a_key_without_a_required_claim_is_refused(server: Any, vsn: str, claim: str) -> None:
    """A key says which role it stands for, and when it ends."""
    client = server.client(vsn, apikey=server.token(**{claim: None}))
    assert answer(client) == (401, "Fields `role` and `exp` are required in JWT")


async def test_a_key_of_another_project_is_refused(server: Any) -> None:
    """Its signature was made with another secret."""
    client = server.client(apikey=server.token(secret="another secret, of thirty-two bytes"))
    assert answer(client) == (401, "Failed to validate JWT signature")


async def test_a_key_signed_with_what_the_project_lacks_is_refused(server: Any) -> None:
    """A project that has only a secret cannot check an ES256 signature."""
    text = "Failed to generate JWT signer, check your JWT secret or JWKS configuration"
    assert answer(server.client(apikey=es256(server))) == (401, text)


async def test_a_key_that_names_an_unknown_signing_key_is_told_which(server: Any, tmp_path: Path) -> None:
    """The text has the key id, for that is what the operator looks for."""
    path = tmp_path / "jwks.json"
    path.write_text('{"keys":[]}')
    keyring = server.realtime.keyring = Keyring(SECRET, source=str(path))
    await keyring.start()
    try:
        client = server.client(apikey=es256(server, kid="k9"))
    finally:
        await keyring.aclose()
    text = 'Failed to generate JWT signer for key ID (kid) "k9", check your JWT secret or JWKS configuration'
    assert answer(client) == (401, text)


def es256(server: Any, **header: str) -> str:
    """An API key with a signature of a key that nobody published."""
    claims = {"role": "anon", "exp": int(server.clock.now) + 60}
    return jwt.encode(claims, ec.generate_private_key(ec.SECP256R1()), algorithm="ES256", headers=header)


async def test_a_key_that_is_valid_later_is_refused(server: Any) -> None:
    """A key is not believed before its time."""
    client = server.client(apikey=server.token(nbf=int(server.clock.now) + 30))
    assert answer(client) == (401, "Token is not valid yet")


async def test_too_many_connects_in_a_second_are_refused(start: Callable[..., Any]) -> None:
    """429 and not 401: the key is good, the moment is not."""
    server = start(limits=LimitSettings(max_joins_per_second=1))
    answers = [client.response for client in (server.client() for _ in range(10))]
    assert answers[-1].startswith(b"HTTP/1.1 429 ")
    assert json.loads(answers[-1].split(b"\r\n\r\n")[1]) == {"error": "Too many joins per second"}


async def test_a_failure_of_ours_is_answered(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody foresaw is a 500 with a text that tells nothing, and a traceback in the log."""

    def explode(*_: object, **__: object) -> None:
        raise RuntimeError("a typo")

    monkeypatch.setattr(server.realtime, "verify_api_key", explode)
    with capture_logs() as lines:
        client = server.client()
    assert answer(client) == (500, "Error connecting to Realtime")
    assert [line["log_level"] for line in lines] == ["error"]
    assert server.realtime.metrics.handler_failures == 1


@pytest.mark.parametrize("wanted", ["info", "warning", "error", "nonsense"])
async def test_a_wish_for_a_log_level_changes_nothing(server: Any, wanted: str) -> None:
    """Clients may name a log level; what is logged is the operator's choice."""
    assert server.client(apikey=f"sb_publishable_x&log_level={wanted}").response.startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("claims", [{"exp": 5}, {"role": None}, {"secret": "x" * 40}])
async def test_a_refused_key_is_logged_by_its_fingerprint(server: Any, claims: dict[str, Any]) -> None:
    """The operator can tell which key it was, and reads nothing that was in it."""
    key = server.token(sub="somebody", **claims)
    with capture_logs() as lines:
        server.client(apikey=key)
    (line,) = lines
    assert fingerprint(key) in line["hint"]
    assert "somebody" not in str(line)


async def test_a_signing_key_that_is_gone_opens_no_new_socket(server: Any, tmp_path: Path) -> None:
    """An API key that was verified before is verified again when the key set has changed."""
    signing = ec.generate_private_key(ec.SECP256R1())
    public = jwt.algorithms.ECAlgorithm.to_jwk(signing.public_key(), as_dict=True) | {"kid": "k1"}
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [public]}))
    keyring = server.realtime.keyring = Keyring(SECRET, source=str(path))
    await keyring.start()
    claims = {"role": "anon", "exp": int(server.clock.now) + 60}
    key = jwt.encode(claims, signing, algorithm="ES256", headers={"kid": "k1"})
    try:
        assert server.client(apikey=key).response.startswith(b"HTTP/1.1 101 ")
        path.write_text('{"keys":[]}')
        await keyring.refresh()
        assert server.client(apikey=key).response.startswith(b"HTTP/1.1 401 ")
    finally:
        await keyring.aclose()
