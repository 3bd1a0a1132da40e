"""Margins and conditioning of a layer over the steps of a training loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cvxift.errors import ProgramError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Step:
    """One step's numbers.

    Attributes:
        margin: smallest relative distance to a kink.
        condition: largest condition estimate.
        residual: worst relative residual.
        weak: instances on a kink.
        failed: instances without a solution.
    """

    margin: float
    condition: float
    residual: float
    weak: int
    failed: int


class Recorder:
    """Records a layer's margins and conditioning.

    Args:
        layer: a layer of cvxift.

    Raises:
        ProgramError: the object keeps no report of its last call.

    Example:
        >>> import cvxpy as cp, numpy as np
        >>> from cvxift.diagnostics import Recorder
        >>> from cvxift.layers.core import LayerCore
        >>> x, t = cp.Variable(2), cp.Parameter(2)
        >>> layer = LayerCore(cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [x >= 0]), [t], [x])
        >>> recorder = Recorder(layer)
        >>> for scale in (1.0, 0.1):
        ...     _ = layer.solve([scale * np.array([1.0, -1.0])], None, False)
        ...     _ = recorder.step()
        >>> bool(recorder.steps[1].margin < recorder.steps[0].margin)
        True
    """

    def __init__(self, layer: Any) -> None:
        if not hasattr(type(layer), "last_report"):
            raise ProgramError(f"Recorder expects a cvxift layer; got {type(layer).__name__}.")
        self.layer = layer
        self.steps: list[Step] = []

    def step(self) -> Step:
        """Record the layer's last call.

        Raises:
            ProgramError: the layer was not called yet.
        """
        report = self.layer.last_report
        if report is None:
            raise ProgramError("The layer was not called yet; call recorder.step() after the forward pass.")
        step = Step(report.margin, report.condition, report.residual, report.weak, report.failed)
        self.steps.append(step)
        return step

    def arrays(self) -> dict[str, np.ndarray]:
        """Every number over the steps, name -> shape (steps,)."""
        return {name: np.array([getattr(step, name) for step in self.steps]) for name in Step.__dataclass_fields__}

    def plot(self) -> Figure:
        """Margins and condition numbers over the steps, on a log scale.

        Raises:
            ProgramError: matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
            from matplotlib.ticker import MaxNLocator
        except ImportError:
            raise ProgramError("recorder.plot() needs matplotlib: pip install 'cvxift[plot]'.") from None
        values = self.arrays()
        fig = Figure(figsize=(8, 3), layout="constrained")
        left, right = fig.subplots(1, 2)
        for axes, name, label in ((left, "margin", "smallest margin"), (right, "condition", "condition number")):
            shown = np.where(np.isfinite(values[name]), np.maximum(values[name], 1e-16), np.nan)
            axes.semilogy(shown, color="#1d4ed8")
            axes.set(xlabel="step", title=label)
            axes.spines[["top", "right"]].set_visible(False)
        kinks = np.flatnonzero(values["weak"] > 0)
        left.semilogy(kinks, np.maximum(values["margin"][kinks], 1e-16), "o", ms=3, color="#dc2626", label="on a kink")
        if len(kinks):
            fig.legend(loc="outside lower left", fontsize=8, frameon=False)
        for axes in (left, right):
            low, high = axes.get_ylim()
            axes.set_ylim(10.0 ** np.floor(np.log10(low)), 10.0 ** np.ceil(np.log10(high)))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return fig
