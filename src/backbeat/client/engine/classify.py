"""What a refusal means: a text from the wire becomes the exception that a caller can act on.

The texts, codes, hints and retry policies are those of `backbeat.protocol.reasons`; codes that only
Supabase's own server knows stand below. What nobody knows keeps its text, and is tried again with back-off.
"""

from __future__ import annotations

import re
from string import Formatter
from typing import Final

import msgspec

from backbeat.errors import Denied, RateLimited, Refusal, Retry, TokenRefused, Unavailable
from backbeat.protocol.reasons import REASONS, Reason, Where

__all__ = ["connect_refusal", "http_refusal", "join_refusal", "reply_refusal", "system_refusal"]

_STANDBY: Final = "The project is not ready; the client tries again by itself."
_FOREIGN: Final[dict[str, tuple[type[Refusal], Retry, str]]] = {
    "InitializingProjectConnection": (Unavailable, Retry.BACKOFF, _STANDBY),
    "DatabaseLackOfConnections": (Unavailable, Retry.BACKOFF, "The database has no connection left."),
    "TimeoutOnRpcCall": (Unavailable, Retry.BACKOFF, _STANDBY),
    "ErrorOnRpcCall": (Unavailable, Retry.BACKOFF, _STANDBY),
    "MusterJoinError": (Unavailable, Retry.BACKOFF, _STANDBY),
    "DatabaseConnectionRateLimitReached": (RateLimited, Retry.SLOW, "Too many joins need the database."),
    "TenantNotFound": (Denied, Retry.NEVER, "The URL names no project: check its host."),
    "RealtimeDisabledForTenant": (Denied, Retry.NEVER, "The project is paused or suspended."),
}
_FOREIGN_TEXTS: Final = {
    "Tenant not found": "TenantNotFound",
    "Realtime was disabled for this tenant": "RealtimeDisabledForTenant",
}
_CODE: Final = re.compile(r"(?P<code>[A-Za-z]+): (?P<message>.*)", re.DOTALL)
_EXPLANATION: Final = re.compile(
    r"(?P<text>.*?)\. Hint: (?P<hint>.*?)(?: Error code: (?P<code>\w+)\.)?", re.DOTALL
)
"""What a server that explains itself puts behind the text."""


class _Answer(msgspec.Struct):
    error: str = ""
    message: str = ""
    code: str = ""
    hint: str = ""


def _pattern(reason: Reason) -> re.Pattern[str]:
    parts = [
        re.escape(literal) + (".*" if name is not None else "")
        for literal, name, _, _ in Formatter().parse(reason.text)
    ]
    return re.compile("".join(parts), re.DOTALL)


_PATTERNS: Final = [
    (reason, _pattern(reason)) for reason in REASONS.values() if reason.text.strip("{}") != "detail"
]


def join_refusal(text: str, *, topic: str, context: str = "") -> Refusal:
    """The refusal behind the reason of an error reply to a join: `Code: text`, or a text alone.

    Args:
        text: the reason.
        topic: the topic, without the prefix.
        context: what the client knows about this case, put before the hint.
    """
    return _refusal(text, Where.JOIN, topic=topic, context=context)


def reply_refusal(text: str, *, topic: str, context: str = "") -> Refusal:
    """The refusal behind the reason of an error reply to a push."""
    return _refusal(text, Where.REPLY, topic=topic, context=context)


def system_refusal(text: str, *, topic: str, context: str = "") -> Refusal:
    """The refusal behind a `system` message: the text alone, without a code."""
    return _refusal(text, Where.SYSTEM, topic=topic, context=context)


def connect_refusal(status: int, body: bytes) -> Refusal:
    """The refusal behind the answer to an upgrade.

    Args:
        status: the HTTP status; it decides about trying again where the text is unknown.
        body: the beginning of the answer, `{"error": text}` if it comes from a realtime server.
    """
    return _answered(status, body, Where.CONNECT, "The server answered the upgrade with HTTP status {status}")


def http_refusal(status: int, body: bytes, *, topic: str) -> Refusal:
    """The refusal behind the answer to an HTTP request.

    Args:
        status: the HTTP status.
        body: the beginning of the answer.
        topic: the topic, without the prefix.
    """
    refusal = _answered(status, body, Where.HTTP, "The server answered with HTTP status {status}")
    refusal.topic = topic
    if status == 404:
        refusal.hint = (
            "Broadcasting one message over HTTP needs a Supabase Realtime server of 2.97.0 or later."
        )
    return refusal


def _answered(status: int, body: bytes, where: Where, otherwise: str) -> Refusal:
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        answer = _Answer()
    text = answer.error or answer.message or otherwise.format(status=status)
    refusal = _refusal(text, where, status=status, otherwise=_by_status(status))
    refusal.status = status
    refusal.hint = answer.hint or refusal.hint or "Check that the URL is that of a project."
    return refusal


def _by_status(status: int) -> tuple[type[Refusal], Retry]:
    """What a refused upgrade means when its text is unknown (client specification, K-7)."""
    if status == 429:
        return RateLimited, Retry.SLOW
    if status >= 500:
        return Unavailable, Retry.BACKOFF
    return (TokenRefused if status == 401 else Denied), Retry.NEVER


def _refusal(
    text: str,
    where: Where,
    *,
    topic: str | None = None,
    context: str = "",
    status: int | None = None,
    otherwise: tuple[type[Refusal], Retry] = (Unavailable, Retry.BACKOFF),
) -> Refusal:
    explained = _EXPLANATION.fullmatch(text)
    hint, code = "", None
    if explained is not None:
        text, hint, code = explained["text"], explained["hint"], explained["code"]
    found = _CODE.fullmatch(text)
    message = text
    if found is not None and code is None and _is_known(found["code"]):
        code, message = found["code"], found["message"]
    reason = _reason(message, code, where, status)
    if reason is not None:
        # The server's hint knows the case; ours is general.
        advice = hint or reason.hint
        error, retry, code = reason.error, reason.retry, reason.code
        prefixed = reason.prefixed
    else:
        code = code or _FOREIGN_TEXTS.get(message) or (found["code"] if found else "UnknownErrorOnChannel")
        error, retry, general = _FOREIGN.get(code, (*otherwise, ""))
        advice, prefixed = hint or general, found is not None
    return error(
        message, hint=f"{context} {advice}".strip(), code=code, topic=topic, retry=retry, prefixed=prefixed
    )


def _is_known(code: str) -> bool:
    return code in _FOREIGN or any(reason.code == code for reason in REASONS.values())


def _reason(message: str, code: str | None, where: Where, status: int | None) -> Reason | None:
    """The reason that has such a text; or else, one that has the code."""
    fitting = [
        reason
        for reason, pattern in _PATTERNS
        if code in (None, reason.code) and pattern.fullmatch(message) is not None
    ]
    coded = [reason for reason in REASONS.values() if code == reason.code]
    return _best(fitting, where, status) or _best(coded, where, status)


def _best(reasons: list[Reason], where: Where, status: int | None) -> Reason | None:
    """The one that fits best: the same place and status, the same place, any."""
    ranked = sorted(reasons, key=lambda reason: (where not in reason.where, status != reason.status))
    return next(iter(ranked), None)
