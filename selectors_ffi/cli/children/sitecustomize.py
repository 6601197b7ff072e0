"""Run by every Python process that a traced program starts; see ``selectors_ffi.cli.following``.

``trace -f`` puts this folder first in PYTHONPATH. The interpreter imports ``sitecustomize`` when it
starts; the environment's own ``sitecustomize``, which this file hides, is run afterwards.
"""

import importlib.machinery
import importlib.util
import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


def _follow() -> None:
    package = os.path.dirname(os.path.dirname(os.path.dirname(_HERE)))
    try:
        try:
            from selectors_ffi.cli.following import begin
        except ImportError:
            # The parent found the package elsewhere, perhaps in its current folder.
            sys.path.append(package)
            try:
                from selectors_ffi.cli.following import begin
            finally:
                sys.path.remove(package)
        begin()
    except Exception as error:  # the program is to run, traced or not
        reason = f"{type(error).__name__}: {error}"
        print(f"selectors_ffi: process {os.getpid()} is not traced: {reason}", file=sys.stderr)


def _run_the_hidden_one() -> None:
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", sys.path)
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != _HERE]
_follow()
_run_the_hidden_one()
