"""The short way to verify a token says the same as the long one."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbeat.errors import TokenRefused
from backbeat.protocol import reasons
from backbeat.tokens import verifier as module
from backbeat.tokens.shared_key import SharedKey
from backbeat.tokens.verifier import Verifier, sign

SECRET = "a secret of at least thirty-two bytes"
CLAIMS = {"role": "authenticated", "sub": "eric", "exp": 2000}
NOW = 1000.0


def verdict(verifier: Verifier, token: str) -> object:
    """The claims, or the code of the refusal."""
    try:
        return verifier.verify(token, now=NOW).claims
    except TokenRefused as refusal:
        return refusal.code


def short() -> Verifier:
    """A verifier that knows the header of our tokens."""
    verifier = Verifier(SECRET)
    verifier.verify(sign(CLAIMS, SECRET), now=NOW)
    return verifier


def part(value: object) -> str:
    """A part of a token."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@given(st.data())
def test_a_damaged_token_gets_the_verdict_it_always_got(data: st.DataObject) -> None:
    """Whatever is done to a token, knowing its header changes no verdict."""
    token = list(sign(CLAIMS, SECRET))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(token) - 1))
        token[at : at + data.draw(st.integers(0, 2))] = data.draw(st.text("aZ0-_+/=. %é", max_size=2))
    text = "".join(token)
    assert verdict(short(), text) == verdict(Verifier(SECRET), text)


def test_a_known_header_is_verified_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second token of an issuer takes the short way."""
    verifier = short()
    monkeypatch.setattr(module, "_JWS", None)
    assert verifier.verify(sign({**CLAIMS, "sub": "mike"}, SECRET), now=NOW).claims.sub == "mike"


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_every_shared_algorithm_has_its_digest(algorithm: str) -> None:
    """What PyJWT signs, the short way accepts."""
    key = b"k" * 64
    token = jwt.encode(CLAIMS, key, algorithm=algorithm)
    payload = SharedKey(key, algorithm).payload(token)
    assert payload is not None
    assert json.loads(payload) == CLAIMS


def test_a_token_of_another_key_is_refused() -> None:
    """The header may be known; the signature decides."""
    assert verdict(short(), sign(CLAIMS, SECRET + "?")) == reasons.TOKEN_SIGNATURE.code


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "HS256", "crit": ["exp"], "exp": 1},
        {"alg": "HS256", "b64": False},
        {"alg": "RS256"},
        {"alg": "none"},
        {"alg": ["HS256"]},
        {},
    ],
)
def test_a_header_that_asks_for_more_takes_the_long_way(header: dict[str, Any]) -> None:
    """Extensions change what is signed, or what has to be understood."""
    assert not SharedKey.suits(header)


def test_text_that_is_no_base64_url_is_not_decoded() -> None:
    """A signer that uses the other alphabet is left to the library."""
    signed = f"{part({'alg': 'HS256'})}.+/+/"
    signature = SharedKey(SECRET.encode(), "HS256")
    expected = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(
        signed.encode(), SECRET.encode()
    )
    token = f"{signed}.{base64.urlsafe_b64encode(expected).decode().rstrip('=')}"
    assert signature.payload(token) is None


def test_strangers_cannot_fill_what_is_remembered() -> None:
    """Only headers of tokens that were signed with the key are remembered."""
    verifier = Verifier(SECRET)
    for number in range(10):
        verdict(verifier, f"{part({'alg': 'HS256', 'kid': str(number)})}.{part(CLAIMS)}.AAAA")
    assert not verifier._shared_keys
