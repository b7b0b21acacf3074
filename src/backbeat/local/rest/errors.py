"""What `/rest/v1` says when it refuses: status, code, message, details and hint (section 5.7).

The codes and texts are those PostgREST clients test for. A database error keeps PostgreSQL's own words; only
its HTTP status is decided here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from backbeat.errors import Refusal, Retry, Unavailable
from backbeat.protocol import reasons

if TYPE_CHECKING:
    from collections.abc import Iterable

    from backbeat.errors import TokenRefused

__all__ = ["RestError", "of_database", "of_token", "of_unavailable"]


class RestError(Refusal):
    """An error answer of `/rest/v1`.

    Args:
        status: the HTTP status.
        code: a SQLSTATE, or a `PGRST…` code.
        message: what failed.
        details: more about it, if there is more.
        hint: what to do about it, if that is known.
        challenge: the `WWW-Authenticate` header of a 401.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: str | None = None,
        hint: str | None = None,
        challenge: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint or "", code=code, status=status)
        self.details = details
        self.challenge = challenge

    @property
    def body(self) -> dict[str, str | None]:
        """The JSON object of the answer."""
        return {
            "code": self.code,
            "details": self.details,
            "hint": self.hint or None,
            "message": self.message,
        }

    @property
    def headers(self) -> dict[str, str]:
        """The headers that go with the status."""
        return {} if self.challenge is None else {"WWW-Authenticate": self.challenge}


# The request ------------------------------------------------------------------------------------------------


def unparsable(what: str, text: str, position: int, details: str) -> RestError:
    """A query parameter that does not follow the grammar; `position` counts characters from zero."""
    return RestError(
        400, "PGRST100", f'"failed to parse {what} ({text})" (line 1, column {position + 1})', details=details
    )


def bad_body(message: str, *, status: int = 400) -> RestError:
    """A body that is not the JSON that is needed."""
    return RestError(status, "PGRST102", message)


def limited_write(method: str) -> RestError:
    """A limit on an update or delete: leaving it out in silence would touch every row."""
    return RestError(
        400,
        "PGRST100",
        f"limit and offset are not supported with {method}",
        hint="Filter by the primary key of the rows that are meant.",
    )


def unsupported_method(method: str, *, function: bool) -> RestError:
    """A method that means nothing here."""
    if function:
        return RestError(405, "PGRST101", f"Cannot use the {method} method on RPC")
    return RestError(405, "PGRST117", f"Unsupported HTTP method: {method}")


def not_acceptable(accept: str) -> RestError:
    """No format the caller accepts can be made."""
    return RestError(406, "PGRST107", f"None of these media types are available: {accept}")


def unknown_schema(schemas: Iterable[str]) -> RestError:
    """A profile header that names a schema that is not exposed."""
    return RestError(406, "PGRST106", f"The schema must be one of the following: {', '.join(schemas)}")


def embedding(relation: str) -> RestError:
    """Another table inside of `select` or `order`."""
    return RestError(
        400,
        "PGRST200",
        f"Could not find a relationship to '{relation}' in the schema cache",
        details="This development stand-in for PostgREST does not embed other tables.",
        hint="Ask for the tables one at a time, or create a view or a function.",
    )


def embedded_parameter(relation: str) -> RestError:
    """A query parameter such as `other.id`: it would belong to an embedded table."""
    return RestError(
        400,
        "PGRST108",
        f"'{relation}' is not an embedded resource in this request",
        hint="A column name that contains a dot is written in double quotes.",
    )


def aggregate() -> RestError:
    """`amount.sum()` and its kin, which PostgREST refuses by default as well."""
    return RestError(400, "PGRST123", "Use of aggregate functions is not allowed")


# What is not there ------------------------------------------------------------------------------------------


def unknown_table(schema: str, name: str) -> RestError:
    """No such table or view."""
    return RestError(404, "PGRST205", f"Could not find the table '{schema}.{name}' in the schema cache")


def unknown_column(table: str, name: str) -> RestError:
    """A write names a column the table has not."""
    return RestError(400, "PGRST204", f"Could not find the '{name}' column of '{table}' in the schema cache")


def unknown_function(schema: str, name: str, arguments: Iterable[str]) -> RestError:
    """No function of that name takes these arguments."""
    names = ", ".join(sorted(arguments))
    return RestError(
        404,
        "PGRST202",
        f"Could not find the function {schema}.{name}{f'({names})' if names else ''} in the schema cache",
        details=f"Searched for the function {schema}.{name} "
        f"{f'with the parameters {names}' if names else 'without parameters'}, but no matches were found.",
    )


def ambiguous_function(schema: str, name: str, candidates: Iterable[str]) -> RestError:
    """Several functions of that name take these arguments."""
    return RestError(
        300,
        "PGRST203",
        f"Could not choose the best candidate function between: {', '.join(candidates)}",
        hint=f"Give {schema}.{name} other argument names, or give every argument.",
    )


# The result -------------------------------------------------------------------------------------------------


def not_singular(rows: int) -> RestError:
    """One object was asked for, and there are more, or none."""
    return RestError(
        406,
        "PGRST116",
        "JSON object requested, multiple (or no) rows returned",
        details=f"The result contains {rows} rows",
    )


def out_of_range(offset: int, total: int) -> RestError:
    """An offset beyond the last row."""
    return RestError(
        416,
        "PGRST103",
        "Requested range not satisfiable",
        details=f"An offset of {offset} was requested, but there are only {total} rows.",
    )


# Errors of others -------------------------------------------------------------------------------------------


def of_token(refusal: TokenRefused) -> RestError:
    """Say the refusal of a key or token in the words of PostgREST."""
    if refusal.code == reasons.API_KEY_UNKNOWN.code:
        return RestError(401, "PGRST301", refusal.message, hint=refusal.hint, challenge="Bearer")
    expired = refusal.retry is Retry.REFRESH
    message = "JWT expired" if expired else f"JWSError {refusal.message}"
    return RestError(
        401,
        "PGRST303" if expired else "PGRST301",
        message,
        hint=refusal.hint,
        challenge=f'Bearer error="invalid_token", error_description="{message.translate(UNQUOTABLE)}"',
    )


UNQUOTABLE = {ord(character): "'" for character in '"\\'} | dict.fromkeys(
    [*range(32), *range(127, 0x110000)], "?"
)
"""What a quoted string of a header cannot hold (RFC 9110, section 5.6.4); a message may name a `kid`."""


def of_unavailable(refusal: Unavailable) -> RestError:
    """Say that no connection to the database was to be had."""
    if refusal.code == reasons.POOL_EXHAUSTED.code:
        return RestError(504, "PGRST003", "Timed out acquiring connection from connection pool.")
    return RestError(
        503,
        "PGRST000",
        "Database connection error. Retrying the connection.",
        hint="Check that Postgres runs and that the server's login works.",
    )


STATUS_BY_STATE = {
    "23503": 409,
    "23505": 409,
    "25006": 405,
    "42883": 404,
    "42P01": 404,
    "42P17": 500,
    "53400": 500,
    "57P01": 503,
    "P0001": 400,
}
STATUS_BY_CLASS = {
    "08": 503,
    "09": 500,
    "0L": 403,
    "0P": 403,
    "21": 500,
    "25": 500,
    "28": 403,
    "2D": 500,
    "38": 500,
    "39": 500,
    "3B": 500,
    "40": 500,
    "53": 503,
    "54": 500,
    "55": 500,
    "57": 500,
    "58": 500,
    "F0": 500,
    "HV": 500,
    "P0": 500,
    "XX": 500,
}
"""The first two characters of a SQLSTATE name its class; every other class is the caller's mistake: 400."""


def of_database(error: psycopg.Error, *, role: str) -> RestError | None:
    """Say an error of PostgreSQL over HTTP.

    Args:
        error: what psycopg raised.
        role: the role that was acted as; `anon` can help itself by signing in, hence 401 instead of 403.

    Returns:
        The answer; None when the driver itself refused a statement, which is a fault of ours.
    """
    diagnosis = error.diag
    state, message = error.sqlstate, diagnosis.message_primary
    if state is None or message is None:
        if isinstance(error, psycopg.DataError):
            # The driver refuses what PostgreSQL could not store, such as U+0000, before sending it.
            return RestError(400, "22021", 'invalid byte sequence for encoding "UTF8"')
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            return RestError(503, "PGRST001", "The connection to the database was lost.")
        return None
    status = STATUS_BY_STATE.get(state, STATUS_BY_CLASS.get(state[:2], 400))
    challenge = None
    if state == "42501":
        status, challenge = (401, "Bearer") if role == "anon" else (403, None)
    elif state == "22023" and message == f'role "{role}" does not exist':
        status, challenge = 401, "Bearer"
    return RestError(
        status,
        state,
        message,
        details=diagnosis.message_detail,
        hint=diagnosis.message_hint,
        challenge=challenge,
    )
