"""Additions: methods that the standard library's selectors lack."""

from __future__ import annotations

from .handlers import from_outside, of_handler
from .interface import BaseSelector, SelectorKey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..debug.counts import Stats
    from ..debug.inspect import Description
    from ..debug.raw import RawEvent

__all__ = ["CLOSED", "Additions", "load_debug"]

CLOSED = "I/O operation on closed selector"


def load_debug() -> Any:
    """Return the debug package; ``selectors_ffi`` puts a function here that imports it."""
    raise NotImplementedError


def _raises(fileobj: Any) -> bool:
    """Tell whether a ``fileno()`` written in Python raises: then what it raised was no handler's."""
    try:
        int(fileobj.fileno())
    except Exception as error:
        return from_outside(error)
    return False


class Additions(BaseSelector):
    """What ``_BaseSelectorImpl`` has beyond the registry of the standard library."""

    _fd_to_key: dict[int, SelectorKey]
    _fileobj_lookup: Any
    _closed: bool
    _woken: bool

    def discard(self, fileobj: object) -> SelectorKey | None:
        """Unregister a file object if it is registered, as ``set.discard`` does.

        Args:
            fileobj: anything: open, closed, unknown, or no file object at all.

        Returns:
            The key that ``unregister`` would return; None if there is nothing to unregister.
        """
        registry, fd = self._fd_to_key, None
        if type(fileobj) is int:
            fd = fileobj
        else:
            try:
                fd = self._fileobj_lookup(fileobj)  # which refuses what is none
            except Exception as error:  # its fileno() may raise anything: that of ZeroMQ, ZMQError
                if from_outside(error) and not _raises(fileobj):
                    raise  # a signal handler's
                for key in registry.copy().values():
                    if key.fileobj is fileobj:
                        fd = key.fd
        try:
            return self.unregister(fd) if fd in registry else None
        except KeyError as error:
            if of_handler(error):
                raise
            return None  # another thread was faster

    def snapshot(self) -> dict[int, SelectorKey]:
        """Return the registrations as a dict by descriptor, which no later change alters.

        It is empty once the selector is closed. Other threads may register meanwhile.
        """
        return self._fd_to_key.copy()

    def wakeup(self) -> None:
        """End a ``select()`` in another thread, or else the next one of this selector.

        It returns what is ready, or ``[]``. Several calls may end a single ``select()``. Any thread may
        call it, and a signal handler. For a signal that comes just before the system call see
        ``signal.set_wakeup_fd``.

        Raises:
            ValueError: the selector is closed.
            OSError: no descriptor is left to wake a thread with (EMFILE, ENFILE).
        """
        if self._closed:
            raise ValueError(CLOSED)
        self._woken = True
        self._interrupt()

    def reopen(self) -> None:
        """Go on with a kernel object of this process's own, made anew from the registry.

        It is for a child of fork(2) that goes on with its parent's selector. What is registered and
        closed by now stays in the registry, unwatched. Where the object cannot have come from another
        process, nothing happens.

        Raises:
            ValueError: the selector is closed.
            OSError: the kernel refuses; the selector is as it was.
        """
        if self._closed:
            raise ValueError(CLOSED)
        self._reopen()

    def select_raw(self, timeout: float | None = None) -> list[RawEvent]:
        """Wait as ``select`` does, but return what the kernel said.

        Returns:
            One ``RawEvent(key, fd, flags, fflags, data, decoded)`` per native event, with all that
            ``select`` folds away: hang-up, error, priority, EOF and its errno, bytes available.
            ``key`` is None for a descriptor that is not registered.
        """
        return load_debug().select_raw(self, timeout)  # type: ignore[no-any-return]

    def describe(self) -> Description:
        """Return the registrations as a table, and on Linux how epoll's own list differs."""
        return load_debug().describe(self)  # type: ignore[no-any-return]

    def stats(self) -> Stats:
        """Return counts and times so far.

        Raises:
            RuntimeError: the selector was made without ``Debug.STATS``.
        """
        figures: Stats = load_debug().stats(self)
        return figures

    def _interrupt(self) -> None:
        raise NotImplementedError(f"{type(self).__name__} cannot be woken up")

    def _reopen(self) -> None:
        """Nothing is in the kernel, and a waker of the parent process is not used again."""
