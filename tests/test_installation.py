"""``install()``: the standard library's ``selectors`` and every loaded module hand out our classes."""

from __future__ import annotations

import os
import textwrap

import pytest

import selectors_ffi
from tests import apart

epoll = pytest.mark.skipif(not hasattr(selectors_ffi, "EpollSelector"), reason="no epoll here")
poll = pytest.mark.skipif(not hasattr(selectors_ffi, "PollSelector"), reason="no poll here")

# Each program begins with this. Which class a name stands for is told by name and package.
BEGIN = """
import selectors, sys
def which(cls):
    return cls.__module__.partition(".")[0] + "." + cls.__name__
"""


def run(tmp_path, program, backend="", flags=()):
    """Run a program in an interpreter of its own; return what it printed, line by line."""
    path = tmp_path / "program.py"
    path.write_text(BEGIN + textwrap.dedent(program))
    done = apart.python(*flags, path, cwd=tmp_path, SELECTORS_FFI_BACKEND=backend)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.fixture
def module(tmp_path):
    """Return a function that writes a module which the program can import."""

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))

    return write


def test_selectors_module(tmp_path):
    """Every class of the module selectors is ours, its default is our default, and back again."""
    lines = run(
        tmp_path,
        """
        import selectors_ffi
        names = [name for name in dir(selectors) if name.endswith("Selector")
                 and name != "BaseSelector" and not name.startswith("_")]
        before = [getattr(selectors, name) for name in names]
        selectors_ffi.install()
        for name in names:
            assert getattr(selectors, name) is getattr(selectors_ffi, name), name
        assert sorted(selectors_ffi.uninstall()) == ["selectors." + name for name in sorted(names)]
        assert [getattr(selectors, name) for name in names] == before
        print(selectors_ffi.uninstall())
        """,
    )
    assert lines == ["[]"]


@poll
def test_names_of_the_standard_library(tmp_path):
    """asyncio, subprocess, socketserver and multiprocessing are reached, imported before or after."""
    lines = run(
        tmp_path,
        """
        import asyncio, subprocess, selectors_ffi
        installation = selectors_ffi.install()
        import socketserver, multiprocessing.connection
        taken = [subprocess._PopenSelector, socketserver._ServerSelector,
                 multiprocessing.connection._WaitSelector]
        print([which(cls) for cls in taken])
        loop = asyncio.new_event_loop()
        assert type(loop._selector) is selectors_ffi.DefaultSelector
        loop.close()
        print("subprocess._PopenSelector" in installation.changed, installation.missed)
        selectors_ffi.uninstall()
        taken = [subprocess._PopenSelector, socketserver._ServerSelector,
                 multiprocessing.connection._WaitSelector]
        print([which(cls) for cls in taken])
        """,
    )
    assert lines == [
        str(["selectors_ffi.PollSelector"] * 3),
        "True []",
        str(["selectors.PollSelector"] * 3),
    ]


@epoll
@pytest.mark.parametrize("backend", ["", "poll", "select"])
def test_only_the_default_follows_the_variable(tmp_path, module, backend):
    """DefaultSelector and EpollSelector are one class in the stdlib; a module's name tells which."""
    module(
        "taken",
        """
        import selectors
        import selectors as aliased
        from selectors import DefaultSelector, EpollSelector, PollSelector
        from selectors import DefaultSelector as Renamed, EpollSelector as OtherEpoll
        Assigned = selectors.DefaultSelector
        AssignedAgain = Assigned
        FromAlias = aliased.DefaultSelector
        Annotated: type = aliased.DefaultSelector
        Explicit = aliased.EpollSelector
        if hasattr(selectors, "PollSelector"):
            _ServerSelector = selectors.PollSelector
        class Server:
            selector_class = selectors.DefaultSelector
            default_epoll = EpollSelector
        """,
    )
    lines = run(
        tmp_path,
        """
        import selectors_ffi, taken
        selectors_ffi.install()
        default = selectors_ffi.DefaultSelector
        for name in "DefaultSelector Renamed Assigned AssignedAgain FromAlias Annotated".split():
            assert getattr(taken, name) is default, name
        for name in "EpollSelector OtherEpoll Explicit".split():
            assert getattr(taken, name) is selectors_ffi.EpollSelector, name
        assert taken.PollSelector is taken._ServerSelector is selectors_ffi.PollSelector
        assert taken.Server.default_epoll is selectors_ffi.EpollSelector
        print(which(default))
        """,
        backend=backend,
    )
    assert lines == [f"selectors_ffi.{(backend or 'epoll').capitalize()}Selector"]


@poll
def test_default_that_the_program_has_chosen(tmp_path):
    """A program that made PollSelector its default keeps poll."""
    lines = run(
        tmp_path,
        """
        import selectors_ffi
        selectors.DefaultSelector = selectors.PollSelector
        selectors_ffi.install()
        print(which(selectors.DefaultSelector))
        selectors_ffi.uninstall()
        print(which(selectors.DefaultSelector))
        """,
    )
    assert lines == ["selectors_ffi.PollSelector", "selectors.PollSelector"]


def test_second_call_changes_what_came_since(tmp_path):
    """A second install() changes only new names, and its end leaves the first in force."""
    lines = run(
        tmp_path,
        """
        import selectors_ffi
        kept = [selectors.SelectSelector]
        with selectors_ffi.install():
            with selectors_ffi.install() as second:
                print(second.changed, repr(second))
            print(which(selectors.SelectSelector))
            late = kept[0]
            with selectors_ffi.install() as third:
                print(sorted(third.changed), which(late))
            print(which(late))
        print(which(selectors.SelectSelector))
        """,
    )
    assert lines == [
        "[] <Installation: nothing left to change>",
        "selectors_ffi.SelectSelector",
        "['__main__.late'] selectors_ffi.SelectSelector",
        "selectors.SelectSelector",
        "selectors.SelectSelector",
    ]


def test_blocks_that_overlap(tmp_path):
    """Each install() is in force until its own end, also where another thread's block ends before."""
    lines = run(
        tmp_path,
        """
        import selectors_ffi
        first, second = selectors_ffi.install(), selectors_ffi.install()
        first.__exit__(None, None, None)
        print(which(selectors.SelectSelector), second.changed)
        second.__exit__(None, None, None)
        print(which(selectors.SelectSelector))
        third = selectors_ffi.install()
        first.__exit__(None, None, None)
        print(which(selectors.SelectSelector), len(third.changed) >= 2)
        print("selectors.SelectSelector" in selectors_ffi.uninstall())
        """,
    )
    assert lines == ["selectors_ffi.SelectSelector []", "selectors.SelectSelector",
                     "selectors_ffi.SelectSelector True", "True"]  # fmt: skip


def test_exception_in_the_middle(tmp_path):
    """Whatever line of install() a signal handler raises at, all is as before."""
    lines = run(
        tmp_path,
        """
        import selectors_ffi, selectors_ffi.installation
        before = {name: value for name, value in vars(selectors).items()}
        class Interrupted(BaseException): pass
        def trace(frame, event, argument):
            global left
            if "installation" not in frame.f_code.co_filename:
                return None
            left -= event == "line"
            if not left:
                raise Interrupted
            return trace
        tried = 0
        while True:
            tried += 1
            left = tried
            sys.settrace(trace)
            try:
                selectors_ffi.install()
            except Interrupted:
                sys.settrace(None)
                assert dict(vars(selectors)) == before, tried
                assert selectors_ffi.uninstall() == [], tried
            else:
                break
            tried += tried // 10
        sys.settrace(None)
        print(which(selectors.SelectSelector), tried > 20)
        """,
    )
    assert lines == ["selectors_ffi.SelectSelector True"]


def test_other_changes_are_left_alone(tmp_path):
    """uninstall() does not touch a name that the program has changed meanwhile."""
    lines = run(
        tmp_path,
        """
        import selectors_ffi
        selectors_ffi.install()
        class Mine(selectors.SelectSelector): pass
        selectors.SelectSelector = Mine
        assert "selectors.SelectSelector" not in selectors_ffi.uninstall()
        print(which(selectors.SelectSelector))
        """,
    )
    assert lines == ["__main__.Mine"]


def test_modules_that_took_ours_on_purpose(tmp_path, module):
    """uninstall() leaves a module what it took from us, and changes what it took from selectors."""
    module(
        "late",
        """
        from selectors import SelectSelector
        Other = SelectSelector
        class Server:
            class Inner:
                kind = SelectSelector
        """,
    )
    module("ours", "from selectors_ffi import SelectSelector\n")
    lines = run(
        tmp_path,
        """
        import selectors_ffi
        selectors_ffi.install()
        import late, ours
        print(which(late.SelectSelector), which(late.Other), which(late.Server.Inner.kind))
        print({"late.Other", "late.Server.Inner.kind"} <= set(selectors_ffi.uninstall()))
        print(which(late.SelectSelector), which(late.Other), which(late.Server.Inner.kind))
        print(which(ours.SelectSelector))
        """,
    )
    assert lines == [
        " ".join(["selectors_ffi.SelectSelector"] * 3),
        "True",
        " ".join(["selectors.SelectSelector"] * 3),
        "selectors_ffi.SelectSelector",
    ]


def test_missed(tmp_path, module):
    """What cannot be changed is listed by place and class, with the cure; what can be is not."""
    module(
        "stuck",
        """
        import functools, selectors, typing
        from selectors import SelectSelector as Select

        class Meta(type):
            def __eq__(cls, other): return True  # no hash
        class Odd(metaclass=Meta):
            kind = Select
        class Derived(Select): pass
        class Twice(Derived): pass
        class Server:
            selector_class = Select
            choices = {"select": Select}
            def serve(self, timeout, selector_class=Select, *, other=Select): pass
            @classmethod
            def make(cls, kind=Select): pass
            @property
            def first(self, kind=Select): pass
            class Inner:
                kind = Select
                def serve(self, kind=Select): pass
        class Options(typing.NamedTuple):
            kind: type = Select
        @functools.lru_cache(None)
        def cached(kind=Select): pass
        def logged(function):
            @functools.wraps(function)
            def logs(*arguments): return function(*arguments)
            return logs
        @logged
        def decorated(kind=Select): pass
        def factory(kind):
            return lambda: (kind(), later)
            later = None
        make = factory(Select)
        prepared = functools.partial(Select)
        def serve(first, selector_class=selectors.SelectSelector): pass
        by_name = {"select": Select, "n": 1}
        in_order = [None, {Select}, [{"x": Select}]]
        in_order.append(in_order)
        """,
    )
    lines = run(
        tmp_path,
        """
        import selectors_ffi, stuck
        installation = selectors_ffi.install()
        for missed in sorted(installation.missed):
            print(missed.place, missed.name)
            assert missed.cure and str(missed) == (
                f"{missed.place} still uses selectors.{missed.name}: {missed.cure}")
        selectors_ffi.uninstall()
        assert {m.place for m in installation.missed} > {"stuck.Server.selector_class"}
        """,
    )
    assert lines == [
        f"stuck.{place} SelectSelector"
        for place in (
            "Derived",
            "Options.__new__(kind=)",
            "Options._field_defaults['kind']",
            "Server.Inner.serve(kind=)",
            "Server.choices['select']",
            "Server.first(kind=)",
            "Server.make(kind=)",
            "Server.serve(other=)",
            "Server.serve(selector_class=)",
            "Twice",
            "by_name['select']",
            "cached(kind=)",
            "decorated(kind=)",
            "in_order[1]{...}",
            "in_order[2][0]['x']",
            "make: kind",
            "prepared (partial)",
            "serve(selector_class=)",
        )
    ]


def test_modules_that_are_not_modules(tmp_path):
    """Objects in sys.modules, lazy modules, and classes that forbid assignment do no harm."""
    lines = run(
        tmp_path,
        """
        import enum, types, selectors_ffi
        class Lazy(types.ModuleType):
            def __getattribute__(self, name):
                if name == "__dict__":
                    raise ImportError("must not be asked")
                return super().__getattribute__(name)
            def __setattr__(self, name, value):
                raise TypeError("read-only")
        lazy = sys.modules["lazy"] = Lazy("lazy")
        types.ModuleType.__getattribute__(lazy, "__dict__")["Taken"] = selectors.SelectSelector
        from importlib.util import LazyLoader, find_spec, module_from_spec
        spec = find_spec("colorsys")
        spec.loader = LazyLoader(spec.loader)
        sys.modules["colorsys"] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules["colorsys"])
        sys.modules["thing"] = object()
        sys.modules["none"] = None
        class Fixed(type):
            def __setattr__(cls, name, value): raise TypeError("fixed")
        class Constant(metaclass=Fixed):
            cls = selectors.SelectSelector
        installation = selectors_ffi.install()
        print(which(lazy.Taken), [missed.place for missed in installation.missed])
        print("imported:", "rgb_to_hls" in types.ModuleType.__getattribute__(
            sys.modules["colorsys"], "__dict__"))
        """,
    )
    assert lines == ["selectors_ffi.SelectSelector ['__main__.Constant.cls']", "imported: False"]


def test_a_module_with_several_names_is_told_once(tmp_path, module):
    """multiprocessing gives __main__ a second name; what it holds is told by the first."""
    module("known", "import selectors\nCHOICES = [selectors.SelectSelector]")
    lines = run(
        tmp_path,
        """
        import multiprocessing, selectors_ffi
        import known
        del sys.modules["known"]
        sys.modules["also"] = sys.modules["known"] = known
        HELD = [selectors.SelectSelector]
        print(*(missed.place for missed in selectors_ffi.install().missed))
        """,
    )
    assert lines == ["__main__.HELD[0] known.CHOICES[0]"]


def test_odd_classes(tmp_path, module):
    """A class that refuses a change by whatever exception is missed, and the rest is installed."""
    module(
        "late",
        """
        from selectors import SelectSelector
        class Fixed(type):
            def __setattr__(cls, name, value): raise RuntimeError("fixed")
        class Holder(metaclass=Fixed):
            SelectSelector = SelectSelector
        """,
    )
    lines = run(
        tmp_path,
        """
        import selectors_ffi
        class Fixed(type):
            def __setattr__(cls, name, value): raise RuntimeError("fixed")
        class Constant(metaclass=Fixed):
            cls = selectors.SelectSelector
        class Nameless(selectors.SelectSelector):
            __module__ = None
        Missing = eval("type('Missing', (), {})", {"type": type})  # it has no __module__ at all
        class Key:
            def __repr__(self): raise RuntimeError("no repr")
        options = {Key(): 1}
        installation = selectors_ffi.install()
        print(which(selectors.SelectSelector), [missed.place for missed in installation.missed])
        import late
        restored = selectors_ffi.uninstall()
        print("late.SelectSelector" in restored, "late.Holder.SelectSelector" in restored)
        print(which(selectors.SelectSelector), which(late.SelectSelector))
        """,
    )
    assert lines == [
        "selectors_ffi.SelectSelector ['None.Nameless', '__main__.Constant.cls']",
        "True False",
        "selectors.SelectSelector selectors.SelectSelector",
    ]


def test_threads(tmp_path):
    """Threads that install and uninstall at once leave the module as it was."""
    lines = run(
        tmp_path,
        """
        import selectors_ffi, threading
        before = {name: value for name, value in vars(selectors).items() if name.endswith("Selector")}
        start = threading.Barrier(6)
        def work():
            start.wait()
            for _ in range(30):
                with selectors_ffi.install():
                    selectors.DefaultSelector().close()
                selectors_ffi.install()
                selectors_ffi.uninstall()
        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        selectors_ffi.uninstall()
        print(before == {name: value for name, value in vars(selectors).items()
                         if name.endswith("Selector")})
        """,
    )
    assert lines == ["True"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork(2)")
def test_fork_while_another_thread_installs(tmp_path):
    """The forked child installs, although the thread that held the lock is not in it."""
    lines = run(
        tmp_path,
        """
        import os, selectors_ffi, selectors_ffi.installation, signal, threading, warnings
        warnings.simplefilter("ignore")  # of threads and fork
        held, done = threading.Event(), threading.Event()
        def hold():
            with selectors_ffi.installation._shared._lock:
                held.set()
                done.wait()
        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        child = os.fork()
        if not child:
            signal.alarm(20)
            with selectors_ffi.install():
                os._exit(7 * (selectors.SelectSelector is selectors_ffi.SelectSelector))
        print(os.WEXITSTATUS(os.waitpid(child, 0)[1]))
        done.set()
        thread.join()
        """,
    )
    assert lines == ["7"]


def test_no_selector_here(monkeypatch):
    """Where no class works, install() says where to read why, and changes nothing."""
    monkeypatch.delattr(selectors_ffi, "DefaultSelector")

    with pytest.raises(OSError, match="python -m selectors_ffi says why"):
        selectors_ffi.install()


@epoll
def test_native_flags_through_the_private_name(tmp_path):
    """loop._selector._selector.modify(fd, flags) changes epoll's flags, as with select.epoll."""
    lines = run(
        tmp_path,
        """
        import asyncio, os, select, selectors_ffi
        selectors_ffi.install()
        async def main():
            loop = asyncio.get_running_loop()
            read, write = os.pipe()
            os.write(write, b"x")
            seen = []
            loop.add_reader(read, seen.append, 1)
            native = loop._selector._selector
            native.modify(read, 0)
            await asyncio.sleep(0.01)
            print("no interest:", seen)
            native.modify(read, select.EPOLLIN | select.EPOLLPRI)
            while not seen:
                await asyncio.sleep(0)
            native.unregister(read)
            await asyncio.sleep(0)  # what was reported before is called now
            count = len(seen)
            await asyncio.sleep(0.01)
            print("unregistered:", len(seen) - count)
            native.register(read, select.EPOLLIN)
            while len(seen) == count:
                await asyncio.sleep(0)
            print("registered again", native.fileno() == loop._selector.fileno())
            loop.remove_reader(read)
            loop._selector._selector = "assigned"
            print(loop._selector._selector)
        asyncio.run(main())
        with selectors_ffi.EpollSelector() as selector:
            selectors_ffi.uninstall()
            print(hasattr(selector, "_selector"))
        """,
    )
    assert lines == [
        "no interest: []",
        "unregistered: 0",
        "registered again True",
        "assigned",
        "False",
    ]


@epoll
def test_derived_class_with_private_names(tmp_path):
    """A class that works on the stdlib's private names stays derived from it, and works; it is told."""
    lines = run(
        tmp_path,
        """
        import os, select, selectors_ffi, warnings
        selectors_ffi.install()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            class Exclusive(selectors.EpollSelector):
                def register(self, fileobj, events, data=None):
                    key = super(selectors._PollLikeSelector, self).register(fileobj, events, data)
                    self._selector.register(key.fd, select.EPOLLIN | select.EPOLLET)
                    return key
            class Mixin:
                def native(self):
                    return self._selector.poll(0)
            class Mixed(Mixin, selectors.EpollSelector):
                pass
            class Plain(selectors.EpollSelector):
                def __init__(self, name, *, size=0):
                    super().__init__()
                    self.name = name, size
        for warning in told:
            print(warning.filename == __file__, warning.message)
        read, write = os.pipe()
        os.write(write, b"x")
        for selector in (Exclusive(), Mixed(), Plain("name", size=3)):
            with selector:
                selector.register(read, selectors.EVENT_READ)
                print(which(type(selector).__bases__[0]), len(selector.select(0)))
                assert not isinstance(selector, Mixed) or selector.native()
        """,
    )
    end = (
        " of the standard library's selectors, so it is derived from the standard library's class."
        " If the class has an attribute of its own by that name, rename it"
    )
    assert lines == [
        f"True __main__.Exclusive uses _PollLikeSelector, _selector{end}",
        f"True __main__.Mixed uses _selector{end}",
        "selectors.EpollSelector 1",
        "__main__.Mixin 1",
        "selectors_ffi.EpollSelector 1",
    ]


@epoll
def test_attributes_of_its_own(tmp_path):
    """A class with attributes of its own is derived from ours, though the stdlib has such names."""
    lines = run(
        tmp_path,
        """
        import os, selectors_ffi
        from selectors_ffi import EVENT_WRITE, ONESHOT
        with selectors_ffi.install():
            class Epoll(selectors_ffi.EpollSelector):
                def __init__(self):
                    super().__init__()
                    self._readers, self._max_events = set(), 5
                def once(self, fileobj):
                    self._readers.add(fileobj)
                    self._select()
                    return self.register(fileobj, EVENT_WRITE, trigger=ONESHOT)
                def _select(self): pass
            class Select(selectors_ffi.SelectSelector):
                _writers = ()
                def __init__(self):
                    super().__init__()
                    self._readers = {"mine"}
                    self._selector = None
                def mine(self):
                    return self._readers, self._writers, self._selector
        with Epoll() as selector:
            selector.once(os.pipe()[1])
            print(which(Epoll.__bases__[0]), len(selector.select()), len(selector.select(0)))
        with Select() as selector:
            print(which(Select.__bases__[0]), *selector.mine())
        """,
    )
    assert lines == ["selectors_ffi.EpollSelector 1 0", "selectors_ffi.SelectSelector {'mine'} () None"]


def test_attributes_of_the_standard_library(tmp_path):
    """A class that works on what only the stdlib's class has stays derived from the stdlib's."""
    lines = run(
        tmp_path,
        """
        import os, selectors_ffi, warnings
        warnings.simplefilter("ignore")
        with selectors_ffi.install():
            class Counting(selectors.SelectSelector):
                __module__ = None
                def watched(self):
                    return len(self._readers), len(self._writers)
            class Hooked(selectors.SelectSelector):
                def _select(self, readers, writers, others, timeout=None):
                    return list(readers), [], []
            class Derived(Hooked):
                pass
            if hasattr(selectors, "PollSelector"):
                class Other(selectors.PollSelector):
                    def __init__(self):
                        super().__init__()
                        self._selector = self
                print(which(Other.__bases__[0]))
            else:
                print("selectors.PollSelector")
        read, write = os.pipe()
        for cls in (Counting, Hooked, Derived):
            with cls() as selector:
                selector.register(read, selectors.EVENT_READ)
                print(isinstance(selector, selectors.SelectSelector), len(selector.select(0)))
                if cls is Counting:
                    print(selector.watched())
        """,
    )
    assert lines == ["selectors.PollSelector", "True 0", "(1, 0)", "True 1", "True 1"]


def test_private_classes_still_work(tmp_path):
    """Classes derived from the stdlib's private base classes are not touched."""
    lines = run(
        tmp_path,
        """
        import selectors_ffi
        selectors_ffi.install()
        class Fake(selectors._BaseSelectorImpl):
            def select(self, timeout=None):
                return [(key, key.events) for key in self.get_map().values()]
        with Fake() as fake:
            key = fake.register(0, selectors.EVENT_READ)
            print(fake.select() == [(key, selectors.EVENT_READ)])
        """,
    )
    assert lines == ["True"]
