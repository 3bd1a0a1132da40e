"""Gradient descent on a ridge objective: the gradient of its result, unrolled and by the implicit function theorem.

Reverse-mode differentiation of K steps keeps K iterates; the theorem needs the last one. Both derivatives are compared
with the exact one. The report says how far the last iterate is from a solution: the derivative is as wrong as that.
"""

from __future__ import annotations

import argparse
import time

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

from cvxift.torch import implicit_argmin


class Kept:
    """Counts the bytes that autograd keeps for the backward pass."""

    def __init__(self) -> None:
        self.storages: dict[int, int] = {}

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        """Called with every tensor that is kept."""
        storage = tensor.untyped_storage()
        self.storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    @property
    def megabytes(self) -> float:
        """What is kept, each storage once."""
        return sum(self.storages.values()) / 1e6


def problem(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Data of 2n rows with a condition number of about 30 in the curvature."""
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(2 * n, n, generator=generator, dtype=torch.float64) / (2 * n) ** 0.5
    return A, torch.randn(2 * n, generator=generator, dtype=torch.float64)


def energy(x: torch.Tensor, penalty: torch.Tensor, A: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """½‖Ax − b‖² + ½ e^penalty ‖x‖²."""
    return 0.5 * (A @ x - b).square().sum() + 0.5 * torch.exp(penalty) * x.square().sum()


def descend(penalty: torch.Tensor, A: torch.Tensor, b: torch.Tensor, steps: int) -> torch.Tensor:
    """Gradient descent from zero with a step of 0.3, below 1/‖H‖."""
    x = torch.zeros(A.shape[1], dtype=A.dtype)
    for _ in range(steps):
        x = x - 0.3 * (A.T @ (A @ x - b) + torch.exp(penalty) * x)
    return x


def measured(run: object, penalty: torch.Tensor) -> tuple[float, float, float]:
    """Gradient of ½‖x‖² in the penalty, megabytes kept, seconds."""
    assert callable(run)
    kept = Kept()
    start = time.perf_counter()
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
        value = 0.5 * run(penalty).square().sum()
    (grad,) = torch.autograd.grad(value, penalty)
    return float(grad), kept.megabytes, time.perf_counter() - start


def main() -> None:
    """Sweep the number of steps, print, draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=3000, help="largest number of steps")
    parser.add_argument("--n", type=int, default=100, help="number of variables")
    arguments = parser.parse_args()
    A, b = problem(arguments.n)
    penalty = torch.tensor(-2.0, dtype=torch.float64, requires_grad=True)
    H = A.T @ A + torch.exp(penalty.detach()) * torch.eye(arguments.n, dtype=A.dtype)
    x = torch.linalg.solve(H, A.T @ b)
    exact = -float(torch.exp(penalty.detach()) * x @ torch.linalg.solve(H, x))
    counts = [count for count in (10, 30, 100, 300, 1000, 3000, 10000) if count <= arguments.steps]
    rows: dict[str, list[tuple[float, float, float]]] = {"unrolled": [], "implicit": []}
    for count in counts:
        solve = implicit_argmin(
            lambda x, p: energy(x, p, A, b), lambda p, count=count: descend(p, A, b, count), check="off"
        )
        for name, run in (("unrolled", lambda p, count=count: descend(p, A, b, count)), ("implicit", solve)):
            grad, memory, seconds = measured(run, penalty)
            rows[name].append((abs(grad / exact - 1.0), memory, seconds))
            print(f"{name} {count} steps: error {rows[name][-1][0]:.1e}, kept {memory:.4f} MB, {seconds:.3f} s")
    report = solve.diagnose(penalty)
    print(f"report: {report.verdict.value}")
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6))
    for axis, place, label in zip(axes, (1, 2, 0), ("kept for the backward pass, MB", "seconds", "relative error")):
        for name, marker in (("unrolled", "o"), ("implicit", "s")):
            axis.loglog(counts, [max(row[place], 1e-16) for row in rows[name]], marker=marker, label=name)
        axis.set(xlabel="steps of the solver", ylabel=label)
    axes[0].legend()
    figure.tight_layout()
    figure.savefig("unrolled_or_implicit.png", dpi=150)


if __name__ == "__main__":
    main()
