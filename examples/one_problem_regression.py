"""Logistic, 1.5-entmax and sparsemax regression, each written entirely as one CVXPY problem, and tuned by its gradient.

    python examples/one_problem_regression.py [--out one_problem_regression.png] [--steps 12]

The loss atom is convex in the scores X Wᵀ, so fitting is a convex problem with the training targets in it:

    minimize  (1/N) Σ_i L_Ω(x_i Wᵀ; y_i) + ½ λ ‖W‖²

L_Ω is the Fenchel–Young loss of a Tsallis entropy (Blondel, Martins, Niculae 2020): α = 1 is multi-class logistic
regression, α = 2 sparsemax regression. λ is a parameter, and the fitted weights W*(λ) have a derivative: the validation
loss is minimized over log λ by gradient descent through the fit, no grid.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cvxpy as cp
import matplotlib
import numpy as np

import cvxift
from cvxift.argmax.simplex import entmax
from cvxift.atoms import fenchel_young_loss

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ORDERS = {"logistic": 1.0, "1.5-entmax": 1.5, "sparsemax": 2.0}
CLASSES, FEATURES, TRAIN, HELD_OUT = 3, 4, 45, 300


def sample(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points of three overlapping classes with a constant feature, (count, 4), and one-hot targets (count, 3)."""
    labels = np.arange(count) % CLASSES
    centres = 1.2 * np.array([[1.0, 0.0, 0.5], [-0.5, 0.9, 0.0], [-0.5, -0.9, -0.5]])
    points = centres[labels] + rng.standard_normal((count, FEATURES - 1))
    return np.column_stack([points, np.ones(count)]), np.eye(CLASSES)[labels]


def regression(X: np.ndarray, Y: np.ndarray, alpha: float) -> tuple[cp.Problem, cp.Variable, cp.Parameter]:
    """The fit as one problem: (problem, weights W of shape (classes, features), λ)."""
    W, weight = cp.Variable((CLASSES, FEATURES), name="W"), cp.Parameter(nonneg=True, name="lambda", value=1.0)
    loss = cp.sum(fenchel_young_loss(X @ W.T, Y, alpha, axis=1)) / len(X)
    return cp.Problem(cp.Minimize(loss + 0.5 * weight * cp.sum_squares(W))), W, weight


def validation(W: np.ndarray, X: np.ndarray, Y: np.ndarray, alpha: float) -> tuple[float, np.ndarray]:
    """Mean loss on other points, and its gradient in W: (prediction − target)ᵀ X / N."""
    scores = X @ W.T
    residual = entmax(scores, alpha) - Y
    value = fenchel_young_loss(scores, Y, alpha, axis=1).value
    return float(np.mean(value)), residual.T @ X / len(X)


def tune(alpha: float, steps: int) -> tuple[list[tuple[float, float]], float, float]:
    """Descend the validation loss over log λ.

    Args:
        alpha: order of the entropy.
        steps: gradient steps.

    Returns:
        (λ, validation loss) over the steps, accuracy at the end in [0, 1], and the relative error of the last gradient
        against a central difference.
    """
    rng = np.random.default_rng(0)
    train, held_out = sample(TRAIN, rng), sample(HELD_OUT, rng)
    problem, W, weight = regression(*train, alpha)

    def loss_at(log_weight: float) -> tuple[float, float]:
        weight.value = np.exp(log_weight)
        fit = cvxift.differentiate(problem, solver="clarabel")
        value, bar = validation(fit.value(W), *held_out, alpha)
        return value, float(fit.vjp({W: bar})[weight]) * float(np.exp(log_weight))

    position, path, slope = np.log(1.0), [], 0.0
    for _ in range(steps):
        value, slope = loss_at(position)
        path.append((float(np.exp(position)), value))
        position -= np.clip(20.0 * slope, -0.7, 0.7)
    step = 1e-4
    difference = (loss_at(position + step)[0] - loss_at(position - step)[0]) / (2.0 * step)
    error = abs(loss_at(position)[1] - difference) / max(abs(difference), 1e-3)
    scores = held_out[0] @ cvxift.differentiate(problem, solver="clarabel").value(W).T
    accuracy = float(np.mean(scores.argmax(axis=1) == held_out[1].argmax(axis=1)))
    return path, accuracy, error


def main() -> None:
    """Tune each regression, plot the paths."""
    parser = argparse.ArgumentParser(description="Multi-class regressions as single CVXPY problems.")
    parser.add_argument("--out", type=Path, default=Path("one_problem_regression.png"), help="where the plot goes")
    parser.add_argument("--steps", type=int, default=12, help="gradient steps on log λ")
    options = parser.parse_args()
    figure, axes = plt.subplots(figsize=(5.5, 3.5), layout="constrained")
    print(f"{'regression':12s} {'λ':>8s} {'validation loss':>24s} {'accuracy':>9s} {'gradient error':>15s}")
    for name, alpha in ORDERS.items():
        path, accuracy, error = tune(alpha, options.steps)
        (_, first), (weight, last) = path[0], path[-1]
        print(f"{name:12s} {weight:8.4f} {f'{first:.4f} → {last:.4f}':>24s} {accuracy:9.3f} {error:15.1e}")
        axes.semilogx(*zip(*path, strict=True), "o-", ms=3, label=name)
    axes.set(xlabel="λ", ylabel="validation loss", title="descent through the fit")
    axes.legend()
    figure.savefig(options.out, dpi=120)
    print(f"plot saved to {options.out}")


if __name__ == "__main__":
    main()
