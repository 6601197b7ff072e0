"""A plugin of pytest: collections and switches of threads come as often as they can.

    python -m pytest -q -p tests.stress

Finalisers and other threads then run in the middle of what seems to be one step. Of one that is not, a
normal run of the suite shows one failure in weeks.
"""

from __future__ import annotations

import gc
import sys


def pytest_runtest_setup(item):
    """Begin anew before each test, since some set these themselves."""
    if hasattr(gc, "set_threshold"):  # PyPy collects as it likes
        gc.set_threshold(4, 10, 50)
    sys.setswitchinterval(0.000_001)
