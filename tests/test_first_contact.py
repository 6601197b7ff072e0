"""What a new user meets when something is missing or mistyped: one line that says what to do."""

from __future__ import annotations

import os
import selectors as stdlib
import socket
import sys
from pathlib import Path

import pytest

import selectors_ffi
from selectors_ffi import backends
from selectors_ffi.cli import COMMANDS
from selectors_ffi.testing import kernel
from tests import apart

ROOT = Path(__file__).parent.parent
CLASSES = [name for name in backends.__all__ if name.endswith("Selector") and name != "BaseSelector"]


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


#: Variable -> a wrong value, and what is said of it.
WRONG = {
    "SELECTORS_FFI_BACKEND": ("iocp", "'iocp' is not usable here; usable: "),
    "SELECTORS_FFI_BLOCKED_AFTER": ("soon", "must be seconds, 0 to 1,000,000, not 'soon'"),
    "SELECTORS_FFI_CHAOS": ("seed", "a seed is an integer, not 'seed'"),
    "SELECTORS_FFI_DEBUG": ("syscall", "unknown debug flag 'syscall'; known are syscalls, "),
    "SELECTORS_FFI_INJECT": ("epoll_weight:EINTR", "unknown function 'epoll_weight' at character 1"),
    "SELECTORS_FFI_KERNEL": ("plan9", "unknown kernel 'plan9'; known: freebsd, "),
    "SELECTORS_FFI_SELFTEST": ("maybe", "'maybe' is not 0 (skip the self-test) or 1"),
    "SELECTORS_FFI_SIGNAL": ("FOO", "no signal 'FOO' can be used; known are "),
}


@pytest.mark.parametrize("variable", WRONG)
def test_wrong_variable(variable):
    """A command ends with status 2 and one line that names the variable; nothing has run."""
    value, said = WRONG[variable]
    done = apart.python("-m", "selectors_ffi", "run", "-c", "print('ran')", **{variable: value})

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"python -m selectors_ffi: {variable}")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("variable", WRONG)
def test_wrong_variable_of_an_import(variable):
    """An import raises ValueError with the same line."""
    code = "try: import selectors_ffi\nexcept ValueError as error: print(error)"
    value, said = WRONG[variable]
    done = apart.python("-c", code, **{variable: value})

    assert done.stdout.startswith(variable)
    assert said in done.stdout
    assert (done.stderr, done.stdout.count("\n")) == ("", 1)


def test_wrong_variable_of_another_command(tmp_path):
    """A package that is run with -m and imports this one gets the exception, not our exit."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "__init__.py").write_text(
        "try: import selectors_ffi\nexcept ValueError: print('caught')\n"
    )
    (tmp_path / "other" / "__main__.py").write_text("print('went on')\n")
    done = apart.python("-m", "other", cwd=tmp_path, SELECTORS_FFI_BACKEND="iocp")

    assert done.stdout.split("\n")[:2] == ["caught", "went on"]


def without_cffi(folder):
    """Return the variables with which cffi cannot be imported."""
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['_cffi_backend'] = None\n")
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


def test_missing_cffi(tmp_path):
    """The command line says what to install, with status 1; an import raises the same."""
    variables = without_cffi(tmp_path)
    done = apart.trace("x.py", **variables)
    line = "selectors_ffi needs cffi: pip install cffi"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"python -m selectors_ffi: {line}\n"

    code = "try: import selectors_ffi\nexcept ModuleNotFoundError as e: print(e.name, e, sep=': ')"
    assert apart.python("-c", code, **variables).stdout == f"_cffi_backend: {line}\n"


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

    assert apart.python("-c", code).stdout == "version mismatch\n"


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
    done = apart.python("-c", code)

    if "needs cffi" not in done.stdout:
        pytest.skip(f"this cffi loads there: {done.stdout}{done.stderr}")
    assert done.stdout == (
        "ImportError: selectors_ffi needs cffi, which an isolated subinterpreter cannot load; use the"
        " standard library's selectors there, or import selectors_ffi in the main interpreter\n"
    )
    assert done.stderr == ""


@pytest.mark.parametrize("cls", [backends.EpollSelector, backends.PollSelector, backends.KqueueSelector])
def test_something_else_for_a_binding(cls):
    """What is no binding is a TypeError that says what returns one."""
    with pytest.raises(TypeError, match=r"inject\(\) returns, not 'freebsd'"):
        cls(binding="freebsd")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions have notes from CPython 3.11 on")
def test_notes_say_what_to_do():
    """A class that this system lacks, and a second registration, have a note that says what to do."""
    missing = next(name for name in CLASSES if not hasattr(selectors_ffi, name))
    with pytest.raises(OSError, match="in target") as lacking:
        getattr(backends, missing)()
    assert "DefaultSelector is a class that works here" in lacking.value.__notes__[0]

    near, far = socket.socketpair()
    with near, far, selectors_ffi.DefaultSelector() as selector:
        selector.register(near, 1)
        with pytest.raises(KeyError) as twice:
            selector.register(near, 2)
    assert "call modify()" in twice.value.__notes__[0]


@pytest.mark.skipif(os.name != "posix", reason="simulated kernels need a Unix host")
def test_no_note_about_this_system():
    """A simulated kernel that lacks a function says nothing of the host."""
    with pytest.raises(OSError, match="no epoll_ctl in target freebsd") as caught:
        backends.EpollSelector(binding=kernel("freebsd"))
    assert not hasattr(caught.value, "__notes__")


def test_native_events_of_another_selector():
    """select_raw() of a selector of the standard library is a TypeError that names it."""
    with stdlib.DefaultSelector() as selector, pytest.raises(TypeError, match="not <selectors"):
        selectors_ffi.debug.select_raw(selector)


def test_version():
    """--version says the versions that a bug report needs."""
    done = apart.python("-m", "selectors_ffi", "--version")

    assert done.stdout.startswith(f"selectors_ffi {selectors_ffi.__version__}, cffi ")
    assert done.returncode == 0


def test_help_has_examples():
    """Every subcommand's --help shows how it is used."""
    commands = apart.python("-m", "selectors_ffi", "--help").stdout
    for command in COMMANDS:
        assert f"  {command}" in commands
        shown = apart.python("-m", "selectors_ffi", command, "--help").stdout
        assert f"python -m selectors_ffi {command}" in shown.partition("examples:")[2], command
