"""The README and the addresses that the package index shows: hatchling asks for them when it builds.

The index shows the README alone, so a link to a file of the repository would lead nowhere there. Where
``REPOSITORY_URL`` names the repository, as the release workflow does, such links become links to it, and
the project's addresses are those of the repository. Elsewhere their text remains.
"""

from __future__ import annotations

import os
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


def urls(repository: str | None) -> dict[str, str]:
    """Return the project's addresses by title."""
    if repository is None:
        return {}
    return {
        "Repository": repository,
        "Documentation": f"{repository}/blob/main/docs/index.md",
        "Changelog": f"{repository}/blob/main/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }


class ReadmeHook(MetadataHookInterface):
    """Puts both where hatchling looks for them."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set ``readme`` and ``urls``."""
        text = (Path(self.root) / "README.md").read_text("utf-8")
        repository = os.environ.get("REPOSITORY_URL") or None
        metadata["urls"] = urls(repository)
        readme = {"content-type": "text/markdown", "text": package_readme(text, repository)}
        metadata["readme"] = readme
