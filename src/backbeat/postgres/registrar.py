"""Requested bindings become subscriptions: checked against the catalogue, their filters read by Postgres."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from importlib.resources import files
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgspec
import psycopg
from psycopg import errors, sql

from backbeat.errors import Refusal
from backbeat.postgres.catalogue import load_types
from backbeat.postgres.dedicated import Dedicated
from backbeat.postgres.evaluator import collated, operator_of
from backbeat.postgres.subscriptions import Subscription
from backbeat.postgres.visibility import read_access
from backbeat.protocol import reasons
from backbeat.protocol.bindings import ANY
from backbeat.protocol.filters import (
    EQUALITIES,
    MAX_IN_VALUES,
    ORDERS,
    PATTERNS,
    Comparison,
    Relation,
    as_integer,
    as_moment,
    as_number,
    as_padded,
    as_text,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

    from backbeat.postgres.database import Connection
    from backbeat.postgres.policies import Access
    from backbeat.postgres.values import TypeInfo
    from backbeat.protocol.bindings import Binding
    from backbeat.protocol.filters import Condition, Normal
    from backbeat.tokens.claims import Claims

__all__ = ["Prepared", "Registrar"]

TIMEOUT: Final = 5_000
"""Milliseconds for one look into the catalogue."""
READING_TIMEOUT: Final = 1_000
"""Milliseconds for reading the values of filters. A pattern may take for ever to be understood."""

_PUBLISHED = (files("backbeat.postgres") / "sql" / "published.sql").read_bytes()
_COMPARABLE = (files("backbeat.postgres") / "sql" / "comparable.sql").read_bytes()

_EQUAL_AS_TEXT: Final = {
    16: "bool",
    17: "bytea",
    18: "char",
    19: "name",
    20: "int8",
    21: "int2",
    23: "int4",
    25: "text",
    26: "oid",
    28: "xid",
    650: "cidr",
    774: "macaddr8",
    790: "money",
    829: "macaddr",
    869: "inet",
    1082: "date",
    1083: "time",
    1114: "timestamp",
    1184: "timestamptz",
    1266: "timetz",
    1560: "bit",
    1562: "varbit",
    2950: "uuid",
    3220: "pg_lsn",
}
"""Types of which two values are equal exactly when their texts are."""

_ORDERED_AS_TEXT: Final = {16: "bool", 17: "bytea", 1083: "time", 2950: "uuid"}
"""Types whose values come in the order of their texts."""

_INTEGERS: Final = {20: "int8", 21: "int2", 23: "int4", 26: "oid"}
_NUMBERS: Final = {700: "float4", 701: "float8", 1700: "numeric"}
_MOMENTS: Final = {1082: "date", 1114: "timestamp", 1184: "timestamptz"}
_TEXTS: Final = {19: "name", 25: "text"}
_BPCHAR: Final = 1042
_BYTEA: Final = 17

_SYMBOLS: Final = dict.fromkeys(EQUALITIES, "=") | {
    "lt": "<",
    "lte": "<=",
    "gt": ">",
    "gte": ">=",
    "like": "~~",
    "ilike": "~~*",
    "match": "~",
    "imatch": "~*",
}
"""The operators as SQL writes them. Whatever only turns them around is done when a row is compared."""


class Operand(msgspec.Struct, frozen=True):
    """An operator of a type: where it is, and what stands to its right."""

    schema: str
    right: str


class Comparable(msgspec.Struct, frozen=True):
    """How a column is compared (`sql/comparable.sql`)."""

    table: int
    column: str
    declared_oid: int
    """Its type."""
    declared: str
    """The same, as SQL writes it."""
    deterministic: bool
    """Whether only equal texts are equal under its collation."""
    oid: int
    """Its type, below any domain; a varchar compares as a text."""
    type: str
    enum: bool
    collation: str | None
    bytewise: bool
    """Whether the collation orders texts by their bytes, and bytes are what we see."""
    operators: dict[str, Operand]
    """The operators of the very type; beside them there are those for all enums, arrays and the like."""


class _Reading(NamedTuple):
    """What is to be read by Postgres: the value of a filter.

    Attributes:
        relation: what it is for.
        type: the type of the column.
    """

    relation: Relation
    type: str


_Read: TypeAlias = "Mapping[tuple[_Reading, str], bytes | psycopg.Error]"
"""Values as Postgres writes them, or why it cannot read them."""


class _Draft(NamedTuple):
    """A condition on a column, before its values have been read.

    Attributes:
        condition: what the client wrote.
        normal: how rows are compared; None where Postgres compares.
        reading: how its values are read; None for a keyword.
        texts: the values in the form in which they are read.
        comparable: the column.
    """

    condition: Condition
    normal: Normal | None
    reading: _Reading | None
    texts: tuple[str | None, ...]
    comparable: Comparable


class _Target(NamedTuple):
    """A table, or a wildcard, that a binding is kept under."""

    binding: Binding
    position: int
    schema: str
    table: str
    drafts: tuple[_Draft, ...]


class Prepared(NamedTuple):
    """What has become of the bindings of a subscriber.

    Attributes:
        subscriptions: ready to be matched with changes.
        tables: the oids of the tables they are for at the moment.
    """

    subscriptions: list[Subscription]
    tables: set[int]


class _Request:
    """Bindings to be prepared, and what came of it."""

    def __init__(self, subscriber: Hashable, bindings: Sequence[Binding], claims: Claims) -> None:
        self.subscriber = subscriber
        self.bindings = bindings
        self.claims = claims
        self.outcome: list[Subscription] | Refusal | None = None
        self.tables: set[int] = set()


class _Published(NamedTuple):
    """A table in the publication.

    Attributes:
        name: schema and name.
        columns: those that are published.
        events: those that are published, of INSERT, UPDATE and DELETE.
    """

    name: tuple[str, str]
    columns: Collection[str]
    events: Collection[str]


class _Catalogue(NamedTuple):
    """What was found out about the tables of some requests."""

    published: Mapping[int, _Published]
    access: Mapping[tuple[int, str], Access]
    comparable: Mapping[tuple[int, str], Comparable]


class Registrar:
    """Prepares subscriptions, over a connection of its own.

    Whoever comes while the catalogue is being read waits for it, and is then prepared together with all
    others who came: a thousand channels that join at once take as many statements as a few.

    Args:
        url: where Postgres is and who logs in.
        publication: the tables that may be subscribed to.

    Attributes:
        types: the types of the database, as far as they have been needed.
    """

    def __init__(self, url: str, publication: str) -> None:
        self.types: Mapping[int, TypeInfo] = {}
        self._publication = publication
        self._dedicated = Dedicated(
            url,
            name="backbeat subscriptions",
            settings={"statement_timeout": str(TIMEOUT), "search_path": ""},
        )
        self._waiting: list[_Request] = []
        self._turn = asyncio.Lock()

    async def aclose(self) -> None:
        """Close the connection."""
        await self._dedicated.aclose()

    async def read_types(self) -> None:
        """Read the types of the database anew.

        Raises:
            psycopg.OperationalError: the connection was lost.
        """
        async with self._dedicated.hold() as connection:
            self.types = await load_types(connection)

    async def prepare(self, subscriber: Hashable, bindings: Sequence[Binding], claims: Claims) -> Prepared:
        """Check bindings, and make them ready.

        Args:
            subscriber: who is to be told.
            bindings: what is wanted.
            claims: as whom the rows are read.

        Raises:
            BadRequest: a table is not published, a column is not there or not readable, its type lacks the
                operator, or a value does not suit it.
            Unavailable: the database cannot be reached.
        """
        request = _Request(subscriber, bindings, claims)
        self._waiting.append(request)
        try:
            async with self._turn:
                # Whoever had the turn before has prepared this one too, unless it came later or was given up.
                if request.outcome is None:
                    await self._prepare(tuple(self._waiting))
        finally:
            self._waiting.remove(request)
        assert request.outcome is not None
        if isinstance(request.outcome, Refusal):
            raise request.outcome
        return Prepared(request.outcome, request.tables)

    async def _prepare(self, requests: Sequence[_Request]) -> None:
        """Prepare what is waiting, all at once: each request gets its outcome."""
        requests = [request for request in requests if request.outcome is None]
        try:
            async with self._dedicated.hold() as connection:
                catalogue = await self._look_up(connection, requests)
                targets: dict[_Request, list[_Target]] = {}
                for request in requests:
                    try:
                        targets[request] = self._targets(request, catalogue)
                    except Refusal as refusal:
                        request.outcome = refusal
                drafts = [d for those in targets.values() for target in those for d in target.drafts]
                read = await _read(connection, drafts)
        except psycopg.OperationalError:
            for request in requests:
                request.outcome = reasons.CHANGES_UNAVAILABLE.refusal(detail="the database cannot be reached")
            return
        for request, those in targets.items():
            try:
                request.outcome = [_subscription(request, target, read) for target in those]
            except Refusal as refusal:
                request.outcome = refusal

    async def _look_up(self, connection: Connection, requests: Iterable[_Request]) -> _Catalogue:
        """Read what the catalogue says about the tables of requests."""
        bindings = [binding for request in requests for binding in request.bindings]
        names = sorted({(binding.schema, binding.table) for binding in bindings})
        filtered = {(binding.schema, binding.table) for binding in bindings if binding.conditions}
        cursor = await connection.execute(
            _PUBLISHED,
            {
                "publication": self._publication,
                "schemas": [schema for schema, _ in names],
                "tables": [table for _, table in names],
            },
        )
        published = {
            oid: _Published((schema, table), columns, events)
            for oid, schema, table, columns, events in await cursor.fetchall()
        }
        access = await read_access(connection, published, {request.claims.role for request in requests})
        compared = [
            oid for oid, table in published.items() if any(_stands_for(each, table.name) for each in filtered)
        ]
        comparable = await _read_comparable(connection, compared) if compared else {}
        return _Catalogue(published, access, comparable)

    def _targets(self, request: _Request, catalogue: _Catalogue) -> list[_Target]:
        """Tell which names bindings are kept under, and what of their filters has to be read.

        A filter means something else for each table, for columns differ: with one, a wildcard stands for the
        tables published now. Without one it also stands for those to come.

        Raises:
            BadRequest: a binding does not suit its tables.
        """
        role, targets = request.claims.role, []
        for position, binding in enumerate(request.bindings):
            name = binding.schema, binding.table
            tables = [
                _checked(catalogue.access.get((oid, role)), role, binding, published)
                for oid, published in catalogue.published.items()
                if _stands_for(name, published.name)
            ]
            request.tables |= {access.oid for access in tables}
            if not tables:
                raise reasons.CHANGES_NO_TABLE.refusal(params=binding.requested)
            if not binding.conditions:
                targets.append(_Target(binding, position, *name, ()))
                continue
            for access in tables:
                drafts = tuple(
                    self._draft(access, condition, binding, catalogue) for condition in binding.conditions
                )
                targets.append(_Target(binding, position, access.schema, access.table, drafts))
        return targets

    def _draft(self, access: Access, condition: Condition, binding: Binding, catalogue: _Catalogue) -> _Draft:
        """Find out how a column is compared.

        Raises:
            BadRequest: the role may not read it, or its type lacks the operator.
        """
        is_readable = any(c.name == condition.column and c.selectable for c in access.columns)
        comparable = catalogue.comparable.get((access.oid, condition.column))
        # The catalogue is read in two steps; somebody may drop a column in between.
        if not is_readable or comparable is None:
            raise _refused(binding, f"invalid column for filter {condition.column}")
        if condition.column not in catalogue.published[access.oid].columns:
            # It would never come along, and nothing would ever match.
            raise _refused(binding, f"invalid column for filter {condition.column}: it is not published")
        if condition.operator == "is":
            (keyword,) = condition.values
            if keyword not in ("null", "true", "false", "unknown"):
                raise _refused(binding, "invalid value for is filter: must be null, true, false, or unknown")
            if keyword != "null" and comparable.declared != "boolean":
                raise _refused(
                    binding, f"is {keyword} filter requires a boolean column, got {comparable.declared}"
                )
            return _Draft(condition, as_text, None, condition.values, comparable)
        if len(condition.values) > MAX_IN_VALUES:
            raise _refused(binding, f"too many values for `in` filter. Maximum {MAX_IN_VALUES}")
        relation = _relation(access.role, condition, comparable)
        if relation is None:
            detail = (
                f"operator {condition.operator} requires a text-compatible column type,"
                f" got {comparable.declared}"
            )
            raise _refused(binding, detail)
        normal = _normal(condition.operator, comparable)
        pattern = condition.operator in PATTERNS
        reading = _Reading(relation, relation.right if pattern else comparable.declared)
        texts = condition.values
        if comparable.oid == _BYTEA and not pattern:
            # Bytes come as bare hex digits (specification, 8.6).
            texts = tuple(text if text is None or text.startswith("\\x") else "\\x" + text for text in texts)
        return _Draft(condition, normal, reading, texts, comparable)


async def _read_comparable(
    connection: Connection, tables: Collection[int]
) -> dict[tuple[int, str], Comparable]:
    cursor = await connection.execute(_COMPARABLE, {"tables": list(tables)})
    columns = [msgspec.json.decode(text, type=Comparable) for (text,) in await cursor.fetchall()]
    return {(column.table, column.column): column for column in columns}


def _relation(role: str, condition: Condition, comparable: Comparable) -> Relation | None:
    """Tell how Postgres compares a column; None where its type has no such pattern."""
    symbol = _SYMBOLS[condition.operator]
    found = comparable.operators.get(symbol)
    if found is None:
        if condition.operator in PATTERNS:
            return None
        # Not of the very type, but of all arrays, ranges or enums; or of none, as reading a value will show.
        found = Operand("pg_catalog", comparable.type)
    return Relation(role, comparable.type, found.right, symbol, found.schema, comparable.collation)


def _normal(operator: str, comparable: Comparable) -> Normal | None:
    """Choose how the texts of a column are compared; None where only Postgres can do it as Postgres does."""
    oid = comparable.oid
    if operator in EQUALITIES and comparable.deterministic:
        if oid in _NUMBERS:
            return as_number
        if oid == _BPCHAR:
            return as_padded
        if oid in _EQUAL_AS_TEXT or comparable.enum:
            return as_text
    if operator in ORDERS:
        if oid in _INTEGERS:
            return as_integer
        if oid in _NUMBERS:
            return as_number
        if oid in _MOMENTS:
            return as_moment
        if oid == _BPCHAR and comparable.bytewise:
            return as_padded
        if oid in _ORDERED_AS_TEXT or (oid in _TEXTS and comparable.bytewise):
            return as_text
    return None


# Reading values ---------------------------------------------------------------------------------------------


async def _read(connection: Connection, drafts: Iterable[_Draft]) -> _Read:
    """Have Postgres read the values of filters, and compare with each of them once.

    Whatever could go wrong with a value goes wrong here, and not when a row arrives.

    Raises:
        psycopg.OperationalError: the connection was lost.
    """
    wanted: dict[_Reading, dict[str, None]] = defaultdict(dict)
    for draft in drafts:
        if draft.reading is not None:
            wanted[draft.reading].update(dict.fromkeys(text for text in draft.texts if text is not None))
    read: dict[tuple[_Reading, str], bytes | psycopg.Error] = {}
    for reading, texts in wanted.items():
        read |= await _read_some(connection, reading, list(texts))
    return read


async def _read_some(
    connection: Connection, reading: _Reading, texts: Sequence[str]
) -> dict[tuple[_Reading, str], bytes | psycopg.Error]:
    """Read values in one statement; halve them until the one that cannot be read stands alone."""
    try:
        return dict(
            zip(((reading, text) for text in texts), await _written(connection, reading, texts), strict=True)
        )
    except psycopg.Error as error:
        own = isinstance(error, errors.QueryCanceled)
        if connection.closed or (isinstance(error, psycopg.OperationalError) and not own):
            raise
        if len(texts) == 1:
            return {(reading, texts[0]): error}
    half = len(texts) // 2
    first = await _read_some(connection, reading, texts[:half])
    return first | await _read_some(connection, reading, texts[half:])


async def _written(connection: Connection, reading: _Reading, texts: Sequence[str]) -> list[bytes]:
    """Have Postgres read values as the type of a column and write them again, as the stream writes them."""
    relation = reading.relation
    pattern = relation.symbol.startswith("~")
    left = sql.SQL("cast('' as {})").format(sql.SQL(relation.left)) if pattern else sql.SQL("r.x")
    # `format` uses the output function of the type, as the stream does; a cast to text would not always.
    statement = sql.SQL(
        "select format('%%s', r.x), {left} {operator} r.x from ("
        "select p.n, cast(cast(p.text as {type}) as {right}) as x"
        " from unnest(%s::text[]) with ordinality p (text, n)) r order by r.n"
    ).format(
        left=collated(relation, left),
        operator=operator_of(relation),
        type=sql.SQL(reading.type),
        right=sql.SQL(relation.right),
    )
    async with connection.transaction():
        # As the role: what reads and compares the values of a user's type may be a function of that user.
        await connection.execute(
            "select set_config('statement_timeout', %s, true), set_config('role', %s, true)",
            (str(READING_TIMEOUT), relation.role),
        )
        cursor = await connection.execute(statement, [list(texts)])
        return [text.encode() for text, _ in await cursor.fetchall()]


# Subscriptions ----------------------------------------------------------------------------------------------


def _subscription(request: _Request, target: _Target, read: _Read) -> Subscription:
    """Put a subscription together.

    Raises:
        BadRequest: a value of its filter could not be read.
    """
    return Subscription(
        subscriber=request.subscriber,
        claims=request.claims,
        binding=target.binding,
        position=target.position,
        schema=target.schema,
        table=target.table,
        comparisons=tuple(_comparison(draft, target.binding, read) for draft in target.drafts),
        types=tuple((d.comparable.column, d.comparable.declared_oid) for d in target.drafts),
    )


def _comparison(draft: _Draft, binding: Binding, read: _Read) -> Comparison:
    reading = draft.reading
    if reading is None:
        return Comparison.of(draft.condition, [t.encode() for t in draft.texts if t is not None], as_text)
    canonical: list[bytes | None] = []
    for text in draft.texts:
        value = None if text is None else read[reading, text]
        if isinstance(value, psycopg.Error):
            raise _unreadable(binding, draft, value)
        if (
            draft.condition.operator in ("like", "ilike")
            and value is not None
            and _unfinished(reading, value)
        ):
            raise _refused(binding, "LIKE pattern must not end with escape character", "22025")
        canonical.append(value)
    if draft.normal is not None:
        return Comparison.of(draft.condition, canonical, draft.normal)
    return Comparison.of(draft.condition, canonical, as_text, reading.relation)


def _unfinished(reading: _Reading, pattern: bytes) -> bool:
    """Tell whether a pattern of LIKE ends in an escape: Postgres only notices when a row gets that far."""
    if reading.relation.right == "bytea":
        pattern = bytes.fromhex(pattern[2:].decode())
    return (len(pattern) - len(pattern.rstrip(b"\\"))) % 2 == 1


def _unreadable(binding: Binding, draft: _Draft, error: psycopg.Error) -> Refusal:
    """Say why a value cannot be used."""
    message, sqlstate = error.diag.message_primary or str(error), error.sqlstate or "22000"
    assert draft.reading is not None
    if isinstance(error, errors.UndefinedFunction):
        declared, symbol = draft.comparable.declared, draft.reading.relation.symbol
        message = f"operator does not exist: {declared} {symbol} {declared}"
    elif isinstance(error, errors.InvalidRegularExpression):
        message = f"invalid regular expression for {draft.condition.operator} filter: {message}"
        sqlstate = "P0001"
    return _refused(binding, message, sqlstate)


def _stands_for(name: tuple[str, str], published: tuple[str, str]) -> bool:
    return name[0] in (ANY, published[0]) and name[1] in (ANY, published[1])


def _checked(access: Access | None, role: str, binding: Binding, published: _Published) -> Access:
    """Let a table pass that the role can be asked about, and whose columns it may read as selected."""
    if access is None:
        raise _refused(binding, f'role "{role}" does not exist', "42704")
    if not access.assumable:
        raise _refused(binding, f'permission denied to set role "{role}"', "42501")
    if binding.event not in (ANY, *published.events):
        raise _refused(binding, f"the publication leaves out every {binding.event}")
    for column in binding.form.select or ():
        if column not in access.readable:
            raise _refused(binding, f"invalid column for select {column}")
        if column not in published.columns:
            raise _refused(binding, f"invalid column for select {column}: it is not published")
    return access


def _refused(binding: Binding, message: str, sqlstate: str = "P0001") -> Refusal:
    """Refuse a binding in the words of the original, which lets Postgres raise."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", errors.lookup(sqlstate).__name__).lower()
    detail = f"ERROR {sqlstate} ({name}) {message}"
    return reasons.CHANGES_REFUSED.refusal(params=binding.requested, detail=detail)
