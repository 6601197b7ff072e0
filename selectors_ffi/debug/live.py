"""Live: switch debugging on and off in a running process, for the selectors that are alive.

A selector of this package is given the class and the tap that it would have been made with. A selector
of the standard library is given a class that reports its methods: registrations, waits, and what they
returned. Its system calls are made in C and stay unseen. Switching off gives each the class and the
kernel interface back that it had.

A call that is under way ends as it began. So a loop that sleeps is seen from its next wait on.
"""

from __future__ import annotations

import gc
import selectors
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from weakref import ref

from ..backends.base import _BaseSelectorImpl
from .ambience import Ambient, ambient, enter, leave
from .flags import TAPPED, Debug, flags_of
from .watch import Tapped, is_made, observe, release, seen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .flags import FlagsLike
    from .sinks import Sink, SinkLike

__all__ = ["Switched", "alive", "switch", "switched"]


class Switched:
    """What ``switch()`` has switched on. As a context manager, it is switched off at the end.

    Attributes:
        flags: what is shown.
        sink: where records go.
        ours: how many selectors of this package were alive, and are seen from now on.
        others: how many of the standard library were.
        left: how many show something already, and were left as they are.
    """

    def __init__(self, flags: Debug, target: SinkLike) -> None:
        self._ambient = Ambient(flags, ambient().sink if target is None else target)
        self._ambient.made = self._note
        self.flags = flags
        self.sink: Sink = self._ambient.sink
        self.ours: int = 0
        self.others: int = 0
        self.left: int = 0
        self._seen: dict[int, ref[Any]] = {}
        self._over = False

    def __repr__(self) -> str:
        return f"<Switched: {self}>"

    def __str__(self) -> str:
        """Return one line about it."""
        counts = [
            f"{count} {what}"
            for count, what in (
                (self.ours, "of selectors_ffi"),
                (self.others, "of the standard library"),
                (self.left, "left as they are, with flags of their own"),
            )
            if count
        ]
        return f"{_names(self.flags)} switched on for selectors: {', '.join(counts) or 'none is alive'}"

    @property
    def on(self) -> bool:
        """Whether it is still switched on."""
        return self in _current

    def off(self) -> None:
        """Give every selector back what it had. A second call does nothing."""
        try:
            _current.remove(self)
        except ValueError:  # it is not on, or another thread has been here
            return
        self._over = True
        leave(self._ambient)
        with ExitStack() as stack:  # all are released, whatever one raises
            for weak in {**self._seen}.values():
                selector = weak()
                if selector is not None:
                    stack.callback(release, selector)
        self._seen.clear()

    def __enter__(self) -> Switched:
        return self

    def __exit__(self, *error: object) -> None:
        self.off()

    def _begin(self) -> None:
        enter(self._ambient)
        _current.append(self)  # last: ``off()`` of another thread leaves what was entered
        for selector in alive():
            if seen(selector):
                self.left += id(selector) not in self._seen
                continue
            try:
                if not observe(selector, self.flags, self._ambient.emitter):
                    continue
            except TypeError:
                continue
            self._note(selector)
            if isinstance(selector, _BaseSelectorImpl):
                self.ours += 1
            else:
                self.others += 1
        self._tell_what_cannot_be_seen()

    def _note(self, selector: Any) -> None:
        """Remember a selector that is to be released."""
        number = id(selector)
        if isinstance(selector, Tapped):
            self._seen[number] = ref(selector, lambda _: self._seen.pop(number, None) and None)
            if self._over:  # ``off()`` came first, and has not seen it
                release(selector)

    def _tell_what_cannot_be_seen(self) -> None:
        note = getattr(self.sink, "note", None)
        if self.others and Debug.SYSCALLS in self.flags and callable(note):
            text = (
                "system calls of the standard library's selectors are made in C and cannot be shown;"
                " the flag events shows their waits and what they return"
            )
            self._ambient.emitter.guard(lambda: note(text))


def switch(flags: FlagsLike, sink: SinkLike = None) -> Switched:
    """Switch flags on for every selector that is alive, and for those that are made later.

    It replaces what an earlier call has switched on. With no flag it only switches off. Any thread may
    call it, and a signal handler. The selectors are found by a walk through all objects that the garbage
    collector knows.

    Args:
        flags: ``Debug`` flags or their names; None or "" switches off. LEAKS concerns a selector's
            creation, and is ignored.
        sink: where records go, as in ``debugging()``.

    Returns:
        The ``Switched``, whose ``off()``, or the end of a ``with`` block, switches off.

    Raises:
        ValueError: an unknown flag; the message lists the known ones.
        OSError: the sink cannot be opened.
    """
    made = Switched(flags_of(flags, "switch()") & TAPPED, sink)
    for one in list(_current):
        one.off()
    if made.flags:
        made._begin()
    return made


def switched() -> Switched | None:
    """Return what is switched on at the moment, if anything is."""
    return _current[-1] if _current else None


_current: list[Switched] = []


def alive() -> list[Any]:
    """Return every selector that can be used."""
    classes = list(_derived(selectors.BaseSelector))
    wanted = {id(cls) for cls in classes}
    # By type(): isinstance() would ask proxies what they stand for.
    found = [one for one in gc.get_objects() if id(type(one)) in wanted]
    # What ``backends.regular_files`` keeps for another selector is shown as that one's.
    return [one for one in found if _usable(one) and not hasattr(one, "_inner")]


def _usable(selector: Any) -> bool:
    try:
        usable = isinstance(selector._fd_to_key, dict) and selector.get_map() is not None
    except Exception:  # it is just being made
        return False
    return usable and is_made(selector)


def _derived(cls: type) -> Iterator[type]:
    yield cls
    subclasses: list[type] = type.__subclasses__(cls)
    for derived in subclasses:
        yield from _derived(derived)


def _names(flags: Debug) -> str:
    """Return the names of flags as ``debug=`` takes them."""
    return ",".join(str(flag.name).lower() for flag in Debug if flag in flags)
