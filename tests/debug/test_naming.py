"""Names: kinds of descriptors, and asking a socket without touching it."""

from __future__ import annotations

import os
import socket
import sys
from types import SimpleNamespace

import pytest

from selectors_ffi.debug import naming
from tests import needs

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of Linux")


@needs.blocking_mode
def test_borrowing_without_a_type_that_says_nonblocking(monkeypatch, pairs):
    """Where sockets have no SOCK_NONBLOCK a borrowed one is made only if that changes no mode."""
    monkeypatch.delattr(socket, "SOCK_NONBLOCK", raising=False)
    fd = pairs[0][0].fileno()
    os.set_blocking(fd, False)
    monkeypatch.setattr(sys, "implementation", SimpleNamespace(name="cpython"))
    if hasattr(sys, "pypy_version_info"):
        pytest.skip("PyPy would change the mode")
    with naming.borrowed(fd) as borrowed:
        assert borrowed.fileno() != fd
        assert not os.get_blocking(fd)
    monkeypatch.setattr(sys, "implementation", SimpleNamespace(name="pypy"))
    with pytest.raises(OSError, match="would change"):
        naming.borrowed(fd)


@linux
def test_kinds_that_have_no_name(tmp_path, monkeypatch):
    """What fstat(2) knows no word for is unknown; a pipe without inspect is a fifo."""
    if not hasattr(os, "O_PATH"):
        pytest.skip("PyPy does not name the flag")
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    fd = os.open(link, os.O_PATH | os.O_NOFOLLOW)
    assert naming.kind_of(fd) == "unknown"
    os.close(fd)
    reader, writer = os.pipe()

    def refuse(path):
        raise OSError

    monkeypatch.setattr(os, "readlink", refuse)
    assert naming.kind_of(reader) == "fifo"
    os.close(reader)
    os.close(writer)


def test_where_numbers_of_sockets_are_no_descriptors(monkeypatch, pairs, pipe):
    """On Windows select() tells what is a socket: no other kind can be registered there."""
    monkeypatch.setattr(naming, "HAVE_FSTAT", False)
    sock = pairs[0][0]
    assert naming.kind_of(sock.fileno()) == "socket"
    if os.name == "posix":  # fstat(2), which would know better, is not asked
        assert naming.kind_of(pipe[0]) == "socket"
    assert naming.kind_of(10**6 - 1) == naming.kind_of(-1) == naming.kind_of(10**30) == "closed"
    with naming.borrowed(sock.fileno()) as borrowed:
        assert borrowed.getsockname() == sock.getsockname()
