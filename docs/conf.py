"""How Sphinx builds the documentation: ``python -m sphinx -W -b html docs build``.

It needs the extra ``docs`` of the package, and no network.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import selectors_ffi

project = "selectors_ffi"
author = "selectors_ffi authors"
version = release = selectors_ffi.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3  # other pages link to sections by their titles
nitpicky = False  # names of the standard library are not looked up: that would need the network

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = f"selectors_ffi {release}"
html_show_copyright = False

#: Where an object has no docstring of its own autodoc shows that of its type.
_NO_DOCSTRINGS = ("Alias for field number", "Built-in immutable sequence", "str(object=")


def _leave_out(_app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    if lines and lines[0].startswith(_NO_DOCSTRINGS):
        lines.clear()


def setup(app: Any) -> None:
    """Tell Sphinx what to leave out."""
    app.connect("autodoc-process-docstring", _leave_out)
