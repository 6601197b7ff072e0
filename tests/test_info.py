"""``info``: what this host offers, whether it works here, and why not."""

from __future__ import annotations

import builtins
import io
import json
import os
import re
import sys
from errno import ENOSYS
from pathlib import Path
from types import SimpleNamespace

import pytest

import selectors_ffi
from selectors_ffi._abi import load_ffi
from selectors_ffi.binding import load
from selectors_ffi.cli import info, main
from selectors_ffi.selftest import SelfTestError
from tests import apart, needs
from tests.source import PACKAGE

ROOT = Path(__file__).parent.parent


def test_info_is_the_default(capsys):
    """Without a command the host is described."""
    assert main([]) == 0
    bare = capsys.readouterr().out
    assert main(["info"]) == 0

    assert capsys.readouterr().out == bare
    assert selectors_ffi.DefaultSelector.__name__ in bare
    assert sys.platform in bare


def test_info_does_not_depend_on_what_was_used_before(capsys, monkeypatch):
    """A call that a self-test has refused since is listed as before."""
    assert main([]) == 0
    before = capsys.readouterr().out
    monkeypatch.setattr(load(), "refused", {"ppoll", "epoll_pwait2"})
    assert main([]) == 0

    assert capsys.readouterr().out == before


def test_info_as_json(capsys):
    """--json gives the same facts to programs, and they agree with the package."""
    assert main(["--json"]) == 0
    facts = json.loads(capsys.readouterr().out)

    assert facts["platform"]["system"] == sys.platform
    assert facts["default"] == selectors_ffi.DefaultSelector.__name__
    usable = {name for name, row in facts["backends"].items() if row["usable"]}
    assert usable == {name for name in facts["backends"] if hasattr(selectors_ffi, name)}
    assert len(facts["backends"]) == 6
    assert all(row["reason"] for row in facts["backends"].values() if not row["usable"])


@pytest.mark.skipif(sys.platform != "linux", reason="these are Linux's structs and symbols")
def test_info_on_linux(capsys):
    """On Linux the structs and symbols of epoll, poll and select are listed."""
    main(["--json"])
    facts = json.loads(capsys.readouterr().out)

    assert facts["structs"]["struct pollfd"] == 8
    assert facts["structs"]["struct epoll_event"] in (12, 16)
    assert facts["symbols"]["epoll_wait"] == "epoll_wait"
    assert facts["symbols"]["poll"]
    assert facts["limits"]["descriptors"] > 0


def kernel(name, *arguments):
    """Run ``info`` on a simulated kernel."""
    variables = {"SELECTORS_FFI_KERNEL": name, "SELECTORS_FFI_BACKEND": ""}
    return apart.python("-m", "selectors_ffi", *arguments, **variables)


def test_verdict(capsys):
    """The first line says whether the package works here, and with which class."""
    assert main([]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    default = selectors_ffi.DefaultSelector.__name__

    assert first.startswith(
        f"selectors_ffi {selectors_ffi.__version__} works here: DefaultSelector is {default}; usable: "
    )


def test_refused_mechanism(capsys, monkeypatch):
    """A mechanism that the system has and the self-test refuses is status 1, with the reason first."""

    class Refused:
        def __init__(self):
            raise ImportError("select does not fit this kernel")

    monkeypatch.setattr("selectors_ffi.backends.SelectSelector", Refused)

    assert main([]) == 1
    shown = capsys.readouterr().out
    others = hasattr(selectors_ffi, "PollSelector")
    assert ("works here only in part" if others else "does not work") in shown.splitlines()[0]
    assert "SelectSelector: select does not fit this kernel" in shown.splitlines()[0]
    assert "SelectSelector     refused: select does not fit" in shown


def test_refused_mechanism_that_is_the_only_one():
    """Where nothing is left the reason of the refusal is told, not that of the target."""
    rows = {"SelectSelector": {"usable": False, "refused": True, "reason": "odd answer"}}
    works, line = info.judge(rows, None, "64-bit process on Windows")

    assert not works
    assert "does not work here: SelectSelector: odd answer; use the standard library" in line


def test_class_that_only_the_standard_library_has(capsys, monkeypatch):
    """What the standard library can use and we cannot is refused, whatever the reason."""

    class Missing:
        def __init__(self):
            raise OSError(ENOSYS, "no select here")

    monkeypatch.setattr("selectors_ffi.backends.SelectSelector", Missing)
    assert main([]) == 1
    monkeypatch.delattr("selectors.SelectSelector")
    assert main([]) == (0 if hasattr(selectors_ffi, "PollSelector") else 1)
    assert "SelectSelector     not usable: [Errno" in capsys.readouterr().out.split("backends:")[-1]


@needs.simulated_kernels
@pytest.mark.parametrize("name", ["windows", "freebsd", "darwin", "illumos", "linux"])
def test_simulated_kernels(name):
    """On each kind of kernel the answer is a verdict with status 0, never a traceback."""
    done = kernel(name)

    assert (done.returncode, done.stderr) == (0, "")
    assert " works here: DefaultSelector is " in done.stdout.splitlines()[0]
    assert f"reason     chosen by <simulated {name}" in done.stdout
    if name == "windows":
        assert json.loads(kernel(name, "--json").stdout)["default"] == "SelectSelector"


@needs.simulated_kernels
def test_windows_lacks_modules_too(tmp_path):
    """There is no module resource on Windows: the classes that use it are absent, not refused."""
    (tmp_path / "resource.py").write_text("raise ModuleNotFoundError('as on Windows')\n")
    variables = {"SELECTORS_FFI_KERNEL": "windows", "SELECTORS_FFI_BACKEND": ""}
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    done = apart.python("-m", "selectors_ffi", PYTHONPATH=path, **variables)

    assert " works here: DefaultSelector is SelectSelector" in done.stdout.splitlines()[0]
    assert "DevpollSelector    not usable: [Errno" in done.stdout


def test_unknown_system(capsys, monkeypatch):
    """Where nothing is known there is still an answer, and it says why."""
    reason = "the ABI of plan9 is not known"

    def refuse(*_, **__):
        raise OSError(ENOSYS, reason)

    monkeypatch.setattr("selectors_ffi.binding._loaded", {})
    monkeypatch.setattr("selectors_ffi.binding._load", refuse)
    monkeypatch.delattr(selectors_ffi, "DefaultSelector")
    for name in selectors_ffi._CLASSES.values():
        monkeypatch.delattr(selectors_ffi, name, raising=False)

    assert main(["--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["default"] is None
    assert reason in facts["reason"]
    assert main(["info"]) == 1
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(f"selectors_ffi {selectors_ffi.__version__} does not work here: ")
    assert reason in first
    assert first.endswith("use the standard library's selectors")
    for words in (["demo"], ["trace", "-c", "1"], ["run", "-c", "1"], ["chaos", "-c", "1"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        error = capsys.readouterr().err
        assert (ended.value.code, error.count("\n")) == (1, 1)
        assert error.endswith("no selector works on this system; python -m selectors_ffi says why\n")
    with pytest.raises(AttributeError, match="on this system; python -m selectors_ffi says why"):
        selectors_ffi.DefaultSelector()


def test_variables_are_shown(monkeypatch):
    """Our variables are among the facts; one that does not exist is named as such."""
    monkeypatch.setenv("SELECTORS_FFI_BACKEND", "select")
    monkeypatch.setenv("SELECTORS_FFI_BACKND", "poll")
    variables = info.facts()["variables"]

    assert variables["SELECTORS_FFI_BACKEND"] == "select"
    assert "poll (no such variable; known: SELECTORS_FFI_BACKEND, " in variables["SELECTORS_FFI_BACKND"]


def test_every_variable_is_known():
    """The variables that the package reads are those that info knows and the page describes."""
    text = "".join(path.read_text("utf-8") for path in PACKAGE.rglob("*.py"))
    read = set(re.findall(r"SELECTORS_FFI_([A-Z_]*[A-Z])\b", text)) - {"BACKND"}
    page = (ROOT / "docs" / "environment.md").read_text("utf-8")
    described = set(re.findall(r"^\| `SELECTORS_FFI_([A-Z_]+)` \|", page, re.MULTILINE))

    assert read <= set(info.VARIABLES) == described


def test_structs_that_are_only_named(monkeypatch):
    """A struct of which only the name is known has no size, and is not listed."""
    ffi = load_ffi("linux")
    assert info.struct_size(ffi, "struct nowhere_declared") == 0
    assert info.struct_size(ffi, "struct pollfd") == 8
    monkeypatch.setattr(info, "struct_size", lambda ffi, name: 0)
    assert info.interface()["structs"] == {}


def test_a_failed_self_test_is_shown(monkeypatch):
    """What a self-test found is shown with the numbers; one that cannot be made is left out."""

    def check(binding, mechanism):
        if mechanism == "poll":
            raise SelfTestError(
                SimpleNamespace(mechanism="poll", target="t", struct="s", sizeof=1, problems=("wrong",))
            )
        raise OSError

    monkeypatch.setattr("selectors_ffi.selftest.check", check)
    found = info.self_test(SimpleNamespace(target="t"))
    assert list(found) == ["poll"]
    assert found["poll"].startswith("failed: poll does not fit")
    assert "wrong" in found["poll"]


def test_limits_elsewhere(monkeypatch):
    """Without /proc, without the resource module, without a limit: what is known is shown."""
    resource = pytest.importorskip("resource")
    unlimited = resource.RLIM_INFINITY
    with monkeypatch.context() as patch:
        patch.setattr(resource, "getrlimit", lambda _: (unlimited, unlimited))
        patch.setattr(builtins, "open", lambda *_, **__: io.StringIO("no number"))
        assert info.limits() == {"descriptors": None, "descriptors, hard": None}
    monkeypatch.setitem(sys.modules, "resource", None)
    assert info.limits() == {}
