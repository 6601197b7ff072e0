"""``trace`` and ``run`` start a program as ``python`` does: whatever it can see is the same."""

from __future__ import annotations

import functools
import json
import os
import py_compile
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# What a program can see of how it was started. Of values that print an address, the type is enough.
LOOK = """
import json, os, sys
seen = {}
for name, value in list(globals().items()):
    if name not in ("json", "os", "sys", "seen", "name", "value"):
        plain = value is None or isinstance(value, (str, dict))
        seen[name] = str(value) if plain else getattr(value, "__name__", type(value).__name__)
spec = globals()["__spec__"]
seen["spec"] = spec and [spec.name, spec.origin, spec.cached, spec.has_location, spec.parent]
seen["loader"] = [getattr(__loader__, name, "none") for name in ("name", "path", "archive")]
seen["main"] = vars(sys.modules["__main__"]) is globals()
print(json.dumps([seen, sys.argv, sys.path[:2], os.getcwd()]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the same program in every form that ``python`` accepts."""
    tmp_path = tmp_path_factory.mktemp("programs")
    (tmp_path / "program.py").write_text(LOOK)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text(LOOK)
    (tmp_path / "linked").mkdir()
    (tmp_path / "broken.py").write_text("def f():\n    raise ValueError('in broken')\nf()\n")
    py_compile.compile(str(tmp_path / "program.py"), cfile=str(tmp_path / "compiled.pyc"))
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("__main__.py", LOOK)
    (tmp_path / "empty").mkdir()
    return tmp_path


@functools.lru_cache(maxsize=None)
def python(folder, *arguments, flags=(), source=None):
    """Run the interpreter in ``folder``, where this package can be imported; once for each command."""
    # What the package's folder adds to sys.path must not depend on how the program is started.
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *flags, *map(str, arguments)],
        cwd=folder,
        input=source,
        capture_output=True,
        text=True,
        timeout=50,
        env=environment,
    )


COMMANDS = {"trace": ["trace", "-o", os.devnull], "run": ["run"]}


@pytest.fixture(params=list(COMMANDS))
def ours(request):
    """The words before the program, of each command that runs one."""
    return ["-m", "selectors_ffi", *COMMANDS[request.param]]


FORMS = {
    "file": ["program.py"],
    "file in a folder": ["./package/__main__.py"],
    "compiled file": ["compiled.pyc"],
    "directory": ["package"],
    "this directory": ["package/."],
    "zip file": ["archive.zip"],
    "module": ["-m", "program"],
    "module in one word": ["-mprogram"],
    "package": ["-m", "package"],
    "code": ["-c", LOOK],
    "code in one word": [f"-c{LOOK}"],
    "standard input": ["-"],
}


@pytest.mark.parametrize("form", FORMS)
def test_program_sees_what_it_always_sees(folder, ours, form):
    """Names of __main__, its loader and spec, arguments and module path are those of python."""
    words = [*FORMS[form], "-e", "x", "--", "-m", "-h"]
    source = LOOK if form == "standard input" else None
    plain, run = python(folder, *words, source=source), python(folder, *ours, *words, source=source)

    assert (run.stderr, run.returncode) == (plain.stderr, 0) == ("", 0)
    assert json.loads(run.stdout) == json.loads(plain.stdout)


@pytest.mark.skipif(os.name == "nt", reason="a symbolic link needs a right there")
def test_link_to_a_program(folder, ours):
    """The module path begins with the folder of the file that the link leads to."""
    if not (folder / "linked" / "link.py").exists():
        (folder / "linked" / "link.py").symlink_to(folder / "package" / "__main__.py")
    plain, run = python(folder, "linked/link.py"), python(folder, *ours, "linked/link.py")

    assert json.loads(run.stdout) == json.loads(plain.stdout)
    assert json.loads(run.stdout)[2][0] == os.path.realpath(folder / "package")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="python -P is new in 3.11")
@pytest.mark.parametrize("form", ["file", "directory", "zip file", "code", "standard input"])
def test_safe_path(folder, ours, form):
    """With python -P only a directory or a zip file comes first in the module path."""
    source = LOOK if form == "standard input" else None
    plain = python(folder, *FORMS[form], flags=("-P",), source=source)
    run = python(folder, *ours, *FORMS[form], flags=("-P",), source=source)

    assert json.loads(run.stdout) == json.loads(plain.stdout)


def test_two_dashes_before_the_program(folder, ours):
    """-- ends our own options, and the rest is the program's."""
    plain, run = (
        python(folder, "program.py", "--", "a"),
        python(folder, *ours, "--", "program.py", "--", "a"),
    )

    assert json.loads(run.stdout) == json.loads(plain.stdout)


def test_indented_code(folder, ours):
    """Indented code after -c is an error until Python 3.14 and accepted then; none is a program."""
    for code in ("  import sys\n  print('ran')\n  1/0", ""):
        plain, run = python(folder, "-c", code), python(folder, *ours, "-c", code)

        assert (run.returncode, run.stdout, run.stderr) == (plain.returncode, plain.stdout, plain.stderr)


ERRORS = {
    "error in a function": "def f():\n    1/0\nf()",
    "chained errors": "def f():\n    try:\n        1/0\n    except ZeroDivisionError:\n"
    "        raise KeyError('x') from ValueError('y')\nf()",
    "error in a thread": "import threading\nthread = threading.Thread(target=lambda: 1/0, name='t')\n"
    "thread.start()\nthread.join()",
    "missing module": "import no_such_module",
    "broken pipe": "raise BrokenPipeError(32, 'Broken pipe')",
    "missing file": "open('/no/such/file')",
    "syntax error": "x = 1\nx = = 1",
    "error in the imported module": "import broken",
    "error at exit": "import atexit\natexit.register(exec, '1/0')",
    "error in a coroutine": "import asyncio\nasync def f():\n    raise OSError(5)\nasyncio.run(f())",
    "error with notes": "error = ValueError('x')\nerror.__notes__ = ['a note']\nraise error",
    "message at exit": "import sys\nsys.exit('message')",
    "status": "import sys\nsys.exit(7)",
    "status true": "raise SystemExit(True)",
    "exit at once": "import os\nos._exit(7)",
    "closed output": "import os, sys\nsys.stdout.write('x')\nos.close(1)",
    "warning": "import warnings\nwarnings.warn('a warning')",
}


# The forms differ in who runs the code, and the commands in what is around it: not in every error.
KINDS = ("error in a function", "syntax error", "broken pipe", "message at exit")
ENDS = [
    (command, form, error)
    for command in COMMANDS
    for form in ("file", "module", "code", "standard input", "directory")
    for error in (ERRORS if (command, form) == ("trace", "file") else KINDS)
    if form == "file" or command == "trace" or error == KINDS[0]
]


@pytest.mark.parametrize(("ours", "form", "error"), ENDS, indirect=["ours"])
def test_end_of_the_program(folder, ours, form, error):
    """Status, output and traceback are those of python, without a line that shows us."""
    source = ERRORS[error] + "\n"
    name = f"error_{list(ERRORS).index(error)}"
    (folder / name).mkdir(exist_ok=True)
    for path in (f"{name}.py", f"{name}/__main__.py"):
        (folder / path).write_text(source, encoding="ascii")
    words = {
        "file": [f"{name}.py"],
        "module": ["-m", f"{name}.__main__"],
        "code": ["-c", ERRORS[error]],
        "standard input": ["-"],
        "directory": [name],
    }[form]
    given = source if form == "standard input" else None
    plain, run = python(folder, *words, source=given), python(folder, *ours, *words, source=given)

    assert run.stderr == plain.stderr
    assert (run.stdout, run.returncode) == (plain.stdout, plain.returncode)


@pytest.mark.parametrize(
    "words", [["-m", "no_such_module"], ["empty"], ["-m", "empty"], ["-m", "no.such"], ["-m", "json"]]
)
def test_program_that_python_cannot_find(folder, ours, words):
    """A module or a __main__ that is missing is reported in the interpreter's words."""
    plain, run = python(folder, *words), python(folder, *ours, *words)

    assert run.stderr == plain.stderr
    assert run.returncode == plain.returncode == 1


def test_excepthook_of_the_program(folder, ours):
    """A hook that the program installs gets a traceback that begins with the program."""
    code = (
        "import sys\n"
        "sys.excepthook = lambda kind, value, trace: print(kind.__name__, trace.tb_lineno,"
        " value.__traceback__ is trace, sys.last_traceback is trace)\n"
        "1/0"
    )
    run = python(folder, *ours, "-c", code)

    assert (run.stdout, run.stderr, run.returncode) == ("ZeroDivisionError 3 True True\n", "", 1)


ENDINGS = """
import atexit, selectors, socket, sys
class Held:
    def __del__(self):
        print("released", flush=True)
def main():
    held, ends, selector = Held(), socket.socketpair(), selectors.DefaultSelector()
    selector.register(ends[0], selectors.EVENT_READ)
    {}
atexit.register(print, "end", flush=True)
main()
"""


@pytest.mark.skipif(not hasattr(sys, "getrefcount"), reason="objects go when they are collected")
@pytest.mark.parametrize("last", ["sys.exit(3)", "raise KeyboardInterrupt", "selector.unregister(7)"])
def test_end_with_an_exception(folder, ours, last):
    """What the program's functions hold goes when it goes under python, and goes without a complaint."""
    code = ENDINGS.format(last)
    plain, run = python(folder, "-c", code), python(folder, *ours, "-c", code)

    assert (run.stdout, run.returncode) == (plain.stdout, plain.returncode)
    assert "Exception ignored" not in run.stderr


@pytest.mark.skipif(not hasattr(sys, "getrefcount"), reason="objects go when they are collected")
def test_selector_that_is_kept_to_the_end(folder, ours):
    """A selector that goes after the modules were emptied is freed without a complaint."""
    code = ENDINGS.format("sys.excepthook = lambda *_, kept=selector: print('hook'); 1/0")
    run = python(folder, *ours, "-c", code)

    assert (run.stdout, run.returncode) == ("hook\nend\nreleased\n", 1)
    assert "Exception ignored" not in run.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no program to run"),
        (["no-such-file.py"], "can't open file 'no-such-file.py': No such file or directory"),
        (["-c"], "-c needs an argument"),
        (["-m"], "-m needs an argument"),
        (["--no-such-option", "program.py"], "unrecognized arguments: --no-such-option"),
    ],
)
def test_mistakes(folder, ours, words, message):
    """A wrong command line is one line that says what to do, with status 2; nothing has run."""
    run = python(folder, *ours, *words)

    assert (run.stdout, run.returncode) == ("", 2)
    assert message in run.stderr
    assert run.stderr.count("\n") == 1


def test_threads_outlive_the_main_one(folder, ours):
    """A thread that goes on after the program's last line finds the program's names."""
    code = """
        import threading
        def work():
            threading.main_thread().join()
            print(name)
        name = "still here"
        threading.Thread(target=work).start()
    """
    (folder / "late.py").write_text(textwrap.dedent(code))

    for words in (["late.py"], ["-m", "late"]):
        assert python(folder, *ours, *words).stdout == "still here\n"


def test_main_module_is_importable(folder, ours):
    """What pickles by the name of __main__ comes back in the program and in its spawned child."""
    code = """
        import multiprocessing, pickle, sys
        class Thing: pass
        def child(queue, thing):
            queue.put(type(thing).__module__)
        if __name__ == "__main__":
            assert type(pickle.loads(pickle.dumps(Thing()))) is Thing
            context = multiprocessing.get_context("spawn")
            queue = context.SimpleQueue()
            process = context.Process(target=child, args=(queue, Thing()))
            process.start()
            print(queue.get())
            process.join()
    """
    (folder / "spawning.py").write_text(textwrap.dedent(code))

    for words in (["spawning.py"], ["-m", "spawning"]):
        plain, run = python(folder, *words), python(folder, *ours, *words)
        assert (run.stdout, run.stderr) == (plain.stdout, plain.stderr) == ("__mp_main__\n", "")
