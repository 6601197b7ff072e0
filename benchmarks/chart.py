"""Draws figures as SVG: ratios as dots on a log axis, growth as lines on log axes."""

from __future__ import annotations

from html import escape
from math import log10
from typing import Any

COLOURS = ("#3b6fb6", "#d1752b", "#3f8f5b", "#8a5aa8", "#7a7a7a")
STYLE = (
    "<style>text{font:12px sans-serif;fill:#333}.small{font-size:11px;fill:#666}"
    ".grid{stroke:#ddd}.one{stroke:#333;stroke-width:1.5}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.small{fill:#aaa}.grid{stroke:#444}"
    ".one{stroke:#ddd}}</style>"
)
Report = dict[str, Any]


class Axis:
    """A logarithmic axis from ``low`` to ``high`` on ``start`` to ``end`` pixels."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high, self.start, self.end = low, high, start, end

    def at(self, value: float) -> float:
        """Return the place of a value; beyond the ends, the end."""
        value = min(max(value, self.low), self.high)
        share = (log10(value) - log10(self.low)) / (log10(self.high) - log10(self.low))
        return round(self.start + share * (self.end - self.start), 1)


def svg(width: int, height: int, parts: list[str]) -> str:
    """Return a whole picture."""
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    body = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n{STYLE}\n{body}\n</svg>\n'


def text(x: float, y: float, content: str, anchor: str = "start", kind: str = "") -> str:
    """Return a piece of text."""
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{style}>{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str = "grid") -> str:
    """Return a straight line."""
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" class="{kind}"/>'


def name(report: Report) -> str:
    """Return what an interpreter is called in a legend."""
    implementation, version = report["python"].split()
    short = ".".join(version.split(".")[:2])
    if report.get("pypy"):
        return f"PyPy {report['pypy']} (Python {short})"
    return f"{implementation} {short}"


def legend(reports: list[Report], x: float, y: float) -> list[str]:
    """Return a coloured name for each report."""
    parts = []
    for colour, report in zip(COLOURS, reports):
        parts.append(f'<circle cx="{x}" cy="{y - 4}" r="4.5" fill="{colour}"/>')
        parts.append(text(x + 10, y, name(report)))
        x += 40 + 7 * len(name(report))
    return parts


def ratios(reports: list[Report]) -> str:
    """Return the chart of stdlib's time / ours for each row, one dot per interpreter."""
    rows = [
        result["row"]["name"] if "name" in result["row"] else echo_name(result["row"])
        for result in (*reports[0]["results"], *reports[0].get("echo", ()))
    ]
    left, width, step, top = 330, 820, 24, 66
    bottom = top + step * len(rows)
    axis = Axis(0.1, 8, left, width - 30)
    parts = [text(20, 22, "Standard library's time / ours: right of 1 we are faster"),
             *legend(reports, 24, 44)]  # fmt: skip
    for tick in (0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8):
        x = axis.at(tick)
        parts.append(line(x, top - 8, x, bottom, "one" if tick == 1 else "grid"))
        parts.append(text(x, bottom + 16, f"{tick:g}", "middle", "small"))
    for i, row in enumerate(rows):
        y = top + step * i + step / 2
        parts.append(text(left - 14, y + 4, row, "end"))
        for j, (colour, report) in enumerate(zip(COLOURS, reports)):
            ratio = find(report, row)
            if ratio is None:
                continue
            height = y + 6 * (j - (len(reports) - 1) / 2)
            low, high = axis.at(ratio["low"]), axis.at(ratio["high"])
            parts.append(
                f'<line x1="{low}" y1="{height}" x2="{high}" y2="{height}" stroke="{colour}"/>'
                f'<circle cx="{axis.at(ratio["median"])}" cy="{height}" r="4" fill="{colour}">'
                f"<title>{escape(name(report))}: {ratio['median']:.2f}</title></circle>"
            )
    note = f"Median and quartiles, kernel included. {reports[0]['system']}"
    parts.append(text(20, bottom + 40, note, kind="small"))
    return svg(width, bottom + 52, parts)


def echo_name(row: dict[str, int]) -> str:
    """Return the name of a row of ``echo``."""
    return f"asyncio echo, {row['connections']} connections, {row['size']} B"


def find(report: Report, row: str) -> dict[str, float] | None:
    """Return a report's ratio of a row."""
    for result in (*report["results"], *report.get("echo", ())):
        if row == (result["row"].get("name") or echo_name(result["row"])):
            found: dict[str, float] = result["ratios"]["stdlib"]
            return found
    return None


def growth(reports: list[Report]) -> str:
    """Return panels of time per call against descriptors: ours full, the stdlib's dashed."""
    panels = [(b, what) for b in ("epoll", "poll", "select") for what in ("registered", "ready")]
    wide, high = 410, 260
    parts = [text(20, 22, "Microseconds per select(0): ours full, standard library dashed"),
             *legend(reports, 24, 44)]  # fmt: skip
    for i, (backend, what) in enumerate(panels):
        x0, y0 = 60 + wide * (i % 2), 80 + high * (i // 2)
        x = Axis(1, 16000, x0, x0 + wide - 80)
        y = Axis(0.1, 3000, y0 + high - 60, y0)
        title = "registered, 1 ready" if what == "registered" else "registered and ready"
        parts.append(text(x0, y0 - 8, f"{backend}: {title}"))
        for tick in (1, 10, 100, 1000, 10000):
            parts.append(line(x.at(tick), y.start, x.at(tick), y.end))
            parts.append(text(x.at(tick), y.start + 15, f"{tick}", "middle", "small"))
        for power in (0.1, 1, 10, 100, 1000):
            parts.append(line(x.start, y.at(power), x.end, y.at(power)))
            parts.append(text(x.start - 6, y.at(power) + 4, f"{power:g}", "end", "small"))
        for colour, report in zip(COLOURS, reports):
            found = [
                result for result in report.get("growth", ())
                if result["row"]["backend"] == backend and result["row"]["name"].endswith(what)
            ]  # fmt: skip
            for side, dash in (("ours", ""), ("stdlib", ' stroke-dasharray="4 3"')):
                points = " ".join(
                    f"{x.at(result['row']['registered'])},{y.at(result['times'][side]['median'] / 1000)}"
                    for result in found
                )
                parts.append(
                    f'<polyline points="{points}" fill="none" stroke="{colour}"'
                    f' stroke-width="1.6"{dash}/>'
                )
    return svg(2 * wide + 20, 80 + 3 * high, parts)
