"""The shape of the package: imports point one way, and each layer keeps to its verb."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.source import PACKAGE

SOURCES = {
    path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", "."): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "generated" not in path.parts
}
# Lowest first. A layer may import itself and those before it; debug and testing wrap binding.
LAYERS = (
    *("_first_contact", "_abi", "binding", "selftest", "backends", "debug", ""),
    *("installation", "event_loop", "testing", "cli"),
)
NATIVE = re.compile(r"(EPOLL|POLL|EVFILT|EV|NOTE|DP|KQUEUE)_?[A-Z_]+$")
PUBLIC = {"EVENT_READ", "EVENT_WRITE", "EVENT_PRIORITY", "EVENT_HANGUP"}


def layer(module):
    """Return the name of a module's layer; the package itself is the empty one."""
    parts = module.split(".")
    name = parts[1] if len(parts) > 1 else ""
    return {"__init__": "", "__main__": "cli"}.get(name, name)


def imports(module, tree):
    """Yield the absolute names of the modules that ``tree`` imports when it runs.

    What stands under ``if TYPE_CHECKING`` names types; it never runs.
    """
    types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for part in node.body
        for inner in ast.walk(part)
    }
    for node in set(ast.walk(tree)) - types:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*parent, *filter(None, [node.module])])
            # "from selectors_ffi import backends" names a module only in its last part.
            yield from (
                f"{base}.{alias.name}" if base == "selectors_ffi" else base for alias in node.names
            )


def parse(module):
    """Return the syntax tree of one of the package's modules."""
    return ast.parse(SOURCES[module].read_text(encoding="utf-8"))


def test_every_module_belongs_to_a_layer():
    """No module stands outside the layers, so the rules below see them all."""
    assert {layer(module) for module in SOURCES} <= set(LAYERS)
    assert {"_abi", "binding", "backends", ""} <= {layer(module) for module in SOURCES}


@pytest.mark.parametrize("module", SOURCES)
def test_imports_point_down(module):
    """A module imports its own layer and lower ones; backends never import debug."""
    allowed = LAYERS[: LAYERS.index(layer(module)) + 1]

    for name in imports(module, parse(module)):
        if name.split(".")[0] == "selectors_ffi":
            target = name if layer(name) in LAYERS else "selectors_ffi"
            assert layer(target) in allowed, f"{module} imports {name}"


@pytest.mark.parametrize("module", SOURCES)
def test_imports_by_a_string_point_down(module):
    """import_module() and __import__() are imports, too. The package itself loads layers above it.

    It does so when a user asks for them, or the environment does; the command line asks for itself.
    """
    tree = parse(module)
    allowed = LAYERS[: LAYERS.index(layer(module)) + 1]
    if module == "selectors_ffi.__init__":
        allowed = LAYERS[: LAYERS.index("cli")]
    names = {
        target for call in ast.walk(tree) if is_import_call(call) for target in targets(module, call)
    }

    assert not [name for name in names if layer(name) not in allowed]


def is_import_call(node):
    """Tell whether a node calls ``import_module`` or ``__import__``, by whatever way it is reached."""
    if not isinstance(node, ast.Call):
        return False
    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
    return name in ("import_module", "__import__")


def targets(module, call):
    """Return the modules that a call may import; its first argument must tell them."""
    package = module.rpartition(".")[0]
    argument = call.args[0]
    if isinstance(argument, ast.Subscript):
        # A table of this module: all of its values.
        table = next(
            node.value
            for node in parse(module).body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == argument.value.id
        )
        found = [value.value for value in table.values]
    elif isinstance(argument, ast.JoinedStr):
        # f"{__name__}.generated.{target}": what is filled in comes below this package.
        assert argument.values[0].value.id == "__name__", f"{module}:{call.lineno}"
        found = [package]
    else:
        found = [argument.value]
    return [f"{package}{name}" if name.startswith(".") else name for name in found]


@pytest.mark.parametrize("module", [m for m in SOURCES if layer(m) == "debug"])
def test_debug_imports_nothing_late(module):
    """No module of the debug package imports in a function: an import may wait for another thread."""
    inside = [
        node.lineno
        for function in ast.walk(parse(module))
        if isinstance(function, (ast.FunctionDef, ast.Lambda))
        for node in ast.walk(function)
        if isinstance(node, (ast.Import, ast.ImportFrom))
    ]

    assert not inside


def test_one_dlopen():
    """A library is opened in one place, the binding."""
    calls = [
        module
        for module in SOURCES
        for node in ast.walk(parse(module))
        if isinstance(node, ast.Attribute) and node.attr == "dlopen"
    ]

    assert calls == ["selectors_ffi.binding"]


@pytest.mark.parametrize("module", [m for m in SOURCES if layer(m) in ("_abi", "binding")])
def test_events_stay_above_the_binding(module):
    """EVENT_READ and EVENT_WRITE mean nothing below the backends."""
    names = {node.id for node in ast.walk(parse(module)) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(parse(module)) if isinstance(node, ast.Attribute)}

    assert not names & PUBLIC


@pytest.mark.parametrize("module", [m for m in SOURCES if layer(m) in ("backends", "debug")])
def test_what_others_may_change_is_copied_in_one_step(module):
    """An attribute is copied by ``{**it}`` or ``[*it]``, and never by ``it.copy()``.

    Up to CPython 3.11 ``dict.copy()`` and ``list.copy()`` look at the length, then make the copy,
    which may begin a collection, and with it a finaliser or another thread. If those remove an item,
    the copy of a dict raises RuntimeError when it is iterated.
    """
    calls = [ast.unparse(node) for node in ast.walk(parse(module)) if isinstance(node, ast.Call)]

    assert not [call for call in calls if call.endswith(".copy()")]


@pytest.mark.parametrize("module", SOURCES)
def test_no_decorator_has_a_lock(module):
    """``lru_cache`` has one on PyPy, ``cached_property`` up to 3.11: a forked child may find it held."""
    decorators = [
        ast.unparse(one)
        for node in ast.walk(parse(module))
        for one in getattr(node, "decorator_list", ())
    ]

    assert not [one for one in decorators if "lru_cache" in one or "cached_property" in one]


@pytest.mark.parametrize("module", SOURCES)
def test_what_a_reader_must_take_in_at_once_is_short(module):
    """No function has more than 60 lines, and no backend file more than 400."""
    long = [
        node.name
        for node in ast.walk(parse(module))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.end_lineno - node.lineno >= 60
    ]

    assert not long
    if layer(module) == "backends":
        assert len(SOURCES[module].read_text(encoding="utf-8").splitlines()) <= 400


#: The other side of the declarations: a simulated kernel has numbers of its own, which
#: tests/kernels/test_numbers.py compares with the facts.
KERNELS = "selectors_ffi.testing.kernels."


@pytest.mark.parametrize("module", [m for m in SOURCES if not m.startswith(KERNELS)])
def test_native_constants_come_from_the_declarations(module):
    """No native flag gets its number from a literal in Python."""
    for node in ast.walk(parse(module)):
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and is_number(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {getattr(t, "id", getattr(t, "attr", "")) for t in targets} - PUBLIC
            native = [name for name in names if NATIVE.match(name.lstrip("_"))]
            assert not native, f"{module}:{node.lineno}: {native}"


def is_number(node):
    """Tell whether an expression is made of integer literals alone, such as 1 << 3 or -2."""
    if isinstance(node, ast.UnaryOp):
        return is_number(node.operand)
    if isinstance(node, ast.BinOp):
        return is_number(node.left) and is_number(node.right)
    return isinstance(node, ast.Constant) and type(node.value) is int


TESTS = sorted(Path(__file__).parent.rglob("test_*.py"))


@pytest.mark.parametrize("path", TESTS, ids=[path.stem for path in TESTS])
def test_every_test_says_what_it_shows(path):
    """Every test has a docstring, and no test sleeps; ``asyncio.sleep(0)`` only lets others run."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    tests = [node for node in functions if node.name.startswith("test_")]

    assert [node.name for node in tests if not ast.get_docstring(node)] == []
    yields = {call.func for call in ast.walk(tree) if is_yield(call)}
    slept = [node for node in ast.walk(tree) if getattr(node, "attr", "") == "sleep"]
    assert not [node for node in slept if node not in yields]


def is_yield(node):
    """Tell whether a node is ``asyncio.sleep(0)``."""
    return isinstance(node, ast.Call) and ast.unparse(node) == "asyncio.sleep(0)"
