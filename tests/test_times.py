"""What time each backend asks the kernel for, to the last unit; nothing here waits."""

from __future__ import annotations

import os

import pytest

if os.name != "posix":
    pytest.skip("the simulated kernels work on Unix descriptors", allow_module_level=True)

from selectors_ffi.backends import EVENT_READ, epoll, epoll_buffer, process, table
from selectors_ffi.backends import waits as waiting
from selectors_ffi.testing.calls import waits
from selectors_ffi.testing.library import Proxy
from tests.kernels import WINDOWS
from tests.kernels.machines import MACHINES, SOME, Machine

#: Mechanism -> (function, place of the time, its unit in nanoseconds), the most precise first.
WAITS = {
    "epoll": (("epoll_pwait2", 3, 1), ("epoll_wait", 3, 1_000_000)),
    "poll": (("ppoll", 2, 1), ("poll", 2, 1_000_000)),
    "select": (("select", 4, 1000),),
    "kqueue": (("kevent", 5, 1),),
    "devpoll": (("ioctl", 2, 1_000_000),),
    "eventport": (("port_getn", 4, 1),),
}
#: With nanoseconds -> the same with milliseconds, which is called for whole ones.
PLAIN = {"epoll_pwait2": "epoll_wait", "ppoll": "poll"}
SYSTEMS = [*SOME, *(machine for machine in MACHINES if machine.name == "simulated_linux")]
WINSOCK = Machine("windows", "SelectSelector", lambda: WINDOWS[2]())
CASES = [
    (machine, *wait)
    for machine in (*SYSTEMS, WINSOCK)
    for wait in WAITS[machine.mechanism]
    if machine.boot().binding.has(wait[0])
]
TIMES = (1e-9, 1e-6, 0.001, 0.0015, 0.1, 0.999999999, 1, 1.5, 59.25, 1000, 86_400.5, 999_999)


class NoTime:
    """A hook: one function returns 0 at once where it waits, and what it was asked is noted.

    ``now`` is what a clock would say that the function's time has passed for.
    """

    def __init__(self, function):
        self._function = function
        self._units = {name: (place, unit) for cases in WAITS.values() for name, place, unit in cases}
        self.asked = []
        self.now = 0.0

    def __call__(self, call):
        if call.name != self._function or not waits(call):
            return call.run()
        self.asked.append([self.read(argument) for argument in call.arguments])
        place, unit = self._units[call.name]
        self.now += max(self.asked[-1][place], 0) * unit / 1e9
        return 0

    @staticmethod
    def read(argument):
        """A time struct as nanoseconds, of /dev/poll's order its milliseconds, the rest as it is."""
        for fraction, unit in (("tv_nsec", 1), ("tv_usec", 1000)):
            if hasattr(argument, fraction):
                seconds, part = argument.tv_sec, getattr(argument, fraction)
                assert 0 <= part < 10**9 // unit
                return (seconds * 10**9 + part * unit) // unit
        return getattr(argument, "dp_timeout", argument)


@pytest.fixture
def set_clock(monkeypatch):
    """Have the backends look at the clock of a hook."""

    def set_it(hook):
        for module in (process, epoll, epoll_buffer, table, waiting):
            monkeypatch.setattr(module, "clock", lambda: hook.now)

    return set_it


def selector_without_time(machine, function, refused=tuple(PLAIN)):
    """A selector whose wait returns at once, and what it was asked."""
    hook = NoTime(function)
    session = machine.boot(lambda whole: Proxy(whole, hook))
    if function in PLAIN.values():
        session.binding.refused.update(refused)
    return session.selector(), hook


def name(case):
    """The identity of a case."""
    return str(case) if isinstance(case, (Machine, str)) else ""


@pytest.mark.parametrize(("machine", "function", "place", "unit"), CASES, ids=name)
def test_rounded_up(machine, function, place, unit, pair, set_clock):
    """A timeout is handed over in the kernel's unit, rounded up and to the next unit only."""
    selector, library = selector_without_time(machine, function)
    set_clock(library)
    with selector:
        selector.register(pair[0], EVENT_READ)
        library.asked.clear()
        for timeout in TIMES:
            if function in PLAIN and not timeout * 10**9 % 10**6:
                continue
            assert selector.select(timeout) == []
            exact = timeout * 10**9 / unit
            (asked,) = library.asked
            assert exact <= asked[place] < exact + 1 + exact * 1e-12
            library.asked.clear()


@pytest.mark.parametrize(
    ("machine", "function", "place", "unit"), [case for case in CASES if case[1] in PLAIN], ids=name
)
def test_whole_milliseconds(machine, function, place, unit, pair, set_clock):
    """They are handed over as such, since a struct takes longer."""
    selector, library = selector_without_time(machine, PLAIN[function], refused=())
    set_clock(library)
    with selector:
        selector.register(pair[0], EVENT_READ)
        library.asked.clear()
        for timeout in (0.001, 0.1, 1, 59.25):
            assert selector.select(timeout) == []
        assert [asked[place] for asked in library.asked] == [1, 100, 1000, 59_250]


@pytest.mark.parametrize(("machine", "function", "place", "unit"), CASES, ids=name)
@pytest.mark.parametrize("timeout", [0, -1, -1e9])
def test_no_time(machine, function, place, unit, pair, timeout):
    """A timeout that is not positive is no time at all, in whatever form."""
    selector, library = selector_without_time(machine, PLAIN.get(function, function))
    with selector:
        selector.register(pair[0], EVENT_READ)
        library.asked.clear()
        assert selector.select(timeout) == []
        (asked,) = library.asked
        assert asked[place] == 0


@pytest.mark.parametrize("machine", [m for m in SYSTEMS if m.mechanism == "kqueue"], ids=str)
def test_a_wait_of_weeks(machine, pair, set_clock):
    """A wait that macOS would refuse for its length is made of several."""
    selector, library = selector_without_time(machine, "kevent")
    set_clock(library)
    with selector:
        selector.register(pair[0], EVENT_READ)
        library.asked.clear()
        assert selector.select(2_000_001) == []
        assert [asked[5] for asked in library.asked] == [10**15, 10**15, 10**9]


@pytest.mark.parametrize(
    ("machine", "function", "place", "unit"),
    [case for case in CASES if case[1] in ("epoll_wait", "poll", "select", "ioctl")],
    ids=name,
)
def test_a_wait_of_a_year(machine, function, place, unit, pair, set_clock):
    """A wait that is too long for one call is made of several: a C int holds 24.8 days."""
    selector, library = selector_without_time(machine, function)
    set_clock(library)
    with selector:
        selector.register(pair[0], EVENT_READ)
        library.asked.clear()
        for timeout in (86_400 * 365, 86_400 * 365, 1):
            library.asked.clear()
            assert selector.select(timeout) == []
            asked = sum(asked[place] for asked in library.asked) * unit
            assert timeout * 10**9 <= asked <= timeout * 10**9 + unit


@pytest.mark.parametrize("step", [0.0, -1e-9, -1.0])
@pytest.mark.parametrize("machine", SYSTEMS, ids=str)
def test_a_clock_that_never_advances(machine, pair, monkeypatch, step):
    """A wait ends after a few calls that took their time, though the clock stands still or goes back."""
    now, calls = [1000.0], []

    def clock_that_goes_back():
        now[0] += step
        return now[0]

    def sleep(call):
        if not waits(call):
            return call.run()
        calls.append(call)
        return 0

    for module in (process, epoll, epoll_buffer, table, waiting):
        monkeypatch.setattr(module, "clock", clock_that_goes_back)
    with machine.boot(lambda whole: Proxy(whole, sleep)).selector() as selector:
        selector.register(pair[0], EVENT_READ)
        calls.clear()
        assert selector.select(0.25) == []
    assert len(calls) <= 4


def test_how_much_select_is_asked_to_look_at():
    """select(2) looks at as many descriptors as the highest watched one needs, and at no more."""
    machine = next(machine for machine in MACHINES if machine.mechanism == "select")
    selector, library = selector_without_time(machine, "select")
    numbers = []
    with selector:
        try:
            for number in (70, 300, 129, 64, 63):
                os.dup2(0, number)
                numbers.append(number)
                selector.register(number, EVENT_READ)
            selector.select(0)
            for number in (300, 63, 129):
                selector.unregister(number)
                selector.select(0)
            assert [asked[0] for asked in library.asked] == [301, 130, 130, 71]
        finally:
            for number in numbers:
                os.close(number)
