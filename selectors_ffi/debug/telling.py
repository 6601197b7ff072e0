"""Telling: how a lint reaches people, as a record to the sink and as a warning of Python's, once."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING

from .leaks import action_on
from .lints import Finding, SelectorWarning
from .places import NOWHERE, depth, place, stack_of, user_frame
from .records import Lint, Source, now
from .sinks import Emitter, LogSink, StandardError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType

    from .places import Place

__all__ = ["Teller", "announce"]


class Teller:
    """Warns of what was found in one selector.

    Args:
        emit: gives records to the sink.
    """

    def __init__(self, emit: Emitter) -> None:
        self.emit: Emitter = emit
        self.pending: list[Finding] = []
        """To be told in the loop's thread, before its next wait."""
        self._places: set[object] = set()
        self._on = True

    def tell(self, findings: Iterable[Finding], source: Source) -> None:
        """Warn of each finding, where the user's code is.

        Args:
            findings: what was found.
            source: the calling thread.
        """
        for finding in findings if self._on else ():
            warning = finding.lint(finding.message)
            lint = _lint(finding, warning, source, finding.place or place()[0])
            if finding.place is None:
                announce(self.emit, lint, warning, depth())
            else:
                _announce_at(self.emit, lint, warning, finding.place)

    def tell_all(self, findings: list[Finding], source: Source) -> None:
        """Warn of what was found in this thread, and of what is pending."""
        pending, self.pending = self.pending, []
        self.tell(pending + findings, source)

    def tell_from_outside(
        self, source: Source, frame: FrameType | None, findings: list[Finding]
    ) -> None:
        """Warn of findings from a thread of our own, while the loop is busy or asleep.

        Args:
            source: the loop's thread.
            frame: where it is.
            findings: what was found.
        """
        users, _ = user_frame(frame)
        for finding in findings:
            warning = finding.lint(finding.message)
            where = finding.place or (stack_of([users])[0] if users is not None else NOWHERE)
            lint = _lint(finding, warning, source, where)
            try:
                _announce_at(self.emit, lint, warning, where)
            except SelectorWarning:  # an error by the program's filters: it is the loop's to raise
                self.pending.append(finding)

    def new_places(self, findings: list[Finding]) -> list[Finding]:
        """Return the findings of functions that were not told of yet."""
        new = []
        for finding in findings:
            where = finding.place and (finding.place.file, finding.place.function)
            if where not in self._places:
                self._places.add(where)
                new.append(finding)
        return new

    def stop(self, emit: Emitter) -> None:
        """Say nothing any more."""
        self.emit = emit
        self._on = False


def _lint(finding: Finding, warning: SelectorWarning, source: Source, where: Place) -> Lint:
    return Lint(now(), source, warning.id, finding.fd, warning.text(finding.message), str(where))


def announce(
    emit: Emitter, lint: Lint, warning: Warning, stacklevel: int, source: object = None
) -> None:
    """Tell a lint once in each place: as a record to the sink, as a warning of Python's.

    Standard error shows Python's warnings already, and a logger is asked for instead of them.
    """
    frame = sys._getframe()
    for _ in range(stacklevel):
        frame = frame.f_back or frame
    if _must_warn(emit, lint, warning, frame):
        warnings.warn(warning, stacklevel=stacklevel + 1, source=source)


def _announce_at(emit: Emitter, lint: Lint, warning: Warning, where: Place) -> None:
    """Tell a lint as ``announce`` does, of a place that is not on this thread's stack."""
    if _must_warn(emit, lint, warning, None):
        warnings.warn_explicit(warning, type(warning), where.file, where.line)


def _must_warn(emit: Emitter, lint: Lint, warning: Warning, frame: FrameType | None) -> bool:
    """Give a lint to the sink, unless that is standard error; tell whether to warn as well."""
    action, sink = action_on(warning, frame), emit.sink
    if isinstance(sink, StandardError):
        if action == "ignore" and isinstance(warning, ResourceWarning):
            emit(lint)  # Python ignores these by default, but here they were asked for
        return True
    emit(lint)
    # A command that looks at the process is quiet: the program is not to notice.
    quiet = getattr(sink, "quiet", False) or (isinstance(sink, LogSink) and action != "error")
    return not quiet
