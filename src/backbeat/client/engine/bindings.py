"""Which change bindings the server confirmed, and under which numbers (client specification, 1.18)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backbeat.errors import BindingMismatch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backbeat.client.config import ChangeBinding

__all__ = ["match_bindings"]


def match_bindings(
    asked: tuple[ChangeBinding, ...], response: Mapping[str, Any], *, topic: str
) -> dict[int, tuple[int, ...]]:
    """Read the reply to a join: which number stands for which bindings.

    Bindings are found by what they say, in whatever order they come back; a key that is null is one that is
    absent, and keys nobody asked about are ignored.

    Args:
        asked: the bindings of the join.
        response: the response in the reply.
        topic: the topic, for the error.

    Returns:
        The indexes of bindings, by number.

    Raises:
        BindingMismatch: something that was asked for did not come back.
    """
    entries = response.get("postgres_changes")
    left = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    numbers: dict[int, tuple[int, ...]] = {}
    missing = []
    for index, binding in enumerate(asked):
        wanted = _content(binding.wire())
        found = next((entry for entry in left if _content(entry) == wanted and _number(entry)), None)
        if found is None:
            missing.append(str(binding))
            continue
        left.remove(found)
        numbers[found["id"]] = (*numbers.get(found["id"], ()), index)
    if missing:
        raise BindingMismatch(
            f"The server did not confirm the row changes {'; '.join(missing)}.",
            hint=f"It confirmed {len(asked) - len(missing)} of {len(asked)}, and {len(left)} others.",
            topic=topic,
        )
    return numbers


def _content(entry: Mapping[str, Any]) -> tuple[object, ...]:
    event = entry.get("event")
    return (
        event.upper() if isinstance(event, str) else event,
        entry.get("schema"),
        entry.get("table"),
        entry.get("filter"),
    )


def _number(entry: Mapping[str, Any]) -> bool:
    number = entry.get("id")
    return isinstance(number, int) and not isinstance(number, bool)
