"""Against the real strace: one run seen by both, call for call."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STRACE = shutil.which("strace")
CALLS = "epoll_create1,epoll_ctl,epoll_wait,epoll_pwait,epoll_pwait2,poll,ppoll,select,pselect6"

PROGRAM = """
import os, selectors, signal, socket
signal.signal(signal.SIGALRM, lambda *arguments: None)
for cls in (selectors.EpollSelector, selectors.PollSelector, selectors.SelectSelector):
    os.access("/begin", 0)
    selector = cls()
    pairs = [socket.socketpair() for _ in range(3)]
    for first, second in pairs:
        selector.register(first, selectors.EVENT_READ)
        selector.register(second, selectors.EVENT_READ | selectors.EVENT_WRITE)
    selector.select(0)
    for first, second in pairs:
        selector.modify(second, selectors.EVENT_READ)
    selector.select(-1)
    selector.select(0.001)
    selector.select(0.0000004)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    selector.select(0.04)
    for first, second in pairs:
        second.send(b"x" * 5)
    selector.select()
    try:
        with open("/etc/passwd") as file:
            selector.register(file, selectors.EVENT_READ)
            selector.unregister(file)
    except OSError:
        pass
    try:
        selector.register(1234, selectors.EVENT_READ)
        selector.unregister(1234)
    except OSError:
        pass
    pairs[0][1].close()
    pairs[1][1].shutdown(socket.SHUT_WR)
    try:
        selector.select(1)
        selector.select(0)
    except OSError:
        pass
    selector.unregister(pairs[0][1])
    selector.unregister(pairs[1][0])
    many = [os.dup(pairs[2][0].fileno()) for _ in range(40)]
    for fd in many:
        selector.register(fd, selectors.EVENT_READ)
    selector.select(1)
    for fd in many:
        selector.unregister(fd)
        os.close(fd)
    selector.select(0)
    selector.close()
    for pair in pairs:
        for sock in pair:
            sock.close()
    os.access("/end", 0)
"""


def works() -> bool:
    """Tell whether strace is here and may trace."""
    if STRACE is None or not sys.platform.startswith("linux"):
        return False
    command = [STRACE, "-o", os.devnull, sys.executable, "-c", ""]
    return subprocess.run(command, capture_output=True, timeout=50).returncode == 0


def of_strace(path: Path) -> list[str]:
    """Return strace's lines of the program, in our grammar.

    What differs is how the C library makes its call: it hands select(2) to pselect6 with a
    timespec, appends the size of a signal set, and the kernel writes back the time that is left.
    musl makes epoll_wait as epoll_pwait without a set.
    """
    lines, inside = [], False
    for line in path.read_text().splitlines():
        if line.startswith("access("):
            inside = "/begin" in line
            continue
        if not inside or line.startswith("---"):
            continue
        text = re.sub(r"\)\s+= ", ") = ", line)
        text = re.sub(r"data=\{u32=\d+, u64=(\d+)\}", lambda m: f"data={int(m[1]):#x}", text)
        text = re.sub(r", left \{[^}]*\}", "", text)
        if text.startswith("pselect6("):
            text = text.replace("pselect6(", "select(").replace(", NULL) = ", ") = ")
            text = re.sub(r"tv_nsec=(\d+)", lambda m: f"tv_usec={int(m[1]) // 1000}", text)
        elif text.startswith("epoll_pwait("):  # musl's epoll_wait
            text = text.replace("epoll_pwait(", "epoll_wait(").replace(", NULL, 8) = ", ") = ")
        elif text.startswith(("ppoll(", "epoll_pwait2(")):
            text = text.replace(", NULL, 8) = ", ", NULL) = ")
        if text.startswith("epoll_pwait2("):  # whose timeout strace shows only after success
            text = re.sub(r"0x[0-9a-f]+, NULL\) = ", "TIMEOUT, NULL) = ", text)
        # What the kernel says to itself: EINTR, by any other name.
        text = text.replace("? ERESTARTNOHAND (To be restarted if no handler)", EINTR)
        text = text.replace("? ERESTART_RESTARTBLOCK (Interrupted by signal)", EINTR)
        lines.append(text)
    return lines


EINTR = "-1 EINTR (Interrupted system call)"


def of_trace(path: Path) -> list[str]:
    """Return our lines without durations, and without close(2), which strace was not asked for."""
    lines = [re.sub(r"^\[\w+-\d+\] | <[\d.]+>$", "", line) for line in path.read_text().splitlines()]
    failed = r"(epoll_pwait2.*)\{tv_sec=.*\}(, NULL\) = -1)"
    lines = [re.sub(failed, r"\1TIMEOUT\2", line) for line in lines]
    return [line for line in lines if not line.startswith("close(")]


@pytest.mark.skipif(not works(), reason="needs strace, and leave to trace")
def test_same_calls_same_arguments_same_results(tmp_path):
    """strace and trace, watching one run, agree on every call, argument and result."""
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    theirs, ours = tmp_path / "strace", tmp_path / "trace"
    command = [STRACE, "-o", theirs, "-e", f"trace={CALLS},access", sys.executable]
    command += ["-m", "selectors_ffi", "trace", "-o", ours, program]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, timeout=50, env=environment)

    expected, got = of_strace(theirs), of_trace(ours)

    assert got == expected
    assert len(got) > 100
    names = {line.partition("(")[0] for line in got}
    assert {"epoll_create1", "epoll_ctl", "epoll_wait", "poll", "select"} <= names
    text = "\n".join(got)
    for seen in ("EBADF", "EINTR", "EPERM", "Timeout", "EPOLLHUP", "POLLNVAL", "..."):
        assert seen in text, seen
