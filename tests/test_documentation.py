"""The documentation as a whole: it builds, has every page and every public name, and no dead link."""

from __future__ import annotations

import inspect
import re
import subprocess
from importlib.util import find_spec

import pytest

import selectors_ffi
import selectors_ffi.debug
import selectors_ffi.testing
from selectors_ffi import backends
from tests import apart
from tests.source import TREE

DOCS = TREE / "docs"
PAGES = sorted(path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md"))
TEXTS = {page: (DOCS / f"{page}.md").read_text("utf-8") for page in PAGES}


def listed():
    """Return the pages that the index lists."""
    trees = re.findall(r"```\{toctree\}\n(.*?)```", TEXTS["index"], re.S)
    lines = [line for tree in trees for line in tree.splitlines()]
    return [line for line in lines if line and not line.startswith(":")]


def slugs(text):
    """Return the anchors of the titles of a page."""
    titles = re.findall(r"^#{1,3} (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_page_is_listed():
    """The index lists every page once, and there are fewer than 25."""
    assert sorted(listed()) == [page for page in PAGES if page != "index"]
    assert len(PAGES) < 25


@pytest.mark.parametrize("page", PAGES)
def test_links(page):
    """A link of a page leads to a page, a section of it, or a file of the repository."""
    text = re.sub(r"^```.*?^```", "", TEXTS[page], flags=re.M | re.S)
    folder = (DOCS / f"{page}.md").parent
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        name, _, section = target.partition("#")
        path = (folder / name).resolve() if name else DOCS / f"{page}.md"
        assert path.exists(), target
        if section:
            assert section in slugs(path.read_text("utf-8")), target


def test_every_public_name_is_in_the_reference():
    """The reference has what the package, debug and testing export, and the binding."""
    names = {*selectors_ffi._LATER, *backends.__all__, "DefaultSelector", "SelfTestError"}
    names |= {*selectors_ffi.debug.__all__, *selectors_ffi.testing.__all__, "Binding", "load", "default"}

    missing = [name for name in names if not re.search(rf"[`. ]{name}\b", TEXTS["reference"])]
    assert missing == []


@pytest.mark.parametrize("name", [name for name in backends.__all__ if name.endswith("Selector")])
def test_every_public_method_has_a_docstring(name):
    """The reference finds a text for each method, and ``help()`` does."""
    cls = getattr(backends, name)
    methods = [method for method in dir(cls) if not method.startswith("_")]

    assert "register" in methods
    assert [method for method in methods if not inspect.getdoc(getattr(cls, method))] == []


def test_no_name_of_the_reference_is_gone():
    """Each directive of the reference names an object that there is."""
    import importlib

    paths = re.findall(r"^\.\. auto(?:class|function|data|exception):: (\S+)", TEXTS["reference"], re.M)
    assert paths
    for path in paths:
        module, _, name = path.rpartition(".")
        if hasattr(backends, name) and module == "selectors_ffi":
            module = "selectors_ffi.backends"  # where this host lacks it
        assert hasattr(importlib.import_module(module), name), path


@pytest.mark.skipif(
    not all(find_spec(name) for name in ("sphinx", "furo", "myst_parser")),
    reason="the extra docs is not installed",
)
@pytest.mark.timeout(300)
def test_it_builds_without_a_warning(tmp_path):
    """Sphinx builds the pages, with warnings as errors."""
    command = ["-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", str(tmp_path / "trees")]
    done = apart.python(*command, DOCS, tmp_path / "html", stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout
    assert "wakeup" in (tmp_path / "html" / "reference.html").read_text("utf-8")
