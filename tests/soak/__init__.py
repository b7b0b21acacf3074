"""A server under mixed traffic for as long as one likes, and the books that are kept about every message."""
