"""What a role may read of a table, and whether its policies leave anything to ask.

Only the two extremes are decided here, from the catalogue: nobody, and everybody. Everything in between is
decided by Postgres, row by row (`backbeat.postgres.visibility`). Where every policy lets only certain users
through, the catalogue also tells whom it is no use to ask; that never lets anybody see anything.
"""

from __future__ import annotations

from enum import Enum
from functools import cached_property
from typing import Final

import msgspec

from backbeat.postgres.conditions import Limit, Owner, limits

__all__ = ["Access", "Audience", "Column", "Policy", "Related"]

_UUID_OID: Final = 2950


_CANONICAL = frozenset(
    {16, 17, 18, 19, 20, 21, 23, 25, 26, 774, 829, 869, 650, 1043, 1082, 1083, 1114, 1184, 2950}
)
"""Types of which two values are equal exactly when their texts are: bool, bytea, "char", name, int8, int2,
int4, text, oid, macaddr8, macaddr, inet, cidr, varchar, date, time, timestamp, timestamptz and uuid."""


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
    volatile: bool | None = False
    """Whether it calls a function that may do anything, even make the viewer somebody else."""


class Related(msgspec.Struct, frozen=True):
    """A table that policies look into."""

    schema: str
    table: str
    users: tuple[str, ...]
    """The columns that may hold the id of a user."""
    reader: str | None
    """A role the server may act as that sees all of its rows, if there is one."""


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
    related: tuple[Related, ...] = ()
    """The tables the policies look into."""
    gullible: tuple[str, ...] = ()
    """IMMUTABLE functions of the database that look at who is asking: a plan must not serve two viewers."""
    uid_is_sub: bool = False
    """Whether `auth.uid()` is known to return the claim `sub`."""
    classified: bool = True
    """Whether policies are looked at; if not, everybody is asked about every row."""
    since: int = 0
    """The end of the WAL when this was read. What committed before may have been under other rules."""

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

    def audience_at(self, lsn: int) -> Audience:
        """Which subscribers see a row that was written by the commit at a position of the WAL.

        A row from before may have been replaced before everybody could see it: then it is looked up.
        """
        if self.audience is Audience.EVERYBODY and lsn < self.since:
            return Audience.ASK
        return self.audience

    @cached_property
    def key_canonical(self) -> bool:
        """Whether equal primary keys are always written alike; 1.5 and 1.50 are equal, too."""
        return all(
            column.type_oid in _CANONICAL and column.deterministic
            for column in self.columns
            if column.name in self.key
        )

    @cached_property
    def limits(self) -> tuple[Limit, ...]:
        """Whom it is of use to ask: those for whom one of these holds. Empty if it may be anybody.

        All permissive policies have to be understood. What the restrictive ones ask for can only add to that.
        """
        if self.audience is not Audience.ASK or not self.classified or not self.uid_is_sub:
            return ()
        if any(policy.volatile for policy in self.policies):
            return ()
        found: set[Limit] = set()
        for policy in self.policies:
            if policy.permissive and policy.condition not in (None, "false"):
                understood = limits(policy.condition or "", self.table)
                if understood is None or not all(map(self._suits, understood)):
                    return ()
                found |= understood
        return tuple(found)

    def reader(self, schema: str, table: str) -> str | None:
        """Tell as which role a table that the policies look into is read, if it can be."""
        return next(
            (each.reader for each in self.related if (each.schema, each.table) == (schema, table)), None
        )

    def _suits(self, limit: Limit) -> bool:
        """Tell whether a limit can be looked at from here."""
        if isinstance(limit, Owner):
            return any(c.name == limit.column and c.type_oid == _UUID_OID for c in self.columns)
        # Where several texts are equal, the one from the row would not find the others.
        comparable = {column.name for column in self.columns if column.deterministic}
        return comparable.issuperset(limit.columns) and any(
            (each.schema, each.table) == (limit.schema, limit.table)
            and each.reader is not None
            and limit.user in each.users
            for each in self.related
        )


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
