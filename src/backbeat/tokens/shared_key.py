"""Keys that issuer and server share (HS256, HS384, HS512), for the tokens that nothing is wrong with.

A general library reads each token as if it had never seen one: it reads the header, asks whether the key is
meant for another purpose, and decodes every part before the signature is looked at. Nearly all tokens of a
project have the same header and the same key. What is left to do for those is one HMAC.
"""

from __future__ import annotations

import binascii
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["SharedKey"]

DIGESTS: Final = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}

PLAIN_HEADER: Final = frozenset({"alg", "typ", "kid"})
"""Parameters of a header that change nothing about how the signature is checked (RFC 7515, section 4.1)."""

# What only the other alphabet has becomes what none has.
_FROM_URL: Final = bytes.maketrans(b"-_+/", b"+/!!")


class SharedKey:
    """Says yes to a token in its one canonical form, and nothing else: every no is for a library to explain.

    Args:
        key: the shared key.
        algorithm: one of `DIGESTS`.
    """

    __slots__ = ("_digest", "_key")

    def __init__(self, key: bytes, algorithm: str) -> None:
        self._key = key
        self._digest = DIGESTS[algorithm]

    @staticmethod
    def suits(header: Mapping[str, Any]) -> bool:
        """Tell whether a token with this header is checked by its HMAC alone."""
        return str(header.get("alg")) in DIGESTS and header.keys() <= PLAIN_HEADER

    def payload(self, compact: str) -> bytes | None:
        """Return the payload of a token whose signature holds (RFC 7515, section 5.2).

        Args:
            compact: the token; its header is known to suit.

        Returns:
            The payload; None when the signature does not hold, or something is unusual about the token.
        """
        signed, _, signature = compact.encode().rpartition(b".")
        expected = urlsafe_b64encode(hmac.digest(self._key, signed, self._digest)).rstrip(b"=")
        if not hmac.compare_digest(expected, signature):
            return None
        _, _, payload = signed.partition(b".")
        try:
            return binascii.a2b_base64(
                payload.translate(_FROM_URL) + b"=" * (-len(payload) % 4), strict_mode=True
            )
        except binascii.Error:
            return None
