"""The observer: what one traced selector knows of itself, and whom it tells.

Nothing here raises into the selector, except a lint that the user's warning filters turn into an
exception. ``ffi.errno`` is the tap's business.
"""

from __future__ import annotations

import os
import sys
import warnings
from errno import ENOENT
from itertools import count
from math import nan
from selectors import EVENT_READ, SelectorKey
from threading import get_ident, local
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

from . import turns
from .addresses import address_of
from .checks import Checks
from .decode import Native
from .flags import Debug
from .known import Known
from .lints import Finding, SelectorWarning, action_on
from .naming import interest, kind_of, shown
from .places import NOWHERE, depth, place, stack_of, user_frame
from .raw import ends_of
from .records import (
    Event,
    Lint,
    Marks,
    Record,
    Registration,
    Source,
    Spent,
    Syscall,
    Wait,
    here,
    now,
    spent,
)
from .sinks import Emitter, LogSink, Sink, StandardError
from .stats import Stats

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, FrameType

    from ..binding import Binding
    from .decode import Form
    from .loops import Loop
    from .places import Place
    from .turns import Samples

__all__ = ["Here", "Observer"]

_serials = count(1)


class Here:
    """What one thread does with one selector."""

    __slots__ = (
        "__weakref__", "at", "errno", "heard", "ident", "loop", "next_sweep", "pid", "returned",
        "samples", "source", "spent", "suspects", "swept", "turn", "wait",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.pid: int = os.getpid()
        self.ident: int = get_ident()
        self.source: Source = here(name)
        self.spent: Spent = spent()
        self.heard: list[tuple[Form, Sequence[Any], int]] | None = None
        """In a wait: what its calls brought, undecoded."""
        self.returned: tuple[int, int] | None = None
        """When the last wait ended, and what was spent until then."""
        self.errno: int = 0
        """Of the last call that failed."""
        # Of turns.py, which looks at it from a thread of its own.
        self.turn: int = 0
        self.wait: int = 0  # when it began; 0 if the thread is not in one
        self.at: tuple[CodeType, int] | None = None  # what called select()
        self.loop: Loop | None = None  # around it
        self.samples: Samples | None = None
        self.swept: int = 0
        self.next_sweep: int = 0
        self.suspects: set[int] = set()


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
        self.name: str = f"{type(selector).__name__}-{next(_serials)}"
        self.flags = flags
        self.emit: Emitter = Emitter(sink)
        self.stats: Stats | None = Stats() if Debug.STATS in flags else None
        self.known: dict[int, Known] = {}
        shared = hasattr(type(selector), "fileno")
        self.checks: Checks | None = Checks(self.known, shared=shared) if Debug.CHECKS in flags else None
        self._events = Debug.EVENTS in flags
        self._decodes = bool(flags & (Debug.EVENTS | Debug.STATS))
        # Not the selector itself: a dropped one is to be freed at once, as it is without us.
        self._selector = ref(selector)
        self._tokens: dict[int, int] = {}
        self._threads = local()
        self.open: bool = True
        self._pending: list[Finding] = []
        self._blocked_at: set[object] = set()
        self.below: Binding | None = None
        """The kernel interface that is tapped; None of a selector that has none, as the stdlib's."""

    def selector(self) -> object:
        """Return the selector; None if it is gone."""
        return self._selector()

    def registry(self) -> dict[int, SelectorKey]:
        """Return the selector's registry; empty if the selector is gone."""
        return self._registry

    @property
    def _registry(self) -> dict[int, SelectorKey]:
        return getattr(self._selector(), "_fd_to_key", {})

    def adopt(self, tokens: dict[int, int]) -> None:
        """Take over the registrations that a living selector has.

        Args:
            tokens: descriptor -> what the kernel was given with it.
        """
        self._tokens.update(tokens)
        for key in self._registry.copy().values():
            known = self.known.setdefault(int(key.fd), Known(key))
            if self.checks is not None:
                self._pending += self.checks.registered(known)

    def stop(self) -> None:
        """Say nothing any more, also of a wait that is under way."""
        self.open = False
        Marks.selectors -= 1
        self.emit = Emitter(_unseen)
        turns.unwatch(self)

    def here(self) -> Here:
        """Return what the calling thread does with this selector."""
        try:
            found: Here = self._threads.here
        except AttributeError:
            return self._arrive()
        return found if found.pid == os.getpid() else self._arrive()

    def _arrive(self) -> Here:
        """Meet a thread, or this one again in a forked child."""
        found = self._threads.here = Here(self.name)
        if self.checks is not None:
            turns.watch(found, self)
        return found

    # Calls

    def heard(self, here: Here, form: Form, arguments: Sequence[Any], result: int) -> None:
        """Take note of what a successful call brought."""
        if form.arms:
            try:
                self._tokens.update(form.armed(arguments))
            except Exception:  # arguments that cannot be decoded
                pass
        if here.heard is not None and form.waits and result:
            # What is not a copy may be overwritten by the next call.
            kept = arguments if form.lazy else _ready(form, arguments, result)
            here.heard.append((form, kept, result))

    def record(self, record: Syscall) -> None:
        """Take note of one system call."""
        if Debug.SYSCALLS in self.flags:
            self.emit(record)
        if self.stats is not None:
            self.stats(record)

    # Changes of the registry

    def changed(self, action: str, key: SelectorKey, error: str = "") -> None:
        """Take note that ``register``, ``modify`` or ``unregister`` did or refused ``key``."""
        begin, here = now(), self.here()
        try:
            self.tell(self._changed(action, key, error, here))
        finally:
            here.spent.ns += now() - begin

    def _changed(self, action: str, key: SelectorKey, error: str, here: Here) -> list[Finding]:
        fd = int(key.fd)
        known = self.known.get(fd)
        if action == "register" or known is None:
            known = Known.now(key, 3 if self.checks is not None else 1)
        elif action == "modify":
            known.changed(key)
        if self._events:
            self.emit(self._registration(action, known, error, here))
        if error:
            return []
        if action == "unregister":
            self.known.pop(fd, None)
            if self.checks is not None:
                self.checks.forget(fd)
            return []
        self.known[fd] = known
        if self.checks is None:
            return []
        if action == "modify":
            return self.checks.modified(known, unknown=here.errno == ENOENT)
        return self.checks.registered(known)

    def _registration(self, action: str, known: Known, error: str, here: Here) -> Registration:
        key, moment = known.key, now()
        peer = address_of(known.fd, key.fileobj) if action == "register" else ""
        where = known.place if action == "register" else str(place()[0])
        return Registration(
            moment, here.source, action, known.fd, known.kind, key.events, known.shown, error,
            peer, known.owner, where,
        )  # fmt: skip

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

    def reopened(self) -> None:
        """Take note that the selector has a kernel object of this process's own."""
        if self.checks is not None:
            self.checks.at_home()

    def closed(self) -> None:
        """Take note that the selector was closed."""
        self.open = False
        if self._events:
            self.emit(Registration(now(), self.here().source, "close", -1, "", 0, "", ""))

    # Waits

    def begin(self) -> _Begun:
        """Take note that a wait begins; return what ``end`` or ``failed`` wants back."""
        here, begin = self.here(), now()
        cost, last = here.spent, here.returned
        here.returned = None
        turn = -1 if last is None else begin - last[0] - (cost.ns - last[1])
        changes = 0
        if self.checks is not None:
            try:
                findings = self.checks.used() + self.checks.before(self._registry)
                if here.samples is not None:
                    findings += self._new_places(turns.blocked(here, turn))
                here.turn, here.wait = 0, begin
                if findings or self._pending:
                    self._tell_all(findings)
            finally:
                cost.ns += now() - begin
            changes = self.checks.changes
        # A signal handler may use the same selector in the middle of a wait.
        outer, here.heard = here.heard, []
        return _Begun(now(), cost.ns, turn, changes, outer)

    def end(self, begun: _Begun, timeout: Any, result: Any) -> None:
        """Take note of what a wait returned."""
        end, here = now(), self.here()
        heard, here.heard = here.heard, begun.outer
        try:
            if self._decodes:
                self._told(self._wait(begun, end, timeout, _count(result), here), result, heard, here)
            if self.checks is not None:
                findings = self._checked(self.checks, begun, end, timeout, result, heard)
                if findings:
                    self.tell(findings)
        finally:
            self._done(here, end)

    def _done(self, here: Here, end: int) -> None:
        """Let the program's turn begin."""
        done = now()
        here.spent.ns += done - end
        here.returned = (done, here.spent.ns)
        if self.checks is not None:
            # The frame that called select(), which called end() or failed().
            turns.returned(here, sys._getframe(2).f_back, done)

    def _wait(self, begun: _Begun, end: int, timeout: Any, ready: int, here: Here) -> Wait:
        overhead = here.spent.ns - begun.spent
        duration = end - begun.time - overhead
        return Wait(begun.time, here.source, _seconds(timeout), duration, ready, begun.turn, overhead)

    def _told(self, wait: Wait, result: Any, heard: Any, here: Here) -> None:
        """Show and count the events of a wait, and the wait."""
        given = _given(result)
        natives = list(_natives(heard)) if self.below is not None else _portable(given)
        ends = self._ends(natives, given) if self._events else {}
        for native in natives:
            known = self.known.get(native.fd)
            if known is not None:
                known.last = native.decoded
            self._event(native, given, known, here, ends.get(native.fd))
        self._both(wait)

    def _ends(self, natives: list[Native], given: dict[int, int]) -> dict[int, bool | None]:
        """Return whether the peers of readable sockets have stopped sending, see ``raw``."""
        fds = []
        for native in natives:
            known = self.known.get(native.fd)
            socket = known is not None and known.kind == "socket"
            if socket and not native.hangup and given.get(native.fd, 0) & EVENT_READ:
                fds.append(native.fd)
        return ends_of(fds) if fds else {}

    def _checked(
        self, checks: Checks, begun: _Begun, end: int, timeout: Any, result: Any, heard: Any
    ) -> list[Finding]:
        """Return the findings of a wait that came to its ``end`` then."""
        findings: list[Finding] = []
        count = _count(result)
        # Only what was not handed on may be stale, and only that has to be decoded.
        if heard and checks.changes == begun.changes and sum(one[2] for one in heard) != count:
            given = _given(result)
            for native in _natives(heard):
                if native.fd not in given:
                    findings += self._stale(native, checks)
        clock = end - spent().ns  # what has been spent since is added when all is done
        try:
            return findings + checks.after(result if count else (), timeout, count, clock)
        except (AttributeError, TypeError, ValueError):  # a class of the caller's returns no keys
            return findings

    def _stale(self, native: Native, checks: Checks) -> list[Finding]:
        """Check an event that was not handed on."""
        registry = self._registry
        former = native.token is not None and self._tokens.get(native.fd) != native.token
        if self._wakes(native.fd) or not (former or native.fd not in registry):
            return []
        return checks.stale(native.fd, native.decoded, registry)

    def failed(self, begun: _Begun, timeout: Any, error: BaseException) -> None:
        """Take note that a wait raised; a flight recorder is dumped."""
        end, here = now(), self.here()
        here.heard = begun.outer
        if self._decodes:
            self._both(self._wait(begun, end, timeout, -1, here))
        dump = getattr(self.emit.sink, "dump", None)
        if callable(dump):
            self.emit.guard(lambda: dump(f"select() raised {shown(error)}"))
        self._done(here, end)

    def _both(self, record: Record) -> None:
        if self.stats is not None:
            self.stats(record)
        if self._events:
            self.emit(record)

    def _event(
        self,
        native: Native,
        given: dict[int, int],
        known: Known | None,
        here: Here,
        eof: bool | None,
    ) -> None:
        fd, events = native.fd, given.get(native.fd, 0)
        dropped = "" if events else self._reason(native)
        if known is None and fd in self._registry:  # of before these flags were switched on
            known = self.known[fd] = Known(self._registry[fd])
        kind, fileobj, owner = "", "", ""
        if known is not None:
            fileobj, owner = known.shown, known.owner
        if self._events:
            kind = known.kind if known is not None else kind_of(fd)
        record = Event(
            now(), here.source, fd, kind, native.decoded, events, fileobj, dropped, owner, eof
        )
        if self.stats is not None:
            self.stats(record)
        if self._events:
            self.emit(record)

    def _reason(self, native: Native) -> str:
        """Return why an event was not handed on."""
        key = self._registry.get(native.fd)
        if self._wakes(native.fd):
            return "the selector's own, to be woken up by"
        if key is None:
            return "not registered"
        if native.token is not None and self._tokens.get(native.fd) != native.token:
            return "of an earlier registration of this number"
        return f"only {interest(key.events)} was asked for"

    def _wakes(self, fd: int) -> bool:
        """Tell whether the selector watches a descriptor for itself."""
        selector = self._selector()
        return selector is not None and bool(selector._watches_itself(fd))

    # Lints

    def used(self) -> None:
        """Check for use in a forked child."""
        if self.checks is not None:
            self.tell(self.checks.used())

    def tell(self, findings: list[Finding]) -> None:
        """Warn of each finding, where the user's code is."""
        for finding in findings if self.open else ():
            warning = finding.lint(finding.message)
            where = finding.place or place()[0]
            lint = self._lint(finding, warning, self.here(), where)
            if finding.place is None:
                announce(self.emit, lint, warning, depth())
            else:
                announce_at(self.emit, lint, warning, finding.place)

    def _tell_all(self, findings: list[Finding]) -> None:
        """Warn of what was found in this thread, and of what is pending."""
        pending, self._pending = self._pending, []
        self.tell(pending + findings)

    def tell_from_outside(self, here: Here, frame: FrameType | None, findings: list[Finding]) -> None:
        """Warn of findings from a thread of our own, while the loop is busy or asleep.

        Args:
            here: the loop's thread.
            frame: where it is.
            findings: what was found.
        """
        users, _ = user_frame(frame)
        self._new_places(findings)
        for finding in findings:
            warning = finding.lint(finding.message)
            where = finding.place or (stack_of([users])[0] if users is not None else NOWHERE)
            lint = self._lint(finding, warning, here, where)
            try:
                announce_at(self.emit, lint, warning, where)
            except SelectorWarning:  # an error by the program's filters: it is the loop's to raise
                self._pending.append(finding)

    def _new_places(self, findings: list[Finding]) -> list[Finding]:
        """Return the findings of functions that were not told of yet."""
        new = []
        for finding in findings:
            where = finding.place and (finding.place.file, finding.place.function)
            if where not in self._blocked_at:
                self._blocked_at.add(where)
                new.append(finding)
        return new

    def _lint(self, finding: Finding, warning: SelectorWarning, here: Here, where: Place) -> Lint:
        message = warning.text(finding.message)
        return Lint(now(), here.source, warning.id, finding.fd, message, str(where))


def _ready(form: Form, arguments: Sequence[Any], result: int) -> list[Native]:
    """Return the events that a wait brought; what cannot be decoded must not break it."""
    try:
        return form.ready(arguments, result)
    except Exception:
        return []


def _natives(heard: list[tuple[Form, Any, int]] | None) -> list[Native]:
    """Return the events of a wait."""
    found: list[Native] = []
    for form, kept, result in heard or ():
        found += _ready(form, kept, result) if form.lazy else kept
    return found


def _portable(given: dict[int, int]) -> list[Native]:
    """Return events in the words of the interface, where the kernel's own cannot be heard."""
    return [
        Native(fd, events, 0, 0, "", None, interest(events).replace("EVENT_", ""), False)
        for fd, events in given.items()
    ]


def _unseen(record: Record) -> None:
    """The sink of an observer that has stopped."""


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
        if _is_told_by(emit.sink, action):
            return
    elif action == "ignore" and isinstance(warning, ResourceWarning):
        emit(lint)  # Python ignores these by default, but here they were asked for
    warnings.warn(warning, stacklevel=stacklevel + 1, source=source)


def _is_told_by(sink: Sink, action: str) -> bool:
    """Tell whether the record of a lint takes the place of the warning."""
    if getattr(sink, "quiet", False):
        return True  # of a command that looks at the process: the program is not to notice
    return isinstance(sink, LogSink) and action != "error"


def announce_at(emit: Emitter, lint: Lint, warning: Warning, where: Place) -> None:
    """Tell a lint as ``announce`` does, of a place that is not on this thread's stack."""
    action = action_on(warning, None)
    if not isinstance(emit.sink, StandardError):
        emit(lint)
        if _is_told_by(emit.sink, action):
            return
    warnings.warn_explicit(warning, type(warning), where.file, where.line)
