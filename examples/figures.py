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


def save(figure: Any, name: str) -> None:
    """Write ``name.png`` into the working directory, and say so."""
    figure.savefig(f"{name}.png", dpi=130)
    print(f"figure: {name}.png")
