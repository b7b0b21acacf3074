"""The band app in a terminal."""
