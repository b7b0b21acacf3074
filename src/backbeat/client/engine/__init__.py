"""The client without I/O: what it is told goes in, what has to be done comes out.

`Engine.handle(input, now)` returns effects. There is no clock, socket, task or thread in here; whoever drives
the engine has them, and no decisions.
"""

from backbeat.client.engine.engine import Engine

__all__ = ["Engine"]
