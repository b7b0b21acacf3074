"""Broadcast over HTTP, for callers without a socket: one message, or a batch of them.

Server specification, sections 1.1, 1.6, 6.4 and 6.5. A message of a batch is a text broadcast; one that is
sent alone is a user broadcast, its payload passed on as it came. Public messages are sent at once; for
private ones the policies on realtime.messages are asked, once for each topic. What a policy refuses is named
in the answer: nothing is dropped in silence.

Three oddities of the original are left out, for no client depends on them: a JSON payload that is no object
is not wrapped in `_json`, and neither `private` nor `_binary` in a payload changes how it is sent.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, TypeVar
from urllib.parse import unquote

import msgspec
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from backbeat.errors import ProtocolError, Refusal, TokenRefused, Unavailable
from backbeat.protocol import reasons
from backbeat.protocol.codec import json_text
from backbeat.protocol.messages import TOPIC_PREFIX, Event
from backbeat.server.addresses import TRUSTED, policy_headers
from backbeat.server.body import collect
from backbeat.server.delivery import TextDelivery, UserBroadcast
from backbeat.server.openapi import document

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from backbeat.protocol.reasons import Reason
    from backbeat.server.delivery import Delivery
    from backbeat.server.realtime import Realtime
    from backbeat.tokens.claims import Token
    from backbeat.tokens.keys import ApiKeys

__all__ = ["Limiter", "broadcast_routes", "request_id", "token_of_request"]

log = structlog.get_logger("backbeat.http")

T = TypeVar("T")

PREFIXES: Final = ("/api", "/realtime/v1/api")
"""Where the API is: the server's own path, and the one a gateway would put in front."""

MAX_BODY_BYTES: Final = 8_000_000

PER_TURN: Final = 500
"""Messages of a batch that are looked at in one turn of the event loop: there may be a hundred thousand."""

JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"
CHARSET_JSON: Final = f"{JSON}; charset=utf-8"

BAGGAGE_KEY: Final = "request-id"
"""The entry of the `baggage` header that names a request, if the caller has a name for it."""

REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{20,200}")
ZERO_QUALITY: Final = re.compile(r"q=0(\.0*)?")


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
        Route(prefix + path, _Endpoint(realtime, methods))
        for path, methods in handlers
        for prefix in PREFIXES
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


def request_id(baggage: str) -> str:
    """Name a request: as its caller does, if that is printable and of a sane length, else anew.

    Args:
        baggage: the `baggage` header (W3C Baggage, section 3.2), or an empty string.
    """
    for entry in baggage.split(","):
        key, _, value = entry.partition(";")[0].partition("=")
        if key.strip() == BAGGAGE_KEY and REQUEST_ID.fullmatch(name := unquote(value.strip())):
            return name
    return uuid.uuid4().hex


# Endpoints --------------------------------------------------------------------------------------------------

Handler = Callable[[Request], Awaitable[Response]]


class _Invalid(Exception):
    """The request can be read, but some of its fields make no sense.

    Args:
        reason: what is wrong with the first of them.
        errors: what is wrong, field by field, as clients read it.
    """

    def __init__(self, reason: Reason, errors: Mapping[str, Any]) -> None:
        super().__init__(reason.text)
        self.refusal = reason.refusal()
        self.errors = errors


class _Endpoint:
    """One path: chooses the handler by method, and answers in JSON whatever happens.

    Args:
        realtime: the server.
        handlers: the handlers by method; none of them means that there is nothing here.
    """

    def __init__(self, realtime: Realtime, handlers: Mapping[str, Handler]) -> None:
        self._realtime = realtime
        self._handlers = handlers
        self._allow = ", ".join(sorted({*handlers, "OPTIONS", *({"HEAD"} if "GET" in handlers else ())}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        request = Request(scope, receive)
        name = request_id(request.headers.get("baggage", ""))
        with structlog.contextvars.bound_contextvars(request_id=name):
            response = await self._respond(request)
        # Browsers need the first to let a page read the answer, errors included.
        response.headers["access-control-allow-origin"] = "*"
        response.headers["x-request-id"] = name
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        if request.method == "OPTIONS":
            return self._preflight(request)
        try:
            return await self._handler(request)(request)
        except Refusal as refusal:
            return self._refuse(request, refusal)
        except _Invalid as invalid:
            return self._refuse(request, invalid.refusal, invalid.errors)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except Exception:
            self._realtime.metrics.handler_failures += 1
            log.exception("request failed", path=request.url.path)
            return self._refuse(request, reasons.HTTP_FAILED.refusal())

    def _handler(self, request: Request) -> Handler:
        if not self._handlers:
            raise reasons.HTTP_NOT_FOUND.refusal()
        handler = self._handlers.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            raise reasons.HTTP_METHOD_NOT_ALLOWED.refusal()
        if not _accepts_json(request.headers.get("accept", "")):
            raise reasons.HTTP_NOT_ACCEPTABLE.refusal()
        return handler

    def _refuse(
        self, request: Request, refusal: Refusal, errors: Mapping[str, Any] | None = None
    ) -> Response:
        """Write a refusal, under the key that clients of the original look at."""
        self._realtime.count_refusal(refusal)
        log.info(
            "request refused",
            code=refusal.code,
            status=refusal.status,
            path=request.url.path,
            reason=refusal.message,
            hint=refusal.hint,
        )
        body: dict[str, Any]
        if errors is not None:
            body = {"errors": errors}
        elif refusal.status == reasons.HTTP_UNSUPPORTED_MEDIA_TYPE.status:
            body = {"error": refusal.message}
        else:
            body = {"message": refusal.message}
        if self._realtime.settings.explain:
            body |= {"code": refusal.code, "hint": refusal.hint}
        response = _json(body, refusal.status)
        if refusal.status == reasons.HTTP_METHOD_NOT_ALLOWED.status:
            response.headers["allow"] = self._allow
        return response

    def _preflight(self, request: Request) -> Response:
        """Answer a browser that asks whether it may ask; what it wants to send is echoed."""
        return Response(
            status_code=204,
            headers={
                "access-control-allow-methods": self._allow,
                "access-control-allow-headers": request.headers.get("access-control-request-headers", "*"),
                "access-control-max-age": "86400",
                "allow": self._allow,
            },
        )


async def _openapi(_: Request) -> Response:
    return _json(document())


def _json(body: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, media_type=CHARSET_JSON)


def _accepts_json(accept: str) -> bool:
    """Whether an `Accept` header allows JSON (RFC 9110, section 12.5.1)."""
    if not accept.strip():
        return True
    for entry in accept.lower().split(","):
        media_range, *parameters = (part.strip() for part in entry.split(";"))
        if media_range in {JSON, "application/*", "*/*", "*"}:
            return not any(ZERO_QUALITY.fullmatch(parameter) for parameter in parameters)
    return False


# Broadcast --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Caller:
    """Who sends.

    Attributes:
        token: the verified token.
        headers: the `x-*` headers, which policies see as request.headers; the key itself is not for them.
    """

    token: Token
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Message:
    """One message of a batch; its payload is JSON text of an object."""

    topic: str
    event: str
    payload: bytes
    private: bool
    id: str | None

    def delivery(self) -> TextDelivery:
        """The broadcast as members receive it."""
        meta = b',"meta":{"id":%b}' % msgspec.json.encode(self.id) if self.id is not None else b""
        return TextDelivery(
            Event.BROADCAST,
            b'{"event":%b,"payload":%b,"type":"broadcast"%b}' % (json_text(self.event), self.payload, meta),
        )


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
        return _json({"message": "Success"})

    async def batch(self, request: Request) -> Response:
        """Send a batch: all of it is checked before any of it is sent (section 6.4)."""
        _content_type(request, JSON)
        self._count_request()
        caller = await self._caller(request)
        messages = await _messages(await _body(request), self._realtime.settings.max_payload_bytes)
        self._count_messages(len(messages))
        async for message in _in_turns(messages):
            if not message.private:
                self._publish(message.topic, message.delivery(), len(message.payload), private=False)
        refused = await self._send_private(messages, caller)
        return _json({"refused": refused}, 202) if refused else Response(status_code=202)

    async def single(self, request: Request) -> Response:
        """Send one message, its payload JSON or bytes (section 6.5)."""
        content_type = _content_type(request, JSON, BYTES)
        topic, event = _topic_and_event(request)
        self._count_request()
        caller = await self._caller(request)
        private = _private(request.query_params.get("private", ""))
        payload = await _body(request) if content_type else b""
        if len(payload) > self._realtime.settings.max_payload_bytes:
            _refuse_field(reasons.HTTP_PAYLOAD_TOO_LARGE, "payload")
        if content_type != BYTES:
            payload = payload or b"{}"
            _check_json(payload)
        try:
            delivery = UserBroadcast(event, payload, is_json=content_type != BYTES)
        except ProtocolError:
            _refuse_field(reasons.HTTP_EVENT_TOO_LONG, "event")
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

    async def _send_private(self, messages: Sequence[_Message], caller: _Caller) -> list[dict[str, Any]]:
        """Send the private messages of a batch that policies allow; return those that were refused, and why.

        Topics are asked about one after the other, so that a batch takes one database connection at most;
        once the database could not answer, it is not asked again.
        """
        answers: dict[str, Refusal | None] = {}
        unavailable: Unavailable | None = None
        refused: list[dict[str, Any]] = []
        async for index, message in _in_turns(enumerate(messages)):
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

_raw = msgspec.json.Decoder(msgspec.Raw)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_entries = msgspec.json.Decoder(list[msgspec.Raw] | None)
_text = msgspec.json.Decoder(str | None)
_flag = msgspec.json.Decoder(bool | None)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)


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
        _Invalid: it is something else.
    """
    if value not in {"", "true", "false", "1", "0"}:
        _refuse_field(reasons.HTTP_FIELD_INVALID, "private")
    return value in {"true", "1"}


async def _body(request: Request) -> bytes:
    """Read the body.

    Raises:
        BadRequest: it is too large; the rest is not read.
    """
    too_large = reasons.HTTP_BODY_TOO_LARGE.refusal()
    return await collect(request.stream(), most=MAX_BODY_BYTES, too_large=too_large)


def _check_json(body: bytes) -> None:
    """Check that a body is JSON text, all of it: what is spliced through is not looked at again.

    Raises:
        BadRequest: it is not.
    """
    try:
        body.isascii() or body.decode()
        _raw.decode(body)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise reasons.HTTP_MALFORMED_JSON.refusal() from error


async def _in_turns(items: Iterable[T]) -> AsyncIterator[T]:
    """Go through what may be much, and let others have their turns."""
    for number, item in enumerate(items, 1):
        yield item
        if number % PER_TURN == 0:
            await asyncio.sleep(0)


async def _messages(body: bytes, max_payload: int) -> list[_Message]:
    """Read a batch.

    Args:
        body: the request body.
        max_payload: the largest payload, in bytes.

    Raises:
        BadRequest: the body is not JSON.
        _Invalid: it is not a batch, or a message in it is not one.
    """
    body = body or b"{}"
    _check_json(body)
    fields = _object_fields(body)
    problems: dict[str, Reason] = {}
    entries = _read(fields, "messages", _entries, problems)
    if problems:
        _refuse_field(reasons.HTTP_FIELD_INVALID, "messages")
    if not entries:
        _refuse_field(reasons.HTTP_FIELD_BLANK, "messages")
    read = [_message(bytes(entry), max_payload) async for entry in _in_turns(entries)]
    wrong = [{} if isinstance(each, _Message) else each for each in read]
    if any(wrong):
        first = next(reason for each in wrong for reason in each.values())
        texts = [{name: [reason.text] for name, reason in each.items()} for each in wrong]
        raise _Invalid(first, {"messages": texts})
    return [each for each in read if isinstance(each, _Message)]


def _message(entry: bytes, max_payload: int) -> _Message | dict[str, Reason]:
    """Read one message of a batch, or say what is wrong with which of its fields."""
    problems: dict[str, Reason] = {}
    fields = _object_fields(entry)
    topic = _read(fields, "topic", _text, problems, required=True)
    event = _read(fields, "event", _text, problems, required=True)
    payload = _read(fields, "payload", _object, problems, required=True)
    private = _read(fields, "private", _flag, problems)
    name = _read(fields, "id", _text, problems)
    text = bytes(fields["payload"]) if payload is not None else b""
    if len(text) > max_payload:
        problems["payload"] = reasons.HTTP_PAYLOAD_TOO_LARGE
    if problems or topic is None or event is None:
        return problems
    return _Message(topic, event, text, private=bool(private), id=name)


def _object_fields(text: bytes) -> Mapping[str, msgspec.Raw]:
    """The fields of an object; what is no object has none."""
    try:
        return _fields.decode(text)
    except msgspec.ValidationError:
        return {}


def _read(
    fields: Mapping[str, msgspec.Raw],
    name: str,
    decoder: msgspec.json.Decoder[T],
    problems: dict[str, Reason],
    *,
    required: bool = False,
) -> T | None:
    """Read one field, or note what is wrong with it.

    Args:
        fields: the fields of the object.
        name: the field.
        decoder: reads it; None where it is null.
        problems: where the problem is noted.
        required: whether it may be missing, null or blank.
    """
    try:
        value = decoder.decode(fields.get(name, b"null"))
    except msgspec.ValidationError:
        problems[name] = reasons.HTTP_FIELD_INVALID
        return None
    if required and (value is None or (isinstance(value, str) and not value.strip())):
        problems[name] = reasons.HTTP_FIELD_BLANK
    return value


def _refuse_field(reason: Reason, field: str) -> NoReturn:
    raise _Invalid(reason, {field: [reason.text]})
