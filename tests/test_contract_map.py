"""The contract, section 8: get_key, get_map and the mapping."""

from __future__ import annotations

import weakref
from collections.abc import Mapping

import pytest

READ, WRITE = 1, 2


@pytest.fixture
def keys(selector, pairs):
    """Three registered keys, not in the order of their descriptors."""
    return [selector.register(pairs[i][0], READ, i) for i in (2, 0, 1)]


def test_get_key(selector, keys):
    """get_key finds a registration by file object and by descriptor."""
    for key in keys:
        assert selector.get_key(key.fileobj) is key
        assert selector.get_key(key.fd) is key


def test_get_key_of_the_unregistered(selector, keys, pairs):
    """An unknown file object is a KeyError that names it."""
    left = pairs[3][0]

    with pytest.raises(KeyError) as caught:
        selector.get_key(left)

    assert caught.value.args == (f"{left!r} is not registered",)


@pytest.mark.parametrize("fileobj", [-1, "xx", object(), None], ids=repr)
def test_invalid_objects(selector, keys, fileobj):
    """An invalid file object is a ValueError, in the mapping's methods too."""
    mapping = selector.get_map()
    for look in (selector.get_key, mapping.__getitem__, mapping.__contains__, mapping.get):
        with pytest.raises(ValueError, match="Invalid file"):
            look(fileobj)


def test_map_is_live_and_the_same(selector, pair):
    """get_map always returns one object, which follows the registrations."""
    mapping = selector.get_map()
    assert len(mapping) == 0
    assert not mapping

    key = selector.register(pair[0], READ)

    assert selector.get_map() is mapping
    assert dict(mapping) == {key.fd: key}
    selector.unregister(pair[0])
    assert len(mapping) == 0


def test_map_is_a_mapping_of_descriptors(selector, keys):
    """The mapping iterates over descriptors in the order of registration."""
    mapping = selector.get_map()
    fds = [key.fd for key in keys]

    assert isinstance(mapping, Mapping)
    assert not isinstance(mapping, dict)
    assert len(mapping) == 3
    assert list(mapping) == list(mapping.keys()) == fds
    assert list(mapping.values()) == keys
    assert list(mapping.items()) == list(zip(fds, keys))


def test_map_lookup(selector, keys, pairs):
    """The mapping is looked up by descriptor or file object."""
    mapping = selector.get_map()
    unknown = pairs[3][0]

    for key in keys:
        assert mapping[key.fd] is mapping[key.fileobj] is key
        assert mapping.get(key.fileobj) is key
        assert key.fd in mapping
        assert key.fileobj in mapping
    assert unknown not in mapping
    assert mapping.get(unknown) is None
    assert mapping.get(unknown, default=7) == mapping.get(unknown, 7) == 7
    with pytest.raises(KeyError) as caught:
        mapping[unknown]
    assert caught.value.args == (f"{unknown!r} is not registered",)


def test_map_equality(selector, keys):
    """The mapping equals a dict with the same content, and cannot be hashed."""
    mapping = selector.get_map()

    assert mapping == {key.fd: key for key in keys}
    assert mapping != {}
    with pytest.raises(TypeError):
        hash(mapping)


def test_map_is_read_only(selector, keys):
    """The mapping has no way to change it."""
    mapping = selector.get_map()

    for name in ("__setitem__", "__delitem__", "pop", "clear", "update"):
        assert not hasattr(mapping, name)
    with pytest.raises(TypeError):
        del mapping[keys[0].fd]
    with pytest.raises(TypeError):
        mapping[0] = keys[0]
    with pytest.raises(TypeError):
        reversed(mapping)


def test_change_during_iteration(selector, keys, pairs):
    """A registration while the mapping is iterated is a RuntimeError, as with a dict."""
    iterator = iter(selector.get_map())
    next(iterator)
    selector.register(pairs[3][0], READ)

    with pytest.raises(RuntimeError):
        next(iterator)


def test_closed_file_object_is_still_found(selector, keys):
    """A registered socket that was closed is found by identity."""
    keys[0].fileobj.close()

    assert keys[0].fileobj in selector.get_map()
    assert selector.get_key(keys[0].fileobj) is keys[0]


def test_map_after_close(selector, keys):
    """A mapping kept after close is empty and still answers."""
    mapping = selector.get_map()
    selector.close()

    assert selector.get_map() is None
    assert len(mapping) == 0
    assert list(mapping) == []
    assert mapping.get(keys[0].fileobj) is None
    with pytest.raises(KeyError):
        mapping[keys[0].fileobj]


def test_a_lookup_of_its_own(subject, pair):
    """A subclass may find the descriptors of its own objects; the mapping finds them, too."""

    class Wrapper:
        def __init__(self, fd):
            self.fd = fd

    class Unwrapping(subject.cls):
        def _fileobj_lookup(self, fileobj):
            return fileobj.fd if isinstance(fileobj, Wrapper) else super()._fileobj_lookup(fileobj)

    wrapped = Wrapper(pair[0].fileno())
    binding = {} if subject.binding is None else {"binding": subject.binding()}
    with Unwrapping(**binding) as selector:
        key = selector.register(wrapped, READ)

        assert selector.get_key(wrapped) is selector.get_map()[wrapped] is key
        assert Wrapper(wrapped.fd) in selector.get_map()
        assert selector.get_map()[pair[0]] is key
        assert selector.unregister(wrapped) is key
        assert wrapped not in selector.get_map()


def test_map_can_be_referred_to_weakly(selector):
    """A weak reference to the mapping holds as long as the selector is open."""
    mapping = weakref.ref(selector.get_map())

    assert mapping() is selector.get_map()
