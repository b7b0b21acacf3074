"""The client: channels, presence, row changes and broadcasts of a Supabase Realtime compatible server."""

from backbeat.client.channel import Channel, SendReceipt
from backbeat.client.client import ClientStats, RealtimeClient
from backbeat.client.config import ChangeBinding, ChannelConfig
from backbeat.client.filters import F, Filter
from backbeat.client.selectors import Broadcast, Change, Presence
from backbeat.client.settings import ClientSettings
from backbeat.client.streams import EventStream, OverflowPolicy

__all__ = [
    "Broadcast",
    "Change",
    "ChangeBinding",
    "Channel",
    "ChannelConfig",
    "ClientSettings",
    "ClientStats",
    "EventStream",
    "F",
    "Filter",
    "OverflowPolicy",
    "Presence",
    "RealtimeClient",
    "SendReceipt",
]
