"""Flags: by argument, by environment, by block; and that they cost nothing when off."""

from __future__ import annotations

import dis
import gc
import sys

import pytest

import selectors_ffi
from selectors_ffi import Debug, backends, debugging
from selectors_ffi.binding import load
from selectors_ffi.debug import ambience as module
from selectors_ffi.debug.flags import flags_of
from selectors_ffi.testing import inject, kernel
from tests import apart, needs
from tests.debug.conftest import Owner


def test_names():
    """Names in any case, separated by commas, bars or blanks, are flags; so are flags and None."""
    assert flags_of("syscalls,EVENTS") == Debug.SYSCALLS | Debug.EVENTS
    assert flags_of("stats | checks leaks") == Debug.STATS | Debug.CHECKS | Debug.LEAKS
    assert flags_of(Debug.LEAKS) is Debug.LEAKS
    assert flags_of(None) == flags_of("") == Debug(0)
    assert all(flag in flags_of("all") for flag in (Debug.SYSCALLS, Debug.STATS, Debug.LEAKS))


def test_unknown_name():
    """An unknown name is an error that lists the known ones."""
    with pytest.raises(ValueError, match="unknown debug flag 'sycalls'; known are syscalls, events"):
        backends.SelectSelector(debug="sycalls")
    with pytest.raises(TypeError, match="must be Debug flags or their names, not 3"):
        backends.SelectSelector(debug=3)


def test_no_flag_is_the_class_itself(backend):
    """Without flags the instance is of the very class, and its methods are untouched."""
    with backend() as selector:
        assert type(selector) is backend
    with debugging(Debug(0)), backend() as selector:
        assert type(selector) is backend
    with debugging("syscalls", lambda record: None), backend(debug=Debug(0)) as selector:
        assert type(selector) is backend, "debug= goes before the block"


def test_flags_make_a_subclass(backend):
    """With flags it is a subclass under the same name, made once."""
    with backend(debug="stats") as selector, backend(debug=Debug.STATS) as other:
        assert type(selector) is not backend
        assert isinstance(selector, backend)
        assert type(selector).__name__ == backend.__name__
        assert type(selector) is type(other)
        assert type(selector).debug_flags == Debug.STATS


def test_a_subclass_of_the_user_is_traced(backend, records, pairs):
    """A class derived from ours, with a constructor of its own, is traced as well."""

    class Mine(backend):
        def __init__(self):
            super().__init__()
            self.mine = True

    with Mine() as selector:
        selector.register(pairs[0][0], backends.EVENT_WRITE)
        assert selector.mine
        assert len(selector.select(0)) == 1
    assert any(type(record).__name__ == "Syscall" for record in records)


@pytest.mark.parametrize("flags", [None, "stats", "all"])
def test_a_subclass_with_parameters_of_its_own(backend, flags, pairs):
    """Methods and constructors with other parameters than ours work with flags and without."""

    class Mine(backend):
        def __init__(self, name, *, debug=None):
            super().__init__(debug=debug)
            self.name = name

        def select(self, timeout=None, limit=None):
            return super().select(timeout)[:limit]

        def register(self, fileobj, *, wanted):
            return super().register(fileobj, wanted)

        def modify(self, fileobj, events, data=None, note=""):
            return super().modify(fileobj, events, data)

        def unregister(self, fileobj, note=""):
            return super().unregister(fileobj)

        def close(self, note=""):
            super().close()

    selector = Mine("mine", debug=flags)
    for near, _ in pairs:
        selector.register(near, wanted=backends.EVENT_WRITE)
    assert len(selector.select(0, limit=2)) == len(selector.select(timeout=0, limit=2)) == 2
    selector.modify(pairs[0][0], backends.EVENT_READ, note="a note")
    selector.unregister(pairs[0][0], note="a note")
    with pytest.raises(TypeError):
        selector.select(0, no_such=1)
    selector.close(note="a note")
    assert selector.name == "mine"
    assert selector.get_map() is None


def test_flags_that_a_constructor_hands_on(backend, pairs):
    """Flags may come from a subclass's own constructor; one that hands none on has none."""

    class Mine(backend):
        def __init__(self, *, debug=False):
            super().__init__(debug="stats" if debug else None)

    with Mine(debug=True) as traced, Mine(debug=False) as plain:
        assert traced.select(0) == plain.select(0) == []
        assert traced.stats().waits.count == 1
        assert type(plain) is Mine


def test_classes_that_look_at_their_subclasses(backend):
    """A class with slots, or with a hook that wants to know its subclasses, is traced as well."""
    seen = []

    class Mine(backend):
        __slots__ = ("one",)

        def __init_subclass__(cls, *, needed, **kwargs):
            seen.append(cls)

    with Mine(debug="all") as selector:
        selector.one = 1
        assert selector.select(0) == []
    assert seen == []


def test_a_refused_registration_with_other_parameters(pairs):
    """A registration that the kernel refused is recorded if the arguments tell what it was of."""
    kept = []

    class Refusing(backends.PollSelector):
        def register(self, *args, **kwargs):
            raise PermissionError(1, "no")

    with debugging("events", kept.append), Refusing() as selector:
        for args, kwargs in (((pairs[0][0], 1), {}), ((), {"fileobj": 7, "events": 2}), ((), {})):
            with pytest.raises(PermissionError):
                selector.register(*args, **kwargs)

    assert [record.fd for record in kept if record.action == "register"] == [pairs[0][0].fileno(), 7]


def test_argument_alone():
    """debug= works in a program that never imported the debug package."""
    code = (
        "import selectors_ffi as s\n"
        "with s.SelectSelector(debug='stats') as x: x.select(0); print(x.stats().waits.count)\n"
        "try: s.SelectSelector(debug='stat')\n"
        "except ValueError as error: print(error)\n"
    )

    assert apart.python("-c", code).stdout.splitlines() == [
        "1",
        "debug: unknown debug flag 'stat'; known are syscalls, events, stats, checks, leaks, all",
    ]


def test_block_is_for_selectors_made_in_it(backend):
    """debugging() is for what is made in the block, in any thread, and blocks nest."""
    inner, outer = [], []
    with debugging("events", outer.append):
        with debugging("events", inner.append):
            first = backend()
        second = backend()
    third = backend()
    for selector in (first, second, third):
        selector.select(0)
        selector.close()

    assert {type(record).__name__ for record in inner} == {"Wait", "Registration"}
    assert len(inner) == len(outer) == 2
    assert type(third) is backend


def test_block_without_enter():
    """Leaving a block that was not entered is refused."""
    with pytest.raises(RuntimeError):
        debugging("events").__exit__(None, None, None)


def test_environment():
    """SELECTORS_FFI_DEBUG makes records visible on standard error, without any configuration."""
    code = "import selectors_ffi as s, socket; x = s.SelectSelector(); sock, peer = socket.socketpair();"
    code += " x.register(sock, s.EVENT_READ); x.select(0); x.close(); sock.close(); peer.close()"

    done = apart.python("-c", code, SELECTORS_FFI_DEBUG="syscalls")

    assert done.stderr.startswith("select(")
    assert "= 0 (Timeout) <0.0" in done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("how", ["-Xdev", "PYTHONDEVMODE"])
def test_development_mode_switches_on_leaks_alone(how):
    """-X dev and PYTHONDEVMODE warn of selectors left open, and do nothing else."""
    code = (
        "import selectors_ffi as s\n"
        "x = s.DefaultSelector()\n"
        "print(type(x).debug_flags, type(x).select is s.DefaultSelector.select)\n"
        "del x\n"
        "import gc; gc.collect(); gc.collect(); gc.collect()\n"  # PyPy: one for each finaliser
    )

    done = apart.python(*["-Xdev"] * (how == "-Xdev"), "-c", code, **{how: "1"} if how[0] == "P" else {})

    assert done.stdout.split() == ["Debug.LEAKS", "True"]
    assert "ResourceWarning: unclosed <" in done.stderr
    assert "created at <string>:2 in <module>" in done.stderr


def test_development_mode_imports_what_leak_warnings_need():
    """-X dev costs a program nothing until it makes a selector, and then the leak guard alone."""
    code = (
        "import sys, warnings, selectors_ffi as s\n"
        "def debug(): return [m[14:] for m in sys.modules if m.startswith('selectors_ffi.debug')]\n"
        "print(debug())\n"
        "with s.DefaultSelector() as x: x.select(0)\n"
        "x = s.DefaultSelector()\n"
        "loaded = sorted(debug())\n"
        "before = set(sys.modules)\n"
        "warnings.showwarning = lambda warning, *_: print(warning)\n"
        "del x\n"
        "import gc; gc.collect(); gc.collect(); gc.collect()\n"
        "print(loaded, [m for m in set(sys.modules) - before if 'selectors' in m])\n"
        "with s.debugging('all', print), s.DefaultSelector() as x: x.select(0)\n"
        "with s.SelectSelector() as x: print(type(x).debug_flags)\n"
    )

    none, leak, loaded, *records, last = apart.python("-Xdev", "-c", code).stdout.splitlines()

    assert none == "[]"
    assert leak.startswith("unclosed <selectors_ffi.")
    assert leak.endswith("created at <string>:5 in <module>")
    assert loaded == "['debug', 'debug.complaints', 'debug.flags', 'debug.leaks', 'debug.places'] []"
    assert any(line.startswith("wait(0) = 0 ready") for line in records)
    assert last == "Debug.LEAKS"


@pytest.mark.parametrize("how", ["a sink", "a filter"])
def test_development_mode_tells_whatever_the_filters_say(how, tmp_path):
    """A filter that ignores ResourceWarning leaves a line; a sink gets the record of the leak."""
    code = "import selectors_ffi as s\nx = s.DefaultSelector()\ndel x\n"
    code += "import gc; gc.collect(); gc.collect(); gc.collect()"
    path = tmp_path / "log"
    if how == "a sink":
        done = apart.python("-Xdev", "-c", code, SELECTORS_FFI_SINK=str(path))
        told = path.read_text()
        assert "ResourceWarning: unclosed" in done.stderr
    else:
        told = apart.python("-Xdev", "-W", "ignore", "-c", code).stderr

    assert told.startswith("SEL009 at <string>:2 in <module>: unclosed <selectors_ffi.")


def test_import_does_not_import_debug():
    """Importing the package does not import the debug package, nor logging."""
    code = (
        "import sys, selectors_ffi\n"
        "print([m for m in sys.modules if m == 'logging' or m.startswith('selectors_ffi.debug')])"
    )

    assert apart.python("-c", code).stdout.strip() == "[]"


def test_off_costs_nothing(backend):
    """The untraced select is the same function, byte for byte, whether debug is imported or not."""
    code = (
        "import hashlib, sys, selectors_ffi.backends as b\n"
        "def state(cls):\n"
        "    select = cls.select\n"
        "    names = 'select register unregister modify _watch _forget _release'.split()\n"
        "    codes = [getattr(cls, name).__code__ for name in names]\n"
        "    text = repr([(c.co_code, c.co_names, c.co_varnames) for c in codes])\n"
        "    return id(select), cls.__mro__, hashlib.sha256(text.encode()).hexdigest()\n"
        f"cls = b.{backend.__name__}\n"
        "before = state(cls)\n"
        "assert not any(name.startswith('selectors_ffi.debug') for name in sys.modules)\n"
        "import selectors_ffi.debug\n"
        "with selectors_ffi.debugging('all', lambda r: None), cls() as traced: traced.select(0)\n"
        "after = state(cls)\n"
        "with cls() as plain:\n"
        "    assert plain.select.__func__ is cls.select\n"
        "    assert type(plain._binding.lib).__name__ != 'Tap'\n"
        "print(before == after, before[2])\n"
    )

    assert apart.python("-c", code).stdout.split()[0] == "True"
    instructions = {instruction.argval for instruction in dis.get_instructions(backend.select)}
    assert not any("debug" in str(value) for value in instructions), "nothing asks about debugging"


def test_leak_is_told_with_its_place():
    """LEAKS warns of a selector collected open, says where it was made, and closes it."""
    kept = []
    with debugging("leaks", kept.append):
        selector = backends.PollSelector()
    selector.itself = selector  # so that it is collected when we say so
    del selector
    with pytest.warns(ResourceWarning, match=r"unclosed <.*PollSelector.*test_flags.py:\d+ in "):
        gc.collect()

    assert [record.id for record in kept] == ["SEL009"]


def test_no_leak_is_told_of_a_closed_selector(backend):
    """A selector that was closed, or whose constructor raised, is no leak."""
    kept = []
    with debugging("leaks", kept.append):
        backend().close()
        with pytest.raises(TypeError):
            backend(binding=None, wrong=1)
        with pytest.raises(OSError):
            backends.DevpollSelector()
    for _ in range(3):
        gc.collect()
    assert not kept


@pytest.mark.skipif(sys.platform == "win32", reason="simulated kernels need Unix")
def test_no_leak_of_a_selector_that_the_system_lacks():
    """A constructor that failed for want of poll(2) has left nothing open, on Windows too."""
    kept = []
    with debugging("leaks", kept.append), pytest.raises(OSError, match="no poll in target windows"):
        backends.PollSelector(binding=kernel("windows"))
    for _ in range(3):
        gc.collect()
    assert not kept


def test_no_leak_of_a_selector_that_got_no_descriptor():
    """A constructor that failed for want of descriptors has left nothing open."""
    if not load().has("epoll_create1"):
        pytest.skip("epoll")
    full = inject("epoll_create1:error=EMFILE")
    kept = []
    with debugging("leaks", kept.append), pytest.raises(OSError, match="Too many open files"):
        backends.EpollSelector(binding=full)
    for _ in range(3):
        gc.collect()
    assert not kept


def test_a_leak_in_a_cycle_and_of_every_class(backend):
    """A selector in a cycle is told when the cycle is collected, and so is one with all flags."""
    for flags in ("leaks", "all"):
        kept = []
        with pytest.warns(ResourceWarning, match="unclosed"):
            with debugging(flags, kept.append):
                selector = backend()
            selector.itself = selector
            del selector
            for _ in range(3):
                gc.collect()
        assert [record.id for record in kept if type(record).__name__ == "Lint"] == ["SEL009"]


@needs.interpreter_lock
@pytest.mark.skipif(sys.implementation.name == "pypy", reason="PyPy finalises nothing at the end")
@pytest.mark.parametrize("cycle", [False, True])
def test_a_leak_is_told_as_the_interpreter_ends(cycle):
    """Also of a selector in a cycle, though the package's modules are freed together with it."""
    code = "import selectors_ffi as s\nx = s.DefaultSelector()\n" + "x.itself = x\n" * cycle

    told = apart.python("-Wdefault", "-c", code, SELECTORS_FFI_DEBUG="leaks").stderr

    assert "created at <string>:2 in <module>" in told


@pytest.mark.parametrize("flags", ["leaks", "all"])
def test_no_leak_of_what_its_owner_closes_in_its_finaliser(backend, flags):
    """The owner is younger than the selector, and in a cycle: CPython finalises it last."""
    kept = []
    with debugging(flags, kept.append):
        selector = backend()
    Owner(selector)
    del selector
    for _ in range(3):
        gc.collect()
    assert [record for record in kept if type(record).__name__ == "Lint"] == []


def keep_nothing(record):
    """A sink."""


def test_blocks_may_end_in_any_order():
    """A block that ends before one that began later ends itself alone."""
    outer, inner = debugging("events", keep_nothing), debugging("checks", keep_nothing)
    before = list(module._stack)
    outer.__enter__()
    inner.__enter__()

    outer.__exit__(None, None, None)
    assert module.ambient().flags == Debug.CHECKS
    inner.__exit__(None, None, None)
    assert module._stack == before


def test_an_instrumented_class_is_not_instrumented_again(backend):
    """Making one more of a traced selector's own class gives that class."""
    with backend(debug="events") as selector, type(selector)(debug=Debug.CHECKS) as other:
        assert type(other) is type(selector)
        assert other._observer.flags == Debug.EVENTS


def test_module_attributes_on_demand():
    """The package imports the debug names when they are first asked for, and no others."""
    assert selectors_ffi.Debug is Debug
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = selectors_ffi.nothing
