"""Which training examples moved a logistic regression, without training again.

A weight w_i on every example makes the fitted coefficients a function of w; leaving an example out is w_i = 0, to first
order a step along −dx/dw_i. One reverse-mode pass gives the effect of all examples on a test loss; the report applies.
"""

from __future__ import annotations

import argparse

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from cvxift.torch import implicit_argmin


def energy(x: torch.Tensor, weights: torch.Tensor, A: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Weighted logistic loss with a ridge penalty."""
    return weights @ torch.nn.functional.softplus(-y * (A @ x)) + 0.5 * x @ x


def newton(weights: torch.Tensor, A: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Newton's method to rounding."""
    x = torch.zeros(A.shape[1], dtype=A.dtype)
    for _ in range(12):
        p = torch.sigmoid(-y * (A @ x))
        gradient = -A.T @ (weights * y * p) + x
        H = A.T @ (A * (weights * p * (1.0 - p))[:, None]) + torch.eye(len(x), dtype=A.dtype)
        x = x - torch.linalg.solve(H, gradient)
    return x


def main() -> None:
    """Compare influences with training again without each example."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--examples", type=int, default=150)
    count = parser.parse_args().examples
    rng = np.random.default_rng(0)
    truth_of = torch.tensor([1.0, -2.0, 0.5, 0.0, 1.0], dtype=torch.float64)
    data = torch.tensor(rng.standard_normal((count + 50, 5)))
    label = torch.sign(data @ truth_of + torch.tensor(rng.normal(size=count + 50)))
    A, y, test, truth = data[:count], label[:count], data[count:], label[count:]

    def loss(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.softplus(-truth * (test @ x)).mean()

    solve = implicit_argmin(lambda x, w: energy(x, w, A, y), lambda w: newton(w, A, y))
    weights = torch.ones(count, dtype=torch.float64)
    influence = -torch.func.grad(lambda w: loss(solve(w)))(weights)
    retrained = []
    for i in range(count):
        without = weights.clone()
        without[i] = 0.0
        retrained.append(float(loss(newton(without, A, y)) - loss(newton(weights, A, y))))
    correlation = np.corrcoef(influence.numpy(), retrained)[0, 1]
    print(f"correlation with leaving one out: {correlation:.4f}")
    print(f"report: {solve.diagnose(weights).verdict.value}")
    figure, axis = plt.subplots(figsize=(4.5, 4))
    axis.plot(retrained, influence.numpy(), ".")
    axis.set(xlabel="change of the test loss, trained again", ylabel="influence, one backward pass")
    axis.set_title(f"correlation {correlation:.3f}")
    axis.ticklabel_format(scilimits=(0, 0))
    figure.savefig("influence.png", dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    main()
