"""One figure of a report: the active set, the margins, the singular values; and of a batch. Needs matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cvxift.diagnostics.analysis import Analysis
from cvxift.diagnostics.findings import Verdict
from cvxift.errors import ProgramError
from cvxift.kkt.regularity.point import LocalPoint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cvxift.diagnostics.batch import BatchReport
    from cvxift.diagnostics.report import Report

_COLORS = {"equality": "#6b7280", "active": "#1d4ed8", "inactive": "#93c5fd", "weakly active": "#dc2626"}
_VERDICTS = {
    Verdict.APPLIES: "#1d4ed8",
    Verdict.PRIMAL_ONLY: "#93c5fd",
    Verdict.ONE_SIDED: "#f59e0b",
    Verdict.DOES_NOT_APPLY: "#dc2626",
    Verdict.NOT_OPTIMAL: "#6b7280",
}
_FLOOR = 1e-16  # where zeros stand on a logarithmic axis
_NAMED = 24  # constraint entries up to which they are named on the axis


def figure(report: Report, point: LocalPoint, found: Analysis) -> Figure:
    """The figure; see `Report.plot`."""
    fig = _blank(11, 3.6)
    active, margins, values = fig.subplots(1, 3)
    rows = report.active_set
    at = np.arange(len(rows))
    active.barh(
        at, [max(abs(row.multiplier), _FLOOR) for row in rows], color=[_COLORS[row.state] for row in rows], left=_FLOOR
    )
    active.set_xscale("log")
    active.set(title="active set", xlabel="multiplier", ylim=(len(rows) - 0.5, -0.5) if rows else None)
    if len(rows) <= _NAMED:
        active.set_yticks(at, [_short(row.name) for row in rows], fontsize=7)
    for state, color in _COLORS.items():
        if any(row.state == state for row in rows):
            active.barh([np.nan], [np.nan], color=color, label=state)
    if rows:
        active.legend(fontsize=7, frameon=False)
    finite = np.sort(point.margins[np.isfinite(point.margins)])
    margins.semilogy(np.arange(1, len(finite) + 1), np.maximum(finite, _FLOOR), "o", ms=3, color="#1d4ed8")
    margins.axhline(point.tolerance, color="#dc2626", lw=1, label="kink")
    margins.set(title="margins", xlabel="cone, sorted", ylabel="relative distance to a kink")
    margins.legend(fontsize=7, frameon=False)
    spectrum = np.abs(found.kernel.values)
    values.semilogy(np.arange(1, len(spectrum) + 1), np.maximum(spectrum, _FLOOR), "o", ms=3, color="#1d4ed8")
    values.axhline(found.kernel.tolerance * found.kernel.largest, color="#dc2626", lw=1, label="singular")
    values.set(title="singular values", xlabel="index" if found.kernel.exact else "index (those nearest 0)")
    values.legend(fontsize=7, frameon=False)
    for axes in (active, margins, values):
        axes.spines[["top", "right"]].set_visible(False)
    fig.suptitle(f"{report.title}: {report.verdict.value}", x=0.01, ha="left")
    return fig


def batch_figure(report: BatchReport) -> Figure:
    """The figure; see `BatchReport.plot`."""
    fig = _blank(10, 3.4)
    verdicts, spread = fig.subplots(1, 2)
    names = [verdict.value for verdict in _VERDICTS]
    counts = [report.verdicts.get(name, 0) for name in names]
    verdicts.barh(np.arange(len(names)), counts, color=list(_VERDICTS.values()))
    verdicts.set_yticks(np.arange(len(names)), names, fontsize=8)
    verdicts.set(title="verdicts", xlabel="instances", ylim=(len(names) - 0.5, -0.5))
    for at, count in enumerate(counts):
        verdicts.text(count, at, f" {count}", va="center", fontsize=8)
    margin = np.array([r.margin for r in report], dtype=float)
    condition = np.array([r.condition for r in report], dtype=float)
    for verdict, color in _VERDICTS.items():
        chosen = np.array([r.verdict is verdict for r in report], dtype=bool) & np.isfinite(margin + condition)
        if chosen.any():
            at = (np.maximum(margin[chosen], _FLOOR), condition[chosen])
            spread.loglog(*at, "o", ms=4, color=color, label=verdict.value)
    spread.set(title="instances", xlabel="relative distance to a kink", ylabel="condition number")
    if spread.lines:
        spread.legend(fontsize=7, frameon=False)
    for axes in (verdicts, spread):
        axes.spines[["top", "right"]].set_visible(False)
    fig.suptitle(f"{report.title}: {report.verdict.value}", x=0.01, ha="left")
    return fig


def _blank(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ProgramError("plot() needs matplotlib: pip install 'cvxift[plot]'.") from None
    return Figure(figsize=(width, height), layout="constrained")


def _short(name: str) -> str:
    return name if len(name) <= 34 else name[:16] + "…" + name[-17:]
