"""Who is present in a room, and the diffs that tell the others."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backbeat.protocol.presence import encode_state, sync
from backbeat.server.presence import PresenceTable


def decoded(diff: bytes | None) -> dict[str, Any]:
    """A diff without its `metas`: what joins and what leaves, by key."""
    assert diff is not None
    parts = json.loads(diff)
    assert parts.keys() == {"joins", "leaves"}
    return {name: {key: entry["metas"] for key, entry in part.items()} for name, part in parts.items()}


def state(table: PresenceTable[str]) -> dict[str, Any]:
    """What a joiner would be told."""
    return dict(json.loads(encode_state(table.state())))


@pytest.fixture
def table() -> PresenceTable[str]:
    """A table in which nobody is."""
    return PresenceTable()


def test_an_empty_table_has_an_empty_state(table: PresenceTable[str]) -> None:
    """Stock clients wait for it all the same."""
    assert state(table) == {}


def test_tracking_joins(table: PresenceTable[str]) -> None:
    """The object joins under its key, with the new `phx_ref` and no former one."""
    diff = decoded(table.track("m", "ann", {"name": "Ann"}, "r1"))
    assert diff == {"joins": {"ann": [{"name": "Ann", "phx_ref": "r1"}]}, "leaves": {}}


def test_tracking_another_object_is_one_diff(table: PresenceTable[str]) -> None:
    """The new meta joins and names the old one, which leaves as it joined."""
    table.track("m", "ann", {"n": 1}, "r1")
    diff = decoded(table.track("m", "ann", {"n": 2}, "r2"))
    assert diff == {
        "joins": {"ann": [{"n": 2, "phx_ref": "r2", "phx_ref_prev": "r1"}]},
        "leaves": {"ann": [{"n": 1, "phx_ref": "r1"}]},
    }


def test_tracking_the_same_object_is_nothing(table: PresenceTable[str]) -> None:
    """Its `phx_ref` stays, too."""
    table.track("m", "ann", {"n": 1}, "r1")
    assert table.track("m", "ann", {"n": 1}, "r2") is None
    assert state(table)["ann"]["metas"][0]["phx_ref"] == "r1"


@pytest.mark.parametrize(("before", "after"), [(1, True), (0, False), (True, 1.0)])
def test_values_that_only_python_finds_equal_are_a_change(
    table: PresenceTable[str], before: object, after: object
) -> None:
    """`1` and `true` are two things to everybody else."""
    table.track("m", "ann", {"online": before}, "r1")
    assert table.track("m", "ann", {"online": after}, "r2") is not None


def test_untracking_leaves(table: PresenceTable[str]) -> None:
    """The meta leaves as it joined, and nobody is there."""
    table.track("m", "ann", {"n": 1}, "r1")
    diff = decoded(table.untrack("m"))
    assert diff == {"joins": {}, "leaves": {"ann": [{"n": 1, "phx_ref": "r1"}]}}
    assert len(table) == 0


def test_untracking_what_was_not_tracked_is_nothing(table: PresenceTable[str]) -> None:
    """There is nothing to tell."""
    assert table.untrack("m") is None


def test_members_share_a_key(table: PresenceTable[str]) -> None:
    """One key, a meta for each member; one of them going leaves the other's."""
    table.track("phone", "ann", {}, "r1")
    table.track("laptop", "ann", {}, "r2")
    table.untrack("phone")
    assert state(table) == {"ann": {"metas": [{"phx_ref": "r2"}]}}


def test_refs_of_the_client_are_replaced(table: PresenceTable[str]) -> None:
    """Clients tell metas apart by them: nobody may choose the `phx_ref` of somebody else."""
    diff = decoded(table.track("m", "ann", {"phx_ref": "r9", "phx_ref_prev": "r8"}, "r1"))
    assert diff["joins"]["ann"][0]["phx_ref"] == "r1"


def test_hostile_keys_are_just_keys(table: PresenceTable[str]) -> None:
    """They are data: quoted on the wire, and apart from each other."""
    keys = ["__proto__", "constructor", '"}', "\x00", "\u2028", "metas", "x" * 10_000]
    for number, key in enumerate(keys):
        table.track(key, key, {}, f"r{number}")
    assert list(state(table)) == keys


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("kl"), st.none() | st.integers(0, 2)), max_size=12
    )
)
def test_the_diffs_add_up_to_the_state(steps: list[tuple[str, str, int | None]]) -> None:
    """Whoever applies every diff to an empty state knows what a joiner is told."""
    table: PresenceTable[str] = PresenceTable()
    known: dict[str, list[dict[str, Any]]] = {}
    for number, (member, key, value) in enumerate(steps):
        diff = (
            table.untrack(member) if value is None else table.track(member, key, {"v": value}, f"r{number}")
        )
        if diff is not None:
            known = sync(known, **decoded(diff))
    refs = {key: {meta["phx_ref"] for meta in metas} for key, metas in known.items()}
    assert refs == {key: {meta["phx_ref"] for meta in entry["metas"]} for key, entry in state(table).items()}
