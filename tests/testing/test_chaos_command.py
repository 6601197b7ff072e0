"""``python -m selectors_ffi chaos``: a program under seed after seed."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from selectors_ffi.cli import chaos, main
from tests import needs

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = str(ROOT / "examples" / "lost_message.py")
#: Without variables that are as good as flags of the interpreter.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
ENVIRONMENT["PYTHONPATH"] = str(ROOT)


def command(*words, flags=(), **variables):
    """Run ``python -m selectors_ffi chaos``; return (status, output, errors)."""
    done = subprocess.run(
        [sys.executable, *flags, "-m", "selectors_ffi", "chaos", *words],
        env={**ENVIRONMENT, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.timeout(200)
@pytest.mark.parametrize("backend", ["", pytest.param("poll", marks=needs.poll), "select"])
def test_the_example_fails_within_ten_seeds(backend):
    """An ordering bug that no plain run shows is found, and the seed alone shows it again."""
    status, output, errors = command("--seeds", "10", EXAMPLE, SELECTORS_FFI_BACKEND=backend)

    assert status == 1
    *_, lost, failed, repeat = output.splitlines()
    assert lost.startswith("the result was lost: received ")
    seed = re.fullmatch(r"seed (\d+): exit status 1", failed)[1]
    if os.name == "nt":
        where = f'set "SELECTORS_FFI_BACKEND={backend}" & ' if backend else ""
    else:
        where = f"SELECTORS_FFI_BACKEND={backend} " if backend else ""
    assert repeat == f"to repeat it: {where}python -m selectors_ffi chaos --seed {seed} {EXAMPLE}"
    told = [line.split(",")[0] for line in errors.splitlines()]
    assert told[0] == "without chaos: passed"
    assert told[-1] == failed
    assert len(told) == int(seed) + 1
    status, output, errors = command("--seed", seed, EXAMPLE, SELECTORS_FFI_BACKEND=backend)
    assert (status, output, errors) == (1, "", f"{lost}\n")


def test_how_to_repeat_it_on_windows(monkeypatch):
    """There the command is quoted, and the variable set, as cmd has it."""
    monkeypatch.setattr(os, "name", "nt")
    monkeypatch.setenv("SELECTORS_FFI_BACKEND", "select")
    monkeypatch.setenv("SELECTORS_FFI_CHAOS", "5")
    monkeypatch.setattr(chaos, "_flags", lambda: ["-O"])
    shown = chaos._shown(SimpleNamespace(spurious=False, program=["a b.py"]), 3)
    assert shown == (
        'set "SELECTORS_FFI_BACKEND=select" & set "SELECTORS_FFI_CHAOS=" & '
        'python -O -m selectors_ffi chaos --seed 3 "a b.py"'
    )


def test_the_flags_of_the_interpreter_are_part_of_the_command():
    """A program that fails with -W error alone fails again."""
    program = "import warnings; warnings.warn('odd')"
    status, output, _ = command("-c", program, flags=("-W", "error"))
    assert status == 1
    assert "to repeat it: python -Werror -m selectors_ffi run -c " in output


@pytest.mark.skipif(os.name != "posix", reason="a POSIX shell")
@pytest.mark.parametrize("words", [[], ["--first", "7"]])
def test_the_command_is_right_where_a_seed_is_set_already(words):
    """The search leaves SELECTORS_FFI_CHAOS out, and so does the command in the same shell."""
    program = (
        "import selectors_ffi.binding as b\n"
        "hook = getattr(b.default().lib, 'hook', None)\n"
        "print('in force', hook, getattr(b.default().lib, '_binding', None))\n"
        f"assert {bool(words)} and hook is None"
    )
    status, output, _ = command(*words, "-c", program, SELECTORS_FFI_CHAOS="5")
    assert (status, "Chaos(5)" in output) == (1, False), output
    line = re.search("^to repeat it: (.*)", output, re.MULTILINE | re.DOTALL)[1]
    assert line.startswith("SELECTORS_FFI_CHAOS= python -m selectors_ffi ")
    done = subprocess.run(
        ["sh", "-c", line.replace("python", shlex.quote(sys.executable), 1)],
        env={**ENVIRONMENT, "SELECTORS_FFI_CHAOS": "5"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] in output.splitlines()


def test_a_program_that_passes():
    """Every seed is run, with the arguments that were given, and the status is 0."""
    status, output, errors = command(
        "--seeds",
        "2",
        "--first",
        "5",
        "-c",
        "import sys; assert sys.argv[1:] == ['-x', 'a b']",
        "-x",
        "a b",
    )
    assert (status, output) == (0, "2 seeds passed, 5 to 6\n")
    assert [line.split(":")[0] for line in errors.splitlines()] == ["without chaos", "seed 5", "seed 6"]


def test_a_program_that_fails_anyway():
    """Without chaos it is run first: no seed is blamed, and its output is shown."""
    status, output, errors = command("-c", "print('wrong'); raise SystemExit(3)")

    assert status == 1
    words = """'print('"'"'wrong'"'"'); raise SystemExit(3)'"""
    if os.name == "nt":
        words = "\"print('wrong'); raise SystemExit(3)\""
    assert output.splitlines() == [
        "wrong",
        "without chaos: exit status 3",
        f"to repeat it: python -m selectors_ffi run -c {words}",
    ]
    assert errors.startswith("without chaos: exit status 3")


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_program_that_is_killed():
    """A signal that ends the program is told by its number."""
    status, output, _ = command("-c", "import os; os.kill(os.getpid(), 9)")

    assert status == 1
    assert "without chaos: ended by signal 9" in output


def test_a_program_that_hangs():
    """With --timeout a run that does not end has failed."""
    status, output, _ = command("--timeout", "2", "-c", "import threading; threading.Event().wait()")

    assert status == 1
    assert "without chaos: not finished after 2 s" in output


def test_spurious_readiness_is_asked_for():
    """--spurious reaches the program, and is part of the command that repeats the failure."""
    program = (
        "import selectors, socket\n"
        "a, b = socket.socketpair()\n"
        "s = selectors.SelectSelector()\n"
        "s.register(a, 1)\n"
        "assert not any(s.select(0) for _ in range(50))"
    )
    assert command("--seeds", "1", "-c", program)[0] == 0
    status, output, _ = command("--seeds", "1", "--spurious", "-c", program)
    assert status == 1
    assert "to repeat it: python -m selectors_ffi chaos --seed 1 --spurious -c " in output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seeds", "0", "x.py"], "--seeds must be at least 1"),
        (["--timeout", "nan", "x.py"], "argument --timeout: 'nan' is not a number of seconds above 0"),
        (["--seed", "x", "x.py"], "argument --seed: invalid int value: 'x'"),
        (["-"], "a program from standard input cannot be run again; give a file or -c CODE"),
        (["nothing.py"], "can't open file 'nothing.py': No such file or directory"),
        ([], "no program to run"),
    ],
)
def test_a_wrong_command_line(words, said):
    """One line, status 2, and nothing is run."""
    status, output, errors = command(*words)

    assert (status, output) == (2, "")
    assert errors.startswith(f"python -m selectors_ffi chaos: {said}")
    assert len(errors.splitlines()) == 1


class Terminal(io.StringIO):
    """Standard error that is a terminal."""

    def isatty(self):
        return True


def test_more_seeds_than_a_machine_can_count(capsys):
    """A number of seeds is any number: the first one that fails ends it."""
    assert main(["chaos", "--seeds", str(1 << 80), "-c", "1/0"]) == 1
    assert "without chaos: exit status 1" in capsys.readouterr().out


def test_progress_on_a_terminal(monkeypatch, capsys):
    """One line that changes, and is gone in the end."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    assert main(["chaos", "--seeds", "2", "-c", "pass"]) == 0
    assert capsys.readouterr().out == "2 seeds passed, 1 to 2\n"
    written = sys.stderr.getvalue()
    assert "\n" not in written
    shown = [line for line in written.replace("\033[K", "").split("\r") if line]
    shown = [re.sub(r"\d+ s", "N s", line) for line in shown]
    assert shown == ["without chaos (0 of 2, N s)", "seed 1 (1 of 2, N s)", "seed 2 (2 of 2, N s)"]


def test_interrupted_by_the_user(monkeypatch, capsys):
    """Control-C ends the program that runs, and says so; status 130."""
    killed = []

    def wait(self, timeout=None):
        if not killed:
            raise KeyboardInterrupt
        return whole(self, timeout)

    whole = subprocess.Popen.wait
    kill = subprocess.Popen.kill
    monkeypatch.setattr(subprocess.Popen, "wait", wait)
    monkeypatch.setattr(subprocess.Popen, "kill", lambda self: killed.append(self) or kill(self))

    assert main(["chaos", "-c", "import threading; threading.Event().wait()"]) == 130
    assert len(killed) == 1
    assert capsys.readouterr().err.endswith("\ninterrupted\n")
