"""Prove: that a mechanism's declarations fit the kernel that answers, before they can hurt.

ABI mode believes what it is told. A struct declared too short has the kernel write
past the end of our buffers; one declared too long, or a time struct of the wrong
width, loses events or waits for ever. One event is no proof, since layouts often
agree in their first bytes. So three descriptors that are ready at once are asked
for, with markers of the full width, in a buffer that is far too long and filled
with a pattern: three records have to come back at the declared distance, whole, and
what is behind them has to be the pattern still.

Time structs are proven without waiting. Zero time with the pattern behind it has to
be accepted, and be zero: a kernel that reads further finds a negative fraction
there, which is EINVAL everywhere. A fraction out of range at the declared place has
to be EINVAL: a kernel that reads somewhere else does not find it.

Nothing here can block, and no buffer is shorter than any kernel's idea of it.
"""

from __future__ import annotations

import os
from collections import namedtuple

from .mechanisms import READY, ROOM, SHORTAGE, TESTS, Unfit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..binding import Binding

__all__ = ["READY", "ROOM", "Report", "SelfTestError", "check", "require"]

Report = namedtuple("Report", ["mechanism", "target", "struct", "sizeof", "problems", "unfit"])
Report.__doc__ = """What a self-test found: ``problems`` is a tuple of sentences, empty if passed.

``unfit`` maps functions that the mechanism can do without, and has to, to a sentence.
``sizeof`` is the declared size of ``struct``, in bytes.
"""


class SelfTestError(ImportError):
    """A mechanism is refused, because its declarations do not fit this kernel.

    ``report`` is the ``Report`` with the numbers seen.
    """

    def __init__(self, report: Any) -> None:
        super().__init__(
            f"{report.mechanism} does not fit this kernel as target {report.target} declares it"
            f" ({report.struct} of {report.sizeof} bytes): {'; '.join(report.problems)}"
        )
        self.report = report


def check(binding: Binding, mechanism: str) -> Any:
    """Test one mechanism of a binding; some ten system calls, no waiting.

    Args:
        binding: of any library, a simulated one as well.
        mechanism: "select", "poll", "epoll", "devpoll" or "kqueue".

    Returns:
        The ``Report``; ``unfit`` says what to do without.

    Raises:
        SelfTestError: the declarations do not fit.
        OSError: the mechanism is not there, or the test could not be set up.
    """
    entry, struct, test = TESTS[mechanism]
    binding.function(entry)
    sizeof = binding.ffi.sizeof(struct)
    fds: list[int] = []
    found: list[Any] = []
    try:
        fds.extend(os.pipe())
        while len(fds) < READY + 1:
            fds.append(os.dup(fds[1]))
        found.extend(test(binding, fds[1:]))
    except (AttributeError, OverflowError, TypeError) as error:
        # A field is not there, or does not hold what it has to.
        found.append(f"{type(error).__name__}: {error}")
    finally:
        for fd in fds:
            os.close(fd)
    problems = tuple(problem for problem in found if not isinstance(problem, Unfit))
    unfit = {unfit.function: unfit.problem for unfit in found if isinstance(unfit, Unfit)}
    report = Report(mechanism, binding.target, struct, sizeof, problems, unfit)
    if problems:
        raise SelfTestError(report)
    return report


# The library is kept beside its outcome, so that its id stays its own.
_outcomes: dict[tuple[int, str], tuple[Any, Any]] = {}


def require(binding: Binding, mechanism: str) -> Binding:
    """Refuse a mechanism that fails its test; tested once per library and process.

    A function that fails but can be done without goes into ``binding.refused``.

    For bindings of real libraries, at first use. ``SELECTORS_FFI_SELFTEST=0`` in the
    environment skips it.

    Returns:
        ``binding``.

    Raises:
        SelfTestError: the declarations do not fit.
        OSError: the mechanism is not there.
    """
    if os.environ.get("SELECTORS_FFI_SELFTEST") == "0":
        return binding
    if binding.target == "windows":
        binding.proven.add(mechanism)
        return binding  # its select wants sockets, and to open some is more than a self-test may do
    key = (id(binding.lib), mechanism)
    if key not in _outcomes:
        try:
            report = check(binding, mechanism)
        except SelfTestError as error:
            report = error.report
        except OSError as error:
            if error.errno in SHORTAGE:
                return binding  # nothing left to test with: another time
            raise
        _outcomes[key] = binding.lib, report
    report = _outcomes[key][1]
    if report.problems:
        raise SelfTestError(report)
    binding.refused.update(report.unfit)
    binding.proven.add(mechanism)
    return binding
