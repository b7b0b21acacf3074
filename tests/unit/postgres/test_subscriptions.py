"""Finding who wants a change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backbeat.postgres.pgoutput import Column, Relation
from backbeat.postgres.subscriptions import Subscription, Subscriptions
from backbeat.protocol.bindings import parse_binding
from backbeat.protocol.filters import Comparison, Condition, as_number, as_text
from backbeat.protocol.filters import Relation as FilterRelation
from backbeat.tokens.claims import Claims

CLAIMS = Claims.of({"role": "authenticated", "exp": 1})


def subscription(
    name: str, *, schema: str = "public", table: str = "songs", event: str = "*", **wanted: str
) -> Subscription:
    """A subscription that wants columns to have values."""
    comparisons = tuple(
        Comparison.of(Condition(column, "eq", (value,)), [value.encode()], as_text)
        for column, value in wanted.items()
    )
    binding = parse_binding({"event": event, "schema": schema, "table": table}, 1)
    return Subscription(name, CLAIMS, binding, 0, schema, table, comparisons)


def comparing(name: str, comparison: Comparison) -> Subscription:
    """A subscription to `public.songs` with a filter."""
    return replace(subscription(name), comparisons=(comparison,))


def found(subscriptions: Subscriptions, event: str = "INSERT", **values: str | None) -> list[object]:
    """Who wants a change of `public.songs`."""
    row = {column: None if value is None else value.encode() for column, value in values.items()}
    by_role = subscriptions.matching("public", "songs", event, row)
    return [each.subscriber for members in by_role.values() for each in members]


def registered(*members: Subscription) -> Subscriptions:
    subscriptions = Subscriptions()
    for member in members:
        subscriptions.replace(member.subscriber, [member])
    return subscriptions


def test_a_table_is_found_by_name_and_by_each_wildcard() -> None:
    """Schema and table may each be left open."""
    subscriptions = registered(
        subscription("table"),
        subscription("schema", table="*"),
        subscription("any schema", schema="*"),
        subscription("all", schema="*", table="*"),
        subscription("other table", table="shows"),
        subscription("other schema", schema="private"),
    )
    assert found(subscriptions) == ["table", "schema", "any schema", "all"]


def test_only_wanted_events_are_found() -> None:
    """`*` stands for all."""
    subscriptions = registered(subscription("all"), subscription("deletes", event="DELETE"))
    assert (found(subscriptions), found(subscriptions, "DELETE")) == (["all"], ["all", "deletes"])


def test_a_wanted_value_is_found_by_it() -> None:
    """All conditions have to be met."""
    subscriptions = registered(
        subscription("band 1", band="1"),
        subscription("band 2", band="2"),
        subscription("band 1, key C", band="1", key="C"),
    )
    assert found(subscriptions, band="1", key="D") == ["band 1"]


def test_values_are_found_in_any_form_their_type_writes_them() -> None:
    """The index knows equal values, not equal texts."""
    price = Comparison.of(Condition("price", "eq", ("1.5",)), [b"1.5"], as_number)
    wanted = comparing("cheap", price)
    assert found(registered(wanted), price="1.50") == ["cheap"]


def test_a_column_that_did_not_come_along_meets_no_filter() -> None:
    """Not even one that asks for NULL."""
    is_null = Comparison.of(Condition("band", "is", ("null",)), [b"null"], as_text)
    wanted = comparing("null", is_null)
    subscriptions = registered(wanted, subscription("band 1", band="1"))
    assert (found(subscriptions), found(subscriptions, band=None)) == ([], ["null"])


def test_replacing_leaves_nothing_of_the_former_subscriptions() -> None:
    """Of several subscriptions of one subscriber all go at once."""
    subscriptions = Subscriptions()
    subscriptions.replace("anna", [subscription("anna"), subscription("anna", band="1")])
    subscriptions.replace("anna", [subscription("anna", band="2")])
    assert (found(subscriptions, band="1"), found(subscriptions, band="2")) == ([], ["anna"])


def test_a_table_concerns_nobody_when_the_last_one_is_gone() -> None:
    """Its changes need not be looked at."""
    subscriptions = registered(subscription("anna"), subscription("ben", band="1"))
    before = subscriptions.concern("public", "songs")
    subscriptions.remove("anna")
    subscriptions.remove("ben")
    assert (before, subscriptions.concern("public", "songs"), len(subscriptions)) == (True, False, 0)


def test_removing_somebody_unknown_does_nothing() -> None:
    """It may have been refused."""
    Subscriptions().remove("nobody")


ANNA, BEN = "00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000b"


def as_user(name: str, role: str = "authenticated", band: str | None = None, **more: object) -> Subscription:
    """A subscription of somebody with certain claims."""
    claims = Claims.of({"role": role, "exp": 1, **more})
    wanted = subscription(name, **({} if band is None else {"band": band}))
    return replace(wanted, claims=claims)


def narrowed(subscriptions: Subscriptions, **subjects: set[str]) -> list[object]:
    """Who is worth asking about a row, when only these may see it."""
    matching = subscriptions.matching("public", "songs", "INSERT", {"band": b"1"}, subjects)
    return [each.subscriber for members in matching.values() for each in members]


def test_only_those_who_may_see_a_row_are_found() -> None:
    """With a filter and without one."""
    subscriptions = registered(
        as_user("anna", sub=ANNA),
        as_user("ben", sub=BEN),
        as_user("anna, band 1", sub=ANNA, band="1"),
        as_user("ben, band 1", sub=BEN, band="1"),
    )
    assert narrowed(subscriptions, authenticated={ANNA}) == ["anna", "anna, band 1"]


def test_other_roles_are_not_narrowed_down() -> None:
    """Other policies may apply to them."""
    subscriptions = registered(as_user("anna", sub=ANNA), as_user("admin", "service_role", sub=BEN))
    assert narrowed(subscriptions, authenticated=set()) == ["admin"]


@pytest.mark.parametrize(
    ("sub", "found"), [(None, False), ("", True), (12, True), ("not a uuid", True), (BEN, False)]
)
def test_whoever_cannot_be_told_from_the_owner_is_found(sub: object, found: bool) -> None:
    """Without the claim nobody owns anything; what is no UUID is left to Postgres."""
    assert bool(narrowed(registered(as_user("somebody", sub=sub)), authenticated={ANNA})) is found


def test_the_roles_of_a_table_are_those_of_its_subscribers() -> None:
    """As long as they are there."""
    subscriptions = registered(as_user("anna"), as_user("ben", "anon", band="1"), as_user("cara", "anon"))
    before = subscriptions.roles("public", "songs")
    subscriptions.remove("ben")
    subscriptions.remove("cara")
    assert (before, subscriptions.roles("public", "songs")) == ({"authenticated", "anon"}, {"authenticated"})


def test_whoever_comes_or_goes_counts_from_the_next_change() -> None:
    """What was found for the last change is not kept beyond that."""
    subscriptions = registered(subscription("anna"), subscription("ben", event="INSERT"))
    first = found(subscriptions)
    subscriptions.replace("cara", [subscription("cara")])
    subscriptions.remove("anna")
    assert (first, found(subscriptions)) == (["anna", "ben"], ["ben", "cara"])


def test_what_only_postgres_can_tell_is_left_open() -> None:
    """Whoever may want a change is found, with what is to be asked."""
    relation = FilterRelation("anon", "text", "text", "~~", "pg_catalog", None)
    like = Comparison.of(Condition("title", "like", ("a%",)), [b"a%"], as_text, relation)
    wanted = comparing("pattern", like)
    subscriptions = registered(wanted)
    assert (found(subscriptions, title="b"), found(subscriptions), wanted.asked) == (["pattern"], [], (like,))


def described(**types: int) -> Relation:
    """`public.songs` with columns of some types."""
    columns = tuple(Column(name, oid, -1, is_key=False) for name, oid in types.items())
    return Relation(1, "public", "songs", "d", columns)


def test_whose_column_has_another_type_is_found() -> None:
    """And whose column is gone; not who compares nothing, or another column."""
    subscriptions = registered(
        replace(subscription("anna", band="1"), types=(("band", 23),)),
        replace(subscription("ben", key="C"), types=(("key", 25),)),
        subscription("cara"),
    )
    assert subscriptions.unsuited(described(band=23, key=25)) == set()
    assert subscriptions.unsuited(described(band=25, key=25)) == {"anna"}
    assert subscriptions.unsuited(described(band=23)) == {"ben"}


def test_who_came_after_the_table_was_described_is_looked_at_too() -> None:
    """What it was made ready for may be older than that."""
    subscriptions, relation = registered(), described(band=25)
    assert subscriptions.unsuited(relation) == set()
    subscriptions.replace("anna", [replace(subscription("anna", band="1"), types=(("band", 23),))])
    assert subscriptions.unsuited(relation) == {"anna"}
    subscriptions.replace("anna", [replace(subscription("anna", band="1"), types=(("band", 25),))])
    assert subscriptions.unsuited(relation) == set()
