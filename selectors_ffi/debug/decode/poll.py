"""poll(2): poll, ppoll. The array is input (``events``) and output (``revents``) at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...binding import pointer_to
from .form import Form, Native, records
from .grammar import Bits, array, struct, timeval
from .vocabulary import POLL_EVENTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["FORMS", "Poll", "PollEvents", "event_bits"]

_POLLFD = "struct pollfd"


def event_bits(ffi: Any) -> Bits:
    """Return the names of ``pollfd.events`` and ``revents``, which are signed shorts."""
    return Bits.of(ffi, POLL_EVENTS, width=16)


class PollEvents(Form):
    """The form of calls whose arguments have the events of poll(2), most in arrays of ``pollfd``."""

    def __init__(self, ffi: Any) -> None:
        super().__init__(ffi)
        self.bits: Bits = event_bits(ffi)

    def interests(self, fds: Any, count: int) -> str:
        """Return what was asked for: ``[{fd=5, events=POLLIN}]``; of a skipped entry ``{fd=-1}``."""
        return records(self.ffi, fds, _POLLFD, count, self._interest)

    def _interest(self, entry: Any) -> str:
        fd = int(entry.fd)
        return struct(fd=fd) if fd < 0 else struct(fd=fd, events=self.bits(int(entry.events)))

    def occurred(self, fds: Any, count: int) -> Iterable[tuple[int, int]]:
        """Return (fd, revents) of the entries that have some."""
        pointer = pointer_to(self.ffi, _POLLFD, fds)
        for index in range(count):
            if pointer[index].revents:
                yield int(pointer[index].fd), int(pointer[index].revents)

    def results(self, fds: Any, count: int) -> str:
        """Return what happened: ``[{fd=5, revents=POLLIN|POLLHUP}]``."""
        bits = self.bits
        return array(struct(fd=fd, revents=bits(revents)) for fd, revents in self.occurred(fds, count))

    def natives(self, fds: Any, count: int) -> list[Native]:
        """Return what happened as events."""
        bits = self.bits
        hangup = bits.of_names("POLLERR", "POLLHUP", "POLLNVAL", "POLLRDHUP")
        return [
            Native(fd, None, bits(revents), bool(revents & hangup))
            for fd, revents in self.occurred(fds, count)
        ]


class Poll(PollEvents):
    """``poll([{fd=5, events=POLLIN}], 1, 0) = 1 ([{fd=5, revents=POLLIN}])``."""

    zero = "Timeout"

    waits = True

    def enter(self, arguments: Sequence[Any]) -> list[str]:
        texts = super().enter(arguments)
        fds, count = arguments[0], int(arguments[1])
        # strace writes an empty array as NULL or by its address; the contents are the same.
        texts[0] = self.interests(fds, count)
        if not texts[2].lstrip("-").isdigit():
            texts[2] = timeval(self.ffi, arguments[2])
        return texts

    def leave(self, arguments: Sequence[Any], texts: list[str], result: int) -> str:
        if result > 0:
            return self.results(arguments[0], int(arguments[1]))
        return super().leave(arguments, texts, result)

    def ready(self, arguments: Sequence[Any], result: int) -> list[Native]:
        return self.natives(arguments[0], int(arguments[1]))


FORMS: dict[str, type[Form]] = {"poll": Poll, "ppoll": Poll}
