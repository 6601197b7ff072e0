"""What every backend shares: keys, the abstract base, the registry.

The registry maps descriptors to keys and knows no kernel. A backend plugs its mechanism in with
three methods, each called before the registry changes, so that a refused call changes nothing:

``_add(fd, events)``
    Start watching ``fd``, or raise.
``_remove(fd)``
    Stop watching ``fd``; a kernel that no longer knows the descriptor is no error.
``_change(key, events)``
    Watch ``key.fd`` for ``events`` instead, or raise and leave the old interest in force. Where
    the descriptor is gone (EBADF) there is nothing left to keep: ``_gone(key)`` drops the entry.
"""

from __future__ import annotations

import selectors
from abc import abstractmethod
from collections import namedtuple
from collections.abc import Mapping
from errno import EBADF
from selectors import EVENT_READ, EVENT_WRITE, SelectorKey
from time import monotonic

from ..binding import default
from ..selftest import require

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, ClassVar

    from _typeshed import FileDescriptorLike

    from ..binding import Binding
    from ..debug.inspect import Description, RawEvent
    from ..debug.stats import Stats

__all__ = ["EVENT_READ", "EVENT_WRITE", "BaseSelector", "SelectorKey"]

INVALID_EVENTS = ~(EVENT_READ | EVENT_WRITE)

#: Seconds for which a wait goes on after events that are of no registration. It may be in the
#: making: the kernel is told first, the registry second, and the thread that does it may have to
#: wait for the interpreter (5 ms, sys.setswitchinterval). Or it is a stranger's, or of a closed
#: descriptor that a duplicate keeps alive, and the kernel will report it for ever: then the caller
#: gets ``[]``.
PATIENCE = 0.05

#: Set by the debug package while flags may be in force, so that none costs a constructor two
#: comparisons: (selector, ``debug=``) -> None; may switch the selector's ``__class__``.
instrument: Callable[[Any, Any], None] | None = None


def load_debug() -> Any:
    """Return the debug package; the package puts what imports it in this function's place."""
    raise NotImplementedError


class NativeEvent(namedtuple("NativeEvent", "key fd flags fflags data filter", defaults=(0, 0, 0))):
    """What the kernel said of one descriptor; ``key`` is None if it is not registered.

    ``flags`` are the native ones: ``events`` of epoll, ``revents`` of poll and /dev/poll, ``flags``
    of kqueue, and of select(2), which has none, the ``EVENT_*`` of its sets. ``fflags``, ``data`` and
    ``filter`` are kqueue's.
    """

    __slots__ = ()


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


def deadline_of(timeout: float | None) -> float | None:
    """Return when, by ``monotonic()``, a wait is over; None if it has no end, or is not to wait."""
    return None if timeout is None or timeout <= 0 else monotonic() + timeout


class _SelectorMapping(Mapping):  # type: ignore[type-arg] # Any would have to be imported
    """Read-only live view of the registry: iterates descriptors, looks up any file object."""

    def __init__(self, selector: _BaseSelectorImpl) -> None:
        self._selector = selector

    def __len__(self) -> int:
        return len(self._selector._fd_to_key)

    def get(self, fileobj: FileDescriptorLike, default: Any = None) -> Any:
        fd = self._selector._fileobj_lookup(fileobj)
        return self._selector._fd_to_key.get(fd, default)

    def __getitem__(self, fileobj: FileDescriptorLike) -> SelectorKey:
        fd = self._selector._fileobj_lookup(fileobj)
        key = self._selector._fd_to_key.get(fd)
        if key is None:
            raise KeyError(f"{fileobj!r} is not registered")
        return key

    def __contains__(self, fileobj: object) -> bool:
        fd = self._selector._fileobj_lookup(fileobj)  # type: ignore[arg-type] # refuses by itself
        return fd in self._selector._fd_to_key

    def __iter__(self) -> Iterator[int]:
        return iter(self._selector._fd_to_key)


class BaseSelector(selectors.BaseSelector):
    """Abstract selector, and a ``selectors.BaseSelector`` to ``isinstance``.

    A selector watches file objects (descriptors, or objects with ``fileno()``) for readiness.
    Each registration is a ``SelectorKey(fileobj, fd, events, data)``.
    """

    @abstractmethod
    def register(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> SelectorKey:
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

    def modify(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> SelectorKey:
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
    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        """Wait until a registered file object is ready.

        Args:
            timeout: seconds; None blocks, <= 0 polls. Never returns early.

        Returns:
            One ``(key, events)`` per ready file object, ``events`` a subset of ``key.events``.
            Empty on timeout.

        Raises:
            ValueError: the selector is closed, or ``timeout`` is NaN.
            OverflowError: ``timeout`` does not fit the kernel's type.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Release the kernel object, if any, and forget all registrations. Idempotent."""

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
        try:
            return mapping[fileobj]
        except KeyError:
            raise KeyError(f"{fileobj!r} is not registered") from None

    @abstractmethod
    def get_map(self) -> Mapping[FileDescriptorLike, SelectorKey]:
        """Return a live mapping of file objects to keys; None once the selector is closed."""
        raise NotImplementedError


class _BaseSelectorImpl(BaseSelector):
    """The registry. The name, and ``_fd_to_key``, are what code built on the stdlib subclasses."""

    _mechanism: ClassVar[str]

    def __init__(self, *, binding: Binding | None = None, debug: object = None) -> None:
        self._fd_to_key: dict[int, SelectorKey] = {}
        self._map: _SelectorMapping | None = _SelectorMapping(self)
        self._changer: object = None
        if debug is not None or instrument is not None:
            (instrument or load_debug().instrument)(self, debug)

    def _bind(self, binding: Binding | None) -> Binding:
        """Return the kernel interface to use; the debug package overrides this to watch it.

        Raises:
            SelfTestError: a real kernel's answer does not fit the declarations.
        """
        if binding is None:
            binding = default()
        return require(binding, self._mechanism) if binding.opened else binding

    def _fileobj_lookup(self, fileobj: FileDescriptorLike) -> int:
        """Return the descriptor; for a closed file object, the one it was registered with.

        Raises:
            ValueError: invalid, and not registered either.
        """
        try:
            # _fileobj_to_fd(fileobj), without the cost of calling it.
            fd = fileobj if isinstance(fileobj, int) else int(fileobj.fileno())
            if fd >= 0:
                return fd
        except (AttributeError, TypeError, ValueError):
            pass
        for key in list(self._fd_to_key.values()):
            if key.fileobj is fileobj:
                return key.fd
        return _fileobj_to_fd(fileobj)  # raises

    def register(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> SelectorKey:
        if not events or events & INVALID_EVENTS:
            raise ValueError(f"Invalid events: {events!r}")
        fd = self._fileobj_lookup(fileobj)
        if fd in self._fd_to_key:
            raise KeyError(f"{fileobj!r} (FD {fd}) is already registered")
        self._changer = key = SelectorKey(fileobj, fd, events, data)
        self._add(fd, events)
        kept = self._fd_to_key.setdefault(fd, key)
        if self._changer is not key:
            self._settle(fd)
        if kept is not key:
            raise KeyError(f"{fileobj!r} (FD {fd}) is already registered")
        return key

    def unregister(self, fileobj: FileDescriptorLike) -> SelectorKey:
        key = self._registered(fileobj)
        self._changer = mark = object()
        self._remove(key.fd)
        removed = self._fd_to_key.pop(key.fd, None)
        if self._changer is not mark:
            self._settle(key.fd)
        if removed is None:  # another thread has been faster
            raise KeyError(f"{fileobj!r} is not registered")
        return key

    def modify(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> SelectorKey:
        key = self._registered(fileobj)
        if not events or events & INVALID_EVENTS:
            raise ValueError(f"Invalid events: {events!r}")
        rearm = events != key.events or self._replaced(key, fileobj)
        if not (rearm or data != key.data):
            return key
        self._changer = new = SelectorKey(fileobj, key.fd, events, data)
        if rearm:
            try:
                self._change(key, events)
            except OSError as error:
                if error.errno == EBADF:
                    self._gone(key)
                raise
        self._fd_to_key[key.fd] = new
        if self._changer is not new:
            self._settle(key.fd)
        return new

    def _registered(self, fileobj: FileDescriptorLike) -> SelectorKey:
        """Return the key of ``fileobj`` or raise what the stdlib raises."""
        try:
            return self._fd_to_key[self._fileobj_lookup(fileobj)]
        except KeyError:
            raise KeyError(f"{fileobj!r} is not registered") from None

    @staticmethod
    def _replaced(key: SelectorKey, fileobj: FileDescriptorLike) -> bool:
        """Tell whether ``fileobj`` is another object than the one registered.

        If so, the number may have been reused, and the kernel must be asked even if the events
        are the same, else the new file would never be armed.
        """
        return fileobj is not key.fileobj and not (
            isinstance(fileobj, int) and isinstance(key.fileobj, int)
        )

    def _gone(self, key: SelectorKey) -> None:
        """Drop the entry of a descriptor that the kernel says is closed."""
        self._remove(key.fd)
        self._fd_to_key.pop(key.fd, None)

    def _settle(self, fd: int) -> None:
        """Make the kernel agree with the registry about ``fd``.

        Due when two threads, or a thread and its signal handler, have changed registrations at the
        same time; ``_changer``, who began last, tells.
        """
        mark = None
        while self._changer is not mark:
            self._changer = mark = object()
            key = self._fd_to_key.get(fd)
            if key is None:
                self._remove(fd)
                continue
            try:
                self._change(key._replace(events=EVENT_READ | EVENT_WRITE), key.events)
            except OSError as error:
                if error.errno != EBADF:
                    raise
                self._gone(key)  # the other thread has closed it

    def _add(self, fd: int, events: int) -> None:
        """Nothing to arm: a selector of somebody else's, built on the registry alone."""

    def _remove(self, fd: int) -> None:
        """Nothing to disarm."""

    def _change(self, key: SelectorKey, events: int) -> None:
        """Nothing to change."""

    def _native(self, timeout: float | None) -> list[NativeEvent]:
        """Wait; return what the kernel said."""
        raise NotImplementedError(f"{type(self).__name__} has no native events")

    def select_raw(self, timeout: float | None = None) -> list[RawEvent]:
        """Wait as ``select`` does, but return what the kernel said.

        Returns:
            One ``RawEvent(key, fd, flags, fflags, data, decoded)`` per native event, with all that
            ``select`` folds away: hang-up, error, priority, EOF and its errno, bytes available.
            ``key`` is None for a descriptor that is not registered.
        """
        events: list[RawEvent] = load_debug().select_raw(self, timeout)
        return events

    def describe(self) -> Description:
        """Return the registrations as a table, and on Linux how epoll's own list differs."""
        description: Description = load_debug().describe(self)
        return description

    def stats(self) -> Stats:
        """Return counts and times so far.

        Raises:
            RuntimeError: the selector was made without ``Debug.STATS``.
        """
        figures: Stats = load_debug().stats(self)
        return figures

    def close(self) -> None:
        self._fd_to_key.clear()
        self._map = self._changer = None

    def get_map(self) -> Mapping[FileDescriptorLike, SelectorKey]:
        return self._map  # type: ignore[return-value] # the stdlib's annotation hides the None
