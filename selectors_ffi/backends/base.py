"""What every backend shares: the registry, and the order of a change.

The registry ``_fd_to_key`` maps descriptors to keys and says what is to be watched. Every change is
made in the same order::

    registry[fd] = key                    # 1. the registry (or pop)
    self._watch(fd, key.events, was)      # 2. the kernel
    while registry.get(fd) is not key:    # 3. look again: apply what the registry says now
        ...

A thread or signal handler that changes the same descriptor in the middle changes the registry, too.
Whichever call reaches the kernel last looks at the registry after it. So the kernel ends as the
registry says, without a lock. A refused change puts the old entry back and raises.

A backend translates. It has the same methods in the same order in every file:

``_watch(fd, events, was)``
    Make the kernel watch ``fd`` for exactly ``events``; 0: nothing. ``was`` is what it had, or ``ANY``.
    If the kernel holds something else, it changes an existing registration and adds a missing one.
    It forgets what was made of the old key, as ``_forget`` does.
``_forget(fd)``
    Invalidate what was made of the key of ``fd``; for a change of the data alone.
``select(timeout)``
    Wait, and turn native events into ``(key, events)``.
``_native(timeout)``
    Wait, and return every event as a ``NativeEvent``.
``_interrupt()``
    End the waits of other threads, and the next one of this thread.
``_reopen()``
    In a forked child, leave the kernel object of the parent for one of its own.
``_rebind(binding)``
    Go on with another library. A call in flight ends as it began.
``_release()``
    Give back what the kernel and the process have lent.
"""

from __future__ import annotations

from errno import EBADF

from ..binding import Binding, default
from ..selftest import require
from . import interface
from .beyond import Interest, adopt, differ
from .errors import REGISTERED, advised, explain, from_outside, is_open, left_nothing, of_handler
from .interface import CLOSED as CLOSED
from .interface import (
    EVENT_READ,
    EVENT_WRITE,
    Additions,
    BaseSelector,
    SelectorKey,
    _fileobj_lookup,
    _SelectorMapping,
)
from .interface import _fileobj_to_fd as _fileobj_to_fd
from .native import Descriptor, NativeEvent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from typing import Any, ClassVar

    from _typeshed import FileDescriptorLike

    from .interface import Data

__all__ = ["Descriptor", "EVENT_READ", "EVENT_WRITE", "BaseSelector", "NativeEvent", "SelectorKey"]

BOTH = EVENT_READ | EVENT_WRITE
INVALID_EVENTS = ~BOTH
ANY = BOTH  # of ``_watch``: whatever the kernel has; the most there can be to take away
ANYTHING: Any = object()  # of ``_settle``: the kernel may have applied any key
TOO_LARGE = "Python int too large to convert to C int"
_make_key = tuple.__new__  # what SelectorKey(...), a Python function, calls

#: Set by the debug package while a flag may be in force: (selector, value of ``debug=``) -> None.
instrument: Callable[[Any, Any], None] | None = None


class _BaseSelectorImpl(Additions):
    """The registry. Third-party selectors subclass this name and use ``_fd_to_key``."""

    _mechanism: ClassVar[str]
    _view: _SelectorMapping | None = None
    _shared = False  # the kernel object may hold registrations that are not ours

    def __init__(
        self,
        *,
        binding: Binding | None = None,
        debug: object = None,
        regular_files: str | None = None,
    ) -> None:
        """Make a selector.

        Args:
            binding: the kernel interface, such as ``testing.kernel("freebsd")``; None is this host's.
            debug: what to show: ``Debug`` flags or their names, such as ``"syscalls,checks"``.
            regular_files: ``"ready"``: watch files that the kernel refuses, too; see ``docs/beyond.md``.

        Raises:
            ValueError, TypeError: an argument is wrong.
            OSError: this system lacks the mechanism (ENOSYS), or no descriptor is left (EMFILE).
            SelfTestError: the kernel's answers do not fit the declarations.
        """
        self._prepare(debug, regular_files)

    def _prepare(self, debug: object, regular_files: str | None) -> None:
        """Begin to be a selector; a call with keywords would take much longer."""
        self._fd_to_key: dict[int, SelectorKey] = {}
        self._closed = False
        self._beyond = False  # a key may hold an ``Interest``, see ``beyond``
        self._woken = False  # ``wakeup`` was called, and no wait has ended for it yet
        if regular_files is not None:
            self._admit(regular_files)
        if debug is not None:
            interface.load_debug().instrument(self, debug)
        elif instrument is not None:
            instrument(self, None)

    def _bind(self, binding: Binding | None) -> Binding:
        """Return the kernel interface to use; the debug package overrides this to watch it.

        Raises:
            SelfTestError: a real kernel's answer does not fit the declarations.
        """
        if binding is None:
            binding = default()
        elif not isinstance(binding, Binding):
            raise TypeError(f"binding= takes what kernel() or inject() returns, not {binding!r}")
        if self._mechanism in binding.proven or not binding.opened:
            return binding
        return require(binding, self._mechanism)

    def _admit(self, regular_files: str) -> None:
        """Let regular files be registered, too. Most mechanisms refuse none."""
        if regular_files != "ready":
            raise ValueError(f"Invalid regular_files: {regular_files!r}; there is 'ready', and None")

    _fileobj_lookup = _fileobj_lookup

    def register(
        self,
        fileobj: FileDescriptorLike,
        events: int,
        data: Data = None,  # type: ignore[assignment]
        *,
        trigger: str | None = None,
        exclusive: bool | None = None,
    ) -> SelectorKey[Data]:
        """Watch a file object.

        Args:
            fileobj: a descriptor, or an object with ``fileno()``.
            events: any of ``EVENT_READ``, ``EVENT_WRITE``, ``EVENT_PRIORITY`` and ``EVENT_HANGUP``.
            data: anything; comes back in the key.
            trigger: ``LEVEL``, the default: report it while it is ready. ``EDGE``: report what has
                become ready. ``ONESHOT``: report it once, and again after ``modify``.
            exclusive: wake one or some of the processes and threads that watch it so, not all.

        Returns:
            The new key.

        Raises:
            ValueError: an argument is invalid, or the selector is closed.
            NotImplementedError: this mechanism lacks an event or a trigger; nothing has changed.
            KeyError: the descriptor is already registered.
            OSError: the kernel refuses the descriptor; nothing has changed.
        """
        if (
            not events or events & INVALID_EVENTS or trigger is not None or exclusive is not None
            or self._beyond or type(events) is Interest
        ):  # fmt: skip
            events = adopt(self, events, trigger, exclusive)
        fd = fileobj if type(fileobj) is int and fileobj >= 0 else self._fileobj_lookup(fileobj)
        registry = self._fd_to_key
        key: SelectorKey = _make_key(SelectorKey, (fileobj, fd, events, data))
        try:
            if registry.setdefault(fd, key) is key:
                self._watch(fd, events, 0)
            else:
                key = ANYTHING
        except BaseException as error:
            if key is not ANYTHING:  # nothing was done
                self._take_back(key, None, error)
            raise
        try:
            if registry[fd] is key:
                return key
        except KeyError as error:  # another thread has unregistered it
            if of_handler(error):
                raise
        if key is ANYTHING:
            raise advised(KeyError(f"{fileobj!r} (FD {fd}) is already registered"), REGISTERED)
        self._settle(fd, key)
        return key

    def unregister(self, fileobj: FileDescriptorLike) -> SelectorKey:
        registry = self._fd_to_key
        # No KeyError is caught here: it may be a signal handler's.
        fd = fileobj if type(fileobj) is int else self._fileobj_lookup(fileobj)
        try:
            key = registry.pop(fd, None)
            if key is None:
                self._fileobj_lookup(fileobj)  # refuses a negative number
                raise KeyError(f"{fileobj!r} is not registered") from None
            self._watch(fd, 0, key[2])
        except BaseException:
            self._forget(fd)  # what is not registered is never returned again
            raise
        if fd in registry:
            self._settle(fd, None)
        return key

    def modify(
        self,
        fileobj: FileDescriptorLike,
        events: int,
        data: Data = None,  # type: ignore[assignment]
    ) -> SelectorKey[Data]:
        # Of a third-party selector: as the standard library does, by the selector's own methods.
        key = self._fd_to_key.get(self._fileobj_lookup(fileobj))
        if key is None:
            raise KeyError(f"{fileobj!r} is not registered")
        if events != key.events:
            self.unregister(fileobj)
            return self.register(fileobj, events, data)
        if data != key.data:
            key = self._fd_to_key[key.fd] = key._replace(data=data)
        return key

    def _take_back(self, key: SelectorKey, old: SelectorKey | None, error: BaseException) -> None:
        """Undo a change that was refused or interrupted, if no other call has made one since."""
        fd, registry = key.fd, self._fd_to_key
        refusal = error if isinstance(error, OSError) and not from_outside(error) else None
        if refusal and refusal.errno == EBADF and not is_open(fd):
            old = None  # the descriptor is closed: there is nothing left to keep
        if registry.get(fd) is key:
            if old is None:
                registry.pop(fd, None)
            else:
                registry[fd] = old
        if self._closed:
            registry.pop(fd, None)  # closed meanwhile: nothing is kept alive
        self._forget(fd)
        if old is not None or not left_nothing(error):
            self._settle(fd, key)
        if refusal:
            explain(refusal, fd, self._mechanism)

    def _settle(self, fd: int, key: SelectorKey | None) -> None:
        """Look again: make the kernel, which has applied ``key``, watch ``fd`` as the registry says."""
        registry = self._fd_to_key
        while registry.get(fd) is not key:
            key = registry.get(fd)
            try:
                self._watch(fd, key.events if key else 0, ANY)
            except (OSError, OverflowError, ValueError) as error:
                # It was accepted before: the descriptor is closed, or the selector.
                if from_outside(error):
                    raise

    def _go_beyond(self) -> None:
        """Expect an ``Interest`` in a key, see ``beyond``."""
        self._beyond = True

    def _watch(self, fd: int, events: int, was: int) -> None:
        """Nothing to arm: a third-party selector, built on the registry alone."""

    def _forget(self, fd: int) -> None:
        """Nothing is made of a key."""

    def _lacks(self, interest: Interest) -> str:
        """Return what this selector lacks to watch ``interest``, as the end of a sentence, or ""."""
        return "has no events or triggers beyond the standard library's"

    def _native(self, timeout: float | None) -> list[NativeEvent]:
        raise NotImplementedError(f"{type(self).__name__} has no native events")

    def _watches_itself(self, fd: int) -> bool:
        """Tell whether an event of ``fd`` is a wake-up, for the debug package."""
        waker = getattr(self, "_waker", None)
        return waker is not None and waker.reader == fd

    def _rebind(self, binding: Binding) -> dict[int, int]:
        """Make later calls through another library of the same kernel: debugging goes on or off.

        Returns:
            Descriptor -> token, of the registrations that have one in the kernel.
        """
        self._binding = binding
        return {}

    @property
    def _elsewhere(self) -> Collection[int]:
        """Descriptors that are not in the kernel's own set, see ``regular_files``."""
        return ()

    def _release(self) -> None:
        """Nothing was lent."""

    def close(self) -> None:
        try:
            if not self._closed:
                self._closed = True
                self._fd_to_key.clear()
                self._release()
        except BaseException:  # it is finished all the same: other threads may wait
            self._closed = True
            self._release()
            raise
        finally:
            if self._closed:  # another thread, or a signal handler, may have registered meanwhile
                self._fd_to_key.clear()

    def get_map(self) -> Mapping[FileDescriptorLike, SelectorKey]:
        if self._closed:
            return None  # type: ignore[return-value] # the stdlib's annotation hides it
        if self._view is None:
            self._view = _SelectorMapping(self)
        return self._view


class Backend(_BaseSelectorImpl):
    """What our six selectors share beyond the registry."""

    def __setstate__(self, state: Any) -> None:
        """Become a copy, as ``copy.copy`` makes it: share every attribute, also one that changes later.

        A copy has the same registry and kernel object. So it must have what is known of them, too: which
        results are out of date, who waits, and what is to wake it.
        """
        if isinstance(state, tuple):  # of a subclass with __slots__
            state, slots = state
            for name, value in slots.items():
                setattr(self, name, value)
        self.__dict__ = state

    def modify(
        self,
        fileobj: FileDescriptorLike,
        events: int,
        data: Data = None,  # type: ignore[assignment]
        *,
        trigger: str | None = None,
        exclusive: bool | None = None,
    ) -> SelectorKey[Data]:
        """Change the interest or the data of a registration, and arm a ``ONESHOT`` again.

        Args:
            trigger, exclusive: as of ``register``; None keeps what they are.

        Returns:
            The new key, or the old one if nothing differs.

        Raises:
            ValueError: an argument is invalid.
            NotImplementedError: this mechanism lacks an event or a trigger; nothing has changed.
            KeyError: it is not registered.
            OSError: the kernel refuses; the old registration stays, unless it is closed (EBADF).
        """
        registry = self._fd_to_key
        fd = fileobj if type(fileobj) is int else self._fileobj_lookup(fileobj)
        key = registry.get(fd)
        if key is None:
            self._fileobj_lookup(fileobj)  # refuses a negative number
            raise KeyError(f"{fileobj!r} is not registered") from None
        was = key[2]
        replaced = fileobj is not key[0] and not (isinstance(fileobj, int) and isinstance(key[0], int))
        if (
            not events or events & INVALID_EVENTS or trigger is not None or exclusive is not None
            or self._beyond or type(events) is Interest
        ):  # fmt: skip
            events = adopt(self, events, trigger, exclusive, was)
            replaced = replaced or differ(was, events)
        if events == was and not replaced and not data != key[3]:
            return key
        new: SelectorKey = _make_key(SelectorKey, (fileobj, fd, events, data))
        if fd not in registry or registry[fd] is not key:  # no call comes before the next line
            return Backend.modify(self, fileobj, int(events), data, trigger=trigger, exclusive=exclusive)
        try:
            registry[fd] = new
            # Also for the same events: it may be another file now. What the caller changed stays.
            if events != was or replaced or not self._shared:
                self._watch(fd, events, was)
            else:
                self._forget(fd)
        except BaseException as error:
            self._take_back(new, key, error)
            raise
        try:
            if registry[fd] is new:
                return new
        except KeyError as error:  # another thread has unregistered it
            if of_handler(error):
                raise
        self._settle(fd, new)
        return new
