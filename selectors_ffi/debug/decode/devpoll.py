"""/dev/poll: open, write, ioctl, close."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...binding import pointer_to
from .form import Form, Native
from .grammar import Bits, Names, is_null, struct
from .poll import PollEvents
from .vocabulary import DEVPOLL_COMMANDS, OPEN_FLAGS

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FORMS", "Ioctl", "Open", "Write"]


class Open(Form):
    """``open("/dev/poll", O_RDWR|O_CLOEXEC) = 4``."""

    def __init__(self, ffi: Any) -> None:
        super().__init__(ffi)
        self.flags: Bits = Bits.of(ffi, OPEN_FLAGS)

    def enter(self, arguments: Sequence[Any]) -> list[str]:
        texts = super().enter(arguments)
        path = arguments[0]
        if isinstance(path, self.ffi.CData) and not is_null(self.ffi, path):
            path = self.ffi.string(self.ffi.cast("char *", path))
        if isinstance(path, bytes):
            text = path.rstrip(b"\0").decode("utf-8", "backslashreplace")
            texts[0] = f'"{text}"'
        texts[1] = self.flags(int(arguments[1]))
        return texts


class Write(PollEvents):
    """``write(4, [{fd=7, events=POLLREMOVE}, {fd=7, events=POLLIN}], 16) = 16``."""

    def __init__(self, ffi: Any) -> None:
        super().__init__(ffi)
        self.size: Any = ffi.sizeof("struct pollfd")

    def enter(self, arguments: Sequence[Any]) -> list[str]:
        texts = super().enter(arguments)
        count, rest = divmod(int(arguments[2]), self.size)
        # Anything else that is written is somebody's data, which is never shown.
        if rest == 0 and self._is_pollfd(arguments[1]):
            texts[1] = self.interests(arguments[1], count)
        return texts

    def _is_pollfd(self, value: Any) -> bool:
        if not isinstance(value, self.ffi.CData):
            return False
        kind = self.ffi.typeof(value)
        pointed = kind.item if kind.kind in ("pointer", "array") else kind
        return bool(pointed is self.ffi.typeof("struct pollfd"))


class Ioctl(PollEvents):
    """``ioctl(4, DP_POLL, {dp_fds=[{fd=7, revents=POLLIN}], dp_nfds=8, dp_timeout=-1}) = 1``."""

    waits = remembers = True

    def __init__(self, ffi: Any) -> None:
        super().__init__(ffi)
        self.command: Names = Names.of(ffi, DEVPOLL_COMMANDS)

    def enter(self, arguments: Sequence[Any]) -> list[str]:
        texts = super().enter(arguments)
        texts[1] = self.command(int(arguments[1]))
        return texts

    def _poll(self, arguments: Sequence[Any]) -> Any:
        if self.command(int(arguments[1])) not in ("DP_POLL", "DP_PPOLL"):
            return None
        return pointer_to(self.ffi, "struct dvpoll", arguments[2])[0]

    def leave(self, arguments: Sequence[Any], texts: list[str], result: int) -> str:
        poll = self._poll(arguments)
        if poll is not None:
            fds = self.results(poll.dp_fds, result)
            texts[2] = struct(dp_fds=fds, dp_nfds=int(poll.dp_nfds), dp_timeout=int(poll.dp_timeout))
        return "Timeout" if result == 0 else ""

    def ready(self, arguments: Sequence[Any], result: int) -> list[Native]:
        poll = self._poll(arguments)
        return [] if poll is None else self.natives(poll.dp_fds, result)


FORMS: dict[str, type[Form]] = {"open": Open, "write": Write, "ioctl": Ioctl}
