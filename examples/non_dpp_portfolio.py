"""A convex portfolio that is not DPP: an investor's aversion, prices and limits multiply each other.

CVXPY solves the problem but refuses to parametrize it: the risk is scaled by a product of parameters, its matrix is a
parameter, and the leverage is limited by a ratio of two. With nlp=True it is solved by a cone solver as before and
differentiated. The aversion and the price of trading are then recovered from an investor's decisions.
"""

from __future__ import annotations

import argparse

import cvxpy as cp
import numpy as np
import torch
from figures import panels, save

import cvxift
from cvxift.torch import CvxpyLayer

ASSETS = 5


def investor() -> tuple[cp.Problem, list[cp.Parameter], cp.Variable]:
    """The problem, its parameters and the portfolio."""
    w = cp.Variable(ASSETS, name="w")
    mu, held = cp.Parameter(ASSETS, name="returns"), cp.Parameter(ASSETS, name="held")
    S = cp.Parameter((ASSETS, ASSETS), PSD=True, name="covariance")
    aversion, price, volume = (cp.Parameter(pos=True, name=name) for name in ("aversion", "price", "volume"))
    utility = mu @ w - aversion * price * cp.quad_form(w, S) - price / volume * cp.sum_squares(w - held)
    limit = [cp.sum(w) == 1, cp.norm1(w) <= 1 + 1 / aversion]
    return cp.Problem(cp.Maximize(utility), limit), [mu, S, aversion, price, volume, held], w


def main() -> None:
    """Refusal, gradient against differences, recovery."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    problem, parameters, w = investor()
    rng = np.random.default_rng(0)
    F = 0.3 * rng.standard_normal((ASSETS, ASSETS))
    S = torch.tensor(F @ F.T + 0.05 * np.eye(ASSETS))
    mu, held = torch.tensor(0.3 * rng.standard_normal((12, ASSETS))), torch.tensor(rng.dirichlet(np.ones(ASSETS), 12))
    try:
        CvxpyLayer(problem, parameters, [w])
    except cvxift.ProgramError as error:
        print(f"without nlp=True: {str(error).splitlines()[0][:110]}…")
    layer = CvxpyLayer(problem, parameters, [w], nlp=True)
    truth = torch.tensor([1.5, 0.6], dtype=torch.float64)
    volume = torch.tensor(2.0, dtype=torch.float64)

    def decide(two: torch.Tensor) -> torch.Tensor:
        return layer(mu, S, two[0], two[1], volume, held)[0]

    decisions = decide(truth)
    learned = torch.tensor([0.0, 0.0], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad((decide(torch.exp(learned)) - decisions).square().sum(), learned)
    ends = []
    with torch.no_grad():
        for sign in (1.0, -1.0):
            moved = learned + sign * 1e-5 * torch.tensor([1.0, -0.5])
            ends.append(float((decide(torch.exp(moved)) - decisions).square().sum()))
    print(f"gradient and differences: {float(grad[0] - 0.5 * grad[1]):.6f}, {(ends[0] - ends[1]) / 2e-5:.6f}")
    optimizer, path = torch.optim.Adam([learned], lr=0.05), []
    for _ in range(arguments.steps):
        optimizer.zero_grad()
        loss = (decide(torch.exp(learned)) - decisions).square().sum()
        loss.backward()
        path.append((*torch.exp(learned.detach()).tolist(), float(loss.detach())))
        optimizer.step()
    found = torch.exp(learned.detach())
    print(f"aversion {float(found[0]):.3f} (1.5), price {float(found[1]):.3f} (0.6)")
    report = cvxift.diagnose(layer, mu[0], S, found[0], found[1], volume, held[0])
    print(f"report: {report.verdict.value}")

    figure, axes = panels(3)
    axes[0].plot([step[:2] for step in path], label=["aversion", "price"])
    for value, color in zip(truth.tolist(), ("C0", "C1")):
        axes[0].axhline(value, color=color, ls=":", lw=1)
    axes[0].set(title="parameters recovered", xlabel="step")
    axes[0].legend(fontsize=8)
    axes[1].semilogy([step[2] for step in path])
    axes[1].set(title="squared error of the decisions", xlabel="step")
    averse = torch.linspace(0.5, 3.0, 26, dtype=torch.float64)
    axes[2].plot(averse, layer(mu[0], S, averse, truth[1], volume, held[0])[0])
    axes[2].set(title="a portfolio over the aversion", xlabel="aversion", ylabel="weight of each asset")
    save(figure, "non_dpp_portfolio")


if __name__ == "__main__":
    main()
