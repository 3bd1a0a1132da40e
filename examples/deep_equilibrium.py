"""A deep equilibrium model: the hidden layer is the fixed point z = tanh(W z + U x + b), of infinite depth.

F closes over the module; its parameters get their gradients as if they were arguments, at the memory of one step. The
report says that the fixed point is isolated, and how far it is from losing that.
"""

from __future__ import annotations

import argparse

import torch
from figures import panels, save

from cvxift.torch import implicit_fixed_point


class Equilibrium(torch.nn.Module):
    """A classifier of points in the plane."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(width, width)
        self.outer = torch.nn.Linear(2, width, bias=False)
        self.read = torch.nn.Linear(width, 1)
        self.solve = implicit_fixed_point(self.step, self.iterate, linear_solver="gmres")

    def step(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The layer; W is scaled to norm 0.9, so that the fixed point exists."""
        weight = self.inner.weight
        weight = 0.9 * weight / torch.linalg.matrix_norm(weight).clamp(min=0.9)
        return torch.tanh(z @ weight.T + self.inner.bias + self.outer(x))

    def iterate(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer until it changes nothing."""
        z = torch.zeros(len(x), self.inner.in_features, dtype=x.dtype)
        for _ in range(500):
            following = self.step(z, x)
            if bool((following - z).abs().max() < 1e-12):
                break
            z = following
        return following

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.read(self.solve(x))[:, 0]


def spirals(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two spirals, and which each point is of."""
    generator = torch.Generator().manual_seed(0)
    radius = torch.linspace(0.2, 1.0, count)
    angle = 5.0 * radius
    arms = [torch.stack([sign * radius * torch.cos(angle), sign * radius * torch.sin(angle)], 1) for sign in (1, -1)]
    x = torch.cat(arms) + 0.03 * torch.randn(2 * count, 2, generator=generator)
    return 3.0 * x.double(), torch.cat([torch.ones(count), torch.zeros(count)]).double()


def main() -> None:
    """Compare the gradient with unrolling, train, draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--points", type=int, default=60, help="on each spiral")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = Equilibrium(arguments.width).double()
    x, label = spirals(arguments.points)
    loss_of = torch.nn.functional.binary_cross_entropy_with_logits
    parameters = [*model.inner.parameters(), *model.outer.parameters()]
    implicit = torch.autograd.grad(loss_of(model(x), label), parameters)
    unrolled = torch.autograd.grad(loss_of(model.read(model.iterate(x))[:, 0], label), parameters)
    error = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(implicit, unrolled))
    print(f"gradient against unrolling: {error:.1e}")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    history = []
    for _ in range(arguments.steps):
        optimizer.zero_grad()
        loss = loss_of(model(x), label)
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
    with torch.no_grad():
        accuracy = float(((model(x) > 0) == (label > 0.5)).double().mean())
    report = model.solve.diagnose(x[:1])
    print(f"loss from {history[0]:.3f} to {history[-1]:.3f}, points classified right {accuracy:.3f}")
    print(f"report: {report.verdict.value}, smallest singular value {report.singular_values[1]:.2f}")
    figure, axes = panels(2, width=4.2)
    axes[0].semilogy(history)
    axes[0].set(title="loss", xlabel="step")
    line = torch.linspace(-3.6, 3.6, 80, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).reshape(-1, 2)
    with torch.no_grad():
        shade = torch.sigmoid(model.read(model.iterate(grid))[:, 0]).reshape(80, 80)
    axes[1].contourf(line, line, shade, levels=20, cmap="RdBu", alpha=0.7)
    for value, color in ((0.0, "#991b1b"), (1.0, "#1e3a8a")):
        axes[1].plot(*x[label == value].T, ".", color=color, ms=5)
    axes[1].set(title="what the model says", aspect="equal")
    save(figure, "deep_equilibrium")


if __name__ == "__main__":
    main()
