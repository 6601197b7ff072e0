"""What the BSD systems and macOS do differently in kqueue(2): a table, and the sources of each row.

Every field of ``Variant`` is an option of ``kernel(name, option=value)``. The clauses K1 to K17
are explained in ``bsd``.

The layouts and numbers are written down here a second time, from the systems' headers, and not
taken from the package's declarations. So a wrong declaration shows as garbage.
"""

from __future__ import annotations

import dataclasses
import errno
import struct

__all__ = ["VARIANTS", "Variant"]

# N and n are uintptr_t and intptr_t; @ and 0q align as the C compiler of this host does.
_TIMESPEC = struct.Struct("@ql0q")
_TIMESPEC_LONG = struct.Struct("@ll")
# ident, filter, flags, fflags, data, udata [, ext[4]]
_PLAIN = struct.Struct("@NhHInN")
_PLAIN_INT64 = struct.Struct("@NhHIqN0q")
_EXTENDED = struct.Struct("@NhHIqN0q32x")
_NETBSD = struct.Struct("@NIIIqN0q")
_NETBSD_EXTENDED = struct.Struct("@NIIIqN0q32x")
_MAKERS = ("kqueue", "kqueue1", "kqueuex")


@dataclasses.dataclass(frozen=True)
class Variant:
    """One system; every field is something in which systems really differ."""

    #: Whose declarations the caller uses, see ``selectors_ffi._abi``.
    target: str
    #: Link symbols of kevent and select: NetBSD renames them in its headers (sys/event.h,
    #: sys/select.h), macOS has variants of select (sys/_select.h).
    kevent: str = "kevent"
    select: str = "select"
    #: struct kevent and struct timespec, sys/event.h and sys/_timespec.h.
    layout: struct.Struct = _PLAIN
    timespec: struct.Struct = _TIMESPEC
    #: EVFILT_READ, EVFILT_WRITE, EVFILT_USER, sys/event.h; ``user=None``: it does not have it, as
    #: NetBSD before 10.
    read: int = -1
    write: int = -2
    user: int | None = None
    #: EVFILT_EXCEPT and NOTE_OOB, sys/event.h, K16; None: it does not have them.
    oob: tuple[int, int] | None = None
    #: How a kqueue can be made, K9; kqueue(2) of each system.
    makers: tuple[str, ...] = ("kqueue",)
    #: O_CLOEXEC, sys/fcntl.h; taken by kqueue1.
    o_cloexec: int = 0
    #: Whether there is a ppoll(2).
    ppoll: bool = True
    #: K6: errno of EV_ADD for EVFILT_WRITE on the write end of a pipe without a reader, and on the
    #: read end of a pipe without a writer; 0: accepted, EV_EOF is reported. ``pipe_kqfilter`` in
    #: sys/kern/sys_pipe.c of FreeBSD, NetBSD and DragonFly asks for the other end, whichever it
    #: is; xnu's bsd/kern/sys_pipe.c and OpenBSD's accept.
    pipe_without_reader: int = 0
    pipe_without_writer: int = 0
    #: K12: errno of EV_ADD for a terminal, 0: accepted. EINVAL on old releases of macOS alone.
    terminal: int = 0
    #: K10: whether the newest registration is reported first, as NetBSD was seen to do.
    newest_first: bool = False
    #: K5: errno of EV_ADD for what is registered already, 0: it is updated. libkqueue only.
    add_again: int = 0
    #: K11: nanoseconds of a clock tick, to which a wait is rounded up; NetBSD's HZ is 100.
    tick: int = 1

    def __post_init__(self) -> None:
        if self.tick < 1:
            raise ValueError(f"tick is a number of nanoseconds above 0, not {self.tick}")
        unknown = [name for name in self.makers if name not in _MAKERS]
        if unknown:
            raise ValueError(f"unknown {unknown[0]!r} in makers; known: {', '.join(_MAKERS)}")


_NETBSD_10 = Variant(
    "netbsd",
    kevent="__kevent50",
    select="__select50",
    layout=_NETBSD,
    read=0,
    write=1,
    user=8,
    makers=("kqueue1", "kqueue"),
    o_cloexec=0x400000,
    pipe_without_reader=errno.EBADF,
    pipe_without_writer=errno.EBADF,
    newest_first=True,
    tick=10_000_000,
)

VARIANTS: dict[str, Variant] = {
    variant.target: variant
    for variant in (
        Variant(
            "freebsd",
            layout=_EXTENDED,
            user=-11,
            makers=("kqueuex", "kqueue1", "kqueue"),
            o_cloexec=0x100000,
            pipe_without_reader=errno.EPIPE,
            pipe_without_writer=errno.EPIPE,
        ),
        Variant(
            "freebsd11",
            user=-11,
            pipe_without_reader=errno.EPIPE,
            pipe_without_writer=errno.EPIPE,
        ),
        _NETBSD_10,
        dataclasses.replace(
            _NETBSD_10, target="netbsd11", kevent="__kevent100", layout=_NETBSD_EXTENDED
        ),
        Variant(
            "openbsd",
            layout=_PLAIN_INT64,
            user=-10,
            oob=(-9, 4),
            makers=("kqueue1", "kqueue"),
            o_cloexec=0x10000,
        ),
        Variant(
            "dragonfly",
            timespec=_TIMESPEC_LONG,
            user=-9,
            oob=(-8, 2),
            pipe_without_reader=errno.EPIPE,
            pipe_without_writer=errno.EPIPE,
        ),
        Variant(
            "darwin",
            select="select$DARWIN_EXTSN",
            timespec=_TIMESPEC_LONG,
            user=-10,
            oob=(-15, 2),
            ppoll=False,
        ),
        Variant("libkqueue", timespec=_TIMESPEC_LONG, user=-11, ppoll=False, add_again=errno.EINVAL),
    )
}
