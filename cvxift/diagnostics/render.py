"""Reports as text, as a rich table, and as HTML."""

from __future__ import annotations

import html
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cvxift.diagnostics.report import Report

_MARK = {True: "ok", False: "FAILS", None: "–"}


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
