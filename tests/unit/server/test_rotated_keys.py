"""A token that names a key the server does not have yet: fetched once, while everything else goes on."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.unit.server.conftest import SECRET, Server

from backbeat.server.keyring import Keyring

ROOM = "realtime:room"


class Issuer:
    """Signs with a key of its own, and publishes it in a file.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kid = "k1"
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.publish()

    def publish(self) -> None:
        """Write the key set."""
        public = jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True) | {"kid": self.kid}
        self.path.write_text(json.dumps({"keys": [public]}))

    def rotate(self, kid: str) -> None:
        """Sign with a new key from now on."""
        self.kid, self.key = kid, ec.generate_private_key(ec.SECP256R1())

    def token(self, server: Server) -> str:
        """Mint a token."""
        claims = {"role": "authenticated", "sub": "u1", "exp": int(server.clock.now) + 60}
        return jwt.encode(claims, self.key, algorithm="ES256", headers={"kid": self.kid})


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    """An issuer with a published key."""
    return Issuer(tmp_path / "jwks.json")


@pytest.fixture
async def server(issuer: Issuer, start: Callable[..., Server]) -> AsyncIterator[Server]:
    """A server that reads the issuer's keys."""
    server = start()
    keyring = Keyring(SECRET, source=str(issuer.path), clock=time.monotonic)
    await keyring.start()
    server.realtime.keyring = keyring
    yield server
    await keyring.aclose()


async def answered(client: Any) -> list[list[Any]]:
    """Wait until something arrives: a file is read in a thread, which takes its time."""
    while not (messages := await client.settled()):
        await asyncio.sleep(0.001)
    return list(messages)


async def test_a_key_of_the_key_set_joins_at_once(server: Server, issuer: Issuer) -> None:
    """Nothing has to be fetched."""
    client = server.client()
    client.join(ROOM, {"access_token": issuer.token(server), "config": {}})
    assert client.messages()[0][4]["status"] == "ok"


async def test_a_new_key_is_fetched_for_the_join_that_names_it(server: Server, issuer: Issuer) -> None:
    """The join waits; heartbeats do not."""
    issuer.rotate("k2")
    issuer.publish()
    client = server.client()
    client.join(ROOM, {"access_token": issuer.token(server), "config": {"private": True}})
    client.push("phoenix", "heartbeat", {}, ref="9", join_ref=None)
    assert [message[1] for message in client.messages()] == ["9"]
    (reply,) = await answered(client)
    assert reply[4]["status"] == "ok"


async def test_a_key_that_nobody_published_is_named(server: Server, issuer: Issuer) -> None:
    """After looking once more, the reason has the key's id."""
    issuer.rotate("k2")
    client = server.client()
    client.join(ROOM, {"access_token": issuer.token(server), "config": {}})
    (reply,) = await answered(client)
    assert reply[4]["response"]["reason"].startswith(
        'JwtSignerError: Failed to generate JWT signer for key ID (kid) "k2"'
    )


async def test_a_new_key_is_fetched_for_the_token_that_is_refreshed(server: Server, issuer: Issuer) -> None:
    """The channel goes on with the new token."""
    client = server.client()
    client.join(
        ROOM, {"access_token": issuer.token(server), "config": {"postgres_changes": [{"table": "songs"}]}}
    )
    await client.settled()
    issuer.rotate("k2")
    issuer.publish()
    client.push(ROOM, "access_token", {"access_token": issuer.token(server)})
    (system,) = await answered(client)
    assert system[4]["status"] == "ok"
