"""The check function of a table: it asks, as each of many viewers, which versions of rows they see.

`sql/visible.sql` is what it does; here it is written for the key of a table, and called.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backbeat.postgres.policies import Access
    from backbeat.postgres.question import Call

__all__ = ["contents", "definition", "function_name", "statement"]

FOLDER: Final = files("backbeat.postgres") / "sql"

_VISIBLE = sql.SQL((FOLDER / "visible.sql").read_text())
_CONTENTS = sql.SQL((FOLDER / "contents.sql").read_text())


def function_name(access: Access) -> str:
    """Name the check function: a role without the whole table may not see `xmin`."""
    return f"visible_{access.oid}" + ("" if access.whole else "_narrow")


def _key(access: Access) -> list[tuple[sql.Identifier, sql.SQL]]:
    """The columns of the primary key, with their types."""
    types = {column.name: column.type for column in access.columns}
    return [(sql.Identifier(name), sql.SQL(types[name])) for name in access.key]


def _table(access: Access) -> sql.Composed:
    # A table that others inherit from is asked alone; a partitioned one is nothing but its partitions.
    only = sql.SQL("" if access.partitioned else "only ")
    return only + sql.Identifier(access.schema, access.table)


def _written_by(access: Access) -> sql.SQL:
    return sql.SQL("t.xmin::text" if access.whole else "null::text")


def definition(access: Access) -> sql.Composed:
    """Write the check function of a table."""
    key = [(sql.Identifier(f"key_{i}"), *part, sql.Literal(i)) for i, part in enumerate(_key(access), 1)]
    declare = sql.SQL(
        "{name} {type}[] :="
        " array(select (keys[n][{i}])::{type} from generate_subscripts(keys, 1) n order by n);"
    )
    # An array of arrays is one array, and comes apart as such: those stay texts until they are compared.
    nested = any(type_.as_string().endswith("[]") for _, _, type_, _ in key)
    match = [
        sql.SQL("t.{} = p.{}::{}").format(column, name, type_)
        if nested
        else sql.SQL("t.{} = p.{}").format(column, name)
        for name, column, type_, _ in key
    ]
    if nested:
        key = [(name, column, sql.SQL("text"), i) for name, column, _, i in key]
    elif len(key) == 1:
        # One scan for all rows instead of one for each.
        match += [sql.SQL("t.{} = any({}[start:stop])").format(column, name) for name, column, _, _ in key]
    return _VISIBLE.format(
        name=sql.Identifier(function_name(access)),
        declarations=sql.SQL("\n  ").join(
            declare.format(name=name, type=type_, i=i) for name, _, type_, i in key
        ),
        discard=sql.SQL("discard plans;" if access.gullible else ""),
        version=_written_by(access),
        keys=sql.SQL(", ").join(sql.SQL("{}[start:stop]").format(name) for name, _, _, _ in key),
        names=sql.SQL(", ").join(name for name, _, _, _ in key),
        table=_table(access),
        match=sql.SQL(" and ").join(match),
    )


def contents(access: Access, columns: Sequence[str]) -> sql.Composed:
    """Write the statement that reads rows as one viewer sees them."""
    key = [(sql.Identifier(f"key_{i}"), *part) for i, part in enumerate(_key(access), 1)]
    return _CONTENTS.format(
        version=_written_by(access),
        columns=sql.SQL(", ").join(sql.SQL("t.{}").format(sql.Identifier(name)) for name in columns),
        keys=sql.SQL(", ").join(sql.SQL("%s::text[]") for _ in key),
        names=sql.SQL(", ").join(name for name, _, _ in key),
        table=_table(access),
        match=sql.SQL(" and ").join(
            sql.SQL("t.{} = p.{}::{}").format(column, name, type_) for name, column, type_ in key
        ),
    )


def statement(call: Call) -> tuple[sql.Composed, dict[str, Any]]:
    """Write the call of a check function. Equal sets of rows are written once."""
    question = call.question
    numbers: dict[tuple[int, ...], int] = {}
    rows: list[int] = []
    ends: list[int] = []
    asked: list[int] = []
    for claims in call.viewers:
        indexes = tuple(question.viewers[claims])
        if indexes not in numbers:
            numbers[indexes] = len(numbers) + 1
            rows += [n + 1 for n in indexes]
            ends.append(len(rows))
        asked.append(numbers[indexes])
    # In binary form, for in text form each quote in the claims of everybody would have to be escaped.
    text = sql.SQL(
        "select * from pg_temp.{}(%(role)s, %(claims)b::text[], %(subjects)b::text[], %(asked)s::int4[],"
        " %(rows)s::int4[], %(ends)s::int4[], %(keys)s::text[], %(xids)s::text[])"
    ).format(sql.Identifier(function_name(question.access)))
    return text, {
        "role": question.access.role,
        "claims": [claims.json for claims in call.viewers],
        "subjects": [claims.sub for claims in call.viewers],
        "asked": asked,
        "rows": rows,
        "ends": ends,
        "keys": [list(question.versions[n - 1].key) for n in rows],
        "xids": [version.xid for version in question.versions],
    }
