"""The blocking classes have the names, the arguments and the words of the asyncio ones (INV-14)."""

from __future__ import annotations

import inspect
from typing import Any, Final

import pytest

from backbeat import sync
from backbeat.client import Channel, EventStream, RealtimeClient
from backbeat.client.presence import ChannelPresence
from backbeat.session import AuthContext

PAIRS: Final = [
    (RealtimeClient, sync.RealtimeClient),
    (Channel, sync.Channel),
    (ChannelPresence, sync.ChannelPresence),
    (EventStream, sync.EventStream),
    (AuthContext, sync.AuthContext),
]

RENAMED: Final = {
    "aclose": "close",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
}

INSIDE: Final = {
    RealtimeClient: {"handler_failed", "overflowed"},  # told by channels
    Channel: {"deliver", "end", "given_config", "not_subscribed", "want_presence"},  # told by the client
    ChannelPresence: set[str](),
    EventStream: {"put", "end"},  # told by the channel
    AuthContext: set[str](),
}
"""What the parts of the asyncio client say to each other."""

OWN: Final = {
    "recreate",  # after a fork
    "poll",  # where callbacks run
    "run_forever",
    "listen",  # told by channels
    "callback",
    "follow",  # asked by the client
    "name",  # attributes of the instance there
    "dropped",
}
"""What only the blocking classes have."""

RESULTS: Final = {"AsyncGenerator[AuthEvent, None]": "EventStream[AuthEvent]"}
"""What has another type than what is awaited."""

PROTOCOLS: Final = {"__len__", "__repr__", *RENAMED, *RENAMED.values()}


def members(kind: type[Any]) -> dict[str, Any]:
    """What users may touch of a class."""
    return {
        name: member for name, member in vars(kind).items() if not name.startswith("_") or name in PROTOCOLS
    }


MEMBERS: Final = [
    pytest.param(member, vars(blocking).get(RENAMED.get(name, name)), id=f"{asyncio.__name__}.{name}")
    for asyncio, blocking in PAIRS
    for name, member in members(asyncio).items()
    if name not in INSIDE[asyncio]
]


def parameters(function: Any) -> list[tuple[Any, ...]]:
    """The names, kinds and defaults of what a function takes, and the names of their types."""
    return [
        (each.name, each.kind, each.default, each.annotation.removesuffix(" | AuthContext"))
        for each in inspect.signature(function).parameters.values()
        if each.name not in ("self", "dispatch")
    ]


def headline(member: Any) -> str:
    """What a docstring says first, in words that fit both."""
    first = (inspect.getdoc(member) or "").partition("\n")[0]
    return first.replace("as an async iterator", "as an iterator").replace("task", "thread")


@pytest.mark.parametrize(("asyncio", "blocking"), PAIRS)
def test_there_are_no_other_names(asyncio: type[Any], blocking: type[Any]) -> None:
    """Nothing is missing, and nothing is there but what blocking code needs."""
    expected = {RENAMED.get(name, name) for name in members(asyncio)} - INSIDE[asyncio]
    assert expected <= members(blocking).keys()
    assert members(blocking).keys() - expected <= OWN


@pytest.mark.parametrize(("asyncio", "blocking"), MEMBERS)
def test_a_member_is_of_the_same_kind(asyncio: Any, blocking: Any) -> None:
    """A property is a property, a method a method, and none has to be awaited."""
    assert isinstance(blocking, property) == isinstance(asyncio, property)
    assert not inspect.iscoroutinefunction(blocking)


@pytest.mark.parametrize(("asyncio", "blocking"), MEMBERS)
def test_a_member_says_the_same(asyncio: Any, blocking: Any) -> None:
    """The first lines of the docstrings agree."""
    assert headline(blocking) == headline(asyncio)


@pytest.mark.parametrize(
    ("asyncio", "blocking"),
    [each for each in MEMBERS if inspect.isfunction(each.values[0])]
    + [
        pytest.param(kind.__init__, blocking.__init__, id=f"{kind.__name__}.__init__")
        for kind, blocking in ((RealtimeClient, sync.RealtimeClient), (AuthContext, sync.AuthContext))
    ],
)
def test_a_method_takes_and_gives_the_same(asyncio: Any, blocking: Any) -> None:
    """Names, order, kinds, defaults and types agree, of the result too; iterators may have a `timeout`."""
    expected, actual = parameters(asyncio), parameters(blocking)
    result = inspect.signature(blocking).return_annotation
    if "EventStream" in result:
        actual = [each for each in actual if each[0] != "timeout"]
    assert actual == expected
    assert result == RESULTS.get(awaited := inspect.signature(asyncio).return_annotation, awaited)
