"""Waits: the one ``select()`` of kqueue, /dev/poll and event ports, whose kernels report event by event.

A call takes a buffer, asks the kernel, and makes a result of what the registry holds. It goes on while
there is nothing to return. The registry changes before the kernel does, so an event that the registry
does not explain is of a registration that has ended, or whose end the kernel did not hear of. Then the
kernel is told what the registry says.

The kernel may be unable to forget (a *stale registration*, see ``kqueue``). A wait that hears of
nothing else looks again only now and then. From the first ``fileno()`` on, the caller may have made
registrations of its own. They are left alone, and ``select()`` returns ``[]`` for them, as the standard
library's does.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from errno import EINTR

from ..binding import nanoseconds
from . import process
from .base import CLOSED, Backend, Descriptor, NativeEvent
from .beyond import Interest
from .errors import from_outside, is_open, of_handler, take
from .native import RINGING, RUNG
from .process import Deadline, clock, sleep
from .wake import Waker, give_back

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

    from ..binding import Binding
    from .native import Pair

__all__ = ["Buffer", "Owned", "WaitingSelector", "close_on_exec", "timespec"]

_CAPACITY = 16  # events in the first buffer of a call
_LONGEST = 1_000_000 * 10**9  # ns; macOS refuses a longer wait, so it is made of several
_PAUSE = 0.02  # seconds between two looks while only stale registrations are reported


class Buffer:
    """Room for events, which belongs to one call at a time."""

    fired: list[Interest]  # what the call has decoded of it, see ``Interest``

    def __init__(self, ffi: Any, ctype: str) -> None:
        self._ffi = ffi
        self._ctype = ctype
        self.resize(_CAPACITY)

    def resize(self, capacity: int) -> None:
        """Make room for so many events; what is in it is gone."""
        self.array: Any = self._ffi.new(self._ctype, capacity)
        self.capacity = capacity


class Owned(Descriptor):
    """A kernel object that is of no use to a forked child."""

    __slots__ = ("_child",)

    def __init__(self, binding: Binding, fd: int) -> None:
        self._child = process.forks_as_child
        super().__init__(binding, fd)

    def left_behind(self) -> bool:
        """Tell whether this process is a child of the one that made it."""
        return self._child != process.forks_as_child


def timespec(ffi: Any, timeout: float | None) -> Any:
    """Return a ``struct timespec *`` for seconds >= 0, at most 11 days; NULL for None."""
    if timeout is None:
        return ffi.NULL
    seconds, rest = divmod(min(nanoseconds(timeout), _LONGEST), 10**9)
    return ffi.new("struct timespec *", {"tv_sec": seconds, "tv_nsec": rest})


def close_on_exec(fd: int) -> int:
    """Have exec(2) close a descriptor; return the descriptor."""
    try:
        os.set_inheritable(fd, False)
    except OSError:
        pass  # EBADF: the number is a simulated kernel's, not this process's
    return fd


class WaitingSelector(Backend):
    """What ``KqueueSelector``, ``DevpollSelector`` and ``EventPortSelector`` share.

    They add ``_watch``, ``_interrupt``, ``_make_facts`` and the methods without a body here.
    """

    #: Returns what depends on a binding alone.
    _make_facts: ClassVar[Any]

    _waker: Waker | None = None
    _descriptor: Owned

    def __init__(
        self,
        *,
        binding: Binding | None = None,
        debug: object = None,
        regular_files: str | None = None,
    ) -> None:
        self._prepare(debug, regular_files)
        self._binding = binding = self._bind(binding)
        self._facts = binding.facts(self._make_facts)
        self._waits: set[Any] = set()  # buffers of the calls in flight
        self._idle: list[Any] = []  # buffers that no call is using
        self._descriptor = self._create()

    @abstractmethod
    def _create(self) -> Owned:
        """Return a new kernel object, and know nothing of what the old one has reported."""

    @abstractmethod
    def _buffer(self) -> Any:
        """Return a new buffer."""

    @abstractmethod
    def _call(self, buffer: Any, timeout: float | None) -> int:
        """Ask the kernel once; return the number of events, or -errno."""

    @abstractmethod
    def _decode(
        self, buffer: Any, n: int, native: list[NativeEvent] | None
    ) -> tuple[dict[int, Pair], set[tuple[int, int]], bool]:
        """Take ``n`` events.

        Returns:
            The results by descriptor; (descriptor, serial) of each event that is of no registration;
            and whether the waker was reported.
        """

    @abstractmethod
    def _renew(self, fd: int, events: int) -> None:
        """Make the kernel watch exactly ``events``, if it can be done."""

    def fileno(self) -> int:
        """Return the kernel's descriptor. From then on only what we have registered is ever removed.

        Raises:
            ValueError: the selector is closed, or a kqueue stayed behind in the parent process.
        """
        self._check_open()
        self._shared = True
        return self._descriptor.fd

    def _check_open(self) -> None:
        if self._descriptor.fd < 0:
            raise ValueError(CLOSED)

    def select(self, timeout: float | None = None) -> list[Pair]:  # type: ignore[override]
        return self._wait(timeout, None)

    def _native(self, timeout: float | None) -> list[NativeEvent]:
        found: list[NativeEvent] = []
        self._wait(timeout, found)
        return found

    def _reopen(self) -> None:
        old, new = self._descriptor, None
        if not old.left_behind():
            return
        try:
            self._descriptor = new = self._create()
            self._waits.clear()  # of the parent's threads
            self.__dict__.pop("_waker", None)
            for fd, key in {**self._fd_to_key}.items():
                if fd == new.fd:
                    continue  # what had this number is closed
                try:
                    self._watch(fd, key.events, 0)
                except OSError as error:
                    if from_outside(error) or is_open(fd):
                        raise
                self._settle(fd, key)
        except BaseException:
            if new is not None:
                self._descriptor = old
                new.close()
            raise
        self._shared = False
        old.close()

    def _rebind(self, binding: Binding) -> dict[int, int]:
        self._facts = binding.facts(self._make_facts)
        self._descriptor.rebind(binding)
        return super()._rebind(binding)

    def _release(self) -> None:
        idle, self._idle = self._idle, []
        idle.clear()  # a copy of this selector shares it
        ended = False
        descriptor = self._descriptor
        descriptor.closing = RINGING
        try:
            if self._waits and not descriptor.left_behind():
                self._interrupt()  # the waker stays rung until the last thread has left
                ended = True
        except (OSError, ValueError) as error:
            if of_handler(error):
                raise
            # No descriptor is left, or closed before: closing it ends the waits, too.
        finally:
            descriptor.fd, descriptor.closing = -1, RUNG
            if not ended:
                descriptor.close()
            self._end_call()

    def _begin(self, buffer: Any) -> None:
        """Let other threads know of a call that is in flight from here on."""
        self._waits.add(buffer)

    def _wait(self, timeout: float | None, native: list[NativeEvent] | None) -> list[Pair]:
        """Wait until there is something to return; ``native``, if given, takes every event."""
        self._check_open()
        if timeout is not None:
            timeout = 0.0 if timeout <= 0 else float(timeout)
            nanoseconds(timeout)  # refuses what cannot be waited for
        remaining, deadline = timeout, Deadline(timeout, clock())
        seen: set[tuple[int, int]] = set()
        fired: list[Interest] = []
        idle, n = self._idle, 0
        buffer = take(idle) or self._buffer()
        try:
            buffer.fired = fired
            self._begin(buffer)
            if self._descriptor.closing:
                return []  # ``close`` may not have seen this call
            while True:
                n = self._call(buffer, remaining)
                if n < 0:
                    self._check(-n)
                found, unknown, rung = self._decode(buffer, n, native)
                while n == buffer.capacity and native is None:
                    buffer.resize(4 * n)
                    n = self._call(buffer, 0)
                    rung = self._add(self._decode(buffer, n, None), found, unknown) or rung
                if self._descriptor.closing:
                    return []
                if rung:
                    self._drain()
                if unknown and not self._shared:
                    self._repair(unknown)
                if found or native or self._woken or (unknown and self._shared):
                    self._woken = False
                    return list(found.values())
                remaining = deadline.remaining(n == 0)
                if remaining == 0 and deadline.over(n < 0):
                    return []
                if not seen.isdisjoint(unknown):
                    sleep(_PAUSE if remaining is None else min(_PAUSE, remaining))
                    remaining = deadline.remaining()
                seen.update(unknown)
        except BaseException:
            if self._beyond and not self._descriptor.closing:
                self._arm_again(fired)
            raise
        finally:
            self._waits.discard(buffer)
            if 4 * n < buffer.capacity > _CAPACITY:
                buffer.resize(_CAPACITY)
            idle.append(buffer)
            if self._descriptor.closing:
                self._end_call()

    @staticmethod
    def _add(
        more: tuple[dict[int, Pair], set[tuple[int, int]], bool],
        found: dict[int, Pair],
        unknown: set[tuple[int, int]],
    ) -> bool:
        """Add what a full buffer had no room for; return whether the waker was reported.

        The kernel says once more what stays ready, but not an edge or a ``ONESHOT``.
        """
        for fd, (key, events) in more[0].items():
            before, earlier = found.get(fd, (key, 0))
            found[fd] = key, events | earlier if before is key else events
        unknown.update(more[1])
        return more[2]

    def _arm_again(self, fired: list[Interest]) -> None:
        """Have the kernel report again what it may have told a call that an exception has ended."""
        for interest in fired:
            interest.arm()
        for fd, key in {**self._fd_to_key}.items():
            if type(key.events) is Interest:
                self._renew(fd, key.events)
                self._settle(fd, key)

    def _check(self, errno: int) -> None:
        """Raise for a call that has failed, unless another one is to follow."""
        if not self._descriptor.closing and errno != EINTR:
            self._check_open()
            raise self._error(errno)

    def _error(self, errno: int) -> OSError:
        """Return the exception of a failed call."""
        return self._binding.error(errno)

    def _repair(self, unknown: set[tuple[int, int]]) -> None:
        """Make the kernel agree with the registry about what it should not have reported."""
        for fd, _ in unknown:
            key = self._fd_to_key.get(fd)
            self._renew(fd, key.events if key else 0)
            self._settle(fd, key)

    def _drain(self) -> None:
        """Take what was rung. The caller looks at ``_woken`` after it, so no wake-up is lost."""
        waker = self._waker
        if waker is not None:
            waker.drain()
            if self._descriptor.closing:
                waker.ring()  # for the other threads that wait

    def _end_call(self) -> None:
        """Once the selector is closed and no thread waits, close its descriptor; give the waker back."""
        if self._waits or self._descriptor.closing == RINGING:
            return
        self._descriptor.close()
        waker = self.__dict__.pop("_waker", None)
        if waker is not None:
            give_back(waker)
