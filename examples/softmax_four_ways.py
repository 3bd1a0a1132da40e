"""Softmax as the answer of an optimization problem, and its Jacobian found in four ways.

max zᵀθ + H(z) over the simplex has the solution softmax(θ). Its Jacobian diag(z) − zzᵀ comes out of the closed form, of
the KKT system with and without the inactive bounds z ≥ 0, and of a CVXPY layer. The report applies: z > 0 everywhere.
"""

from __future__ import annotations

import cvxpy as cp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

from cvxift.torch import CvxpyLayer, implicit_argmin


def energy(z: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """−zᵀθ − H(z)."""
    return (z * torch.log(z)).sum() - z @ theta


def on_simplex(z: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """zᵀ1 − 1."""
    return z.sum() - 1.0


def main() -> None:
    """Compute all four, print the textbook matrix and the differences, draw."""
    theta = torch.tensor([0.2, -0.5, 1.0, 0.4], dtype=torch.float64)
    solver = lambda theta: torch.softmax(theta, 0)  # noqa: E731  # any solver would do
    full = implicit_argmin(energy, solver, equality=on_simplex, inequality=lambda z, theta: -z)
    reduced = implicit_argmin(energy, solver, equality=on_simplex)
    z, parameter = cp.Variable(4, name="z"), cp.Parameter(4, name="theta")
    problem = cp.Problem(cp.Maximize(parameter @ z + cp.sum(cp.entr(z))), [cp.sum(z) == 1])
    layer = CvxpyLayer(problem, parameters=[parameter], variables=[z])
    ways = {
        "closed form": solver,
        "full KKT system": full,
        "reduced KKT system": reduced,
        "layer": lambda theta: layer(theta)[0],
    }
    jacobians = {name: torch.func.jacrev(way)(theta) for name, way in ways.items()}
    solution = solver(theta)
    textbook = torch.diag(solution) - torch.outer(solution, solution)
    print("diag(z) − zzᵀ =")
    for row in textbook:
        print("  " + "  ".join(f"{float(value):8.4f}" for value in row))
    for name, jacobian in jacobians.items():
        print(f"{name}: off by {float((jacobian - textbook).abs().max()):.1e}")
    report = full.diagnose(theta)
    print(f"report: {report.verdict.value}, active bounds: {len(report.active)}")
    figure, axes = plt.subplots(1, 4, figsize=(12, 3), layout="constrained")
    for axis, (name, jacobian) in zip(axes, jacobians.items()):
        shown = axis.imshow(jacobian.numpy(), cmap="RdBu", vmin=-0.25, vmax=0.25)
        axis.set(title=name, xlabel="score j", xticks=range(4), yticks=range(4))
    axes[0].set_ylabel("probability i")
    figure.colorbar(shown, ax=axes, label="∂zᵢ/∂θⱼ")
    figure.savefig("softmax_four_ways.png", dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    main()
