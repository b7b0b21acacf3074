"""Which tokens a project believes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from backbeat.errors import Refusal, Retry
from backbeat.tokens.claims import TokenSource, fingerprint
from backbeat.tokens.verifier import MAX_TOKEN_BYTES, SkippedKey, Verifier, sign

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


def encoded(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(header: bytes, payload: bytes, secret: bytes = SECRET.encode()) -> str:
    """A token with any header and payload, and an HS256 signature that holds."""
    signing_input = f"{encoded(header)}.{encoded(payload)}"
    signature = hmac.new(secret, signing_input.encode(), hashlib.sha256).digest()
    return f"{signing_input}.{encoded(signature)}"


HEADER = b'{"alg":"HS256"}'
PAYLOAD = json.dumps(CLAIMS).encode()


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


def test_bad_base64_is_malformed() -> None:
    """Letters that base64url does not have make no token."""
    header, payload, signature = sign(CLAIMS, SECRET).split(".")
    assert refused(f"{header}.{payload[:-1]}!.{signature}").code == "MalformedJWT"


def test_a_header_that_is_no_object_is_malformed() -> None:
    """A list cannot say which algorithm signed."""
    assert refused(signed(b'["HS256"]', PAYLOAD)).code == "MalformedJWT"


@pytest.mark.parametrize("payload", [b"[1]", b'"text"', b"null", b"", b"{", b"[" * 3_000])
def test_a_payload_that_is_no_object_is_malformed(payload: bytes) -> None:
    """A signature over something else does not make it claims."""
    assert refused(signed(HEADER, payload)).code == "MalformedJWT"


def test_a_token_without_an_algorithm_is_refused() -> None:
    """Nothing is assumed about a token that does not say how it was signed."""
    assert refused(signed(b"{}", PAYLOAD)).code == "JwtSignerError"


@pytest.mark.parametrize("algorithm", ["RS1", "PS256", "ES256K", "hs256", "", None, 1, [], {}])
def test_other_algorithms_are_refused(algorithm: object) -> None:
    """What section 5 does not list is no algorithm, whatever its type."""
    header = json.dumps({"alg": algorithm}).encode()
    assert refused(signed(header, PAYLOAD)).code == "JwtSignerError"


def test_a_key_id_is_text() -> None:
    """A `kid` of another type makes the token malformed (RFC 7515, section 4.1.4)."""
    assert refused(signed(b'{"alg":"HS256","kid":7}', PAYLOAD)).code == "MalformedJWT"


def test_an_unknown_critical_header_is_refused() -> None:
    """What a token calls critical has to be understood (RFC 7515, section 4.1.11)."""
    header = b'{"alg":"HS256","crit":["exp"],"exp":1}'
    assert refused(signed(header, PAYLOAD)).code == "MalformedJWT"


def test_the_type_need_not_be_said() -> None:
    """A header without `typ` is accepted."""
    assert Verifier(SECRET).verify(signed(HEADER, PAYLOAD), now=NOW).claims.sub == "u1"


def test_when_a_token_was_issued_need_not_be_said() -> None:
    """A token without `iat` is accepted."""
    assert "iat" not in Verifier(SECRET).verify(sign(CLAIMS, SECRET), now=NOW).claims.values


@pytest.mark.parametrize("number", ["1" + "0" * 400, "-1" + "0" * 400, "1e400", "NaN"])
def test_an_expiry_beyond_reason_is_malformed(number: str) -> None:
    """An end that is no moment is refused, and costs no exception."""
    payload = b'{"role":"authenticated","exp":%b}' % number.encode()
    assert refused(signed(HEADER, payload)).code == "MalformedJWT"


@given(
    header=st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "crit", "b64", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.sampled_from(["HS256", "RS256", "b64", "k"]),
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.just("x"), inner, max_size=1),
            max_leaves=3,
        ),
    ),
    payload=st.binary(max_size=20)
    | st.dictionaries(
        st.sampled_from(["role", "exp", "iat", "nbf", "sub"]),
        st.none() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.integers(), max_size=1),
    ).map(lambda claims: json.dumps(claims).encode()),
)
def test_whoever_has_the_secret_gets_an_answer(header: dict[str, Any], payload: bytes) -> None:
    """Any header over any payload is a token or a refusal, never another exception."""
    token = signed(json.dumps(header).encode(), payload)
    try:
        Verifier(SECRET, {"keys": []}).verify(token, now=NOW)
    except Refusal:
        return


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


def jwk_of(key: Any, kid: str = "k1", **members: Any) -> dict[str, Any]:
    """The public JWK of a private key, or the JWK of a shared one."""
    if isinstance(key, bytes):
        return {"kty": "oct", "k": encoded(key), "kid": kid, **members}
    return dict(kind_of(key).to_jwk(key.public_key(), as_dict=True)) | {"kid": kid} | members


def kind_of(key: Any) -> Any:
    """What writes a key as a JWK."""
    if isinstance(key, rsa.RSAPrivateKey):
        return jwt.algorithms.RSAAlgorithm
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return jwt.algorithms.ECAlgorithm
    return jwt.algorithms.OKPAlgorithm


def token_of(algorithm: str, key: Any, **header: Any) -> str:
    """A token signed with a key, which may name any algorithm of its family."""
    jws = jwt.PyJWS()
    for name in ("Ed25519", "Ed448"):
        jws.register_algorithm(name, jwt.algorithms.OKPAlgorithm())
    return jws.encode(PAYLOAD, key, algorithm, headers={"kid": "k1"} | header)


RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
P256, P384, P521 = (
    ec.generate_private_key(curve) for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())
)
ED25519, ED448 = ed25519.Ed25519PrivateKey.generate(), ed448.Ed448PrivateKey.generate()
SHARED = b"another secret, of sixty-four bytes, that the key set has: it lasts."

PAIRS = [
    ("HS256", SHARED),
    ("HS384", SHARED),
    ("HS512", SHARED),
    ("RS256", RSA_KEY),
    ("RS384", RSA_KEY),
    ("RS512", RSA_KEY),
    ("ES256", P256),
    ("ES384", P384),
    ("ES512", P521),
    ("EdDSA", ED25519),
    ("Ed25519", ED25519),
    ("EdDSA", ED448),
    ("Ed448", ED448),
]
IDS = [f"{algorithm} {type(key).__name__.strip('_')}" for algorithm, key in PAIRS]
FAMILIES = [("RS256", RSA_KEY), ("ES256", P256), ("EdDSA", ED25519)]


@pytest.mark.parametrize(("algorithm", "key"), PAIRS, ids=IDS)
def test_keys_of_the_key_set_verify(algorithm: str, key: Any) -> None:
    """Every algorithm of section 5 is checked with the key that has the token's `kid`."""
    verifier = Verifier(SECRET, {"keys": [jwk_of(key)]})
    assert verifier.verify(token_of(algorithm, key), now=NOW).claims.sub == "u1"


@pytest.mark.parametrize(("algorithm", "key"), PAIRS, ids=IDS)
def test_a_changed_payload_is_a_signature_error(algorithm: str, key: Any) -> None:
    """No key of the key set verifies what it did not sign."""
    header, _, signature = token_of(algorithm, key).split(".")
    changed = encoded(json.dumps(CLAIMS | {"role": "service_role"}).encode())
    token = f"{header}.{changed}.{signature}"
    assert refused(token, Verifier(SECRET, {"keys": [jwk_of(key)]})).code == "JwtSignatureError"


@pytest.mark.parametrize(("algorithm", "key"), FAMILIES)
def test_an_unknown_key_id_is_named(algorithm: str, key: Any) -> None:
    """A `kid` that the key set does not have is in the text."""
    error = refused(token_of(algorithm, key, kid="gone"), Verifier(SECRET, {"keys": [jwk_of(key)]}))
    assert '(kid) "gone"' in error.message


@pytest.mark.parametrize(("algorithm", "key"), FAMILIES)
def test_an_empty_key_set_is_a_key_set(algorithm: str, key: Any) -> None:
    """The text names the key when there is a key set, be it empty."""
    error = refused(token_of(algorithm, key), Verifier(SECRET, {"keys": []}))
    assert '(kid) "k1"' in error.message


@pytest.mark.parametrize(("algorithm", "key"), FAMILIES)
def test_without_a_key_set_no_key_is_named(algorithm: str, key: Any) -> None:
    """A project that has only a secret refuses the algorithm, not the key."""
    assert "(kid)" not in refused(token_of(algorithm, key)).message


@pytest.mark.parametrize(("algorithm", "key"), FAMILIES)
def test_a_token_has_to_name_its_key(algorithm: str, key: Any) -> None:
    """Without a `kid` no key is tried."""
    token = jwt.encode(CLAIMS, key, algorithm=algorithm)
    error = refused(token, Verifier(SECRET, {"keys": [jwk_of(key)]}))
    assert (error.code, "(kid)" in error.message) == ("JwtSignerError", False)


def test_a_key_of_another_type_is_not_the_one() -> None:
    """A `kid` is looked for among the keys of the type that the algorithm needs."""
    error = refused(token_of("RS256", RSA_KEY), Verifier(SECRET, {"keys": [jwk_of(P256)]}))
    assert '(kid) "k1"' in error.message


def test_keys_of_two_types_may_share_a_key_id() -> None:
    """An issuer that changes the algorithm may keep the name of the key."""
    verifier = Verifier(SECRET, {"keys": [jwk_of(RSA_KEY), jwk_of(P256)]})
    assert verifier.verify(token_of("ES256", P256), now=NOW).claims.sub == "u1"


@pytest.mark.parametrize(
    ("algorithm", "key", "jwk"),
    [
        ("RS512", RSA_KEY, jwk_of(RSA_KEY, alg="RS256")),
        ("HS512", SHARED, jwk_of(SHARED, alg="HS256")),
        ("EdDSA", ED25519, jwk_of(ED25519, alg="Ed25519")),
        ("ES384", P384, jwk_of(P256)),
        ("Ed448", ED448, jwk_of(ED25519)),
        ("HS512", SHARED, jwk_of(SHARED[:32])),
    ],
    ids=["RSA", "oct", "OKP", "curve", "Edwards curve", "short"],
)
def test_a_key_decides_its_algorithm(algorithm: str, key: Any, jwk: dict[str, Any]) -> None:
    """A token that names a key and an algorithm the key is not for has no signer."""
    error = refused(token_of(algorithm, key), Verifier(SECRET, {"keys": [jwk]}))
    assert error.code == "JwtSignerError"


@pytest.mark.parametrize(("_", "key"), FAMILIES)
def test_a_public_key_is_no_shared_secret(_: str, key: Any) -> None:
    """Algorithm confusion: an HS256 token keyed with a published key does not pass for that key's."""
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    forged = signed(b'{"alg":"HS256","kid":"k1"}', PAYLOAD, pem)
    assert refused(forged, Verifier(SECRET, {"keys": [jwk_of(key)]})).code == "JwtSignatureError"


def test_a_shared_key_comes_before_the_secret() -> None:
    """A token that names a key of the key set is not checked with the project's secret."""
    token = token_of("HS256", SECRET.encode())
    assert refused(token, Verifier(SECRET, {"keys": [jwk_of(SHARED)]})).code == "JwtSignatureError"


@pytest.mark.parametrize("jwks", [None, {"keys": [jwk_of(SHARED)]}], ids=["no key set", "no such key"])
def test_an_hmac_token_with_an_unknown_key_id_falls_back_to_the_secret(jwks: dict[str, Any] | None) -> None:
    """Old tokens name keys that were never in a key set."""
    token = token_of("HS256", SECRET.encode(), kid="old")
    assert Verifier(SECRET, jwks).verify(token, now=NOW).claims.sub == "u1"


UNUSABLE = {
    "no object": ("text", ""),
    "no key id": ({"kty": "oct", "k": encoded(SHARED)}, ""),
    "unknown type": ({"kty": "AKP", "kid": "k1"}, "k1"),
    "type is a list": ({"kty": [], "kid": "k1"}, "k1"),
    "for encryption": (jwk_of(RSA_KEY, use="enc"), "k1"),
    "only signs": (jwk_of(RSA_KEY, key_ops=["sign"]), "k1"),
    "operations are text": (jwk_of(RSA_KEY, key_ops="verify"), "k1"),
    "unsupported curve": (jwk_of(ec.generate_private_key(ec.SECP256K1())), "k1"),
    "made-up curve": ({"kty": "EC", "kid": "k1", "crv": "P-1", "x": "AA", "y": "AA"}, "k1"),
    "not on the curve": (jwk_of(P256, x=encoded(b"1" * 32)), "k1"),
    "no material": ({"kty": "RSA", "kid": "k1"}, "k1"),
    "no base64": ({"kty": "oct", "kid": "k1", "k": "\u00fc"}, "k1"),
    "unsupported algorithm": (jwk_of(RSA_KEY, alg="RSA-OAEP"), "k1"),
    "algorithm of another type": (jwk_of(RSA_KEY, alg="ES256"), "k1"),
    "algorithm is a list": (jwk_of(RSA_KEY, alg=["RS256"]), "k1"),
    "short RSA": (jwk_of(RSA_KEY, n=encoded(b"\xff" * 128)), "k1"),
    "short secret": (jwk_of(b"short"), "k1"),
}


@pytest.mark.parametrize(("jwk", "kid"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_an_unusable_key_is_skipped(jwk: Any, kid: str) -> None:
    """A key that cannot be used is named, and harms no other key."""
    verifier = Verifier(SECRET, {"keys": [jwk, jwk_of(ED25519, kid="k2")]})
    verifier.verify(token_of("EdDSA", ED25519, kid="k2"), now=NOW)
    assert [skipped.kid for skipped in verifier.skipped] == [kid]


def test_the_first_of_two_keys_with_one_id_counts() -> None:
    """A second key of the same type and `kid` is skipped, and said to be."""
    other = ed25519.Ed25519PrivateKey.generate()
    verifier = Verifier(SECRET, {"keys": [jwk_of(ED25519), jwk_of(other)]})
    verifier.verify(token_of("EdDSA", ED25519), now=NOW)
    assert verifier.skipped == [SkippedKey("k1", "an earlier key has its `kid`")]


def test_a_key_meant_for_signatures_is_used() -> None:
    """`use` and `key_ops` as issuers write them are no reason to skip a key."""
    jwk = jwk_of(P256, use="sig", key_ops=["verify"], alg="ES256", ext=True)
    assert Verifier(SECRET, {"keys": [jwk]}).skipped == []


@pytest.mark.parametrize(("algorithm", "key"), FAMILIES)
def test_a_private_key_verifies_with_its_public_half(algorithm: str, key: Any) -> None:
    """The file an issuer signs with may be the key set; what signs is not even read."""
    jwk = kind_of(key).to_jwk(key, as_dict=True) | {"kid": "k1", "key_ops": ["sign", "verify"]}
    verifier = Verifier(SECRET, {"keys": [jwk | {"d": "nonsense"}]})
    assert verifier.verify(token_of(algorithm, key), now=NOW).claims.sub == "u1"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("AQAB"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(
    kty=st.sampled_from(["oct", "RSA", "EC", "OKP"]),
    members=st.dictionaries(
        st.sampled_from(["k", "n", "e", "d", "x", "y", "crv", "alg", "use", "key_ops", "oth"]),
        JSON | st.sampled_from(["P-256", "Ed25519", "Ed448"]) | st.binary(max_size=60).map(encoded),
    ),
)
def test_any_key_set_can_be_read(kty: str, members: dict[str, Any]) -> None:
    """Whatever an issuer publishes: a key is read or skipped, never an exception."""
    verifier = Verifier(SECRET, {"keys": [{"kty": kty, "kid": "k1"} | members]})
    assert len(verifier.skipped) <= 1


def test_keys_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verifying a token reads no key: that is done when the key set comes."""
    verifier = Verifier(SECRET, {"keys": [jwk_of(RSA_KEY)]})
    monkeypatch.setattr("backbeat.tokens.verifier.READERS", {})
    assert verifier.verify(token_of("RS256", RSA_KEY), now=NOW).claims.sub == "u1"


def test_a_token_with_an_unknown_key_says_which() -> None:
    """Whoever can get a newer key set learns which key it should have."""
    assert Verifier(SECRET, {"keys": []}).unknown_kid(token_of("ES256", P256)) == "k1"


@pytest.mark.parametrize(
    "token",
    ["", "garbage", sign(CLAIMS, SECRET), token_of("RS256", RSA_KEY), signed(b'{"alg":[],"kid":"x"}', b"{}")],
    ids=["empty", "garbage", "no key id", "known", "no algorithm"],
)
def test_other_tokens_lack_no_key(token: str) -> None:
    """A token that no key set could make good, or whose key is there, asks for none."""
    assert Verifier(SECRET, {"keys": [jwk_of(RSA_KEY)]}).unknown_kid(token) is None


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
