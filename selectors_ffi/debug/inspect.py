"""Inspect: a selector at one moment, as a table of its registrations."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from ..backends import EpollSelector
from ..backends.beyond import EpollBits
from ..backends.beyond import watched as asked_for
from .addresses import address_of
from .decode.epoll import event_bits as epoll_bits
from .naming import interest, kind_of, link_of, shown
from .owners import owner_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from selectors import SelectorKey

__all__ = ["Description", "Row", "describe", "watched"]


#: Of a line of an epoll set's list: number, events, and the inode since Linux 4.13.
_LISTED = re.compile(r"tfd: +(\d+) events: +([0-9a-f]+) data: +[0-9a-f]+(?:.* ino:([0-9a-f]+))?")


class Row(NamedTuple):
    """One registration."""

    fd: int
    kind: str
    address: str
    """Both ends, e.g. ``tcp 127.0.0.1:80 <- 127.0.0.1:51224``; empty where there are none."""
    interest: str
    last: str
    """Native flags that the kernel reported last; "-" if none, or if debugging is off."""
    owner: str
    """Which part of the program it belongs to; see ``owner_of``."""
    place: str
    """Where it was registered; "-" if debugging is off."""


class Description:
    """What ``selector.describe()`` returns; ``str()`` of it is a table.

    Attributes:
        title: class and state.
        rows: one ``Row`` per registration.
        differences: sentences, one for each way in which the kernel's list differs from the
            registry; empty if they agree; None where the kernel shows no list.
    """

    def __init__(self, title: str, rows: list[Row], differences: list[str] | None) -> None:
        self.title = title
        self.rows = rows
        self.differences = differences

    def __repr__(self) -> str:
        return f"<Description of {self.title}>"

    def __str__(self) -> str:
        lines = [self.title]
        if self.rows:
            table = [Row._fields, *([str(field) for field in row] for row in self.rows)]
            widths = [max(map(len, column)) for column in zip(*table)]
            for cells in table:
                line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths))
                lines.append(line.rstrip())
        if self.differences is None:
            lines.append("kernel: shows no list of its own")
        elif not self.differences:
            lines.append("kernel: the same list")
        else:
            lines += [f"kernel: {difference}" for difference in self.differences]
        return "\n".join(lines)


def describe(selector: Any) -> Description:
    """Return the description of a selector; works with debugging off."""
    name = type(selector).__name__
    if selector.get_map() is None:
        return Description(f"{name}, closed", [], None)
    keys = list(selector.get_map().values())
    observer = getattr(selector, "_observer", None)
    rows = [_row(key, observer) for key in keys]
    title = f"{name}, {len(keys)} registered"
    differences = None
    if isinstance(selector, EpollSelector):
        epfd = selector._descriptor.fd
        title = f"{name}, epoll descriptor {epfd}, {len(keys)} registered"
        kernel = watched(epfd)
        if kernel is not None:
            differences = list(_differences(keys, kernel, selector))
    return Description(title, rows, differences)


def _row(key: SelectorKey, observer: Any) -> Row:
    fd = int(key.fd)
    known = None if observer is None else observer.known.get(fd)
    last, place = ("-", "-") if known is None else (known.last or "-", known.place)
    address = address_of(fd, key.fileobj)
    owner = owner_of(key)
    if owner == "int":  # a number, and nothing that names more
        owner = shown(key.fileobj)
    return Row(fd, kind_of(fd), address, interest(key.events), last, owner, place)


def _differences(
    keys: Iterable[SelectorKey], kernel: list[tuple[int, int, str]], selector: Any
) -> Iterable[str]:
    """Spell out how the two lists differ."""
    ffi = selector._binding.ffi
    bits = epoll_bits(ffi)
    wanted, always = EpollBits(selector._binding), bits.of_names("EPOLLERR", "EPOLLHUP")
    registry = {int(key.fd): key for key in keys}
    for fd, events, inode in kernel:
        # ERR and HUP are always watched, and the kernel adds them to the mask by itself.
        events &= ~always
        asked = bits(events)
        key = registry.get(fd)
        if key is None:
            yield (
                f"still watches what was fd {fd} for {asked} (now {kind_of(fd)}), which"
                " is not registered: a duplicate keeps the file open"
            )
            continue
        if not _is(fd, inode):
            yield (
                f"watches what was fd {fd} for {asked} (now {kind_of(fd)}): it was closed, and a"
                " duplicate keeps the file open"
            )
            continue
        # What has reported its ONESHOT is in the list still, and watched for nothing.
        if asked_for(key.events) and wanted[key.events] != events:
            yield f"watches fd {fd} for {asked}, registered is {interest(key.events)}"
    listed = {fd for fd, *_ in kernel}
    for fd, key in registry.items():
        if fd not in listed and asked_for(key.events) and fd not in selector._elsewhere:
            yield (
                f"does not watch fd {fd} ({kind_of(fd)}), registered for {interest(key.events)}:"
                " it was closed, and its number perhaps given out again"
            )


def _is(fd: int, inode: str) -> bool:
    """Tell whether a descriptor may be of the file with this inode; "": it is not known.

    Of sockets and pipes it is certain. Files of some filesystems show another inode here than there.
    """
    kind, _, own = link_of(fd).partition(":[")
    return bool(kind) and (kind not in ("socket", "pipe") or not inode or own == f"{inode}]")


def watched(epfd: int) -> list[tuple[int, int, str]] | None:
    """Return (fd, events, inode) of each file that an epoll set watches; None where there is no list.

    The number is the one that the file had when it was added: it may be closed, or name another file,
    by now. The list is in /proc/<pid>/fdinfo/<epfd>; proc_pid_fdinfo(5).
    """
    if "eventpoll" not in link_of(epfd):
        return None  # a simulated kernel's
    try:
        with open(f"/proc/self/fdinfo/{epfd}", encoding="ascii", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    found = []
    for line in lines:
        if line.startswith("tfd:"):
            fields = _LISTED.match(line)
            if fields is None:
                return None
            fd, events, inode = fields.groups("")
            found.append((int(fd), int(events, 16), str(int(inode, 16)) if inode else ""))
    return found
