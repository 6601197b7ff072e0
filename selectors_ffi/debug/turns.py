"""Turns: what the program does between two waits, and whether it keeps the loop from the next one.

A turn begins when ``select()`` returns and ends when it is called again. A thread of ours looks at the
clock forty times a second. Where a turn has taken too long it notes the stack of the loop's thread, so
that the lint and the record of the next wait can name the line. A short turn costs one assignment.

The same thread looks for closed descriptors while a loop sleeps; see ``Checks.sweep``.

The thread ends before a fork and begins again with the next wait. It is not one of ``threading``'s, so
that the program does not meet it in ``threading.enumerate()``. It changes no selector. So the backends
that open a pipe as soon as there is another thread, which may wake them, are not to count it.
"""

from __future__ import annotations

import _thread
import atexit
import os
import sys
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING
from weakref import ref

from ..backends import devpoll, table
from .lints import BlockedLoop, Finding
from .loops import loop_around, refers_to
from .owners import owner_of_handle
from .places import caller_frame, stack_of
from .presence import Samples
from .schedule import follow, keep, leave, times_of
from .stacks import EXACT, Stacks
from .threads import start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from .loops import Loop
    from .observer import Observer
    from .presence import Here

__all__ = ["BLOCKED_AFTER", "begins", "blocked", "blocked_after", "returned", "watch"]

BLOCKED_AFTER = "SELECTORS_FFI_BLOCKED_AFTER"
#: Seconds after which a turn is told of although it has not ended; then five times that, and so on.
HANGS = 2.0
#: The longest threshold, in seconds: a lock is not waited for any longer on every system.
LONGEST = 1_000_000
#: A wait that has taken so long, in nanoseconds, sleeps, and its descriptors can be looked at meanwhile.
ASLEEP = 200_000_000
#: asyncio's own functions between a loop and a callback.
_LOOPS = ("asyncio.base_events", "asyncio.events")
_END = "the loop could not wait for {:.3f} s"
#: Functions of the stack that a message names.
SHOWN = 6


class Threshold:
    """How long a turn may take, in nanoseconds; 0: for ever."""

    ns = 100_000_000


def blocked_after(seconds: float) -> None:
    """Set how long the program may keep a loop from its next wait before SEL010 warns.

    Args:
        seconds: 0 switches the lint off.

    Raises:
        ValueError: negative, not a number, or more than ``LONGEST``.
    """
    if not 0 <= seconds <= LONGEST:
        raise ValueError(f"blocked_after() takes seconds, 0 to {LONGEST:,}, not {seconds!r}")
    Threshold.ns = int(seconds * 1e9)


def _from_environment() -> None:
    text = os.environ.get(BLOCKED_AFTER)
    if text:
        try:
            blocked_after(float(text))
        except ValueError:
            raise ValueError(
                f"{BLOCKED_AFTER} must be seconds, 0 to {LONGEST:,}, not {text!r}"
            ) from None


def _interval() -> int:
    """Return how many nanoseconds lie between two looks."""
    return max(Threshold.ns, 20_000_000) // 4


def blocked(here: Here, turn: int) -> tuple[str, list[Finding]]:
    """Return the line that ran in a turn that has just ended, and what has not been told of it.

    If the turn was not long, they are empty.

    Args:
        here: the thread.
        turn: how long it took, in nanoseconds.
    """
    samples, here.samples = here.samples, None
    if samples is None or samples.turn != here.turn or turn < Threshold.ns or not samples.counts:
        return "", []
    found = _finding(samples, _END.format(turn / 1e9))
    # Without frames, a function that has left its loop looks as one that is in it.
    left = not EXACT and loop_around(caller_frame(sys._getframe())) != here.loop
    return str(found[0].place), [] if samples.spoken or left else found


def _finding(samples: Samples, what: str) -> list[Finding]:
    stack = samples.most()
    users = next((one for one in stack if one.users), stack[0])
    by = f" by {samples.owner}" if samples.owner else ""
    shown = [stack[0], *(one for one in stack[1:] if one.users)][:SHOWN]
    where = " < ".join(str(one) for one in shown)
    return [Finding(BlockedLoop, -1, f"{what}: it was kept{by} at {where}", users)]


def _others_but_ours() -> int:
    """Return how many threads there are beside the main one and ours."""
    return _thread._count() - 1


def _have_others_counted(count: Callable[[], int]) -> None:
    """Tell the backends how to count the threads that may wake them."""
    table.other_threads = devpoll.other_threads = count  # type: ignore[attr-defined] # not exported


class _Watchdog:
    """The thread, and the loops that it watches."""

    def __init__(self) -> None:
        self.running = False
        self.failed: Exception | None = None
        self._loops: dict[int, tuple[ref[Here], ref[Observer]]] = {}
        self._wake = _thread.allocate_lock()
        self._wake.acquire()
        self._ended = _thread.allocate_lock()
        self._native = 0
        self._times: tuple[int, ...] = (0, 0, 0)
        self._stacks = Stacks()

    def add(self, here: Here, observer: Observer) -> None:
        """Watch a thread of a selector, as long as both live."""
        number = id(here)
        gone = ref(here, lambda _: self._loops.pop(number, None) and None)
        self._loops[number] = gone, ref(observer)

    def drop(self, observer: Observer) -> None:
        """Watch a selector no more; without any, the thread ends when it next looks."""
        for number, (_, weak_observer) in {**self._loops}.items():
            if weak_observer() is observer:
                self._loops.pop(number, None)

    def start(self) -> None:
        """Start the thread."""
        if not self._ended.acquire(blocking=False):
            return  # another thread has started it
        self.running = True
        begun = _thread.allocate_lock()
        begun.acquire()
        try:
            start(self._run, begun.release)
        except RuntimeError:  # no more threads, or the interpreter ends
            self._ended.release()
            return
        # Until it runs it is not counted; after that it is, but no more by the backends. Meanwhile it
        # opens a file, and the program closes none.
        begun.acquire(timeout=1.0)

    def stop(self) -> None:
        """End the thread; wait until the kernel knows it no more, for a second at most."""
        if not self._ended.locked():
            return
        if self._wake.locked():  # else it was asked before, and is stuck
            self._wake.release()
        if not self._ended.acquire(timeout=1.0):  # pragma: no cover: it is stuck in a sink
            return
        self.running = False
        self._wake.acquire(blocking=False)  # a thread that has ended by itself has left it
        self._ended.release()
        # os.fork() warns of other threads, and counts those of the kernel.
        deadline = perf_counter_ns() + 100_000_000
        task = f"/proc/self/task/{self._native}"
        while os.path.exists(task) and perf_counter_ns() < deadline:
            pass

    def forget(self) -> None:
        """Begin anew in a forked child, which has no such thread."""
        self._stacks.close()
        self.__init__()  # type: ignore[misc] # every attribute is to be new
        keep(())
        _have_others_counted(_thread._count)

    def _run(self, begun: Callable[[], object]) -> None:
        self._native = _thread.get_native_id()
        self._stacks = stacks = Stacks()
        stacks.open()
        follow()
        self._times = times_of(self._native)
        _have_others_counted(_others_but_ours)
        begun()
        try:
            while self._goes_on() and not self._wake.acquire(timeout=_interval() / 1e9):
                try:
                    self._look()
                except Exception as error:  # it must not end the program's output in tracebacks
                    self.failed = error.with_traceback(None)  # its frames would keep the selector
        finally:
            native, self.running = self._native, False
            _have_others_counted(_thread._count)
            self._ended.release()
            leave(native)
            stacks.close()

    def _goes_on(self) -> bool:
        """Tell whether there is a loop to watch; without any, ``running`` is False."""
        if not self._loops:
            keep([self._native])
            self.running = False
            # A loop that has begun in the meantime has relied on this thread.
            self.running = bool(self._loops)
        return self.running

    def _watched(self) -> Iterator[tuple[Here, Observer]]:
        """Yield what is watched and still there."""
        for weak_here, weak_observer in {**self._loops}.values():
            here, observer = weak_here(), weak_observer()
            if here is not None and observer is not None and observer.open:
                yield here, observer

    def _look(self) -> None:
        now = perf_counter_ns()
        running: dict[int, FrameType] | None = None
        watched = []
        for here, observer in self._watched():
            watched.append(here)
            turn, wait = here.turn, here.wait
            if turn and Threshold.ns and now - turn > Threshold.ns // 4:
                if not EXACT and not self._waited_last(here, turn):
                    continue
                if running is None:
                    running = self._stacks.now()
                held = partial(self._held, here)
                _sample(here, observer, running.get(here.ident), turn, now, held)
            elif wait and now - wait > ASLEEP:
                self._sweep(here, observer, now)
        # For the next look. Not before: while a file is read, the loops run on.
        self._times = times_of(self._native)
        # Asked for anew: a loop may have begun meanwhile.
        keep({self._native, *(here.source.thread for here, _ in self._watched())})
        for here in watched:
            if not here.wait or here.wait != here.measured:
                here.measured, here.used = here.wait, times_of(here.source.thread)[0]

    def _sweep(self, here: Here, observer: Observer, now: int) -> None:
        """Look for closed descriptors while the loop sleeps; twice before it is told."""
        checks = observer.checks
        if checks is None or now < here.next_sweep:
            return
        wait, registry = here.wait, observer.registry
        suspects = checks.suspects(registry)
        again = suspects & here.suspects
        here.suspects = suspects
        done = perf_counter_ns()
        if not suspects or again:
            here.next_sweep = done + max(32 * (done - now), ASLEEP)
        if again and here.wait == wait != 0:
            frame = self._stacks.now().get(here.ident)
            observer.teller.tell_from_outside(here.source, frame, checks.confirmed(again, registry))

    def _waited_last(self, here: Here, turn: int) -> bool:
        """Tell whether no other selector has waited in the thread since a turn began.

        Without frames, all that run the same code look alike.
        """
        others = [one for one, _ in self._watched() if one.ident == here.ident]
        return all(max(one.turn, one.wait) <= turn for one in others)

    def _held(self, here: Here) -> int:
        """Return for how many nanoseconds until now a thread let no other one run Python code; else 0.

        C code that keeps the interpreter's lock (``re``, ``sum``) keeps this thread from looking. It is
        what the loop's thread has computed since the last look, but for this one's sleep and the first
        times that it waited for a processor. Other code hands the lock over within milliseconds.
        """
        times = times_of(self._native)
        if not any(times):
            return 0  # the program has closed the file
        _, lacked, slices = (now - then for now, then in zip(times, self._times))
        computed = times_of(here.source.thread)[0] - here.used if here.used else 0
        held = computed - _interval() - lacked * 4 // max(slices, 4)
        return held if held > max(Threshold.ns, 50_000_000) else 0


def _sample(
    here: Here,
    observer: Observer,
    frame: FrameType | None,
    turn: int,
    now: int,
    held: Callable[[], int],
) -> None:
    """Look at a thread whose turn takes long.

    One call out of the loop must take at least half of the threshold. A turn is also long when very many
    short callbacks are due, and none of those is to blame.

    Args:
        here: the thread.
        observer: of its selector.
        frame: where it is.
        turn: when its turn began.
        now: the time.
        held: returns for how long nothing could be seen, because the thread let no other one run.
    """
    samples = here.samples
    if samples is None or samples.turn != turn:
        samples = Samples(turn, int(HANGS * 1e9))
    frames = _above(frame, here.loop, observer.selector())
    if not frames or here.turn != turn:
        here.samples = None
        return
    here.samples = samples
    at = frames[-1].f_lasti if len(frames) == 1 else -1
    # Before a file is read: meanwhile the thread runs on.
    stack = stack_of(one for one in frames if one.f_globals.get("__name__") not in _LOOPS)
    stack, owner = stack or stack_of(frames), samples.owner or _callback_of(frame)
    if not stack:
        return  # only this package runs: a signal handler of ours that writes records, say
    delay = times_of(here.source.thread)[1]
    called = next((one for one in reversed(stack) if one.users), None)
    call = frames[-1] if EXACT else called
    if call != samples.call or at != samples.at:
        since = max(now - held(), turn)
        samples.call, samples.at, samples.since, samples.delay = call, at, since, delay
    if now - samples.since - (delay - samples.delay) < Threshold.ns // 2:
        return
    samples.add(stack)
    samples.owner = owner
    if not EXACT:
        return  # it may have left the loop: the next wait tells
    so_far = here.samples is samples  # else the turn has ended while files were read
    if now - turn > (samples.told if so_far else Threshold.ns) and observer.checks is not None:
        seconds = (now - turn) / 1e9
        what = f"no wait for {seconds:.1f} s so far" if so_far else _END.format(seconds)
        found = _finding(samples, what)
        new, samples.told = observer.teller.new_places(found), samples.told * 5
        if new or samples.spoken:  # the same function is told of once, but of one turn more than once
            samples.spoken = True
            observer.teller.tell_from_outside(here.source, frame, found)


def _above(frame: FrameType | None, loop: Loop | None, selector: object) -> list[FrameType]:
    """Return the frames of the call that the loop makes, innermost first; its own if it makes none.

    Empty if the program has left the loop.
    """
    frames: list[FrameType] = []
    while frame is not None:
        if loop is not None and _is_in(frame, loop, selector):
            break
        if frame.f_globals.get("__name__") == "bdb":  # a person looks at the program
            return []
        frames.append(frame)
        frame = frame.f_back
    if frame is None:
        return []
    while frames and frames[-1].f_globals.get("__name__") == "asyncio.base_events":
        frames.pop()  # _run_once, in which many calls are made
    return frames or [frame]


def _is_in(frame: FrameType, loop: Loop, selector: object) -> bool:
    """Tell whether a frame is in a selector's loop; of a ``Call``, whether it is of the same code."""
    if EXACT:
        return loop.runs(frame) and refers_to(frame, selector)
    code = loop.code
    return frame.f_code == (code.co_filename, code.co_firstlineno, code.co_name)


def _callback_of(frame: FrameType | None) -> str:
    """Return the owner of the handle that asyncio runs; "" if it is not asyncio's."""
    while frame is not None:
        if frame.f_code.co_name == "_run" and frame.f_globals.get("__name__") == "asyncio.events":
            return owner_of_handle(frame.f_locals.get("self"))
        frame = frame.f_back
    return ""


_watchdog = _Watchdog()
watch, unwatch = _watchdog.add, _watchdog.drop


def begins() -> None:
    """Take note that a wait begins. It may be the only one, and not end."""
    if not _watchdog.running:
        _watchdog.start()


def returned(here: Here, frame: FrameType | None, now: int) -> None:
    """Take note that a wait has ended, which was called from ``frame``."""
    at = None if frame is None else (frame.f_code, frame.f_lasti)
    here.wait = 0
    here.turn = now
    if at != here.at or not _watchdog.running:
        begin = perf_counter_ns()
        if at != here.at:
            here.at, here.loop = at, loop_around(frame)
        follow()
        if not here.used:  # C code may keep the lock before the watchdog has looked once
            here.used = times_of(here.source.thread)[0]
        if not _watchdog.running:
            _watchdog.start()
        here.spent.ns += perf_counter_ns() - begin


_from_environment()
atexit.register(_watchdog.stop)
if hasattr(os, "register_at_fork"):  # pragma: no branch: Windows
    os.register_at_fork(before=_watchdog.stop, after_in_child=_watchdog.forget)
