"""Decide what the kernel says: faults, delays, other orders, other systems, without leaving Python.

``inject("epoll_ctl:error=ENOSPC:when=3")`` makes calls fail. ``chaos(seed)`` gives only answers that
a kernel may give, in an order that a program hardly ever sees. ``kernel("freebsd")`` is another
system. Each returns a binding for ``Selector(binding=...)``; ``injecting(...)``, ``chaotic(...)`` and
``on_kernel(...)`` are blocks that reach every selector that is made in them.
"""

from __future__ import annotations

from .chaos import Chaos, chaos, chaotic
from .injection import Injection, UnreachedWarning, inject, injecting
from .kernels import NAMES as KERNELS
from .kernels import kernel
from .on_kernel import on_kernel

__all__ = [
    "KERNELS", "Chaos", "Injection", "UnreachedWarning", "chaos", "chaotic", "inject", "injecting",
    "kernel", "on_kernel",
]  # fmt: skip
