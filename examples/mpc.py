"""Model-predictive control tuned on its closed loop: the weights of a convex controller learned through its plans.

The controller plans with a linear model under bounds; the plant has drag that the model lacks. The gradient of the cost
of the whole run goes through every plan. The report says that the theorem applies to the plan at the start.
"""

from __future__ import annotations

import argparse

import cvxpy as cp
import numpy as np
import torch
from figures import closed_loops

import cvxift
from cvxift.torch import CvxpyLayer

DT, HORIZON, BOUND = 0.25, 8, 1.0
A = np.array([[1.0, DT], [0.0, 1.0]])
B = np.array([0.5 * DT**2, DT])


def controller() -> CvxpyLayer:
    """The plan from a state: weights on position, speed, and the position at the end."""
    state, weights = cp.Parameter(2, name="state"), cp.Parameter(3, nonneg=True, name="weights")
    x, u = cp.Variable((HORIZON + 1, 2), name="x"), cp.Variable(HORIZON, name="u")
    cost = cp.sum_squares(u) + weights[0] * cp.sum_squares(x[1:, 0]) + weights[1] * cp.sum_squares(x[1:, 1])
    cost += weights[2] * cp.square(x[HORIZON, 0])
    dynamics = [x[k + 1] == A @ x[k] + B * u[k] for k in range(HORIZON)]
    problem = cp.Problem(cp.Minimize(cost), [x[0] == state, cp.abs(u) <= BOUND, *dynamics])
    return CvxpyLayer(problem, [state, weights], [u])


def plant(state: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """The true motion, with quadratic drag; a batch of states."""
    position, speed = state.unbind(1)
    force = u - 0.6 * speed * speed.abs()
    return torch.stack([position + DT * speed + 0.5 * DT**2 * force, speed + DT * force], 1)


def run(layer: CvxpyLayer, log_weights: torch.Tensor, state: torch.Tensor, length: int) -> tuple[torch.Tensor, ...]:
    """The cost of closed loops, their states and inputs."""
    states, inputs, cost = [state], [], torch.zeros((), dtype=state.dtype)
    for _ in range(length):
        u = layer(state, torch.exp(log_weights))[0][:, 0]
        state = plant(state, u)
        cost = cost + (4.0 * state[:, 0].square() + 0.05 * u.square()).mean() * DT
        states.append(state)
        inputs.append(u)
    return cost, torch.stack(states, 1), torch.stack(inputs, 1)


def main() -> None:
    """Tune, compare a derivative with differences, draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--length", type=int, default=16)
    arguments = parser.parse_args()
    layer = controller()
    starts = torch.tensor([[2.0, 0.0], [-1.5, 1.0], [1.0, -1.5]], dtype=torch.float64)
    weights = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    cost, before, _ = run(layer, weights, starts, arguments.length)
    (grad,) = torch.autograd.grad(cost, weights)
    direction, h = torch.tensor([0.3, -0.8, 0.5], dtype=torch.float64), 1e-5
    with torch.no_grad():
        ends = [run(layer, weights + s * h * direction, starts, arguments.length)[0] for s in (1.0, -1.0)]
    difference = float(ends[0] - ends[1]) / (2.0 * h)
    print(
        f"gradient through the closed loop against differences: {abs(difference / float(grad @ direction) - 1.0):.1e}"
    )
    optimizer = torch.optim.Adam([weights], lr=0.25)
    history = []
    for _ in range(arguments.steps):
        optimizer.zero_grad()
        value, *_ = run(layer, weights, starts, arguments.length)
        value.backward()
        optimizer.step()
        history.append(float(value.detach()))
    with torch.no_grad():
        _, after, inputs = run(layer, weights, starts, arguments.length)
    print(f"closed-loop cost from {history[0]:.3f} to {history[-1]:.3f}")
    print("weights " + ", ".join(f"{float(w):.2f}" for w in torch.exp(weights.detach())))
    report = cvxift.diagnose(layer, starts[0], torch.exp(weights.detach()))
    print(f"report: {report.verdict.value}")
    closed_loops("mpc", DT, before.detach(), after, inputs, history, "position", "input, |u| ≤ 1")


if __name__ == "__main__":
    main()
