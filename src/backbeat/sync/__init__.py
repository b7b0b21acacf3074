"""The client and its sessions for blocking code: the names of `backbeat`, without `await`."""

from backbeat.client import Broadcast, Change, F, Presence
from backbeat.sync.channel import Channel
from backbeat.sync.client import RealtimeClient
from backbeat.sync.presence import ChannelPresence
from backbeat.sync.session import AuthContext
from backbeat.sync.streams import EventStream

__all__ = [
    "AuthContext",
    "Broadcast",
    "Change",
    "Channel",
    "ChannelPresence",
    "EventStream",
    "F",
    "Presence",
    "RealtimeClient",
]
