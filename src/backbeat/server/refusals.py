"""What a refused connection is answered with: a whole HTTP response in JSON, after which it is closed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from backbeat.errors import Retry
from backbeat.websocket.handshake import refuse

if TYPE_CHECKING:
    from backbeat.errors import Refusal
    from backbeat.websocket.handshake import Headers

__all__ = ["refused"]

RETRY_AFTER: Final = "30"
"""Seconds that whoever hit a limit is asked to stay away."""


def refused(refusal: Refusal, *, explain: bool, headers: Headers = ()) -> bytes:
    """Write the answer to a request that is refused before anybody looks at what it asks for.

    Args:
        refusal: why.
        explain: whether to say the code and what to do about it.
        headers: more headers.
    """
    body = {"error": refusal.message}
    if explain:
        body |= {"code": refusal.code, "hint": refusal.hint}
    if refusal.retry is Retry.SLOW:
        headers = (*headers, ("Retry-After", RETRY_AFTER))
    return refuse(refusal.status, msgspec.json.encode(body), "application/json; charset=utf-8", headers)
