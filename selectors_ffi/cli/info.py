"""``info``: what this host offers, for people or as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import struct
import sys
from errno import ENOSYS
from typing import Any

# Described in docs/environment.md; SELECTORS_FFI_ stands before each.
VARIABLES = (
    "BACKEND",
    "BLOCKED_AFTER",
    "CHAOS",
    "DEBUG",
    "INJECT",
    "KERNEL",
    "OUTPUT",
    "SELFTEST",
    "SIGNAL",
    "SINK",
    "TRACE",
)


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand and its options."""
    parser = subparsers.add_parser(
        "info",
        help="what this host offers (the default)",
        description="Say whether this package works here, and show what it found. Exit status 1 if"
        " a mechanism that this system has is refused, or if there is none at all.",
    )
    parser.add_argument("--json", action="store_true", help="the same facts for programs")
    parser.add_examples(("does it work here?", ""), ("the facts for programs", "--json"))
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the facts; 1 if a mechanism that the system has is refused, or if none is usable."""
    found = facts()
    print(json.dumps(found, indent=2) if options.json else text(found))
    return 0 if found["works"] else 1


def facts() -> dict[str, Any]:
    """Return everything that ``info`` shows, as JSON takes it."""
    from _cffi_backend import __version__ as cffi

    import selectors_ffi

    default = getattr(getattr(selectors_ffi, "DefaultSelector", None), "__name__", None)
    host = interface()
    rows = backends()
    works, verdict = judge(rows, default, host["reason"])
    found: dict[str, Any] = {
        "verdict": verdict,
        "works": works,
        "platform": {
            "system": sys.platform,
            "release": platform.release(),
            "machine": platform.machine(),
            "bits": struct.calcsize("P") * 8,
            "byte order": sys.byteorder,
            "python": f"{platform.python_implementation()} {platform.python_version()}",
            "cffi": cffi,
        },
        **host,
        "backends": rows,
        "default": default,
        "limits": limits(),
    }
    known = {f"SELECTORS_FFI_{name}" for name in VARIABLES}
    variables = {name: value for name, value in os.environ.items() if name.startswith("SELECTORS_FFI_")}
    if variables:
        listed = ", ".join(sorted(known))
        found["variables"] = {
            name: value if name in known else f"{value} (no such variable; known: {listed})"
            for name, value in sorted(variables.items())
        }
    return found


def judge(rows: dict[str, dict[str, Any]], default: str | None, reason: str) -> tuple[bool, str]:
    """Return whether the package works here, and that in one line."""
    import selectors_ffi

    name = f"selectors_ffi {selectors_ffi.__version__}"
    usable = ", ".join(title for title, row in rows.items() if row["usable"])
    refused = [title for title, row in rows.items() if row.get("refused")]
    why = f"{refused[0]}: {rows[refused[0]]['reason']}" if refused else reason
    if not usable:
        return False, f"{name} does not work here: {why}; use the standard library's selectors"
    if refused:
        return False, f"{name} works here only in part, DefaultSelector is {default}; refused: {why}"
    return True, f"{name} works here: DefaultSelector is {default}; usable: {usable}"


def interface() -> dict[str, Any]:
    """Return target, library, symbols and structs of this process's binding."""
    from selectors_ffi._abi.target import host, presence, symbols_for
    from selectors_ffi.binding import Binding, default, open_library
    from selectors_ffi.debug.decode import FORMS

    decision = host(presence(open_library))
    found: dict[str, Any] = {
        "target": decision.target,
        "reason": decision.reason,
        "library": None,
        "symbols": {},
        "structs": {},
    }
    try:
        binding = default()
    except OSError as error:
        found["reason"] = error.strerror or str(error)
        return found
    if not binding.opened:  # see selectors_ffi.testing
        found["target"], found["reason"] = binding.target, f"chosen by {binding.lib!r}"
    # Without what a self-test has refused since: it is found again, and told, below.
    linked = Binding(binding.target, binding.ffi, binding.lib)
    declared = set(dir(binding.lib))
    found["library"] = repr(binding.lib)
    for name in FORMS:
        if declared.intersection(symbols_for(binding.target, name)):
            symbol = linked.find(name)
            found["symbols"][name] = symbol[0] if symbol else None
    for name in sorted(binding.ffi.list_types()[1]):
        size = struct_size(binding.ffi, f"struct {name}")
        if size:
            found["structs"][f"struct {name}"] = size
    found["self-test"] = self_test(linked)
    return found


def self_test(binding: Any) -> dict[str, str]:
    """Return for each mechanism of the host what its self-test found."""
    from selectors_ffi import _CLASSES
    from selectors_ffi.selftest import check

    found: dict[str, str] = {}
    if binding.target == "windows":
        return found  # no test of sockets, see selftest.require
    for mechanism in _CLASSES:
        try:
            report = check(binding, mechanism)
        except ImportError as error:
            found[mechanism] = f"failed: {error}"
        except OSError:
            continue  # the host does not have it; the backends below say so
        else:
            without = "".join(f", without {function}" for function in report.unfit)
            found[mechanism] = f"passed with {report.struct} of {report.sizeof} bytes{without}"
    return found


def struct_size(ffi: Any, name: str) -> int:
    """Return a struct's declared size; 0 if only its name is declared."""
    try:
        return int(ffi.sizeof(name))
    except (ffi.error, ValueError):
        return 0


def backends() -> dict[str, dict[str, Any]]:
    """Return for each of the six classes whether it works here, and if not, why.

    ``refused`` says that the system has the mechanism all the same: the standard library has the
    class, or the class failed otherwise than by the absence of a function.
    """
    import selectors

    from selectors_ffi import _CLASSES
    from selectors_ffi import backends as module
    from selectors_ffi.binding import default

    try:
        real = default().opened  # not a kernel of selectors_ffi.testing
    except OSError:
        real = True
    found: dict[str, dict[str, Any]] = {}
    for title in _CLASSES.values():
        try:
            with getattr(module, title)() as selector:
                selector.select(0)
        # A class can refuse a host in many ways; each is what the user came to read.
        except Exception as error:
            absent = isinstance(error, OSError) and error.errno == ENOSYS
            found[title] = {
                "usable": False,
                "refused": (real and hasattr(selectors, title)) or not absent,
                "reason": str(error) or repr(error),
            }
        else:
            found[title] = {"usable": True}
    return found


def limits() -> dict[str, Any]:
    """Return the limits on descriptors and registrations; None for unlimited."""
    found: dict[str, Any] = {}
    try:
        import resource
    except ImportError:  # Windows
        return found
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    found["descriptors"] = None if soft == unlimited else soft
    found["descriptors, hard"] = None if hard == unlimited else hard
    try:
        with open("/proc/sys/fs/epoll/max_user_watches", encoding="ascii") as lines:
            found["epoll registrations per user"] = int(lines.read())
    except (OSError, ValueError):
        pass  # not Linux, or no /proc
    return found


def text(found: dict[str, Any]) -> str:
    """Return the facts as aligned lines."""
    lines = [found["verdict"]]
    for title, value in found.items():
        if title in ("verdict", "works") or value == {}:
            continue
        if not isinstance(value, dict):
            lines.append(f"{title:<10} {show(value)}")
            continue
        lines.append(f"{title}:")
        width = max(map(len, value), default=0)
        for name, row in value.items():
            shown = row_text(row) if isinstance(row, dict) else show(row)
            lines.append(f"    {name:<{width}}  {shown}")
    return "\n".join(lines)


def row_text(row: dict[str, Any]) -> str:
    """Return a backend's row in words."""
    kind = "refused" if row.get("refused") else "not usable"
    return "usable" if row["usable"] else f"{kind}: {row['reason']}"


def show(value: object) -> str:
    """Return a value in words: nothing found is "missing"."""
    return "missing" if value is None else str(value)
