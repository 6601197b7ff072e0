"""The observer: what one traced selector knows of itself, and whom it tells.

Nothing here raises into the selector, except a lint that the user's warning filters turn into an
exception. ``ffi.errno`` is the tap's business.
"""

from __future__ import annotations

import sys
from errno import ENOENT
from itertools import count
from selectors import EVENT_READ, SelectorKey
from threading import local
from typing import TYPE_CHECKING, Any
from weakref import ref

from ..backends import process
from ..backends.beyond import watched
from . import turns
from .addresses import address_of
from .checks import Checks
from .counts import Stats
from .flags import Debug
from .heard import count_of, given_of, natives_of, portable, ready_of, seconds_of
from .known import Known
from .lints import REPLACED, mended
from .naming import interest, kind_of, shown
from .places import place
from .presence import Begun, Here
from .raw import ends_of
from .records import Event, Marks, Record, Registration, Syscall, Wait, now, spent
from .sinks import Emitter, Sink, emitter_of
from .telling import Teller

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..binding import Binding
    from .decode import Form, Native
    from .heard import Heard
    from .lints import Finding

__all__ = ["WAKE_UP", "Here", "Observer"]

#: Why an event is not handed on that ends the wait of another thread, or this one's for a change.
WAKE_UP = "the selector's own, to be woken up by"
#: Why an event is not handed on that its descriptor's registration did not ask for.
UNREGISTERED = "not registered"
FORMER = "of an earlier registration of this number"

_serials = count(1)
_make: Callable[[type[Event], tuple[Any, ...]], Event] = tuple.__new__  # what Event(...) calls


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
        self.emit: Emitter = emitter_of(sink)
        self.stats: Stats | None = Stats() if Debug.STATS in flags else None
        self.known: dict[int, Known] = {}
        shared = hasattr(type(selector), "fileno")
        self.checks: Checks | None = Checks(self.known, shared=shared) if Debug.CHECKS in flags else None
        self._syscalls = Debug.SYSCALLS in flags
        self._events = Debug.EVENTS in flags
        self._decodes = bool(flags & (Debug.EVENTS | Debug.STATS))
        self._turns = self._decodes or self.checks is not None
        # Not the selector itself: a dropped one is to be freed at once, as it is without us.
        self.selector: ref[Any] = ref(selector)
        self._tokens: dict[int, int] = {}
        self._threads = local()
        self.open: bool = True
        self.stopped: bool = False
        self._one: list[None] = [None]
        self.teller: Teller = Teller(self.emit)
        self.reopening = False
        """A forked child makes a kernel object of its own."""
        self.below: Binding | None = None
        """The kernel interface that is tapped; None of a selector that has none, as the stdlib's."""

    @property
    def registry(self) -> dict[int, SelectorKey]:
        """The selector's registry; empty if the selector is gone."""
        return getattr(self.selector(), "_fd_to_key", {})

    def adopt(self, tokens: dict[int, int]) -> None:
        """Take over the registrations that a living selector has.

        Args:
            tokens: descriptor -> what the kernel was given with it.
        """
        self._tokens.update(tokens)
        for key in {**self.registry}.values():
            known = self.known.setdefault(int(key.fd), Known(key))
            if self.checks is not None:
                self.teller.pending += self.checks.registered(known)

    def stop(self) -> None:
        """Say nothing any more, also of a wait that is under way. Twice is once."""
        if self.stopped:
            return
        self.stopped, self.open, self._turns = True, False, False
        Marks.selectors -= 1
        self.emit = Emitter(_unseen)
        self.teller.stop(self.emit)
        turns.unwatch(self)

    def given_up(self) -> bool:
        """Tell one caller, of whatever thread, that it is to release the selector."""
        try:
            self._one.pop()
        except IndexError:  # another one does
            return False
        return True

    def here(self) -> Here:
        """Return what the calling thread does with this selector."""
        try:
            found: Here = self._threads.here
        except AttributeError:
            return self._arrive()
        return found if found.child == process.forks_as_child else self._arrive()

    def _arrive(self) -> Here:
        """Meet a thread, or this one again in a forked child."""
        found = self._threads.here = Here(self.name)
        if self._turns:
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
        elif form.replaces and not self.reopening:
            mended(REPLACED)
        if here.heard is not None and form.waits and result:
            # What is not a copy may be overwritten by the next call.
            kept = arguments if form.lazy else ready_of(form, arguments, result)
            here.heard.append((form, kept, result))

    def record(self, record: Syscall, here: Here) -> None:
        """Take note of one system call."""
        if self.stats is not None:
            self.stats(record)
        if not self._syscalls:
            return
        if self._events and here.heard is not None:
            here.held.append(record)  # it is written with what it brought: see ``_together``
        else:
            self.emit(record)

    def release(self, here: Here) -> None:
        """Show what is held back: another call begins in the same wait, and may sleep."""
        held, here.held = here.held, []
        self.emit.together(held)

    # Changes of the registry

    def used(self) -> None:
        """Check for use in a forked child."""
        if self.checks is not None:
            findings = self.checks.used()
            if findings:
                self.teller.tell(findings, self.here().source)

    def changed(self, action: str, key: SelectorKey, error: OSError | None = None) -> None:
        """Take note that ``register``, ``modify`` or ``unregister`` did or refused ``key``."""
        begin, here = now(), self.here()
        try:
            findings = self._changed(action, key, error, here)
            if findings:
                self.teller.tell(findings, here.source)
        finally:
            here.spent.ns += now() - begin

    def _changed(
        self, action: str, key: SelectorKey, error: OSError | None, here: Here
    ) -> list[Finding]:
        fd = int(key.fd)
        known = self.known.get(fd)
        if action == "register" or known is None or error is not None:
            known = Known.now(key, 3 if self.checks is not None else 1)
        elif action == "modify":
            known.changed(key)
        if self._events:
            self.emit(self._registration(action, known, error, here))
        if error is not None:
            return self._ended_by(error, fd, here)
        if action == "unregister":
            self._forget(fd)
            return []
        self.known[fd] = known
        if self.checks is None:
            return []
        if action == "modify":
            return self.checks.modified(known, unknown=here.errno == ENOENT)
        return self.checks.registered(known, fd in getattr(self.selector(), "_elsewhere", ()))

    def _forget(self, fd: int) -> None:
        self.known.pop(fd, None)
        if self.checks is not None:
            self.checks.forget(fd)

    def _ended_by(self, error: OSError, fd: int, here: Here) -> list[Finding]:
        """Check whether a change that was refused has ended the registration, as ``modify`` may."""
        known = self.known.get(fd)
        if known is None or fd in self.registry:
            return []
        self._forget(fd)
        if self._events:
            self.emit(self._registration("unregister", known, None, here))
        if self.checks is None or error.errno != ENOENT:
            return []
        return self.checks.modified(known, unknown=True)

    def _registration(
        self, action: str, known: Known, error: OSError | None, here: Here
    ) -> Registration:
        key, moment = known.key, now()
        peer = address_of(known.fd, key.fileobj) if action == "register" else ""
        where = known.place if action == "register" else str(place()[0])
        return Registration(
            moment, here.source, action, known.fd, known.kind, key.events, known.shown,
            "" if error is None else shown(error), peer, known.owner, where,
        )  # fmt: skip

    def refused(
        self, action: str, selector: Any, args: Any, kwargs: dict[str, Any], error: OSError
    ) -> None:
        """Take note that ``register(*args, **kwargs)``, or ``modify``, was refused by the kernel."""
        names = dict(zip(("fileobj", "events", "data"), args), **kwargs)
        try:
            fileobj = names["fileobj"]
            fd = selector._fileobj_lookup(fileobj)
            key = SelectorKey(fileobj, fd, int(names["events"]), names.get("data"))
        except (KeyError, TypeError, ValueError):  # a class of the caller's takes other arguments
            return
        self.changed(action, key, error)

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

    def begin(self) -> Begun:
        """Take note that a wait begins; return what ``end`` or ``failed`` wants back."""
        here, begin = self.here(), now()
        cost, last = here.spent, here.returned
        here.returned = None
        turn = -1 if last is None else begin - last[0] - (cost.ns - last[1])
        at, blocked = turns.blocked(here, turn) if here.samples is not None else ("", [])
        here.turn, here.wait = 0, begin
        if self._turns:
            turns.begins()
        changes = 0
        if self.checks is not None:
            try:
                findings = self.checks.used() + self.checks.before(self.registry)
                findings += self.teller.new_places(blocked)
                if findings or self.teller.pending:
                    self.teller.tell_all(findings, here.source)
            finally:
                cost.ns += now() - begin
            changes = self.checks.changes
        # A signal handler may use the same selector in the middle of a wait.
        outer, here.heard = here.heard, []
        return Begun(now(), cost.ns, turn, changes, at, outer)

    def end(self, begun: Begun, timeout: Any, result: Any) -> None:
        """Take note of what a wait returned."""
        end, here = now(), self.here()
        heard, here.heard = here.heard, begun.outer
        try:
            if self._decodes:
                self._told(self._wait(begun, end, timeout, count_of(result), here), result, heard, here)
            if self.checks is not None:
                findings = self._checked(self.checks, begun, end, timeout, result, heard)
                if findings:
                    self.teller.tell(findings, here.source)
        finally:
            self._done(here, end)

    def _done(self, here: Here, end: int) -> None:
        """Let the program's turn begin."""
        done = now()
        here.spent.ns += done - end
        here.returned = (done, here.spent.ns)
        if self._turns:
            # The frame that called select(), which called end() or failed().
            turns.returned(here, sys._getframe(2).f_back, done)

    def _wait(self, begun: Begun, end: int, timeout: Any, ready: int, here: Here) -> Wait:
        overhead = here.spent.ns - begun.spent
        duration = end - begun.time - overhead
        fields = begun.time, here.source, seconds_of(timeout), duration, ready, begun.turn, overhead
        return Wait(*fields, begun.at)

    def _told(self, wait: Wait, result: Any, heard: Heard | None, here: Here) -> None:
        """Show and count the events of a wait, and the wait."""
        given = given_of(result)
        natives = natives_of(heard) if self.below is not None else portable(given)
        ends = self._ends(natives, given) if self._events and natives else {}
        moment = now()
        self._together([*(self._event(one, given, ends, here, moment) for one in natives), wait], here)

    def _ends(self, natives: list[Native], given: dict[int, int]) -> dict[int, bool | None]:
        """Return whether the peers of readable sockets have stopped sending, see ``raw``."""
        fds = []
        for native in natives:
            known = self.known.get(native.fd)
            socket = known is not None and known.kind == "socket"
            if socket and not native.hangup and given.get(native.fd, 0) & EVENT_READ:
                fds.append(native.fd)
        return ends_of(fds, sockets=True) if fds else {}

    def _checked(
        self, checks: Checks, begun: Begun, end: int, timeout: Any, result: Any, heard: Any
    ) -> list[Finding]:
        """Return the findings of a wait that came to its ``end`` then."""
        findings: list[Finding] = []
        count = count_of(result)
        # Only what was not handed on may be stale, and only that has to be decoded.
        if heard and checks.changes == begun.changes and sum(one[2] for one in heard) != count:
            given = given_of(result)
            for native in natives_of(heard):
                if native.fd not in given and self._reason(native) in (UNREGISTERED, FORMER):
                    findings += checks.stale(native.fd, native.decoded, self.registry)
        clock = end - spent().ns  # what has been spent since is added when all is done
        try:
            return findings + checks.after(result if count else (), timeout, count, clock)
        except (AttributeError, TypeError, ValueError):  # a class of the caller's returns no keys
            return findings

    def failed(self, begun: Begun, timeout: Any, error: BaseException) -> None:
        """Take note that a wait raised; a flight recorder is dumped."""
        end, here = now(), self.here()
        here.heard = begun.outer
        if self._decodes:
            self._together([self._wait(begun, end, timeout, -1, here)], here)
        self.raised(error)
        self._done(here, end)

    def raised(self, error: BaseException) -> None:
        """Have a flight recorder write what it has kept."""
        dump = getattr(self.emit.sink, "dump", None)
        if callable(dump):
            self.emit.guard(lambda: dump(f"select() raised {shown(error)}"))

    def _together(self, records: list[Record], here: Here) -> None:
        """Count and show records that belong together, after the calls that brought them."""
        if self.stats is not None:
            self.stats.together(records)
        if self._events:
            held, here.held = here.held, []
            self.emit.together([*held, *records])

    def _event(
        self,
        native: Native,
        given: dict[int, int],
        ends: dict[int, bool | None],
        here: Here,
        moment: int,
    ) -> Event:
        fd, flags = native.fd, native.decoded
        events = given.get(fd, 0)
        dropped = "" if events else self._reason(native)
        known = self.known.get(fd)
        if known is None and fd in self.registry:  # registered by a method that is not ours
            known = self.known[fd] = Known(self.registry[fd])
        if known is None:
            if dropped is WAKE_UP:
                return Event(moment, here.source, -1, "wake-up", flags, 0, "", dropped)
            kind = kind_of(fd) if self._events else ""
            return Event(moment, here.source, fd, kind, flags, events, "", dropped)
        kind, fileobj, owner = known.reported(flags)
        fields = moment, here.source, fd, kind, flags, events, fileobj, dropped, owner, ends.get(fd)
        return _make(Event, fields)

    def _reason(self, native: Native) -> str:
        """Return why an event was not handed on."""
        key = self.registry.get(native.fd)
        if self._wakes(native.fd):
            return WAKE_UP
        if key is None:
            return UNREGISTERED
        if native.token is not None and self._tokens.get(native.fd) != native.token:
            return FORMER
        if not watched(key.events):
            return "its ONESHOT was reported"
        return f"only {interest(key.events)} was asked for"

    def _wakes(self, fd: int) -> bool:
        """Tell whether the selector watches a descriptor for itself."""
        selector = self.selector()
        return selector is not None and bool(selector._watches_itself(fd))


def _unseen(record: Record) -> None:
    """The sink of an observer that has stopped."""
