"""Translates: ``EVENT_*`` masks to native flags and back, one class per mechanism.

All six classes are here on every system. One that this system lacks raises ``OSError`` (ENOSYS)
when it is made, unless it is given a binding of another kernel.
"""

from .base import EVENT_READ, EVENT_WRITE, BaseSelector, SelectorKey
from .beyond import EDGE, EVENT_HANGUP, EVENT_PRIORITY, LEVEL, ONESHOT
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
