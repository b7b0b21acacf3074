"""What a join payload asks for, and what becomes of a bad one."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbeat.errors import BadRequest
from backbeat.protocol.join import JoinRequest, Replay


def parse(payload: Any) -> JoinRequest:
    """Parse a payload given as a Python value."""
    return JoinRequest.parse(json.dumps(payload).encode())


def config(**values: Any) -> JoinRequest:
    """Parse a payload with this configuration."""
    return parse({"config": values})


def test_an_empty_payload_is_a_public_channel_with_the_defaults() -> None:
    """Nothing asked, nothing special."""
    assert parse({}) == JoinRequest()


def test_a_full_payload_is_read() -> None:
    """Every field ends up where it belongs."""
    change = {"event": "*", "schema": "public", "table": "todos", "filter": "id=eq.5"}
    request = parse(
        {
            "access_token": "a.b.c",
            "config": {
                "private": True,
                "broadcast": {"ack": True, "self": True, "replay": {"since": 1760000000000, "limit": 10}},
                "presence": {"enabled": True, "key": "user-1"},
                "postgres_changes": [change],
            },
        }
    )
    assert request.access_token == "a.b.c"
    assert request.private
    assert request.ack
    assert request.self_broadcast
    assert request.presence
    assert request.presence_key == "user-1"
    assert request.changes == (change,)
    assert request.replay == Replay(1760000000000, 10)
    assert request.problems == ()


@pytest.mark.parametrize(("value", "read"), [("true", True), ("True", True), ("FALSE", False), (True, True)])
def test_booleans_may_be_words(value: object, read: bool) -> None:
    """Some clients send booleans as text."""
    assert config(private=value).private is read


@pytest.mark.parametrize("value", ["yes", 1, [], {}])
def test_other_values_keep_the_default_and_are_named(value: object) -> None:
    """A field of the wrong type does not fail the join; it is reported."""
    request = config(private=value)
    assert not request.private
    assert request.problems == ("private: unable to parse, expected a boolean",)


@pytest.mark.parametrize(("key", "read"), [(7, "7"), ("", None), (None, None), ("k", "k")])
def test_presence_keys_are_scalars(key: object, read: str | None) -> None:
    """Numbers become text; nothing means a random key."""
    assert config(presence={"key": key}).presence_key == read


@pytest.mark.parametrize("value", [None, [], [None, None]])
def test_no_changes_may_be_asked_for_in_several_ways(value: object) -> None:
    """Null, an empty list and a list of nulls all mean none."""
    assert config(postgres_changes=value).changes == ()


@pytest.mark.parametrize("payload", [[], "x", None, {"config": []}, {"config": {"postgres_changes": ["x"]}}])
def test_a_payload_of_the_wrong_shape_fails_the_join(payload: object) -> None:
    """What cannot be read at all is refused, with a reason."""
    with pytest.raises(BadRequest, match=r"not an object|no object"):
        parse(payload)


def test_a_payload_without_measure_is_refused() -> None:
    """A million subscriptions are not even read."""
    with pytest.raises(BadRequest, match="larger than"):
        config(postgres_changes=[{}] * 100_000)


@pytest.mark.parametrize(
    ("payload", "token"),
    [
        ({"access_token": "a"}, "a"),
        ({"user_token": "u"}, "u"),
        ({"access_token": "a", "user_token": "u"}, "u"),
        ({"access_token": "sb_publishable_x"}, None),
        ({"access_token": "sb_publishable_x", "user_token": "u"}, None),
        ({"user_token": "sb_x"}, None),
        ({"access_token": None}, None),
        ({"access_token": {"token": "a"}}, None),
    ],
)
def test_which_token_authenticates(payload: dict[str, object], token: str | None) -> None:
    """An opaque key stands for the connection's token; otherwise `user_token` comes first."""
    assert parse(payload).access_token == token


def test_a_token_is_never_shown() -> None:
    """`repr` of a request leaves the token out."""
    assert "a.b.c" not in repr(parse({"access_token": "a.b.c"}))


def test_ids_are_stable() -> None:
    """The same subscription has the same number in every join, whatever the order of its keys."""
    first = config(postgres_changes=[{"event": "*", "table": "a"}]).change_ids
    assert first == config(postgres_changes=[{"table": "a", "event": "*"}]).change_ids


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 3), max_size=3), max_size=20))
def test_ids_tell_subscriptions_apart(changes: list[dict[str, int]]) -> None:
    """Equal requests share a number, different ones never do, and no number is false to JavaScript."""
    ids = config(postgres_changes=changes).change_ids
    assert all(0 < number < 2**27 for number in ids)
    for one, number in zip(changes, ids, strict=True):
        assert [other == one for other in changes] == [other == number for other in ids]


@pytest.mark.parametrize(
    ("replay", "read"),
    [
        ({"since": 5}, Replay(5, 25)),
        ({"since": 5, "limit": 0}, Replay(5, 1)),
        ({"since": 5, "limit": 99}, Replay(5, 25)),
        ({"since": "5"}, None),
        ({"limit": 5}, None),
        ("x", None),
        (None, None),
    ],
)
def test_replay_is_clamped_or_left_out(replay: object, read: Replay | None) -> None:
    """At most 25 messages; what makes no sense is remembered as asked for."""
    request = config(broadcast={"replay": replay})
    assert request.replay == read
    assert request.replay_requested
    assert request.replay_malformed == (read is None and isinstance(replay, dict))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "config",
                        "private",
                        "broadcast",
                        "replay",
                        "presence",
                        "key",
                        "postgres_changes",
                        "access_token",
                    ]
                ),
                x,
            )
        ),
    )
)
def test_any_json_is_a_request_or_refused(payload: object) -> None:
    """Whatever a client sends, the answer is a request or a reason."""
    with contextlib.suppress(BadRequest):
        parse(payload)
