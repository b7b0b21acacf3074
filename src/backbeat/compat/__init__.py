"""The names and callbacks of `realtime`, the client of supabase-py, with our client underneath.

Programs that were written for it change an import::

    from backbeat.compat import AsyncRealtimeClient, RealtimeSubscribeStates

See `docs/porting.md` for what else changes, and what does not.
"""

from backbeat.compat import exceptions, message, types
from backbeat.compat.channel import AsyncRealtimeChannel
from backbeat.compat.client import AsyncRealtimeClient
from backbeat.compat.exceptions import *  # noqa: F403 - the names of a package that does so itself
from backbeat.compat.message import *  # noqa: F403 - the same
from backbeat.compat.presence import AsyncRealtimePresence
from backbeat.compat.push import AsyncPush
from backbeat.compat.types import *  # noqa: F403 - the same
from backbeat.version import VERSION

__version__ = VERSION

__all__ = [
    "AsyncPush",
    "AsyncRealtimeChannel",
    "AsyncRealtimeClient",
    "AsyncRealtimePresence",
    "__version__",
]
__all__ += exceptions.__all__
__all__ += message.__all__
__all__ += types.__all__
