"""Sensor localization: positions from noisy distances, and how each measurement moves them.

The positions are a local solution of a nonlinear least-squares problem. Its Jacobian gives the covariance of the
estimate from that of the measurements, compared with repeated ones; the gradient of its misfit says which
measurement to blame.
"""

from __future__ import annotations

import argparse

import cvxpy as cp
import numpy as np
from figures import panels, save

import cvxift

ANCHORS = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0]])
TRUE = np.array([[1.0, 1.2], [2.7, 0.9], [2.9, 2.8], [1.3, 3.0], [2.0, 2.0]])
NOISE, REACH = 0.05, 3.3


def pairs() -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Which sensors hear each other, and which hear which anchor."""
    count = len(TRUE)
    near = [(i, j) for i in range(count) for j in range(i) if np.linalg.norm(TRUE[i] - TRUE[j]) < REACH]
    heard = [(i, k) for i in range(count) for k in range(len(ANCHORS)) if np.linalg.norm(TRUE[i] - ANCHORS[k]) < REACH]
    return near, heard


def network() -> tuple[cp.Problem, cp.Variable, cp.Parameter]:
    """Positions that fit squared distances best; the start is a guess."""
    near, heard = pairs()
    x, d = cp.Variable(TRUE.shape, name="x"), cp.Parameter(len(near) + len(heard), name="distance", pos=True)
    squares = [cp.sum_squares(x[i] - x[j]) for i, j in near] + [cp.sum_squares(x[i] - ANCHORS[k]) for i, k in heard]
    x.value = np.full(TRUE.shape, 2.0) + 0.3 * np.random.default_rng(1).standard_normal(TRUE.shape)
    return cp.Problem(cp.Minimize(cp.sum_squares(cp.hstack(squares) - cp.square(d)))), x, d


def main() -> None:
    """Locate, compare covariances, blame an outlier."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=200)
    arguments = parser.parse_args()
    near, heard = pairs()
    exact = np.array(
        [np.linalg.norm(TRUE[i] - TRUE[j]) for i, j in near] + [np.linalg.norm(TRUE[i] - ANCHORS[k]) for i, k in heard]
    )
    problem, x, d = network()
    d.value = exact
    s = cvxift.differentiate(problem, nlp=True)
    print(f"exact distances give the positions to {np.abs(s.value(x) - TRUE).max():.1e}")
    J = s.jacobian(x, d).reshape(TRUE.size, -1)
    predicted = NOISE**2 * J @ J.T
    rng, draws = np.random.default_rng(0), []
    for _ in range(arguments.repeats):
        x.value, d.value = TRUE, exact + NOISE * rng.standard_normal(len(exact))
        draws.append(cvxift.differentiate(problem, nlp=True).value(x).ravel())
    spread = np.sqrt(np.diag(np.cov(np.array(draws).T)))
    ratio = spread / np.sqrt(np.diag(predicted))
    print(f"standard deviations of {arguments.repeats} repeats / predicted: {ratio.min():.2f} to {ratio.max():.2f}")

    wrong = len(exact) // 2
    x.value, d.value = TRUE, exact + 0.5 * np.eye(len(exact))[wrong]
    s = cvxift.differentiate(problem, nlp=True)
    # The cost of the misfit, and how far moving each measurement would lower it: the envelope theorem.
    blame = np.abs(s.jacobian(problem.objective, d))
    print(f"the measurement to blame: {int(blame.argmax())}, it was {wrong}")

    figure, axes = panels(3)
    cloud = np.array(draws).reshape(-1, *TRUE.shape)
    turn = np.linspace(0.0, 2.0 * np.pi, 60)
    axes[0].plot(*ANCHORS.T, "s", color="C4", label="anchors")
    for k in range(len(TRUE)):
        axes[0].plot(*cloud[:, k].T, ".", ms=2, color="C0", alpha=0.3)
        part = predicted[2 * k : 2 * k + 2, 2 * k : 2 * k + 2]
        axes[0].plot(
            *(TRUE[k][:, None] + 2.0 * np.linalg.cholesky(part) @ np.stack([np.cos(turn), np.sin(turn)])), "C1"
        )
    axes[0].set(title="predicted ellipses (2σ) and repeats", aspect="equal")
    axes[0].legend(fontsize=8)
    axes[1].bar(range(TRUE.size), ratio)
    axes[1].axhline(1.0, color="C4", lw=1)
    axes[1].set(title="standard deviation: repeats / predicted", xlabel="coordinate")
    axes[2].bar(range(len(exact)), blame, color=["C3" if k == wrong else "C0" for k in range(len(exact))])
    axes[2].set(title="blame of a wrong measurement", xlabel="measurement")
    save(figure, "sensor_localization")


if __name__ == "__main__":
    main()
