"""Checks: the state behind the lints, of one selector.

Every method returns findings; the observer warns of them. In a wait, work is done for what is ready or
was changed, never for all that is registered. The one question that concerns every registration, whether
its descriptor is still the same open file, is put to a few of them at a time: see ``_sweep``.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from itertools import count
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from . import lints
from .addresses import address_of
from .known import identity_of
from .lints import Finding
from .naming import HAVE_FSTAT, kind_of, mode_of
from .owners import queued_in
from .presence import other_threads
from .runs import EmptyWaits, Runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from selectors import SelectorKey

    from .known import Known

__all__ = ["Checks", "Finding"]

_NUMBER = re.compile(r"\d+")
#: Looking for closed descriptors takes this part of the program's time at most.
SHARE = 32
#: Nanoseconds of it that are allowed at once; and in the beginning, so that a short program is seen.
CREDIT = 2_000_000
#: Descriptors looked at between two looks at the clock.
CHUNK = 16
#: Nanoseconds that so many can take. What took longer was interrupted, and the credit is not to pay for
#: that: a short program on a loaded machine is looked at, too.
LONGEST = 200_000


class Checks:
    """Looks at registrations and events for common mistakes.

    Args:
        known: descriptor -> its registration; the observer keeps it.
        shared: there is an object of the kernel, which a forked child shares.
    """

    def __init__(self, known: dict[int, Known], *, shared: bool) -> None:
        self._known = known
        self._pid = os.getpid()
        self._shared = shared
        self._forked = False
        self._new: set[int] = set()
        self._nonblocking: set[int] = set()
        self._blockers: set[int] = set()
        self._stale: set[int] = set()
        self._crossed: set[int] = set()
        self._runs = Runs()
        self._empty = EmptyWaits()
        self._idle: set[tuple[str, ...]] = set()
        self._round: list[int] = []
        self._credit = CREDIT
        self._swept = perf_counter_ns()
        self._serials = count(1)
        self._changes = 0
        self._under_way: list[None] = []

    def used(self) -> list[Finding]:
        """Check that this is the process in which the selector was made."""
        if not self._shared or self._forked or os.getpid() == self._pid:
            return []
        self._forked = True
        message = f"a selector made in process {self._pid} is used in its child {os.getpid()}"
        return [Finding(lints.UsedAfterFork, -1, message)]

    def at_home(self) -> None:
        """Take note that the kernel's object is this process's own."""
        self._pid = os.getpid()
        self._forked = False

    # Changes of the registry

    @property
    def changes(self) -> int:
        """A number that differs from an earlier one if the registry may have changed in between.

        An event may cross an ``unregister`` in another thread: it is reported before the kernel forgets
        the descriptor, and looked up after the registry has forgotten it. So while a change is under
        way, no two numbers are equal.
        """
        return next(self._serials) if self._under_way else self._changes

    def change(self, make: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return ``make(*args, **kwargs)``, which changes the registry."""
        self._under_way.append(None)
        try:
            return make(*args, **kwargs)
        finally:
            self._changes = next(self._serials)
            self._under_way.pop()

    def registered(self, known: Known, beside: bool = False) -> list[Finding]:
        """Check what was registered; ``beside``: the caller has asked for files to be watched."""
        fd = known.fd
        self.forget(fd)
        self._new.add(fd)
        if known.identity is not None and not beside and stat.S_ISREG(mode_of(fd)):
            return self._once(known, lints.RegularFile, f"{known.about()} is a regular file")
        return []

    def modified(self, known: Known, *, unknown: bool = False) -> list[Finding]:
        """Check whether a registration that was changed is still of the same file.

        Args:
            known: the registration, with its key as it is now.
            unknown: the kernel did not know the descriptor, ENOENT.
        """
        self._runs.forget(known.fd)
        self._crossed.discard(known.fd)
        identity = identity_of(known.fd, known.key.fileobj)
        before = known.identity
        if not unknown and (None in (before, identity) or before == identity):
            return []
        findings = self._once(known, lints.DescriptorReused, _reused(known))
        known.identity = identity
        return findings

    def forget(self, fd: int) -> None:
        """Forget what belongs to an earlier registration of this number."""
        self._new.discard(fd)
        self._nonblocking.discard(fd)
        self._blockers.discard(fd)
        self._stale.discard(fd)
        self._crossed.discard(fd)
        self._runs.forget(fd)

    # Before a wait

    def before(self, registry: Mapping[int, SelectorKey]) -> list[Finding]:
        """Check new registrations, and some of the others, before a wait."""
        findings = self._blocking(registry) if self._new else []
        now = perf_counter_ns()
        credit = self._credit + (now - self._swept) // SHARE
        self._swept = now
        if credit < CREDIT // 100 and not self._round:
            self._credit = credit
            return findings
        self._credit = min(credit, CREDIT)
        return findings + self._sweep(registry) if self._credit > 0 else findings

    def _sweep(self, registry: Mapping[int, SelectorKey]) -> list[Finding]:
        """Look whether registered descriptors are still open and the same files.

        Only asking the kernel tells, and asking for all of them in each wait would make a loop with
        many registrations many times slower. So a wait asks as long as it has credit, which grows
        with the program's time, and the next wait goes on from there.
        """
        findings: list[Finding] = []
        if not self._round:
            self._round = list(self._known)
        begin = perf_counter_ns()
        while self._round and self._credit > 0:
            # Another thread, which waits too, may take some of them.
            some = self._round[-CHUNK:]
            del self._round[-CHUNK:]
            for fd in some:
                findings += self._look(fd, registry)
            now = perf_counter_ns()
            self._credit -= min(now - begin, LONGEST)
            begin = now
        return findings

    def suspects(self, registry: Mapping[int, SelectorKey]) -> set[int]:
        """Return the descriptors that are closed or another file; for a thread of our own."""
        found = set()
        for fd, known in {**self._known}.items():
            now = identity_of(fd, known.key.fileobj)
            if (now is None or now != known.identity) and registry.get(fd) is known.key:
                found.add(fd)
        return found

    def confirmed(self, suspects: Iterable[int], registry: Mapping[int, SelectorKey]) -> list[Finding]:
        """Return the findings of descriptors that were suspects twice."""
        return [finding for fd in suspects for finding in self._look(fd, registry)]

    def _look(self, fd: int, registry: Mapping[int, SelectorKey]) -> list[Finding]:
        known = self._known.get(fd)
        if known is None:
            return []
        key = known.key
        now = identity_of(fd, key.fileobj)
        # Another thread may just have unregistered and closed it, in this order.
        if (now is not None and now == known.identity) or registry.get(key.fd) is not key:
            return []
        if now is None:
            return self._once(known, lints.ClosedWhileRegistered, f"{known.about()} is closed")
        return self._once(known, lints.DescriptorReused, _reused(known))

    def _blocking(self, registry: Mapping[int, SelectorKey]) -> list[Finding]:
        """Check sockets at the first wait after they were registered.

        One that blocks is checked again when the first is there that does not.
        """
        new, self._new = self._new, set()
        for fd in list(new):  # another thread may be adding one
            known = self._known.get(fd)
            blocks = _blocks(known) if known is not None and stat.S_ISSOCK(mode_of(fd)) else None
            if blocks is not None:
                (self._blockers if blocks else self._nonblocking).add(fd)
        others = len(self._nonblocking)
        if not others:
            return []
        blockers, self._blockers = self._blockers, set()
        findings: list[Finding] = []
        for known in filter(None, map(self._known.get, list(blockers))):
            # Another thread may just have unregistered and closed it, in this order.
            if _blocks(known) and registry.get(known.fd) is known.key:
                message = f"{known.about()} blocks; {others} other sockets of this selector do not"
                findings += self._once(known, lints.BlockingDescriptor, message)
        return findings

    # After a wait

    def after(
        self, result: Iterable[tuple[SelectorKey, int]], timeout: float | None, ready: int, now: int
    ) -> list[Finding]:
        """Check what a wait returned.

        Args:
            result: what it returned.
            timeout: what the caller asked for.
            ready: how many keys it returned.
            now: nanoseconds, without the time that this package took.
        """
        findings: list[Finding] = []
        for key, lint, why in self._runs.after(result, now):
            known = self._known.get(int(key.fd))
            if known is not None:
                findings += self._once(known, lint, f"{known.about()} {why}")
        idle = self._empty.after(timeout, ready, now)
        if idle is not None:
            findings += self._never_sleeps(*idle)
        return findings

    def _never_sleeps(self, lint: type[lints.SelectorWarning], message: str) -> list[Finding]:
        """Return the finding with what asyncio has to run in every turn, once for each such thing.

        Tasks that wake each other by futures, as those of a queue do, get on without an event. So do
        those that make new tasks.
        """
        owners, where, gets_on = queued_in(sys._getframe(1))
        if gets_on:
            return []
        self._empty.told()
        kinds = tuple(_NUMBER.sub("", owner) for owner in owners)  # 'Task-1' and 'Task-2' are of one
        if kinds in self._idle:
            return []
        self._idle.add(kinds)
        if owners:
            message += f"; meanwhile asyncio runs {', '.join(owners)}"
        return [Finding(lint, -1, message, where)]

    def stale(self, fd: int, flags: str, registry: Mapping[int, SelectorKey]) -> list[Finding]:
        """Note an event of a descriptor that is not registered, or of a former file of its number."""
        if fd in self._stale:
            return []
        if other_threads() and fd not in self._crossed:
            # The changes of two threads may have crossed. The selector has settled that now: only what
            # is stale is reported again.
            self._crossed.add(fd)
            return []
        self._stale.add(fd)
        message = f"{flags} was reported for fd {fd}, which is not registered"
        if fd in registry:
            known = self._known.get(fd)
            about = known.about() if known is not None else f"fd {fd}"
            message = f"{flags} was reported for an earlier file with the number of {about}"
        return [Finding(lints.StaleRegistration, fd, message)]

    def _once(self, known: Known, lint: type[lints.SelectorWarning], message: str) -> list[Finding]:
        """Return the finding unless it was told of this registration."""
        if lint.id in known.told:
            return []
        known.told.add(lint.id)
        return [Finding(lint, known.fd, message)]


def _reused(known: Known) -> str:
    now = ", ".join(filter(None, (kind_of(known.fd), address_of(known.fd))))
    return f"{known.about(addressed=False)} is another file now, a {now}"


def _blocks(known: Known) -> bool | None:
    """Tell whether a registered socket blocks.

    None if that is not certain: it has a timeout, is closed, or its number names another file.
    """
    fd, fileobj = known.fd, known.key.fileobj
    timeout = _timeout(fileobj)
    if timeout or not HAVE_FSTAT:
        return None
    try:
        blocks = timeout is None and os.get_blocking(fd)
    except OSError:
        return None
    return blocks if identity_of(fd, fileobj) == known.identity else None


def _timeout(fileobj: Any) -> float | None:
    """Return a Python socket's timeout; None if it blocks or is no such object."""
    try:
        timeout = fileobj.gettimeout()
    except Exception:
        return None
    return timeout if isinstance(timeout, float) else None
