"""The unit circle θ² + x² = 1 as a function x(θ): where its derivative exists, and where not.

The equation is no formula for x, and at θ = ±1 there is none; the theorem says which points are which.
The report applies on both branches, and names the singular Jacobian where the circle is vertical.
"""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from cvxift.torch import implicit_root


def circle(x: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """F; its roots in x are ±√(1 − θ²)."""
    return theta**2 + x**2 - 1.0


def main() -> None:
    """Differentiate both branches, diagnose, draw."""
    branches = {
        sign: implicit_root(circle, lambda theta, sign=sign: sign * torch.sqrt(1.0 - theta**2)) for sign in (1.0, -1.0)
    }
    figure, axis = plt.subplots(figsize=(5, 5))
    angle = np.linspace(0.0, 2.0 * np.pi, 400)
    axis.plot(np.cos(angle), np.sin(angle), color="0.7")
    worst = 0.0
    for solve in branches.values():
        for value in (-0.8, -0.4, 0.0, 0.4, 0.8):
            theta = torch.tensor(value, dtype=torch.float64)
            x, slope = solve(theta), torch.func.grad(solve)(theta)
            worst = max(worst, abs(float(slope + theta / x)))
            step = 0.15 / np.hypot(1.0, float(slope))
            axis.plot(
                [value - step, value + step], [float(x - step * slope), float(x + step * slope)], color="tab:blue"
            )
            axis.plot(value, float(x), "o", color="tab:blue", markersize=4)
    print(f"slopes against −θ/x: {worst:.1e}")
    report = branches[1.0].diagnose(torch.tensor(1.0, dtype=torch.float64))
    axis.plot([1.0, -1.0], [0.0, 0.0], "x", color="tab:red", markersize=10, label=f"verdict: {report.verdict.value}")
    print(report)
    axis.set(
        xlabel="θ",
        ylabel="x",
        aspect="equal",
        title="dx/dθ from θ² + x² = 1",
        xticks=[-1, -0.5, 0, 0.5, 1],
        yticks=[-1, -0.5, 0, 0.5, 1],
    )
    axis.legend()
    figure.savefig("unit_circle.png", dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    main()
