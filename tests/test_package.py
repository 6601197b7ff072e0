"""What is shipped: one pure wheel that imports fast and calls no compiler."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.source import PACKAGE, ROOT, TREE


def python(*arguments, **options):
    """Run this interpreter apart; return what it printed on both streams."""
    done = subprocess.run(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        **options,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def imported_modules():
    """Return the names of the modules that ``import selectors_ffi`` brings in."""
    code = (
        "import sys; before = set(sys.modules)\n"
        "import selectors_ffi; selectors_ffi.DefaultSelector().close()\n"
        "print(*set(sys.modules) - before)"
    )
    return set(python("-c", code, cwd=ROOT).split())


def test_import_needs_no_parser():
    """Importing the package loads neither the C parser nor cffi's in-line front end."""
    names = {name.split(".")[0] for name in imported_modules()}

    assert "selectors_ffi" in names
    assert not names & {"pycparser", "cffi", "distutils", "setuptools", "argparse"}


def test_import_leaves_debug_alone():
    """The debug package is not imported until something asks for it."""
    assert not {name for name in imported_modules() if name.startswith("selectors_ffi.debug")}


def test_dir_shows_what_is_public():
    """dir() has the lazy names and packages and no private helper; the packages need no import."""
    code = """if True:
        import selectors_ffi as s
        names = {name for name in dir(s) if not name.startswith("__")}
        assert {"Debug", "debugging", "RawEvent", "install", "debug", "testing"} <= names
        assert not [name for name in names if name.startswith("_")] and "os" not in names
        s.debug.switch(None), s.testing.inject, [getattr(s, name) for name in names]
    """
    assert python("-c", code, cwd=ROOT) == ""


@pytest.mark.skipif(os.name != "posix", reason="needs RLIMIT_NOFILE")
def test_names_where_no_descriptor_is_left():
    """The classes of this system are exported when the limit of descriptors was reached before."""
    code = """if True:
        import os, resource, selectors_ffi
        names = sorted(name for name in dir(selectors_ffi) if name.endswith("Selector"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        taken = []
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            pass
        selectors_ffi._choose_classes()  # as the import does
        assert names == sorted(name for name in dir(selectors_ffi) if name.endswith("Selector"))
        for fd in taken:
            os.close(fd)
        selectors_ffi.DefaultSelector().close()
    """
    assert python("-c", code, cwd=ROOT) == ""


def test_import_without_cffi_says_so():
    """Where cffi is missing the import fails, rather than leaving a module without classes."""
    code = (
        "import sys; sys.modules['_cffi_backend'] = None\n"
        "try: import selectors_ffi\n"
        "except ModuleNotFoundError as error: print(error.name)"
    )
    assert python("-c", code, cwd=ROOT).split() == ["_cffi_backend"]


def test_import_loads_one_target():
    """Only the declarations of this host are loaded."""
    names = [n for n in imported_modules() if n.startswith("selectors_ffi._abi.generated.")]

    assert len([name for name in names if not name.endswith(".probe")]) == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of Linux")
def test_import_leaves_other_mechanisms_alone():
    """The modules of a mechanism are imported when its class is asked for, but for the default one."""
    names = "poll", "select", "table", "tables", "kqueue", "devpoll", "eventport", "windows"
    others = {f"selectors_ffi.backends.{name}" for name in names}
    code = (
        "import sys, selectors_ffi as s\n"
        "s.DefaultSelector().select(0)\n"
        f"print(sorted({others!r} & set(sys.modules)))\n"
        "print(s.backends.KqueueSelector.__module__, 'PollSelector' in dir(s.backends))\n"
        "print(s.PollSelector.__module__, vars(s)['PollSelector'] is s.backends.PollSelector)"
    )

    assert python("-c", code).split() == [
        *("[]", "selectors_ffi.backends.kqueue", "True", "selectors_ffi.backends.poll", "True")
    ]


def test_all_that_a_star_imports():
    """A star import gives every class, asked for before or not, and no module that we import."""
    code = (
        "import os, selectors_ffi\n"
        "from selectors_ffi import *\n"
        "names = {n for n in dir(selectors_ffi) if n.endswith('Selector')}\n"
        "print(names <= set(globals()), PollSelector is selectors_ffi.PollSelector, 'sys' in globals())"
    )

    assert python("-c", code).split() == ["True", "True", "False"]


def test_a_class_whose_self_test_fails():
    """It is not exported, also where its module is not imported yet."""
    code = (
        "import selectors_ffi as s\n"
        "from selectors_ffi import binding, selftest\n"
        "call, struct, _ = selftest.TESTS['poll']\n"
        "selftest.TESTS['poll'] = call, struct, lambda *_: iter(['a wrong size'])\n"
        "binding.default().proven.clear(), selftest._outcomes.clear()\n"
        "s._choose_classes()\n"
        "print(hasattr(s, 'PollSelector'), hasattr(s, 'SelectSelector'))"
    )

    assert python("-c", code).split() == ["False", "True"]


def test_a_class_can_be_taken_out():
    """A class that a program deletes, to force another mechanism, stays away."""
    code = (
        "import selectors_ffi as s\n"
        "print(hasattr(s, 'SelectSelector'))\n"
        "del s.SelectSelector\n"
        "print(hasattr(s, 'SelectSelector'), 'SelectSelector' in dir(s))"
    )

    assert python("-c", code).split() == ["True", "False", "False"]


@pytest.mark.skipif(os.name != "posix", reason="needs simulated kernels")
def test_classes_before_and_after_a_block():
    """A simulated kernel has classes of its own; afterwards this host's are all there."""
    code = (
        "import selectors_ffi as s\n"
        "from selectors_ffi.testing import on_kernel\n"
        "before = dir(s)\n"
        "with on_kernel('darwin'):\n"
        "    s.SelectSelector().close()\n"
        "    print(hasattr(s, 'KqueueSelector'), hasattr(s, 'EpollSelector'))\n"
        "print(dir(s) == before, hasattr(s, 'KqueueSelector'), s.SelectSelector.__name__)"
    )

    assert python("-c", code).split() == ["True", "False", "True", "False", "SelectSelector"]


def test_no_program_is_called(tmp_path):
    """Importing and using every class starts no program: no compiler, no ldconfig."""
    code = (
        "import sys\n"
        "programs = 'subprocess.Popen', 'os.exec', 'os.posix_spawn', 'os.system', 'os.fork'\n"
        "sys.addaudithook(lambda event, _: event in programs and sys.exit(event))\n"
        "import selectors_ffi\n"
        "for name in dir(selectors_ffi):\n"
        "    if name.endswith('Selector') and name != 'BaseSelector':\n"
        "        with getattr(selectors_ffi, name)() as s: s.select(0)\n"
        "print('used')"
    )
    environment = {k: v for k, v in os.environ.items() if k.upper() != "PATH"}
    environment["PATH"] = str(tmp_path)

    assert python("-c", code, cwd=ROOT, env=environment).strip() == "used"


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The project's sdist, and the wheel built of what is in it, as an installer would."""
    pytest.importorskip("hatchling", reason="the build backend is not installed")
    folder = tmp_path_factory.mktemp("built")
    python("-m", "hatchling", "build", "-t", "sdist", "-d", str(folder), cwd=TREE)
    (sdist,) = folder.iterdir()
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (source,) = (path for path in folder.iterdir() if path.is_dir())
    python("-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=source)
    return sdist, next(folder.glob("*.whl")), source


@pytest.fixture(scope="session")
def wheel(built):
    """The wheel."""
    return built[1]


def test_wheel_is_pure(wheel):
    """One wheel serves every system, and holds the package alone: no tests, no headers."""
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"selectors_ffi"}
    assert "selectors_ffi/py.typed" in names
    assert any(name.startswith("selectors_ffi/_abi/generated/") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    kinds = {Path(name).suffix for name in names if name.startswith("selectors_ffi/")}
    assert kinds <= {".py", ".typed", ".html", ".css", ".js"}


def test_sdist_is_the_repository(built):
    """The sdist has what it takes to build, to test and to read: every tracked file."""
    source = built[2]
    if not (TREE / ".git").exists():
        pytest.skip("not a git checkout")
    try:
        shown = subprocess.run(["git", "ls-files"], cwd=TREE, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("git is not installed")
    tracked = {name for name in shown.stdout.splitlines() if (TREE / name).exists()}

    assert {name for name in tracked if not (source / name).exists()} == set()


def test_version_in_one_place(wheel):
    """The version is written in the package alone, and the wheel has it."""
    text = (PACKAGE / "__init__.py").read_text("utf-8")
    version = re.search(r'^__version__ = "(.*)"$', text, re.M)[1]

    assert wheel.name == f"selectors_ffi-{version}-py3-none-any.whl"
    project = (TREE / "pyproject.toml").read_text("utf-8").partition("[project.optional")[0]
    assert f'"{version}"' not in project


def test_description_of_the_package_index(wheel):
    """The README in the wheel has no link that leads nowhere there."""
    (name,) = (name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("/METADATA"))
    text = zipfile.ZipFile(wheel).read(name).decode("utf-8")

    assert "Description-Content-Type: text/markdown" in text
    assert "# selectors_ffi" in text
    targets = re.findall(r"\]\(([^)]*)\)", text)
    assert targets
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []


def test_links_of_the_package_index():
    """With an address of the repository, links and pictures lead there; without, words remain."""
    pytest.importorskip("hatchling", reason="the build backend is not installed")
    spec = importlib.util.spec_from_file_location("hook", ROOT / "docs" / "package_readme.py")
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    text = "[the `a[0]`](docs/a.md#b) ![chart](docs/c.svg) [x](https://x.org) [y](#y)"

    assert hook.urls(None) == {}
    assert set(hook.urls("https://host/it")) == {"Repository", "Documentation", "Changelog", "Issues"}
    assert hook.package_readme(text, None) == "the `a[0]`  [x](https://x.org) [y](#y)"
    assert hook.package_readme(text, "https://host/it") == (
        "[the `a[0]`](https://host/it/blob/main/docs/a.md#b)"
        " ![chart](https://host/it/raw/main/docs/c.svg) [x](https://x.org) [y](#y)"
    )


def test_wheel_works_elsewhere(wheel, tmp_path):
    """The wheel's content runs the demo with the source tree out of sight."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    shown = python("-m", "selectors_ffi", "demo", "--clients", "2", cwd=tmp_path, env=environment)
    code = "import selectors_ffi; print(selectors_ffi.__file__)"
    place = python("-c", code, cwd=tmp_path, env=environment)

    assert "verified" in shown.splitlines()[-1]
    assert Path(place.strip()).parent == tmp_path / "selectors_ffi"


def test_generated_files_are_marked():
    """The rule for generated files in .gitattributes matches the files that there are."""
    if not (TREE / ".git").exists():
        pytest.skip("not a git checkout")
    path = "selectors_ffi/_abi/generated/linux.py"
    assert (TREE / path).exists()
    try:
        shown = subprocess.run(
            ["git", "check-attr", "linguist-generated", path],
            cwd=TREE,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        pytest.skip("git is not installed")

    assert shown.stdout.strip().endswith("linguist-generated: set")
