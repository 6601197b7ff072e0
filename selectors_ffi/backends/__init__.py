"""Translates: ``EVENT_*`` masks to native flags and back, one class per mechanism.

All six classes are here on every system. One that this system lacks raises ``OSError`` (ENOSYS)
when it is made, unless it is given a binding of another kernel. The module of a class is imported
when the class is first asked for.
"""

from __future__ import annotations

from importlib import import_module

from .base import EVENT_READ, EVENT_WRITE, BaseSelector, SelectorKey
from .beyond import EDGE, EVENT_HANGUP, EVENT_PRIORITY, LEVEL, ONESHOT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .devpoll import DevpollSelector
    from .epoll import EpollSelector
    from .eventport import EventPortSelector
    from .kqueue import KqueueSelector
    from .poll import PollSelector
    from .select import SelectSelector

__all__ = [
    "EDGE",
    "EVENT_HANGUP",
    "EVENT_PRIORITY",
    "EVENT_READ",
    "EVENT_WRITE",
    "LEVEL",
    "ONESHOT",
    "BaseSelector",
    "DevpollSelector",
    "EpollSelector",
    "EventPortSelector",
    "KqueueSelector",
    "PollSelector",
    "SelectSelector",
    "SelectorKey",
]


# Names whose modules are imported when they are first asked for.
_LATER = {
    "DevpollSelector": ".devpoll",
    "EpollSelector": ".epoll",
    "EventPortSelector": ".eventport",
    "KqueueSelector": ".kqueue",
    "PollSelector": ".poll",
    "SelectSelector": ".select",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    cls = globals()[name] = getattr(import_module(_LATER[name], __name__), name)
    return cls


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
