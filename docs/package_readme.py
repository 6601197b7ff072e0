"""The README as the package index shows it: hatchling asks for it when it builds.

The index shows the README alone, so a link to a file of the repository would lead nowhere there. Where
``[project.urls]`` names the repository such links become links to it; elsewhere their text remains.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?![a-z]+:|#)([^)\s]+)\)")


def package_readme(text: str, repository: str | None) -> str:
    """Return the README without links that the package index cannot follow."""

    def replaced(link: re.Match[str]) -> str:
        image, words, path = link.groups()
        if repository is None:
            return "" if image else words
        kind = "raw" if image else "blob"
        return f"{image}[{words}]({repository}/{kind}/main/{path})"

    return _LINK.sub(replaced, text)


class ReadmeHook(MetadataHookInterface):
    """Puts the text where hatchling looks for it."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set ``readme``."""
        text = (Path(self.root) / "README.md").read_text("utf-8")
        repository = metadata.get("urls", {}).get("Repository")
        readme = {"content-type": "text/markdown", "text": package_readme(text, repository)}
        metadata["readme"] = readme
