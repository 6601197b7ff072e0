"""``python -m benchmarks``: measure, write the figures as JSON, draw them.

python -m benchmarks --quick --only rows                    some seconds
python -m benchmarks --rows register                        the rows with that text
python -m benchmarks --json docs/figures/cpython-3.13.json  everything
python -m benchmarks --chart docs/figures/*.json
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks import bench, chart, echo, growth, others, startup, tables
from benchmarks.rows import ROWS

SECTIONS = ("rows", "growth", "echo", "startup")


def main(arguments: list[str] | None = None) -> int:
    """Run the sections asked for; 1 if no row has the text."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", choices=SECTIONS, help="one section instead of all")
    parser.add_argument("--rows", metavar="TEXT", help="only the rows that have TEXT in their name")
    parser.add_argument("--quick", action="store_true", help="an eighth of the time, more noise")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there")
    parser.add_argument(
        "--chart", metavar="FILE", nargs="+", type=Path,
        help="measure nothing, draw these figures: ratios.svg and growth.svg beside the first, and the"
        " tables of ../performance.md",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    if options.chart:
        reports = [json.loads(path.read_text()) for path in options.chart]
        for name, draw in (("ratios.svg", chart.ratios), ("growth.svg", chart.growth)):
            options.chart[0].with_name(name).write_text(draw(reports))
        document = options.chart[0].parent.with_name("performance.md")
        if document.exists():
            document.write_text(tables.replaced(document.read_text(), reports))
        return 0
    if not any(options.rows is None or options.rows in row.name for row in ROWS):
        print(f"no row has {options.rows!r} in its name", file=sys.stderr)
        return 1
    figures = measure(
        "rows" if options.rows else options.only, options.rows or "", turns=20 if options.quick else 150
    )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def measure(only: str | None, text: str, turns: int) -> dict[str, object]:
    """Return the figures of one section or all."""
    others.raise_descriptor_limit()
    figures = bench.report([])
    if only in (None, "rows"):
        rows = [row for row in ROWS if bench.available(row) and text in row.name]
        results = bench.measure_rows(rows, turns, others.packages())
        figures.update(bench.report(results))
        show(results)
    for name, section in (("growth", growth), ("echo", echo)):
        if only in (None, name):
            results = section.measure(turns)
            figures[name] = bench.report(results)["results"]
            show(results)
    if only in (None, "startup"):
        figures["startup"] = startup.measure(turns)
        print(json.dumps(figures["startup"], indent=1))
    return figures


def show(results: list[bench.Result]) -> None:
    """Print the figures, and the ratios to whoever else took part."""
    print(bench.table(results))
    for result in results:
        for name, ratio in result.ratios.items():
            if name not in ("stdlib", "bare"):
                print(f"{result.row.name:<42}{name} / ours {ratio.median:.2f}")
    print(flush=True)


if __name__ == "__main__":
    sys.exit(main())
