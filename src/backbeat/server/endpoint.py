"""A path of an HTTP API: the handler by method, and an answer in JSON whatever happens.

Server specification, section 1.6.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import unquote

import msgspec
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from backbeat.errors import Refusal
from backbeat.protocol import reasons

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from backbeat.protocol.reasons import Reason
    from backbeat.server.realtime import Realtime

__all__ = ["JSON", "Endpoint", "Handler", "Invalid", "json_response", "refuse_field", "request_id"]

log = structlog.get_logger("backbeat.http")

JSON: Final = "application/json"
CHARSET_JSON: Final = f"{JSON}; charset=utf-8"

BAGGAGE_KEY: Final = "request-id"
"""The entry of the `baggage` header that names a request, if the caller has a name for it."""

REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{20,200}")
ZERO_QUALITY: Final = re.compile(r"q=0(\.0*)?")

Handler = Callable[[Request], Awaitable[Response]]


class Invalid(Exception):
    """The request can be read, but some of its fields make no sense.

    Args:
        reason: what is wrong with the first of them.
        errors: what is wrong, field by field, as clients read it.
    """

    def __init__(self, reason: Reason, errors: Mapping[str, Any]) -> None:
        super().__init__(reason.text)
        self.refusal = reason.refusal()
        self.errors = errors


class Endpoint:
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
        except Invalid as invalid:
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
        response = json_response(body, refusal.status)
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


def json_response(body: object, status: int = 200) -> Response:
    """An answer in JSON."""
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


def refuse_field(reason: Reason, field: str) -> NoReturn:
    """Refuse a request because of one field.

    Raises:
        Invalid: always.
    """
    raise Invalid(reason, {field: [reason.text]})


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
