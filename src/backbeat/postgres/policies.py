"""What a role may read of a table, and whether its policies leave anything to ask.

Only the two extremes are decided here, from the catalogue: nobody, and everybody. Everything in between is
decided by Postgres, row by row (`backbeat.postgres.visibility`).
"""

from __future__ import annotations

from enum import Enum
from functools import cached_property

import msgspec

__all__ = ["Access", "Audience", "Column", "Policy"]


class Audience(Enum):
    """Which of the subscribers with a role see the rows of a table."""

    NOBODY = "nobody"
    EVERYBODY = "everybody"
    ASK = "ask"
    """Some see some rows: ask as each of them."""


class Column(msgspec.Struct, frozen=True):
    """A column of a table, as a role sees it."""

    name: str
    type_oid: int
    type: str
    """The type as SQL writes it, with its schema and without a modifier."""
    type_name: str
    """`pg_type.typname`, which clients know: `int8`, `_text`."""
    deterministic: bool
    """Whether equal texts are the same bytes in its collation."""
    selectable: bool


class Policy(msgspec.Struct, frozen=True):
    """A policy for SELECT that applies to a role."""

    permissive: bool
    condition: str | None
    """The USING expression, written with an empty search_path; None where there is none."""


class Access(msgspec.Struct, frozen=True, dict=True):
    """What a role may read of a table (`sql/access.sql`)."""

    oid: int
    schema: str
    table: str
    partitioned: bool
    role: str
    assumable: bool
    """Whether the server may act as the role."""
    usable: bool
    """Whether the role may use the schema."""
    whole: bool
    """Whether the role may read the whole table, system columns with it."""
    row_security: bool
    exempt: bool
    """Whether row level security does not apply to the role: a superuser, BYPASSRLS, or the owner."""
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    """The columns of the primary key, in its order."""
    policies: tuple[Policy, ...]
    gullible: tuple[str, ...] = ()
    """IMMUTABLE functions of the database that look at who is asking: a plan must not serve two viewers."""
    classified: bool = True
    """Whether policies are looked at; if not, everybody is asked about every row."""

    @cached_property
    def readable(self) -> frozenset[str]:
        """The columns the role may select."""
        return frozenset(column.name for column in self.columns if column.selectable)

    @property
    def key_readable(self) -> bool:
        """Whether the role may look rows up by the primary key, which every event shows."""
        return self.usable and self.readable.issuperset(self.key)

    @cached_property
    def audience(self) -> Audience:
        """Which subscribers with this role see a row that was inserted or updated."""
        if not self.key or not self.key_readable or not self.assumable:
            return Audience.NOBODY
        if not self.classified:
            return Audience.ASK
        if not self.row_security or self.exempt:
            return Audience.EVERYBODY
        return _audience(self.policies)


def _audience(policies: tuple[Policy, ...]) -> Audience:
    """Tell what policies let through: any permissive one, as long as all restrictive ones agree.

    As in Postgres, a policy without USING is left out: a permissive one grants nothing, a restrictive one
    takes nothing away.
    """
    permissive = {p.condition for p in policies if p.permissive} - {None, "false"}
    restrictive = {p.condition for p in policies if not p.permissive} - {None, "true"}
    if not permissive or "false" in restrictive:
        return Audience.NOBODY
    if "true" in permissive and not restrictive:
        return Audience.EVERYBODY
    return Audience.ASK
