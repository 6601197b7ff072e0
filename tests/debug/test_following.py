"""``trace -f``: the Python processes that a traced program starts are traced, too."""

from __future__ import annotations

import json
import os
import re
import select
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from selectors_ffi.cli import following, tracing
from selectors_ffi.cli.tracing import Settings, Tracing
from tests.apart import trace

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="Unix processes")

SELECT = "import selectors; selectors.SelectSelector().select(0)"
RUN = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SELECT!r}], check=True"


@pytest.fixture
def workers(tmp_path):
    """A program whose child polls, by a start method of multiprocessing."""
    path = tmp_path / "workers.py"
    path.write_text(
        textwrap.dedent(
            """
            import multiprocessing, selectors, sys

            def work():
                selectors.SelectSelector().select(0)

            if __name__ == "__main__":
                child = multiprocessing.get_context(sys.argv[1]).Process(target=work)
                child.start()
                child.join()
                sys.exit(child.exitcode)
            """
        )
    )
    return path


def test_a_child_of_subprocess():
    """Lines of a child say of which process they are."""
    done = trace("-f", "-e", "trace=select", "-c", RUN + ")")

    assert re.fullmatch(r"\[pid \d+\] select\(0, .* = 0 \(Timeout\) <[\d.]+>\n", done.stderr)
    alone = trace("-e", "trace=select", "-c", RUN + ")").stderr
    assert alone.startswith("selectors_ffi: no selector was made, so there is nothing to show: -f shows")


SPIN = """
import multiprocessing, os, selectors, sys
def spin(times):
    with selectors.SelectSelector() as selector:
        for _ in range(times): selector.select(0)
"""


@pytest.mark.parametrize("end", ["pid = os.fork()", "multiprocessing"])
def test_repeats_of_a_forked_child(end):
    """A forked child folds its own repeats, and says at its end how many there were."""
    if end == "multiprocessing":
        code = 'multiprocessing.get_context("fork").Process(target=spin, args=(60,)).start()'
    else:
        code = "spin(60) if os.fork() == 0 else os.wait()"
    first, second, folded, *child = trace("-c", f"{SPIN}spin(50)\n{code}").stderr.splitlines()

    assert (first[:10], second[:10], folded) == ("select(0, ", "select(0, ", "... 48 times more")
    assert re.fullmatch(r"\[pid \d+\] \.\.\. 58 times more", child.pop())
    assert len(child) == 2 and all("[SelectSelector-2] select(0, " in line for line in child)


def test_a_selector_that_only_a_forked_child_made():
    """Where a child may have shown something, nobody says that there was nothing to show."""
    code = f"{SPIN}spin(1) if os.fork() == 0 else os.wait()"
    lines, summary = trace("-c", code), trace("--summary", "-c", code)

    assert re.fullmatch(r"\[pid \d+\] select\(0, .*\n", lines.stderr)
    assert "nothing to show" not in summary.stderr
    assert re.search(r" 1 +select$", summary.stderr, re.MULTILINE)


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="only epoll knows of it")
def test_what_is_mended_before_a_fork_is_told_once():
    """A forked child does not tell what its parent has mended."""
    code = (
        "import os, selectors\n"
        "s, (read, write) = selectors.DefaultSelector(), os.pipe()\n"
        "s.register(read, 1)\n"
        "os.close(read)\n"
        "assert os.dup(write) == read\n"
        "s.modify(read, 2)\n"
        "os.fork() and os.wait()\n"
    )

    assert trace("--summary", "-c", code).stderr.count("reused number") == 1


@pytest.mark.parametrize("call", ["execv(command[0], command)", "execlp(name, *command)"])
def test_a_program_that_takes_the_process_over(tmp_path, call):
    """What is due is told before exec*(), and nothing is left behind; -f goes on with what follows."""
    code = f"import os; {SPIN}spin(60); command = [sys.executable, '-c', {SELECT!r}]\n"
    code += f"name = os.path.basename(command[0]); os.{call}"
    folder = tmp_path / "temporary"
    folder.mkdir()
    path = os.pathsep.join((str(tmp_path), os.path.dirname(sys.executable)))
    environment = {"TMPDIR": str(folder), "PATH": path}

    lines, table = (trace(*how, "-c", code, **environment) for how in ((), ("--summary",)))
    both = trace("-f", "--summary", "-c", code, **environment)

    assert lines.stderr.endswith("... 58 times more\n"), lines
    assert re.findall(r" (\d+) +select$", table.stderr, re.MULTILINE) == ["60"], table
    assert re.findall(r" (\d+) +select$", both.stderr, re.MULTILINE) == ["60", "1"], both
    assert not list(folder.iterdir())


AGAIN = """
import os, selectors, subprocess, sys
selectors.SelectSelector().select(0)
generation = int(os.environ.get("GENERATION", "0"))
os.environ["GENERATION"] = str(generation + 1)
if generation < 2:
    {again}
selectors.SelectSelector().select(0)
"""


@pytest.mark.parametrize("again", ["os.execv(sys.executable, command)", "subprocess.run(command)"])
@pytest.mark.parametrize("options", [[], ["-f"], ["--format", "json"], ["--format", "perfetto"]])
def test_a_program_that_starts_itself_again(tmp_path, again, options):
    """The same trace goes on in its file, which is not emptied."""
    path = tmp_path / "out"
    program = tmp_path / "again.py"
    command = ["-m", "selectors_ffi", "trace", *options, "-o", str(path), str(program)]
    program.write_text(AGAIN.format(again=f"command = [sys.executable, *{command!r}]; {again}"))
    path.write_text("of an earlier trace")

    trace(*command[3:])

    expected = 4 if "execv" in again else 6
    text = path.read_text()
    assert "earlier" not in text
    assert len(re.findall(r"select\(0, |\"name\": ?\"select\"", text)) == expected
    if "perfetto" in options:
        json.loads(text)


def test_a_file_for_each_process_goes_on(tmp_path):
    """With -ff, too, the program that takes the process over writes into the same file."""
    code = f"import os, sys; {SELECT}; os.execv(sys.executable, [sys.executable, '-c', {SELECT!r}])"
    trace("-ff", "-o", tmp_path / "out", "-c", code)

    (path,) = tmp_path.iterdir()
    assert path.read_text().count("select(") == 2


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_a_child_of_multiprocessing(workers, method):
    """Children of multiprocessing are traced, and counted in the summary."""
    lines = trace("-f", "-e", "trace=select", workers, method)
    summary = trace("-f", "--summary", workers, method)

    assert lines.stderr.count("] select(0, [], [], NULL") == 1
    assert summary.returncode == 0
    assert re.search(r" 1 +select$", summary.stderr, re.MULTILINE)
    assert re.search(r"^of [23] processes$", summary.stderr, re.MULTILINE)


def test_grandchildren():
    """Children of children are traced."""
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {RUN + ')'!r}], check=True)"

    assert trace("-f", "-e", "trace=select", "-c", code).stderr.count("] select(") == 1


def test_what_the_program_captures_stays_its_own(tmp_path):
    """A child's standard error is what it wrote itself; its trace goes to the first one's."""
    code = f"done = subprocess.run([sys.executable, '-c', {SELECT!r}], capture_output=True)\n"
    code = "import subprocess, sys\n" + code + "print(done.stderr)"
    path = tmp_path / "errors"

    with open(path, "w") as errors:
        done = trace("-f", "-e", "trace=select", "-c", code, stderr=errors)
    piped = trace("-f", "-e", "trace=select", "-c", code)

    assert done.stdout == piped.stdout == "b''\n"
    if sys.platform.startswith("linux"):
        assert path.read_text().count("] select(") == piped.stderr.count("] select(") == 1


def test_lines_of_several_processes_in_one_file(tmp_path):
    """What one process writes does not lie over what another has written."""
    code = f"import selectors\n{SELECT.split(';')[1].strip()}\n{RUN})\n{SELECT.split(';')[1].strip()}"
    path = tmp_path / "errors"
    with open(path, "w") as errors:
        trace("-f", "-e", "trace=select", "-c", code, stderr=errors)

    assert [line.count("select(0, ") for line in path.read_text().splitlines()] == [1, 1, 1]


@pytest.mark.parametrize("form", ["json", "perfetto", "html"])
def test_documents(tmp_path, form):
    """Every format has the records of all processes, in one file or in one for each."""
    one, each = tmp_path / "one", tmp_path / "each"
    code = f"{SELECT}\n{RUN})"
    trace("-f", "--format", form, "-o", one, "-c", code)
    trace("-ff", "--format", form, "-o", each, "-c", code)
    files = [path for path in tmp_path.iterdir() if path.name.startswith("each.")]

    assert len(files) == 2
    for path, processes in ((one, 2), (files[0], 1), (files[1], 1)):
        text = path.read_text()
        if form == "json":
            found = {json.loads(line)["pid"] for line in text.splitlines()}
            assert len(found) == processes
        elif form == "perfetto":
            found = {event["pid"] for event in json.loads(text)["traceEvents"]}
            assert len(found) == processes
        else:
            assert text.endswith("</html>\n")


def test_a_file_for_each_process(tmp_path):
    """-ff writes the lines of each process into a file with its number."""
    trace("-ff", "-o", tmp_path / "log", "-e", "trace=select", "-c", f"{SELECT}\n{RUN})")
    files = sorted(tmp_path.iterdir())

    assert [path.name.partition(".")[0] for path in files] == ["log", "log"]
    for path in files:
        assert path.read_text().count("select(0, [], [], NULL") == 1


def test_the_childs_sitecustomize_runs(tmp_path):
    """A ``sitecustomize`` of the environment's own is run in children, and sys.path is as it was."""
    (tmp_path / "sitecustomize.py").write_text("print('mine')")
    path = os.pathsep.join(map(str, (tmp_path, ROOT)))
    code = "import sys, sitecustomize; print(sitecustomize.__file__, sys.path)"
    call = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"

    done = trace("-f", "-c", call, PYTHONPATH=path)

    assert done.stdout.splitlines().count("mine") == 2  # of the parent and of the child
    assert str(tmp_path / "sitecustomize.py") in done.stdout
    assert "children" not in done.stdout


def test_the_package_of_the_current_folder(tmp_path):
    """A child in another folder finds the package where its parent had it."""
    code = RUN + f", cwd={str(tmp_path)!r})"
    command = [sys.executable, "-m", "selectors_ffi", "trace", "-f", "-e", "trace=select", "-c", code]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=50)

    assert done.stderr.count("] select(") == 1, done


def test_a_child_that_cannot_be_traced():
    """A child runs, traced or not; a line says why it is not."""
    code = "import os; os.environ['SELECTORS_FFI_TRACE'] = '{'; " + RUN + ")"

    done = trace("-f", "-e", "trace=select", "-c", code)

    assert done.returncode == 0
    assert re.fullmatch(r"selectors_ffi: process \d+ is not traced: JSONDecodeError: .*\n", done.stderr)


def test_a_child_without_settings(monkeypatch):
    """A process in whose environment there are no settings is not traced."""
    monkeypatch.delenv(following.VARIABLE, raising=False)
    before = list(sys.modules)
    following.begin()
    assert list(sys.modules) == before


def test_children_find_standard_error(monkeypatch):
    """Children reach standard error by a path, where the system has one for it."""
    modes = {
        0o100600: "/proc" if os.path.isdir("/proc/self/fd") else "",
        stat.S_IFSOCK: "",
    }
    appended = []
    monkeypatch.setattr(following, "_append", appended.append)
    for mode, start in modes.items():
        with monkeypatch.context() as patch:
            patch.setattr(os, "fstat", lambda fd, mode=mode: type("S", (), {"st_mode": mode}))
            assert following._own_standard_error().startswith(start)
    assert appended == [2]
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", lambda fd: os.stat("/no/such/file"))
        assert following._own_standard_error() == ""


def test_a_descriptor_that_cannot_append():
    """Where a descriptor cannot be switched to appending it stays as it is."""
    following._append(10**6)
    read, write = os.pipe()
    following._append(write)
    os.close(read)
    os.close(write)


def test_a_first_process_that_has_ended(tmp_path):
    """A child that outlives the first process writes to its own standard error, without figures."""
    settings = Settings(
        terminal=str(tmp_path / "no" / "such"), figures=str(tmp_path / "gone"), summary=True
    )
    tracing_ = Tracing(settings, child=True)
    tracing_.open()
    assert tracing_._output is tracing.standard_error
    tracing_._leave_figures(tracing_.table)
    assert not (tmp_path / "gone").exists()
