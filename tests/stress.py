"""A plugin of pytest: collections and switches of threads come as often as they can.

    python -m pytest -q -p tests.stress

So finalisers and other threads run at places where they seldom run otherwise. A fault that needs one of
them there is hardly ever seen in a normal run.
"""

from __future__ import annotations

import gc
import sys


def pytest_runtest_setup(item):
    """Begin anew before each test, since some set these themselves."""
    if hasattr(gc, "set_threshold"):  # PyPy collects as it likes
        gc.set_threshold(4, 10, 50)
    sys.setswitchinterval(0.000_001)
