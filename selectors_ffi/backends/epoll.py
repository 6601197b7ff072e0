"""epoll(7): Linux.

What the kernel does
--------------------
The kernel keys a registration by (descriptor, open file) and returns 64 bits of ours, the *token*,
with each event. What makes the standard library slow is its Python loop that turns events into
``(key, events)``; the call itself costs 200 to 300 ns more here than there. So no Python code runs per
event: ``_pairs`` maps tokens to results, and ``itemgetter`` looks up a whole batch.

A key with one direction always yields the same pair. While a key with both directions exists, whole
event records are looked up in ``_records`` instead, since their flags matter. Both tables are caches:
a change of a key invalidates its entries, and only its first event fills them. So idle descriptors
cost no memory.

Tokens
------
Normally the token is just the descriptor. Once an old registration might still be reported, its
upper half becomes a new serial: when the kernel refused to delete it, or when another thread is in a
call that may hold an event for the old interest.

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
from errno import EEXIST, EINTR, ENOENT, ENOSYS
from itertools import count
from operator import itemgetter
from struct import error as StructError
from sys import _current_frames

from ..binding import REFUSALS
from . import forks
from .base import ANY, BOTH, CLOSED, TOO_LARGE, Descriptor, NativeEvent, SelectorKey
from .beyond import ONESHOT, watched
from .clock import Deadline, clock
from .epoll_beyond import BeyondEpoll
from .epoll_buffer import CHUNK, LOOPS, Buffer, Facts
from .refusal import is_open
from .wake import Waker, give_back, lend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..binding import Binding
    from .directions import Pair

__all__ = ["EpollSelector"]

_FD_MASK = 0xFFFF_FFFF  # the part of a token that is the descriptor
_SERIAL_SHIFT = 32
_SERIAL_BITS = 27  # and one more, which is always set: it tells our tokens from a caller's
_WAKE = _FD_MASK  # the waker's token: no descriptor is as large
_serials = count()


class EpollSelector(BeyondEpoll):
    """Epoll-based selector."""

    _mechanism = "epoll"
    _waker: Waker | None = None
    _rung: Waker | None = None  # wakes the threads that wait on a set that was replaced
    _rebuilder: tuple[Buffer, int] | None = None  # the call that replaces the set, and its thread

    def __init__(self, *, binding: Binding | None = None, debug: object = None) -> None:
        super().__init__(debug=debug)
        self._binding = binding = self._bind(binding)
        self._facts: Facts = binding.facts(Facts)
        self._forks = forks.history
        self._tokens: dict[int, int] = {}  # of the descriptors whose token is not the bare number
        self._pairs: dict[int, Pair] = {}
        self._duplex: dict[int, None] = {}  # descriptors registered for both directions
        self._records: dict[bytes, Pair] = {}
        self._records_of: dict[int, list[bytes]] = {}  # by token
        self._made: list[Any] = []  # a reference to each buffer that lives, idle or in use
        self._several = False  # whether there was ever more than one
        self._idle: list[Buffer] = [None]  # type: ignore[list-item] # buffers that no call is using
        self._idle.pop()  # a list of one and its memory stay: 400 instructions less in each wait
        self._descriptor = Descriptor(binding, self._facts.create())

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

    def _watch(self, fd: int, events: int, was: int) -> None:
        if self._beyond:
            self._watch_beyond(fd, events, was)
            return
        facts = self._facts
        token = self._tokens.get(fd, fd) if self._tokens else fd
        if was:
            self._pairs.pop(token, None)
            if self._duplex:
                self._duplex.pop(fd, None)
                if self._records_of:
                    self._forget_records(token)
            if not events:
                epoll_ctl = facts.epoll_ctl
                refused = epoll_ctl(self._descriptor.fd, facts.DEL, fd, facts.NULL)
                if refused or (self._made and (self._several or not self._idle) and self._in_call()):
                    self._new_token(fd)
                return
            operation = facts.MOD
            if events != was and self._made and (self._several or not self._idle) and self._in_call():
                token = self._new_token(fd)  # another thread may hold an event for the old interest
        else:
            operation = facts.ADD
        if events == BOTH:
            self._duplex[fd] = None
        pack = facts.pack
        try:
            event = pack(facts.flags[events], token)
        except StructError:
            raise OverflowError(TOO_LARGE) from None
        attempts, epoll_ctl = facts.attempts, facts.epoll_ctl
        for refused in attempts(epoll_ctl, ((self._descriptor.fd, operation, fd, event),)):
            break
        if refused:
            self._insist(fd, events, facts.errno(refused))

    def _forget(self, fd: int) -> None:
        token = self._tokens.get(fd, fd)
        self._pairs.pop(token, None)
        self._duplex.pop(fd, None)
        self._forget_records(token)
        key = self._fd_to_key.get(fd)
        if key is not None and (key.events >= BOTH or self._beyond):
            self._duplex[fd] = None

    def select(self, timeout: float | None = None) -> list[Pair]:  # type: ignore[override]
        idle = self._idle
        try:
            buffer = idle.pop()
        except IndexError:
            buffer = self._new_buffer()
        try:
            if timeout is None:
                steps = buffer.forever or buffer.bind_forever()
            elif timeout <= 0:
                steps = buffer.now or buffer.bind_now()
            else:
                steps = buffer.until(timeout)
            for n in steps:
                break
            else:  # of a large buffer: see whether it must be as large
                buffer = buffer.sized(CHUNK)
                n = buffer.step(timeout)
            try:
                if n == 1 and not self._duplex:
                    pair = self._pairs.get(buffer.token[0])
                    if pair is not None or (pair := self._first(buffer)) is not None:
                        return [pair]
                elif n == 0:
                    return []
                elif n < 0:
                    n = -self._facts.errno(n)
                elif n <= buffer.batch and not self._duplex:
                    return [*itemgetter(*buffer.tokens[n](buffer.view))(self._pairs)]
                else:
                    if n == buffer.capacity:
                        buffer, n = buffer.grown(n)
                    found = self._look_up(buffer, n) if buffer.batch else None
                    if found is not None:
                        return found
            except KeyError as error:
                if error.__traceback__ and error.__traceback__.tb_next:
                    raise  # not of the look-up above, but of a signal handler
            if n > 0:
                result, go_on = self._sift(buffer, n, None)
                if result or not go_on:
                    return result
                n = -EINTR  # what was mended may be ready
            return self._wait_on(buffer, n, timeout)
        except BaseException:
            # A call that has failed is spent, see ``Binding.calls``. No call is made here: another
            # signal handler could take the place of the exception.
            buffer.now = buffer.forever = buffer.timed = None
            raise
        finally:
            idle.append(buffer)

    def _look_up(self, buffer: Buffer, n: int) -> list[Pair] | None:
        """Return the results of ``n`` events; None if a table lacks one."""
        if not self._duplex:
            return buffer.look_up(self._pairs, n, False)
        if not LOOPS:
            return buffer.look_up(self._records, n, True)
        if self._beyond:
            return None
        fd_to_key, tokens, directions = self._fd_to_key, self._tokens, self._facts.directions
        words, step, low, high = buffer.layout
        result = []
        for i in range(0, n * step, step):
            fd = words[i + low]
            key = fd_to_key.get(fd)
            events = directions[words[i]] & key.events if key else 0
            if key is None or not events or fd | words[i + high] << 32 != tokens.get(fd, fd):
                return None
            result.append((key, events))
        return result

    def _native(self, timeout: float | None) -> list[NativeEvent]:
        native: list[NativeEvent] = []
        try:
            buffer = self._idle.pop()
        except IndexError:
            buffer = self._new_buffer()
        try:
            buffer.began = clock()
            self._wait_on(buffer, -EINTR, timeout, native)
            return native
        finally:
            buffer.bind()
            self._idle.append(buffer)

    def _watches_itself(self, fd: int) -> bool:
        return fd == _WAKE

    def _interrupt(self) -> None:
        waker = self._waker
        if waker is None or not waker.ring():  # in a forked child it is the parent's, too
            self.__dict__.pop("_waker", None)
            self._add_waker().ring()

    def _reopen(self) -> None:
        if self._forks[1] != forks.as_child:  # the threads of the parent process are not in this one
            self._made[:] = [made for made in self._made if made() in self._idle]
            self.__dict__.pop("_rebuilder", None)
        for name in ("_waker", "_rung"):
            waker: Waker | None = self.__dict__.get(name)
            if waker is not None and not waker.intact():
                self.__dict__.pop(name, None)
        buffer = self._new_buffer()
        try:
            self._rebuild(buffer, strict=False)
        finally:
            self._idle.append(buffer)
        self._forks = forks.history
        self._shared = -1 in self._duplex  # the caller has our number, which names the new set now

    def _rebind(self, binding: Binding) -> dict[int, int]:
        super()._rebind(binding)
        self._facts = facts = binding.facts(Facts)
        self._descriptor.rebind(binding)
        for one in self._made.copy():
            buffer = one()
            if buffer is not None:
                buffer.rebind(facts)
        return {fd: self._tokens.get(fd, fd) for fd in self._fd_to_key.copy()}

    def _release(self) -> None:
        # One by one: another thread may be about to take one of this very list. What it cannot find
        # there it asks ``_new_buffer`` for.
        idle, unused, self._idle = [], self._idle, []
        try:
            while True:
                idle.append(unused.pop())
        except IndexError:
            pass
        busy = len(idle) < len(self._made)
        # In place, since a copy of this selector shares them.
        for table in (self._pairs, self._records, self._records_of, self._duplex):
            table.clear()
        for buffer in idle:
            buffer.forget()
        self._facts.give_back(idle)
        idle.clear()
        try:
            # Alone, this is a signal handler, and the call that it interrupts does not go on.
            if busy and len(_current_frames()) > 1:
                self._interrupt()
            else:
                self._drop_wakers()
        except OSError:
            pass  # no descriptor is left: the waits end with their timeout
        if not (busy and self._rebuilder):  # else the call that replaces the set will close it
            self._descriptor.close()

    # Everything below is cold.

    def _leave(self, buffer: Buffer) -> None:
        """End a call of a closed selector; the last one gives the wakers back."""
        buffer.forget()
        if not self._made:
            self._drop_wakers()

    def _drop_wakers(self) -> None:
        for name in ("_waker", "_rung"):
            waker = self.__dict__.pop(name, None)
            if waker:
                give_back(waker)

    def _first(self, buffer: Buffer) -> Pair | None:
        """Decode the one event in the buffer, if it is the first of a registration."""
        event = buffer.array[0]
        token = event.data
        fd = token & _FD_MASK
        key = self._fd_to_key.get(fd)
        if key is None or token != self._tokens.get(fd, fd):
            return None
        events = self._facts.directions[event.events] & key[2]
        if not events:
            return None
        pair = key, events
        if buffer.prepare():
            self._remember(token, token, pair)
        return pair

    def _new_buffer(self) -> Buffer:
        buffer = self._facts.lend(self._descriptor.fd, self._made)
        if len(self._made) > 1:
            self._several = True
        if self._closed:  # after it was noted in ``_made``, where ``_release`` looks after it closed
            buffer.forget()
            raise ValueError(CLOSED)
        return buffer

    def _in_call(self) -> bool:
        """Tell whether a call is in flight. The callers rule out first, at less cost, that it can be."""
        return len(self._idle) < len(self._made)

    def _new_token(self, fd: int) -> int:
        serial = 1 << _SERIAL_BITS | next(_serials) % (1 << _SERIAL_BITS)
        token = self._tokens[fd] = fd | serial << _SERIAL_SHIFT
        return token

    def _forget_records(self, token: int) -> None:
        for record in self._records_of.pop(token, ()):
            self._records.pop(record, None)
        if not self._duplex:  # from now on a change need not forget them
            self._records.clear()
            self._records_of.clear()

    def _insist(self, fd: int, events: int, errno: int) -> None:
        """Go on where the kernel has more, or less, than was expected.

        EEXIST: an interrupted call left it, or another thread was first. ENOENT: the number was reused,
        and the new file has never been added.
        """
        facts = self._facts
        for _ in range(16):
            if errno == EEXIST and not self._is_shared():
                operation, token = facts.MOD, self._tokens.get(fd, fd)
            elif errno == ENOENT:
                operation, token = facts.ADD, self._new_token(fd)
            else:
                break
            event = facts.pack((self._bits if self._beyond else facts.flags)[events], token)
            for refused in facts.attempts(
                facts.epoll_ctl, ((self._descriptor.fd, operation, fd, event),)
            ):
                break
            if not refused:
                return
            errno = facts.errno(refused)
        self._check_open()
        raise self._binding.error(errno)

    def _is_shared(self) -> bool:
        """Tell whether the set may hold registrations that are not ours."""
        if self._forks is not forks.history:
            self._shared = True
        return self._shared

    def _may_be_of_the_caller(self, token: int) -> bool:
        """Tell whether the caller may have made a registration itself.

        ``select.epoll`` writes the descriptor into half of a token, and leaves in the other half
        whatever was there.
        """
        return token >> _SERIAL_SHIFT + _SERIAL_BITS != 1 and self._is_shared()

    def _wait_on(
        self,
        buffer: Buffer,
        n: int,
        timeout: float | None,
        native: list[NativeEvent] | None = None,
    ) -> list[Pair]:
        """Wait on while there is nothing to return.

        Args:
            n: what the call before returned: 0, or -errno.
            timeout: as given to ``select``.
            native: takes every event as the kernel reported it, if given.
        """
        deadline, timed = Deadline(timeout, buffer.began), timeout is not None and timeout > 0
        while True:
            if -n in REFUSALS and timed and self._facts.precise:
                self._facts.precise = None  # an old kernel, or a sandbox: epoll_wait will do
            elif n < 0 and n != -EINTR and not self._closed:
                self._check_open()
                raise self._binding.error(-n)
            remaining = deadline.remaining()
            if self._closed:
                self._leave(buffer)
                return []
            if remaining == 0 and n >= 0:
                return []
            timed = bool(remaining)
            n = buffer.step(remaining)
            if n > 0:
                result, go_on = self._sift(buffer, n, native)
                if result or native or not go_on:
                    return result

    def _sift(self, buffer: Buffer, n: int, native: list[NativeEvent] | None) -> tuple[list[Pair], bool]:
        """Return what ``n`` events are for the caller, and whether to wait on if it is nothing."""
        table: dict[Any, Pair] = self._records if self._duplex else self._pairs
        fields: list[Any] = []
        if native is None and buffer.prepare() and not (LOOPS and self._duplex):
            fields = buffer.fields(n, bool(self._duplex))
        result, unknown, go_on = [], [], not self._closed
        for i in range(n):
            pair = table.get(fields[i]) if fields else None
            if pair is not None:
                result.append(pair)
                continue
            event = buffer.array[i]
            token, flags = event.data, event.events
            fd = token & _FD_MASK
            if fd == _WAKE:
                go_on = self._waits_on() and go_on
                continue
            key, ours = self._fd_to_key.get(fd), token == self._tokens.get(fd, fd)
            if not (ours or self._may_be_of_the_caller(token)):
                key = None
            if native is not None:
                native.append(NativeEvent(key, fd, flags))
            if key and self._beyond:
                events = self._report(flags, key)
            else:
                events = self._facts.directions[flags] & key.events if key else 0
            if key and events:
                result.append((key, events))
                if fields and ours:
                    self._remember(token, fields[i], result[-1])
            elif go_on:
                unknown.append((fd, token if key is None else -1))
        if unknown:
            go_on = self._heal(buffer, unknown) and go_on
        if self._closed:
            self._leave(buffer)
        return result, go_on

    def _remember(self, token: int, field: Any, pair: Pair) -> None:
        """Keep a result for the next time that the kernel reports the same.

        Only while no other call is in flight: that one may hold an event for an older interest under
        the same token, and would be given this pair.
        """
        key = pair[0]
        if len(self._idle) + 1 < len(self._made) or getattr(key.events, "trigger", "") is ONESHOT:
            return
        if key.events < BOTH:
            self._pairs[token] = pair
        if isinstance(field, bytes):
            self._records[field] = pair
            self._records_of.setdefault(token, []).append(field)
        # A change writes the registry first and forgets then: one of the two sees the other. While no
        # key has both directions, a change forgets no record.
        if not self._duplex or self._fd_to_key.get(key.fd) is not key:
            self._records.pop(field, None)
        if self._fd_to_key.get(key.fd) is not key:
            self._pairs.pop(token, None)

    def _heal(self, buffer: Buffer, unknown: list[tuple[int, int]]) -> bool:
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
            except OSError:
                self._tokens[fd] = token  # closed, and registered all the same: nothing has changed
            self._settle(fd, key)
        # The kernel was told since this buffer was last filled, and reports it all the same.
        return set(buffer.unknown).isdisjoint(before) or self._rebuild(buffer)

    def _waits_on(self) -> bool:
        """Take a wake-up; return whether to wait on, since it was for another call or a change."""
        if self._closed:
            return False  # it stays for the other threads that wait
        # First: a wake-up that comes after the look at the flag must stay.
        waker = self._waker
        drained = waker is not None and waker.drain()
        if self._woken:  # written only then: another thread may be setting it
            self._woken = False
            return False
        # That of another process would be reported on and on; of ours, the set was replaced.
        return drained or not self._is_shared()

    def _add_waker(self) -> Waker:
        """Have the set watch a waker; the threads that wait already are woken by it, too."""
        lent = lend()
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
        event = facts.pack(facts.flags[1], _WAKE)
        try:
            self._binding.call(facts.epoll_ctl, epfd, facts.ADD, waker.reader, event)
        except FileExistsError:
            pass
        except OSError:
            self._check_open()
            raise

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
            if self._closed:
                return False
            new = Descriptor(self._binding, self._facts.create())
            try:
                made = self._move_to(new.fd, dup3, strict)
            finally:
                new.close()
        except OSError:
            if not strict:
                raise
            return False  # no descriptor or memory is left, or a registered one is closed
        finally:
            if self._rebuilder is mark:
                del self._rebuilder
            if self._closed:
                self._descriptor.close()
        for one in self._made.copy():
            other = one()
            if other:
                other.unknown = []
        for fd in {*made, *self._fd_to_key.copy()}:  # changes that went to the old set meanwhile
            self._settle(fd, made.get(fd))
        return True

    def _move_to(self, new: int, dup3: Callable[..., int], strict: bool) -> dict[int, SelectorKey]:
        """Fill the set ``new``, give it our number, and wake the threads that wait on the old one."""
        facts, call, epfd = self._facts, self._binding.call, self._descriptor.fd
        made, flags = self._fd_to_key.copy(), self._bits if self._beyond else facts.flags
        for fd, key in made.items():
            if not watched(key.events):
                continue
            event = facts.pack(flags[key.events], self._tokens.get(fd, fd))
            try:
                call(facts.epoll_ctl, new, facts.ADD, fd, event)
            except OSError:
                # What is closed and still registered may be reported by the old set, not by a new one.
                if self._fd_to_key.get(fd) is key and (strict or (is_open(fd) and fd != new)):
                    raise
        waker = self._waker
        if waker:
            self._watch_waker(new, waker)
        if len(_current_frames()) > 1:
            # Never drained, so every thread that waits on the old set leaves it.
            rung = self._rung
            if rung is None or not rung.ring():
                rung = self._rung = lend()
                rung.ring()
            self._watch_waker(epfd, rung)
        call(dup3, new, epfd, os.O_CLOEXEC)
        if self._waker is not waker and self._waker:  # another thread has added it to the old set
            self._watch_waker(epfd, self._waker)
        return made
