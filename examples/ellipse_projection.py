"""Projection onto an ellipse whose axes are learned, and where that map has no derivative.

The nearest point of a curve is a nonconvex problem: from inside the evolute there are several local solutions, on it
they merge and the derivative grows without bound. The report says so; away from it an ellipse is fitted to noisy points
by the gradients of their distances to it.
"""

from __future__ import annotations

import argparse
import warnings

import cvxpy as cp
import numpy as np
import torch
from figures import panels, save

import cvxift
from cvxift.torch import CvxpyLayer


def nearest() -> tuple[cp.Problem, cp.Variable, cp.Parameter, cp.Parameter]:
    """The point of an ellipse that is nearest to a given one."""
    x, point, axes = cp.Variable(2, name="x"), cp.Parameter(2, name="point"), cp.Parameter(2, pos=True, name="axes")
    on_it = cp.sum(cp.square(cp.multiply(x, 1 / axes))) == 1
    return cp.Problem(cp.Minimize(cp.sum_squares(x - point)), [on_it]), x, point, axes


def main() -> None:
    """Compare a derivative with the secular equation's, walk to the evolute, fit."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    problem, x, point, axes = nearest()
    axes.value, point.value = np.array([2.0, 1.0]), np.array([1.5, 1.2])
    x.value = point.value
    s = cvxift.differentiate(problem, nlp=True)
    z, y = s.value(x), s.value(problem.constraints[0].dual_variables[0])
    # (1 + y/a²) x = point and the curve's normal give the derivative in closed form.
    W, normal = np.diag(1.0 / (1.0 + y / axes.value**2)), z / axes.value**2
    closed = W - np.outer(W @ normal, W @ normal) / (normal @ W @ normal)
    print(f"d(nearest)/d(point) against the closed form: {np.abs(s.jacobian(x, point) - closed).max():.1e}")

    distances, norms = np.array([1.0, 0.3, 0.1, 0.03, 0.01, 0.003]), []
    for distance in distances:  # (2 − 1/2, 0) is a cusp of the evolute
        point.value, x.value = np.array([1.5 + distance, 0.0]), np.array([2.0, 0.05])
        norms.append(np.linalg.norm(cvxift.differentiate(problem, nlp=True, check="off").jacobian(x, point), 2))
    point.value, x.value = np.array([1.5, 0.0]), np.array([2.0, 0.0])
    report = cvxift.diagnose(problem, nlp=True)
    print(f"on the evolute: {report.verdict.value} ({', '.join(f.cause for f in report.findings if f.fault)})")

    rng = np.random.default_rng(0)
    angles = rng.uniform(0.0, 2.0 * np.pi, 20)
    shown = np.stack([2.4 * np.cos(angles), 1.3 * np.sin(angles)], 1) + 0.05 * rng.standard_normal((20, 2))
    layers = []
    for one in shown:  # each point has a start of its own: its own direction
        problem, x, point, axes = nearest()
        x.value = one
        layers.append(CvxpyLayer(problem, [point, axes], [x], nlp=True))
    data = torch.tensor(shown)
    log_axes = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer, history = torch.optim.Adam([log_axes], lr=0.1), []
    for _ in range(arguments.steps):
        optimizer.zero_grad()
        feet = torch.stack([layer(one, torch.exp(log_axes))[0] for layer, one in zip(layers, data)])
        error = (feet - data).square().sum(1).mean()
        error.backward()
        optimizer.step()
        history.append(float(error.detach()))
    fitted = torch.exp(log_axes.detach()).numpy()
    print(f"axes {fitted[0]:.2f} and {fitted[1]:.2f}, of points drawn near 2.40 and 1.30")

    figure, panes = panels(3)
    turn = np.linspace(0.0, 2.0 * np.pi, 200)
    panes[0].plot(2.0 * np.cos(turn), np.sin(turn), color="C0")
    panes[0].plot(1.5 * np.cos(turn) ** 3, -3.0 * np.sin(turn) ** 3, color="C1", lw=1, label="evolute")
    panes[0].set(title="several nearest points inside the evolute", aspect="equal")
    panes[0].legend(fontsize=8)
    panes[1].loglog(distances, norms, "o-")
    panes[1].set(title="size of the derivative", xlabel="distance of the point from the evolute")
    panes[2].plot(*shown.T, ".", color="C1")
    panes[2].plot(fitted[0] * np.cos(turn), fitted[1] * np.sin(turn), color="C0")
    for foot, one in zip(feet.detach().numpy(), shown):
        panes[2].plot(*np.stack([foot, one]).T, color="C4", lw=0.7)
    panes[2].set(title="an ellipse fitted by distances", aspect="equal")
    save(figure, "ellipse_projection")


if __name__ == "__main__":
    warnings.simplefilter("ignore", cvxift.ApplicabilityWarning)
    main()
