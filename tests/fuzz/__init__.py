"""Bytes that nobody would send, for the WebSocket layer: frames, and the heads of requests.

Wires and heads that are worth something are changed at random. Frames are read by our parser and by
`websockets`, heads by ours, by `httptools` and by `h11`.
"""
