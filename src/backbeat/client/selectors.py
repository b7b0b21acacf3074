"""What of a channel somebody wants: broadcasts of an event, changes of a table, kinds of events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypedDict, TypeVar

import msgspec

from backbeat.client import events
from backbeat.client.config import ChangeBinding
from backbeat.client.filters import Filter
from backbeat.errors import ConfigurationError
from backbeat.protocol.bindings import ANY
from backbeat.protocol.bindings import Event as ChangeKind

__all__ = ["Broadcast", "Change", "ChangeOptions", "Presence", "Selector", "Wish", "convert_row"]

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Broadcasts.

    Attributes:
        event: of this event, in any letter case; `*` for all.
    """

    event: str = ANY

    def matches(self, event: str) -> bool:
        """Whether a broadcast is one of these."""
        return self.event in (ANY, event) or self.event.lower() == event.lower()


@dataclass(frozen=True, slots=True)
class Change(Generic[R]):
    """Row changes.

    Attributes:
        table: of this table; `*` for all that are published.
        event: only `INSERT`, `UPDATE` or `DELETE`; `*` for all.
        schema: where the table is; `*` for everywhere.
        filter: only rows that meet these conditions: `F("band_id") == 42`, or text.
        select: only these columns, and the primary key.
        model: the type of `new`: a msgspec Struct, a dataclass, a TypedDict or a pydantic model.
    """

    table: str = ANY
    event: ChangeKind = ANY
    schema: str = "public"
    filter: Filter | str | None = None
    select: Sequence[str] | None = None
    model: type[R] | None = None

    def binding(self) -> ChangeBinding:
        """What is asked of the server.

        Raises:
            ConfigurationError: columns are selected of more than one table, or the event does not exist.
        """
        if self.select is not None and (isinstance(self.select, str) or ANY in (self.table, self.schema)):
            raise ConfigurationError("`select` is a list of columns, of one table.")
        event = self.event.upper()
        if event not in ("INSERT", "UPDATE", "DELETE", ANY):
            raise ConfigurationError(f"There is no {self.event!r} of rows: INSERT, UPDATE, DELETE or *.")
        return ChangeBinding(
            event=event,  # type: ignore[arg-type] # just checked
            schema=self.schema,
            table=self.table,
            filter=None if self.filter is None else str(self.filter),
            select=None if self.select is None else tuple(self.select),
        )


class ChangeOptions(TypedDict, total=False):
    """What narrows row changes down; the attributes of `Change` of the same names."""

    event: ChangeKind
    schema: str
    filter: Filter | str | None
    select: Sequence[str] | None


@dataclass(frozen=True, slots=True)
class Presence:
    """Everything about who is present."""


Selector: TypeAlias = Broadcast | Change[Any] | Presence | type[events.Event]
"""What somebody may want."""


class Wish:
    """What somebody wants, ready to be compared with what happens.

    Args:
        selectors: what they want; nothing stands for everything.

    Raises:
        ConfigurationError: a selector makes no sense.
    """

    __slots__ = ("_selectors", "bindings")

    def __init__(self, *selectors: Selector) -> None:
        self._selectors = [
            (selector, selector.binding() if isinstance(selector, Change) else None) for selector in selectors
        ]
        self.bindings = [binding for _, binding in self._selectors if binding is not None]
        """The row changes a channel has to ask for."""

    def take(self, event: events.Event, bindings: Sequence[ChangeBinding]) -> events.Event | None:
        """Compare.

        Args:
            event: what happened.
            bindings: the change bindings it matches.

        Returns:
            The event as it is wanted, a row in its model; None if it is not wanted.

        Raises:
            ValueError: the row does not fit the model; also a subclass, such as `msgspec.ValidationError`.
        """
        if not self._selectors:
            return event
        for selector, binding in self._selectors:
            if isinstance(selector, Broadcast):
                if isinstance(event, events.BroadcastEvent) and selector.matches(event.event):
                    return event
            elif isinstance(selector, Change):
                if isinstance(event, events.ChangeEvent) and binding in bindings:
                    if (
                        selector.model is not None
                        and event.errors
                        and not event.new
                        and event.type != "DELETE"
                    ):
                        # There is no row to make a model of: `ChangeIncomplete` tells why.
                        continue
                    return convert_row(event, selector.model)
            elif isinstance(event, events.PresenceEvent if isinstance(selector, Presence) else selector):
                return event
        return None


def convert_row(event: events.ChangeEvent[Any], model: type[R] | None) -> events.ChangeEvent[R]:
    """Give the new row of a change the type its reader wants.

    Raises:
        msgspec.ValidationError: the row does not fit the model.
        ValueError: it does not fit a pydantic model.
    """
    if model is None or not event.new:
        return event
    validate = getattr(model, "model_validate", None)
    row = validate(event.new) if validate is not None else msgspec.convert(event.new, model, strict=False)
    return msgspec.structs.replace(event, new=row)
