"""Meta-learning by implicit gradients: a start θ from which a sinusoid is learned from ten points.

Each task's network minimizes its loss + ½λ‖φ − θ‖²; the meta-gradient is λ(H + λI)⁻¹ times the gradient of the test
loss, by conjugate gradients, whatever found φ. The report of a task says that its φ is a strict minimum.

Source: Rajeswaran, Finn, Kakade & Levine 2019, Meta-learning with implicit gradients.
"""

from __future__ import annotations

import argparse

import torch
from figures import panels, save

from cvxift.implicit.options import CG
from cvxift.torch import implicit_argmin

PULL = 0.1  # λ
SHAPES = {"w0": (16, 1), "b0": (16,), "w1": (16, 16), "b1": (16,), "w2": (1, 16), "b2": (1,)}
Weights = dict[str, torch.Tensor]


def predict(phi: Weights, x: torch.Tensor) -> torch.Tensor:
    """A network with two hidden layers."""
    h = torch.tanh(x[:, None] @ phi["w0"].T + phi["b0"])
    h = torch.tanh(h @ phi["w1"].T + phi["b1"])
    return (h @ phi["w2"].T + phi["b2"])[:, 0]


def energy(phi: Weights, theta: Weights, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """What a task minimizes."""
    pull = torch.stack([(phi[k] - theta[k]).square().sum() for k in SHAPES]).sum()
    return (predict(phi, x) - y).square().mean() + 0.5 * PULL * pull


def adapt(theta: Weights, x: torch.Tensor, y: torch.Tensor) -> Weights:
    """The minimizer near θ, by L-BFGS."""
    phi = {k: v.detach().clone().requires_grad_() for k, v in theta.items()}
    optimizer = torch.optim.LBFGS(
        phi.values(), max_iter=150, max_eval=400, tolerance_grad=1e-6, tolerance_change=0.0, history_size=30,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = energy(phi, theta, x, y)
        loss.backward()
        return loss

    optimizer.step(closure)
    return {k: v.detach() for k, v in phi.items()}


def task(generator: torch.Generator, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of a sinusoid of random amplitude and phase."""
    amplitude, phase = torch.rand(2, generator=generator, dtype=torch.float64)
    x = 10.0 * torch.rand(count, generator=generator, dtype=torch.float64) - 5.0
    return x, (0.5 + 2.0 * amplitude) * torch.sin(x + 3.1 * phase)


def main() -> None:
    """Meta-learn, compare with a random start, draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--tasks", type=int, default=4, help="of each step")
    arguments = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    scale = {"w0": 0.7, "w1": 0.25, "w2": 0.25}
    start = {k: scale.get(k, 0.5) * torch.randn(s, generator=generator, dtype=torch.float64) for k, s in SHAPES.items()}
    theta = {k: v.clone().requires_grad_() for k, v in start.items()}
    solve = implicit_argmin(energy, adapt, linear_solver=CG(tolerance=1e-3, max_iterations=60), tolerance=1e-2)
    optimizer = torch.optim.Adam(theta.values(), lr=0.01)
    history = []
    for _ in range(arguments.steps):
        optimizer.zero_grad()
        total = 0.0
        for _ in range(arguments.tasks):
            x, y = task(generator, 20)
            loss = (predict(solve(theta, x[:10], y[:10]), x[10:]) - y[10:]).square().mean() / arguments.tasks
            loss.backward()
            total += float(loss.detach())
        optimizer.step()
        history.append(total)
    learned = {k: v.detach() for k, v in theta.items()}
    tests = [task(generator, 110) for _ in range(12)]
    errors = {
        name: sum(float((predict(adapt(own, x[:10], y[:10]), x[10:]) - y[10:]).square().mean()) for x, y in tests) / 12
        for name, own in (("random", start), ("learned", learned))
    }
    print(f"test loss after ten points: random start {errors['random']:.3f}, learned start {errors['learned']:.3f}")
    x, y = tests[0]
    report = solve.diagnose(learned, x[:10], y[:10])
    print(f"report: {report.verdict.value}")
    figure, axes = panels(2, width=4.4)
    axes[0].plot(history)
    axes[0].set(title="test loss while learning to learn", xlabel="step")
    line = torch.linspace(-5.0, 5.0, 200, dtype=torch.float64)
    order = x.argsort()
    axes[1].plot(x[order], y[order], color="#6b7280", lw=1, label="truth")
    axes[1].plot(x[:10], y[:10], "k.", label="ten points")
    for name, own in (("random start", start), ("learned start", learned)):
        axes[1].plot(line, predict(adapt(own, x[:10], y[:10]), line), label=name)
    axes[1].set(title="a fresh sinusoid")
    axes[1].legend(fontsize=8)
    save(figure, "maml")


if __name__ == "__main__":
    main()
