"""Predict, then optimize: travel times of streets predicted from features, then the shortest path through a city.

The two-stage way fits the times by least squares. End to end, the same model is trained through the linear program of
the path, smoothed by ½ε‖w‖², on the regret: the true time of the chosen path above that of the shortest one (a task of
Elmachtoub & Grigas 2022). The report says that the theorem applies to the path; the multipliers of crossings that no
path passes are not unique.
"""

from __future__ import annotations

import argparse

import cvxpy as cp
import numpy as np
import torch
from figures import panels, save

import cvxift
from cvxift.torch import CvxpyLayer

SIDE = 5  # crossings a side; streets lead right and down, from the upper left to the lower right
FEATURES, DEGREE, NOISE = 5, 6, 0.25
SMOOTHING = 8.0
CROSSINGS = [(i, j) for i in range(SIDE) for j in range(SIDE)]
STREETS = [((i, j), (i, j + 1)) for i, j in CROSSINGS if j + 1 < SIDE]
STREETS += [((i, j), (i + 1, j)) for i, j in CROSSINGS if i + 1 < SIDE]


def city(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of each day, and every street's time: a power of a linear function, so that no linear model is right."""
    own = np.random.default_rng(7).random((len(STREETS), FEATURES)) < 0.5
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, FEATURES))
    times = ((x @ own.T / FEATURES**0.5 + 3.0) / 3.0) ** DEGREE + 1.0
    times *= rng.uniform(1.0 - NOISE, 1.0 + NOISE, times.shape)
    return torch.tensor(x), torch.tensor(times)


def flow(smoothing: float) -> CvxpyLayer:
    """The streets taken: one unit flows from the first crossing to the last, as cheaply as possible."""
    times, w = cp.Parameter(len(STREETS), name="times"), cp.Variable(len(STREETS), name="w")
    balance = np.zeros((len(CROSSINGS), len(STREETS)))
    for k, (start, end) in enumerate(STREETS):
        balance[CROSSINGS.index(start), k], balance[CROSSINGS.index(end), k] = 1.0, -1.0
    supply = np.zeros(len(CROSSINGS))
    supply[0] = 1.0  # the last crossing's row follows from the others
    objective = cp.Minimize(times @ w + 0.5 * smoothing * cp.sum_squares(w))
    return CvxpyLayer(cp.Problem(objective, [balance[:-1] @ w == supply[:-1], w >= 0]), [times], [w])


def path(times: np.ndarray) -> np.ndarray:
    """The shortest path by dynamic programming; streets taken, shape (count, streets)."""
    count = len(times)
    into = {c: [(k, start) for k, (start, end) in enumerate(STREETS) if end == c] for c in CROSSINGS}
    best: dict[tuple[int, int], np.ndarray] = {(0, 0): np.zeros(count)}
    last: dict[tuple[int, int], np.ndarray] = {}
    for c in CROSSINGS[1:]:
        ways = np.stack([best[start] + times[:, k] for k, start in into[c]])
        best[c], last[c] = ways.min(0), ways.argmin(0)
    taken = np.zeros_like(times)
    for row in range(count):
        at = CROSSINGS[-1]
        while at != (0, 0):
            k, at = into[at][int(last[at][row])]
            taken[row, k] = 1.0
    return taken


def main() -> None:
    """Train both ways, compare regrets on fresh days, draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--days", type=int, default=200)
    parser.add_argument("--batch", type=int, default=40)
    arguments = parser.parse_args()
    x, times = city(arguments.days, 0)
    fresh, fresh_times = city(1000, 1)
    layer = flow(SMOOTHING)
    shortest = (times * torch.tensor(path(times.numpy()))).sum(1)
    solution = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1), times).solution
    models = {}
    for name in ("two-stage", "end to end"):
        models[name] = torch.nn.Linear(FEATURES, len(STREETS)).double()
        models[name].weight.data, models[name].bias.data = solution[:-1].T.contiguous(), solution[-1].contiguous()
    model = models["end to end"]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    history = []
    for step in range(arguments.steps):
        optimizer.zero_grad()
        rows = (torch.arange(arguments.batch) + step * arguments.batch) % len(x)
        loss = ((times[rows] * layer(model(x[rows]))[0]).sum(1) - shortest[rows]).mean() / shortest.mean()
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
    print(f"regret of the smoothed path in training from {history[0]:.4f} to {history[-1]:.4f}")
    best = (fresh_times.numpy() * path(fresh_times.numpy())).sum(1)
    regrets, errors = {}, {}
    for name, own in models.items():
        predicted = own(fresh).detach()
        regrets[name] = (fresh_times.numpy() * path(predicted.numpy())).sum(1) - best
        errors[name] = float((predicted - fresh_times).square().mean())
        print(f"{name}: regret on fresh days {regrets[name].mean() / best.mean():.4f}, "
              f"squared error of the times {errors[name]:.2f}")  # fmt: skip
    print(f"report: {cvxift.diagnose(layer, model(fresh[:1]).detach()[0]).verdict.value}")
    figure, axes = panels(3)
    axes[0].plot(history)
    axes[0].set(xlabel="step", ylabel="relative regret, smoothed")
    names = list(regrets)
    axes[1].bar(names, [regrets[name].mean() / best.mean() for name in names], color=["#6b7280", "#1d4ed8"])
    axes[1].set(ylabel="relative regret on fresh days")
    day = int(np.argmax(regrets["two-stage"] - regrets["end to end"]))
    ways = {
        "true": fresh_times[day : day + 1],
        **{name: own(fresh[day : day + 1]).detach() for name, own in models.items()},
    }
    for (name, costs), color, shift in zip(ways.items(), ("#059669", "#6b7280", "#1d4ed8"), (0.0, 0.06, -0.06)):
        taken = path(costs.numpy())[0]
        for k in np.flatnonzero(taken):
            (i, j), (p, q) = STREETS[k]
            axes[2].plot(
                [j + shift, q + shift],
                [-i + shift, -p + shift],
                color=color,
                lw=2.5,
                label=name if (i, j) == (0, 0) else None,
            )
    axes[2].plot([j for _, j in CROSSINGS], [-i for i, _ in CROSSINGS], ".", color="0.7", zorder=0)
    axes[2].set(xticks=[], yticks=[], title="paths on one day")
    axes[2].legend(fontsize=8)
    save(figure, "shortest_path")


if __name__ == "__main__":
    main()
