"""Scripts: what happens before or after the C functions that a selector calls, or instead of them."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any, Callable

from selectors_ffi.testing.library import Call, proxied

#: Mechanism -> the functions that wait.
WAITS = {
    "epoll": ("epoll_wait", "epoll_pwait2"),
    "poll": ("poll", "ppoll"),
    "select": ("select",),
    "devpoll": ("ioctl",),
    "eventport": ("port_getn",),
    "kqueue": ("kevent",),
}
#: Mechanism -> the function that changes what the kernel watches.
CHANGES = {
    "epoll": "epoll_ctl",
    "kqueue": "kevent",
    "devpoll": "write",
    "eventport": "port_associate",
}


class Script:
    """Counts the calls of a binding by name, acts before and after them, has them fail.

    ``before`` and ``after`` hold an action, and ``failing`` an errno, for the next call of a name. Each
    entry is used once. ``binding`` is what to give to a selector.
    """

    def __init__(self, whole: Any, names: Sequence[str] | None = None) -> None:
        self.calls: collections.Counter[str] = collections.Counter()
        self.before: dict[str, Callable[[], object]] = {}
        self.after: dict[str, Callable[[], object]] = {}
        self.failing: dict[str, int] = {}
        self.binding = proxied(whole, self._play, names)

    def _play(self, call: Call) -> int:
        self.calls[call.name] += 1
        self.before.pop(call.name, bool)()
        errno = self.failing.pop(call.name, 0)
        if errno:
            return call.fail(errno)
        result = call.run()
        self.after.pop(call.name, bool)()
        return result

    def once_after(self, names: Sequence[str], action: Callable[[], object]) -> None:
        """Have something done after the next call of any of ``names``."""

        def act() -> None:
            for name in names:
                self.after.pop(name, None)
            action()

        self.after.update(dict.fromkeys(names, act))
