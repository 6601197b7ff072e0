"""Files that a kernel refuses, watched by poll(2) beside its own set.

epoll refuses regular files, directories and /dev/null (EPERM), and old releases of macOS refuse
terminals and other devices (EINVAL). With ``regular_files="ready"`` a selector keeps those in a
``PollSelector``. Once there is one, a wait is poll(2) for them and for the selector's own descriptor,
which is readable while its set has something to report::

    poll([(epoll, POLLIN), (the file, POLLIN)])     # sleeps, unless a file is ready, as regular ones are
    epoll_wait(0)                                   # what the set has to report

So a terminal with nothing to read costs no busy loop.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

from . import base, process
from .base import ANY, BOTH, EVENT_READ, Backend, NativeEvent
from .beyond import EVENT_HANGUP, EVENT_PRIORITY, Interest
from .errors import OF_FILES, from_outside, is_open, of_handler
from .poll import PollSelector
from .process import Deadline, clock, sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any

    from ..binding import Binding
    from .native import Pair

__all__ = ["admit"]

_PAUSE = 0.02  # seconds between two looks while the set is readable and has nothing for the caller


def admit(selector: Any) -> None:
    """Make a selector that is being made watch what its kernel refuses."""
    cls = type(selector)
    if not issubclass(cls, _Beside):  # else it is made of such a selector's own class
        selector.__class__ = _subclass(cls)
    selector._alone = []


def _subclass(cls: type[Any]) -> type[Any]:
    """Return the subclass that watches files, too. Methods of a caller's class still come first."""
    if cls not in _classes:
        backend = next(one for one in cls.__mro__ if "_watch" in vars(one))
        bases = (_Beside, cls) if cls is backend else (_Untold, cls, _subclass(backend))
        names = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
        meta: Any = type(cls)
        _classes[cls] = meta(cls.__name__, bases, names)
    return _classes[cls]


_classes: WeakKeyDictionary[type[Any], type[Any]] = WeakKeyDictionary()


class _Untold:
    """Keeps the ``__init_subclass__`` of a caller's class from seeing ours."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Call no other."""


class _Alone:
    """A wait for the set alone, in a process that is ``child``."""

    moved = False  # a file has come: it is to begin anew

    def __init__(self) -> None:
        self.child = process.forks_as_child


class _Beside(Backend):
    """Stands just before ``EpollSelector`` or ``KqueueSelector``, and after a class of the caller's."""

    _descriptor: base.Descriptor
    _facts: Any
    _files: PollSelector | None = None  # the files, and the descriptor of the set
    _check_open: Callable[[], None]
    _asked = False  # ``wakeup`` was called, and no wait has ended since
    _alone: list[_Alone]

    @property
    def _elsewhere(self) -> Collection[int]:
        return () if self._files is None else self._files._fd_to_key

    def _watch(self, fd: int, events: int, was: int) -> None:
        try:
            super()._watch(fd, events, was)
        except OSError as error:
            refused = error.errno == OF_FILES[self._mechanism] and not from_outside(error)
            if not events or not refused:
                raise
            if self._mechanism == "kqueue":
                super()._watch(fd, 0, ANY)  # it may have taken one of two directions
            try:
                self._watch_file(fd, events)
            except NotImplementedError:
                raise error from None  # an edge: poll(2) shows none
            return
        if self._files is not None:
            self._files.discard(fd)

    def _watch_file(self, fd: int, events: int) -> None:
        files = self._files
        if files is None:
            files = self.__dict__.setdefault("_files", self._new_files())
        # A plain mask is said to be LEVEL: ``modify`` would keep a ONESHOT.
        told = events if isinstance(events, Interest) else Interest(events)
        change = files.register
        while True:
            try:
                change(fd, int(events), trigger=told.trigger, exclusive=told.exclusive)
                break
            except KeyError as error:
                if of_handler(error):
                    raise
                change = files.register if change == files.modify else files.modify
        for wait in [*self._alone]:
            wait.moved = True
        self._tell_alone()

    def _tell_alone(self) -> None:
        """End a wait of the set alone that does not know of a file; when it ends it tells the next."""
        if any(wait.moved and wait.child == process.forks_as_child for wait in [*self._alone]):
            self._woken = True
            super()._interrupt()

    def wakeup(self) -> None:
        self._asked = True  # first: ``_woken`` also ends a wait that goes on
        super().wakeup()

    def _new_files(self) -> PollSelector:
        # Debugging shows its calls, which are made through the same binding, and not its changes.
        binding = self._binding if self._binding.has("poll") else None
        files = PollSelector(binding=binding, debug=None if base.instrument is None else "")
        files._inner = True  # type: ignore[attr-defined] # debugging of what runs passes over it
        return files

    def select(self, timeout: float | None = None) -> list[Pair]:  # type: ignore[override]
        wait: Callable[..., list[Pair]] = super().select  # type: ignore[safe-super] # it is a mixin
        return self._wait_for_both(timeout, wait, lambda key, events: [(key, events)])

    def _native(self, timeout: float | None) -> list[NativeEvent]:
        return self._wait_for_both(timeout, super()._native, self._native_events)

    def _wait_for_both(
        self,
        timeout: float | None,
        wait: Callable[[float | None], list[Any]],
        make: Callable[[Any, int], list[Any]],
    ) -> list[Any]:
        """Return what ``wait`` does for the set, and what ``make`` makes of the files that are ready."""
        deadline, remaining, idle, begun = Deadline(timeout, clock()), timeout, 0, False
        while True:
            try:
                if not self._has_files():
                    result, ended = self._wait_alone(remaining, wait)
                else:
                    self._check_open()
                    found, more = self._look(remaining)
                    result, ended = [one for key, events in found for one in make(key, events)], False
                    if self._closed:
                        return []
                    if more or self._woken:
                        result = wait(0) + result
                        self._tell_alone()  # it may have taken what was said to another wait
                    idle = idle + 1 if more else 0
            except ValueError as error:
                if of_handler(error) or not (begun and self._closed):
                    raise
                return []  # closed by another thread between two looks
            if result or ended or self._asked:
                self._asked = False
                return result
            begun, remaining = True, deadline.remaining()
            if remaining == 0:
                return []
            if idle > 1:
                sleep(_PAUSE if remaining is None else min(_PAUSE, remaining))

    def _has_files(self) -> bool:
        """Tell whether there are files, besides the set itself."""
        files = self._files
        return files is not None and (self._descriptor.fd in files._fd_to_key) < len(files._fd_to_key)

    def _wait_alone(
        self, timeout: float | None, wait: Callable[[float | None], list[Any]]
    ) -> tuple[list[Any], bool]:
        """Wait for the set alone; return its results, and False if there are files by now."""
        mine = _Alone()
        self._alone.append(mine)  # from now on ``_watch_file`` ends this wait
        try:
            if self._has_files():
                return [], False
            result = wait(timeout)
            return result, self._closed or not mine.moved
        finally:
            self._alone.remove(mine)
            if mine.moved:
                self._tell_alone()

    def _look(self, timeout: float | None) -> tuple[list[Pair], bool]:
        """Return the files that are ready, and whether the set has something to report."""
        files: Any = self._files  # which are there
        own = self._descriptor.fd
        if own < 0:
            return [], False  # closed by another thread
        if own not in files._fd_to_key:  # at first, and after ``reopen``
            for fd in files.snapshot():
                if fd not in self._fd_to_key:
                    files.discard(fd)
            try:
                files.register(own, EVENT_READ)
            except KeyError as error:  # by another thread that begins to wait
                if of_handler(error):
                    raise
        try:
            ready = files.select(timeout)
        except ValueError as error:
            if of_handler(error) or not self._closed:
                raise
            return [], False  # closed by another thread
        found, more = [], False
        for key, events in ready:
            more = more or key.fd == own
            mine = self._fd_to_key.get(key.fd) if is_open(key.fd) else None
            if mine is None and key.fd != own:
                files.discard(key.fd)  # closed: poll(2) would report it for ever, the set forgets it
            events &= mine.events if mine else 0
            if mine is not None and events:
                found.append((mine, events))
        return found, more

    def _native_events(self, key: Any, events: int) -> list[NativeEvent]:
        if self._mechanism == "epoll":
            return [NativeEvent(key, key.fd, self._facts.flags[events & BOTH])]
        filters = {event: filter_ for filter_, event in self._facts.event_of.items()}
        return [
            NativeEvent(key, key.fd, 0, 0, 0, filters[event])
            for event in filters
            if events & (event | (0 if events & BOTH else EVENT_HANGUP | EVENT_PRIORITY))
        ]

    def _watches_itself(self, fd: int) -> bool:
        return fd == self._descriptor.fd or super()._watches_itself(fd)

    def _interrupt(self) -> None:
        super()._interrupt()
        if self._files is not None:
            self._files.wakeup()

    def _rebind(self, binding: Binding) -> dict[int, int]:
        if self._files is not None and binding.has("poll"):
            self._files._rebind(binding)
        return super()._rebind(binding)

    def _release(self) -> None:
        try:
            super()._release()
        finally:
            if self._files is not None:
                self._files.close()
