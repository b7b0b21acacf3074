"""The realtime server: sockets, channels, fan-out."""
