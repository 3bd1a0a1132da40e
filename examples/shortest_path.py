"""Predict, then optimize: edge costs from features, then the shortest path through a grid, learned by the path's cost.

The linear program has no useful gradient; with ½γ‖z‖² it has one. Against the two-stage way, which fits the costs and
knows nothing of the path. The report says that the theorem applies to the smoothed program.
"""

from __future__ import annotations

import argparse

import cvxpy as cp
import numpy as np
import torch
from figures import panels, save

import cvxift
from cvxift.torch import CvxpyLayer

SIDE = 4  # nodes along each side of the grid


def incidence() -> np.ndarray:
    """Edges to the right and down: +1 where an edge leaves a node, −1 where it enters."""
    columns = []
    for row in range(SIDE):
        for column in range(SIDE):
            for down, right in ((0, 1), (1, 0)):
                if row + down < SIDE and column + right < SIDE:
                    edge = np.zeros(SIDE * SIDE)
                    edge[row * SIDE + column], edge[(row + down) * SIDE + column + right] = 1.0, -1.0
                    columns.append(edge)
    return np.array(columns).T


def program(gamma: float) -> tuple[cp.Problem, cp.Parameter, cp.Variable]:
    """The flow of one unit from corner to corner, of least cost."""
    N = incidence()
    cost, z = cp.Parameter(N.shape[1], name="cost"), cp.Variable(N.shape[1], name="z")
    supply = np.zeros(SIDE * SIDE)
    supply[0], supply[-1] = 1.0, -1.0
    flow = [N[:-1] @ z == supply[:-1], z >= 0]  # the last balance follows from the others
    return cp.Problem(cp.Minimize(cost @ z + 0.5 * gamma * cp.sum_squares(z)), flow), cost, z


def main() -> None:
    """Train both ways, compare the regret on fresh days, draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--days", type=int, default=60)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    edges, features = incidence().shape[1], 5
    B = (rng.random((edges, features)) < 0.5).astype(float)

    def days(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Features, and costs that are no linear function of them (degree 4)."""
        x = rng.standard_normal((count, features))
        mean = ((x @ B.T / features**0.5 + 3.0) / 3.0) ** 4
        return torch.tensor(x), torch.tensor(mean * rng.uniform(0.7, 1.3, mean.shape))

    smooth, cost, z = program(0.5)
    layer = CvxpyLayer(smooth, [cost], [z])
    exact_problem, exact_cost, exact_z = program(1e-6)
    exact = CvxpyLayer(exact_problem, [exact_cost], [exact_z])
    x, c = days(arguments.days)
    fresh, fresh_c = days(200)
    with torch.no_grad():
        best, fresh_best = ((costs * exact(costs)[0]).sum(1) for costs in (c, fresh_c))

    def regret(model: torch.nn.Module) -> float:
        with torch.no_grad():
            path = exact(model(fresh))[0]
            return float(((fresh_c * path).sum(1) - fresh_best).sum() / fresh_best.sum())

    def fitted() -> torch.nn.Linear:
        model = torch.nn.Linear(features, edges).double()
        ones = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
        solution = torch.linalg.lstsq(ones, c).solution
        model.weight.data, model.bias.data = solution[:-1].T.contiguous(), solution[-1].contiguous()
        return model

    two_stage, model = fitted(), fitted()  # the way through the path starts from the fit
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    history, regrets = [], [regret(model)]
    for step in range(arguments.steps):
        optimizer.zero_grad()
        loss = ((c * layer(model(x))[0]).sum(1) - best).sum() / best.sum()
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
        if step % 5 == 4:
            regrets.append(regret(model))
    print(f"training regret of the smoothed path from {history[0]:.3f} to {history[-1]:.3f}")
    print(f"regret on fresh days: two-stage {regret(two_stage):.3f}, through the path {regret(model):.3f}")
    report = cvxift.diagnose(layer, model(x[:1]).detach()[0])
    print(f"report: {report.verdict.value}")
    figure, axes = panels(3)
    axes[0].plot(history)
    axes[0].set(title="training regret (smoothed)", xlabel="step")
    axes[1].plot(5 * np.arange(len(regrets)), regrets, "o-", ms=4, label="through the path")
    axes[1].axhline(regrets[0], color="#6b7280", linestyle="--", label="two-stage")
    axes[1].set(title="regret on fresh days", xlabel="step")
    axes[1].legend(fontsize=8)
    N = incidence()
    with torch.no_grad():
        paths = {"best": exact(fresh_c[:1])[0][0], "two-stage": exact(two_stage(fresh[:1]))[0][0],
                 "through the path": exact(model(fresh[:1]))[0][0]}  # fmt: skip
    for k, (name, path) in enumerate(paths.items()):
        for e in range(edges):
            ends = [int(np.flatnonzero(N[:, e] == sign)[0]) for sign in (1.0, -1.0)]
            rows, columns = np.array([divmod(end, SIDE) for end in ends]).T
            axes[2].plot(columns + 0.08 * k, -rows + 0.08 * k, color="0.9", lw=1, zorder=0)
            if path[e] > 0.1:
                axes[2].plot(columns + 0.08 * k, -rows + 0.08 * k, color=f"C{k}", lw=3 * float(path[e]))
        axes[2].plot([], [], color=f"C{k}", label=name)
    axes[2].set(title="a fresh day", xticks=[], yticks=[], aspect="equal")
    axes[2].legend(fontsize=8, loc="upper right")
    save(figure, "shortest_path")


if __name__ == "__main__":
    main()
