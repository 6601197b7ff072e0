"""Explain: a sentence for each call, flag and errno the first time that it appears in a trace.

The table is plain English for readers who meet these names for the first time. Each sentence says
where to read more: the manual page, with its section in parentheses.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .decode import vocabulary
from .decode.grammar import errno_name
from .lints import LINTS
from .locking import Locked
from .records import Event, Lint, Registration, Syscall, Wait

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .records import Record

__all__ = ["Explainer"]

CALLS = {
    "epoll_create1": "makes an epoll set and returns its descriptor: epoll_create1(flags).",
    "epoll_ctl": "adds, changes or removes one descriptor of an epoll set: epoll_ctl(set, operation,"
    " descriptor, event).",
    "epoll_wait": "waits until a descriptor of the set is ready: epoll_wait(set, events, room,"
    " milliseconds); -1 waits without end, 0 not at all.",
    "epoll_pwait2": "is epoll_wait with a timeout in nanoseconds: epoll_pwait2(set, events, room,"
    " timeout, signals).",
    "poll": "waits until one of an array of descriptors is ready: poll(array, length, milliseconds);"
    " -1 waits without end.",
    "ppoll": "is poll with a timeout in nanoseconds: ppoll(array, length, timeout, signals).",
    "select": "waits for three sets of descriptors: select(highest + 1, to read, to write, exceptional,"
    " timeout).",
    "kqueue": "makes a kernel queue and returns its descriptor.",
    "kqueue1": "makes a kernel queue with flags and returns its descriptor.",
    "kqueuex": "makes a kernel queue with flags and returns its descriptor.",
    "kevent": "changes what a kernel queue watches, and waits for events: kevent(queue, changes, count,"
    " events, room, timeout).",
    "port_create": "makes an event port and returns its descriptor.",
    "port_associate": "asks an event port for the next event of an object: port_associate(port, source,"
    " object, events, user).",
    "port_dissociate": "tells an event port to forget an object: port_dissociate(port, source, object).",
    "port_send": "puts an event into the queue of a port, which wakes a thread: port_send(port, events,"
    " user).",
    "port_getn": "waits for events of a port: port_getn(port, events, room, at least so many, timeout)."
    " ETIME is the timeout.",
    "open": "opens a file or device and returns its descriptor.",
    "ioctl": "asks a device for something: ioctl(descriptor, request, argument).",
    "close": "gives a descriptor back; its number can be given out again at once.",
    "dup3": "makes a number name the file of another number, after closing what it named before.",
    "write": "writes bytes to a descriptor; selectors write to a wake-up descriptor to end a wait.",
    "read": "reads bytes from a descriptor; selectors read a wake-up descriptor empty.",
    "eventfd": "makes a counter with a descriptor that is readable while it is not 0.",
}
_PAGES = {"epoll_create1": "epoll_create1(2)", "epoll_pwait2": "epoll_wait(2)", "ppoll": "poll(2)"}
_PAGES["port_getn"] = "port_get(3C)"
_PAGES["port_dissociate"] = "port_associate(3C)"
_PAGES.update({name: f"{name}(3C)" for name in ("port_create", "port_associate", "port_send")})
_PAGES.update(dict.fromkeys(("kqueue", "kqueue1", "kqueuex", "kevent"), "kqueue(2)"))

FLAGS: dict[str, str] = {
    **vocabulary.EPOLL_CREATE,
    **vocabulary.EPOLL_OPERATIONS,
    **vocabulary.EPOLL_EVENTS,
    **vocabulary.POLL_EVENTS,
    **vocabulary.KEVENT_FILTERS,
    **vocabulary.KEVENT_FLAGS,
    **{name: text for notes in vocabulary.KEVENT_NOTES.values() for name, text in notes.items()},
    **vocabulary.KQUEUEX_FLAGS,
    **vocabulary.DEVPOLL_COMMANDS,
    **vocabulary.PORT_SOURCES,
    **vocabulary.OPEN_FLAGS,
    **vocabulary.EVENTFD_FLAGS,
}
_FLAG_PAGES = {
    "EPOLL_CLOEXEC": "epoll_create1(2)", "EPOLL": "epoll_ctl(2)", "POLL": "poll(2)",
    "DP_": "poll(7D)", "PORT_": "port_create(3C)", "O_": "open(2)", "EFD_": "eventfd(2)",
    "EV": "kqueue(2)", "NOTE_": "kqueue(2)", "KQUEUE_": "kqueue(2)",
}  # fmt: skip

#: By call and errno, or by errno alone.
ERRNOS = {
    "epoll_ctl EEXIST": "the descriptor is in the set already: its number was closed and given out again"
    " without unregister(), or a duplicate keeps it.",
    "epoll_ctl ENOENT": "the descriptor is not in the set: it was closed before unregister().",
    "epoll_ctl EPERM": "epoll does not watch regular files and directories: they are always ready.",
    "epoll_ctl EBADF": "the descriptor is closed.",
    "epoll_ctl ELOOP": "the epoll sets would watch each other in a circle.",
    "epoll_ctl ENOSPC": "the user watches as many descriptors as the system allows"
    " (fs.epoll.max_user_watches).",
    "kevent ENOENT": "the event is not in the queue: its descriptor was closed before unregister().",
    "port_getn ETIME": "the time was over before there was an event.",
    "port_dissociate ENOENT": "its event was handed out, which ends an association.",
    "select EBADF": "one of the descriptors is closed; select does not say which.",
    "EBADF": "the descriptor is closed.",
    "EINTR": "a signal came before anything was ready; selectors wait again for the rest of the time.",
    "EAGAIN": "nothing can be done now without blocking.",
    "EINVAL": "an argument is not valid.",
    "EFAULT": "an address is not valid.",
    "EMFILE": "the process has as many descriptors open as its limit allows (ulimit -n).",
    "ENFILE": "the system has as many files open as it allows.",
    "ENOMEM": "the kernel has no memory for it.",
    "ENOSYS": "this kernel does not have the call; another one is used instead.",
    "EPERM": "it is not permitted, for example by a filter of system calls in a container.",
    "EEXIST": "it is there already.",
    "ENOENT": "it is not there.",
    "EPIPE": "the other end is closed: nothing will read what is written.",
    "ECONNRESET": "the other end has ended the connection without closing it properly.",
    "ECONNREFUSED": "no program listens at that address.",
    "ETIMEDOUT": "the other end did not answer in time.",
    "EHOSTUNREACH": "there is no way to that host.",
    "EACCES": "access is refused.",
    "ENXIO": "there is no such device.",
    "ENODEV": "there is no such device.",
}  # fmt: skip

RECORDS: dict[type, str] = {
    Event: "event(...) is one event that the kernel reported, and what became of it.",
    Registration: "register, modify, unregister and close are calls of the selector by the program.",
    Wait: "wait(timeout) is one select() of the selector, with all its system calls.",
}
_RESULT = (
    "a call is written as name(arguments) = result <seconds>; a failure is -1 and the name of the error."
)
_NAME = re.compile(r"\b(?:E?POLL|EVFILT_|EV_|NOTE_|KQUEUE_|DP_|PORT_|EFD_|O_)\w+|\bE[A-Z]{2,}\b")


class Explainer(Locked):
    """Finds what a trace shows for the first time."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def __call__(self, record: Record) -> list[str]:
        """Return the sentences for what this record shows first, a line each."""
        with self._lock:
            return list(self._sentences(record))

    def _sentences(self, record: Record) -> Iterator[str]:
        if isinstance(record, Syscall):
            if self._first("a call"):
                yield _RESULT
            yield from self._call(record)
        elif isinstance(record, Lint):
            known = next((lint for lint in LINTS if lint.id == record.id), None)
            if known is not None and self._first(record.id):
                yield f"{record.id} {known.__name__}: docs/lints.md has its cause and cure."
        elif self._first(type(record).__name__):
            yield RECORDS[type(record)]
        if isinstance(record, Event):
            yield from self._flags(record.flags)

    def _call(self, record: Syscall) -> Iterator[str]:
        if record.name in CALLS and self._first(record.name):
            page = _PAGES.get(record.name, f"{record.name}(2)")
            yield f"{record.name} {CALLS[record.name]} [{page}]"
        yield from self._flags(" ".join((*record.arguments, record.note)))
        if record.errno:
            yield from self._errno(record.name, errno_name(record.errno))

    def _flags(self, text: str) -> Iterator[str]:
        for name in _NAME.findall(text):
            if name in FLAGS and self._first(name):
                page = next(page for start, page in _FLAG_PAGES.items() if name.startswith(start))
                yield f"{name}: {FLAGS[name]} [{page}]"
            elif name in ERRNOS and self._first(name):  # kqueue tells errnos in fflags and data
                yield f"{name}: {ERRNOS[name]} [errno(3)]"

    def _errno(self, call: str, name: str) -> Iterator[str]:
        special = f"{call} {name}"
        key = special if special in ERRNOS else name
        if key in ERRNOS and self._first(key):
            page = _PAGES.get(call, f"{call}(2)") if key == special else "errno(3)"
            yield f"{name}: {ERRNOS[key]} [{page}]"

    def _first(self, what: str) -> bool:
        if what in self._seen:
            return False
        self._seen.add(what)
        return True
