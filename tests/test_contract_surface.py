"""The contract, sections 1 and 2: names, classes, signatures, SelectorKey."""

from __future__ import annotations

import copy
import inspect
import pickle
import selectors

import pytest

from tests.conftest import BACKENDS

METHODS = ("register", "unregister", "modify", "select", "close", "get_key", "get_map", "__exit__")


def test_event_constants(module):
    """EVENT_READ and EVENT_WRITE are the plain ints 1 and 2."""
    assert (module.EVENT_READ, module.EVENT_WRITE) == (1, 2)
    assert type(module.EVENT_READ) is type(module.EVENT_WRITE) is int


def test_exported_classes(module):
    """A class is at the top level exactly where the standard library has it on this host."""
    present = {name for name in BACKENDS if hasattr(module, name)}

    assert present - {"EventPortSelector"} == {name for name in BACKENDS if hasattr(selectors, name)}


def test_default_selector_is_one_of_the_classes(module):
    """DefaultSelector is an alias, so isinstance and subclassing work."""
    default = module.DefaultSelector

    assert default.__name__ == selectors.DefaultSelector.__name__
    assert default is getattr(module, default.__name__)


def test_selector_key_is_the_stdlibs(module):
    """SelectorKey is the standard library's own class, so keys compare, pickle and type-check."""
    assert module.SelectorKey is selectors.SelectorKey


def test_selector_key_shape(module):
    """A key is a named tuple of file object, fd, events and data, and survives a pickle."""
    key = module.SelectorKey(1, 2, 3, 4)

    assert repr(key) == "SelectorKey(fileobj=1, fd=2, events=3, data=4)"
    assert key == (1, 2, 3, 4)
    assert key._replace(data=5).data == 5
    assert pickle.loads(pickle.dumps(key)) == copy.copy(key) == key


def test_base_selector_is_abstract(module):
    """BaseSelector names the four methods that a selector must have, and cannot be made."""
    abstract = {"register", "unregister", "select", "get_map"}

    assert module.BaseSelector.__abstractmethods__ == abstract
    with pytest.raises(TypeError):
        module.BaseSelector()


def test_base_selector_modify(module):
    """BaseSelector.modify unregisters and registers again, for a class that only has those."""
    calls = []

    class Recorder(module.BaseSelector):
        def register(self, fileobj, events, data=None):
            calls.append(("register", fileobj, events, data))
            return "key"

        def unregister(self, fileobj):
            calls.append(("unregister", fileobj))

        def select(self, timeout=None):
            return []

        def get_map(self):
            return {7: "seven"}

    recorder = Recorder()

    assert recorder.modify(7, 1, "data") == "key"
    assert calls == [("unregister", 7), ("register", 7, 1, "data")]
    assert recorder.get_key(7) == "seven"
    assert recorder.close() is None
    with recorder as entered:
        assert entered is recorder


def test_third_party_subclass(module, pair):
    """A subclass of _BaseSelectorImpl with a select of its own works, as event loops do it."""

    class Fixed(module._BaseSelectorImpl):
        def select(self, timeout=None):
            return [(key, key.events) for key in self._fd_to_key.values()]

    left, _ = pair
    with Fixed() as fixed:
        key = fixed.register(left, module.EVENT_READ, "data")

        assert fixed.select() == [(key, module.EVENT_READ)]
        assert fixed.modify(left, module.EVENT_WRITE).events == module.EVENT_WRITE
        assert fixed._fileobj_lookup(left) == left.fileno() == module._fileobj_to_fd(left)
        assert fixed.unregister(left).fd == left.fileno()
        assert fixed._map is fixed.get_map()


def test_instances(subject, selector, module):
    """Every selector is an instance of both modules' BaseSelector."""
    assert isinstance(selector, module.BaseSelector)
    assert isinstance(selector, selectors.BaseSelector)


@pytest.mark.parametrize("method", METHODS)
def test_signatures(subject, method):
    """Parameters have the standard library's names, order, kinds and defaults; ours are keyword-only."""
    expected = inspect.signature(getattr(selectors.SelectSelector, method))
    found = inspect.signature(getattr(subject.cls, method))

    assert [
        (p.name, p.kind, p.default)
        for p in found.parameters.values()
        if p.kind is not inspect.Parameter.KEYWORD_ONLY
    ] == [(p.name, p.kind, p.default) for p in expected.parameters.values()]


def test_constructor_takes_nothing_positional(subject):
    """A positional argument is refused, so extras can only be keywords."""
    with pytest.raises(TypeError):
        subject.cls(None)


def test_fileno_only_where_the_kernel_has_one(subject, selector):
    """fileno exists on the classes alone whose kernel has an object: epoll, /dev/poll, kqueue, ports."""
    assert hasattr(selector, "fileno") == subject.kernel_keeps_list
    if subject.kernel_keeps_list:
        assert isinstance(selector.fileno(), int)
        assert selector.fileno() >= 0


def test_subclass_keeps_working(subject, pair, module):
    """A user's subclass that overrides select and calls super is used like the class."""

    class Counting(subject.cls):
        calls = 0

        def select(self, timeout=None):
            self.calls += 1
            return super().select(timeout)

    left, _ = pair
    extra = {} if subject.binding is None else {"binding": subject.binding()}
    with Counting(**extra) as counting:
        key = counting.register(left, module.EVENT_WRITE)

        assert counting.select(0) == [(key, module.EVENT_WRITE)]
        assert counting.calls == 1
