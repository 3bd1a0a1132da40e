"""One ridge penalty for each of many features, tuned on validation data by implicit gradients.

A grid over that many penalties is out of reach; the gradient of the validation loss costs one linear solve. Features
that carry nothing get large penalties. The report says that the fit is a strict minimum.
"""

from __future__ import annotations

import argparse

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from cvxift.torch import implicit_argmin


def fit(penalties: torch.Tensor, A: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The ridge solution, in closed form."""
    return torch.linalg.solve(A.T @ A / len(b) + torch.diag(torch.exp(penalties)), A.T @ b / len(b))


def main() -> None:
    """Tune, compare with the best common penalty of a grid, draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--features", type=int, default=200)
    arguments = parser.parse_args()
    n = arguments.features
    rng = np.random.default_rng(0)
    useful = n // 10
    truth = np.concatenate([rng.normal(size=useful), np.zeros(n - useful)])
    A = torch.tensor(rng.standard_normal((3 * n, n)))
    b = A @ torch.tensor(truth) + torch.tensor(2.0 * rng.standard_normal(3 * n))
    train, validation, test = (slice(i * n, (i + 1) * n) for i in range(3))

    def loss(x: torch.Tensor, part: slice) -> torch.Tensor:
        return (A[part] @ x - b[part]).square().mean()

    solve = implicit_argmin(
        lambda x, p: 0.5 * loss(x, train) + 0.5 * torch.exp(p) @ x.square(), lambda p: fit(p, A[train], b[train]),
        linear_solver="cg",
    )  # fmt: skip
    grid = np.linspace(-6.0, 3.0, 40)
    ones = torch.ones(n, dtype=torch.float64)
    scores = [float(loss(fit(value * ones, A[train], b[train]), validation)) for value in grid]
    best = float(grid[int(np.argmin(scores))])
    penalties = (best * ones).requires_grad_()
    optimizer = torch.optim.Adam([penalties], lr=0.1)
    history = []
    for _ in range(arguments.steps):
        optimizer.zero_grad()
        value = loss(solve(penalties), validation)
        value.backward()
        optimizer.step()
        history.append(float(value.detach()))
    common, own = (float(loss(fit(p.detach(), A[train], b[train]), test)) for p in (best * ones, penalties))
    print(f"validation loss from {history[0]:.3f} to {history[-1]:.3f}")
    print(f"test loss, common penalty {common:.3f}, own penalties {own:.3f}")
    print(f"median penalty of useful features {float(penalties[:useful].detach().median()):.2f}, "
          f"of the others {float(penalties[useful:].detach().median()):.2f}")  # fmt: skip
    print(f"report: {solve.diagnose(penalties).verdict.value}")
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5))
    axes[0].plot(history)
    axes[0].axhline(min(scores), color="0.6", linestyle="--", label="best common penalty")
    axes[0].set(xlabel="step", ylabel="validation loss")
    axes[0].legend()
    axes[1].plot(penalties.detach().numpy(), ".")
    axes[1].axvline(useful - 0.5, color="0.6")
    axes[1].set(xlabel="feature (useful ones on the left)", ylabel="log penalty")
    figure.tight_layout()
    figure.savefig("hyperparameters.png", dpi=150)


if __name__ == "__main__":
    main()
