"""What the figures of the examples share: one look, no window."""

from __future__ import annotations

from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLORS = ("#1d4ed8", "#d97706", "#059669", "#dc2626", "#6b7280", "#7c3aed")


def panels(columns: int, rows: int = 1, width: float = 3.9, height: float = 3.4) -> tuple[Any, Any]:
    """A figure and its axes in a row or a grid, without the upper and right frame."""
    plt.rcParams["axes.prop_cycle"] = plt.cycler(color=COLORS)
    figure, axes = plt.subplots(rows, columns, figsize=(width * columns, height * rows), layout="constrained")
    for one in figure.axes:
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def closed_loops(
    name: str, step: float, before: Any, after: Any, inputs: Any, costs: Any, position: str, force: str
) -> None:
    """Positions and inputs of closed loops before and after tuning, and the cost over the tuning; saved.

    Args:
        name: of the file.
        step: time between two states.
        before: states, shape (runs, steps + 1, ...); the first entry is drawn.
        after: likewise.
        inputs: after tuning, shape (runs, steps).
        costs: a cost for each step of tuning.
        position: title of the positions.
        force: title of the inputs.
    """
    figure, axes = panels(3)
    times = [step * k for k in range(len(before[0]))]
    for k, (first, last) in enumerate(zip(before, after, strict=True)):
        axes[0].plot(times, first[:, 0], "--", color=f"C{k}", lw=1, label="before" if k == 0 else None)
        axes[0].plot(times, last[:, 0], color=f"C{k}", label="after" if k == 0 else None)
        axes[1].step(times[:-1], inputs[k], where="post")
    axes[0].set(title=position, xlabel="time")
    axes[0].legend(fontsize=8)
    axes[1].set(title=force, xlabel="time")
    axes[2].plot(costs)
    axes[2].set(title="closed-loop cost", xlabel="step")
    save(figure, name)


def save(figure: Any, name: str) -> None:
    """Write ``name.png`` into the working directory, and say so."""
    figure.savefig(f"{name}.png", dpi=130)
    print(f"figure: {name}.png")
