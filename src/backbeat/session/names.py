"""Names that do not exist say which ones do."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ClassVar

__all__ = ["NamesItsMethods"]


class NamesItsMethods:
    """Makes the AttributeError of an unknown name say what the caller may have meant.

    A call to a method that does not exist once kept a token from ever reaching a socket, and was swallowed on
    its way. So the error says what to call instead; and type checkers, for whom there is nothing here, find
    the mistake first.
    """

    _for_sessions: ClassVar[str] = ""
    """What is said to somebody who looks for a session."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            text = f"{type(self).__name__} has no {name!r}."
            public = [each for each in dir(type(self)) if not each.startswith("_")]
            if close := get_close_matches(name, public, n=1):
                text += f" Did you mean {close[0]!r}?"
            if "session" in name:
                text += f" {self._for_sessions}"
            raise AttributeError(text, name=name)
