"""RFC 6455 without I/O: the opening handshake and the frames."""
