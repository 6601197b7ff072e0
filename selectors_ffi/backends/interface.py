"""The interface: keys, the abstract selector and the view of the registry, and what goes beyond them."""

from __future__ import annotations

import selectors
from abc import abstractmethod
from collections.abc import ItemsView, Mapping, ValuesView
from selectors import EVENT_READ, EVENT_WRITE

from .errors import from_outside, of_handler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Generic

    from _typeshed import FileDescriptorLike
    from typing_extensions import TypeVar

    from ..debug.counts import Stats
    from ..debug.inspect import Description
    from ..debug.raw import RawEvent

    Data = TypeVar("Data", default=None)  #: of ``register`` and ``modify``; None if it is left out
    _Kept = TypeVar("_Kept", default=Any, covariant=True)

    class SelectorKey(selectors.SelectorKey, Generic[_Kept]):
        """The standard library's class; type checkers also know the type of ``data``."""

        def __new__(
            cls, fileobj: FileDescriptorLike, fd: int, events: int, data: _Kept
        ) -> SelectorKey[_Kept]: ...

        @property
        def data(self) -> _Kept: ...

else:
    from selectors import SelectorKey

__all__ = [
    "CLOSED",
    "EVENT_READ",
    "EVENT_WRITE",
    "Additions",
    "BaseSelector",
    "SelectorKey",
    "load_debug",
]

CLOSED = "I/O operation on closed selector"


def _fileobj_to_fd(fileobj: FileDescriptorLike) -> int:
    """Return the descriptor of a file object.

    Raises:
        ValueError: no descriptor can be had, or it is negative.
    """
    if isinstance(fileobj, int):
        fd = fileobj
    else:
        try:
            fd = int(fileobj.fileno())
        except (AttributeError, TypeError, ValueError):
            raise ValueError(f"Invalid file object: {fileobj!r}") from None
    if fd < 0:
        raise ValueError(f"Invalid file descriptor: {fd}")
    return fd


def _fileobj_lookup(self: Any, fileobj: FileDescriptorLike) -> int:
    """Return the descriptor; for a closed file object, the one it was registered with.

    A method of what has a registry, selector or mapping.

    Raises:
        ValueError: invalid, and not registered either.
    """
    if isinstance(fileobj, int):
        fd: int | None = fileobj
    else:
        try:
            fd = int(fileobj.fileno())
        except (AttributeError, TypeError, ValueError):
            fd = None
    if fd is not None and fd >= 0:
        return fd
    for key in {**self._fd_to_key}.values():
        if key.fileobj is fileobj:
            return key.fd  # type: ignore[no-any-return]
    invalid = f"object: {fileobj!r}" if fd is None else f"descriptor: {fd}"
    raise ValueError(f"Invalid file {invalid}") from None


class BaseSelector(selectors.BaseSelector):
    """Abstract selector, and a ``selectors.BaseSelector`` to ``isinstance``.

    A selector watches file objects (descriptors, or objects with ``fileno()``) for readiness.
    Each registration is a ``SelectorKey(fileobj, fd, events, data)``.
    """

    @abstractmethod
    def register(
        self,
        fileobj: FileDescriptorLike,
        events: int,
        data: Data = None,  # type: ignore[assignment] # what is left out is of type None
    ) -> SelectorKey[Data]:
        """Watch a file object.

        Args:
            fileobj: a descriptor, or an object with ``fileno()``.
            events: ``EVENT_READ``, ``EVENT_WRITE`` or both.
            data: anything; comes back in the key.

        Returns:
            The new key.

        Raises:
            ValueError: invalid ``events`` or ``fileobj``, or the selector is closed.
            KeyError: the descriptor is already registered.
            OSError: the kernel refuses the descriptor; nothing has changed.
        """
        raise NotImplementedError

    @abstractmethod
    def unregister(self, fileobj: FileDescriptorLike) -> SelectorKey:
        """Stop watching a file object; works on a closed one, given the object itself.

        Returns:
            The key that was removed.

        Raises:
            KeyError: it is not registered.
            ValueError: it is neither registered nor a valid file object.
        """
        raise NotImplementedError

    def modify(
        self,
        fileobj: FileDescriptorLike,
        events: int,
        data: Data = None,  # type: ignore[assignment]
    ) -> SelectorKey[Data]:
        """Change the interest or the data of a registration.

        Returns:
            The new key, or the old one if nothing differs.

        Raises:
            ValueError: invalid ``events`` or ``fileobj``.
            KeyError: it is not registered.
            OSError: the kernel refuses; the old registration stays, unless it is closed (EBADF).
        """
        self.unregister(fileobj)
        return self.register(fileobj, events, data)

    @abstractmethod
    def select(  # type: ignore[override] # list is invariant
        self, timeout: float | None = None
    ) -> list[tuple[SelectorKey, int]]:
        """Wait until a registered file object is ready.

        Args:
            timeout: seconds; None blocks, <= 0 polls. Never returns early.

        Returns:
            One ``(key, events)`` per ready file object, ``events`` a subset of ``key.events``.
            Empty on timeout, after ``wakeup()``, and after ``close()`` by another thread.

        Raises:
            ValueError: the selector is closed, or ``timeout`` is NaN.
            OverflowError: ``timeout`` is infinite, or longer than 292 years.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Release the kernel object, if any, and forget all registrations. Idempotent.

        Waits in other threads end and return ``[]``.
        """

    def get_key(self, fileobj: FileDescriptorLike) -> SelectorKey:
        """Return the key of a registered file object.

        Raises:
            KeyError: it is not registered.
            ValueError: it is neither registered nor a valid file object.
            RuntimeError: the selector is closed.
        """
        mapping = self.get_map()
        if mapping is None:
            raise RuntimeError("Selector is closed")
        key = mapping.get(fileobj)
        if key is None:
            raise KeyError(f"{fileobj!r} is not registered") from None
        return key

    @abstractmethod
    def get_map(self) -> Mapping[FileDescriptorLike, SelectorKey]:
        """Return a live mapping of file objects to keys; None once the selector is closed."""
        raise NotImplementedError


class _SelectorMapping(Mapping):  # type: ignore[type-arg] # Any would have to be imported
    """Read-only live view of the registry: iterates descriptors, looks up any file object.

    ``values()`` and ``items()`` may be iterated while other threads register: they take a snapshot.
    The view holds the registry and not the selector, so that the two are no cycle. It holds the
    selector only where a subclass has a ``_fileobj_lookup`` of its own, by that method.
    """

    _fileobj_lookup: Any = _fileobj_lookup

    def __init__(self, selector: Any) -> None:
        self._fd_to_key: dict[int, SelectorKey] = selector._fd_to_key
        lookup = selector._fileobj_lookup
        if getattr(lookup, "__func__", None) is not _fileobj_lookup:
            self._fileobj_lookup = lookup

    def __len__(self) -> int:
        return len(self._fd_to_key)

    def get(self, fileobj: FileDescriptorLike, default: Any = None) -> Any:
        return self._fd_to_key.get(self._fileobj_lookup(fileobj), default)

    def __getitem__(self, fileobj: FileDescriptorLike) -> SelectorKey:
        key = self.get(fileobj)
        if key is None:
            raise KeyError(f"{fileobj!r} is not registered")
        return key  # type: ignore[no-any-return]

    def __contains__(self, fileobj: object) -> bool:
        return self._fileobj_lookup(fileobj) in self._fd_to_key

    def __iter__(self) -> Iterator[int]:
        return iter(self._fd_to_key)

    def values(self) -> ValuesView[SelectorKey]:
        return _Values(self)

    def items(self) -> ItemsView[int, SelectorKey]:
        return _Items(self)


class _Values(ValuesView):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[SelectorKey]:
        return iter({**self._mapping._fd_to_key}.values())  # type: ignore[attr-defined]


class _Items(ItemsView):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[tuple[int, SelectorKey]]:
        return iter({**self._mapping._fd_to_key}.items())  # type: ignore[attr-defined]


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

    @property
    def _map(self) -> Mapping[FileDescriptorLike, SelectorKey]:
        """What third-party code built on the stdlib reads."""
        return self.get_map()

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
                for key in {**registry}.values():
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
        return {**self._fd_to_key}

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
        if self._woken:
            self._interrupt()  # what has been rung was the old object's

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
