"""The `Prefer` header (RFC 7240), as far as `/rest/v1` honours it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Preferences"]

CHOICES = {
    "resolution": ("merge-duplicates", "ignore-duplicates"),
    "missing": ("default", "null"),
    "return": ("representation", "minimal", "headers-only"),
    "count": ("exact", "planned", "estimated"),
}

HONOURED = {
    "GET": ("count",),
    "HEAD": ("count",),
    "POST": ("resolution", "missing", "return", "count"),
    "PATCH": ("return", "count"),
    "DELETE": ("return", "count"),
}


@dataclass(frozen=True, slots=True)
class Preferences:
    """What the caller would like; each is None when nothing, or nothing known, was said.

    Attributes:
        resolution: what to do with rows that exist: `merge-duplicates` or `ignore-duplicates`.
        missing: what a key missing in an object of a list becomes: `default` or `null`.
        returned: what a write answers with: `representation`, `minimal` or `headers-only`.
        count: how to count all rows; every way counts exactly.
        applied: the value of `Preference-Applied`.
    """

    resolution: str | None = None
    missing: str | None = None
    returned: str | None = None
    count: str | None = None
    applied: str = ""

    @classmethod
    def of(cls, headers: Iterable[str], method: str) -> Preferences:
        """Read the preferences of a request; of contradictory ones the first counts, unknown ones do not.

        Args:
            headers: the values of all `Prefer` headers, comma-joined or apart.
            method: the HTTP method, which decides what can be honoured.
        """
        chosen: dict[str, str] = {}
        for part in ",".join(headers).split(","):
            name, _, value = part.partition("=")
            name, value = name.strip().lower(), value.strip()
            if name in HONOURED.get(method, ()) and value in CHOICES[name]:
                chosen.setdefault(name, value)
        return cls(
            resolution=chosen.get("resolution"),
            missing=chosen.get("missing"),
            returned=chosen.get("return"),
            count=chosen.get("count"),
            applied=", ".join(f"{name}={chosen[name]}" for name in CHOICES if name in chosen),
        )
