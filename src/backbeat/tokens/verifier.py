"""Which tokens a project believes.

The rules are those of section 5 of the server specification: HS* tokens are checked with the project secret
(or an `oct` key of the key set that has their `kid`), all others with the key of the key set that has their
`kid` and the matching type. The algorithm is never taken from the token alone: the key decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import jwt
import msgspec
from jwt.api_jws import PyJWS

from backbeat.errors import Refusal
from backbeat.protocol import reasons
from backbeat.tokens.claims import Claims, Token, TokenSource, fingerprint

__all__ = ["MAX_TOKEN_BYTES", "Verifier", "sign"]

MAX_TOKEN_BYTES = 16_384
"""Longer tokens are refused before any cryptography: real ones stay below 4 KiB."""

HMAC = frozenset({"HS256", "HS384", "HS512"})
KEY_TYPES = {
    "RSA": frozenset({"RS256", "RS384", "RS512"}),
    "EC": frozenset({"ES256", "ES384", "ES512"}),
    "OKP": frozenset({"EdDSA"}),
}
ASYMMETRIC = frozenset().union(*KEY_TYPES.values())


def sign(claims: Mapping[str, Any], secret: str) -> str:
    """Mint an HS256 token.

    Args:
        claims: the payload.
        secret: the project's JWT secret.
    """
    return jwt.encode(dict(claims), secret, algorithm="HS256", sort_headers=True)


class Verifier:
    """Verifies tokens against the keys of one project.

    Args:
        secret: the project's JWT secret, for HS* tokens.
        jwks: a JSON Web Key Set (`{"keys": […]}`, RFC 7517) for the others, or None.
    """

    def __init__(self, secret: str, jwks: Mapping[str, Any] | None = None) -> None:
        self._secret = secret
        self._jws = PyJWS(algorithms=sorted(HMAC | ASYMMETRIC))
        self._keys: dict[tuple[str, str], Any] = {}
        for key in (jwks or {}).get("keys", ()):
            if (
                isinstance(key, Mapping)
                and isinstance(key.get("kid"), str)
                and isinstance(key.get("kty"), str)
            ):
                self._keys[key["kid"], key["kty"]] = key

    def verify(self, token: str, *, now: float, source: TokenSource = TokenSource.USER) -> Token:
        """Check signature, lifetime and required claims.

        Args:
            token: the compact JWT; whitespace is removed and percent-encoding undone first.
            now: seconds since the epoch.
            source: where the token came from, kept for later explanations.

        Raises:
            TokenRefused: with the reason of section 3.6 that applies.
        """
        compact = unquote("".join(token.split())) if len(token) <= MAX_TOKEN_BYTES else ""
        try:
            return Token(compact, source, self._verified(compact, now))
        except Refusal as refusal:
            refusal.hint = f"This is the {source.value} {fingerprint(token)}. {refusal.hint}"
            raise

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
        if exp <= now:
            raise reasons.TOKEN_EXPIRED.refusal(seconds=int(now - exp))
        if claims.get("nbf", now) > now:
            raise reasons.TOKEN_NOT_YET_VALID.refusal()
        return Claims.of(claims)

    def _claims(self, compact: str) -> Mapping[str, Any]:
        """Return the payload of a token whose signature holds."""
        try:
            header = self._jws.get_unverified_header(compact)
        except jwt.InvalidTokenError as error:
            raise reasons.TOKEN_MALFORMED.refusal() from error
        key, algorithm = self._key(header)
        try:
            payload = self._jws.decode(compact, key, algorithms=[algorithm])
        except jwt.InvalidSignatureError as error:
            raise reasons.TOKEN_SIGNATURE.refusal() from error
        except jwt.InvalidKeyError as error:
            raise reasons.TOKEN_SIGNER.refusal() from error
        except jwt.InvalidTokenError as error:
            raise reasons.TOKEN_MALFORMED.refusal() from error
        try:
            return msgspec.json.decode(payload, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError) as error:
            raise reasons.TOKEN_MALFORMED.refusal(context="Its payload is not a JSON object.") from error

    def _key(self, header: Mapping[str, Any]) -> tuple[Any, str]:
        """Choose the key by type and `kid`; the table of section 5."""
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm in HMAC:
            shared = self._keys.get((kid, "oct")) if isinstance(kid, str) else None
            return (jwt.PyJWK(shared, algorithm=algorithm) if shared else self._secret), algorithm
        for kty, algorithms in KEY_TYPES.items():
            if algorithm in algorithms and isinstance(kid, str) and self._keys:
                key = self._keys.get((kid, kty))
                if key is None:
                    raise reasons.TOKEN_SIGNER_KID.refusal(kid=kid)
                return jwt.PyJWK(key, algorithm=algorithm), algorithm
        raise reasons.TOKEN_SIGNER.refusal()
