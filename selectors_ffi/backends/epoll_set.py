"""The epoll set: who else may use it, how a thread that waits on it is woken, how it is replaced.

Stale registrations
-------------------
A *stale registration* is one that the kernel still reports although its number was closed, because a
duplicate keeps the file open::

    register(5); copy = dup(5); close(5)    # EPOLL_CTL_DEL of 5 is now EBADF, or hits another file

No call can delete it. So when a token is reported again after the kernel was told what the registry
says, the set is replaced: a new one is made from the registry and takes the number of the old one,
dup3(2). Threads that wait on the old set are woken and go over to the new one.

The set is not ours alone once the caller has asked for ``fileno()`` or the process has forked. From
then on nothing is replaced, and an event of no registration gives ``[]``, as in the standard library.

https://man7.org/linux/man-pages/man7/epoll.7.html (Questions and answers, 6)
"""

from __future__ import annotations

import os
from _thread import get_ident
from errno import EEXIST, ENOENT, ENOSYS
from itertools import count

from . import process
from .base import ANY, CLOSED, Backend, Descriptor, SelectorKey
from .beyond import watched
from .epoll_buffer import Facts, forget
from .errors import from_outside, is_open, leaving_nothing, of_handler, take
from .native import RINGING, RUNG
from .process import alone
from .wake import Waker, give_back, lend, rung

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _weakref import ref
    from collections.abc import Callable
    from typing import Any

    from ..binding import Binding
    from .epoll_buffer import Buffer, Records
    from .native import Pair

__all__ = ["WAKE", "EpollSet"]

_SERIAL_SHIFT = 32
_SERIAL_BITS = 27
#: Above the serial, in five bits: it tells our tokens from a caller's, see ``_may_be_of_the_caller``.
#: No pointer has it: 1 would be code of an i386 process, 31 its stack. No usual double has it. A forked
#: child, whose serials its parent does not know, has the next one; its own child has this one again.
_MARK = 9
WAKE = 0xFFFF_FFFF  # of a waker's token: no descriptor is as large; above it is the process
_serials = count()


class EpollSet(Backend):
    """What ``EpollSelector`` has of the kernel, and the tables that go with it."""

    _mechanism = "epoll"
    _waker: Waker | None = None
    _rung: Waker | None = None  # wakes the threads that wait on a set that was replaced
    _strays = False  # ``_made`` has buffers of threads that stayed in the parent process
    _rebuilder: tuple[Buffer, int] | None = None  # the call that replaces the set, and its thread

    def __init__(
        self,
        *,
        binding: Binding | None = None,
        debug: object = None,
        regular_files: str | None = None,
    ) -> None:
        self._prepare(debug, regular_files)
        self._binding = binding = self._bind(binding)
        self._facts: Facts = binding.facts(Facts)
        self._forks = process.forks
        self._tokens: dict[int, int] = {}  # of the descriptors whose token is not the bare number
        self._pairs: dict[int, Pair] = {}
        self._duplex: dict[int, None] = {}  # descriptors registered for both directions
        self._records: Records | None = None  # made with the first
        self._made: list[ref[Buffer]] = []  # of each buffer that lives, idle or in use
        self._several = False  # whether there was ever more than one
        self._idle: list[Buffer | None] = [None]  # buffers that no call is using; None: a call makes it
        self._descriptor = Descriptor(binding, self._facts.create())

    def _admit(self, regular_files: str) -> None:
        super()._admit(regular_files)
        from .regular_files import admit  # few selectors need it

        admit(self)

    def fileno(self) -> int:
        """Return the epoll descriptor. From then on stale registrations stay, as in the stdlib.

        Raises:
            ValueError: the selector is closed.
        """
        self._check_open()
        self._shared = True
        self._duplex[-1] = None  # the caller may widen an interest: results depend on the flags
        return self._descriptor.fd

    def _check_open(self) -> None:
        if self._closed or self._descriptor.fd < 0:
            raise ValueError(CLOSED)

    def _interrupt(self) -> None:
        waker = self._waker
        if waker is None or not waker.ring():  # in a forked child it is the parent's, too
            self.__dict__.pop("_waker", None)
            self._add_waker().ring()

    def _reopen(self) -> None:
        self._look_for_strays()
        if self._strays:
            self._made[:] = [one for one in self._made if (made := one()) and made in self._idle]
            self._strays = False
        idle, buffer = self._idle, self._new_buffer()
        try:
            self._go_on_alone(buffer)
        finally:
            idle.append(buffer)
            if self._descriptor.closing:
                self._end_call(buffer)

    def _look_for_strays(self) -> None:
        if self._forks[1] != process.forks_as_child:
            self._strays = True
            self.__dict__.pop("_rebuilder", None)

    def _go_on_alone(self, buffer: Buffer) -> None:
        """Have a set of this process's own; ``buffer`` is that of the call."""
        for name in ("_waker", "_rung"):
            if (waker := self.__dict__.get(name)) and not waker.intact():
                self.__dict__.pop(name, None)
        self._rebuild(buffer, strict=False)
        self._forks = process.forks
        self._shared = -1 in self._duplex  # the caller has our number, which names the new set now

    def _rebind(self, binding: Binding) -> dict[int, int]:
        super()._rebind(binding)
        self._facts = facts = binding.facts(Facts)
        self._descriptor.rebind(binding)
        for one in [*self._made]:
            if buffer := one():
                buffer.rebind(facts)
        return {fd: self._tokens.get(fd, fd) for fd in [*self._fd_to_key]}

    def _release(self) -> None:
        descriptor, strays = self._descriptor, self._strays or self._forks[1] != process.forks_as_child
        descriptor.closing = RINGING
        descriptor.fd = (descriptor.numbers or [-1])[0]  # again, if an exception has ended this before
        unused, self._idle = self._idle, []  # another thread may be about to take one of them
        if self._made:
            self._pairs.clear()  # a copy of this selector shares it
            self._records = None
            while (buffer := take(unused)) is not None:
                self._facts.give_back(buffer)
        try:
            # In a forked child that is one thread, the calls are those of the parent's threads.
            if self._made and self._in_call() and not (strays and alone()):
                self._interrupt()
        except (OSError, ValueError) as error:
            if of_handler(error):
                raise
            # No descriptor is left: the waits end with their timeout.
        finally:
            descriptor.fd, descriptor.closing = -1, RUNG
            if strays and not self._rebuilder:  # which call would be the last is not known
                descriptor.close()
            self._end()

    def _end_call(self, buffer: Buffer) -> None:
        """End a call of a closed selector, whose buffer may belong to another one by now."""
        forget(buffer._reference, self._made)
        while (unused := take(self._idle)) is not None:  # if a copy of this selector was closed
            forget(unused._reference, self._made)
        self._end()

    def _end(self) -> None:
        """Once no call is in flight, close the set and give the wakers back."""
        if self._descriptor.closing == RINGING or (self._made and self._in_call()):
            return
        self._descriptor.close()
        for name in ("_waker", "_rung"):
            if waker := self.__dict__.pop(name, None):
                give_back(waker)

    def _new_buffer(self) -> Buffer:
        buffer = self._facts.lend(self._descriptor.fd, self._made)
        if len(self._made) > 1 and self._in_call(ours=1):
            self._several = True
        if self._descriptor.closing:  # after it was noted in ``_made``, where ``_release`` looks then
            self._end_call(buffer)
            raise ValueError(CLOSED)
        return buffer

    def _in_call(self, ours: int = 0) -> bool:
        """Tell whether a call is in flight besides ``ours``.

        The callers rule out first, at less cost, that it can be.
        """
        idle, made = self._idle, self._made
        if len(idle) + ours < len(made):
            for one in [*made]:
                if one() is None:  # an exception took the buffer before the call could give it back
                    forget(one, made)
        return len(idle) + ours < len(made)

    def _new_token(self, fd: int) -> int:
        mark, serial = _MARK + process.forks_as_child % 2, next(_serials) % (1 << _SERIAL_BITS)
        token = self._tokens[fd] = fd | (mark << _SERIAL_BITS | serial) << _SERIAL_SHIFT
        return token

    def _is_shared(self) -> bool:
        """Tell whether the set may hold registrations that are not ours."""
        self._shared = self._shared or self._forks is not process.forks
        return self._shared

    def _may_be_of_the_caller(self, token: int) -> bool:
        """Tell whether the caller, or the other process after a fork, may have made a registration.

        ``select.epoll`` writes the descriptor into half of a token, and leaves in the other half
        whatever was there.
        """
        mark = _MARK + process.forks_as_child % 2
        return token >> _SERIAL_SHIFT + _SERIAL_BITS != mark and self._is_shared()

    def _repair(self, buffer: Buffer, unknown: list[tuple[int, int]]) -> bool:
        """Make the kernel agree with the registry about what it should not have reported.

        Args:
            buffer: that of the call.
            unknown: descriptors with the tokens that are of no registration; -1: the interest differs.

        Returns:
            Whether to wait on. If not, the kernel will go on reporting it.
        """
        if self._is_shared():
            return False
        before, buffer.unknown = buffer.unknown, [token for _, token in unknown if token >= 0]
        for fd, _ in unknown:
            key, token = self._fd_to_key.get(fd), self._tokens.get(fd, fd)
            try:
                self._watch(fd, key.events if key else 0, ANY)
            except OSError as error:
                if from_outside(error):
                    raise
                self._tokens[fd] = token  # closed, and registered all the same: nothing has changed
            self._settle(fd, key)
        # The kernel was told since this buffer was last filled, and reports it all the same.
        return set(buffer.unknown).isdisjoint(before) or self._rebuild(buffer)

    def _waits_on(self, buffer: Buffer, token: int) -> bool:
        """Take a wake-up; return whether to wait on, since it was for another call or a change."""
        if token >> _SERIAL_SHIFT != os.getpid() and -1 not in self._duplex:
            # Another process has rung, and it alone can take that. So this one leaves the set.
            self._look_for_strays()
            try:
                self._go_on_alone(buffer)
                return True
            except (OSError, ValueError) as error:
                if from_outside(error):
                    raise
                return False
        # First: a wake-up that comes after the look at the flag must stay.
        waker = self._waker
        drained = waker is not None and waker.drain()
        if waker is not None and self._descriptor.closing:
            waker.ring()  # for the other threads that wait
            return False
        if self._woken:  # written only then: another thread may be setting it
            self._woken = False
            return False
        # That of another process would be reported on and on; of ours, the set was replaced.
        return drained or token >> _SERIAL_SHIFT == os.getpid()

    def _add_waker(self) -> Waker:
        """Have the set watch a waker; the threads that wait already are woken by it, too."""
        lent = lend(registered=self._fd_to_key)
        # Before it is the waker: an exception leaves none that the set does not watch.
        self._watch_waker(self._descriptor.fd, lent)
        waker: Waker = self.__dict__.setdefault("_waker", lent)
        if waker is lent:
            self._watch_waker(self._descriptor.fd, waker)  # if the set was replaced meanwhile
        else:
            lent.close()  # another thread was faster; the set forgets this one
        return waker

    def _watch_waker(self, epfd: int, waker: Waker) -> None:
        facts = self._facts
        event = facts.pack(facts.flags[1], WAKE | os.getpid() << _SERIAL_SHIFT)
        try:
            self._binding.call(facts.epoll_ctl, epfd, facts.ADD, waker.reader, event)
        except OSError as error:
            if isinstance(error, FileExistsError) and not from_outside(error):
                return
            self._check_open()
            raise

    def _reconcile(self, fd: int, events: int, errno: int) -> None:
        """Go on where the kernel has more, or less, than was expected.

        EEXIST: an interrupted call left it, or another thread was first. ENOENT: the number was reused,
        and the new file has never been added.
        """
        facts = self._facts
        for tries in range(16):
            if errno == EEXIST and not self._is_shared():
                operation, token = facts.MOD, self._tokens.get(fd, fd)
            elif errno == ENOENT:
                operation, token = facts.ADD, self._new_token(fd)
            else:
                break
            flags = (facts.bits if self._beyond else facts.flags)[events]
            errno = self._step(operation, fd, facts.pack(flags, token))
            if not errno:
                return
        self._check_open()
        raise self._binding.error(errno) if tries else leaving_nothing(self._binding.error(errno))

    def _step(self, operation: int, fd: int, event: Any) -> int:
        """Call epoll_ctl(2); return its errno, or 0."""
        return -self._binding.ask(self._facts.epoll_ctl, self._descriptor.fd, operation, fd, event)

    def _rebuild(self, buffer: Buffer, *, strict: bool = True) -> bool:
        """Replace the set by one made from the registry; return whether to wait on.

        If ``strict``, a registered descriptor that is closed is an obstacle, and an obstacle means
        False. Otherwise it is an OSError.

        One call at a time does it, the one whose buffer is in ``_rebuilder``. A call that an exception
        has ended there has its buffer back, and is no obstacle.
        """
        dup3, mark = self._facts.dup3, (buffer, get_ident())
        if not dup3:
            if strict:
                return False
            raise self._binding.error(ENOSYS)
        try:
            holder = self.__dict__.setdefault("_rebuilder", mark)
            if holder is not mark:
                if holder[0] is not buffer and holder[0] not in self._idle:
                    # A signal handler does not wait for the call that it interrupts.
                    return bool(holder[1] != mark[1])
                self._rebuilder = mark
            if self._descriptor.closing:
                return False
            new = Descriptor(self._binding, self._facts.create())
            try:
                made = self._move_to(new.fd, dup3, strict)
            finally:
                new.close()
        except (OSError, ValueError) as error:
            if not strict or from_outside(error):
                raise
            return False  # no descriptor or memory is left, or a registered one is closed; or the set
        finally:
            if self._rebuilder is mark:
                del self._rebuilder
        for one in [*self._made]:
            if other := one():
                other.unknown = ()
        for fd in {*made, *self._fd_to_key}:  # changes that went to the old set meanwhile
            self._settle(fd, made.get(fd))
        return True

    def _move_to(self, new: int, dup3: Callable[..., int], strict: bool) -> dict[int, SelectorKey]:
        """Fill the set ``new``, give it our number, and wake the threads that wait on the old one."""
        self._check_open()
        facts, call, epfd = self._facts, self._binding.call, self._descriptor.fd
        made, flags = {**self._fd_to_key}, facts.bits if self._beyond else facts.flags
        for fd, key in made.items():
            if not watched(key.events) or fd in self._elsewhere:
                continue
            event = facts.pack(flags[key.events], self._tokens.get(fd, fd))
            try:
                call(facts.epoll_ctl, new, facts.ADD, fd, event)
            except OSError as error:
                # What is closed and still registered may be reported by the old set, not by a new one.
                gone = not strict and (not is_open(fd) or fd == new)
                if from_outside(error) or (self._fd_to_key.get(fd) is key and not gone):
                    raise
        if waker := self._waker:
            self._watch_waker(new, waker)
        leave = None
        try:
            if not alone():
                # Never drained, so every thread that waits on the old set leaves it.
                leave = self._rung = rung(self._rung)
                self._watch_waker(epfd, leave)
            call(dup3, new, epfd, os.O_CLOEXEC)
        except BaseException:
            if leave:  # the old set stays: it must not report this on and on
                self._step(facts.DEL, leave.reader, facts.NULL)
            raise
        if self._waker is not waker and self._waker:  # another thread has added it to the old set
            self._watch_waker(epfd, self._waker)
        return made
