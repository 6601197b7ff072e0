"""What poll(2) and select(2) have in common: the kernel keeps nothing between two calls.

Each call is handed the whole interest, as a *table*: an array of poll, a bitmap of select. A call
takes a table from ``_idle``, brings it up to date, and puts it back. Several calls at the same time
have a table each. A selector that has never waited has none; the process keeps a few for the next.

A change is written into the registry, then noted: the descriptor is appended to ``_log``, and
``_latest`` becomes a new object. A table keeps the object that it has last seen, and how much of the
log. Before a call it looks up in the registry what was noted since. After a call it compares again: if
something was noted meanwhile, each result is checked against the registry. A log that has become long
is replaced; a table that followed the old one is filled anew. So is a table after an exception in the
middle of an update.

A call that may sleep is in ``_asleep`` while it sleeps, so that a change can interrupt it::

    the waiting thread                      another thread, or a signal handler
    1. add the table to _asleep             1. note the change
    2. arm the table                        2. for each table in _asleep: poke it, and ring its waker
    3. compare _latest; call the kernel

If 1 on the right comes before 3 on the left, the waiting thread sees the note. If it comes later, the
table is armed already. Then ``poke`` writes into memory that the kernel reads when the call begins, so
that the call returns at once; a signal handler that runs just before the call needs nothing else. The
*waker* ends a call that sleeps already. A table has one from the first wait in which Python knows of a
second thread.
"""

from __future__ import annotations

from _thread import _count as other_threads

from ..binding import INT_MAX
from . import process
from .base import ANY, CLOSED, TOO_LARGE, Backend, NativeEvent
from .beyond import LEVEL, ONESHOT, Interest, lack
from .errors import explain, is_open, of_handler, take
from .process import Deadline, clock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

    from ..binding import Binding
    from .native import Pair

__all__ = ["TableSelector"]

_POOL_SIZE = 4  # tables that the process keeps for selectors to come
_SHORT_LOG = 64  # changes
_FEW = 4  # keys that are put into another table faster than one of them is taken out of this one
_COMMON = 2**30 - 1  # a number up to here is one digit of CPython's, and compared fast


class TableSelector(Backend):
    """A selector whose interest is in tables of this process, not in the kernel."""

    #: Returns what depends on a binding alone; ``facts.table(facts)`` makes a table.
    _make_facts: ClassVar[Any]

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
        self._log: list[int] | None = None  # descriptors that have changed since the first wait
        self._limit = _SHORT_LOG
        self._idle: list[Any] = []  # tables that no call is using
        self._latest: object = self._idle  # another object after each change
        self._asleep: dict[Any, None] = {}  # tables in calls that may sleep

    def _watch(self, fd: int, events: int, was: int) -> None:
        if events and (self._closed or fd > _COMMON):
            self._refuse(fd)
        log = self._log
        if log is None:
            return  # the first wait reads the registry
        log.append(fd)
        self._latest = []
        if was and self._idle:
            self._drop_old_keys(fd)
        if self._asleep:
            self._interrupt_calls()
        if len(log) > self._limit:
            self._limit = len(self._fd_to_key) + _SHORT_LOG
            self._log = []

    def _forget(self, fd: int) -> None:
        self._watch(fd, 0, ANY)

    def select(self, timeout: float | None = None) -> list[Pair]:  # type: ignore[override]
        idle = self._idle
        try:
            table = idle.pop() if idle else None
        except IndexError as error:  # another thread took the last one
            if of_handler(error):
                raise
            table = None
        if table is None:
            table = self._new_table()
        try:
            if timeout is None or not timeout <= 0:
                return self._wait(table, timeout)
            if table.latest is not self._latest:
                self._update(table)
            if table.interest is not None:
                table.answer[:] = table.interest
            for n in table.now or table.bind_now():
                break
            if n == 0:
                return []
            if n < 0:
                n = -self._facts.errno(n)
            elif table.latest is self._latest:
                found: list[Pair] = table.ready(n)
                if found:
                    return found
            return self._wait(table, 0, None, n)
        except BaseException:
            table.unbind()
            raise
        finally:
            idle.append(table)

    def _native(self, timeout: float | None) -> list[NativeEvent]:
        native: list[NativeEvent] = []
        table = self._new_table()
        try:
            self._wait(table, timeout, native)
        finally:
            table.give_back()
        return native

    def _interrupt(self) -> None:
        self._watch(-1, 0, 0)

    def _watches_itself(self, fd: int) -> bool:
        wakers = [table.waker for table in (*self._asleep, *self._idle)]
        return fd == INT_MAX or any(waker is not None and waker.reader == fd for waker in wakers)

    def _rebind(self, binding: Binding) -> dict[int, int]:
        self._facts = binding.facts(self._make_facts)
        self._idle = []  # a call in flight puts its table back into the old list
        return super()._rebind(binding)

    def _release(self) -> None:
        self._return_tables()
        self._idle = []  # a call in flight puts its table into the old list
        self._latest = []
        if self._asleep:
            self._interrupt_calls()  # such a call gives back by itself

    def _return_tables(self) -> None:
        """Give the tables that no call is using to the process."""
        idle, pool = self._idle, self._facts.pool
        while idle and (table := take(idle)) is not None:
            if table.waker is not None:
                table.give_back()
            if len(pool) < _POOL_SIZE:
                table.empty()
                pool.append(table)

    # Everything below is cold.

    def _lacks(self, interest: Interest) -> str:
        return lack(interest, self._facts.events, (LEVEL, ONESHOT))

    def _disarm(self, fd: int, table: Any) -> None:
        """Stop watching ``fd``: in the tables of other calls now, in this one with its next call."""
        asleep = table in self._asleep
        self._asleep.pop(table, None)  # it has returned, so it need not be interrupted
        self._watch(fd, 0, ANY)
        if asleep:
            self._asleep[table] = None

    def _refuse(self, fd: int) -> None:
        if self._closed:
            raise ValueError(CLOSED)
        if fd > INT_MAX:
            raise OverflowError(TOO_LARGE)

    def _new_table(self) -> Any:
        if self._closed:
            raise ValueError(CLOSED)
        if self._log is None:
            self._log = []  # before the registry is read
        return take(self._facts.pool) or self._facts.table(self._facts)

    def _drop_old_keys(self, fd: int) -> None:
        """Have no older key of ``fd`` in the tables that no call is using."""
        idle, registry = self._idle, self._fd_to_key
        if len(registry) <= _FEW:
            self._return_tables()
            return
        for _ in range(len(idle)):
            try:
                table = idle.pop(0)
            except IndexError as error:
                if of_handler(error):
                    raise
                return  # another thread was faster
            followed, table.log, table.latest = table.log, None, None
            try:
                if followed is None:
                    table.empty()
                elif (key := registry.get(fd)) is None:
                    table.drop(fd)
                else:
                    table.put(key)
                table.log = followed  # last: after an exception it is filled anew
            finally:
                idle.append(table)

    def _interrupt_calls(self) -> None:
        """Make the calls return that sleep, or are about to."""
        for table in list(self._asleep):
            table.poke()
            waker = table.waker
            if waker is not None and not waker.ring() and waker.child != process.forks_as_child:
                # A call of a thread that stayed in the parent process; or, in a signal handler, of
                # this thread, which ``poke`` has reached.
                self._asleep.pop(table, None)

    def _update(self, table: Any) -> bool:
        """Bring a table up to date; tell whether the wait is to end, after a look at what is ready."""
        # Before the registry is read: what is noted from now on comes next.
        latest, log = self._latest, self._log
        end = len(log)  # type: ignore[arg-type] # there is a log since there is a table
        registry, followed, table.log = self._fd_to_key, table.log, None
        if followed is log:
            for fd in log[table.seen : end]:
                key = registry.get(fd)
                if key is None:
                    table.drop(fd)
                else:
                    table.put(key)
        else:
            table.fill(list(registry.values()), self._beyond)
        table.bind()
        table.seen = end
        table.log, table.latest = log, latest  # last: after an exception it is filled anew
        if self._woken:  # written only then: another thread may be setting it
            self._woken = False
            return True
        return self._closed

    def _wait(
        self, table: Any, timeout: float | None, native: list[NativeEvent] | None = None, n: int = 0
    ) -> list[Pair]:
        """Wait until there is something to return.

        Args:
            native: takes every event, if given.
            n: what a call has returned already, if one was made.
        """
        fired: list[Interest] = []
        start, deadline, ended = clock(), None, False
        remaining = timeout if timeout is None else 0 if timeout <= 0 else float(timeout)
        asleep = self._asleep
        asleep[table] = None  # from now on a change interrupts the call
        try:
            if n:
                result, again = self._take(table, n, 0, native, fired)
                if result or not again:
                    return result
            while not self._closed:
                if table.latest is not self._latest:
                    ended = self._update(table) or ended
                if table.waker is None:
                    if other_threads():
                        table.lend()
                elif table.waker.child != process.forks_as_child:
                    table.lose()
                steps = table.arm(0 if ended else remaining)
                if table.latest is not self._latest:
                    continue
                if table.interest is not None:
                    table.answer[:] = table.interest
                for n in steps:
                    break
                if n < 0:
                    n = -self._facts.errno(n)
                elif n > 0 and table.latest is self._latest and native is None:
                    found: list[Pair] = table.ready(n)
                    if found:
                        return found
                result, again = self._take(table, n, 0 if ended else remaining, native, fired)
                if deadline is None:
                    deadline = Deadline(remaining, start)
                remaining = deadline.remaining(n == 0)
                done = result or native or ended or self._closed
                if done or (remaining == 0 and deadline.over(again)):
                    self._woken = False  # a wake-up that came meanwhile is this wait's, too
                    return result
            return []
        except BaseException:
            self._arm_again(fired)
            raise
        finally:
            asleep.pop(table, None)
            if self._closed:
                table.give_back()

    def _take(
        self,
        table: Any,
        n: int,
        timeout: float | None,
        native: list[NativeEvent] | None,
        fired: list[Interest],
    ) -> tuple[list[Pair], bool]:
        """Deal with ``n`` entries of a call that has waited ``timeout``, or -errno if it failed.

        Returns:
            The results that the registry confirms; whether there were others, or it failed.
        """
        if n < 0:
            self._recover(table, -n, timeout)
            return [], True
        if n == 0:
            return [], False
        if table.woken():
            table.drain()
        registry, result, again = self._fd_to_key, [], False
        for key, flags, events in table.found():
            fd = key[1]
            current = registry.get(fd) is key
            if native is not None:
                native.append(NativeEvent(key if current else None, fd, flags))
            if current and events and self._beyond and type(key[2]) is Interest:
                current = key[2].fire(fired)
                if key[2].trigger is ONESHOT:
                    self._disarm(fd, table)
            if current and events:
                result.append((key, events))
            again = again or not current
        return result, again

    def _arm_again(self, fired: list[Interest]) -> None:
        """Watch again what was decoded for a call that an exception has ended."""
        for interest in fired:
            interest.arm()
            for fd, key in {**self._fd_to_key}.items():
                if key.events is interest:
                    self._watch(fd, interest, ANY)

    def _recover(self, table: Any, errno: int, timeout: float | None) -> None:
        """Prepare for another call after one has failed, or raise."""
        refused = table.refused(errno, timeout)
        table.unbind()
        if errno == table.interrupted or self._closed or refused:
            return
        changed = table.latest is not self._latest
        if errno == table.not_open and (table.drain() or changed):
            return  # it was the waker, or what another thread has unregistered, then closed
        error: OSError = self._facts.error(errno)
        if errno == table.not_open:
            for fd in [fd for fd in [*self._fd_to_key] if not is_open(fd)][:1]:
                explain(error, fd, self._mechanism)
        raise error
