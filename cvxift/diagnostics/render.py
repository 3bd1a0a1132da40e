"""Reports as text, as a rich table, as HTML, and as one figure, which needs matplotlib."""

from __future__ import annotations

import html
import importlib.util
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cvxift.diagnostics.analysis import Analysis
from cvxift.diagnostics.findings import Verdict
from cvxift.diagnostics.user_terms import ActiveRow
from cvxift.errors import ProgramError
from cvxift.kkt.regularity.point import LocalPoint
from cvxift.program.structure import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cvxift.diagnostics.report import BatchReport, Report

_MARK = {True: "ok", False: "FAILS", None: "–"}
_COLORS = {"equality": "#6b7280", "active": "#1d4ed8", "inactive": "#93c5fd", "weakly active": "#dc2626"}
_VERDICTS = {
    Verdict.APPLIES: "#1d4ed8",
    Verdict.PRIMAL_ONLY: "#93c5fd",
    Verdict.ONE_SIDED: "#f59e0b",
    Verdict.DOES_NOT_APPLY: "#dc2626",
    Verdict.NOT_OPTIMAL: "#6b7280",
}
_NOTHING = 1e-9  # of the largest multiplier, up to which one is zero
_FLOOR = 1e-16  # where zeros stand on a logarithmic axis
NAMED_ON_AXIS = 24  # constraint entries up to which they are named on the axis
_LINE = 38  # characters of a name on one line
FONT_SIZE = 8  # of names


def text(report: Report) -> str:
    """Plain text, no escape codes."""
    lines = [f"{report.title}: {report.verdict.value}", ""]
    if report.checks:
        width = max(len(check.name) for check in report.checks)
        for check in report.checks:
            numbers = f"{check.value:9.2e}  (limit {check.threshold:.0e})"
            lines.append(f"  {check.name.ljust(width)}  {_MARK[check.passed]:5}  {numbers}  {check.note}")
        lines.append("")
    for finding in report.findings:
        lines.append(f"  {'✗' if finding.fault else '·'} {finding.text}")
        if finding.advice:
            lines.append(f"      {finding.advice}")
    return "\n".join(lines).rstrip()


def rich_table(report: Report) -> Any:
    """A rich renderable; `rich.print(report)` calls it."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    color = "green" if report.ok else "red"
    table = Table(title=f"{escape(report.title)}: [{color}]{report.verdict.value}[/{color}]", title_justify="left")
    for name in ("check", "", "value", "limit", "what it is"):
        table.add_column(name)
    paint = {True: "green", False: "red", None: "dim"}
    for check in report.checks:
        state = paint[check.passed]
        table.add_row(
            check.name,
            f"[{state}]{_MARK[check.passed]}[/{state}]",
            f"{check.value:.2e}",
            f"{check.threshold:.0e}",
            check.note,
        )
    notes = [
        Text(f"{'✗' if f.fault else '·'} {f.text}" + (f"\n  → {f.advice}" if f.advice else "")) for f in report.findings
    ]
    return Group(table, *notes) if report.checks else Group(Text(f"{report.title}: {report.verdict.value}"), *notes)


def show(report: Any) -> None:
    """Print: a rich table on a terminal where rich is installed, plain text otherwise."""
    if sys.stdout.isatty() and importlib.util.find_spec("rich") is not None and hasattr(report, "__rich__"):
        from rich.console import Console

        Console().print(report)
    else:
        print(report)


def html_of(report: Report) -> str:
    """A self-contained HTML fragment."""
    color = "#1a7f37" if report.ok else "#b42318"
    rows = "".join(
        f"<tr><td>{html.escape(c.name)}</td><td>{_MARK[c.passed]}</td><td>{c.value:.2e}</td><td>{c.threshold:.0e}</td>"
        f"<td>{html.escape(c.note)}</td></tr>"
        for c in report.checks
    )
    notes = "".join(
        f"<li>{'<b>fault</b>: ' if f.fault else ''}{html.escape(f.text)}<br><i>{html.escape(f.advice)}</i></li>"
        for f in report.findings
    )
    head = "<tr><th>check</th><th></th><th>value</th><th>limit</th><th>what it is</th></tr>"
    return (
        f"<div><h4>{html.escape(report.title)}: <span style='color:{color}'>{report.verdict.value}</span></h4>"
        + (f"<table>{head}{rows}</table>" if rows else "")
        + (f"<ul>{notes}</ul>" if notes else "")
        + "</div>"
    )


def figure(report: Report, point: LocalPoint, found: Analysis) -> Figure:
    """The figure; see `Report.plot`."""
    rows = report.active_set
    named = len(rows) <= NAMED_ON_AXIS
    labels = [wrapped(row.name) for row in rows] if named else []
    lines = sum(label.count("\n") + 1 for label in labels)
    fig = blank(12.5 if named else 10.5, max(3.8, 1.6 + 0.17 * lines))
    active, margins, values = fig.subplots(1, 3)
    _active_set(active, rows, labels)
    finite = np.sort(point.margins[np.isfinite(point.margins)])
    sorted_values(
        margins,
        finite,
        point.tolerance,
        "kink",
        "right",
        ("cone, sorted", "relative distance to a kink"),
        "no cones that can have a kink",
    )
    margins.set_title("margins")
    index = "index" if found.kernel.exact else "index (those nearest 0)"
    spectrum = np.abs(found.kernel.values)
    sorted_values(values, spectrum, found.kernel.tolerance * found.kernel.largest, "singular", "left", (index, ""))
    values.set_title("singular values")
    for axes in (active, margins, values):
        axes.spines[["top", "right"]].set_visible(False)
    shown = [state for state in _COLORS if any(row.state == state for row in rows)]
    if shown:
        handles = [_patch(_COLORS[state]) for state in shown]
        fig.legend(handles, shown, loc="outside lower left", ncols=len(shown), fontsize=FONT_SIZE, frameon=False)
    fig.suptitle(f"{report.title}: {report.verdict.value}", x=0.01, ha="left")
    return fig


def _active_set(axes: Axes, rows: Sequence[ActiveRow], labels: list[str]) -> None:
    """Multipliers as bars on a logarithmic axis; those that are zero as a mark at its start, not as a bar."""
    size = np.array([abs(row.multiplier) for row in rows])
    largest = float(size.max(initial=0.0)) or 1.0
    counted = size > _NOTHING * largest
    start = 10.0 ** np.floor(np.log10(float(size[counted].min(initial=largest)) / 3.0))
    end = 10.0 ** np.ceil(np.log10(3.0 * largest))
    at, colors = np.arange(len(rows)), np.array([_COLORS[row.state] for row in rows])
    axes.barh(at[counted], size[counted] - start, left=start, color=colors[counted], height=0.7)
    zero = np.full(int((~counted).sum()), start)
    axes.scatter(
        zero, at[~counted], edgecolors=list(colors[~counted]), facecolors="white", s=14, clip_on=False, zorder=4
    )
    axes.set_xscale("log")
    axes.set(title="active set", xlabel="multiplier (○: zero)", xlim=(start, end))
    if not rows:
        return empty(axes, "no constraints")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    if labels:
        axes.set_yticks(at, labels, fontsize=FONT_SIZE)
    else:
        axes.set_ylabel("constraint entry")
        integers(axes.yaxis)


def sorted_values(
    axes: Axes, values: Floats, limit: float, name: str, side: str, labels: tuple[str, str], nothing: str = ""
) -> None:
    """Values by their index on a logarithmic axis, and a limit that is named where it has room."""
    if not len(values):
        return empty(axes, nothing)
    shown = np.maximum(values, _FLOOR)
    axes.semilogy(np.arange(1, len(shown) + 1), shown, "o", ms=3, color="#1d4ed8")
    axes.axhline(limit, color="#dc2626", lw=1)
    place = (0.99, "right") if side == "right" else (0.01, "left")
    axes.text(
        place[0], limit, name, color="#dc2626", fontsize=FONT_SIZE, ha=place[1], va="bottom", transform=across(axes)
    )
    axes.set_ylim(min(limit, float(shown.min())) / 10.0, max(1.0, float(shown.max())) * 10.0)
    axes.set_xlim(1 - 0.5 - 0.01 * len(shown), len(shown) + 0.5 + 0.01 * len(shown))
    axes.set(xlabel=labels[0], ylabel=labels[1])
    integers(axes.xaxis)


def batch_figure(report: BatchReport) -> Figure:
    """The figure; see `BatchReport.plot`."""
    fig = blank(10, 3.6)
    verdicts, spread = fig.subplots(1, 2)
    names = [verdict.value for verdict in _VERDICTS]
    counts = [report.verdicts.get(name, 0) for name in names]
    verdicts.barh(np.arange(len(names)), counts, color=list(_VERDICTS.values()))
    verdicts.set_yticks(np.arange(len(names)), names, fontsize=FONT_SIZE)
    verdicts.set(title="verdicts", xlabel="instances", ylim=(len(names) - 0.5, -0.5))
    verdicts.set_xlim(0.0, 1.12 * max(counts, default=1))
    integers(verdicts.xaxis)
    for at, count in enumerate(counts):
        verdicts.text(count, at, f" {count}", va="center", fontsize=FONT_SIZE)
    margin = np.array([r.margin for r in report], dtype=float)
    condition = np.array([r.condition for r in report], dtype=float)
    for verdict, color in _VERDICTS.items():  # named by the bars beside
        chosen = np.array([r.verdict is verdict for r in report], dtype=bool) & np.isfinite(margin + condition)
        spread.loglog(np.maximum(margin[chosen], _FLOOR), condition[chosen], "o", ms=4, color=color)
    known = np.isfinite(margin + condition)
    spread.set(title="instances, by verdict", xlabel="relative distance to a kink", ylabel="condition number")
    if known.any():
        shown = np.maximum(margin[known], _FLOOR)
        spread.set_xlim(shown.min() / 10.0, shown.max() * 10.0)
        spread.set_ylim(*_decades(condition[known]))
    for axes in (verdicts, spread):
        axes.spines[["top", "right"]].set_visible(False)
    fig.suptitle(f"{report.title}: {report.verdict.value}", x=0.01, ha="left")
    return fig


def blank(width: float, height: float) -> Figure:
    """An empty figure, of no window.

    Raises:
        ProgramError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ProgramError("plot() needs matplotlib: pip install 'cvxift[plot]'.") from None
    return Figure(figsize=(width, height), layout="constrained")


def empty(axes: Axes, text: str) -> None:
    """A panel without data says so."""
    axes.set(xticks=[], yticks=[], xlabel="", ylabel="")
    axes.minorticks_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", color="#6b7280", fontsize=FONT_SIZE, transform=axes.transAxes)


def _decades(values: Floats) -> tuple[float, float]:
    """Limits of a logarithmic axis at whole decades, with room around the values."""
    low, high = np.log10(values.min() / 1.5), np.log10(values.max() * 1.5)
    return 10.0 ** float(np.floor(low)), 10.0 ** float(np.ceil(high))


def integers(axis: Any) -> None:
    """Ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def across(axes: Axes) -> Any:
    """Coordinates of the axes along x, of the data along y."""
    return axes.get_yaxis_transform()


def _patch(color: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=color)


def wrapped(name: str) -> str:
    """The whole name, on several lines where it is long."""
    return "\n".join(textwrap.wrap(name, _LINE, break_long_words=False)) or name


def html_table(title: str, facts: Mapping[str, str]) -> str:
    """An HTML fragment: a title, and a row for each fact.

    Args:
        title: plain text.
        facts: name -> value, plain text.
    """
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in facts.items()
    )
    return f"<div><h4>{html.escape(title)}</h4><table>{rows}</table></div>"
