"""Pages: the programs and commands of a page of Markdown, and what they are said to print.

A block of Python is a program. One that begins with ``# name.py`` is a file by that name; a console
block of the page runs it. Any other is run by itself, and the block without a language that follows it
directly is its output. A console block is a session: each line with ``$`` is a command, what follows
it is its output. ``...`` alone on a line stands for lines that are left out.

``<!-- not run: reason -->`` before a block keeps it from being run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent

_BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^>]*) -->\n+)?```(?P<language>\w*)\n(?P<text>.*?)^```", re.M | re.S
)


class Run(NamedTuple):
    """A command of a page."""

    page: str
    command: str
    expected: str | None
    """None: it is only to end well."""


class Page:
    """One page.

    Attributes:
        files: name -> text of the programs that have one.
        runs: what is to be run, in order.
        skipped: the reasons for what is not.
    """

    def __init__(self, name: str) -> None:
        self.files: dict[str, str] = {}
        self.runs: list[Run] = []
        self.skipped: list[str] = []
        text = (ROOT / name).read_text("utf-8")
        blocks = list(_BLOCK.finditer(text))
        for number, block in enumerate(blocks):
            if block["reason"]:
                self.skipped.append(block["reason"])
            elif block["language"] == "python":
                after = blocks[number + 1] if number + 1 < len(blocks) else None
                direct = after is not None and not text[block.end() : after.start()].strip("` \n")
                output = after["text"] if direct and not after["language"] else None
                self._program(name, block["text"], output)
            elif block["language"] in ("console", "sh"):
                self._session(name, block["text"], prompt=block["language"] == "console")

    def _program(self, page: str, text: str, output: str | None) -> None:
        named = re.match(r"# ([\w/]+\.py)\n", text)
        if named:
            self.files[named[1]] = text
        else:
            name = f"snippet_{len(self.files) + 1}.py"
            self.files[name] = text
            self.runs.append(Run(page, f"python {name}", output))

    def _session(self, page: str, text: str, *, prompt: bool) -> None:
        if not prompt:
            self.runs += [Run(page, line, None) for line in text.splitlines() if line.strip()]
            return
        for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
            command, _, output = part.partition("\n")
            self.runs.append(Run(page, command, output or None))


def run(page: Page, command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of a page in a folder that has the page's files, and the repository's examples."""
    for name, text in page.files.items():
        (folder / name).write_text(text, "utf-8")
    if not (folder / "examples").exists():
        shutil.copytree(ROOT / "examples", folder / "examples")
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name in ("python", "python3"):
        if not (programs / name).exists():
            (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
            (programs / name).chmod(0o755)
    path = os.pathsep.join((str(programs), os.environ.get("PATH", os.defpath)))
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return subprocess.run(
        ["sh", "-c", command.replace(".venv/bin/", "")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=100,
        cwd=folder,
        env=environment,
    )


def masked(text: str, folder: Path) -> list[str]:
    """Return lines without what differs from run to run.

    Numbers, addresses and the folder differ; so do the calls that the C library has, and how a socket
    is shown. Numbers of lines stay. Tables are ordered by time, so the lines of a block of a table are
    sorted.
    """
    text = text.replace(f"{folder}{os.sep}", "")
    text = re.sub(r"<socket\.socket[^>\n]*>?", "SOCKET", text)
    text = re.sub(r"0x[0-9a-f]+", "N", text)
    text = re.sub(r"epoll_pwait2?|epoll_wait", "epoll_wait", text)
    text = re.sub(r"(epoll_wait\(.*), \{tv_sec=[^}]*\}, NULL\)", r"\1, N)", text)
    words = (" ".join(line.split()) for line in text.splitlines())
    lines = [re.sub(r"(\.py:\d+)|\d+(\.\d+)?", lambda found: found[1] or "N", line) for line in words]
    return [re.sub(r"-N\b", "N", line) for line in lines if line]


def agrees(shown: list[str], expected: list[str]) -> bool:
    """Tell whether lines are as expected, ``...`` standing for any number of them."""
    if "..." not in expected:
        return sorted(shown) == sorted(expected)
    cut = expected.index("...")
    rest = expected[cut + 1 :]
    if shown[:cut] != expected[:cut]:
        return False
    starts = range(cut, len(shown) - len(rest) + 1) if "..." in rest else [len(shown) - len(rest)]
    return any(start >= cut and agrees(shown[start:], rest) for start in starts)
