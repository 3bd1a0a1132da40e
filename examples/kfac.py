"""Kronecker-factored curvature as a linear solver of one's own: the penalty of a small network, tuned by its gradient.

The gradient of the validation loss in the penalty needs the inverse of the training loss's Hessian in all weights.
K-FAC (Martens & Grosse 2015) takes it for a Kronecker product in each layer, so that an inverse costs two small
eigenvalue decompositions. It serves alone, as an approximation whose residual is told, and as a preconditioner of
conjugate gradients, which are exact. The report says that the theorem applies at the trained weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from figures import panels, save
from scipy.optimize import minimize
from sklearn.datasets import load_diabetes

from cvxift.implicit.options import CG
from cvxift.torch import implicit_argmin

Tensor = torch.Tensor
Weights = tuple[Tensor, ...]  # a matrix each layer, biases in the last column


def forward(weights: Weights, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs of the layers, with ones, and their outputs before the nonlinearity."""
    inputs, outputs = [], []
    for k, W in enumerate(weights):
        inputs.append(torch.cat([torch.tanh(x) if k else x, torch.ones(len(x), 1, dtype=x.dtype)], 1))
        x = inputs[-1] @ W.T
        outputs.append(x)
    return inputs, outputs


def loss(weights: Weights, x: Tensor, y: Tensor) -> Tensor:
    """Half the mean squared error."""
    return 0.5 * (forward(weights, x)[1][-1][:, 0] - y).square().mean()


def energy(weights: Weights, penalty: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """What training minimizes; the penalty is a logarithm."""
    return loss(weights, x, y) + 0.5 * torch.exp(penalty) * sum(W.square().sum() for W in weights)


def trained(shapes: list[tuple[int, int]], x: Tensor, y: Tensor) -> Callable[[Tensor], Weights]:
    """The solver: BFGS from the same start, then Newton's method to rounding."""
    rng = np.random.default_rng(0)
    start = np.concatenate([rng.standard_normal(shape).ravel() / shape[1] ** 0.5 for shape in shapes])
    sizes = [int(np.prod(shape)) for shape in shapes]

    def weights(flat: Tensor) -> Weights:
        return tuple(part.reshape(shape) for part, shape in zip(flat.split(sizes), shapes))

    def solve(penalty: Tensor) -> Weights:
        def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
            point = torch.tensor(flat, requires_grad=True)
            with torch.enable_grad():
                out = energy(weights(point), penalty, x, y)
                (slope,) = torch.autograd.grad(out, point)
            return float(out.detach()), slope.numpy()

        w = torch.tensor(minimize(value, start, jac=True, method="BFGS", options={"gtol": 1e-6, "maxiter": 3000}).x)
        with torch.enable_grad():
            for _ in range(4):
                function = lambda w: energy(weights(w), penalty, x, y)  # noqa: E731  # of this penalty
                w = w - torch.linalg.solve(torch.func.hessian(function)(w), torch.func.grad(function)(w))
        return weights(w.detach())

    return solve


def kronecker(weights: Weights, penalty: Tensor, x: Tensor) -> Callable[[Weights], Weights]:
    """v ↦ (A ⊗ G + λ I)⁻¹ v for each layer: A = mean of a aᵀ, its inputs, G = mean of g gᵀ, g = ∂f/∂(W a)."""
    points = tuple(W.detach().requires_grad_() for W in weights)
    with torch.enable_grad():
        inputs, outputs = forward(points, x)
        slopes = torch.autograd.grad(outputs[-1].sum(), outputs)
    factors = []
    for a, g in zip(inputs, slopes):
        factors.append((*torch.linalg.eigh(a.detach().T @ a.detach() / len(x)), *torch.linalg.eigh(g.T @ g / len(x))))

    def inverse(v: Weights) -> Weights:
        out = []
        for V, (a, U, g, Q) in zip(v, factors):
            out.append(Q @ ((Q.T @ V @ U) / (g[:, None] * a + torch.exp(penalty.detach()))) @ U.T)
        return tuple(out)

    return inverse


def main() -> None:
    """The gradient four ways, then a descent with the preconditioned one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--steps", type=int, default=12)
    arguments = parser.parse_args()
    X, Y = (np.asarray(part) for part in load_diabetes(return_X_y=True))
    order = np.random.default_rng(0).permutation(len(Y))
    X, Y = torch.tensor(X[order] * len(X) ** 0.5), torch.tensor((Y[order] - Y.mean()) / Y.std())
    x, y, held_x, held_y = X[:250], Y[:250], X[250:], Y[250:]
    shapes = [(arguments.width, 11), (1, arguments.width + 1)]
    solver = trained(shapes, x, y)
    at = torch.tensor(-3.0, dtype=torch.float64)
    weights = solver(at)
    inverse = kronecker(weights, at, x)

    def once(penalty: Tensor) -> Weights:
        return tuple(W.clone() for W in (weights if bool(penalty == at) else solver(penalty)))

    ways = {
        "exact": "lu",
        "CG": CG(tolerance=1e-8),
        "CG preconditioned by K-FAC": CG(tolerance=1e-8, preconditioner=inverse),
        "K-FAC alone": lambda matvec, b: inverse(b),
        "identity": "identity",
    }
    found, spent = {}, {}
    for name, option in ways.items():
        solve = implicit_argmin(lambda w, p: energy(w, p, x, y), once, linear_solver=option, check="off")
        p = at.clone().requires_grad_()
        loss(solve(p), held_x, held_y).backward()
        assert solve.certificate is not None and p.grad is not None
        found[name], spent[name] = float(p.grad), solve.certificate.iterations
        print(f"{name}: gradient {found[name]:+.6f}, off by {abs(found[name] / found['exact'] - 1.0):.1e}, "
              f"products {spent[name]}, residual {solve.certificate.residual:.1e}")  # fmt: skip
    solve = implicit_argmin(lambda w, p: energy(w, p, x, y), once)
    print(f"report: {solve.diagnose(at).verdict.value}")
    p = at.clone().requires_grad_()
    optimizer = torch.optim.Adam([p], lr=0.3)
    history = []
    for _ in range(arguments.steps):
        optimizer.zero_grad()
        own = solver(p.detach())
        option = CG(tolerance=1e-8, preconditioner=kronecker(own, p, x))
        value = loss(
            implicit_argmin(lambda w, p: energy(w, p, x, y), lambda p, own=own: own, linear_solver=option)(p),
            held_x,
            held_y,
        )
        value.backward()
        optimizer.step()
        history.append(float(value.detach()))
    print(f"validation loss from {history[0]:.4f} to {history[-1]:.4f}, penalty exp({float(p.detach()):.2f})")
    figure, axes = panels(2)
    axes[0].bar(["CG", "CG + K-FAC"], [spent["CG"], spent["CG preconditioned by K-FAC"]], color=["#6b7280", "#1d4ed8"])
    axes[0].set(ylabel="products with the Hessian")
    axes[1].plot(history, marker="o", ms=4)
    axes[1].set(xlabel="step", ylabel="validation loss")
    save(figure, "kfac")


if __name__ == "__main__":
    main()
