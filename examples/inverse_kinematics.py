"""Inverse kinematics: the joint angles of an arm that reaches a target, and where that map has no derivative.

The arm has more joints than the target fixes; among the angles that reach it, the ones nearest to a posture are chosen,
a nonlinear program. A target is moved along a circle and the solution followed; then the posture is learned from
demonstrations, with gradients through the program.
"""

from __future__ import annotations

import argparse

import cvxpy as cp
import numpy as np
import torch
from figures import panels, save

import cvxift
from cvxift.torch import CvxpyLayer

LENGTHS = np.array([1.0, 0.8, 0.6])


def arm() -> tuple[cp.Problem, cp.Variable, cp.Parameter, cp.Parameter]:
    """The angles of the segments that reach a target, nearest to a posture."""
    angles, target, posture = (
        cp.Variable(3, name="angles"),
        cp.Parameter(2, name="target"),
        cp.Parameter(3, name="rest"),
    )
    reached = [LENGTHS @ cp.nlp.cos(angles) == target[0], LENGTHS @ cp.nlp.sin(angles) == target[1]]
    angles.value = np.array([0.2, 0.8, 1.4])
    return cp.Problem(cp.Minimize(cp.sum_squares(angles - posture)), reached), angles, target, posture


def joints(angles: np.ndarray) -> np.ndarray:
    """Where the joints are, shape (4, 2)."""
    steps = LENGTHS[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    return np.vstack([np.zeros(2), np.cumsum(steps, 0)])


def circle(phases: np.ndarray) -> np.ndarray:
    """Targets, shape (count, 2)."""
    return np.array([1.3, 0.9]) + 0.5 * np.stack([np.cos(phases), np.sin(phases)], 1)


def main() -> None:
    """Follow targets, learn the posture, ask for a report at the end of the arm's reach."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    problem, angles, target, posture = arm()
    layer = CvxpyLayer(problem, [target, posture], [angles], nlp=True)
    hidden = torch.tensor([0.1, 0.9, 1.2], dtype=torch.float64)
    targets = torch.tensor(circle(np.linspace(0.0, 2.0 * np.pi, 12, endpoint=False)))
    (shown,) = layer(targets, hidden)
    learned = torch.tensor([0.3, 0.3, 0.3], dtype=torch.float64, requires_grad=True)
    optimizer, history = torch.optim.Adam([learned], lr=0.1), []
    for _ in range(arguments.steps):
        optimizer.zero_grad()
        error = (layer(targets, learned, warm_start=True)[0] - shown).square().mean()
        error.backward()
        optimizer.step()
        history.append(float(error.detach()))
    print(f"mean squared error of the angles: {history[0]:.1e} before, {history[-1]:.1e} after {len(history)} steps")

    target.value, posture.value = targets[0].numpy(), hidden.numpy()
    s = cvxift.differentiate(problem, nlp=True)
    J = s.jacobian(angles, target)
    a = s.value(angles)
    reach = np.stack([-LENGTHS * np.sin(a), LENGTHS * np.cos(a)])  # derivative of the end's position, (2, 3)
    print(f"the end follows the target, |reach @ d(angles)/d(target) − I|: {np.abs(reach @ J - np.eye(2)).max():.1e}")
    target.value, posture.value = np.array([LENGTHS.sum(), 0.0]), np.zeros(3)
    angles.value = np.zeros(3)
    print("report with the arm stretched out:")
    print(cvxift.diagnose(problem, nlp=True))

    figure, axes = panels(3)
    for k, solution in enumerate(shown.detach().numpy()):
        axes[0].plot(*joints(solution).T, "o-", color="C0", lw=1, ms=3, alpha=0.25 + 0.06 * k)
    axes[0].plot(*circle(np.linspace(0.0, 2.0 * np.pi, 100)).T, color="C1", lw=1)
    axes[0].set(title="the arm along a circle of targets", aspect="equal")
    axes[1].semilogy(history)
    axes[1].set(title="error of a learned posture", xlabel="step")
    moves = np.linspace(-0.3, 0.3, 25)
    followed = layer(torch.tensor(targets[0].numpy() + np.outer(moves, [1.0, 0.0])), hidden)[0].detach().numpy()
    axes[2].plot(moves, followed)
    for k in range(3):
        axes[2].plot(moves, a[k] + J[k, 0] * moves, ":", color=f"C{k}")
    axes[2].set(title="angles and their tangents", xlabel="target moved to the right by", ylabel="angle of each joint")
    save(figure, "inverse_kinematics")


if __name__ == "__main__":
    main()
