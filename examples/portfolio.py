"""A portfolio end to end: returns predicted from features, then a quadratic program, learned by the utility earned.

The two-stage way fits the returns; end to end, the same model is trained through the program on what the portfolio
earned. The report says that the theorem applies, and which assets are left out.
"""

from __future__ import annotations

import argparse

import cvxpy as cp
import numpy as np
import torch
from figures import panels, save

import cvxift
from cvxift.torch import CvxpyLayer

AVERSION = 4.0


def market(days: int, assets: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Features of each day, returns that only partly follow from them, and the factor of their covariance."""
    world = np.random.default_rng(7)
    exposure = world.standard_normal((assets, 3))
    common = 0.15 * world.standard_normal((assets, 2))
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((days, 3))
    mean = 0.06 * np.tanh(1.5 * x @ exposure.T) * (x[:, :1] > 0.0)  # no linear function of the features
    noise = rng.standard_normal((days, 2)) @ common.T + 0.08 * rng.standard_normal((days, assets))
    covariance = common @ common.T + 0.08**2 * np.eye(assets)
    return torch.tensor(x), torch.tensor(mean + noise), np.linalg.cholesky(covariance).T


def program(factor: np.ndarray) -> tuple[CvxpyLayer, cp.Variable]:
    """Most expected return less risk; long only, at most 40 % in one asset, the rest in cash."""
    n = factor.shape[1]
    mean, w = cp.Parameter(n, name="mean"), cp.Variable(n, name="w")
    utility = mean @ w - 0.5 * AVERSION * cp.sum_squares(factor @ w)
    return CvxpyLayer(cp.Problem(cp.Maximize(utility), [cp.sum(w) <= 1, w >= 0, w <= 0.4]), [mean], [w]), w


def main() -> None:
    """Train both ways, compare on fresh days, draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--days", type=int, default=1200)
    arguments = parser.parse_args()
    assets = 8
    x, r, factor = market(arguments.days, assets, 0)
    fresh, fresh_r, _ = market(600, assets, 1)
    layer, _ = program(factor)
    L = torch.tensor(factor)

    def utility(w: torch.Tensor, returns: torch.Tensor) -> torch.Tensor:
        """What was earned less the known risk, a day."""
        return (w * returns).sum(1) - 0.5 * AVERSION * (w @ L.T).square().sum(1)

    ones = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    solution = torch.linalg.lstsq(ones, r).solution
    models = {}
    for name in ("two-stage", "end to end"):
        models[name] = torch.nn.Linear(3, assets).double()
        models[name].weight.data = solution[:-1].T.contiguous()
        models[name].bias.data = solution[-1].contiguous()
    model = models["end to end"]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    history = []
    for _ in range(arguments.steps):
        optimizer.zero_grad()
        loss = -utility(layer(model(x))[0], r).mean()
        loss.backward()
        optimizer.step()
        history.append(-float(loss.detach()))
    print(f"training utility a day from {history[0]:.5f} to {history[-1]:.5f}")
    with torch.no_grad():
        weights = {name: layer(own(fresh))[0] for name, own in models.items()}
    earned = {name: utility(w, fresh_r) for name, w in weights.items()}
    for name, values in earned.items():
        print(f"{name}: utility on fresh days {float(values.mean()):.5f}")
    report = cvxift.diagnose(layer, model(fresh[:1]).detach()[0])
    out = sum(row.state == "active" and ">= 0" in row.name for row in report.active_set)
    print(f"report: {report.verdict.value}, assets left out {out}")
    figure, axes = panels(3)
    axes[0].plot(history)
    axes[0].set(title="training utility a day", xlabel="step")
    for name, values in earned.items():
        axes[1].plot(values.cumsum(0), label=name)
    axes[1].set(title="utility on fresh days, summed", xlabel="day")
    axes[1].legend(fontsize=8)
    axes[2].stackplot(np.arange(60), weights["end to end"][:60].T.numpy(), step="post")
    axes[2].set(title="weights, end to end", xlabel="fresh day")
    save(figure, "portfolio")


if __name__ == "__main__":
    main()
