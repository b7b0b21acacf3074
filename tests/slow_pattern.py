"""A filter that takes longer than anybody waits."""

from __future__ import annotations

ENDLESS = r"^(a*)(a*)(a*)(a*)\1\2\3\4$"
"""Takes a regular expression engine hours, on an odd number of letters."""
LETTERS = "a" * 301
