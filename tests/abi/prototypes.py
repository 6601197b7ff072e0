"""The C functions of each target as their manual pages have them, by C name.

Written from the manuals; test_symbols compares them with the text of cdef/. The
types are those of the call's ABI: a pointer that is ``void *`` here is one that we
pass our own memory to (see cdef/).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_POLL = "int poll(struct pollfd *, nfds_t, int)"
_PPOLL = "int ppoll(struct pollfd *, nfds_t, const struct timespec *, const void *)"
_SELECT = "int select(int, void *, void *, void *, struct timeval *)"
_CLOSE = "int close(int)"
_KQUEUE = "int kqueue(void)"
_KQUEUE1 = "int kqueue1(int)"
_KEVENT = "int kevent(int, const struct kevent *, int, struct kevent *, int, const struct timespec *)"
_KEVENT_SIZE_T = _KEVENT.replace(", int,", ", size_t,")
_LINUX = (
    _POLL,
    _PPOLL,
    _SELECT,
    _CLOSE,
    "int dup3(int, int, int)",
    "int epoll_create1(int)",
    "int epoll_ctl(int, int, int, const void *)",
    "int epoll_wait(int, struct epoll_event *, int, int)",
    "int epoll_pwait2(int, struct epoll_event *, int, const struct timespec *, const void *)",
)
_BSD = (_POLL, _SELECT, _CLOSE, _KQUEUE)

_BY_SYSTEM: Mapping[str, tuple[str, ...]] = {
    "linux": _LINUX,
    "darwin": (*_BSD, _KEVENT),
    "freebsd": (*_BSD, _PPOLL, _KEVENT, _KQUEUE1, "int kqueuex(unsigned int)"),
    "freebsd11": (*_BSD, _PPOLL, _KEVENT),
    "netbsd": (*_BSD, _PPOLL, _KQUEUE1, _KEVENT_SIZE_T),
    "netbsd11": (*_BSD, _PPOLL, _KQUEUE1, _KEVENT_SIZE_T),
    "openbsd": (*_BSD, _PPOLL, _KQUEUE1, _KEVENT),
    "dragonfly": (*_BSD, _PPOLL, _KEVENT),
    "sunos": (
        _POLL,
        _SELECT,
        _CLOSE,
        "int open(const char *, int, ...)",
        "int ioctl(int, int, ...)",
        "ssize_t write(int, const void *, size_t)",
        "int port_create(void)",
        "int port_associate(int, int, uintptr_t, int, void *)",
        "int port_dissociate(int, int, uintptr_t)",
        "int port_send(int, int, void *)",
        "int port_getn(int, struct port_event *, unsigned int, unsigned int *, struct timespec *)",
    ),
    "windows": (
        "int __stdcall select(int, fd_set *, fd_set *, fd_set *, const struct timeval *)",
        "int __stdcall WSAGetLastError(void)",
    ),
    "libkqueue": (_KQUEUE, _CLOSE, _KEVENT),
}

NFDS_T = {"linux": "unsigned long", "sunos": "unsigned long"}
"""``unsigned int`` where not named."""


def system_of(target: str) -> str:
    """Return the name under which a target's prototypes are kept."""
    if target.startswith("linux"):
        return "linux"
    return target.replace("_i386", "")


def prototypes_of(target: str) -> dict[str, str]:
    """Return C function -> prototype, from the manuals."""
    return {_name(text): text for text in _BY_SYSTEM[system_of(target)]}


def parse(text: str) -> dict[str, str]:
    """Return function -> prototype without argument names, from the text of a cdef file."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    text = re.sub(r"^#.*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"\{.*?\}", "", text, flags=re.DOTALL)
    found = {}
    for statement in text.split(";"):
        match = re.fullmatch(r"\s*([\w\s*]+?[\s*])([\w$]+)\((.*)\)\s*", statement, re.DOTALL)
        if match:
            result, name, arguments = match.groups()
            types = [_type(argument) for argument in arguments.split(",")]
            found[name] = f"{' '.join(result.split())} {name}({', '.join(types)})"
    return found


def _type(argument: str) -> str:
    """Drop the name of an argument: what stands after a star or after the type."""
    argument = " ".join(argument.split())
    if argument in ("void", "...") or argument.endswith("*"):
        return argument
    return (
        re.sub(r"\s*\w+$", "", argument) if "*" not in argument else argument[: argument.rindex("*") + 1]
    )


def _name(prototype: str) -> str:
    return prototype[: prototype.index("(")].split()[-1].lstrip("*")
