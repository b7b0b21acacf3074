"""Queries and payloads as SQL. No I/O.

Whatever a caller wrote is a parameter or a quoted identifier, never part of the statement's own text. Values
go without a type, so that PostgreSQL reads them as what they are compared with; JSON bodies are taken apart
by PostgreSQL with the types of the columns; and the answer is put together by PostgreSQL, which knows best
how its values look in JSON. A statement that returns anything answers with one row: how many rows, how many
there are in all (or null), and the JSON text.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from psycopg import sql

from backbeat.local.rest import errors
from backbeat.local.rest.query import OPERATORS, SEARCHES, TRUTHS, Condition, Field, Item, Query, Tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from backbeat.local.rest.catalogue import Column, Function, Relation, Type
    from backbeat.local.rest.payload import Arguments, Payload
    from backbeat.local.rest.preferences import Preferences
    from backbeat.local.rest.query import Order

__all__ = ["MERGED", "Statement", "call", "delete", "insert", "read", "update"]

COUNTER = "coalesce(nullif(current_setting('backbeat.merged', true), ''), '0')::bigint"

MERGED = sql.SQL(f"select {COUNTER}")
"""How many rows the upsert of this transaction found to exist, and merged."""

# Counted in a setting, because learning it from RETURNING would need the right to read the table.
COUNT_MERGED = sql.SQL(f"set_config('backbeat.merged', ({COUNTER} + 1)::text, true) is not null")

# Names no table of a user has: the target of an UPDATE and what it is joined with share a name space.
BODY = sql.Identifier("backbeat_body")
ELEMENT = sql.Identifier("backbeat_element")
ROWS = sql.Identifier("backbeat_rows")
SOURCE = sql.Identifier("backbeat_source")

NOTHING = sql.SQL("")

SPELLED = {
    "bigint": "int8",
    "bit varying": "varbit",
    "boolean": "bool",
    "char": "bpchar",
    "character": "bpchar",
    "character varying": "varchar",
    "decimal": "numeric",
    "double precision": "float8",
    "float": "float8",
    "int": "int4",
    "integer": "int4",
    "real": "float4",
    "smallint": "int2",
    "time with time zone": "timetz",
    "time without time zone": "time",
    "timestamp with time zone": "timestamptz",
    "timestamp without time zone": "timestamp",
}
"""Types whose usual names are grammar, not identifiers, and the names by which they can be quoted."""


@dataclass(slots=True)
class Statement:
    """A statement and its parameters.

    Attributes:
        text: the statement.
        values: its parameters by name.
        returns: whether it answers with rows, total and JSON; else only the number of rows is known.
    """

    text: sql.Composed = field(default_factory=lambda: sql.Composed([]))
    values: dict[str, object] = field(default_factory=dict)
    returns: bool = True

    def parameter(self, value: object) -> sql.Placeholder:
        """Add a value, and stand for it."""
        name = f"p{len(self.values)}"
        self.values[name] = value
        return sql.Placeholder(name)


def read(relation: Relation, query: Query, *, counted: bool, single: bool) -> Statement:
    """Read a table.

    Args:
        relation: the table.
        query: what to return.
        counted: whether to count all rows that match.
        single: whether the JSON is one object instead of an array.
    """
    statement = Statement()
    statement.text = _answer(statement, _table(relation), query, counted=counted, single=single)
    return statement


def insert(
    relation: Relation, query: Query, payload: Payload, preferences: Preferences, *, single: bool
) -> Statement:
    """Insert rows, or merge them into those that exist.

    Args:
        relation: the table.
        query: which columns to write, how to find rows that exist, and what to return.
        payload: the rows.
        preferences: what to do with rows that exist and with missing keys, and whether to return anything.
        single: whether the JSON is one object instead of an array.

    Raises:
        RestError: 400 when the table lacks a column, or when nothing says which columns are meant.
    """
    if query.columns is None and not payload.uniform:
        raise errors.bad_body("All object keys must match")
    statement = Statement()
    columns = relation.written(payload.keys if query.columns is None else query.columns)
    defaulted = preferences.missing == "default"
    mutation = sql.SQL("insert into {}{} select {} from {}{}").format(
        _table(relation),
        # Without this list, columns beyond those selected get their defaults: here, all of them.
        sql.SQL(" ({})").format(_joined(_name(column.name) for column in columns)) if columns else NOTHING,
        _joined(_incoming(statement, column, defaulted=defaulted) for column in columns),
        _body(statement, payload, columns),
        _conflict(query.on_conflict or relation.key, columns, preferences.resolution),
    )
    counted = preferences.count is not None
    if preferences.returned == "headers-only" and relation.key:
        key = Query(select=tuple(Item(Field(name), cast="text") for name in relation.key))
        return _written(statement, mutation, relation, key, counted=counted, single=False)
    shown = query if preferences.returned == "representation" else None
    return _written(statement, mutation, relation, shown, counted=counted, single=single)


def update(
    relation: Relation, query: Query, payload: Payload, preferences: Preferences, *, single: bool
) -> Statement:
    """Update rows.

    Args:
        relation: the table.
        query: which rows and columns to write, and what to return.
        payload: one object, the new values; it, or the query, names at least one column.
        preferences: whether to return anything.
        single: whether the JSON is one object instead of an array.

    Raises:
        RestError: 400 when the table lacks a column.
    """
    statement = Statement()
    columns = relation.written(payload.keys if query.columns is None else query.columns)
    settings = (sql.SQL("{0} = {1}.{0}").format(_name(column.name), BODY) for column in columns)
    mutation = sql.SQL("update {} set {} from {}{}").format(
        _table(relation),
        _joined(settings),
        _body(statement, payload, columns),
        _where(statement, _table(relation), query.where),
    )
    shown = query if preferences.returned == "representation" else None
    counted = preferences.count is not None
    return _written(statement, mutation, relation, shown, counted=counted, single=single)


def delete(relation: Relation, query: Query, preferences: Preferences, *, single: bool) -> Statement:
    """Delete rows.

    Args:
        relation: the table.
        query: which rows to delete, and what to return.
        preferences: whether to return anything.
        single: whether the JSON is one object instead of an array.
    """
    statement = Statement()
    mutation = sql.SQL("delete from {}{}").format(
        _table(relation), _where(statement, _table(relation), query.where)
    )
    shown = query if preferences.returned == "representation" else None
    counted = preferences.count is not None
    return _written(statement, mutation, relation, shown, counted=counted, single=single)


def call(function: Function, arguments: Arguments, query: Query, *, counted: bool, single: bool) -> Statement:
    """Call a function, and read what it returns like a table.

    Args:
        function: the function.
        arguments: arguments it takes.
        query: what to return of the rows.
        counted: whether to count all rows that match.
        single: whether the JSON is one value instead of an array.
    """
    statement = Statement()
    origin, given = _given(statement, function, arguments)
    value = None if function.shape == "row" else _name(function.name)
    source = sql.SQL("with {} as materialized (select {}.* from {}{}({}) as {}{}) ").format(
        SOURCE,
        ROWS,
        origin,
        _name(function.schema, function.name),
        given,
        ROWS,
        sql.SQL("({})").format(value) if value else NOTHING,
    )
    if value:
        query = replace(query, select=(Item(),))
    answer = _answer(statement, SOURCE, query, counted=counted, single=single, value=value)
    statement.text = source + answer
    return statement


# Names ------------------------------------------------------------------------------------------------------


def _name(*parts: str) -> sql.Identifier:
    """Quote a name; the driver looks for parameters inside of quotes too, hence the doubled percent sign."""
    return sql.Identifier(*(part.replace("%", "%%") for part in parts))


def _table(relation: Relation) -> sql.Identifier:
    return _name(relation.schema, relation.name)


def _type(type_: Type) -> sql.Identifier:
    return _name(type_.schema, type_.name)


def _joined(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)


def _cast(value: sql.Composable, name: str) -> sql.Composed:
    """Cast to a type as SQL spells it: any case, one pair of brackets for an array."""
    base = " ".join(name.removesuffix("[]").lower().split())
    brackets = sql.SQL("[]") if name.endswith("[]") else NOTHING
    return sql.SQL("({})::{}{}").format(value, _name(SPELLED.get(base, base)), brackets)


def _field(statement: Statement, origin: sql.Composable, place: Field) -> sql.Composable:
    """A column, or what the arrows lead to."""
    value: sql.Composable = sql.SQL("{}.{}").format(origin, _name(place.column))
    for arrow in place.path:
        value = sql.SQL("{} {} {}::{}").format(
            value,
            sql.SQL("->>" if arrow.text else "->"),
            statement.parameter(arrow.key),
            sql.SQL("int" if arrow.index else "text"),
        )
    return sql.SQL("({})").format(value) if place.path else value


# Reading ----------------------------------------------------------------------------------------------------


def _answer(
    statement: Statement,
    origin: sql.Composable,
    query: Query,
    *,
    counted: bool,
    single: bool,
    value: sql.Identifier | None = None,
) -> sql.Composed:
    """The outermost query: rows, total, JSON.

    Args:
        statement: takes the parameters.
        origin: what to read from.
        query: what to return.
        counted: whether to count all rows that match.
        single: whether the JSON is one value instead of an array.
        value: the one column whose bare values are returned, or None for objects.
    """
    where = _where(statement, origin, query.where)
    total = sql.SQL("select count(*) from {}{}").format(origin, where) if counted else sql.SQL("null::bigint")
    element = sql.SQL("{}.{}").format(ROWS, value) if value else sql.SQL("row_to_json({}.*)").format(ROWS)
    body = "(json_agg({}) -> 0)::text" if single else "coalesce(json_agg({}), '[]')::text"
    return sql.SQL("select count(*), ({}), {} from (select {} from {}{}{}{}) as {}").format(
        total,
        sql.SQL(body).format(element),
        _joined(_item(statement, origin, item) for item in query.select),
        origin,
        where,
        _order(statement, origin, query.order),
        _window(statement, query),
        ROWS,
    )


def _item(statement: Statement, origin: sql.Composable, item: Item) -> sql.Composed:
    if item.field is None:
        return sql.SQL("{}.*").format(origin)
    value = _field(statement, origin, item.field)
    if item.cast:
        value = _cast(value, item.cast)
    return sql.SQL("{} as {}").format(value, _name(item.alias or item.field.name))


def _where(statement: Statement, origin: sql.Composable, parts: Sequence[Condition | Tree]) -> sql.Composed:
    if not parts:
        return sql.Composed([])
    return sql.SQL(" where {}").format(
        sql.SQL(" and ").join(_test(statement, origin, part) for part in parts)
    )


def _test(statement: Statement, origin: sql.Composable, part: Condition | Tree) -> sql.Composed:
    if isinstance(part, Tree):
        inner = sql.SQL(f" {part.operator} ").join(_test(statement, origin, each) for each in part.parts)
    else:
        inner = _condition(statement, _field(statement, origin, part.field), part)
    return sql.SQL("not ({})" if part.negated else "({})").format(inner)


def _condition(statement: Statement, left: sql.Composable, condition: Condition) -> sql.Composed:
    operator, value = condition.operator, condition.value
    if not isinstance(value, str):
        return sql.SQL("{} = any ({})").format(left, statement.parameter(_array(value)))
    if operator == "is":
        return sql.SQL("{} is {}").format(left, sql.SQL(TRUTHS[value]))
    if operator in SEARCHES:
        configuration = (
            sql.SQL("{}::regconfig, ").format(statement.parameter(condition.configuration))
            if condition.configuration
            else NOTHING
        )
        return sql.SQL("{} @@ {}({}{})").format(
            left, sql.SQL(SEARCHES[operator]), configuration, statement.parameter(value)
        )
    right = "{} {} {} ({})" if condition.quantifier else "{} {} {}{}"
    return sql.SQL(right).format(
        left,
        sql.SQL(OPERATORS[operator]),
        sql.SQL(condition.quantifier or ""),
        statement.parameter(value),
    )


def _array(values: Iterable[str]) -> str:
    """Write an array literal (PostgreSQL manual, section 8.15.2)."""
    quoted = ('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values)
    return "{" + ",".join(quoted) + "}"


def _order(statement: Statement, origin: sql.Composable, order: Sequence[Order]) -> sql.Composed:
    if not order:
        return sql.Composed([])
    return sql.SQL(" order by {}").format(
        _joined(
            sql.SQL("{}{}{}").format(
                _field(statement, origin, each.field),
                sql.SQL(" desc" if each.descending else ""),
                sql.SQL(f" nulls {each.nulls}" if each.nulls else ""),
            )
            for each in order
        )
    )


def _window(statement: Statement, query: Query) -> sql.Composed:
    parts: list[sql.Composable] = []
    if query.limit is not None:
        parts.append(sql.SQL(" limit {}").format(statement.parameter(query.limit)))
    if query.offset:
        parts.append(sql.SQL(" offset {}").format(statement.parameter(query.offset)))
    return sql.Composed(parts)


# Writing ----------------------------------------------------------------------------------------------------


def _body(statement: Statement, payload: Payload, columns: Sequence[Column]) -> sql.Composed:
    """The rows of a payload, their values cast to the types of the columns."""
    elements = sql.SQL("json_array_elements({}::json) as {}(value)").format(
        statement.parameter(payload.text), ELEMENT
    )
    if not columns:
        return elements
    return sql.SQL("{}, json_to_record({}.value) as {}({})").format(
        elements, ELEMENT, BODY, _joined(_definition(column.name, column.type) for column in columns)
    )


def _definition(name: str, type_: Type) -> sql.Composed:
    return sql.SQL("{} {}").format(_name(name), _type(type_))


def _incoming(statement: Statement, column: Column, *, defaulted: bool) -> sql.Composed:
    """The value of a column in the payload; `defaulted` fills it where its key is missing."""
    value = sql.SQL("{}.{}").format(BODY, _name(column.name))
    if not defaulted or column.filler is None:
        return value
    return sql.SQL("case when {}.value -> {}::text is null then ({})::{} else {} end").format(
        ELEMENT,
        statement.parameter(column.name),
        # The text comes from the catalogue: it is what PostgreSQL would run for the word DEFAULT.
        sql.SQL(column.filler.replace("%", "%%")),
        _type(column.type),
        value,
    )


def _conflict(target: Sequence[str], columns: Sequence[Column], resolution: str | None) -> sql.Composed:
    if resolution is None or not target:
        return sql.Composed([])
    clause = sql.SQL(" on conflict ({}) do ").format(_joined(map(_name, target)))
    if resolution == "ignore-duplicates" or not columns:
        return clause + sql.SQL("nothing")
    settings = (sql.SQL("{0} = excluded.{0}").format(_name(column.name)) for column in columns)
    return clause + sql.SQL("update set {} where {}").format(_joined(settings), COUNT_MERGED)


def _written(
    statement: Statement,
    mutation: sql.Composed,
    relation: Relation,
    shown: Query | None,
    *,
    counted: bool,
    single: bool,
) -> Statement:
    """Finish a write. RETURNING needs rights that writing does not, so it is left out if nothing is shown."""
    if shown is None:
        statement.text, statement.returns = mutation, False
        return statement
    fields = [item.field for item in shown.select] + [each.field for each in shown.order]
    table = _table(relation)
    returning = (
        sql.SQL("{}.{}").format(table, _name(name))
        for name in dict.fromkeys(place.column for place in fields if place)
    )
    source = sql.SQL("with {} as ({} returning {}) ").format(
        SOURCE, mutation, sql.SQL("{}.*").format(table) if None in fields else _joined(returning)
    )
    answer = _answer(statement, SOURCE, replace(shown, where=()), counted=counted, single=single)
    statement.text = source + answer
    return statement


# Calling ----------------------------------------------------------------------------------------------------


def _given(
    statement: Statement, function: Function, arguments: Arguments
) -> tuple[sql.Composable, sql.Composed]:
    """Where the arguments of a call come from, and how they are passed."""
    types = {name: function.arguments[name] for name in arguments.names}
    if arguments.text is None:
        return NOTHING, _joined(
            sql.SQL("{} => {}::{}").format(
                _name(name), statement.parameter(arguments.literals[name]), _type(type_)
            )
            for name, type_ in types.items()
        )
    if not types:
        return NOTHING, sql.Composed([])
    origin = sql.SQL("json_to_record({}::json) as {}({}), ").format(
        statement.parameter(arguments.text),
        BODY,
        _joined(_definition(name, type_) for name, type_ in types.items()),
    )
    return origin, _joined(sql.SQL("{0} => {1}.{0}").format(_name(name), BODY) for name in types)
