"""Decoders: what each system call was given and returned, as text and as events.

One module per mechanism, each a table ``FORMS`` of C function name -> ``Form``. They need a
target's declarations (``ffi``) and memory, never its kernel: a FreeBSD ``struct kevent`` is
decoded on Linux.
"""

from __future__ import annotations

from typing import Any

from . import devpoll, epoll, eventport, kqueue, poll, select
from .form import Arguments, Form, Native

__all__ = ["FORMS", "Arguments", "Form", "Native", "form_of"]

FORMS: dict[str, type[Form]] = {
    **epoll.FORMS,
    **poll.FORMS,
    **select.FORMS,
    **kqueue.FORMS,
    **devpoll.FORMS,
    **eventport.FORMS,
    "close": Form,
}


def form_of(ffi: Any, name: str) -> Form:
    """Return the form of the C function ``name``: its own, or the default one."""
    return FORMS.get(name, Form)(ffi)
