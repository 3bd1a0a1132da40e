"""Structured prediction: the output minimizes a learned energy, x(w) = argmin E(x, y; w), here a cleaned signal.

dL/dw = −(∂²E/∂x∂w)ᵀ (∂²E/∂x²)⁻¹ ∂L/∂x: one linear system an update, whatever iterations found x. The weights are
filters and how strongly each is smoothed. The report says that the outputs are strict minima.
"""

from __future__ import annotations

import argparse

import torch
from figures import panels, save

from cvxift.torch import implicit_argmin


def signals(count: int, n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Piecewise linear signals with jumps, clean and with noise."""
    generator = torch.Generator().manual_seed(seed)
    slopes = torch.zeros(count, n, dtype=torch.float64)
    jumps = torch.zeros(count, n, dtype=torch.float64)
    for row in range(count):
        places = torch.randint(0, n, (3,), generator=generator)
        jumps[row, places] = 2.0 * torch.randn(3, generator=generator, dtype=torch.float64)
        bends = torch.randint(0, n, (2,), generator=generator)
        slopes[row, bends] = 0.1 * torch.randn(2, generator=generator, dtype=torch.float64)
    clean = (jumps + slopes.cumsum(1)).cumsum(1)
    return clean, clean + 0.4 * torch.randn(count, n, generator=generator, dtype=torch.float64)


def responses(x: torch.Tensor, w: dict[str, torch.Tensor]) -> torch.Tensor:
    """Of every filter: shape (count, filters, n)."""
    return torch.nn.functional.conv1d(x[:, None], w["filters"][:, None])


def energy(x: torch.Tensor, y: torch.Tensor, w: dict[str, torch.Tensor]) -> torch.Tensor:
    """½‖x − y‖² + Σ_k e^{w_k} Σ √(r_k² + 0.01), r_k the response of filter k."""
    smooth = torch.sqrt(responses(x, w).square() + 0.01).sum(2)
    return 0.5 * (x - y).square().sum() + (torch.exp(w["strength"]) * smooth).sum()


def minimize(y: torch.Tensor, w: dict[str, torch.Tensor]) -> torch.Tensor:
    """Newton's method, all signals at once."""
    x = y.clone()
    hessian = torch.func.vmap(torch.func.hessian(lambda x, y: energy(x[None], y[None], w)))
    slope = torch.func.vmap(torch.func.grad(lambda x, y: energy(x[None], y[None], w)))
    value = torch.func.vmap(lambda x, y: energy(x[None], y[None], w))
    for _ in range(40):
        g = slope(x, y)
        if float(g.abs().max()) < 1e-11:
            break
        step = torch.linalg.solve(hessian(x, y), g)
        size = torch.ones(len(x), 1, dtype=x.dtype)
        for _ in range(30):
            worse = value(x - size * step, y) > value(x, y) - 1e-4 * size[:, 0] * (g * step).sum(1) + 1e-12
            if not bool(worse.any()):
                break
            size = torch.where(worse[:, None], 0.5 * size, size)
        x = x - size * step
    return x


def main() -> None:
    """Learn, compare a gradient with differences, draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--length", type=int, default=48)
    arguments = parser.parse_args()
    clean, noisy = signals(8, arguments.length, 0)
    fresh, fresh_noisy = signals(8, arguments.length, 1)
    generator = torch.Generator().manual_seed(2)
    w = {"filters": (0.3 * torch.randn(3, 3, generator=generator, dtype=torch.float64)).requires_grad_(),
         "strength": torch.full((3,), -1.0, dtype=torch.float64, requires_grad=True)}  # fmt: skip
    solve = implicit_argmin(energy, minimize, linear_solver="cg")

    def error(y: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (solve(y, w) - target).square().mean()

    error(noisy, clean).backward()
    filters, h = w["filters"], 1e-5
    with torch.no_grad():
        direction = torch.randn(3, 3, generator=generator, dtype=torch.float64)
        ends = []
        for sign in (1.0, -1.0):
            moved = {**w, "filters": filters + sign * h * direction}
            ends.append(float((minimize(noisy, moved) - clean).square().mean()))
    slope = float((filters.grad * direction).sum())
    print(f"dL/dw against differences: {abs((ends[0] - ends[1]) / (2 * h) / slope - 1.0):.1e}")
    optimizer = torch.optim.Adam(w.values(), lr=0.05)
    history = []
    for _ in range(arguments.steps):
        optimizer.zero_grad()
        loss = error(noisy, clean)
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
    with torch.no_grad():
        cleaned = solve(fresh_noisy, w)
    before, after = (float((x - fresh).square().mean()) for x in (fresh_noisy, cleaned))
    print(f"training error from {history[0]:.4f} to {history[-1]:.4f}")
    print(f"fresh signals: noise {before:.4f}, cleaned {after:.4f}")
    report = solve.diagnose(noisy, {name: value.detach() for name, value in w.items()})
    print(f"report: {report.verdict.value}, least curvature {report.checks[-2].value:.1e} of the largest")
    figure, axes = panels(3)
    axes[0].plot(history)
    axes[0].set(title="training error", xlabel="step")
    axes[1].plot(fresh_noisy[0], ".", color="#9ca3af", ms=4, label="noisy")
    axes[1].plot(fresh[0], color="#6b7280", lw=1, label="clean")
    axes[1].plot(cleaned[0], label="argmin of the energy")
    low, high = axes[1].get_ylim()
    axes[1].set(title="a fresh signal", xlabel="position", ylim=(low, high + 0.35 * (high - low)))
    axes[1].legend(fontsize=8, loc="upper left")
    for k in range(3):
        axes[2].plot(
            w["filters"].detach()[k], "o-", label=f"strength {float(torch.exp(w['strength'].detach()[k])):.2f}"
        )
    axes[2].set(title="learned filters", xlabel="tap", xticks=[0, 1, 2])
    axes[2].legend(fontsize=8)
    save(figure, "structured_energy")


if __name__ == "__main__":
    main()
