"""One figure of an implicit function's report: its equations, its multipliers, its singular values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cvxift.diagnostics.render import FONT_SIZE, NAMED_ON_AXIS, blank, empty, sorted_values, wrapped
from cvxift.implicit.residual import tolerance_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cvxift.implicit.diagnose import ImplicitReport
    from cvxift.implicit.oracle import Oracle


def figure(report: ImplicitReport) -> Figure:
    """The figure; see `ImplicitReport.plot`."""
    oracle = report._point()
    fig = blank(12.5, 3.8)
    residuals, constraints, values = fig.subplots(1, 3)
    ratio = np.sort([value for value in report.residuals.values() if np.isfinite(value)])
    limit = oracle.settings.tolerance or tolerance_of(oracle.eps)
    words = ("equation, sorted", "size over what balances in it")
    sorted_values(residuals, ratio, limit, "no solution above", "left", words, "no finite residuals")
    residuals.set_title("residuals")
    _constraints(constraints, oracle)
    spectrum = report.spectrum.values if report.spectrum is not None else np.zeros(0)
    top = float(spectrum.max(initial=0.0))
    sorted_values(values, spectrum, oracle.eps**0.8 * top, "singular", "left", ("index", ""), "not finite")
    values.set_title("singular values")
    for axes in (residuals, constraints, values):
        axes.spines[["top", "right"]].set_visible(False)
    fig.suptitle(f"{report.title}: {report.verdict.value}", x=0.01, ha="left")
    return fig


def _constraints(axes: Axes, oracle: Oracle) -> None:
    """The multipliers of the constraints, those of inactive inequalities pale."""
    n, (p, m) = oracle.variables, oracle.sizes
    axes.set_title("multipliers")
    if not p + m:
        return empty(axes, "no constraints")
    active = np.concatenate([np.ones(p, dtype=bool), oracle.active > 0])
    at = np.arange(p + m)
    colors = np.where(np.arange(p + m) < p, "#6b7280", np.where(active, "#1d4ed8", "#93c5fd"))
    axes.barh(at, oracle.w[n:], color=list(colors), height=0.7)
    axes.axvline(0.0, color="#6b7280", lw=0.8)
    axes.set(xlabel="multiplier", ylim=(p + m - 0.5, -0.5))
    if p + m <= NAMED_ON_AXIS:
        states = np.where(active, "", " (inactive)")
        axes.set_yticks(at, [wrapped(oracle.entry(n + i) + states[i]) for i in range(p + m)], fontsize=FONT_SIZE)
