"""The system calls of a selector without the selector: the limit of every row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from selectors_ffi.binding import load


class BareCalls:
    """One mechanism's calls, through the same functions as the selector's, arguments prepared."""

    def __init__(self, backend: str) -> None:
        self._binding = load()
        self._ffi = self._binding.ffi
        self._backend = backend
        self._epfd = -1
        if backend == "epoll":
            create = self._binding.function("epoll_create1")
            self._epfd = self._binding.call(create, self._binding.constant("EPOLL_CLOEXEC"))

    def close(self) -> None:
        """Close the kernel object, if there is one."""
        if self._epfd >= 0:
            self._binding.close(self._epfd)

    def select(self, fds: list[int], both: bool) -> Callable[[], object]:
        """Return one call that asks for all of ``fds`` without waiting."""
        maker: Callable[..., Callable[[], object]] = getattr(self, f"_{self._backend}")
        return maker(fds, both)

    def register(self, fd: int) -> Callable[[], object]:
        """Return the calls of a register and an unregister with epoll."""
        constant, ctl, epfd = self._binding.constant, self._ctl(), self._epfd
        add, delete = constant("EPOLL_CTL_ADD"), constant("EPOLL_CTL_DEL")
        event, null = self._event(fd, constant("EPOLLIN")), self._ffi.NULL

        def register() -> None:
            ctl(epfd, add, fd, event)
            ctl(epfd, delete, fd, null)

        return register

    def modify(self, fd: int) -> Callable[[], object]:
        """Return the calls of a modify there and back with epoll."""
        constant, ctl, epfd = self._binding.constant, self._ctl(), self._epfd
        change, read = constant("EPOLL_CTL_MOD"), self._event(fd, constant("EPOLLIN"))
        both = self._event(fd, constant("EPOLLIN") | constant("EPOLLOUT"))
        ctl(epfd, constant("EPOLL_CTL_ADD"), fd, read)

        def modify() -> None:
            ctl(epfd, change, fd, both)
            ctl(epfd, change, fd, read)

        return modify

    def _ctl(self) -> Callable[..., int]:
        return self._binding.function("epoll_ctl")

    def _event(self, fd: int, flags: int) -> Any:
        return self._ffi.new("struct epoll_event *", {"events": flags, "data": fd})

    def _epoll(self, fds: list[int], both: bool) -> Callable[[], object]:
        constant = self._binding.constant
        flags = constant("EPOLLIN") | (constant("EPOLLOUT") if both else 0)
        for fd in fds:
            add = constant("EPOLL_CTL_ADD")
            self._binding.call(self._ctl(), self._epfd, add, fd, self._event(fd, flags))
        wait, epfd, n = self._binding.function("epoll_wait"), self._epfd, len(fds)
        events = self._ffi.new("struct epoll_event[]", n)
        return lambda: wait(epfd, events, n, 0)

    def _poll(self, fds: list[int], both: bool) -> Callable[[], object]:
        constant = self._binding.constant
        flags = constant("POLLIN") | (constant("POLLOUT") if both else 0)
        array = self._ffi.new("struct pollfd[]", [(fd, flags, 0) for fd in fds])
        poll, n = self._binding.function("poll"), len(fds)
        return lambda: poll(array, n, 0)

    def _select(self, fds: list[int], both: bool) -> Callable[[], object]:
        ffi, nfds = self._ffi, max(fds) + 1
        width = 8 * ffi.sizeof("fd_mask")
        words = nfds // width + 1
        interest, answer, writers = (ffi.new("fd_mask[]", words) for _ in range(3))
        for fd in fds:
            interest[fd // width] |= 1 << fd % width
        if both:
            ffi.memmove(writers, interest, ffi.sizeof(interest))
        zero = ffi.new("struct timeval *")
        select, memmove, null = self._binding.function("select"), ffi.memmove, ffi.NULL
        size = ffi.sizeof(interest)

        def call() -> None:
            memmove(answer, interest, size)  # the call writes its answer over it
            select(nfds, answer, writers, null, zero)

        return call
