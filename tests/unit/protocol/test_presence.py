"""Presence states and diffs as pure functions."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from backbeat.protocol.presence import PresenceMap, diff, encode_diff, encode_state, grouped, sync

states = st.dictionaries(
    st.sampled_from("abcd"), st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True)
).map(lambda state: {key: [{"phx_ref": f"{key}{ref}"} for ref in refs] for key, refs in state.items()})


def normal(state: PresenceMap) -> dict[str, set[str]]:
    """A state without the order of its metas."""
    return {key: {meta["phx_ref"] for meta in metas} for key, metas in state.items()}


def test_metas_are_grouped_by_key() -> None:
    """Several connections of one person share a key."""
    assert grouped([("a", {"phx_ref": "1"}), ("b", {"phx_ref": "2"}), ("a", {"phx_ref": "3"})]) == {
        "a": [{"phx_ref": "1"}, {"phx_ref": "3"}],
        "b": [{"phx_ref": "2"}],
    }


@given(states, states)
def test_a_diff_leads_from_one_state_to_the_other(old: PresenceMap, new: PresenceMap) -> None:
    """Applying the difference of two states to the first gives the second."""
    joins, leaves = diff(old, new)
    assert normal(sync(old, joins, leaves)) == normal(new)


@given(states)
def test_equal_states_have_no_diff(state: PresenceMap) -> None:
    """Nothing changed, nothing is sent."""
    assert diff(state, state) == ({}, {})


def test_the_state_on_the_wire() -> None:
    """Metas stand under `metas`, under their key."""
    assert json.loads(encode_state({"a": [{"phx_ref": "1"}]})) == {"a": {"metas": [{"phx_ref": "1"}]}}


def test_a_diff_on_the_wire_has_both_parts() -> None:
    """Clients read joins and leaves without asking whether they are there."""
    assert json.loads(encode_diff({}, {"a": [{"phx_ref": "1"}]})) == {
        "joins": {},
        "leaves": {"a": {"metas": [{"phx_ref": "1"}]}},
    }
