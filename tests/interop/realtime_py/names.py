"""Prints what `realtime` has in public, as JSON: names, members, parameters and words."""

from __future__ import annotations

import inspect
import json
import sys
from typing import Any

import realtime  # type: ignore[import-not-found]


def is_borrowed(name: str, value: Any) -> bool:
    """Whether somebody else has a thing under the same name, and it is just imported."""
    home = getattr(value, "__module__", None) or "realtime"
    return not home.startswith("realtime") and getattr(sys.modules[home], name, None) is value


def parameters(value: Any) -> list[list[object]]:
    """What can be given to a function, in order: names, and whether they have to be."""
    given = inspect.signature(value).parameters.values()
    return [[each.name, each.default is each.empty] for each in given]


def members(made: Any) -> dict[str, Any]:
    """What something has: functions with their parameters, and everything else."""
    return {
        name: parameters(value) if inspect.isroutine(value) else None
        for name in dir(made)
        if not name.startswith("_") and (value := getattr(made, name)) is not NotImplemented
    }


public = {
    name: value
    for name, value in vars(realtime).items()
    if not (name.startswith("_") or inspect.ismodule(value) or is_borrowed(name, value))
}
client = realtime.AsyncRealtimeClient("ws://127.0.0.1/socket", "key")
channel = client.channel("room")
print(
    json.dumps(
        {
            "names": sorted(public),
            "members": {
                "AsyncRealtimeClient": members(client),
                "AsyncRealtimeChannel": members(channel),
                "AsyncRealtimePresence": members(channel.presence),
            },
            "made by": {
                name: parameters(public[name])
                for name in ("AsyncRealtimeClient", "AsyncRealtimeChannel", "Message", "RealtimeHTTPError")
            },
            "words": {
                name: {each.name: each.value for each in value}
                for name, value in public.items()
                if hasattr(value, "__members__")
            },
        }
    )
)
