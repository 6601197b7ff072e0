"""Event ports: port_associate, port_dissociate, port_send, port_getn.

The events of a wait are those of the poll(2) that follows, see ``backends.eventport``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...binding import pointer_to
from .form import Form, records
from .grammar import Names, struct, timeval
from .poll import PollEvents
from .vocabulary import PORT_SOURCES

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FORMS", "Associate", "GetN"]

_EVENT = "struct port_event"


class _Port(PollEvents):
    def __init__(self, ffi: Any) -> None:
        super().__init__(ffi)
        self.source: Names = Names.of(ffi, PORT_SOURCES)


class Associate(_Port):
    """``port_associate(4, PORT_SOURCE_FD, 7, POLLIN, NULL) = 0``; port_dissociate has three of them."""

    def enter(self, arguments: Sequence[Any]) -> list[str]:
        texts = super().enter(arguments)
        texts[1] = self.source(int(arguments[1]))
        if len(texts) > 3:
            texts[3] = self.bits(int(arguments[3]))
        return texts


class GetN(_Port):
    """``port_getn(4, [{portev_events=POLLIN, ...}], 16, [1], NULL) = 0``."""

    def enter(self, arguments: Sequence[Any]) -> list[str]:
        texts = super().enter(arguments)
        texts[1] = "[]"
        texts[3] = self._number(arguments)
        texts[4] = timeval(self.ffi, arguments[4])
        return texts

    def _number(self, arguments: Sequence[Any]) -> str:
        return f"[{pointer_to(self.ffi, 'unsigned int', arguments[3])[0]}]"

    def _render(self, event: Any) -> str:
        source = int(event.portev_source)
        text = self.source(source)
        events = int(event.portev_events)
        return struct(
            portev_events=self.bits(events) if text == "PORT_SOURCE_FD" else events,
            portev_source=text,
            portev_object=int(event.portev_object),
        )

    def leave(self, arguments: Sequence[Any], texts: list[str], result: int) -> str:
        texts[3] = self._number(arguments)
        texts[1] = records(self.ffi, arguments[1], _EVENT, int(texts[3][1:-1]), self._render)
        return ""


FORMS: dict[str, type[Form]] = {
    "port_associate": Associate,
    "port_dissociate": Associate,
    "port_getn": GetN,
    "port_send": Form,
}
