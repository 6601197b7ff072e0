"""Writes figures as the tables of ``docs/performance.md``, between two marks."""

from __future__ import annotations

from .chart import Report, echo_name, name

BEGIN = "<!-- tables: python -m benchmarks --chart docs/figures/*.json -->"
END = "<!-- end of tables -->"


def replaced(document: str, reports: list[Report]) -> str:
    """Return a document with the tables of these reports between its marks.

    Raises:
        ValueError: it has no marks.
    """
    before, _, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n\n{tables(reports)}\n{END}{after}"


def tables(reports: list[Report]) -> str:
    """Return all tables, with a line about what they were measured on."""
    versions = ", ".join(f"{name(report)} with cffi {report.get('cffi', '?')}" for report in reports)
    parts = [
        f"{reports[0]['system']}; {versions}.\n",
        table("work", reports, "results", "stdlib", ""),
        "asyncio, an echo server and its clients in one `SelectorEventLoop`, each call one message of"
        " every\nclient there and back; in brackets uvloop's time by ours:\n",
        table("work", reports, "echo", "stdlib", "uvloop"),
        "selectors2's time by ours:\n",
        table("work", reports, "results", "selectors2", ""),
        memory(reports),
    ]
    return "\n".join(part for part in parts if part)


def table(title: str, reports: list[Report], section: str, side: str, other: str) -> str:
    """Return the ratios of a section; in brackets those of another contestant."""
    lines = [f"| {title} | {' | '.join(map(name, reports))} |", "|---" * (len(reports) + 1) + "|"]
    for result in reports[0].get(section, ()):
        row = label(result)
        cells = [cell(report, section, row, side, other) for report in reports]
        if any(cells):
            lines.append(f"| {row.replace('|', '&#124;')} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def label(result: Report) -> str:
    """Return what a row is called."""
    return result["row"].get("name") or echo_name(result["row"])


def cell(report: Report, section: str, row: str, side: str, other: str) -> str:
    """Return a ratio, and that of ``other`` in brackets."""
    for result in report.get(section, ()):
        if label(result) == row and side in result["ratios"]:
            ratios = result["ratios"]
            more = f" ({ratios[other]['median']:.2f})" if other in ratios else ""
            return f"{ratios[side]['median']:.2f}{more}"
    return ""


def memory(reports: list[Report]) -> str:
    """Return the bytes per registered descriptor, of the last report that has them."""
    measured = [one for one in reports if "bytes_per_descriptor" in one.get("startup", ())]
    if not measured:
        return ""
    imports = [f"{one['startup']['import_ms']:.1f} ({name(one)})" for one in reports if "startup" in one]
    lines = [
        "Milliseconds of processor time that the import takes above `selectors`: "
        + ", ".join(imports)
        + ".\n\nBytes per registered descriptor that is idle, then after it has been ready once"
        + f" ({name(measured[-1])}, `tracemalloc`):\n",
        "| class | standard library | ours |",
        "|---|---|---|",
    ]
    for cls, sides in measured[-1]["startup"]["bytes_per_descriptor"].items():
        idle_and_used = [f"{side['idle']}, {side['after_use']}" for side in sides.values()]
        lines.append(f"| `{cls}` | {' | '.join(idle_and_used)} |")
    return "\n".join(lines) + "\n"
