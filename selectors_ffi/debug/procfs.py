"""procfs: the kernel's own list of an epoll set, /proc/<pid>/fdinfo/<epfd>; proc_pid_fdinfo(5)."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Watched", "watched"]


class Watched(NamedTuple):
    """One descriptor that the kernel watches for an epoll set."""

    fd: int
    """The number it had when it was added: it may be closed, or name another file, by now."""
    events: int
    data: int


def watched(epfd: int) -> list[Watched] | None:
    """Return the kernel's list for an epoll descriptor; None where there is no such list."""
    try:
        with open(f"/proc/self/fdinfo/{epfd}", encoding="ascii", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    entries = [line.split() for line in lines if line.startswith("tfd:")]
    found = []
    for words in entries:
        fields = dict(zip(words[0::2], words[1::2]))
        try:
            found.append(
                Watched(int(fields["tfd:"]), int(fields["events:"], 16), int(fields["data:"], 16))
            )
        except (KeyError, ValueError):
            return None
    return found
