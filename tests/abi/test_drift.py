"""The committed modules are what build_ffi.py makes of cdef/."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import selectors_ffi
from selectors_ffi._abi import TARGETS
from tests import apart, source  # noqa: F401 # where build_ffi is

build_ffi = pytest.importorskip("build_ffi", reason="needs a checkout, cffi and pycparser")


def test_targets_agree():
    """build_ffi.py compiles the targets that the package offers, and the probe."""
    assert [*TARGETS, "probe"] == list(build_ffi.TARGETS)


@pytest.mark.parametrize("target", build_ffi.TARGETS)
def test_generated_module_is_what_cdef_says(target):
    """Byte for byte: a cdef edited without ``python build_ffi.py`` fails here."""
    committed = (build_ffi.GENERATED / f"{target}.py").read_bytes()
    assert build_ffi.generate(target).encode("utf-8") == committed


def test_no_module_is_left_over():
    """generated/ holds the targets' modules and nothing else."""
    names = {path.stem for path in build_ffi.GENERATED.glob("*.py")}
    assert names == {"__init__", *build_ffi.TARGETS}


def test_every_cdef_file_is_compiled():
    """cdef/ holds no file that no target uses."""
    used = {name for names in build_ffi.TARGETS.values() for name in names}
    assert {path.name for path in build_ffi.CDEF.iterdir()} == used


@pytest.mark.parametrize("path", sorted(build_ffi.CDEF.glob("*.h")), ids=lambda path: path.name)
def test_every_cdef_file_names_its_source(path):
    """A cdef file starts with a comment that links to the header it transcribes."""
    comment = path.read_text(encoding="utf-8").partition("*/")[0]
    assert comment.startswith("/* ")
    assert "https://" in comment


def test_declarations_load_without_a_parser():
    """Loading every target imports neither cffi nor pycparser, only the backend of cffi."""
    program = (
        "import sys\n"
        "from selectors_ffi._abi import TARGETS, load_ffi, load_probe, target\n"
        "for name in TARGETS: load_ffi(name)\n"
        "load_probe(); target.current()\n"
        "print(*sorted({'cffi', 'pycparser', 'ctypes'} & set(sys.modules)))\n"
    )
    root = str(Path(selectors_ffi.__path__[0]).parent)
    result = subprocess.run(
        [
            sys.executable,
            "-S",
            "-c",
            f"import sys; sys.path[:0] = {[root, *sys.path]!r}\n{program}",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    assert result.stdout.split() == []


def test_one_module_per_target():
    """Loading one target imports that one generated module and no other."""
    program = (
        "import sys\n"
        "from selectors_ffi._abi import load_ffi\n"
        "before = set(sys.modules)\n"
        "load_ffi('openbsd')\n"
        "print(*(set(sys.modules) - before))\n"
    )
    assert apart.python("-c", program).stdout.split() == ["selectors_ffi._abi.generated.openbsd"]
