"""README and the pages of docs/ with programs: what they show is run, and prints what they say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import selectors_ffi
from tests import needs
from tests.pages import Page, Run, agrees, masked, run

#: Pages with programs and commands; docs/testing.md has tests of its own.
NAMES = (
    "README.md",
    *(
        f"docs/{name}.md"
        for name in ("beyond", "cookbook", "debugging", "programs", "start", "tutorial")
    ),
    *(
        f"docs/mechanisms/{name}.md"
        for name in ("devpoll", "epoll", "eventport", "kqueue", "poll", "select")
    ),
)
PAGES = {name: Page(name) for name in NAMES}
RUNS = [one for page in PAGES.values() for one in page.runs]

as_shown = pytest.mark.skipif(
    not sys.platform.startswith("linux")
    or sys.implementation.name != "cpython"
    or sys.version_info < (3, 11)
    or getattr(selectors_ffi, "DefaultSelector", None) is not selectors_ffi.backends.EpollSelector,
    reason="the pages show a newer CPython with epoll",
)


@as_shown
@needs.interpreter_lock
@pytest.mark.parametrize("one", RUNS, ids=[f"{one.page}: {one.command[:60]}" for one in RUNS])
def test_what_a_page_shows(one: Run, tmp_path: Path) -> None:
    """A command or program of a page prints what the page says, but for numbers that vary."""
    done = run(PAGES[one.page], one.command, tmp_path)

    if one.expected is None:
        assert done.returncode == 0, done.stdout
    else:
        shown, expected = masked(done.stdout, tmp_path), masked(one.expected, tmp_path)
        assert agrees(shown, expected), done.stdout


def test_little_is_left_out() -> None:
    """Each page has something that is run, and a reason for what is not."""
    for page in PAGES.values():
        assert page.runs
        assert all(reason.strip() for reason in page.skipped)


def test_every_named_program_is_run() -> None:
    """A program that a page shows as a file is in a command of the page, or a program imports it."""
    for page in PAGES.values():
        for name in page.files:
            imported = any(f"from {name[:-3]} import" in text for text in page.files.values())
            assert imported or any(name in one.command for one in page.runs), name


def test_lines_that_are_left_out() -> None:
    """``...`` stands for any lines, none included; the others must be there in order."""
    assert agrees(["a", "b", "c", "d"], ["a", "...", "d"])
    assert agrees(["a", "d"], ["a", "...", "d"])
    assert agrees(["a", "b", "c", "d", "e"], ["...", "b", "...", "e"])
    assert not agrees(["a", "b", "c"], ["a", "...", "d"])
    assert not agrees(["a"], ["a", "...", "a"])
    assert not agrees(["b", "a"], ["a", "...", "b"])
