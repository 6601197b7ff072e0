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

Beyond the standard library
---------------------------
The kernel has all of ``beyond``: EPOLLPRI, EPOLLRDHUP, EPOLLET, EPOLLONESHOT and EPOLLEXCLUSIVE. From
the first such registration on, every key of the selector is decoded as one for both directions is.

A registration that is or becomes exclusive cannot be modified (EINVAL), so it is deleted and added. A
``ONESHOT`` that was reported is also noted in its ``Interest``, since a set that is replaced would have
it armed again.

What the kernel goes on to report although it is not registered, and who else may use the set, is the
subject of ``epoll_set``.

https://man7.org/linux/man-pages/man7/epoll.7.html
"""

from __future__ import annotations

from errno import EINTR
from operator import itemgetter
from struct import error as StructError

from ..binding import REFUSALS
from .base import ANY, BOTH, TOO_LARGE, NativeEvent
from .beyond import EDGE, LEVEL, ONESHOT, Interest, lack, watched
from .epoll_buffer import CHUNK, LOOPS, Buffer, Records
from .epoll_set import WAKE, EpollSet
from .errors import from_outside, of_handler, take
from .process import Deadline, clock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .native import Pair

__all__ = ["EpollSelector"]

_FD_MASK = 0xFFFF_FFFF  # the part of a token that is the descriptor


class EpollSelector(EpollSet):
    """Epoll-based selector."""

    def _watch(self, fd: int, events: int, was: int) -> None:
        facts, token = self._facts, fd
        if self._tokens:
            if self._beyond:
                self._watch_beyond(fd, events, was)
                return
            token = self._tokens.get(fd, fd)
        if was:
            self._pairs.pop(token, None)
            if self._duplex:
                self._duplex.pop(fd, None)
                if self._records is not None:
                    self._forget_records(token)
            if not events:
                epoll_ctl = facts.epoll_ctl
                if epoll_ctl(self._descriptor.fd, facts.DEL, fd, facts.NULL) or (
                    self._made and (self._several or not self._idle) and self._in_call()
                ):
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
        except StructError as error:
            raise error if from_outside(error) else OverflowError(TOO_LARGE) from None
        # A plain call is faster than a step, which tells why it was refused. The kernel is asked again
        # for that. What stands in its place, to decide or to show, is asked once.
        epoll_ctl = facts.epoll_ctl
        if not facts.opened or epoll_ctl(self._descriptor.fd, operation, fd, event):
            errno = self._step(operation, fd, event)
            if errno:
                self._reconcile(fd, events, errno)

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
        except IndexError as error:  # another thread took the last one
            if of_handler(error):
                raise
            buffer = None
        if buffer is None:
            buffer = self._new_buffer()
        try:
            if timeout is None:
                steps = buffer.forever or buffer.bind_forever()
            elif timeout <= 0:
                steps = buffer.now or buffer.bind_now()
            else:
                steps = buffer.until(timeout)
                if buffer.cut:
                    return self._wait_on(buffer, -EINTR, float(timeout))
            for n in steps:
                break
            else:  # of a large buffer: see whether it must be as large
                return self._wait_on(buffer.resized(CHUNK), -EINTR, timeout)
            if n == 1 and not self._duplex:
                token = buffer.token[0]
                pair = self._pairs.get(token)
                if pair is not None:
                    return [pair]
                # The first event of a registration, as ``_decode`` decodes it, and faster.
                key = self._fd_to_key.get(token)
                if key is not None and not self._tokens and not self._several:
                    pair = key, self._facts.directions[buffer.flags[0]] & key[2]
                    if pair[1]:
                        self._pairs[token] = pair
                        if self._fd_to_key.get(token) is key:
                            return [pair]
                        self._pairs.pop(token, None)
            elif n == 0:
                return []
            elif n < 0:
                n = -self._facts.errno(n)
            elif n <= buffer.batch and not self._duplex:
                try:
                    return [*itemgetter(*buffer.tokens[n](buffer.view))(self._pairs)]
                except KeyError as error:
                    if of_handler(error):
                        raise
            elif buffer.batch and (found := self._look_up(buffer, n)) is not None:
                return found
            return self._wait_on(buffer, n, timeout)
        except BaseException:
            buffer.bind()  # a call that has failed is spent, see ``Binding.calls``
            if self._beyond:
                self._arm_again()
            raise
        finally:
            idle.append(buffer)
            if self._descriptor.closing:
                self._end_call(buffer)

    def _look_up(self, buffer: Buffer, n: int) -> list[Pair] | None:
        """Return the results of ``n`` events; None if a table lacks one, or more may be ready."""
        if n == buffer.capacity:
            return None
        if not self._duplex:
            return buffer.look_up(self._pairs, n, False)
        if not LOOPS:
            records = self._records
            return None if records is None else buffer.look_up(records.pairs, n, True)
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
        idle = self._idle
        buffer = take(idle) or self._new_buffer()
        try:
            buffer.began = clock()
            self._wait_on(buffer, -EINTR, timeout, native)
            return native
        except BaseException:
            if self._beyond:
                self._arm_again()
            raise
        finally:
            buffer.bind()
            idle.append(buffer)
            if self._descriptor.closing:
                self._end_call(buffer)

    def _watches_itself(self, fd: int) -> bool:
        return fd == WAKE

    # Everything below is cold.

    def _take_more(
        self, buffer: Buffer, n: int, found: list[Pair] | None, fired: list[Interest]
    ) -> list[Pair] | None:
        """Add to ``found`` what a full buffer had no room for."""
        taken = {key.fd: (key, events) for key, events in found or ()}
        while n == buffer.capacity and not self._descriptor.closing:
            n = buffer.resized(max(4 * n, CHUNK)).step(0)
            more = self._decode(buffer, n, None, fired) if n > 0 else None
            found = more if found is None else found
            # The kernel says once more what stays ready, but not an edge or a ``ONESHOT``.
            for key, events in more or ():
                before, earlier = taken.get(key.fd, (key, 0))
                taken[key.fd] = key, events | earlier if before is key else events
        buffer.bind()  # the last call may have failed
        return None if found is None else [*taken.values()]

    def _arm_again(self) -> None:
        """Have the kernel report again what it has told a call that an exception ended."""
        for fd, key in {**self._fd_to_key}.items():
            if watched(key.events) and getattr(key.events, "trigger", LEVEL) is not LEVEL:
                try:
                    self._watch(fd, key.events, key.events)
                except (OSError, ValueError) as error:
                    if from_outside(error):
                        raise  # else the descriptor is closed, or the selector
                self._settle(fd, key)

    def _forget_records(self, token: int) -> None:
        records = self._records
        if records is not None:
            records.forget(token)
            if not self._duplex:  # from now on a change need not forget them
                self._records = None

    def _lacks(self, interest: Interest) -> str:
        if interest.exclusive and (interest > BOTH or interest.trigger is ONESHOT):
            return (
                "cannot watch exclusively for EVENT_PRIORITY or EVENT_HANGUP, nor with ONESHOT:"
                " EPOLLEXCLUSIVE excludes them, epoll_ctl(2)"
            )
        return lack(interest, self._facts.bits.events, (LEVEL, EDGE, ONESHOT), exclusive=True)

    def _go_beyond(self) -> None:
        super()._go_beyond()
        self._tokens[-1] = -1  # ``_watch`` looks for ``_beyond`` only if this table is not empty

    def _watch_beyond(self, fd: int, events: int, was: int) -> None:
        """Do what ``_watch`` does, once a key may hold an ``Interest``, see ``beyond``."""
        events, facts = watched(events), self._facts
        operation, token = facts.ADD, self._tokens.get(fd, fd)
        if was:
            busy = bool(self._made) and self._in_call()  # which may hold an event for the old interest
            self._forget(fd)
            self._duplex.pop(fd, None)
            operation = facts.MOD
            exclusive = any(isinstance(one, Interest) and one.exclusive for one in (events, was))
            if not events or exclusive or was == ANY:
                busy = self._step(facts.DEL, fd, facts.NULL) != 0 or busy
                operation = facts.ADD
            if busy:
                token = self._new_token(fd)
        if not events:
            return
        self._duplex[fd] = None
        try:
            event = facts.pack(facts.bits[events], token)
        except StructError as error:
            raise error if from_outside(error) else OverflowError(TOO_LARGE) from None
        errno = self._step(operation, fd, event)
        if errno:
            self._reconcile(fd, events, errno)

    def _wait_on(
        self, buffer: Buffer, n: int, timeout: float | None, native: list[NativeEvent] | None = None
    ) -> list[Pair]:
        """Deal with the ``n`` events of a call, and wait on while there is nothing to return.

        Args:
            n: what the call before returned, or -errno.
            timeout: as given to ``select``.
            native: takes every event as the kernel reported it, if given.
        """
        deadline: Deadline | None = None  # the first events need none
        timed = not (timeout is None or timeout <= 0)
        fired: list[Interest] = []
        try:
            while True:
                if n > 0:
                    found = self._decode(buffer, n, native, fired)
                    if n == buffer.capacity and native is None:
                        found = self._take_more(buffer, n, found, fired)
                    if native or found is not None:
                        return found or []
                    n = -EINTR  # what was mended may be ready
                elif -n in REFUSALS and timed and buffer.timed is buffer.precise:
                    self._facts.precise = None  # an old kernel, or a sandbox: epoll_wait will do
                elif n < 0 and n != -EINTR and not self._descriptor.closing:
                    self._check_open()
                    raise self._binding.error(-n)
                deadline = deadline or Deadline(timeout, buffer.began)
                remaining = deadline.remaining(n == 0)
                if self._descriptor.closing or (remaining == 0 and deadline.over(n < 0)):
                    buffer.bind()  # the last call may have failed
                    return []
                timed = bool(remaining)
                n = buffer.step(remaining)
        except BaseException:
            for interest in fired:
                interest.arm()
            raise

    def _decode(
        self, buffer: Buffer, n: int, native: list[NativeEvent] | None, fired: list[Interest]
    ) -> list[Pair] | None:
        """Return what ``n`` events are to the caller; None: wait on. For ``fired`` see ``Interest``."""
        table: dict[Any, Pair] = self._pairs
        if self._duplex:
            records = self._records  # read once: a handler or another thread may drop them
            table = {} if records is None else records.pairs
        fields: list[Any] = []
        if native is None and buffer.prepare() and not (LOOPS and self._duplex):
            fields = buffer.fields(n, bool(self._duplex))
        result, unknown, go_on = [], [], not self._descriptor.closing
        registry, tokens, facts = self._fd_to_key, self._tokens, self._facts
        for i, (flags, token) in enumerate(buffer.events(n)):
            if fields and (pair := table.get(fields[i])) is not None:
                result.append(pair)
                continue
            fd = token & _FD_MASK
            if fd == WAKE:
                go_on = self._waits_on(buffer, token) and go_on
                continue
            key, ours = registry.get(fd), token == (tokens.get(fd, fd) if tokens else fd)
            if not (ours or self._may_be_of_the_caller(token)):
                key = None
            if native is not None:
                native.append(NativeEvent(key, fd, flags))
            if key is None:
                events = 0
            elif self._beyond:
                events = facts.bits.report(flags, key[2], fired)
            else:
                events = facts.directions[flags] & key[2]
            if key is not None and events:
                result.append((key, events))
                if fields and ours:
                    self._cache(token, fields[i], result[-1])
            elif go_on:
                unknown.append((fd, token if key is None else -1))
        if unknown:
            go_on = self._repair(buffer, unknown) and go_on
        return None if go_on and not result else result

    def _cache(self, token: int, field: Any, pair: Pair) -> None:
        """Keep a result for the next time that the kernel reports the same.

        Only while no other call is in flight: that one may hold an event for an older interest under
        the same token, and would be given this pair.
        """
        key = pair[0]
        if self._several and self._in_call(ours=1):
            return
        if self._beyond and getattr(key.events, "trigger", "") is ONESHOT:
            return
        if key.events < BOTH:
            self._pairs[token] = pair
        # A change writes the registry first and forgets then: one of the two sees the other. While no
        # key has both directions, a change forgets no record.
        if isinstance(field, bytes):
            records = self._records
            if records is None:
                records = self._records = Records()
            records.pairs[field] = pair
            records.of.setdefault(token, []).append(field)
            if not self._duplex or self._fd_to_key.get(key.fd) is not key:
                records.pairs.pop(field, None)
        if self._fd_to_key.get(key.fd) is not key:
            self._pairs.pop(token, None)
