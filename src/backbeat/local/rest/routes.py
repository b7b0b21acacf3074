"""The routes of `/rest/v1`: one transaction for each request, as the role of its caller."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import psycopg
import structlog
from psycopg import sql
from starlette.routing import Route

from backbeat.errors import TokenRefused, Unavailable
from backbeat.local.caller import caller
from backbeat.local.rest import answer, errors, statement
from backbeat.local.rest.answer import Outcome
from backbeat.local.rest.call import Call
from backbeat.local.rest.catalogue import FUNCTIONS, RELATION, Function, Relation, choose
from backbeat.local.rest.errors import RestError
from backbeat.local.rest.grammar import looks_like_condition, parse
from backbeat.local.rest.media import Media
from backbeat.local.rest.payload import Arguments, read_arguments, read_row, read_rows
from backbeat.postgres.database import become
from backbeat.tokens.claims import Claims

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from backbeat.local.rest.query import Query
    from backbeat.local.rest.statement import Statement
    from backbeat.postgres.database import Connection, Database
    from backbeat.tokens.keys import ApiKeys
    from backbeat.tokens.verifier import Verifier

__all__ = ["Rest"]

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
RESERVED = frozenset({"select", "order", "limit", "offset", "and", "or", "not.and", "not.or"})

SETTINGS = (files("backbeat.local.rest") / "sql" / "settings.sql").read_bytes()

NOBODY = Claims(role="anon", exp=math.inf, sub="", json='{"role":"anon"}')
"""Whom a request without key and token acts as."""

log = structlog.get_logger("backbeat.rest")


class Rest:
    """Tables and functions over HTTP (HTTP surface specification, section 5).

    Args:
        database: logs in as a role without rights of its own, and a member of those that tokens name.
        keys: the keys of the project.
        verifier: what tokens are checked with.
        schemas: the exposed schemas; the first is the one meant when a request names none.
        max_rows: the most rows a read answers with.
        statement_timeout: how long a statement of a caller may take, in seconds.
    """

    def __init__(
        self,
        *,
        database: Database,
        keys: ApiKeys,
        verifier: Verifier,
        schemas: tuple[str, ...] = ("public",),
        max_rows: int = 1000,
        statement_timeout: float = 8.0,
    ) -> None:
        self._database = database
        self._keys = keys
        self._verifier = verifier
        self._schemas = schemas
        self._max_rows = max_rows
        self._timeout = f"{statement_timeout * 1000:.0f}ms"

    def routes(self) -> list[Route]:
        """The routes, to be mounted at the root."""
        return [
            Route("/rest/v1/rpc/{name}", self._function, methods=METHODS),
            Route("/rest/v1/{name}", self._table, methods=METHODS),
        ]

    async def _function(self, request: Request) -> Response:
        return await self._serve(request, function=True)

    async def _table(self, request: Request) -> Response:
        return await self._serve(request, function=False)

    async def _serve(self, request: Request, *, function: bool) -> Response:
        """Serve a request, and say every refusal in the words of PostgREST."""
        claims = NOBODY
        try:
            token = caller(request, self._keys, self._verifier)
            claims = token.claims if token else NOBODY
            call = await Call.of(request, claims, schemas=self._schemas, function=function)
            if function:
                response = await self._call_function(call)
            elif call.reads:
                response = await self._read_table(call)
            else:
                response = await self._write_table(call)
        except RestError as error:
            response = answer.refused(error)
        except TokenRefused as error:
            response = answer.refused(errors.of_token(error))
        except Unavailable as error:
            response = answer.refused(errors.of_unavailable(error))
        except psycopg.Error as error:
            refusal = errors.of_database(error, role=claims.role)
            if refusal is None:
                raise
            if refusal.status >= 500:
                log.warning(
                    "statement failed", code=refusal.code, message=refusal.message, path=request.url.path
                )
            response = answer.refused(refusal)
        if request.method == "HEAD":
            # Only the bytes go: the headers, Content-Length included, are those of the GET (RFC 9110, 9.3.2).
            response.body = b""
        return response

    async def _read_table(self, call: Call) -> Response:
        query = self._capped(parse(call.pairs))
        async with self._transaction(call, RELATION) as (connection, found):
            relation = Relation.of(call.schema, call.name, found)
            outcome = await _run(
                call, connection, statement.read(relation, query, counted=call.counted, single=call.single)
            )
            answer.check(call, query, outcome)
        return answer.selected(call, query, outcome, answer.columns_of(query, relation))

    async def _write_table(self, call: Call) -> Response:
        query = parse(call.pairs)
        if call.method != "POST" and (query.limit is not None or query.offset):
            raise errors.limited_write(call.method)
        merged = 0
        async with self._transaction(call, RELATION) as (connection, found):
            relation = Relation.of(call.schema, call.name, found)
            made = _write(call, query, relation)
            outcome = (
                await _run(call, connection, made) if made else Outcome(0, 0 if call.counted else None, "[]")
            )
            answer.check(call, query, outcome)
            if call.preferences.resolution == "merge-duplicates":
                merged = await _merged(connection)
        return answer.written(call, query, outcome, relation, merged=merged)

    async def _call_function(self, call: Call) -> Response:
        async with self._transaction(call, FUNCTIONS) as (connection, found):
            candidates = [Function.of(call.schema, call.name, row) for row in found]
            arguments, query = _arguments(call, candidates)
            query = self._capped(query)
            function = choose(call.schema, call.name, candidates, frozenset(arguments.names))
            if function.shape == "value" and call.media is Media.CSV:
                raise errors.not_acceptable(call.media.value)
            if function.stable:
                await connection.execute("set transaction read only")
            single = call.single or not (function.many or call.media is Media.CSV)
            outcome = await _run(
                call,
                connection,
                statement.call(function, arguments, query, counted=call.counted, single=single),
            )
            answer.check(call, query, outcome)
        if function.shape == "void":
            return answer.nothing(call, outcome)
        return answer.selected(call, query, outcome, ())

    def _capped(self, query: Query) -> Query:
        """The query, its limit no higher than the server's."""
        limit = self._max_rows if query.limit is None else min(query.limit, self._max_rows)
        return replace(query, limit=limit)

    @asynccontextmanager
    async def _transaction(
        self, call: Call, lookup: bytes
    ) -> AsyncIterator[tuple[Connection, list[tuple[Any, ...]]]]:
        """Open the transaction of a request as its caller, and look up what it names (section 5.1)."""
        path = (call.schema, "public", "extensions")
        settings = {
            "read_only": "on" if call.reads else "off",
            "timeout": self._timeout,
            "search_path": ", ".join(sql.Identifier(name).as_string() for name in dict.fromkeys(path)),
            "method": call.method,
            "path": call.path,
            "headers": call.headers,
            "cookies": call.cookies,
        }
        async with self._database.connection() as connection, connection.transaction():
            async with connection.pipeline():
                await become(connection, call.claims)
                await connection.execute(SETTINGS, settings)
                cursor = await connection.execute(lookup, {"schema": call.schema, "name": call.name})
                found = await cursor.fetchall()
            yield connection, found


def _write(call: Call, query: Query, relation: Relation) -> Statement | None:
    """The statement of a write; None when an update names no column, and there is nothing to do."""
    if call.method == "POST":
        return statement.insert(relation, query, read_rows(call.body), call.preferences, single=call.single)
    if call.method == "DELETE":
        return statement.delete(relation, query, call.preferences, single=call.single)
    payload = read_row(call.body)
    if not (payload.keys or query.columns):
        return None
    return statement.update(relation, query, payload, call.preferences, single=call.single)


def _arguments(call: Call, candidates: Sequence[Function]) -> tuple[Arguments, Query]:
    """Tell the arguments of a call from the conditions on its result.

    In a query string, whatever a function has an argument for is one; so is what does not read as a
    condition, because a misspelt argument should be reported as that.
    """
    if not call.reads:
        return read_arguments(call.body), parse(call.pairs)
    known = {name for function in candidates for name in function.arguments}
    literals: dict[str, str] = {}
    others = []
    for name, value in call.pairs:
        if name in known or not (name in RESERVED or looks_like_condition(value)):
            literals[name] = value
        else:
            others.append((name, value))
    return Arguments(tuple(literals), literals=literals), parse(others)


async def _run(call: Call, connection: Connection, made: Statement) -> Outcome:
    """Run a statement.

    It is never prepared: PostgreSQL would keep the types of its parameters, and misread them when the table
    is dropped and created anew with other ones.
    """
    cursor = await connection.execute(made.text, made.values, prepare=False)
    if not made.returns:
        return Outcome(cursor.rowcount, cursor.rowcount if call.counted else None)
    row = await cursor.fetchone()
    assert row is not None, "an aggregate without GROUP BY has one row"
    return Outcome(*row)


async def _merged(connection: Connection) -> int:
    """How many rows the upsert of this transaction merged into those that existed."""
    row = await (await connection.execute(statement.MERGED)).fetchone()
    assert row is not None, "a SELECT without FROM has one row"
    return int(row[0])
