"""What the catalogue alone says about who sees the rows of a table."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
import pytest

from backbeat.postgres.conditions import Limit, Member, Owner
from backbeat.postgres.policies import Access, Audience, Column, Policy, Related


def column(name: str, *, selectable: bool = True, type_oid: int = 23) -> Column:
    return Column(name, type_oid, "integer", "int4", deterministic=True, selectable=selectable)


OPEN = Access(
    oid=1,
    schema="public",
    table="songs",
    partitioned=False,
    role="authenticated",
    assumable=True,
    usable=True,
    whole=True,
    row_security=True,
    exempt=False,
    columns=(column("id"), column("owner")),
    key=("id",),
    policies=(Policy(permissive=True, condition="true"),),
)
OWN = "(auth.uid() = owner)"


def audience(**changes: Any) -> Audience:
    """The audience of the open table after some changes to it."""
    return msgspec.structs.replace(OPEN, **changes).audience


@pytest.mark.parametrize(
    ("permissive", "restrictive", "expected"),
    [
        ([], [], Audience.NOBODY),
        (["true"], [], Audience.EVERYBODY),
        (["false"], [], Audience.NOBODY),
        ([None], [], Audience.NOBODY),
        ([OWN], [], Audience.ASK),
        ([OWN, "true"], [], Audience.EVERYBODY),
        ([OWN, "false", None], [], Audience.ASK),
        (["true"], ["true"], Audience.EVERYBODY),
        (["true"], [None], Audience.EVERYBODY),
        (["true"], ["false"], Audience.NOBODY),
        (["true"], [OWN], Audience.ASK),
        ([OWN], ["true", "false"], Audience.NOBODY),
        ([], ["true"], Audience.NOBODY),
        (["'t'::boolean"], [], Audience.ASK),
    ],
)
def test_only_literal_conditions_are_decided_without_asking(
    permissive: list[str | None], restrictive: list[str | None], expected: Audience
) -> None:
    """Whatever is not literally true or false is asked."""
    policies = tuple(
        Policy(permissive=kind, condition=condition)
        for kind, conditions in ((True, permissive), (False, restrictive))
        for condition in conditions
    )
    assert audience(policies=policies) is expected


def test_without_row_security_everybody_sees_every_row() -> None:
    """Policies that are not enabled do not count."""
    assert audience(row_security=False, policies=()) is Audience.EVERYBODY


def test_an_exempt_role_sees_every_row() -> None:
    """`service_role` bypasses row level security."""
    assert audience(exempt=True, policies=()) is Audience.EVERYBODY


def test_without_a_primary_key_no_row_can_be_asked_about() -> None:
    """There is nothing to look it up by."""
    assert audience(key=()) is Audience.NOBODY


def test_a_role_that_cannot_select_the_key_sees_nothing() -> None:
    """Every event shows the key."""
    assert audience(columns=(column("id", selectable=False), column("owner"))) is Audience.NOBODY


def test_a_role_that_cannot_use_the_schema_sees_nothing() -> None:
    """Column privileges alone do not help."""
    assert audience(usable=False) is Audience.NOBODY


def test_a_role_the_server_may_not_assume_sees_nothing() -> None:
    """What cannot be asked is not granted, row security or not."""
    assert audience(assumable=False, row_security=False) is Audience.NOBODY


@pytest.mark.parametrize("change", [{}, {"row_security": False}, {"exempt": True}, {"policies": ()}])
def test_without_classification_everybody_is_asked(change: dict[str, Any]) -> None:
    """It is what the classification is measured against."""
    assert audience(classified=False, **change) is Audience.ASK


OWNED = msgspec.structs.replace(
    OPEN,
    uid_is_sub=True,
    related=(Related("public", "members", users=("member",), reader="service_role"),),
    columns=(column("id"), *(column(name, type_oid=2950) for name in ("owner", 'a "b"'))),
)
QUOTED = '(( SELECT auth.uid() AS uid) = "a ""b""")'


MEMBER = "(owner IN ( SELECT m.id FROM public.members m WHERE (m.member = auth.uid())))"
IS_MEMBER = Member("public", "members", "member", (("id", "owner"),))


@pytest.mark.parametrize(
    ("permissive", "restrictive", "expected"),
    [
        ([OWN], [], {Owner("owner")}),
        ([OWN, QUOTED], [], {Owner('a "b"'), Owner("owner")}),
        ([OWN, "false", None], [], {Owner("owner")}),
        ([OWN, MEMBER], [], {Owner("owner"), IS_MEMBER}),
        ([OWN], ["(id > 0)"], {Owner("owner")}),
        ([OWN, "true"], [], ()),
        (["true"], [OWN], ()),
        ([OWN, "(id > 0)"], [], ()),
        (["(auth.uid() = id)"], [], ()),
        (["(auth.uid() = unknown)"], [], ()),
    ],
)
def test_whom_to_ask_is_known_when_every_permissive_policy_says_it(
    permissive: list[str | None], restrictive: list[str], expected: Collection[Limit]
) -> None:
    """A single one that lets others in is enough to ask them."""
    policies = tuple(
        Policy(permissive=kind, condition=condition)
        for kind, conditions in ((True, permissive), (False, restrictive))
        for condition in conditions
    )
    assert {*msgspec.structs.replace(OWNED, policies=policies).limits} == {*expected}


@pytest.mark.parametrize("change", [{"uid_is_sub": False}, {"classified": False}, {"row_security": False}])
def test_whom_to_ask_is_not_known_otherwise(change: dict[str, Any]) -> None:
    """What `auth.uid()` returns has to be certain, and row security on."""
    policies = (Policy(permissive=True, condition=OWN),)
    assert msgspec.structs.replace(OWNED, policies=policies, **change).limits == ()


@pytest.mark.parametrize("permissive", [True, False])
def test_a_function_that_may_do_anything_may_let_anybody_through(permissive: bool) -> None:
    """It can set the claims that `auth.uid()` looks at, for what is evaluated after it."""
    policies = (
        Policy(permissive=True, condition=OWN),
        Policy(permissive=permissive, condition=f"(pose() AND {OWN})", volatile=True),
    )
    assert msgspec.structs.replace(OWNED, policies=policies).limits == ()


@pytest.mark.parametrize(
    "change",
    [
        {"related": ()},
        {"related": (Related("other", "members", users=("member",), reader="service_role"),)},
        {"related": (Related("public", "members", users=("id",), reader="service_role"),)},
        {"related": (Related("public", "members", users=("member",), reader=None),)},
        {
            "columns": (
                column("id"),
                msgspec.structs.replace(column("owner", type_oid=2950), deterministic=False),
            )
        },
    ],
)
def test_members_that_cannot_be_read_limit_nobody(change: dict[str, Any]) -> None:
    """Nor do those beside a value of which one spelling would not find the other."""
    policies = (Policy(permissive=True, condition=MEMBER),)
    assert msgspec.structs.replace(OWNED, policies=policies, **change).limits == ()
