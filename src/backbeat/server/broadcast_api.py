"""Broadcast over HTTP, for callers without a socket: one message, or a batch of them.

Server specification, sections 1.1, 1.6, 6.4 and 6.5. A message of a batch is a text broadcast; one that is
sent alone is a user broadcast, its payload passed on as it came. Public messages are sent at once; for
private ones the policies on realtime.messages are asked, once for each topic. What a policy refuses is named
in the answer: nothing is dropped in silence.

Three oddities of the original are left out, for no client depends on them: a JSON payload that is no object
is not wrapped in `_json`, and neither `private` nor `_binary` in a payload changes how it is sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import unquote

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from backbeat.errors import ProtocolError, Refusal, TokenRefused, Unavailable
from backbeat.protocol import reasons
from backbeat.protocol.messages import TOPIC_PREFIX
from backbeat.server.addresses import TRUSTED, policy_headers
from backbeat.server.body import collect
from backbeat.server.broadcast_batch import check_json, in_turns, read_batch
from backbeat.server.delivery import UserBroadcast
from backbeat.server.endpoint import JSON, Endpoint, Handler, json_response, refuse_field
from backbeat.server.openapi import document

if TYPE_CHECKING:
    from backbeat.protocol.reasons import Reason
    from backbeat.server.broadcast_batch import BatchMessage
    from backbeat.server.delivery import Delivery
    from backbeat.server.realtime import Realtime
    from backbeat.tokens.claims import Token
    from backbeat.tokens.keys import ApiKeys

__all__ = ["Limiter", "broadcast_routes", "token_of_request"]

log = structlog.get_logger("backbeat.http")

PREFIXES: Final = ("/api", "/realtime/v1/api")
"""Where the API is: the server's own path, and the one a gateway would put in front."""

MAX_BODY_BYTES: Final = 8_000_000

BYTES: Final = "application/octet-stream"


class Limiter(Protocol):
    """Knows how much the project may still do; times are seconds on the event loop's clock."""

    def request(self, now: float) -> Reason | None:
        """Count a request, whoever makes it; return the reason why it may not be looked at, if any."""

    def http(self, count: int, now: float) -> Reason | None:
        """Count messages that are about to be sent; return the reason why none of them may, if any."""


def broadcast_routes(realtime: Realtime, *, limiter: Limiter | None = None) -> list[Route]:
    """The routes of the HTTP API; the last ones answer 404 to whatever else is asked below its prefixes.

    Args:
        realtime: the server.
        limiter: the limits of the project; without it there are none.
    """
    api = _BroadcastApi(realtime, limiter)
    handlers: tuple[tuple[str, Mapping[str, Handler]], ...] = (
        ("/broadcast", {"POST": api.batch}),
        # A `/` may be percent-encoded in either part, so the parts are found in the raw path.
        ("/broadcast/{topic:path}/events/{event:path}", {"POST": api.single}),
        ("/ping", {"GET": api.ping}),
        ("/openapi", {"GET": _openapi}),
        ("/{path:path}", {}),
    )
    return [
        Route(prefix + path, Endpoint(realtime, methods)) for path, methods in handlers for prefix in PREFIXES
    ]


async def token_of_request(realtime: Realtime, keys: ApiKeys, authorization: str, apikey: str) -> Token:
    """Find and verify the token of an HTTP request (HTTP surface specification, section 2.3).

    Args:
        realtime: the server.
        keys: the keys of its project.
        authorization: the `Authorization` header, or an empty string.
        apikey: the `apikey` header, or an empty string.

    Raises:
        TokenRefused: there is no token, or it does not verify. The text is always that of section 1.6; the
            code and the hint say what is wrong.
    """
    try:
        value = keys.token_of_request(authorization, apikey)
        if value is not None:
            api_key = value in (apikey, keys.anon, keys.service)
            if api_key:
                return realtime.verify_api_key(value)
            return await realtime.keyring.verify(value, now=realtime.now())
    except TokenRefused as refusal:
        if refusal.code == reasons.API_KEY_UNKNOWN.code:
            raise
        reason = replace(reasons.HTTP_UNAUTHORIZED, code=refusal.code, hint=refusal.hint, retry=refusal.retry)
        raise reason.refusal(context=f"{refusal.message}.") from refusal
    raise reasons.HTTP_UNAUTHORIZED.refusal()


async def _openapi(_: Request) -> Response:
    return json_response(document())


@dataclass(frozen=True, slots=True)
class _Caller:
    """Who sends.

    Attributes:
        token: the verified token.
        headers: the `x-*` headers, which policies see as request.headers; the key itself is not for them.
    """

    token: Token
    headers: Mapping[str, str]


class _BroadcastApi:
    """The two ways to send.

    Args:
        realtime: the server.
        limiter: the limits of the project, if there are any.
    """

    def __init__(self, realtime: Realtime, limiter: Limiter | None) -> None:
        self._realtime = realtime
        self._keys = realtime.settings.keys
        self._limiter = limiter

    async def ping(self, _: Request) -> Response:
        """Tell that the server answers."""
        self._count_request()
        return json_response({"message": "Success"})

    async def batch(self, request: Request) -> Response:
        """Send a batch: all of it is checked before any of it is sent (section 6.4)."""
        _content_type(request, JSON)
        self._count_request()
        caller = await self._caller(request)
        messages = await read_batch(await _body(request), self._realtime.settings.max_payload_bytes)
        self._count_messages(len(messages))
        async for message in in_turns(messages):
            if not message.private:
                self._publish(message.topic, message.delivery(), len(message.payload), private=False)
        refused = await self._send_private(messages, caller)
        return json_response({"refused": refused}, 202) if refused else Response(status_code=202)

    async def single(self, request: Request) -> Response:
        """Send one message, its payload JSON or bytes (section 6.5)."""
        content_type = _content_type(request, JSON, BYTES)
        topic, event = _topic_and_event(request)
        self._count_request()
        caller = await self._caller(request)
        private = _private(request.query_params.get("private", ""))
        payload = await _body(request) if content_type else b""
        if len(payload) > self._realtime.settings.max_payload_bytes:
            refuse_field(reasons.HTTP_PAYLOAD_TOO_LARGE, "payload")
        if content_type != BYTES:
            payload = payload or b"{}"
            check_json(payload)
        try:
            delivery = UserBroadcast(event, payload, is_json=content_type != BYTES)
        except ProtocolError:
            refuse_field(reasons.HTTP_EVENT_TOO_LONG, "event")
        self._count_messages(1)
        if private:
            await self._authorize(topic, caller)
        self._publish(topic, delivery, len(payload), private=private)
        return Response(status_code=202)

    async def _caller(self, request: Request) -> _Caller:
        headers = request.headers
        return _Caller(
            await token_of_request(
                self._realtime, self._keys, headers.get("authorization", ""), headers.get("apikey", "")
            ),
            policy_headers(headers.items(), trusted=getattr(request.state, TRUSTED, False)),
        )

    def _count_request(self) -> None:
        if self._limiter is not None and (reason := self._limiter.request(self._realtime.loop.time())):
            raise reason.refusal()

    def _count_messages(self, count: int) -> None:
        """Count what a known caller is about to send: strangers must not use up what the project may."""
        if self._limiter is not None and (reason := self._limiter.http(count, self._realtime.loop.time())):
            raise reason.refusal()
        self._realtime.metrics.messages_in += count

    async def _send_private(self, messages: Sequence[BatchMessage], caller: _Caller) -> list[dict[str, Any]]:
        """Send the private messages of a batch that policies allow; return those that were refused, and why.

        Topics are asked about one after the other, so that a batch takes one database connection at most;
        once the database could not answer, it is not asked again.
        """
        answers: dict[str, Refusal | None] = {}
        unavailable: Unavailable | None = None
        refused: list[dict[str, Any]] = []
        async for index, message in in_turns(enumerate(messages)):
            if not message.private:
                continue
            topic = message.topic
            if topic not in answers:
                answer = unavailable or await self._refusal(topic, caller)
                if isinstance(answer, Unavailable):
                    unavailable = answer
                answers[topic] = answer
            refusal = answers[topic]
            if refusal is None:
                self._publish(topic, message.delivery(), len(message.payload), private=True)
            else:
                refused.append(self._refused(index, topic, refusal))
        return refused

    def _refused(self, index: int, topic: str, refusal: Refusal) -> dict[str, Any]:
        """Name a message of a batch that was not sent."""
        self._realtime.count_refusal(refusal)
        log.info(
            "broadcast refused", code=refusal.code, topic=topic, reason=refusal.message, hint=refusal.hint
        )
        entry = {"index": index, "topic": topic, "code": refusal.code, "reason": refusal.message}
        return entry | {"hint": refusal.hint} if self._realtime.settings.explain else entry

    async def _refusal(self, topic: str, caller: _Caller) -> Refusal | None:
        """Why a caller may not send to a private topic, in the words that sockets read; None if it may."""
        try:
            if await self._may_send(topic, caller):
                return None
        except Refusal as refusal:
            return refusal
        return reasons.BROADCAST_DENIED.refusal(topic=topic, context=self._describe(caller))

    async def _authorize(self, topic: str, caller: _Caller) -> None:
        """Make sure that a caller may send to a private topic.

        Raises:
            Refusal: it may not, or that could not be found out; in the words of section 6.5.
        """
        try:
            allowed = await self._may_send(topic, caller)
        except Refusal as refusal:
            reason = NOT_ANSWERED.get(refusal.code, reasons.HTTP_POLICY_FAILED)
            raise reason.refusal(topic=topic, context=refusal.hint) from refusal
        if not allowed:
            raise reasons.HTTP_DENIED.refusal(topic=topic, context=self._describe(caller))

    async def _may_send(self, topic: str, caller: _Caller) -> bool:
        """Ask the policies.

        Raises:
            Refusal: they gave no answer.
        """
        permissions = await self._realtime.authorizer.probe(
            topic, caller.token.claims, caller.headers, presence=False
        )
        if not permissions.write.broadcast and permissions.write_refusal is not None:
            raise permissions.write_refusal
        return permissions.write.broadcast

    def _describe(self, caller: _Caller) -> str:
        return caller.token.describe(self._realtime.now())

    def _publish(self, topic: str, delivery: Delivery, size: int, *, private: bool) -> None:
        room = self._realtime.hub.find(TOPIC_PREFIX + topic, private=private)
        if room is not None:
            room.publish(delivery, size)


NOT_ANSWERED: Final[Mapping[str, Reason]] = {
    reason.code: reason
    for reason in (
        reasons.HTTP_QUERY_CANCELED,
        reasons.HTTP_MISSING_PARTITION,
        reasons.HTTP_DATABASE_UNREACHABLE,
        reasons.HTTP_POOL_EXHAUSTED,
    )
}
"""How section 6.5 words that the policies gave no answer; what is not here is a policy that failed."""


# Reading requests -------------------------------------------------------------------------------------------


def _content_type(request: Request, *accepted: str) -> str:
    """The media type of the body, without parameters; empty when the request names none.

    Raises:
        BadRequest: it is not one of the accepted.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type and media_type not in accepted:
        raise reasons.HTTP_UNSUPPORTED_MEDIA_TYPE.refusal(accepted=" or ".join(accepted))
    return media_type


def _topic_and_event(request: Request) -> tuple[str, str]:
    """The topic and the event in the path `…/broadcast/{topic}/events/{event}`.

    Raises:
        BadRequest: there are more parts, one is empty, or one is not UTF-8.
    """
    path: bytes = request.scope["raw_path"]
    _, _, parts = path.partition(b"/broadcast/")
    try:
        topic, between, event = (unquote(part, errors="strict") for part in parts.decode().split("/"))
    except ValueError:
        raise reasons.HTTP_NOT_FOUND.refusal() from None
    if not topic or between != "events" or not event:
        raise reasons.HTTP_NOT_FOUND.refusal()
    return topic, event


def _private(value: str) -> bool:
    """Read the query parameter `private`; what is neither true nor false must not become public.

    Raises:
        Invalid: it is something else.
    """
    if value not in {"", "true", "false", "1", "0"}:
        refuse_field(reasons.HTTP_FIELD_INVALID, "private")
    return value in {"true", "1"}


async def _body(request: Request) -> bytes:
    """Read the body.

    Raises:
        BadRequest: it is too large; the rest is not read.
    """
    too_large = reasons.HTTP_BODY_TOO_LARGE.refusal()
    return await collect(request.stream(), most=MAX_BODY_BYTES, too_large=too_large)
