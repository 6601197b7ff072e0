"""The observer: what one traced selector knows of itself, and whom it tells.

Nothing here raises into the selector, except a lint that the user's warning filters turn into an
exception. ``ffi.errno`` is the tap's business.
"""

from __future__ import annotations

import sys
import warnings
from itertools import count
from math import nan
from selectors import SelectorKey
from threading import local
from typing import TYPE_CHECKING, Any, Callable, NamedTuple
from weakref import ref

from .._abi.target import SYMBOLS
from .addresses import address_of
from .checks import Checks, Finding
from .flags import Debug
from .lints import action_on
from .naming import interest, kind_of, shown
from .owners import Owners
from .places import caller_frame, depth, place
from .records import Event, Lint, Marks, Record, Registration, Wait, here, now, spent
from .sinks import Emitter, LogSink, Sink, StandardError
from .stats import Stats

if TYPE_CHECKING:
    from ..binding import Binding
    from .decode import Native
    from .records import Source
    from .watch import Called

__all__ = ["Observer"]

_serials = count(1)


class _Begun(NamedTuple):
    """A wait that has begun."""

    time: int
    spent: int
    turn: int
    changes: int
    outer: Any
    """What the wait has heard that this one is in the middle of."""


class Observer:
    """Hears every call and every change of one selector.

    Args:
        selector: the selector; only its registry is read.
        flags: what to show.
        sink: where to.
    """

    def __init__(self, selector: Any, flags: Debug, sink: Sink) -> None:
        Marks.selectors += 1
        self.name = f"{type(selector).__name__}-{next(_serials)}"
        self.flags = flags
        self.emit = Emitter(sink)
        self.stats = Stats() if Debug.STATS in flags else None
        shared = hasattr(type(selector), "fileno")
        self.checks = Checks(shared=shared) if Debug.CHECKS in flags else None
        self.last: dict[int, str] = {}
        self.places: dict[int, str] = {}
        # Not the selector itself: a dropped one is to be freed at once, as it is without us.
        self._selector = ref(selector)
        self._tokens: dict[int, int] = {}
        self._waits = local()
        self._owners = Owners()

    @property
    def _registry(self) -> dict[int, SelectorKey]:
        return getattr(self._selector(), "_fd_to_key", {})

    # Calls

    def source(self) -> Source:
        """Return who is calling."""
        return here(self.name)

    def watch(self, binding: Binding, tapped: Callable[..., Binding]) -> Binding:
        """Return ``binding`` with a tap on it."""
        links = SYMBOLS.get(binding.target, {})
        names = {symbol: name for name, symbols in links.items() for symbol in symbols}
        decode = Debug.SYSCALLS in self.flags
        return tapped(binding, self.called, self.source, decode=decode, names=names)

    def called(self, called: Called) -> None:
        """Take note of one system call."""
        self._tokens.update(called.armed)
        natives: list[Native] | None = getattr(self._waits, "natives", None)
        if natives is not None:
            natives.extend(called.natives)
        if Debug.SYSCALLS in self.flags:
            self.emit(called.record)
        if self.stats is not None:
            self.stats(called.record)

    # Changes of the registry

    def changed(self, action: str, key: SelectorKey, error: str = "") -> None:
        """Take note that ``register``, ``modify`` or ``unregister`` did or refused ``key``."""
        begin = now()
        try:
            findings = self._changed(action, key, error)
            self.tell(findings)
        finally:
            spent.ns += now() - begin

    def _changed(self, action: str, key: SelectorKey, error: str) -> list[Finding]:
        fd = int(key.fd)
        if action == "modify":
            self._owners.modified(fd)
        if Debug.EVENTS in self.flags:
            self._show(action, key, error)
        if error:
            return []
        if action == "unregister":
            self.places.pop(fd, None)
            self.last.pop(fd, None)
            self._owners.forget(fd)
            if self.checks is not None:
                self.checks.unregistered(fd)
            return []
        self.places[fd] = str(place()[0])
        if self.checks is None:
            return []
        if action == "modify":
            return self.checks.modified(key)
        return self.checks.registered(key)

    def _show(self, action: str, key: SelectorKey, error: str) -> None:
        """Show a change of the registry."""
        moment, fd = now(), int(key.fd)
        peer = ""
        if action == "register":
            peer = address_of(fd, key.fileobj)
            owner = self._owners.registered(key, caller_frame(sys._getframe(1)))
        else:
            owner = self._owners.of(key)
        fields = (kind_of(fd), key.events, shown(key.fileobj), error, peer, owner, str(place()[0]))
        self.emit(Registration(moment, self.source(), action, fd, *fields))

    def refused(
        self, selector: Any, args: tuple[Any, ...], kwargs: dict[str, Any], error: OSError
    ) -> None:
        """Take note that ``register(*args, **kwargs)`` was refused by the kernel."""
        names = dict(zip(("fileobj", "events", "data"), args), **kwargs)
        try:
            fileobj = names["fileobj"]
            fd = selector._fileobj_lookup(fileobj)
            key = SelectorKey(fileobj, fd, int(names["events"]), names.get("data"))
        except (KeyError, TypeError, ValueError):  # a class of the caller's takes other arguments
            return
        self.changed("register", key, shown(error))

    def closed(self) -> None:
        """Take note that the selector was closed."""
        if Debug.EVENTS in self.flags:
            self.emit(Registration(now(), self.source(), "close", -1, "", 0, "", ""))

    # Waits

    def begin(self) -> _Begun:
        """Take note that a wait begins; return what ``end`` or ``failed`` wants back."""
        here, begin = self._waits, now()
        last, here.returned = getattr(here, "returned", None), None
        turn = -1 if last is None else begin - last[0] - (spent.ns - last[1])
        try:
            if self.checks is not None:
                self.tell(self.checks.used())
                self.tell(self.checks.before(self._registry))
        finally:
            spent.ns += now() - begin
        # A signal handler may use the same selector in the middle of a wait.
        outer = getattr(here, "natives", None)
        here.natives = []
        changes = self.checks.changes if self.checks is not None else 0
        return _Begun(now(), spent.ns, turn, changes, outer)

    def end(self, begun: _Begun, timeout: Any, result: Any) -> None:
        """Take note of what a wait returned."""
        end = now()
        overhead = spent.ns - begun.spent
        here = self._waits
        natives: list[Native] = here.natives
        here.natives = begun.outer
        duration = end - begun.time - overhead
        wait = Wait(
            begun.time, self.source(), _seconds(timeout), duration, _count(result), begun.turn, overhead
        )
        try:
            self.tell(self._ended(begun, wait, result, natives))
        finally:
            spent.ns += now() - end
            here.returned = (now(), spent.ns)

    def _ended(self, begun: _Begun, wait: Wait, result: Any, natives: list[Native]) -> list[Finding]:
        given = _given(result)
        for native in natives:
            self.last[native.fd] = native.decoded
        if Debug.EVENTS in self.flags or self.stats is not None:
            for native in natives:
                self._event(native, given)
            self._both(wait)
        if self.checks is None:
            return []
        findings = []
        if natives and self.checks.changes == begun.changes:
            for native in natives:
                if native.fd not in given:
                    findings += self._stale(native, self.checks)
        clock = now() - spent.ns
        return findings + self.checks.after(result if given else (), wait.timeout, wait.ready, clock)

    def _stale(self, native: Native, checks: Checks) -> list[Finding]:
        """Check an event that was not handed on."""
        registry = self._registry
        former = native.token is not None and self._tokens.get(native.fd) != native.token
        if native.fd == self._wake_up() or not (former or native.fd not in registry):
            return []
        return checks.stale(native.fd, native.decoded, registry)

    def failed(self, begun: _Begun, timeout: Any, error: BaseException) -> None:
        """Take note that a wait raised; a flight recorder is dumped."""
        end = now()
        overhead = spent.ns - begun.spent
        duration = end - begun.time - overhead
        self._waits.natives = begun.outer
        self._both(
            Wait(begun.time, self.source(), _seconds(timeout), duration, -1, begun.turn, overhead)
        )
        dump = getattr(self.emit.sink, "dump", None)
        if callable(dump):
            self.emit.guard(lambda: dump(f"select() raised {shown(error)}"))
        spent.ns += now() - end
        self._waits.returned = (now(), spent.ns)

    def _both(self, record: Record) -> None:
        if self.stats is not None:
            self.stats(record)
        if Debug.EVENTS in self.flags:
            self.emit(record)

    def _event(self, native: Native, given: dict[int, int]) -> None:
        events = given.get(native.fd, 0)
        key = self._registry.get(native.fd)
        dropped = ""
        if not events:
            dropped = self._reason(native, key)
        fd, fileobj, owner = native.fd, "", ""
        if key is not None:
            fileobj, owner = shown(key.fileobj), self._owners.of(key)
        fields = (fd, "", native.decoded, events, fileobj, dropped, owner)
        record = Event(now(), self.source(), *fields)
        if self.stats is not None:
            self.stats(record)
        if Debug.EVENTS in self.flags:
            self.emit(record._replace(kind=kind_of(fd)))

    def _reason(self, native: Native, key: SelectorKey | None) -> str:
        """Return why an event was not handed on."""
        if native.fd == self._wake_up():
            return "the selector's own, to be woken up by"
        if key is None:
            return "not registered"
        if native.token is not None and self._tokens.get(native.fd) != native.token:
            return "of an earlier registration of this number"
        return f"only {interest(key.events)} was asked for"

    def _wake_up(self) -> int:
        """Return the descriptor that the selector watches for itself, -1 if there is none."""
        return getattr(self._selector(), "_wake_read", -1)

    # Lints

    def used(self) -> None:
        """Check for use in a forked child."""
        if self.checks is not None:
            self.tell(self.checks.used())

    def tell(self, findings: list[Finding]) -> None:
        """Warn of each finding, where the user's code is."""
        for finding in findings:
            warning = finding.lint(finding.message)
            message = warning.text(finding.message)
            lint = Lint(now(), self.source(), warning.id, finding.fd, message, str(place()[0]))
            announce(self.emit, lint, warning, depth())


def _given(result: Any) -> dict[int, int]:
    """Return descriptor -> ``EVENT_*`` of what select() returned; {} for what is no list of keys."""
    try:
        return {int(key.fd): events for key, events in result}
    except Exception:  # a class of the caller's returns something else
        return {}


def _count(result: Any) -> int:
    try:
        return len(result)
    except Exception:
        return 0


def _seconds(timeout: Any) -> float | None:
    """Return a timeout of any kind of number as ``select()`` was given it; NaN for none at all."""
    try:
        return None if timeout is None else float(timeout)
    except Exception:
        return nan


def announce(
    emit: Emitter, lint: Lint, warning: Warning, stacklevel: int, source: object = None
) -> None:
    """Tell a lint once in each place: as a record to the sink, as a warning of Python's.

    Standard error shows Python's warnings already, and a logger is asked for instead of them.
    """
    frame = sys._getframe()
    for _ in range(stacklevel):
        frame = frame.f_back or frame
    action = action_on(warning, frame)
    if not isinstance(emit.sink, StandardError):
        emit(lint)
        if isinstance(emit.sink, LogSink) and action != "error":
            return
    elif action == "ignore" and isinstance(warning, ResourceWarning):
        emit(lint)  # Python ignores these by default, but here they were asked for
    warnings.warn(warning, stacklevel=stacklevel + 1, source=source)
