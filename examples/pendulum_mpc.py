"""Nonlinear model-predictive control of a pendulum, its weights tuned through the closed loop.

The controller plans with the nonlinear model over a short horizon; the plant has friction and a heavier bob than the
model. The gradient of the cost of the whole run goes through every plan.
"""

from __future__ import annotations

import argparse

import cvxpy as cp
import numpy as np
import torch
from figures import closed_loops

import cvxift
from cvxift.torch import CvxpyLayer

DT, HORIZON, TORQUE = 0.15, 10, 0.7


def controller() -> CvxpyLayer:
    """The torque of a plan from a state, and the plan; the angle is 0 upright."""
    state, weights = cp.Parameter(2, name="state"), cp.Parameter(3, pos=True, name="weights")
    x = cp.Variable((2, HORIZON + 1), name="x")
    u = cp.Variable(HORIZON, name="torque", bounds=[-TORQUE, TORQUE])
    cost = weights[0] * cp.sum(1 - cp.nlp.cos(x[0, 1:])) + weights[1] * cp.sum_squares(x[1, 1:])
    cost += weights[2] * cp.sum_squares(u)
    dynamics = [
        x[:, 0] == state,
        x[0, 1:] == x[0, :-1] + DT * x[1, 1:],
        x[1, 1:] == x[1, :-1] + DT * (cp.nlp.sin(x[0, :-1]) + u),
    ]
    x.value, u.value = np.zeros(x.shape), np.zeros(HORIZON)
    return CvxpyLayer(cp.Problem(cp.Minimize(cost), dynamics), [state, weights], [u, x], nlp=True)


def plant(state: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """The true motion over a step, of a batch of states."""
    angle, speed = state.unbind(1)
    speed = speed + DT * (1.15 * torch.sin(angle) + u - 0.1 * speed)
    return torch.stack([angle + DT * speed, speed], 1)


def run(layer: CvxpyLayer, log_weights: torch.Tensor, state: torch.Tensor, length: int) -> tuple[torch.Tensor, ...]:
    """The cost of closed loops, their states and torques."""
    states, torques, cost = [state], [], torch.zeros((), dtype=state.dtype)
    for _ in range(length):
        u = layer(state, torch.exp(log_weights))[0][:, 0]
        state = plant(state, u)
        cost = cost + (state[:, 0].square() + 0.1 * u.square()).mean() * DT
        states.append(state)
        torques.append(u)
    return cost, torch.stack(states, 1), torch.stack(torques, 1)


def main() -> None:
    """Tune, compare a derivative with differences, draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--length", type=int, default=20)
    arguments = parser.parse_args()
    layer = controller()
    starts = torch.tensor([[0.5, 0.0], [-0.3, -0.3]], dtype=torch.float64)
    weights = torch.tensor([0.0, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    cost, before, _ = run(layer, weights, starts, arguments.length)
    (grad,) = torch.autograd.grad(cost, weights)
    direction, h = torch.tensor([0.3, -0.8, 0.5], dtype=torch.float64), 1e-4
    with torch.no_grad():
        ends = [run(layer, weights + s * h * direction, starts, arguments.length)[0] for s in (1.0, -1.0)]
    difference = float(ends[0] - ends[1]) / (2.0 * h)
    print(f"gradient through the closed loop and differences: {float(grad @ direction):.6f}, {difference:.6f}")
    optimizer, history = torch.optim.Adam([weights], lr=0.25), []
    for _ in range(arguments.steps):
        optimizer.zero_grad()
        value, *_ = run(layer, weights, starts, arguments.length)
        value.backward()
        optimizer.step()
        history.append(float(value.detach()))
    with torch.no_grad():
        final, after, torques = run(layer, weights, starts, arguments.length)
    print(f"closed-loop cost from {history[0]:.3f} to {float(final):.3f}")
    print("weights " + ", ".join(f"{float(w):.2f}" for w in torch.exp(weights.detach())))
    report = cvxift.diagnose(layer, starts[0], torch.exp(weights.detach()))
    print(f"report: {report.verdict.value}")
    closed_loops(
        "pendulum_mpc", DT, before.detach(), after, torques, history, "angle from upright", f"torque, |u| ≤ {TORQUE}"
    )


if __name__ == "__main__":
    main()
