"""Program: run a Python script or module as ``python`` itself would, within this process.

Its arguments, exit status, signals and tracebacks are what they are without us.
"""

from __future__ import annotations

import io
import os
import sys
from types import CodeType, ModuleType, TracebackType
from typing import Any, NoReturn

__all__ = ["run_module", "run_script"]


def run_script(path: str, arguments: list[str]) -> None:
    """Run ``python path arguments...``.

    Raises:
        SystemExit: the program's own.
        OSError: it cannot be read.
    """
    with io.open_code(os.path.abspath(path)) as file:
        source = file.read()
    main = _fresh_main()
    main.__file__ = path
    main.__builtins__ = __builtins__  # type: ignore[attr-defined] # as the interpreter does
    sys.argv[:] = [path, *arguments]
    sys.path[0:1] = [os.path.dirname(os.path.realpath(path))]
    try:
        code = compile(source, path, "exec", dont_inherit=True)
        _execute(code, vars(main))
    except BaseException as error:
        _raise_as_its_own(error)


def run_module(name: str, arguments: list[str]) -> None:
    """Run ``python -m name arguments...``; raises as ``run_script``."""
    import runpy

    _fresh_main()
    sys.argv[:] = ["-m", *arguments]
    try:
        # Private, but it is what the interpreter calls: run_module() throws its module away when
        # the main thread ends, under the feet of other threads.
        runpy._run_module_as_main(name)  # type: ignore[attr-defined]
    except BaseException as error:
        _raise_as_its_own(error)


def _fresh_main() -> ModuleType:
    """Return an empty ``__main__``, in place of that of our own command line."""
    main = ModuleType("__main__")
    main.__spec__ = None
    main.__package__ = None
    sys.modules["__main__"] = main
    return main


def _execute(code: CodeType, names: dict[str, Any]) -> None:
    exec(code, names)


def _raise_as_its_own(error: BaseException) -> NoReturn:
    """Let an exception end the process as if our frames were not below the program's."""
    shown = sys.excepthook

    def show(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
        trace = _without_us(trace)
        value.__traceback__ = trace
        shown(kind, value, trace)

    if isinstance(error, BrokenPipeError):
        # Our command line takes this one for a reader of its own that went away.
        show(type(error), error, error.__traceback__)
        sys.exit(1)
    sys.excepthook = show
    raise error


def _without_us(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback from the program's first frame on."""
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if not name.startswith(ours) and "runpy" not in os.path.basename(name):
            break
        trace = trace.tb_next
    return trace
