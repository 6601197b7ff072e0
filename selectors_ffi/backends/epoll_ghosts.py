"""An epoll set without its ghosts: registrations that nobody can name any more.

Facts. epoll_ctl(2) names a registration by number and open file. When the number is closed while
the file is open elsewhere (dup, fork), the registration stays, is reported for ever if it is ready,
and no call can remove it. Only the end of the set, or of the file, is the end of it.

Decision. A new set takes over what can still be named, then the number of the old one: dup3(2).
A thread that waits on the old one goes on doing so; therefore, where there are threads, the old set
watches the new one, and whatever happens there wakes that thread, which then asks the new one.

Cost. Who watches the old set itself is left with it. So a set that another epoll watches, that
holds something wanted which cannot be named, or of which the kernel gives no full list (no /proc,
an old Linux), stays as it is. A forked child goes on with the old one.

https://man7.org/linux/man-pages/man7/epoll.7.html (Questions and answers, 6)
https://man7.org/linux/man-pages/man5/proc_pid_fdinfo.5.html
"""

from __future__ import annotations

import os
from _thread import _count as other_threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..binding import Binding

    _Entry = tuple[int, int, int, tuple[int, int]]  # fd, flags, token, file

_FDINFO, _FD = "/proc/self/fdinfo", "/proc/self/fd"
_EPOLL = "anon_inode:[eventpoll]"  # what the link of a set in /proc/self/fd says
_MINOR_BITS = 20  # of a device number inside the kernel, MINORBITS in linux/kdev_t.h


def without_ghosts(
    binding: Binding, epfd: int, pack: Callable[[int, int], Any], wanted: Callable[[int, int], bool]
) -> list[int] | None:
    """Replace the set behind ``epfd`` by one without ghosts.

    Args:
        binding: makes the calls.
        epfd: keeps its number. A call that waits on it goes on, but not through a second
            replacement.
        pack: (flags, token) -> the event that epoll_ctl takes.
        wanted: (fd, token) -> whether that registration is one that must stay.

    Returns:
        The descriptors in the new set; None if the old one stays.
    """
    try:
        living: list[_Entry] = []
        lost: list[_Entry] = []
        for entry in _entries(epfd):
            (living if _file(entry[0]) == entry[3] else lost).append(entry)
        if not lost or any(wanted(fd, token) for fd, _, token, _ in lost) or _watched(epfd):
            return None
        old = os.dup(epfd)
    except (OSError, LookupError, ValueError):
        return None
    new, constant, control = -1, binding.constant, binding.function("epoll_ctl")
    add = constant("EPOLL_CTL_ADD")
    try:
        new = binding.call(binding.function("epoll_create1"), constant("EPOLL_CLOEXEC"))
        for fd, flags, token, _ in living:
            binding.call(control, new, add, fd, pack(flags, token))
        if other_threads():
            # Before anybody can miss an event. No registration has the descriptor of a set.
            # EINVAL: one file is registered under more than 500 numbers, path_limits in fs/eventpoll.c.
            binding.call(control, old, add, new, pack(constant("EPOLLIN"), epfd))
        binding.call(binding.function("dup3"), new, epfd, os.O_CLOEXEC)
    except OSError:
        return None
    finally:
        if new >= 0:
            binding.close(new)
        os.close(old)
    return [fd for fd, _, _, _ in living]


def _entries(epfd: int) -> list[_Entry]:
    """Return (fd, flags, token, file) of each registration of a set."""
    entries: list[_Entry] = []
    with open(f"{_FDINFO}/{epfd}", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("tfd:"):
                # "tfd: 5 events: 19 data: 5  pos:0 ino:61af sdev:7"
                words = line.replace(":", " ").split()
                field = dict(zip(words[::2], words[1::2]))
                device = int(field["sdev"], 16)
                minor = device & ((1 << _MINOR_BITS) - 1)
                file = os.makedev(device >> _MINOR_BITS, minor), int(field["ino"], 16)
                flags, token = int(field["events"], 16), int(field["data"], 16)
                entries.append((int(field["tfd"]), flags, token, file))
    return entries


def _file(fd: int) -> tuple[int, int] | None:
    """Return what tells a descriptor's file from others; None if it is closed."""
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _watched(epfd: int) -> bool:
    """Tell whether another epoll of this process watches the set."""
    for name in os.listdir(_FD):
        try:
            # Of thousands of descriptors few are sets, and a link is read faster than a list.
            if os.readlink(f"{_FD}/{name}") == _EPOLL and epfd in [e[0] for e in _entries(int(name))]:
                return True
        except FileNotFoundError:
            continue  # the descriptor of the listing itself
    return False
