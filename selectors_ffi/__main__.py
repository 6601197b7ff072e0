"""``python -m selectors_ffi``: see ``selectors_ffi.cli``."""

from __future__ import annotations

import sys

from selectors_ffi.cli import main

sys.exit(main())
