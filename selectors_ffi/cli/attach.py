"""``attach``: show what the selectors of a running process do."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from .options import add_filters, add_looks, check_times

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What the process runs. It says nothing of its own if the command is gone by then.
_SCRIPT = """\
def attach(address, folders, settings):
    import socket, sys
    link = socket.socket(socket.AF_UNIX)
    try:
        link.connect(address)
    except OSError:
        return
    added = [folder for folder in folders if folder not in sys.path]
    sys.path.extend(added)
    try:
        from selectors_ffi.debug import attached
        attached.begin(link.detach(), settings)
    except Exception as error:
        try:
            link.sendall(f"refused: {{type(error).__name__}}: {{error}}\\n".encode())
        except OSError:
            pass
        link.close()
    finally:
        for folder in added:
            sys.path.remove(folder)
attach({address!r}, {folders!r}, {settings!r})
"""
#: Takes its place if this command has stopped waiting for the process.
_GONE = "import shutil\nshutil.rmtree({folder!r}, ignore_errors=True)\n"
#: Seconds after which the command says what it is waiting for, and for the answer to a detach.
_PATIENCE = 3.0


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand and its options."""
    parser = subparsers.add_parser(
        "attach",
        help="show what the selectors of a running process do",
        description="Show what the selectors of a running process do, ours and the standard library's,"
        " until Ctrl-C. Nothing stays switched on in the process then. It needs CPython 3.14 or newer on"
        " both sides. The process need not have imported this package.",
        usage="%(prog)s [OPTION ...] PID",
    )
    parser.add_argument("pid", metavar="PID", help="the number of the process")
    group = parser.add_argument_group("what is shown")
    add_filters(group, "events")
    group.add_argument("--summary", action="store_true", help="a table of calls and times at the end")
    group = parser.add_argument_group("how it is shown")
    group.add_argument("-o", metavar="FILE", dest="output", default="", help="default: standard output")
    group.add_argument("--format", choices=("text", "json"), default="text")
    add_looks(group)
    parser.add_examples(
        ("what the kernel reports, and for which connection or task", "1234"),
        ("common mistakes, until Ctrl-C", "-e checks 1234"),
        ("what took the loop longer than 10 ms", "-e events --slower 10ms 1234"),
        ("how busy the loop is, and what wakes it", "--summary --limit 1 1234"),
    )
    parser.set_defaults(run=run, fail=parser.error)


def run(options: argparse.Namespace) -> int:
    """Attach, copy what comes, and detach; return 0."""
    from selectors_ffi.debug.attached import DEFAULT
    from selectors_ffi.debug.filters import about, chosen
    from selectors_ffi.debug.flags import TAPPED

    check_times(options)
    try:
        with ExitStack() as stack:
            if not chosen(options.expressions, DEFAULT).flags & TAPPED:
                raise ValueError("-e: leaks alone shows nothing of selectors that are made already")
            options.about = [one if one.isdecimal() else os.path.abspath(one) for one in options.about]
            for one in options.about:
                about(one)
            pid, output = _process(options.pid), sys.stdout.buffer
            if options.output:
                output = stack.enter_context(open(options.output, "wb"))
            listener = stack.enter_context(_meeting(pid, _settings(options, output)))
            _show(_accept(listener, pid), output, pid)
    except BrokenPipeError:
        raise  # of the output: main() ends without a word
    except (ValueError, OSError) as error:
        options.fail(str(error))  # exits
    except KeyboardInterrupt:
        pass  # before the process has answered
    return 0


def _process(text: str) -> int:
    """Return the number of a process that can be attached to.

    Raises:
        ValueError: it cannot, and why.
    """
    if not hasattr(sys, "remote_exec"):
        name = "PyPy" if sys.implementation.name == "pypy" else "CPython"
        raise ValueError(
            f"attach needs CPython 3.14 or newer, and this is {name} {sys.version.split()[0]}; in the"
            " program itself, selectors_ffi.debug.switch() and SELECTORS_FFI_SIGNAL do the same"
        )
    if not text.isdecimal() or not int(text):
        raise ValueError(f"PID is the number of a process, not {text!r}")
    pid = int(text)
    if pid == os.getpid():
        raise ValueError(f"process {pid} is this command itself")
    if os.name == "posix":
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            raise ValueError(f"there is no process {pid}") from None
        except PermissionError:
            raise ValueError(
                f"process {pid} belongs to another user; run this as that user, or as root"
            ) from None
    _must_run_our_python(pid)
    return pid


def _must_run_our_python(pid: int) -> None:
    """Refuse what procfs shows to be another version, or no Python; where it shows nothing, go on."""
    try:
        program = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
            mapped = {os.path.basename(line.split(maxsplit=5)[-1].strip()) for line in file}
    except OSError:
        return
    found = sorted(
        filter(None, (re.match(r"(?:lib)?(python|pypy)(\d\.\d+)", name) for name in mapped)),
        key=lambda match: match.group(),
    )
    if not found:
        if program.startswith(("python", "pypy")):
            return  # a build under a name of its own
        raise ValueError(f"process {pid} runs {program}, which is no Python")
    names = {"python": "CPython", "pypy": "PyPy"}
    ours = f"CPython {sys.version_info[0]}.{sys.version_info[1]}"
    theirs = f"{names[found[0][1]]} {found[0][2]}"
    if theirs != ours:
        raise ValueError(
            f"process {pid} runs {theirs}; this command, run by {ours}, reaches only {ours}"
        )


def _settings(options: argparse.Namespace, output: BinaryIO) -> str:
    from selectors_ffi.debug.lines import look_of

    names = ("expressions", "about", "failed", "slower", "limit", "stamp", "fold", "format", "summary")
    settings = {name: getattr(options, name) for name in names}
    settings["look"] = look_of(output.fileno(), options.colour)
    return json.dumps(settings)


@contextmanager
def _meeting(pid: int, settings: str) -> Iterator[socket.socket]:
    """Have the process connect to a socket in a folder of ours, which is removed at the end."""
    import _cffi_backend

    import selectors_ffi

    folder = tempfile.mkdtemp(prefix="selectors_ffi-")
    script, address = os.path.join(folder, "attach.py"), os.path.join(folder, "socket")
    modules = (selectors_ffi.__path__[0], str(_cffi_backend.__file__))
    folders = [os.path.dirname(os.path.abspath(path)) for path in modules]
    listener = socket.socket(socket.AF_UNIX)
    asked = False
    try:
        listener.bind(address)
        listener.listen(1)
        _write(script, _SCRIPT.format(address=address, folders=folders, settings=settings))
        _give_to_owner_of(pid, folder, script, address)
        try:
            sys.remote_exec(pid, script)  # type: ignore[attr-defined,unused-ignore] # 3.14
        except (RuntimeError, OSError) as error:
            raise ValueError(f"process {pid} cannot be reached: {error}") from None
        asked = True
        yield listener
    finally:
        listener.close()
        if asked and os.path.exists(address):
            # The process has not come, and would tell of a script that is missing when it does.
            _write(script, _GONE.format(folder=folder))
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _give_to_owner_of(pid: int, *paths: str) -> None:
    """Let the user of the process use our files, if that is another one."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return
    try:
        owner = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return
    for path in paths if owner else ():
        os.chown(path, owner, -1)


def _accept(listener: socket.socket, pid: int) -> socket.socket:
    """Wait for the process, which comes when its main thread runs Python code.

    Raises:
        ValueError: it has ended meanwhile.
    """
    listener.settimeout(_PATIENCE)
    told = False
    while True:
        try:
            link = listener.accept()[0]
            # The script has been read, so nothing stays if this command is killed.
            shutil.rmtree(os.path.dirname(listener.getsockname()), ignore_errors=True)
            return link
        except TimeoutError:
            if not _lives(pid):
                raise ValueError(f"process {pid} has ended") from None
        if not told:
            told = True
            print(
                f"selectors_ffi: waiting until the main thread of process {pid} runs Python code:"
                " it sleeps, or is in C",
                file=sys.stderr,
            )


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _show(link: socket.socket, output: BinaryIO, pid: int) -> None:
    """Copy what the process sends, until it ends or Ctrl-C comes."""
    link.settimeout(None)
    with link, link.makefile("rb") as lines:
        head = lines.readline().decode("utf-8", "replace").strip()
        if head.startswith("refused: "):
            raise ValueError(f"process {pid}: {head[len('refused: ') :]}")
        print(f"selectors_ffi: process {pid}: {head}; Ctrl-C ends it", file=sys.stderr)
        try:
            _copy(lines, output)
            print(f"selectors_ffi: process {pid} has ended", file=sys.stderr)
        except KeyboardInterrupt:
            link.shutdown(socket.SHUT_WR)  # the process switches off, and closes its end
            link.settimeout(_PATIENCE)
            try:
                _copy(lines, output)
                print(f"selectors_ffi: detached from process {pid}", file=sys.stderr)
            except OSError:
                print(
                    f"selectors_ffi: process {pid} has not answered for {_PATIENCE:g} s; it switches off"
                    " when it goes on",
                    file=sys.stderr,
                )


def _copy(lines: BinaryIO, output: BinaryIO) -> None:
    for line in lines:
        output.write(line)
        output.flush()
