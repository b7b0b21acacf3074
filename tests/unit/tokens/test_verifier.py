"""Which tokens a project believes."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from backbeat.errors import Refusal, Retry
from backbeat.tokens.claims import TokenSource, fingerprint
from backbeat.tokens.verifier import MAX_TOKEN_BYTES, Verifier, sign

SECRET = "a secret of at least thirty-two bytes"
NOW = 1_700_000_000.0
CLAIMS: dict[str, Any] = {"role": "authenticated", "sub": "u1", "exp": int(NOW) + 60}


def refused(token: str, verifier: Verifier | None = None) -> Refusal:
    """The refusal of a token."""
    with pytest.raises(Refusal) as caught:
        (verifier or Verifier(SECRET)).verify(token, now=NOW)
    return caught.value


def unsigned(header: dict[str, Any], payload: Any) -> str:
    """A token that nobody signed."""
    parts = [json.dumps(part).encode() for part in (header, payload)]
    return ".".join([base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts] + [""])


def test_a_good_token_says_who_asks() -> None:
    """A token signed with the project's secret yields its claims."""
    token = Verifier(SECRET).verify(sign(CLAIMS, SECRET), now=NOW)
    assert (token.claims.role, token.claims.sub, token.claims.exp) == ("authenticated", "u1", NOW + 60)


def test_policies_see_every_claim() -> None:
    """The claims handed to policies are those of the token, unknown ones included."""
    token = Verifier(SECRET).verify(sign(CLAIMS | {"org": {"id": 7}}, SECRET), now=NOW)
    assert json.loads(token.claims.json) == CLAIMS | {"org": {"id": 7}}


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_every_hmac_algorithm_is_accepted(algorithm: str) -> None:
    """HS256, HS384 and HS512 are checked with the secret."""
    secret = SECRET * 3
    token = jwt.encode(CLAIMS, secret, algorithm=algorithm)
    assert Verifier(secret).verify(token, now=NOW).claims.sub == "u1"


def test_fractional_expiry_is_accepted() -> None:
    """Some issuers write times with a fraction."""
    assert Verifier(SECRET).verify(sign(CLAIMS | {"exp": NOW + 0.5}, SECRET), now=NOW).claims.exp == NOW + 0.5


def test_whitespace_and_percent_encoding_are_undone() -> None:
    """What a terminal or a URL does to a token does not matter."""
    token = sign(CLAIMS, SECRET).replace(".", "%2E", 1)
    assert Verifier(SECRET).verify(f" {token[:20]}\n{token[20:]} ", now=NOW).claims.sub == "u1"


def test_expired_tokens_say_for_how_long() -> None:
    """An expired token is refused with the exact text, and can be refreshed."""
    error = refused(sign(CLAIMS | {"exp": int(NOW) - 12}, SECRET))
    assert (error.reason, error.retry) == ("InvalidJWTToken: Token has expired 12 seconds ago", Retry.REFRESH)


def test_a_token_that_ends_now_has_expired() -> None:
    """`exp` is the first moment at which a token is no longer good (RFC 7519, section 4.1.4)."""
    assert refused(sign(CLAIMS | {"exp": int(NOW)}, SECRET)).code == "InvalidJWTToken"


@pytest.mark.parametrize("missing", ["role", "exp"])
def test_role_and_expiry_are_required(missing: str) -> None:
    """A token without a role, or without an end, is refused."""
    claims = {name: value for name, value in CLAIMS.items() if name != missing}
    assert refused(sign(claims, SECRET)).message == "Fields `role` and `exp` are required in JWT"


def test_a_future_token_is_not_valid_yet() -> None:
    """`nbf` in the future is refused, and the hint speaks of clocks."""
    error = refused(sign(CLAIMS | {"nbf": int(NOW) + 5}, SECRET))
    assert error.code == "InvalidJWTToken"
    assert "clock" in error.hint


@pytest.mark.parametrize("claim", ["exp", "iat", "nbf"])
def test_times_are_numbers(claim: str) -> None:
    """A time written as text makes the token malformed."""
    assert refused(unsigned_but_signed(CLAIMS | {claim: "1700000060"})).code == "MalformedJWT"


def unsigned_but_signed(claims: dict[str, Any]) -> str:
    """Sign a payload without the checks a JWT library makes."""
    return jwt.api_jws.encode(json.dumps(claims).encode(), SECRET, algorithm="HS256")


@pytest.mark.parametrize(
    "token", ["", "null", "a.b", "a.b.c", "sb_publishable_x", "ü.ü.ü", "[object Object]"]
)
def test_garbage_is_malformed(token: str) -> None:
    """What is no JWT at all is called so."""
    assert refused(token).reason == "MalformedJWT: The token provided is not a valid JWT"


def test_a_payload_that_is_no_object_is_malformed() -> None:
    """A signature over a list does not make it claims."""
    assert refused(jwt.api_jws.encode(b"[1]", SECRET, algorithm="HS256")).code == "MalformedJWT"


def test_oversized_tokens_are_refused_before_any_cryptography() -> None:
    """Nobody makes us hash megabytes."""
    assert refused(sign(CLAIMS | {"pad": "x" * MAX_TOKEN_BYTES}, SECRET)).code == "MalformedJWT"


def test_another_secret_is_a_signature_error() -> None:
    """A token of another project is told apart from garbage."""
    error = refused(sign(CLAIMS, SECRET + "!"))
    assert error.reason == "JwtSignatureError: Failed to validate JWT signature"


def test_unsigned_tokens_are_refused() -> None:
    """`alg: none` is never accepted."""
    assert refused(unsigned({"alg": "none", "typ": "JWT"}, CLAIMS)).code == "JwtSignerError"


def test_a_public_key_is_no_shared_secret() -> None:
    """Algorithm confusion: an HS256 token keyed with a public RSA key does not pass for that key's RS256."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    jwk = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": "k1"}
    forged = jwt.encode(CLAIMS, jwk["n"], algorithm="HS256", headers={"kid": "k1"})
    assert refused(forged, Verifier(SECRET, {"keys": [jwk]})).code == "JwtSignatureError"


def key_pairs() -> list[tuple[str, Any, dict[str, Any]]]:
    """One key for each asymmetric family: its algorithm, its private half, its public JWK."""
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    ec_key = ec.generate_private_key(ec.SECP256R1())
    ed_key = ed25519.Ed25519PrivateKey.generate()
    return [
        ("RS256", rsa_key, jwt.algorithms.RSAAlgorithm.to_jwk(rsa_key.public_key(), as_dict=True)),
        ("ES256", ec_key, jwt.algorithms.ECAlgorithm.to_jwk(ec_key.public_key(), as_dict=True)),
        ("EdDSA", ed_key, jwt.algorithms.OKPAlgorithm.to_jwk(ed_key.public_key(), as_dict=True)),
    ]


@pytest.mark.parametrize(("algorithm", "key", "jwk"), key_pairs(), ids=["rsa", "ec", "okp"])
def test_keys_of_the_key_set_verify(algorithm: str, key: Any, jwk: dict[str, Any]) -> None:
    """RS256, ES256 and EdDSA tokens are checked with the key that has their `kid`."""
    token = jwt.encode(CLAIMS, key, algorithm=algorithm, headers={"kid": "k1"})
    assert Verifier(SECRET, {"keys": [jwk | {"kid": "k1"}]}).verify(token, now=NOW).claims.sub == "u1"


@pytest.mark.parametrize(("algorithm", "key", "jwk"), key_pairs(), ids=["rsa", "ec", "okp"])
def test_an_unknown_key_id_is_named(algorithm: str, key: Any, jwk: dict[str, Any]) -> None:
    """A `kid` that the key set does not have is in the text."""
    token = jwt.encode(CLAIMS, key, algorithm=algorithm, headers={"kid": "gone"})
    error = refused(token, Verifier(SECRET, {"keys": [jwk | {"kid": "k1"}]}))
    assert '(kid) "gone"' in error.message


def test_a_shared_key_of_the_key_set_verifies() -> None:
    """An `oct` key with the token's `kid` comes before the project secret."""
    shared = b"another secret of thirty-two bytes"
    jwk = {"kty": "oct", "kid": "k1", "k": base64.urlsafe_b64encode(shared).rstrip(b"=").decode()}
    token = jwt.encode(CLAIMS, shared, algorithm="HS256", headers={"kid": "k1"})
    assert Verifier(SECRET, {"keys": [jwk]}).verify(token, now=NOW).claims.sub == "u1"


def test_an_hmac_token_with_an_unknown_key_id_falls_back_to_the_secret() -> None:
    """Old tokens name keys that were never in a key set."""
    token = jwt.encode(CLAIMS, SECRET, algorithm="HS256", headers={"kid": "old"})
    assert Verifier(SECRET).verify(token, now=NOW).claims.sub == "u1"


def test_a_token_is_never_shown() -> None:
    """Neither `repr` nor the description of a token tells the token; its fingerprint names it."""
    value = sign(CLAIMS, SECRET)
    token = Verifier(SECRET).verify(value, now=NOW, source=TokenSource.USER)
    shown = repr(token) + token.describe(NOW)
    assert value not in shown
    assert "u1" not in token.describe(NOW)
    assert f"user token {fingerprint(value)} (role authenticated, a user, expires in 60 s)" in shown


def test_a_refused_token_is_named_by_its_fingerprint() -> None:
    """The hint says which token was refused and where it came from, without telling it."""
    value = sign(CLAIMS | {"exp": 1}, SECRET)
    error = refused(value)
    assert error.hint.startswith(f"This is the user token {fingerprint(value)}. ")
    assert value not in str(error)
