"""Check that a mechanism's declarations fit the running kernel, before they are used.

In ABI mode nothing checks a declaration. If a struct is declared too short, the kernel writes
beyond our buffers. If it is too long, or a time struct has the wrong width, events are lost or a
wait never ends.

One event proves little, because layouts often agree in their first bytes. So the test asks for
three ready descriptors with full-width markers, in a long buffer filled with a pattern. Three whole
records must come back at the declared distance, and the pattern behind them must be unchanged.

Time structs are tested without waiting. A zero timeout followed by the pattern must be accepted: a
kernel that reads further finds a negative fraction, which is EINVAL everywhere. A fraction out of
range must be EINVAL: a kernel that reads another place does not see it. Nothing here can block.
"""

from __future__ import annotations

import os
from collections import namedtuple
from errno import EMFILE, ENFILE, ENOMEM, ENOSPC

from .mechanisms import READY, ROOM
from .mechanisms import TESTS as TESTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ..binding import Binding

__all__ = ["READY", "ROOM", "Report", "SelfTestError", "check", "require"]

#: Errors that say nothing about the declarations: descriptors or memory are used up.
SHORTAGE = frozenset((EMFILE, ENFILE, ENOMEM, ENOSPC))

if TYPE_CHECKING:
    from typing import NamedTuple

    class Report(NamedTuple):
        """What a self-test found: ``problems`` is a tuple of sentences, empty if passed.

        ``unfit`` maps functions that the mechanism must do without to a sentence; ``sizeof`` is bytes.
        """

        mechanism: str
        target: str
        struct: str
        sizeof: int
        problems: tuple[str, ...]
        unfit: dict[str, str]

else:  # without an import of ``typing``
    Report = namedtuple("Report", ["mechanism", "target", "struct", "sizeof", "problems", "unfit"])


class SelfTestError(ImportError):
    """A mechanism's declarations do not fit this kernel; ``report`` has the numbers seen."""

    def __init__(self, report: Report) -> None:
        super().__init__(
            f"{report.mechanism} does not fit this kernel as target {report.target} declares it"
            f" ({report.struct} of {report.sizeof} bytes): {'; '.join(report.problems)}"
        )
        self.report = report


def check(binding: Binding, mechanism: str) -> Report:
    """Test one mechanism ("epoll") of a binding in some ten system calls; return the ``Report``.

    Raises:
        SelfTestError: the declarations do not fit.
        OSError: the mechanism is not there, or the test could not be set up.
    """
    entry, struct, test = TESTS[mechanism]
    binding.function(entry)
    sizeof = binding.ffi.sizeof(struct)
    fds: list[int] = []
    found: list[Any] = []
    opened = -1
    try:
        fds.extend(os.pipe())
        while len(fds) < READY + 1:
            fds.append(os.dup(fds[1]))
        opened = _open(binding, mechanism)
        found = _problems(test(binding, fds[1:], opened))
    finally:
        if opened >= 0:
            binding.close(opened)
        for fd in fds:
            os.close(fd)
    problems = tuple(problem for problem in found if isinstance(problem, str))
    unfit = dict(problem for problem in found if not isinstance(problem, str))
    report = Report(mechanism, binding.target, struct, sizeof, problems, unfit)
    if problems:
        raise SelfTestError(report)
    return report


# (id of a library, mechanism) -> (the library, which keeps its id its own; the report).
_outcomes: dict[tuple[int, str], tuple[Any, Any]] = {}


def require(binding: Binding, mechanism: str) -> Binding:
    """Refuse a mechanism that fails its test; return ``binding``.

    Each mechanism of a library is tested once in a process, when it is first used. A function that
    fails but can be done without goes into ``binding.refused``. ``SELECTORS_FFI_SELFTEST=0`` in
    the environment skips the test.

    Raises:
        SelfTestError: the declarations do not fit.
        OSError: the mechanism is not there.
    """
    if os.environ.get("SELECTORS_FFI_SELFTEST") == "0":
        return binding
    if binding.target == "windows":
        binding.proven.add(mechanism)
        return binding  # its select takes sockets only, and opening some is too much for a test
    key = (id(binding.lib), mechanism)
    if key not in _outcomes:
        try:
            _outcomes[key] = binding.lib, check(binding, mechanism)
        except SelfTestError as error:
            _outcomes[key] = binding.lib, error.report
        except OSError as error:
            if error.errno in SHORTAGE:
                return binding  # out of descriptors or memory: test at the next use
            raise
    report = _outcomes[key][1]
    if report.problems:
        raise SelfTestError(report)
    binding.refused.update(report.unfit)
    binding.proven.add(mechanism)
    return binding


def _open(binding: Binding, mechanism: str) -> int:
    """Open the mechanism's kernel object; -1 for a mechanism that has none."""
    if mechanism == "epoll":
        return binding.call(binding.function("epoll_create1"), binding.constant("EPOLL_CLOEXEC"))
    if mechanism == "devpoll":
        return binding.call(binding.function("open"), b"/dev/poll", os.O_RDWR | os.O_CLOEXEC)
    makers = {"kqueue": "kqueue", "eventport": "port_create"}
    return binding.call(binding.function(makers[mechanism])) if mechanism in makers else -1


def _problems(test: Iterator[Any]) -> list[Any]:
    """Run a test; a refused call counts as a problem, since it is most likely a misread argument."""
    found: list[Any] = []
    try:
        for problem in test:
            found.append(problem)
    except (AttributeError, OverflowError, TypeError) as error:
        # A field is missing, or does not hold what it must.
        found.append(f"{type(error).__name__}: {error}")
    except OSError as error:
        if error.errno in SHORTAGE:
            raise
        found.append(str(error))
    return found
