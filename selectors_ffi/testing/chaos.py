"""Chaos: answers that a kernel may give, in an order and at a time that a program hardly ever sees.

Each kind of answer stands on a sentence of a manual, or on its silence:

interrupted
    A wait that may sleep fails with EINTR. epoll_wait(2): "The call was interrupted by a signal
    handler before either any of the requested events occurred or the timeout expired"; the same
    in poll(2), select(2) and kqueue(2). Never more than three times in a row.
late
    A wait begins up to a millisecond late. epoll_wait(2), poll(2) and select(2): "kernel scheduling
    delays mean that the blocking interval may overrun by a small amount".
split
    A wait brings fewer events than are ready. epoll_wait(2): "successive epoll_wait() calls will
    round robin through the set of ready file descriptors"; kqueue(2), poll(4D) and port_get(3C)
    return as many as there is room for. Those four are given less room, so that the kernel itself
    splits. select(2) and poll(2) have no room to give.
withheld
    Something that is ready is left out, and comes with a later call. No manual says how soon after
    a write the other end is ready. At least one event stays in an answer. Nothing that the kernel would
    not report again is left out (EPOLLET, EPOLLONESHOT, EV_CLEAR, EV_ONESHOT, EV_DISPATCH, EV_ERROR, all
    events of a port, nor what poll(2) says of them).
permuted
    Events come in another order. epoll_wait(2), kqueue(2), poll(4D) and port_get(3C) name none. The
    answers of poll(2) and select(2) have no order; a selector gives them in an order of its own.
spurious (only when asked for)
    A socket is reported as readable and is not. select(2), BUGS: "select() may report a socket file
    descriptor as 'ready for reading', while nevertheless a subsequent read blocks"; poll(2) refers
    to it, and epoll(7) "performs a similar task". kqueue(2) and poll(4D) say nothing of the kind.

Each fourth answer at the latest is complete. So nothing is left out more than three times in a row,
whether it is withheld or split off.

The same seed and the same program take the same decisions: they come from a generator that is
advanced by calls, not by time. Each epoll, kqueue, /dev/poll or port has its own, numbered in the order
in which they are first used, whatever their descriptors are; poll and select have one each.
"""

from __future__ import annotations

import collections
import itertools
import random
from errno import EINTR
from typing import TYPE_CHECKING

from ..backends.process import sleep
from .answers import Answer, Ready, answer_of
from .blocks import Block
from .calls import WAITS, sleeps, waits
from .library import below, proxied
from .spurious import Registered, offers, readers

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ..binding import Binding
    from .library import Call

__all__ = ["Chaos", "chaos", "chaotic", "decided_by", "parse_seed"]

#: How often in a row an answer leaves something out, or a wait is interrupted, at most.
BOUND = 3
_LATEST = 0.001  # seconds
_MAKING = ("epoll_create1", "kqueuex", "kqueue1", "kqueue", "open", "port_create")
#: C functions that make a kernel object, or change what an epoll watches.
_NOTED = (*_MAKING, "epoll_ctl", "dup3")
_POLLS = ("poll", "ppoll")

# How likely each decision is.
_INTERRUPT = 1 / 16
_LATE = 1 / 32
_SPLIT = 1 / 4
_WITHHOLD, _WITHHOLD_EACH = 3 / 4, 1 / 2
_PERMUTE = 3 / 4
_SPURIOUS = 1 / 8


class _Stream:
    """What is decided for one kernel object."""

    def __init__(self, seed: int, number: int) -> None:
        # Only random() is used: it alone gives the same numbers on every Python.
        self.random = random.Random(f"{seed}/{number}").random
        self.interrupted = 0
        self.incomplete = 0  # answers in a row that have left something out, or may have
        self.registered = Registered()

    def chance(self, likely: float) -> bool:
        return self.random() < likely


class Chaos:
    """The hook of a ``Proxy`` that alters what waits answer; see the module.

    Args:
        seed: decides; see ``chaos``.
        spurious: whether to report readiness that is not there, too.

    ``counts`` says how often each kind of answer has been given.
    """

    def __init__(self, seed: int, spurious: bool = False) -> None:
        self.seed = seed
        self.spurious = spurious
        self.counts: collections.Counter[str] = collections.Counter()
        self._streams: dict[Hashable, _Stream] = {}
        self._numbers = itertools.count()
        self._earlier: dict[Hashable, Registered] = {}  # what streams before ``begin`` have noted
        self._ports = False  # whether poll(2) looks at what a port has handed out

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.seed}{', spurious=True' if self.spurious else ''})"

    def begin(self, seed: int) -> None:
        """Decide from here on as a new ``Chaos(seed)`` does; selectors that were made before stay."""
        streams, self._streams = self._streams, {}
        self._earlier.update({key: stream.registered for key, stream in streams.items()})
        self._numbers = itertools.count()
        self.seed = seed

    def __call__(self, call: Call) -> int:
        if call.name in _NOTED:
            return self._register(call)
        if not waits(call) or (call.name in _POLLS and self._ports):
            return call.run()
        stream = self._stream_of(call)
        if self._interrupts(stream, _may_be_interrupted(call)):
            self._note(call, "interrupted")
            return call.fail(EINTR)
        if stream.chance(_LATE):
            self._note(call, "late")
            sleep(_LATEST * stream.random())
        answer = answer_of(call)
        watched = readers(call) if self.spurious else []
        result, incomplete = self._run(call, answer, stream)
        if answer.count(result) > 1:
            result, withheld = self._alter(call, answer, stream, result)
            incomplete = incomplete or withheld
        incomplete = incomplete or answer.is_full(result)  # then the kernel may have had more
        stream.incomplete = stream.incomplete + 1 if incomplete else 0
        if result >= 0 and self.spurious and stream.chance(_SPURIOUS):
            result = self._invent(call, answer, stream, result, watched)
        return result

    def _stream_of(self, call: Call) -> _Stream:
        if call.name == "select":
            return self._stream("select")
        if call.name == "port_getn":
            self._ports = True
        return self._stream("poll" if call.name in _POLLS else int(call.arguments[0]))

    def _stream(self, key: Hashable) -> _Stream:
        stream = self._streams.get(key)
        if stream is None:
            made = _Stream(self.seed, next(self._numbers))
            made.registered = self._earlier.get(key, made.registered)
            stream = self._streams.setdefault(key, made)
        return stream

    def _note(self, call: Call, what: str) -> None:
        self.counts[what] += 1
        call.note = f"{call.note}, {what}" if call.note else f"CHAOS: {what}"

    @staticmethod
    def _interrupts(stream: _Stream, possible: bool) -> bool:
        drawn = stream.chance(_INTERRUPT)
        if drawn and possible and stream.interrupted < BOUND:
            stream.interrupted += 1
            return True
        stream.interrupted = 0
        return False

    def _run(self, call: Call, answer: Answer, stream: _Stream) -> tuple[int, bool]:
        """Make the call, with less room if it is to be split; return (result, whether it was)."""
        room = answer.room()
        if room < 2 or stream.incomplete >= BOUND or not stream.chance(_SPLIT):
            return call.run(), False
        limit = 1 + int(3 * stream.random())
        if limit >= room:
            return call.run(), False
        answer.limit(limit)
        try:
            result = call.run()
        finally:
            answer.limit(room)
        split = answer.count(result) == limit
        if split:
            self._note(call, "split")
        return result, split

    def _alter(self, call: Call, answer: Answer, stream: _Stream, result: int) -> tuple[int, bool]:
        """Withhold and permute; return (new result, whether something was withheld)."""
        ready = answer.read(result)
        kept = self._withhold(ready, stream)
        withheld = changed = len(kept) < len(ready)
        if withheld:
            self._note(call, "withheld")
        if answer.ordered and len(kept) > 1 and stream.chance(_PERMUTE):
            kept = _permuted(kept, stream)
            self._note(call, "permuted")
            changed = True
        return answer.write(kept) if changed else result, withheld

    @staticmethod
    def _withhold(ready: list[Ready], stream: _Stream) -> list[Ready]:
        """Return what is to stay."""
        kept, left = [], []
        withholding = stream.incomplete < BOUND and stream.chance(_WITHHOLD)
        for one in ready:
            level = one.level and one.identity not in stream.registered.once
            if withholding and stream.chance(_WITHHOLD_EACH) and level:
                left.append(one)
            else:
                kept.append(one)
        if not kept:
            kept.append(left.pop(int(len(left) * stream.random())))
        return kept

    def _register(self, call: Call) -> int:
        """Make a call that makes a kernel object or changes what an epoll watches, and note it."""
        result = call.run()
        if result < 0:
            return result
        if call.name in _MAKING:
            self._streams.pop(result, None)  # of a closed object that had this number
            self._earlier.pop(result, None)
        elif call.name == "dup3":
            old, new = (self._stream(int(fd)) for fd in call.arguments[:2])
            new.registered = old.registered.copy()
        else:
            self._stream(int(call.arguments[0])).registered.control(call, self.spurious)
        return result

    def _invent(
        self, call: Call, answer: Answer, stream: _Stream, result: int, watched: list[int]
    ) -> int:
        """Report one more socket as readable; return the new result."""
        ready = answer.read(result) if result else []
        offered = offers(call, answer, ready, watched, stream.registered)
        if not offered:
            return result
        self._note(call, "spurious")
        return answer.write([*ready, offered[int(len(offered) * stream.random())]])


def _permuted(ready: list[Ready], stream: _Stream) -> list[Ready]:
    """Return more than one event in another order."""
    found = ready[:]
    for i in range(len(found) - 1, 0, -1):  # Fisher and Yates
        j = int((i + 1) * stream.random())
        found[i], found[j] = found[j], found[i]
    if found == ready:
        found.reverse()
    return found


def _may_be_interrupted(call: Call) -> bool:
    """Tell whether a wait can fail with EINTR: not when it returns at once, and not on Windows.

    A kevent(2) that is interrupted has applied its changes; so one with changes is left alone.
    """
    if call.binding.target == "windows":
        return False
    return sleeps(call) and not (call.name == "kevent" and int(call.arguments[2]))


def chaos(seed: int, binding: Binding | None = None, spurious: bool = False) -> Binding:
    """Return a binding whose waits answer what a kernel may answer, and a program seldom sees.

    What it decides, and how often, is ``binding.lib.hook``, a ``Chaos``.

    Args:
        seed: an integer. The same seed and the same program lead to the same decisions.
        binding: the kernel interface whose calls are altered; None is what a selector would get.
        spurious: whether to report readiness that is not there, too.

    Raises:
        ValueError: the seed is not an integer.
        TypeError: ``binding`` is no binding.
    """
    return decided_by(Chaos(_checked(seed), spurious), binding)


def decided_by(hook: Chaos, binding: Binding | None = None) -> Binding:
    """Return a binding whose waits ``hook`` decides about; ``binding`` is as of ``chaos``."""
    return proxied(below(binding), hook, (*WAITS, *_NOTED))


class chaotic(Block):
    """Within the block, every selector that is made without ``binding=`` has ``chaos(seed)``.

    Args:
        seed: see ``chaos``.
        spurious: see ``chaos``.

    Yields:
        The ``Chaos``: its ``seed``, and in ``counts`` how often each kind of answer was given.

    Raises:
        ValueError: the seed is not an integer.
    """

    def __init__(self, seed: int, spurious: bool = False) -> None:
        super().__init__()
        self.seed: int = _checked(seed)
        self.spurious = spurious

    def make(self) -> Binding:
        return chaos(self.seed, spurious=self.spurious)

    def __enter__(self) -> Chaos:
        hook: Chaos = super().__enter__().hook
        return hook


def _checked(seed: object) -> int:
    if not isinstance(seed, int):
        raise ValueError(f"a seed is an integer, not {seed!r}")
    return seed


def parse_seed(text: str) -> tuple[int, bool]:
    """Return (seed, spurious) of "7" or "7:spurious".

    Raises:
        ValueError: it is neither.
    """
    number, colon, option = text.partition(":")
    try:
        seed = int(number)
    except ValueError:
        raise ValueError(f"a seed is an integer, not {number!r}") from None
    if colon and option != "spurious":
        raise ValueError(f"unknown option {option!r} of a seed; known: spurious")
    return seed, bool(colon)
