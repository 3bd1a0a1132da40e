"""Quick start: softmax as an optimization problem, then learning a quadratic program from the decisions it made.

    python examples/quickstart.py [--out quickstart.png] [--steps 150]

1. Softmax is argmax_z θᵀz + entropy(z) over the simplex. Write that in CVXPY, differentiate it, compare the Jacobian
   with diag(z) − zzᵀ.
2. A buyer splits a budget over goods: each decision maximizes preferences(context)ᵀz − ½‖Lᵀz‖² subject to prices and a
   budget. We see contexts and decisions only, and fit the objective (W, L) and the constraint (prices) by gradient
   descent through the problem.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cvxpy as cp
import matplotlib
import numpy as np
import torch
from tqdm import trange

import cvxift
from cvxift.torch import CvxpyLayer

matplotlib.use("Agg")
import matplotlib.pyplot as plt

GOODS, FEATURES, OBSERVED = 5, 3, 256


def softmax_jacobian() -> float:
    """Differentiate softmax written as a problem; return the largest error against diag(z) − zzᵀ."""
    theta = cp.Parameter(4, name="theta", value=np.array([1.0, 0.2, -0.5, 0.7]))
    z = cp.Variable(4, name="z")
    problem = cp.Problem(cp.Maximize(theta @ z + cp.sum(cp.entr(z))), [cp.sum(z) == 1])

    # As any problem is differentiated: by its KKT system, though this one has a closed form that cvxift knows.
    s = cvxift.differentiate(problem, closed_form="never")
    weights = np.exp(np.asarray(theta.value))
    p = weights / weights.sum()
    jacobian = s.jacobian(z, theta)
    error = float(np.abs(jacobian - (np.diag(p) - np.outer(p, p))).max())

    print("z*(θ)    =", s.value(z).round(6))
    print("dz*/dθ   =\n", jacobian.round(6))
    print(f"solution: relative residual {s.residuals.worst:.1e}")
    print(f"derivative: {s.certificate}")
    print(f"error against diag(z) − zzᵀ = {error:.1e}\n")
    return error


def buyer() -> CvxpyLayer:
    """The buyer's problem as a layer: (linear utilities, L, prices) ↦ decision z."""
    z = cp.Variable(GOODS, name="z")
    utility = cp.Parameter(GOODS, name="utility")
    L = cp.Parameter((GOODS, GOODS), name="L")
    prices = cp.Parameter(GOODS, name="prices", nonneg=True)
    objective = cp.Maximize(utility @ z - 0.5 * cp.sum_squares(L.T @ z))
    problem = cp.Problem(objective, [prices @ z <= 1, z >= 0])
    return CvxpyLayer(problem, parameters=[utility, L, prices], variables=[z])


def learn(steps: int) -> tuple[list[float], np.ndarray, np.ndarray, np.ndarray]:
    """Fit (W, L, prices) to observed decisions.

    Args:
        steps: gradient steps.

    Returns:
        The losses, the true and the learned prices, and how often each good was bought, in [0, 1].
    """
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    layer = buyer()
    contexts = randn(OBSERVED, FEATURES)
    true_W, true_L = randn(GOODS, FEATURES), torch.eye(GOODS, dtype=torch.float64) + 0.3 * randn(GOODS, GOODS)
    true_prices = 0.5 + torch.rand(GOODS, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        (decisions,) = layer(contexts @ true_W.T, true_L, true_prices)
        bought = (decisions > 1e-6).double().mean(dim=0)
        decisions = decisions + 0.01 * randn(*decisions.shape)

    W = (0.1 * randn(GOODS, FEATURES)).requires_grad_()
    L = torch.eye(GOODS, dtype=torch.float64).requires_grad_()
    log_prices = torch.zeros(GOODS, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([W, L, log_prices], lr=0.05)
    losses = []
    bar = trange(steps, desc="fitting the buyer", unit="step")
    for _ in bar:
        optimizer.zero_grad()
        (predicted,) = layer(contexts @ W.T, L, log_prices.exp())
        loss = (predicted - decisions).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        bar.set_postfix(loss=f"{loss.item():.2e}")
    return losses, true_prices.numpy(), log_prices.detach().exp().numpy(), bought.numpy()


def plot(losses: list[float], true: np.ndarray, learned: np.ndarray, out: Path) -> None:
    """Loss over the steps, and the learned prices beside the true ones."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    left.semilogy(losses)
    left.axhline(1e-4, color="0.6", linestyle=":", label="noise in the decisions")
    left.set(xlabel="step", ylabel="mean squared error", title="loss")
    left.legend()
    position = np.arange(len(true))
    right.bar(position - 0.2, true, 0.4, label="true")
    right.bar(position + 0.2, learned, 0.4, label="learned")
    right.set(xlabel="good", ylabel="price", title="the budget constraint, recovered")
    right.legend()
    figure.savefig(out, dpi=120)
    plt.close(figure)


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description="Differentiate softmax, then learn a program from its decisions.")
    parser.add_argument("--out", type=Path, default=Path("quickstart.png"), help="where the plot goes")
    parser.add_argument("--steps", type=int, default=150, help="gradient steps")
    options = parser.parse_args()

    softmax_jacobian()
    start = time.perf_counter()
    losses, true, learned, bought = learn(options.steps)
    print(f"loss {losses[0]:.2e} → {losses[-1]:.2e} in {time.perf_counter() - start:.1f} s")
    print("prices, true    :", true.round(3))
    print("prices, learned :", learned.round(3))
    print("goods, bought in:", bought.round(3))
    rarest = int(bought.argmin())
    print(
        f"A price shows only in decisions that buy the good: that of good {rarest + 1}, bought in {bought[rarest]:.0%} "
        f"of them, is fitted least firmly."
    )
    plot(losses, true, learned, options.out)
    print(f"plot saved to {options.out}")


if __name__ == "__main__":
    main()
