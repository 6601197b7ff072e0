"""Vocabulary: the native flags of each system call by name, with a sentence on each.

The order of the names within each family is that of the systems' headers, and that in which a line
shows them. Their values come from the target's declarations, see ``grammar``; the sentences are what
``trace --explain`` tells.
"""

from __future__ import annotations

__all__ = [
    "DEVPOLL_COMMANDS", "EPOLL_CREATE", "EPOLL_EVENTS", "EPOLL_OPERATIONS", "EVENTFD_FLAGS",
    "KEVENT_FILTERS", "KEVENT_FLAGS", "KEVENT_NOTES", "KQUEUEX_FLAGS", "OPEN_FLAGS", "POLL_EVENTS",
    "PORT_SOURCES",
]  # fmt: skip

_CLOEXEC = "the descriptor is closed when the process starts another program."
_NONBLOCK = "reads and writes return at once instead of blocking."
_DEPENDS = "has a meaning that depends on the filter."
_MOMENT = "the timer is set to a moment, not to a time from now."

EPOLL_CREATE = {
    "EPOLL_CLOEXEC": _CLOEXEC,
}
EPOLL_OPERATIONS = {
    "EPOLL_CTL_ADD": "begins to watch a descriptor.",
    "EPOLL_CTL_DEL": "ends watching a descriptor.",
    "EPOLL_CTL_MOD": "changes what a descriptor is watched for.",
}
#: Of epoll and of poll.
_EVENTS = {
    "IN": "there is something to read, or end of file.",
    "PRI": "there is urgent data, or a change of state on some devices.",
    "OUT": "a write would not block.",
    "ERR": "an error is pending on the descriptor; it is reported without being asked for.",
    "HUP": "the other end has hung up; it is reported without being asked for.",
    "NVAL": "the descriptor is not open.",
    "RDNORM": "there is normal data to read.",
    "RDBAND": "there is priority data to read.",
    "WRNORM": "normal data can be written.",
    "WRBAND": "priority data can be written.",
    "MSG": "a message of a kind that Linux does not use.",
}
_RDHUP = "the other end has closed its writing side: no more data will come."
_ONESHOT = "the descriptor is switched off after it was reported once."
_EDGE = "edge-triggered: a change is reported once, not in every wait."
EPOLL_EVENTS = {
    **{f"EPOLL{name}": sentence for name, sentence in _EVENTS.items()},
    "EPOLLRDHUP": _RDHUP,
    "EPOLLEXCLUSIVE": "only one of the epoll sets that watch this file is woken.",
    "EPOLLWAKEUP": "the system does not go to sleep while the event is handled.",
    "EPOLLONESHOT": _ONESHOT,
    "EPOLLET": _EDGE,
}
POLL_EVENTS = {
    **{f"POLL{name}": sentence for name, sentence in _EVENTS.items()},
    "POLLREMOVE": "removes the descriptor from the set of /dev/poll.",
    "POLLONESHOT": _ONESHOT,
    "POLLET": _EDGE,
    "POLLRDHUP": _RDHUP,
    "POLLINIGNEOF": "end of file does not count as readable.",
}
KEVENT_FILTERS = {
    "EVFILT_READ": "watches whether there is something to read; data is how many bytes.",
    "EVFILT_WRITE": "watches whether a write would not block; data is the room.",
    "EVFILT_AIO": "watches an asynchronous operation.",
    "EVFILT_VNODE": "watches changes of a file.",
    "EVFILT_PROC": "watches a process.",
    "EVFILT_SIGNAL": "watches a signal.",
    "EVFILT_TIMER": "is a timer.",
    "EVFILT_MACHPORT": "watches a Mach port.",
    "EVFILT_PROCDESC": "watches a process by its descriptor.",
    "EVFILT_DEVICE": "watches a device.",
    "EVFILT_FS": "watches mounting and unmounting.",
    "EVFILT_LIO": "watches a list of asynchronous operations.",
    "EVFILT_USER": "is an event that the program triggers; selectors are woken by it.",
    "EVFILT_VM": "watches the pressure on memory.",
    "EVFILT_SENDFILE": "watches sendfile().",
    "EVFILT_EMPTY": "watches whether the output buffer is empty.",
    "EVFILT_EXCEPT": "watches exceptional conditions, as select's third set.",
}
KEVENT_FLAGS = {
    "EV_ADD": "adds the event, or changes it if it is there.",
    "EV_DELETE": "removes the event.",
    "EV_ENABLE": "lets the event be reported again.",
    "EV_DISABLE": "keeps the event, but does not report it.",
    "EV_ONESHOT": "removes the event after it was reported once.",
    "EV_CLEAR": "reports the event only when it happens again.",
    "EV_RECEIPT": "answers each change with EV_ERROR and its errno, 0 for success.",
    "EV_DISPATCH": "switches the event off after it was reported once.",
    "EV_UDATA_SPECIFIC": "lets several events of one descriptor differ in udata.",
    "EV_FORCEONESHOT": "reports the event once, at once.",
    "EV_VANISHED": "what was watched has gone away.",
    "EV_KEEPUDATA": "keeps the udata that was there before.",
    "EV_DROP": "drops the event.",
    "EV_NODATA": "end of file, and nothing left to read.",
    "EV_ERROR": "this change has failed; data is its errno.",
    "EV_EOF": "the other end has closed; fflags is a pending error, if any.",
    "EV_FLAG0": _DEPENDS,
    "EV_FLAG1": _DEPENDS,
    "EV_FLAG2": _DEPENDS,
}
#: What ``fflags`` means depends on the filter.
KEVENT_NOTES = {
    "EVFILT_READ": {
        "NOTE_LOWAT": "reports only from so many bytes on.",
        "NOTE_FILE_POLL": "reports a regular file as poll would: always.",
        "NOTE_EOF": "reports end of file of a regular file.",
        "NOTE_OOB": "reports out-of-band data.",
    },
    "EVFILT_WRITE": {
        "NOTE_LOWAT": "reports only from so many bytes on.",
    },
    "EVFILT_EXCEPT": {
        "NOTE_OOB": "reports out-of-band data.",
    },
    "EVFILT_USER": {
        "NOTE_FFCOPY": "replaces the flags of the user event.",
        "NOTE_FFAND": "keeps the flags of the user event that are given.",
        "NOTE_FFOR": "adds flags to the user event.",
        "NOTE_TRIGGER": "triggers the user event.",
    },
    "EVFILT_TIMER": {
        "NOTE_SECONDS": "the timer counts seconds.",
        "NOTE_MSECONDS": "the timer counts milliseconds.",
        "NOTE_USECONDS": "the timer counts microseconds.",
        "NOTE_NSECONDS": "the timer counts nanoseconds.",
        "NOTE_ABSTIME": _MOMENT,
        "NOTE_ABSOLUTE": _MOMENT,
    },
    "EVFILT_VNODE": {
        "NOTE_DELETE": "the file was deleted.",
        "NOTE_WRITE": "the file was written to.",
        "NOTE_EXTEND": "the file has grown.",
        "NOTE_ATTRIB": "the file's attributes have changed.",
        "NOTE_LINK": "the number of the file's links has changed.",
        "NOTE_RENAME": "the file was renamed.",
        "NOTE_REVOKE": "access to the file was revoked.",
        "NOTE_OPEN": "the file was opened.",
        "NOTE_CLOSE": "the file was closed by a program that only read it.",
        "NOTE_CLOSE_WRITE": "the file was closed by a program that could write it.",
        "NOTE_READ": "the file was read.",
    },
    "EVFILT_PROC": {
        "NOTE_EXIT": "the process has ended.",
        "NOTE_FORK": "the process has forked.",
        "NOTE_EXEC": "the process has started another program.",
        "NOTE_TRACK": "the children of the process are watched, too.",
        "NOTE_TRACKERR": "a child of the process could not be watched.",
        "NOTE_CHILD": "this process is the child of a watched one.",
    },
}
KQUEUEX_FLAGS = {
    "KQUEUE_CLOEXEC": _CLOEXEC,
    "KQUEUE_CPONFORK": "a forked child gets a copy of the queue.",
}
DEVPOLL_COMMANDS = {
    "DP_POLL": "waits until a descriptor of the set is ready.",
    "DP_ISPOLLED": "asks whether a descriptor is in the set.",
    "DP_PPOLL": "waits with a timeout in nanoseconds.",
    "DP_EPOLLCOMPAT": "makes the set behave as epoll does.",
}
PORT_SOURCES = {
    "PORT_SOURCE_USER": "the event was sent by the program, with port_send.",
    "PORT_SOURCE_FD": "the object is a descriptor, and its events are poll's flags.",
}
OPEN_FLAGS = {
    "O_RDWR": "opens for reading and writing.",
    "O_WRONLY": "opens for writing.",
    "O_NONBLOCK": _NONBLOCK,
    "O_CLOEXEC": _CLOEXEC,
}
EVENTFD_FLAGS = {
    "EFD_CLOEXEC": _CLOEXEC,
    "EFD_NONBLOCK": _NONBLOCK,
}
