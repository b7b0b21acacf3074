"""What a token says about itself, unverified: good for timers and explanations, never for a decision.

A client has no key to verify tokens with. It reads when a token ends, and whose it is, to refresh in time and
to say which token was refused.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import msgspec

__all__ = ["moment", "read_claims"]


def read_claims(token: str) -> Mapping[str, Any] | None:
    """Read the claims of a JWT without verifying anything.

    Args:
        token: what may be a JWT.

    Returns:
        The claims; None for what is no JWT.
    """
    parts = token.split(".")
    if len(parts) != 3 or not all(parts):
        return None
    text = parts[1]
    try:
        # The JSON of a claims set is an object (RFC 7519, section 7.2).
        return msgspec.json.decode(
            base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True),
            type=dict[str, Any],
        )
    except (binascii.Error, ValueError, RecursionError):
        return None


def moment(claims: Mapping[str, Any] | None, name: str) -> float | None:
    """A claim that is a time, in seconds since the epoch (RFC 7519, section 2: NumericDate).

    Args:
        claims: the claims of a token, if it has any.
        name: `exp`, `iat` or `nbf`.
    """
    value = None if claims is None else claims.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
