"""One figure of a report: the active set, the margins, the singular values. Needs matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cvxift.diagnostics.analysis import Analysis
from cvxift.diagnostics.point import LocalPoint
from cvxift.errors import ProgramError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cvxift.diagnostics.report import Report

_COLORS = {"equality": "#6b7280", "active": "#1d4ed8", "inactive": "#93c5fd", "weakly active": "#dc2626"}
_NAMED = 24  # constraint entries up to which they are named on the axis


def figure(report: Report, point: LocalPoint, found: Analysis) -> Figure:
    """The figure; see `Report.plot`."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ProgramError("report.plot() needs matplotlib: pip install 'cvxift[plot]'.") from None

    fig = Figure(figsize=(11, 3.6), layout="constrained")
    active, margins, values = fig.subplots(1, 3)
    rows = report.active_set
    at = np.arange(len(rows))
    floor = 1e-16
    active.barh(
        at, [max(abs(row.multiplier), floor) for row in rows], color=[_COLORS[row.state] for row in rows], left=floor
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
    margins.semilogy(np.arange(1, len(finite) + 1), np.maximum(finite, floor), "o", ms=3, color="#1d4ed8")
    margins.axhline(point.tolerance, color="#dc2626", lw=1, label="kink")
    margins.set(title="margins", xlabel="cone, sorted", ylabel="relative distance to a kink")
    margins.legend(fontsize=7, frameon=False)
    spectrum = np.abs(found.kernel.values)
    values.semilogy(np.arange(1, len(spectrum) + 1), np.maximum(spectrum, floor), "o", ms=3, color="#1d4ed8")
    values.axhline(found.kernel.tolerance * found.kernel.largest, color="#dc2626", lw=1, label="singular")
    values.set(title="singular values", xlabel="index" if found.kernel.exact else "index (those nearest 0)")
    values.legend(fontsize=7, frameon=False)
    for axes in (active, margins, values):
        axes.spines[["top", "right"]].set_visible(False)
    fig.suptitle(f"{report.title}: {report.verdict.value}", x=0.01, ha="left")
    return fig


def _short(name: str) -> str:
    return name if len(name) <= 34 else name[:16] + "…" + name[-17:]
