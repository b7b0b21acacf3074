"""The OpenAPI document of the HTTP API (OpenAPI 3.1.0): what `broadcast_api` does, for tools to read."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from backbeat.protocol import reasons
from backbeat.version import VERSION

if TYPE_CHECKING:
    from backbeat.protocol.reasons import Reason

__all__ = ["document"]

Json = dict[str, Any]

DESCRIPTION: Final = """\
Send broadcasts to channels without a socket. Topics are written without `realtime:` in front.
The channels themselves are WebSockets, at `/socket/websocket`; this document does not describe them.
Where the server is set to explain itself, every error also has a `code` and a `hint`.
"""

REQUEST_ID: Final[Json] = {"x-request-id": {"$ref": "#/components/headers/RequestId"}}


@cache
def document() -> Json:
    """The document; not to be changed."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Backbeat",
            "version": VERSION,
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [
            {"url": "/api", "description": "The server's own path"},
            {"url": "/realtime/v1/api", "description": "The path of a project URL"},
        ],
        "security": [{"apikey": []}, {"bearer": []}, {"apikey": [], "bearer": []}],
        "paths": {
            "/broadcast": {"post": _batch()},
            "/broadcast/{topic}/events/{event}": {"post": _single()},
            "/ping": {
                "get": {
                    "operationId": "ping",
                    "summary": "Tell whether the server answers",
                    "security": [],
                    "responses": {
                        "200": _answer("It does.", "Message", {"message": "Success"}),
                        "406": _refused(reasons.HTTP_NOT_ACCEPTABLE),
                        "429": _answer("The project is asked too much.", "Message"),
                    },
                }
            },
            "/openapi": {
                "get": {
                    "operationId": "openapi",
                    "summary": "This document",
                    "security": [],
                    "responses": {
                        "200": {
                            "description": "An OpenAPI document.",
                            "headers": REQUEST_ID,
                            "content": {"application/json": {"schema": {"type": "object"}}},
                        },
                        "406": _refused(reasons.HTTP_NOT_ACCEPTABLE),
                    },
                }
            },
        },
        "components": {
            "schemas": SCHEMAS,
            "headers": {
                "RequestId": {
                    "description": "Names the request in the server's log: the entry `request-id` of the "
                    "header `baggage` if there was one, else a name of the server's.",
                    "schema": {"type": "string"},
                }
            },
            "securitySchemes": {
                "apikey": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "apikey",
                    "description": "A key of the project: a JWT, or an opaque `sb_…` key.",
                },
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "A user's token; it goes before the key.",
                },
            },
        },
    }


def _batch() -> Json:
    message = {"topic": "room:1", "event": "ping", "payload": {"n": 1}, "private": False, "id": "m-1"}
    denied = reasons.BROADCAST_DENIED.refusal(topic="room:2")
    refused = {"index": 1, "topic": "room:2", "code": denied.code, "reason": denied.message}
    blank = {"messages": [{"event": [reasons.HTTP_FIELD_BLANK.text]}, {}]}
    accepted = _answer(
        "Accepted. There is a body only when policies refused some of the private messages: it names them, "
        "and the others were sent.",
        "Refused",
        {"refused": [refused]},
    )
    return {
        "operationId": "broadcastBatch",
        "summary": "Send a batch of messages",
        "description": "All messages are checked before any is sent. Public ones go first; the policies are "
        "asked once for each private topic.",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/Batch"},
                    "example": {"messages": [message]},
                }
            },
        },
        "responses": {
            "202": accepted,
            **_common(reasons.HTTP_UNSUPPORTED_MEDIA_TYPE.refusal(accepted="application/json").message),
            "422": _answer("A message makes no sense; nothing was sent.", "Errors", {"errors": blank}),
            "429": _answer("The project sends too much.", "Message"),
        },
    }


def _single() -> Json:
    both = "application/json or application/octet-stream"
    too_large = {"payload": [reasons.HTTP_PAYLOAD_TOO_LARGE.text]}
    unprocessable = _answer(
        "The message makes no sense, or the policies gave no answer; it was not sent.",
        "Unprocessable",
        {"errors": too_large},
    )
    return {
        "operationId": "broadcast",
        "summary": "Send one message",
        "description": "The payload is passed on as it is. Clients that speak protocol version 1.0.0 receive "
        "JSON only.",
        "parameters": [
            _parameter("topic", "path", {"type": "string", "minLength": 1}, "The topic; `/` is written %2F."),
            _parameter(
                "event",
                "path",
                {"type": "string", "minLength": 1},
                "The event, at most 255 bytes of UTF-8; `/` is written %2F.",
            ),
            _parameter(
                "private",
                "query",
                {"type": "boolean", "default": False},
                "Whether it goes to the private channel of that name.",
            ),
        ],
        "requestBody": {
            "description": "The payload. Without a content type the body is not read, and the payload `{}`.",
            "content": {
                "application/json": {"schema": {}, "example": {"n": 1}},
                "application/octet-stream": {"schema": {}},
            },
        },
        "responses": {
            "202": {"description": "Accepted.", "headers": REQUEST_ID},
            **_common(reasons.HTTP_UNSUPPORTED_MEDIA_TYPE.refusal(accepted=both).message),
            "403": _refused(reasons.HTTP_DENIED),
            "404": _refused(reasons.HTTP_NOT_FOUND),
            "422": unprocessable,
            "429": _answer(
                "The project sends too much, or the database is busy.",
                "Message",
                {"message": reasons.HTTP_POOL_EXHAUSTED.text},
            ),
        },
    }


def _common(unsupported: str) -> Json:
    """The answers that both ways to send have."""
    return {
        "400": _refused(reasons.HTTP_MALFORMED_JSON),
        "401": _refused(reasons.HTTP_UNAUTHORIZED),
        "406": _refused(reasons.HTTP_NOT_ACCEPTABLE),
        "413": _refused(reasons.HTTP_BODY_TOO_LARGE),
        "415": _answer(reasons.HTTP_UNSUPPORTED_MEDIA_TYPE.meaning, "Error", {"error": unsupported}),
    }


def _refused(reason: Reason) -> Json:
    return _answer(reason.meaning, "Message", {"message": reason.text})


def _answer(description: str, schema: str, example: Json | None = None) -> Json:
    content: Json = {"schema": {"$ref": f"#/components/schemas/{schema}"}}
    if example is not None:
        content["example"] = example
    return {
        "description": description,
        "headers": REQUEST_ID,
        "content": {"application/json": content},
    }


def _parameter(name: str, where: str, schema: Json, description: str) -> Json:
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "schema": schema,
        "description": description,
    }


def _object(required: dict[str, Json], optional: dict[str, Json] | None = None) -> Json:
    return {
        "type": "object",
        "required": sorted(required),
        "properties": required | (optional or {}),
    }


TEXT: Final[Json] = {"type": "string"}
FIELD_ERRORS: Final[Json] = {
    "type": "object",
    "additionalProperties": {"type": "array", "items": TEXT},
}
EXPLAINED: Final[dict[str, Json]] = {
    "code": {"type": "string", "description": "The stable name of the reason; if the server explains."},
    "hint": {"type": "string", "description": "What to do about it; if the server explains."},
}

SCHEMAS: Final[Json] = {
    "Batch": _object(
        {
            "messages": {
                "type": "array",
                "minItems": 1,
                "items": {"$ref": "#/components/schemas/BroadcastMessage"},
            }
        }
    ),
    "BroadcastMessage": _object(
        {
            "topic": {"type": "string", "pattern": "\\S", "description": "Without `realtime:` in front."},
            "event": {"type": "string", "pattern": "\\S"},
            "payload": {"type": "object"},
        },
        {
            "private": {"type": ["boolean", "null"], "default": False},
            "id": {"type": ["string", "null"], "description": "Receivers find it in `meta`."},
        },
    ),
    "Refused": _object(
        {
            "refused": {
                "type": "array",
                "items": _object(
                    {
                        "index": {"type": "integer", "description": "Its place in the batch, from 0."},
                        "topic": TEXT,
                        "code": TEXT,
                        "reason": TEXT,
                    },
                    {"hint": EXPLAINED["hint"]},
                ),
            }
        }
    ),
    "Message": _object({"message": TEXT}, EXPLAINED),
    "Error": _object({"error": TEXT}, EXPLAINED),
    "Errors": _object(
        {
            "errors": {
                "type": "object",
                "properties": {
                    "messages": {
                        "description": "One text for the batch, or one object for each message.",
                        "type": "array",
                        "items": {"anyOf": [TEXT, FIELD_ERRORS]},
                    }
                },
            }
        },
        EXPLAINED,
    ),
    "FieldErrors": _object({"errors": FIELD_ERRORS}, EXPLAINED),
    "Unprocessable": {
        "anyOf": [{"$ref": "#/components/schemas/FieldErrors"}, {"$ref": "#/components/schemas/Message"}]
    },
}
