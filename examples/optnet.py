"""A quadratic program of which everything is learned: Q, q, A, b, G and h, from inputs and the decisions they led to.

A layer min ½‖L z‖² + (q + C x)'z  s.t.  A z = b, G z ≤ h  (Amos & Kolter 2017) imitates decisions of a program of that
kind which it does not know; b and h are kept feasible by a point z₀ with A z₀ = b, G z₀ + s = h, s > 0. The report says
that the theorem applies to the learned program.
"""

from __future__ import annotations

import argparse

import cvxpy as cp
import numpy as np
import torch
from figures import panels, save

import cvxift
from cvxift.torch import CvxpyLayer

SIZE, EQUATIONS, ROWS, INPUTS = 6, 2, 6, 4


def program() -> CvxpyLayer:
    """The quadratic program of all its data; Q = LᵀL."""
    z = cp.Variable(SIZE, name="z")
    L, q = cp.Parameter((SIZE, SIZE), name="L"), cp.Parameter(SIZE, name="q")
    A, b = cp.Parameter((EQUATIONS, SIZE), name="A"), cp.Parameter(EQUATIONS, name="b")
    G, h = cp.Parameter((ROWS, SIZE), name="G"), cp.Parameter(ROWS, name="h")
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(L @ z) + q @ z), [A @ z == b, G @ z <= h])
    return CvxpyLayer(problem, [L, q, A, b, G, h], [z])


class Decisions(torch.nn.Module):
    """Inputs to decisions by the layer."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)

        def learned(*shape: int, scale: float = 1.0) -> torch.nn.Parameter:
            return torch.nn.Parameter(torch.tensor(scale * rng.standard_normal(shape)))

        self.layer = program()
        self.L = torch.nn.Parameter(torch.eye(SIZE, dtype=torch.float64) + learned(SIZE, SIZE, scale=0.2).detach())
        self.q, self.C = learned(SIZE, scale=0.3), learned(SIZE, INPUTS)
        self.A, self.G = learned(EQUATIONS, SIZE), learned(ROWS, SIZE)
        self.interior, self.slack = learned(SIZE, scale=0.2), learned(ROWS, scale=0.3)

    def data(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """L, q, A, b, G, h; q with a batch dimension."""
        h = self.G @ self.interior + torch.nn.functional.softplus(self.slack)
        return self.L, self.q + x @ self.C.T, self.A, self.A @ self.interior, self.G, h

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Decisions, shape (count, SIZE)."""
        return self.layer(*self.data(x))[0]


def main() -> None:
    """Learn, compare a derivative in every parameter with differences, draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    truth, model = Decisions(1), Decisions(2)
    x = torch.tensor(np.random.default_rng(0).standard_normal((160, INPUTS)))
    with torch.no_grad():
        decisions = truth(x)
    train, test = slice(0, 60), slice(60, 160)

    def loss(part: slice) -> torch.Tensor:
        return (model(x[part]) - decisions[part]).square().mean()

    loss(train).backward()
    step, worst = 1e-5, 0.0
    rng = np.random.default_rng(3)
    for p in model.parameters():
        direction = torch.tensor(rng.standard_normal(p.shape))
        with torch.no_grad():
            values = []
            for sign in (1.0, -2.0):
                p += sign * step * direction
                values.append(float(loss(train)))
            p += step * direction
        exact = float((p.grad * direction).sum())  # type: ignore[operator]  # after backward
        worst = max(worst, abs((values[0] - values[1]) / (2.0 * step) - exact) / max(abs(exact), 1e-3))
    with torch.no_grad():
        history = [float(loss(test))]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(arguments.steps):
        optimizer.zero_grad()
        value = loss(train)
        value.backward()
        optimizer.step()
        history.append(float(value.detach()))
    with torch.no_grad():
        last, spread = float(loss(test)), float(decisions[test].var(0).mean())
    print(f"error of the decisions on fresh inputs from {history[0] / spread:.4f} to {last / spread:.4f} of variance")
    print(f"gradients against differences, in Q, q, A, b, G and h: {worst:.1e}")
    report = cvxift.diagnose(model.layer, *(t.detach() for t in model.data(x[0])))
    print(f"report: {report.verdict.value}")
    figure, axes = panels(2)
    axes[0].semilogy(np.array(history[1:]) / spread)
    axes[0].set(xlabel="step", ylabel="training error over variance")
    with torch.no_grad():
        found = model(x[test])
    axes[1].plot(decisions[test].ravel(), found.ravel(), ".", ms=3)
    axes[1].set(xlabel="decision", ylabel="learned program's")
    save(figure, "optnet")


if __name__ == "__main__":
    main()
