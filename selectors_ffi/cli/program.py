"""Run a Python program inside this process exactly as ``python`` would run it.

``python`` accepts a file, a directory or a zip file with a ``__main__.py``, ``-m module``,
``-c code`` and ``-`` (standard input). This module accepts the same words. The program sees
the ``__main__`` module, ``sys.argv`` and ``sys.path`` that it sees without us. Its exit status
is its own, and its tracebacks do not show our frames.

Two things stay different. ``sys.orig_argv`` is the real command line, so a program that starts
itself again is traced again. ``traceback.print_stack()`` shows our frames below the program's.
"""

from __future__ import annotations

import io
import linecache
import os
import runpy
import stat
import sys
import textwrap
from collections.abc import Sequence
from importlib.machinery import BuiltinImporter, SourceFileLoader, SourcelessFileLoader
from importlib.util import MAGIC_NUMBER
from pkgutil import get_importer
from types import CodeType, ModuleType, TracebackType
from typing import Any, Callable

__all__ = ["load"]

#: What runs a program; see ``load``.
Run = Callable[[], None]


def load(words: Sequence[str]) -> Run:
    """Return a function that runs a program; nothing of the program has run before that call.

    Args:
        words: what would follow ``python`` on a command line: ``["-m", "http.server", "80"]``.

    Raises:
        ValueError: no program is named, or its file cannot be read.
    """
    if not words:
        raise ValueError("no program to run")
    first, *arguments = words
    for option, make in (("-c", _code), ("-m", _module)):
        if first.startswith(option):
            if first == option and not arguments:
                raise ValueError(f"{option} needs an argument")
            value = first[2:] or arguments.pop(0)
            return _Program([option, *arguments], make(value)).run
    if first == "-":
        # Windows' interpreter makes an absolute path also of "-".
        folder = os.getcwd() if os.name == "nt" else None
        return _Program([first, *arguments], _standard_input(), folder).run
    path = _absolute(first)
    if get_importer(path) is not None:
        # A directory or a zip file, which comes first in sys.path even with python -I.
        return _Program([first, *arguments], _container, path, always=True).run
    try:
        start = _file(path, first if sys.implementation.name == "pypy" else path)
    except OSError as error:
        raise ValueError(f"can't open file {first!r}: {error.strerror}") from None
    return _Program([first, *arguments], start, os.path.dirname(os.path.realpath(path))).run


class _Program:
    """A program that has been read and not yet run."""

    def __init__(
        self,
        argv: list[str],
        start: Callable[[], object],
        folder: str | None = None,
        always: bool = False,
    ) -> None:
        self._argv = argv
        self._start = start
        self._folder = folder
        self._always = always

    def run(self) -> None:
        """Run it in a fresh ``__main__``.

        Raises:
            BaseException: the program's own, SystemExit included. If it ends the process, the
                traceback that is shown begins with the program's first frame.
        """
        sys.argv[:] = self._argv
        self._set_path()
        _fresh_main()
        try:
            self._start()
        except BaseException as error:
            _hide_our_frames(error)
            raise

    def _set_path(self) -> None:
        """Put the program's folder where ``python -m`` has put the current one."""
        safe = getattr(sys.flags, "safe_path", False) or sys.flags.isolated
        if self._argv[0] == "-m":
            return  # the current folder is right
        folder = self._folder or ""
        if not safe:
            sys.path[0:1] = [folder]
        elif self._always:
            sys.path.insert(0, folder)


def _absolute(path: str) -> str:
    """Return ``path`` as the interpreter makes it absolute; CPython keeps ``./`` and ``..``."""
    if os.name == "nt" or sys.implementation.name == "pypy":
        return os.path.abspath(path)
    return os.path.join(os.getcwd(), path)


def _fresh_main() -> ModuleType:
    """Put a ``__main__`` as the interpreter makes it in place of our own."""
    main = ModuleType("__main__")
    main.__loader__ = BuiltinImporter
    main.__builtins__ = sys.modules["builtins"]  # type: ignore[attr-defined]
    if sys.version_info < (3, 14):
        main.__annotations__ = {}
    sys.modules["__main__"] = main
    return main


def _file(path: str, told: str) -> Callable[[], object]:
    """Read a file; ``told`` is the path that a loader of source is given."""
    with io.open_code(path) as file:
        regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        content = file.read()
    compiled = regular and (path.endswith(".pyc") or content[:2] == MAGIC_NUMBER[:2])

    def start() -> None:
        names = _named(path)
        if compiled:
            loader = SourcelessFileLoader("__main__", path)
            names["__loader__"] = loader
            code = loader.get_code("__main__")
            assert code is not None
        else:
            names["__loader__"] = SourceFileLoader("__main__", told)
            code = compile(content, path, "exec", dont_inherit=True)
        exec(code, names)

    return start


def _standard_input() -> Callable[[], object]:
    content = sys.stdin.buffer.read()

    def start() -> None:
        names = _named("<stdin>")
        exec(compile(content, "<stdin>", "exec", dont_inherit=True), names)

    return start


def _code(text: str) -> Callable[[], object]:
    def start() -> None:
        source = (textwrap.dedent(text) if sys.version_info >= (3, 14) else text) + "\n"
        code = compile(source, "<string>", "exec", dont_inherit=True)
        _show_source_of(code, source)
        exec(code, vars(sys.modules["__main__"]))

    return start


def _module(name: str) -> Callable[[], object]:
    # Private, but it is the function that the interpreter itself calls. runpy.run_module() clears
    # the module when the main thread ends, while other threads may still use it.
    return lambda: runpy._run_module_as_main(name)  # type: ignore[attr-defined]


def _container() -> object:
    return runpy._run_module_as_main("__main__", False)  # type: ignore[attr-defined]


def _named(file: str) -> dict[str, Any]:
    """Return the names of ``__main__`` with those that a file has."""
    names = vars(sys.modules["__main__"])
    names["__file__"] = file
    if sys.version_info < (3, 15):
        names["__cached__"] = None
    return names


def _show_source_of(code: CodeType, source: str) -> None:
    """Let tracebacks show the lines of ``-c``, as the interpreter does from Python 3.13 on."""
    register = getattr(linecache, "_register_code", None)
    if register is not None:
        key = code if hasattr(linecache, "_interactive_cache") else code.co_filename
        register(key, source, code.co_filename)


def _hide_our_frames(error: BaseException) -> None:
    """Let the interpreter show ``error``, if it ends the process, without our frames.

    Until it is shown, the hook keeps the error, and so all that the program's functions hold. An exit
    is never shown; to keep it would let the program's objects live longer than they do without us.
    """
    if isinstance(error, SystemExit):
        return
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    shown = sys.excepthook

    def show(kind: type[BaseException], value: BaseException, full: TracebackType | None) -> None:
        if value is error:
            if sys.excepthook is show:
                sys.excepthook = shown
            full = value.__traceback__ = sys.last_traceback = trace
        shown(kind, value, full)

    sys.excepthook = show
