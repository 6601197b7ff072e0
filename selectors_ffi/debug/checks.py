"""Checks: the state behind the lints, of one selector.

Every method returns the findings; whoever calls it warns. ``changes`` counts changes of the
registry, so that an event that crossed an ``unregister`` in another thread is no ghost.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from . import lints
from .locking import Locked
from .naming import interest, kind_of, place, shown
from .records import now, spent
from .spinning import Spins

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from selectors import SelectorKey

    from .decode import Native

__all__ = ["Checks", "Finding"]


class Finding(NamedTuple):
    """A lint about to be told."""

    lint: type[lints.SelectorWarning]
    fd: int
    message: str


class _Seen(NamedTuple):
    """A registration as it was made."""

    key: SelectorKey
    identity: tuple[int, int] | None
    place: str


class Checks(Locked):
    """Looks at registrations and events for common mistakes."""

    def __init__(self, *, shared: bool) -> None:
        super().__init__()
        self._pid = os.getpid()
        self._shared = shared  # there is a kernel object, which a child shares
        self._forked = False
        self._seen: dict[int, _Seen] = {}
        self._new: set[int] = set()
        self._told: set[tuple[str, int]] = set()
        self.changes = 0
        self._spins = Spins()

    def used(self) -> list[Finding]:
        """Check that this is the process the selector was made in."""
        if not self._shared or self._forked or os.getpid() == self._pid:
            return []
        self._forked = True
        message = f"a selector made in process {self._pid} is used in its child {os.getpid()}"
        return [Finding(lints.UsedAfterFork, -1, message)]

    def registered(self, key: SelectorKey) -> list[Finding]:
        """Remember a registration; check what it is of."""
        fd = int(key.fd)
        with self._lock:
            self.changes += 1
            self._forget(fd)
            self._seen[fd] = _Seen(key, _identity(fd), place(3))
            self._new.add(fd)
        if kind_of(fd) == "regular file":
            message = f"fd {fd} is a regular file: {shown(key.fileobj)}"
            return [Finding(lints.RegularFile, fd, message)]
        return []

    def modified(self, key: SelectorKey) -> None:
        """Remember a change."""
        fd = int(key.fd)
        with self._lock:
            self.changes += 1
            self._spins.forget(fd)
            seen = self._seen.get(fd)
            if seen is not None and seen.key.fileobj is key.fileobj:
                self._seen[fd] = seen._replace(key=key)
            else:
                self._seen[fd] = _Seen(key, _identity(fd), place(3))

    def unregistered(self, fd: int) -> None:
        """Forget a registration."""
        with self._lock:
            self.changes += 1
            self._forget(fd)

    def _forget(self, fd: int) -> None:
        self._seen.pop(fd, None)
        self._new.discard(fd)
        self._spins.forget(fd)
        self._told = {told for told in self._told if told[1] != fd}

    def before(self, registry: Mapping[int, SelectorKey]) -> list[Finding]:
        """Check the registrations before a wait."""
        findings = []
        with self._lock:
            seen = list(self._seen.values())
        for one in seen:
            finding = self._stale(one)
            # Another thread may just have unregistered and closed it, in this order.
            if finding is not None and registry.get(one.key.fd) is one.key:
                findings += self._once(finding)
        findings += self._blocking(seen)
        with self._lock:
            self._spins.before()
        return findings

    def _stale(self, seen: _Seen) -> Finding | None:
        fd = int(seen.key.fd)
        now = _identity(fd)
        about = f"fd {fd} ({shown(seen.key.fileobj)}, registered at {seen.place})"
        if now is None:
            return Finding(lints.ClosedWhileRegistered, fd, f"{about} is closed")
        if now != seen.identity or _closed(seen.key.fileobj):
            kind = kind_of(fd)
            return Finding(lints.DescriptorReused, fd, f"{about} is another file now, a {kind}")
        return None

    def _blocking(self, seen: Iterable[_Seen]) -> list[Finding]:
        """Check sockets at the first wait after they were registered."""
        if not self._new:
            return []
        with self._lock:
            new, self._new = self._new, set()
        sockets = [one for one in seen if kind_of(int(one.key.fd)) == "socket"]
        others = sum(map(_nonblocking, sockets))
        findings = []
        for one in sockets:
            fd = int(one.key.fd)
            if others and fd in new and _blocks(one):
                message = (
                    f"fd {fd} ({shown(one.key.fileobj)}, registered at {one.place})"
                    f" blocks, {others} other sockets here do not"
                )
                findings += self._once(Finding(lints.BlockingDescriptor, fd, message))
        return findings

    def after(
        self,
        natives: Iterable[Native],
        given: Mapping[int, int],
        current: Mapping[int, int],
        registry: Mapping[int, SelectorKey],
        *,
        unchanged: bool,
    ) -> list[Finding]:
        """Check what a wait brought.

        Args:
            natives: the kernel's events.
            given: fd -> ``EVENT_*`` handed on.
            current: fd -> token of its registration.
            registry: fd -> key.
            unchanged: the registry is as it was when the wait began.
        """
        findings = []
        natives = list(natives)
        for native in natives:
            stale = native.token is not None and current.get(native.fd) != native.token
            if unchanged and native.fd not in given and (stale or native.fd not in registry):
                message = f"{native.decoded} reported for fd {native.fd}, which is not registered"
                if native.fd in registry:
                    message = f"{native.decoded} reported for an earlier file with fd {native.fd}"
                findings += self._once(Finding(lints.GhostRegistration, native.fd, message))
        with self._lock:
            spinning = self._spins.after(natives, given, (now() - spent.ns) / 1e9)
        for fd, lint, why in spinning:
            seen = self._seen.get(fd)
            if seen is not None:
                message = (
                    f"fd {fd} ({shown(seen.key.fileobj)}, registered for"
                    f" {interest(seen.key.events)} at {seen.place}) {why}"
                )
                findings += self._once(Finding(lint, fd, message))
        return findings

    def _once(self, finding: Finding) -> list[Finding]:
        """Return the finding unless it has been told of this registration."""
        told = (finding.lint.id, finding.fd)
        with self._lock:
            if told in self._told:
                return []
            self._told.add(told)
        return [finding]


def _identity(fd: int) -> tuple[int, int] | None:
    """Return (device, inode), which tells files apart; None if closed."""
    try:
        status = os.fstat(fd)
    except (OSError, OverflowError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _closed(fileobj: object) -> bool:
    """Tell whether a file object says of itself that it is closed."""
    if isinstance(fileobj, int):
        return False
    try:
        return int(fileobj.fileno()) < 0  # type: ignore[attr-defined]
    except ValueError:
        return True  # io objects: "I/O operation on closed file"
    except Exception:
        return False


def _nonblocking(seen: _Seen) -> bool:
    """Tell whether a socket is meant to be non-blocking: a timeout is not."""
    timeout = _timeout(seen.key.fileobj)
    if timeout is not None:
        return timeout == 0
    return not _blocks(seen)


def _blocks(seen: _Seen) -> bool:
    blocking = getattr(os, "get_blocking", None)
    try:
        return bool(blocking(int(seen.key.fd))) if blocking is not None else False
    except OSError:
        return False


def _timeout(fileobj: object) -> float | None:
    """Return a Python socket's timeout; None if it blocks or is no such object."""
    try:
        timeout = fileobj.gettimeout()  # type: ignore[attr-defined]
    except Exception:
        return None
    return timeout if isinstance(timeout, float) else None
