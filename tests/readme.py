"""Prints the README's set-up command of a number, as written: ``python tests/readme.py 1``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def commands() -> list[str]:
    """Return the set-up commands: every line of the sh blocks in the section "Set up"."""
    section = re.search(r"^## Set up\n(.*?)^## ", README.read_text("utf-8"), re.M | re.S)
    assert section, "the README has no section 'Set up'"
    blocks = re.findall(r"^```sh\n(.*?)^```", section[1], re.M | re.S)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


if __name__ == "__main__":
    print(commands()[int(sys.argv[1]) - 1])
