"""epoll(7): Linux.

Facts. The kernel keys a registration by (descriptor, open file) and hands back 64 bits of ours
with each event. A file that is open elsewhere (dup, fork) keeps its registration after close(2)
and goes on being reported under a number that may by now name another file. What makes the
standard library slow is its Python loop that turns events into ``(key, events)``; the system call
itself costs more here than there (200 to 300 ns on CPython).

Consequence. What comes back must tell old from new, and no Python code may run per event.

Decision. The 64 bits are a token: the bare number, until something may still report it after its
registration has ended or changed (the kernel refused to delete it, or another call is in flight);
from then on the number and a serial that no other registration has had. A key with one direction
yields the same pair whatever bits arrive, so ``_pairs`` maps token to pair and ``itemgetter`` looks
up a batch at once. While a key with both directions exists, whole event records are looked up in
``_records`` instead. Neither is filled before the first event: idle descriptors cost nothing.
``select`` steps an iterator with its arguments bound (see ``binding``) and an output buffer that
belongs to one call at a time. There is no lock (330 ns for a register and unregister): whoever
changes a registration leaves a mark in ``_changer``, and who finds another's mark there when he is
through makes the kernel agree with the registry. What is reported and not registered is removed
from the kernel, unless a thread may be registering it just now; for what cannot be removed see
``epoll_ghosts``.

Cost. Results are looked up by what the kernel said, so whoever changes a key must forget what was
made of it. That epoll_ctl, too, is stepped, to keep its errno from a signal handler's failing
call, costs 150 ns each.

https://man7.org/linux/man-pages/man7/epoll.7.html
"""

from __future__ import annotations

import sys
from _thread import _count as other_threads
from _thread import allocate_lock
from collections import deque
from errno import EBADF, EEXIST, EINTR, ENOENT
from itertools import count
from operator import itemgetter
from struct import Struct
from struct import error as StructError
from time import monotonic

from ..binding import ATOMIC_STEP
from .base import INVALID_EVENTS, PATIENCE, NativeEvent, SelectorKey, _BaseSelectorImpl, deadline_of
from .directions import BOTH, Directions
from .epoll_ghosts import without_ghosts
from .epoll_wait import FD_MASK, Wait, event_format, look_up

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from _typeshed import FileDescriptorLike

    from ..binding import Binding
    from .directions import Pair

__all__ = ["EpollSelector"]

_SERIAL_SHIFT = 32
_replacing = allocate_lock()
_make_key = tuple.__new__  # what SelectorKey(...), a Python function, calls


class EpollSelector(_BaseSelectorImpl):
    """Epoll-based selector."""

    _mechanism = "epoll"

    def __init__(self, *, binding: Binding | None = None, debug: object = None) -> None:
        super().__init__(debug=debug)
        self._epfd = -1
        self._binding = binding = self._bind(binding)
        self._ffi = binding.ffi
        constant = binding.constant
        self._attempts = binding.attempts
        self._epoll_ctl = binding.function("epoll_ctl")
        self._ADD = constant("EPOLL_CTL_ADD")
        self._MOD = constant("EPOLL_CTL_MOD")
        self._DEL = constant("EPOLL_CTL_DEL")
        self._NULL = self._ffi.NULL
        read, write = constant("EPOLLIN"), constant("EPOLLOUT")
        self._flags = (0, read, write, read | write)
        self._directions = Directions(read, write)
        self._pack = Struct("=" + event_format(self._ffi)).pack

        self._serials = count(1)
        self._tokens: dict[int, int] = {}  # of the descriptors whose token is not the bare number
        self._changer: object = None  # who made the last change
        self._pairs: dict[int, Pair] = {}
        self._duplex: set[int] = set()  # the descriptors registered for both directions
        self._records: dict[bytes, Pair] = {}
        self._records_of: dict[int, list[bytes]] = {}  # by token
        self._waits: list[Wait] = []
        self._idle: deque[Wait] = deque()  # those of which no call is in flight
        self._stragglers: list[Wait] = []  # in flight when the set was last replaced
        create = binding.function("epoll_create1")
        self._epfd = binding.call(create, constant("EPOLL_CLOEXEC"))

    def fileno(self) -> int:
        """Return the epoll descriptor.

        Raises:
            ValueError: the selector is closed.
        """
        if self._epfd < 0:
            raise ValueError("I/O operation on closed selector")
        return self._epfd

    def register(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> SelectorKey:
        if not events or events & INVALID_EVENTS:
            raise ValueError(f"Invalid events: {events!r}")
        fd = fileobj if type(fileobj) is int else self._fileobj_lookup(fileobj)
        fd_to_key = self._fd_to_key
        if fd in fd_to_key:
            raise KeyError(f"{fileobj!r} (FD {fd}) is already registered")
        key: SelectorKey = _make_key(SelectorKey, (fileobj, fd, events, data))
        self._changer = key
        token = self._tokens.get(fd, fd) if self._tokens else fd
        try:
            event = self._pack(self._flags[events], token)
        except (StructError, ValueError, OverflowError):  # by implementation
            self._fileobj_lookup(fileobj)  # raises for a negative number
            raise OverflowError("Python int too large to convert to C int") from None
        for refused in self._attempts(self._epoll_ctl, ((self._epfd, self._ADD, fd, event),)):
            break
        if refused:
            errno = self._ffi.errno if ATOMIC_STEP else refused
            if errno != EEXIST or not self._adopt(fd, event, key):
                self.fileno()
                raise self._binding.error(errno)
        if events == BOTH:
            self._duplex.add(fd)
        kept = fd_to_key.setdefault(fd, key)
        if self._changer is not key:
            self._settle(fd)
        if kept is not key:
            raise KeyError(f"{fileobj!r} (FD {fd}) is already registered")
        return key

    def unregister(self, fileobj: FileDescriptorLike) -> SelectorKey:
        try:
            fd = fileobj if type(fileobj) is int else self._fileobj_lookup(fileobj)
            key = self._fd_to_key[fd]
        except KeyError:
            raise self._unknown(fileobj) from None
        self._changer = key
        refused = self._epoll_ctl(self._epfd, self._DEL, fd, self._NULL)
        removed = self._fd_to_key.pop(fd, None)
        token = self._tokens.get(fd, fd) if self._tokens else fd
        if refused or len(self._idle) < len(self._waits):
            # The descriptor is closed or its number reused, and a duplicate may still be watched;
            # or an event may be on its way to another thread.
            self._tokens[fd] = fd | next(self._serials) << _SERIAL_SHIFT
        self._pairs.pop(token, None)
        if self._duplex:
            self._duplex.discard(fd)
        if self._records_of:
            self._forget_records(token)
        if self._changer is not key:
            self._settle(fd)
        if removed is None:  # another thread has been faster
            raise self._unknown(fileobj)
        return removed

    def modify(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> SelectorKey:
        try:
            fd = fileobj if type(fileobj) is int else self._fileobj_lookup(fileobj)
            key = self._fd_to_key[fd]
        except KeyError:
            raise self._unknown(fileobj) from None
        if not events or events & INVALID_EVENTS:
            raise ValueError(f"Invalid events: {events!r}")
        old_fileobj, _, old_events, old_data = key
        rearm = events != old_events or (fileobj is not old_fileobj and self._replaced(key, fileobj))
        if not (rearm or data != old_data):
            return key
        new: SelectorKey = _make_key(SelectorKey, (fileobj, fd, events, data))
        self._changer = new
        token = self._tokens.get(fd, fd) if self._tokens else fd
        if rearm:
            event = self._pack(self._flags[events], token)
            for refused in self._attempts(self._epoll_ctl, ((self._epfd, self._MOD, fd, event),)):
                break
            if refused:
                errno = self._ffi.errno if ATOMIC_STEP else refused
                # ENOENT: the number was reused, the new file has never been added; or somebody
                # has removed the descriptor meanwhile, and may add it again.
                healed = errno == ENOENT and (
                    self._add_anew(fd, events)
                    or ((other_threads() or self._changer is not new) and self._adopt(fd, event, new))
                )
                if not healed:
                    if errno == EBADF:
                        self._drop(key)
                    self.fileno()
                    raise self._binding.error(errno)
            if len(self._idle) < len(self._waits):
                # An event for the old interest may be on its way to another thread.
                self._tokens[fd] = fd | next(self._serials) << _SERIAL_SHIFT
                event = self._pack(self._flags[events], self._tokens[fd])
                self._epoll_ctl(self._epfd, self._MOD, fd, event)
            if events == BOTH:
                self._duplex.add(fd)
        self._fd_to_key[fd] = new
        self._pairs.pop(token, None)
        if old_events == BOTH != events:
            self._duplex.discard(fd)
        if self._records_of:
            self._forget_records(token)
        if self._changer is not new:
            self._settle(fd)
        return new

    def select(self, timeout: float | None = None) -> list[Pair]:
        idle = self._idle
        try:
            wait = idle.pop()
        except IndexError:
            wait = self._another_wait()
        try:
            deadline = None
            if timeout is None:
                steps = wait.forever
            elif timeout <= 0:
                steps = wait.now
            else:
                deadline = monotonic() + timeout
                steps = wait.until(timeout)
            for n in steps:
                break
            try:
                if n == 1 and not self._duplex:
                    pair = self._pairs.get(wait.token[0])
                    if pair is not None:
                        return [pair]
                    return self._missed(wait, 1, wait.token[0], timeout, deadline)
                if n == 0:
                    return []
                if 1 < n <= wait.batch and not self._duplex:
                    return [*itemgetter(*wait.tokens[n](wait.view))(self._pairs)]
                if n < 0 or n == wait.capacity:
                    n = wait.go_on(self, n, self._ffi.errno, timeout, deadline)
                return self._decode_records(wait, n) if self._duplex else self._decode(wait, n)
            except KeyError as error:
                missing = error.args[0] if error.args else None
                return self._missed(wait, n, missing, timeout, deadline)
        except BaseException:
            wait.bind()  # a call that has failed is spent, see ``Binding.calls``
            raise
        finally:
            idle.append(wait)

    def close(self) -> None:
        epfd, self._epfd = self._epfd, -1
        # A new queue: a call in flight puts its buffer back into the old one.
        self._waits, self._idle, self._stragglers = [], deque(), []
        super().close()
        self._pairs.clear()
        self._records.clear()
        self._records_of.clear()
        self._duplex.clear()
        if epfd >= 0:
            self._binding.close(epfd)

    def __del__(self) -> None:
        # As the C object does that the stdlib's selector owns. A failed __init__ has no _epfd.
        if getattr(self, "_epfd", -1) >= 0:
            EpollSelector.close(self)

    # The fast decoders; KeyError for what is not in the tables (yet, or any more).

    def _decode_struct(self, wait: Wait, n: int) -> list[Pair]:
        return look_up(self._pairs, wait.tokens, wait, n)

    def _decode_records_struct(self, wait: Wait, n: int) -> list[Pair]:
        return look_up(self._records, wait.records, wait, n)

    # PyPy: its compiler removes the objects of a plain loop, not those of ``struct``; and what has 64
    # bits and no sign is a long integer there, so tokens are put together from words.

    def _decode_loop(self, wait: Wait, n: int) -> list[Pair]:
        pairs, words, (step, low, high) = self._pairs, wait.words, wait.layout
        return [pairs[words[i + low] | words[i + high] << 32] for i in range(0, n * step, step)]

    def _decode_records_loop(self, wait: Wait, n: int) -> list[Pair]:
        fd_to_key, tokens, directions = self._fd_to_key, self._tokens, self._directions
        words, (step, low, high) = wait.words, wait.layout
        result = []
        for i in range(0, n * step, step):
            fd = words[i + low]
            key = fd_to_key[fd]
            events = directions[words[i]] & key.events
            token = tokens.get(fd, fd) if tokens else fd
            if not events or fd | words[i + high] << 32 != token:
                raise KeyError(fd)
            result.append((key, events))
        return result

    if sys.implementation.name == "pypy":
        _decode, _decode_records = _decode_loop, _decode_records_loop
    else:
        _decode, _decode_records = _decode_struct, _decode_records_struct

    # Everything below is cold.

    def _unknown(self, fileobj: FileDescriptorLike) -> KeyError:
        """Return the exception for what is not registered; raise ValueError for a bad number."""
        if isinstance(fileobj, int):
            self._fileobj_lookup(fileobj)
        return KeyError(f"{fileobj!r} is not registered")

    def _another_wait(self) -> Wait:
        wait = Wait(self._binding, self.fileno())
        self._waits.append(wait)
        return wait

    def _missed(
        self, wait: Wait, n: int, missing: object, timeout: float | None, deadline: float | None
    ) -> list[Pair]:
        """Decode what the tables lack; wait on for what is registered if nothing of it is."""
        result = self._learn(wait, n, missing) or self._sift(wait, n)
        if result or (timeout is not None and deadline is None):
            return result
        return self._wait_for_known(timeout, deadline)

    def _learn(self, wait: Wait, n: int, missing: object) -> list[Pair] | None:
        """Decode, and make what the tables lack; None if an event is of no registration.

        Raises:
            KeyError: the one that is being handled, if it is not of a table but a signal handler's.
        """
        fields: list[Any]
        table: dict[Any, Pair]
        if isinstance(missing, bytes):
            fields, table = wait.all_records(n), self._records
        else:
            fields, table = wait.all_tokens(n) if n > 1 else [wait.token[0]], self._pairs
        # A loop names the descriptor.
        if missing not in fields and missing not in [t & FD_MASK for t in wait.all_tokens(n)]:
            raise
        result = []
        for i, field in enumerate(fields):
            pair = table.get(field)
            if pair is None:
                flags, token = wait.event(i)
                fd = token & FD_MASK
                key = self._fd_to_key.get(fd)
                events = self._directions[flags] & key.events if key else 0
                if not (key and events) or self._tokens.get(fd, fd) != token:
                    return None
                pair = key, events
                self._remember(token, field, pair)
            result.append(pair)
        return result

    def _remember(self, token: int, field: int | bytes, pair: Pair) -> None:
        key = pair[0]
        if key.events != BOTH:
            self._pairs[token] = pair
        if isinstance(field, bytes):
            self._records[field] = pair
            self._records_of.setdefault(token, []).append(field)
        # Another thread may have changed the key after it was read and before this was stored.
        # It changes the registry first and forgets then: one of us sees the other.
        if self._fd_to_key.get(key.fd) is not key:
            self._pairs.pop(token, None)
            if isinstance(field, bytes):
                self._records.pop(field, None)

    def _sift(self, wait: Wait, n: int) -> list[Pair]:
        """Decode event by event, leaving out what is not registered (any more)."""
        result = []
        for key, _, flags in self._events(wait, n):
            events = self._directions[flags] & key.events if key else 0
            if key and events:
                result.append((key, events))
        return result

    def _forget_records(self, token: int) -> None:
        for record in self._records_of.pop(token, ()):
            self._records.pop(record, None)

    def _wait_for_known(self, timeout: float | None, deadline: float | None) -> list[Pair]:
        """Go on waiting after events that are of no registration, see ``PATIENCE``."""
        until, hopeless = monotonic() + PATIENCE, False
        while True:
            remaining = None if deadline is None else max(deadline - monotonic(), 0)
            found = self._native(remaining)
            result = []
            for key, _, flags, *_ in found:
                events = self._directions[flags] & key.events if key else 0
                if key and events:
                    result.append((key, events))
            if result or not found or remaining == 0:
                return result
            hopeless = hopeless or not self._exorcise()
            if hopeless and monotonic() > until:
                return []

    def _exorcise(self) -> bool:
        """Replace the set by one without ghosts, see ``epoll_ghosts``; return whether it is one."""
        if not _replacing.acquire(blocking=False):
            return False
        try:
            # The calls that were waiting on the last set that was replaced must be through.
            idle = self._idle.copy()  # other threads change the original meanwhile
            if any(wait not in idle for wait in self._stragglers):
                return False
            self._changer = mark = object()
            fds = without_ghosts(
                self._binding,
                self._epfd,
                self._pack,
                lambda fd, token: fd in self._fd_to_key and self._tokens.get(fd, fd) == token,
            )
            if fds is None:
                return False
            idle = self._idle.copy()
            self._stragglers = [wait for wait in list(self._waits) if wait not in idle]
        finally:
            _replacing.release()
        if self._changer is not mark:  # somebody has changed the old set, or the new one?
            for fd in {*fds, *list(self._fd_to_key)}:
                self._settle(fd)
        return True

    def _native(self, timeout: float | None) -> list[NativeEvent]:
        idle = self._idle
        try:
            wait = idle.pop()
        except IndexError:
            wait = self._another_wait()
        try:
            n = wait.go_on(self, -1, EINTR, timeout, deadline_of(timeout))
            return [NativeEvent(key, fd, flags) for key, fd, flags in self._events(wait, n)]
        except BaseException:
            wait.bind()
            raise
        finally:
            idle.append(wait)

    def _events(self, wait: Wait, n: int) -> Iterator[tuple[SelectorKey | None, int, int]]:
        """Yield (key or None, fd, flags) per event; mend what an unknown token betrays."""
        for i in range(n):
            event = wait.buffer[i]
            token, flags = event.data, event.events
            fd = token & FD_MASK
            key = self._fd_to_key.get(fd)
            if key is not None and self._tokens.get(fd, fd) != token:
                key = None
                self._settle(fd)
            elif key is None and not other_threads():  # else one may be registering it just now
                self._settle(fd)
            yield key, fd, flags

    def _adopt(self, fd: int, event: bytes, mark: SelectorKey) -> bool:
        """Take over what the kernel has and the registry has not; return whether it worked.

        An exception that interrupted a call has left it, or a closed duplicate, or a thread or a
        signal handler is registering the descriptor too, and may remove it again.
        """
        for op in (self._MOD, self._ADD) * 8:
            if not self._epoll_ctl(self._epfd, op, fd, event):
                return True
            if not other_threads() and self._changer is mark:
                break  # nobody else is at it
        return False

    def _add_anew(self, fd: int, events: int) -> bool:
        """Watch the file that a reused number names now; return whether the kernel does.

        Its token is a new one, for the former file may be open elsewhere and still be reported.
        """
        token = fd | next(self._serials) << _SERIAL_SHIFT
        if self._epoll_ctl(self._epfd, self._ADD, fd, self._pack(self._flags[events], token)):
            return False
        old = self._tokens.get(fd, fd)
        self._tokens[fd] = token
        self._pairs.pop(old, None)
        self._forget_records(old)
        return True

    def _settle(self, fd: int) -> None:
        """Make the kernel agree with the registry about ``fd``.

        Due when two threads, or a thread and its signal handler, have changed one descriptor at the
        same time; ``_changer`` tells whoever is through last.
        """
        mark = None
        while mark is None or self._changer is not mark:
            self._changer = mark = object()
            key = self._fd_to_key.get(fd)
            if key is None:
                if self._epoll_ctl(self._epfd, self._DEL, fd, self._NULL):
                    self._tokens[fd] = fd | next(self._serials) << _SERIAL_SHIFT
                continue
            event = self._pack(self._flags[key.events], self._tokens.get(fd, fd))
            if self._epoll_ctl(self._epfd, self._MOD, fd, event):
                self._add_anew(fd, key.events)
            if key.events == BOTH:
                self._duplex.add(fd)

    def _drop(self, key: SelectorKey) -> None:
        """Forget a registration whose descriptor is closed."""
        fd = key.fd
        if self._fd_to_key.pop(fd, None):
            token = self._tokens.get(fd, fd)
            self._tokens[fd] = fd | next(self._serials) << _SERIAL_SHIFT
            self._pairs.pop(token, None)
            self._forget_records(token)
            self._duplex.discard(fd)
