"""kqueue(2): kqueue, kqueue1, kqueuex, kevent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...binding import pointer_to
from .form import FlagsAlone, Form, Native, records
from .grammar import Bits, Names, errno_name, struct, timeval
from .vocabulary import KEVENT_FILTERS, KEVENT_FLAGS, KEVENT_NOTES, KQUEUEX_FLAGS, OPEN_FLAGS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["FORMS", "Create", "Kevent", "Records"]

_KEVENT = "struct kevent"


class Create(FlagsAlone):
    """``kqueue() = 5``, ``kqueue1(O_CLOEXEC) = 5``."""

    names: Iterable[str] = OPEN_FLAGS


class CreateX(FlagsAlone):
    """``kqueuex(KQUEUE_CLOEXEC) = 5``."""

    names: Iterable[str] = KQUEUEX_FLAGS


class Records:
    """Text of a ``struct kevent``, whose field types differ by system."""

    def __init__(self, ffi: Any) -> None:
        self.filter: Names = Names.of(ffi, KEVENT_FILTERS)
        self.flags: Bits = Bits.of(ffi, KEVENT_FLAGS)
        self.notes: dict[str, Bits] = {name: Bits.of(ffi, notes) for name, notes in KEVENT_NOTES.items()}
        self.unknown: Bits = Bits({})
        self.error: int = int(ffi.integer_const("EV_ERROR"))
        self.eof: int = int(ffi.integer_const("EV_EOF"))
        self.cast: Any = ffi.cast

    def token(self, event: Any) -> int:
        """Return ``udata``, declared as a number or as the pointer it is in C."""
        return int(self.cast("uintptr_t", event.udata))

    def fields(self, event: Any) -> dict[str, object]:
        """Return the fields in the order of the struct, decoded."""
        udata = self.token(event)
        return {
            "ident": int(event.ident),
            **self.outcome(event.filter, event.flags, event.fflags, event.data),
            "udata": hex(udata) if udata else "NULL",
        }

    def outcome(self, filter_: int, flags: int, fflags: int, data: int) -> dict[str, object]:
        """Return the fields that say what is asked or what happened, decoded."""
        name = self.filter(int(filter_))
        notes = self.notes.get(name, self.unknown)
        return {
            "filter": name,
            "flags": self.flags(int(flags)),
            # With EV_EOF a socket's error is in fflags; with EV_ERROR the change's is in data.
            "fflags": errno_name(fflags) if flags & self.eof and fflags else notes(int(fflags)),
            "data": errno_name(data) if flags & self.error and data else int(data),
        }

    def __call__(self, event: Any) -> str:
        return struct(**self.fields(event))


class Kevent(Form):
    """``kevent(5, [{ident=7, filter=EVFILT_READ, flags=EV_ADD, ...}], 1, NULL, 0, NULL) = 0``."""

    waits = remembers = arms = True

    def __init__(self, ffi: Any) -> None:
        super().__init__(ffi)
        self.render: Records = Records(ffi)
        self.add: int = int(ffi.integer_const("EV_ADD"))

    def enter(self, arguments: Sequence[Any]) -> list[str]:
        texts = super().enter(arguments)
        texts[1] = records(self.ffi, arguments[1], _KEVENT, int(arguments[2]), self.render)
        texts[5] = timeval(self.ffi, arguments[5])
        return texts

    def leave(self, arguments: Sequence[Any], texts: list[str], result: int) -> str:
        texts[3] = records(self.ffi, arguments[3], _KEVENT, result, self.render)
        return ""

    def ready(self, arguments: Sequence[Any], result: int) -> list[Native]:
        events = pointer_to(self.ffi, _KEVENT, arguments[3])
        return [self._native(events[index]) for index in range(result)]

    def _native(self, event: Any) -> Native:
        fields = self.render.fields(event)
        return Native(
            int(event.ident),
            self.render.token(event),
            "filter={filter}, flags={flags}, fflags={fflags}, data={data}".format_map(fields),
            bool(int(event.flags) & self.render.eof),
        )

    def armed(self, arguments: Sequence[Any]) -> Iterable[tuple[int, int]]:
        if not int(arguments[2]):
            return []
        changes = pointer_to(self.ffi, _KEVENT, arguments[1])
        return [
            (int(changes[index].ident), self.render.token(changes[index]))
            for index in range(int(arguments[2]))
            if int(changes[index].flags) & self.add
        ]


FORMS: dict[str, type[Form]] = {
    "kqueue": Create,
    "kqueue1": Create,
    "kqueuex": CreateX,
    "kevent": Kevent,
}
