"""What a new user meets when something is missing or mistyped: one line that says what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import selectors_ffi
from selectors_ffi.cli import COMMANDS

ROOT = Path(__file__).parent.parent


def python(*arguments, cwd=ROOT, **variables):
    """Run this interpreter apart with the package importable and variables set."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
    )


def test_choice_by_the_environment(monkeypatch):
    """SELECTORS_FFI_BACKEND chooses among the usable; another name is an error that lists them."""
    usable = ["poll", "select"]
    monkeypatch.delenv("SELECTORS_FFI_BACKEND", raising=False)
    assert selectors_ffi._choose(usable) == "poll"
    assert selectors_ffi._choose([]) is None
    monkeypatch.setenv("SELECTORS_FFI_BACKEND", "select")
    assert selectors_ffi._choose(usable) == "select"
    monkeypatch.setenv("SELECTORS_FFI_BACKEND", "kqueue")
    with pytest.raises(ValueError, match="'kqueue' is not usable here; usable: poll, select"):
        selectors_ffi._choose(usable)


WRONG = {
    "SELECTORS_FFI_BACKEND": "iocp",
    "SELECTORS_FFI_CHAOS": "seed",
    "SELECTORS_FFI_DEBUG": "syscall",
    "SELECTORS_FFI_INJECT": "epoll_weight:EINTR",
    "SELECTORS_FFI_KERNEL": "plan9",
    "SELECTORS_FFI_SELFTEST": "maybe",
}


@pytest.mark.parametrize("variable", WRONG)
@pytest.mark.parametrize("command", [[], ["run", "-c", "print('ran')"], ["demo"]])
def test_wrong_variable(variable, command):
    """Each command ends with status 2 and one line that names the variable and the value."""
    done = python("-m", "selectors_ffi", *command, **{variable: WRONG[variable]})

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"python -m selectors_ffi: {variable}")
    assert WRONG[variable].split(":")[0] in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("variable", WRONG)
def test_wrong_variable_of_an_import(variable):
    """An import raises ValueError with the same line."""
    code = "try: import selectors_ffi\nexcept ValueError as error: print(error)"
    done = python("-c", code, **{variable: WRONG[variable]})

    assert done.stdout.startswith(variable)
    assert (done.stderr, done.stdout.count("\n")) == ("", 1)


def test_wrong_variable_of_another_command(tmp_path):
    """A package that is run with -m and imports this one gets the exception, not our exit."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "__init__.py").write_text(
        "try: import selectors_ffi\nexcept ValueError: print('caught')\n"
    )
    (tmp_path / "other" / "__main__.py").write_text("print('went on')\n")
    done = python("-m", "other", cwd=tmp_path, SELECTORS_FFI_BACKEND="iocp")

    assert done.stdout.split("\n")[:2] == ["caught", "went on"]


def without_cffi(folder):
    """Return the variables with which cffi cannot be imported."""
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['_cffi_backend'] = None\n")
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


def test_missing_cffi(tmp_path):
    """The command line says what to install, with status 1; an import raises the same."""
    variables = without_cffi(tmp_path)
    done = python("-m", "selectors_ffi", "trace", "x.py", **variables)
    line = "selectors_ffi needs cffi: pip install cffi"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"python -m selectors_ffi: {line}\n"

    code = "try: import selectors_ffi\nexcept ModuleNotFoundError as e: print(e.name, e, sep=': ')"
    assert python("-c", code, **variables).stdout == f"_cffi_backend: {line}\n"


def test_other_failures_of_cffi():
    """Another reason for which cffi cannot be imported is passed on as it is."""
    code = (
        "import sys\n"
        "class Broken:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == '_cffi_backend': raise ImportError('version mismatch')\n"
        "sys.modules.pop('_cffi_backend', None)\n"
        "sys.meta_path.insert(0, Broken())\n"
        "try: import selectors_ffi\n"
        "except ImportError as error: print(error)"
    )

    assert python("-c", code).stdout == "version mismatch\n"


@pytest.mark.skipif(
    sys.implementation.name != "cpython" or sys.version_info < (3, 13),
    reason="isolated subinterpreters came with CPython 3.12, and _interpreters with 3.13",
)
def test_isolated_subinterpreter():
    """An isolated subinterpreter is told that cffi cannot be loaded there; the main one goes on."""
    code = (
        "import _interpreters\n"
        "apart = _interpreters.create('isolated')\n"
        "failed = _interpreters.exec(apart, 'import selectors_ffi')\n"
        "print(failed.type.__name__, failed.msg, sep=': ')\n"
        "_interpreters.destroy(apart)\n"
        "import selectors_ffi; selectors_ffi.DefaultSelector().close()"
    )
    done = python("-c", code)

    if "needs cffi" not in done.stdout:
        pytest.skip(f"this cffi loads there: {done.stdout}{done.stderr}")
    assert done.stdout == (
        "ImportError: selectors_ffi needs cffi, which an isolated subinterpreter cannot load; use the"
        " standard library's selectors there, or import selectors_ffi in the main interpreter\n"
    )
    assert done.stderr == ""


def test_version():
    """--version says the versions that a bug report needs."""
    done = python("-m", "selectors_ffi", "--version")

    assert done.stdout.startswith(f"selectors_ffi {selectors_ffi.__version__}, cffi ")
    assert done.returncode == 0


def test_help_has_examples():
    """Every subcommand's --help shows how it is used."""
    commands = python("-m", "selectors_ffi", "--help").stdout
    for command in COMMANDS:
        assert f"  {command}" in commands
        shown = python("-m", "selectors_ffi", command, "--help").stdout
        assert f"python -m selectors_ffi {command}" in shown.partition("examples:")[2], command
