"""Tables: what a call of poll(2) or select(2) is handed, and the calls that are bound to it."""

from __future__ import annotations

from errno import EBADF, EINTR

from .base import SelectorKey
from .errors import of_handler
from .wake import Waker, give_back, lend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from .native import Pair

    Found = tuple[SelectorKey, int, int]

__all__ = ["LONGEST", "Table"]

LONGEST = 10**16  # nanoseconds (115 days) in one call: some kernels refuse more than three years


class Table:
    """The arguments of a call, and the calls that are bound to them.

    ``fill``, ``put`` and ``drop`` change what is watched, from the next ``bind`` on. ``fill`` also has
    ``waker`` watched.
    """

    __slots__ = ("answer", "facts", "interest", "latest", "log", "now", "seen", "waker")

    kind = Waker  # what this kernel can wait for
    not_open = EBADF  # what it answers if a descriptor is closed
    interrupted = EINTR  # and after a signal

    answer: Any  # a buffer, the copy of ``interest``
    now: Iterator[int] | None  # the calls that do not wait, if they are bound
    seen: int  # how much of the log is in the table

    def __init__(self, facts: Any) -> None:
        self.facts: Any = facts
        self.log: list[int] | None = None  # the log that it follows; None: it is to be filled
        self.latest: object = None  # ``_latest`` of the selector when the log was read
        self.waker: Waker | None = None
        self.interest: bytes | None = None  # what a call overwrites, so that it is given a copy

    def fill(self, keys: list[SelectorKey], beyond: bool) -> None:
        """Watch ``keys`` and nothing else, whatever state the table is in.

        Args:
            beyond: whether a key may hold an ``Interest``.
        """

    def empty(self) -> None:
        """Keep no key, and follow no log; ``fill`` comes next."""
        self.log = self.latest = None

    def put(self, key: SelectorKey) -> None:
        """Watch the descriptor of ``key`` for ``key.events``, whatever it was watched for."""

    def drop(self, fd: int) -> None:
        """Watch ``fd`` no more, if it was."""

    def bind(self) -> None:
        """Finish a change."""

    def unbind(self) -> None:
        """Have the calls bound anew: one that has failed is spent, see ``Binding.calls``."""

    def bind_now(self) -> Iterator[int]:
        """Return the calls that do not wait."""
        raise NotImplementedError

    def arm(self, timeout: float | None) -> Iterator[int]:
        """Return the calls that wait ``timeout`` seconds; undo ``poke``. They may return earlier."""
        raise NotImplementedError

    def poke(self) -> None:
        """Make a call return at once that is about to begin."""

    def ready(self, n: int) -> list[Pair]:
        """Return the ``n`` results of a call; none if the waker or an ``Interest`` may be among them."""
        raise NotImplementedError

    def found(self) -> list[Found]:
        """Return (key, native flags, directions) of each entry that the kernel reported."""
        raise NotImplementedError

    def woken(self) -> bool:
        """Tell whether the call has reported the waker, or was poked."""
        raise NotImplementedError

    def refused(self, errno: int, timeout: float | None) -> bool:
        """Tell whether the call that failed has an older form, which is made from now on."""
        return False

    def lend(self) -> None:
        """Have a waker from the next ``fill`` on, which is called for."""
        try:
            waker = lend(self.kind)
        except OSError as error:
            if of_handler(error):  # TimeoutError, for example
                raise
            return  # no descriptor is left: a change takes effect with the next call
        self.lose()
        self.waker = waker

    def drain(self) -> bool:
        """Take what was rung, so that the next call can sleep; tell whether the waker was lost."""
        waker = self.waker
        if waker is None or waker.drain():
            return False
        self.lose()  # the program has closed its descriptors
        return True

    def lose(self) -> None:
        """Have no waker from the next ``fill`` on, which is called for."""
        self.log = self.latest = self.waker = None

    def give_back(self) -> None:
        """Give the waker back to the process."""
        waker = self.waker
        self.log = self.latest = self.waker = None
        if waker is not None:
            give_back(waker)
