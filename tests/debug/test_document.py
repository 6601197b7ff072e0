"""Documents: files that are whole after every write, whatever the program does meanwhile."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from selectors_ffi.debug import document
from selectors_ffi.debug.document import Document

fcntl = pytest.importorskip("fcntl", reason="locks and descriptors of Unix")


@pytest.fixture
def path(tmp_path):
    """The path of a document."""
    return tmp_path / "document"


def made(target, **options):
    """Return a document of a head, a tail and a separator."""
    return Document(target, "<", ">", separator=",", **options)


def test_whole_after_each_item(path):
    """Head and tail are there from the beginning; an item goes between them."""
    written = made(path)
    texts = [path.read_text()]
    for item in ("a", "b", "long", ""):
        written.add(item)
        texts.append(path.read_text())
    written.close()
    written.close()

    assert texts == ["<>", "<a>", "<a,b>", "<a,b,long>", "<a,b,long,>"]
    assert path.read_text() == "<a,b,long,>"
    assert written.closed


def test_an_earlier_file_is_replaced(path):
    """What the path named before is gone, also if it was longer."""
    path.write_text("something much longer than the document")
    made(path).close()

    assert path.read_text() == "<>"


def test_text_that_is_no_unicode(path):
    """A lone surrogate (of a file's name, say) is written as an escape."""
    written = made(path)
    written.add("\udcff")
    written.close()

    assert path.read_text() == "<\\udcff>"


def test_two_writers(path):
    """A document that another process has begun can be joined: nothing of either is lost."""
    first = made(path)
    first.share()
    second = made(path, join=True)
    for number in range(3):
        first.add(f"a{number}")
        second.add(f"b{number}")
    first.close()
    second.add("last")
    second.close()

    assert path.read_text() == "<a0,b0,a1,b1,a2,b2,last>"


def test_joining_begins_what_is_missing(path):
    """To join a file that is not there yet is to begin it."""
    made(path, join=True).close()

    assert path.read_text() == "<>"


def test_emptied_by_another_program(path):
    """A file that is truncated under the trace begins anew; one that was rewritten is left alone."""
    written = made(path)
    written.add("a")
    path.write_text("")
    written.add("b")
    assert path.read_text() == "<b>"
    path.write_text("x")
    with pytest.raises(OSError, match="is not what this trace has written"):
        written.add("c")
    written.close()

    assert path.read_text() == "x"


@pytest.mark.parametrize("text", ["[1, 2, 3]", "x"])
def test_joining_something_else(path, text):
    """A file that is none of ours is refused, and left as it is."""
    path.write_text(text)
    with pytest.raises(OSError, match="is not"):
        made(path, join=True)

    assert path.read_text() == text


def test_threads(path):
    """Items of several threads do not mix."""
    written = made(path)
    threads = [
        threading.Thread(target=lambda: [written.add("item") for _ in range(100)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written.close()

    assert path.read_text() == "<" + ",".join(["item"] * 400) + ">"


@pytest.mark.parametrize("reused", [False, True], ids=["closed", "closed and reused"])
def test_the_program_closes_our_descriptor(path, tmp_path, reused, monkeypatch):
    """A daemon that closes all descriptors: the file is opened again, its new owner is not touched."""
    written = made(path)
    written.add("a")
    monkeypatch.chdir(tmp_path.parent)
    os.close(written._own.fd)
    other = tmp_path / "other"
    if reused:
        low = os.open(other, os.O_RDWR | os.O_CREAT)
        os.dup2(low, written._own.fd)
        os.close(low)
        fd = written._own.fd
    written.add("b")
    written.close()
    if reused:
        os.close(fd)

        assert other.read_text() == ""
    assert path.read_text() == "<a,b>"


def test_no_space(path, monkeypatch):
    """An item for which there is no space raises, and leaves the document as it was."""
    written = made(path)
    written.add("a")
    real = os.pwrite

    def full(fd, data, offset):
        monkeypatch.setattr(os, "pwrite", real)
        real(fd, data[:2], offset)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="space"):
        written.add("much more")

    assert path.read_text() == "<a>"
    written.add("b")
    written.close()
    assert path.read_text() == "<a,b>"


def test_short_writes(path, monkeypatch):
    """A write that takes only a part is continued."""
    written = made(path)
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:1], offset))
    written.add("abc")
    written.close()

    assert path.read_text() == "<abc>"


def test_a_stopped_process_does_not_stop_others(path, monkeypatch):
    """A lock that is never given back costs the patience once; then items are lost, not time."""
    naps = []
    monkeypatch.setattr(document, "sleep", naps.append)
    written = made(path)
    written.share()
    real = fcntl.lockf

    def held(fd, command, length):
        if command != fcntl.LOCK_UN:
            raise BlockingIOError(errno.EAGAIN, "held")
        return real(fd, command, length)

    monkeypatch.setattr(fcntl, "lockf", held)
    for _ in range(3):
        with pytest.raises(BlockingIOError):
            written.add("lost")
    assert sum(naps) == pytest.approx(document.PATIENCE, abs=0.002)
    monkeypatch.setattr(fcntl, "lockf", real)
    written.add("kept")
    written.close()

    assert path.read_text() == "<kept>"


def test_a_pipe():
    """A descriptor is written front to back, its end when closed; it stays open."""
    receive, send = os.pipe()
    written = made(send)
    written.add("a")
    written.add("b")
    assert os.read(receive, 100) == b"<a,b"
    written.close()
    os.close(send)

    assert os.read(receive, 100) == b">"
    os.close(receive)


def test_a_path_that_is_no_file(tmp_path):
    """A fifo is written front to back, and closed at the end."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    receive = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    written = made(path)
    written.add("a")
    written.close()

    assert os.read(receive, 100) == b"<a>"
    assert os.read(receive, 100) == b""
    os.close(receive)


def test_no_high_descriptor(path, monkeypatch):
    """Where the limit of descriptors is low, the document takes the number that it gets."""

    def refuse(fd, command, number):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    written = made(path)
    written.close()

    assert path.read_text() == "<>"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs Unix descriptors")
def test_a_descriptor_that_was_given_out_again(tmp_path):
    """What streams to a descriptor does not write into another file that has its number now."""
    read, write = os.pipe()
    written = Document(write, "<", ">")
    assert os.read(read, 9) == b"<"
    os.close(read)
    other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    os.dup2(other, write)
    with pytest.raises(OSError, match=f"descriptor {write} of a sink was closed"):
        written.add("a")
    assert os.fstat(other).st_size == 0
    os.close(other)
    os.close(write)
