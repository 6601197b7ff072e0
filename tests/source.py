"""Where the source is that tests read: beside them, or in the unpacked sdist that ``SDIST`` names.

So the suite can run against an installed wheel. A package beside the tests would be imported instead.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TREE = Path(os.environ.get("SDIST", ROOT)).resolve()
PACKAGE = TREE / "selectors_ffi"
CDEF = PACKAGE / "_abi" / "cdef"

if TREE != ROOT:
    sys.path.append(str(TREE))  # for build_ffi; last, since the package is there, too
