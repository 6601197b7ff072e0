"""The contract, section 9: close, the context manager, and use after close."""

from __future__ import annotations

import gc
import os
import sys
import weakref

import pytest

READ, WRITE = 1, 2
CLOSED = "I/O operation on closed selector"


def test_close_is_idempotent(selector, pair):
    """A second close does nothing."""
    selector.register(pair[0], READ)

    assert selector.close() is None
    assert selector.close() is None
    assert selector.get_map() is None


def test_close_leaves_the_file_objects_open(selector, pair):
    """The registered file objects are the caller's."""
    left, right = pair
    selector.register(left, READ)
    selector.close()

    right.send(b"x")

    assert left.recv(1) == b"x"


def test_close_keeps_nothing_alive(selector, pairs):
    """What was registered, and its data, can be collected while the closed selector lives on."""

    class Data:
        """Something to refer to weakly."""

    references = []
    for events, (left, _) in zip((READ, WRITE, READ | WRITE), pairs):
        data = Data()
        references.append(weakref.ref(data))
        selector.register(left, events, data)
    for _ in range(2):
        selector.select(0)
    selector.close()
    del data
    gc.collect()

    assert [reference() for reference in references] == [None] * 3


@pytest.mark.ours
@pytest.mark.parametrize("answer", [KeyError, ValueError])
def test_close_in_the_middle_of_modify(selector, pair, answer):
    """Another thread or a handler closes it: before the registry is looked at again, or after that.

    The answer is that of a closed selector, and the old registration is not put back.
    """

    class Closing:
        """Data that closes the selector when it is compared."""

        def __ne__(self, other):
            selector.close()
            return True

    class Registry(dict):
        """A registry whose selector is closed just before it is written."""

        def __setitem__(self, fd, key):
            selector.close()
            super().__setitem__(fd, key)

    left, _ = pair
    if answer is ValueError:
        selector._fd_to_key = Registry()
    selector.register(left, READ, "old")

    with pytest.raises(answer, match="closed selector" if answer is ValueError else "is not registered"):
        selector.modify(left, READ, "new" if answer is ValueError else Closing())

    assert not selector._fd_to_key
    with pytest.raises(KeyError):
        selector.unregister(left)


def test_context_manager(make, pair):
    """The with statement gives the selector itself and closes it."""
    selector = make()

    with selector as entered:
        entered.register(pair[0], READ)

    assert entered is selector
    assert selector.get_map() is None


def test_context_manager_lets_exceptions_pass(make):
    """An exception in the block closes the selector and goes on."""
    selector = make()

    with pytest.raises(ZeroDivisionError), selector:
        raise ZeroDivisionError

    assert selector.get_map() is None


def test_enter_after_close(selector):
    """Entering a closed selector is not refused."""
    selector.close()

    with selector as entered:
        assert entered is selector


def test_get_key_after_close(selector, pair):
    """get_key of a closed selector is a RuntimeError."""
    selector.register(pair[0], READ)
    selector.close()

    with pytest.raises(RuntimeError, match="Selector is closed"):
        selector.get_key(pair[0])


def test_modify_after_close(selector, pair):
    """modify of a closed selector is a KeyError: nothing is registered any more."""
    selector.register(pair[0], READ)
    selector.close()

    with pytest.raises(KeyError, match="is not registered"):
        selector.modify(pair[0], WRITE)


def test_unregister_after_close(selector, pair):
    """unregister of a closed selector is a KeyError: nothing is registered any more."""
    selector.register(pair[0], READ)
    selector.close()

    with pytest.raises(KeyError, match="is not registered"):
        selector.unregister(pair[0])


@pytest.mark.ours
@pytest.mark.parametrize("timeout", [None, 0, -1, 0.01])
def test_select_after_close(selector, pair, timeout):
    """select of a closed selector is a ValueError on every backend, and of nothing that went before."""
    selector.register(pair[0], WRITE)
    selector.close()

    for _ in range(2):
        with pytest.raises(ValueError, match=CLOSED) as caught:
            selector.select(timeout)
        assert caught.value.__context__ is sys.exc_info()[1]  # pytest may be handling one


@pytest.mark.ours
def test_register_after_close(selector, pair):
    """register on a closed selector is a ValueError on every backend, and adds nothing."""
    mapping = selector.get_map()
    selector.close()

    with pytest.raises(ValueError, match=CLOSED):
        selector.register(pair[0], READ)

    assert len(mapping) == 0


@pytest.mark.ours
def test_fileno_after_close(subject, selector):
    """fileno of a closed selector is a ValueError."""
    selector.close()

    if subject.kernel_keeps_list:
        with pytest.raises(ValueError, match=CLOSED):
            selector.fileno()
    else:
        assert not hasattr(selector, "fileno")


def test_close_gives_the_descriptor_back(subject, make):
    """The kernel's descriptor is not inherited, and is closed by close."""
    if not (subject.on_host and subject.kernel_keeps_list):
        pytest.skip("only a real kernel's object has a real descriptor")
    selector = make()
    number = selector.fileno()

    assert not os.get_inheritable(number)
    selector.close()
    with pytest.raises(OSError):
        os.fstat(number)
