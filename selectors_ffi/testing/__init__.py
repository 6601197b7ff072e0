"""Decide what the kernel says: faults, delays, other orders, other systems, without leaving Python.

``inject("epoll_ctl:error=ENOSPC:when=3")`` makes calls fail. ``chaos(seed)`` gives only answers that
a kernel may give, in an order that a program hardly ever sees. ``kernel("freebsd")`` is another
system. Each returns a binding for ``Selector(binding=...)``; ``injecting(...)``, ``chaotic(...)`` and
``on_kernel(...)`` are blocks that reach every selector that is made in them.
"""
