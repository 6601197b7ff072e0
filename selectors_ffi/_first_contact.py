"""What a user reads when the package cannot be imported: one line that says what to do.

``import selectors_ffi`` raises. ``python -m selectors_ffi`` prints the line instead of a traceback:
the interpreter imports the package before the command line runs.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ["end_of_command", "explain_missing_cffi"]


def explain_missing_cffi(error: ImportError) -> NoReturn:
    """Raise ``error``, which says why cffi cannot be imported, with what to do if that is known."""
    if isinstance(error, ModuleNotFoundError):
        message = "selectors_ffi needs cffi: pip install cffi"
        end_of_command(message, 1)
        raise ModuleNotFoundError(message, name=error.name) from None
    if "subinterpreter" not in str(error):
        raise error
    raise ImportError(
        "selectors_ffi needs cffi, which an isolated subinterpreter cannot load;"
        " use the standard library's selectors there, or import selectors_ffi in the main"
        " interpreter",
        name=error.name,
    ) from None


def end_of_command(message: object, status: int) -> None:
    """End the process with one line if it was started as ``python -m selectors_ffi``."""
    package = __name__.partition(".")[0]
    frame = sys._getframe()
    while frame is not None:
        # The function of runpy that imports the package of the module to run.
        if frame.f_code.co_name == "_get_module_details":
            if frame.f_locals.get("pkg_name") == package:
                print(f"python -m {package}: {message}", file=sys.stderr)
                sys.exit(status)
            return
        frame = frame.f_back  # type: ignore[assignment] # None at the end
