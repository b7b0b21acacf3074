"""Which tokens a project believes.

The rules are those of section 5 of the server specification: HS* tokens are checked with the project secret
(or an `oct` key of the key set that has their `kid`), all others with the key of the key set that has their
`kid` and the matching type. The algorithm is never taken from the token alone: the key decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.api_jws import PyJWS

from backbeat.errors import Refusal
from backbeat.protocol import reasons
from backbeat.tokens.claims import Claims, Token, TokenSource, fingerprint
from backbeat.tokens.shared_key import SharedKey

__all__ = ["MAX_TOKEN_BYTES", "SkippedKey", "Verifier", "sign"]

MAX_TOKEN_BYTES = 16_384
"""Longer tokens are refused before any cryptography: real ones stay below 4 KiB."""

MAX_KNOWN_HEADERS: Final = 64
"""A project has one or two; each issuer writes its own."""

MIN_RSA_BITS: Final = 2048
"""RFC 7518, section 3.3."""

KEY_TYPES: Final = {
    "oct": frozenset({"HS256", "HS384", "HS512"}),
    "RSA": frozenset({"RS256", "RS384", "RS512"}),
    "EC": frozenset({"ES256", "ES384", "ES512"}),
    "OKP": frozenset({"EdDSA", "Ed25519", "Ed448"}),
}
KEY_TYPE_OF: Final = {algorithm: kty for kty, algorithms in KEY_TYPES.items() for algorithm in algorithms}

CURVES: Final = {
    "P-256": frozenset({"ES256"}),
    "P-384": frozenset({"ES384"}),
    "P-521": frozenset({"ES512"}),
    "Ed25519": frozenset({"EdDSA", "Ed25519"}),
    "Ed448": frozenset({"EdDSA", "Ed448"}),
}
"""RFC 7518, section 3.4; RFC 8037, section 3.1; RFC 9864, section 2.2."""

PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})
"""Verifying needs none of them, so they are left where they are (RFC 7518, section 6)."""

READERS: Final[Mapping[str, Callable[[dict[str, Any]], Any]]] = {
    "oct": HMACAlgorithm.from_jwk,
    "RSA": RSAAlgorithm.from_jwk,
    "EC": ECAlgorithm.from_jwk,
    "OKP": OKPAlgorithm.from_jwk,
}

_JWS: Final = PyJWS(algorithms=sorted(KEY_TYPE_OF))
for _name in ("Ed25519", "Ed448"):
    _JWS.register_algorithm(_name, OKPAlgorithm())


def sign(claims: Mapping[str, Any], secret: str) -> str:
    """Mint an HS256 token.

    Args:
        claims: the payload.
        secret: the project's JWT secret.
    """
    return jwt.encode(dict(claims), secret, algorithm="HS256", sort_headers=True)


@dataclass(frozen=True, slots=True)
class SkippedKey:
    """A key of a key set that cannot be used, and why. Never what is in it.

    Attributes:
        kid: its key id, or an empty string.
        why: half a sentence for the log.
    """

    kid: str
    why: str


class Verifier:
    """Verifies tokens against the keys of one project. Keys are read once, here, and never per token.

    Args:
        secret: the project's JWT secret, for HS* tokens.
        jwks: a JSON Web Key Set (`{"keys": […]}`, RFC 7517) for the others, or None.

    Attributes:
        skipped: the keys of the key set that cannot be used.
    """

    def __init__(self, secret: str, jwks: Mapping[str, Any] | None = None) -> None:
        self._secret = secret
        self._has_key_set = jwks is not None
        self._keys: dict[tuple[str, str], _Key] = {}
        # By the first part of a token, once one with it was verified.
        self._shared_keys: dict[str, SharedKey] = {}
        self.skipped: list[SkippedKey] = []
        for jwk in (jwks or {}).get("keys", ()):
            try:
                key = _read_key(jwk)
            except _Unusable as error:
                kid = jwk.get("kid") if isinstance(jwk, Mapping) else None
                self.skipped.append(SkippedKey(kid if isinstance(kid, str) else "", str(error)))
            else:
                if self._keys.setdefault((key.kid, key.kty), key) is not key:
                    self.skipped.append(SkippedKey(key.kid, "an earlier key has its `kid`"))

    def verify(self, token: str, *, now: float, source: TokenSource = TokenSource.USER) -> Token:
        """Check signature, lifetime and required claims.

        Args:
            token: the compact JWT; whitespace is removed and percent-encoding undone first.
            now: seconds since the epoch.
            source: where the token came from, kept for later explanations.

        Raises:
            TokenRefused: with the reason of section 3.6 that applies.
        """
        compact = _compact(token)
        try:
            return Token.of(compact, source, self._verified(compact, now))
        except Refusal as refusal:
            refusal.hint = f"This is the {source.value} {fingerprint(token)}. {refusal.hint}"
            raise

    def unknown_kid(self, token: str) -> str | None:
        """Tell which key a token names that the key set does not have; a newer key set may have it.

        Args:
            token: the compact JWT; its signature is not looked at.
        """
        try:
            header = _JWS.get_unverified_header(_compact(token))
        except jwt.InvalidTokenError:
            return None
        kty, kid = _key_type(header), header.get("kid")
        return kid if kty is not None and isinstance(kid, str) and (kid, kty) not in self._keys else None

    def _verified(self, compact: str, now: float) -> Claims:
        claims = self._claims(compact)
        role, exp = claims.get("role"), claims.get("exp")
        if not isinstance(role, str) or not role or exp is None:
            raise reasons.TOKEN_CLAIMS_MISSING.refusal()
        for name in ("exp", "iat", "nbf"):
            if name in claims and (
                isinstance(claims[name], bool) or not isinstance(claims[name], int | float)
            ):
                raise reasons.TOKEN_MALFORMED.refusal(context=f"Its claim `{name}` is not a number.")
        try:
            if exp <= now:
                raise reasons.TOKEN_EXPIRED.refusal(seconds=int(now - exp))
            if claims.get("nbf", now) > now:
                raise reasons.TOKEN_NOT_YET_VALID.refusal()
            return Claims.of(claims)
        except OverflowError as error:
            # JSON knows no largest integer, a float does.
            raise reasons.TOKEN_MALFORMED.refusal(context="Its claim `exp` is no moment.") from error

    def _claims(self, compact: str) -> Mapping[str, Any]:
        """Return the claims of a token whose signature holds."""
        shared_key = self._shared_keys.get(compact.partition(".")[0])
        payload = shared_key.payload(compact) if shared_key is not None else None
        if payload is None:
            payload = self._payload(compact)
        try:
            return msgspec.json.decode(payload, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError) as error:
            raise reasons.TOKEN_MALFORMED.refusal(context="Its payload is not a JSON object.") from error

    def _payload(self, compact: str) -> bytes:
        """Return the payload of a token whose signature holds."""
        try:
            header = _JWS.get_unverified_header(compact)
        except jwt.InvalidTokenError as error:
            raise reasons.TOKEN_MALFORMED.refusal() from error
        key, algorithm = self._key(header)
        try:
            payload: bytes = _JWS.decode(compact, key, algorithms=[algorithm])
        except jwt.InvalidSignatureError as error:
            raise reasons.TOKEN_SIGNATURE.refusal() from error
        except jwt.InvalidKeyError as error:
            raise reasons.TOKEN_SIGNER.refusal() from error
        except jwt.InvalidTokenError as error:
            raise reasons.TOKEN_MALFORMED.refusal() from error
        if SharedKey.suits(header) and len(self._shared_keys) < MAX_KNOWN_HEADERS:
            material = key.encode() if isinstance(key, str) else key
            self._shared_keys[compact.partition(".")[0]] = SharedKey(material, algorithm)
        return payload

    def _key(self, header: Mapping[str, Any]) -> tuple[Any, str]:
        """Choose the key by type and `kid`; the table of section 5."""
        kty, algorithm, kid = _key_type(header), header.get("alg"), header.get("kid")
        if kty is None:
            raise reasons.TOKEN_SIGNER.refusal()
        assert isinstance(algorithm, str)
        key = self._keys.get((kid, kty)) if isinstance(kid, str) else None
        if key is not None:
            if algorithm not in key.algorithms:
                raise reasons.TOKEN_SIGNER.refusal(context="The key it names is for another algorithm.")
            return key.material, algorithm
        if kty == "oct":
            return self._secret, algorithm
        if self._has_key_set and isinstance(kid, str):
            raise reasons.TOKEN_SIGNER_KID.refusal(kid=kid)
        raise reasons.TOKEN_SIGNER.refusal()


@dataclass(frozen=True, slots=True)
class _Key:
    """A key of a key set, ready to verify with, and what it may be used for."""

    kid: str
    kty: str
    material: Any = field(repr=False)
    algorithms: frozenset[str]


class _Unusable(Exception):
    """A key of a key set cannot be used; says why."""


def _compact(token: str) -> str:
    """Undo what a terminal or a URL does to a token; one that is too long is not looked at."""
    return unquote("".join(token.split())) if len(token) <= MAX_TOKEN_BYTES else ""


def _key_type(header: Mapping[str, Any]) -> str | None:
    """Find the type of key that the algorithm of a token needs; None for one we do not accept."""
    algorithm = header.get("alg")
    return KEY_TYPE_OF.get(algorithm) if isinstance(algorithm, str) else None


def _read_key(jwk: object) -> _Key:
    """Read a JSON Web Key (RFC 7517, section 4)."""
    if not isinstance(jwk, Mapping):
        raise _Unusable("it is not an object")
    kid, kty, operations = jwk.get("kid"), jwk.get("kty"), jwk.get("key_ops", ["verify"])
    if not isinstance(kid, str):
        raise _Unusable("it has no `kid`")
    if not isinstance(kty, str) or kty not in READERS:
        raise _Unusable("its `kty` is unknown")
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise _Unusable("it is not meant to verify signatures")
    try:
        material = READERS[kty]({name: jwk[name] for name in jwk.keys() - PRIVATE_MEMBERS})
    except (jwt.InvalidKeyError, KeyError, TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise _Unusable("it cannot be read") from error
    algorithms = _algorithms(kty, jwk.get("crv"), material)
    if "alg" in jwk:
        algorithms = frozenset(each for each in algorithms if each == jwk["alg"])
    if not algorithms:
        raise _Unusable("it is too short, or suits no algorithm that is accepted")
    return _Key(kid, kty, material, algorithms)


def _algorithms(kty: str, curve: object, material: Any) -> frozenset[str]:
    """What a key may verify: shared keys are at least as long as the hash (RFC 7518, section 3.2)."""
    if kty == "oct":
        return frozenset(each for each in KEY_TYPES["oct"] if len(material) * 8 >= int(each[2:]))
    if kty == "RSA":
        return KEY_TYPES["RSA"] if material.key_size >= MIN_RSA_BITS else frozenset()
    return CURVES.get(curve, frozenset()) if isinstance(curve, str) else frozenset()
