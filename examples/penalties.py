"""Ridge and LASSO penalties of a medical data set by implicit gradients of the validation loss, against grid search.

A dozen gradient steps find what a grid finds for one penalty, and one penalty for each of hundreds of features, where
no grid can go; there the inverse Hessian is a Neumann series. The reports say that each fit is isolated and smooth.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from figures import panels, save
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Lasso, Ridge
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from cvxift.implicit.options import Neumann
from cvxift.torch import implicit_argmin, implicit_fixed_point


def data(degree: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Standardized polynomials of the ten measurements, and the disease's progression, in thirds."""
    X, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    X = StandardScaler().fit_transform(PolynomialFeatures(degree, include_bias=False).fit_transform(X[order]))
    y = (y[order] - y.mean()) / y.std()
    parts = np.array_split(np.arange(len(y)), 3)
    return [torch.tensor(X[part]) for part in parts], [torch.tensor(y[part]) for part in parts]


def descend(loss: object, start: torch.Tensor, steps: int, lr: float) -> tuple[torch.Tensor, list[float]]:
    """Adam on the logarithms of penalties."""
    assert callable(loss)
    p = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([p], lr=lr)
    history = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(p)
        value.backward()
        optimizer.step()
        history.append(float(value.detach()))
    return p.detach(), history


def main() -> None:
    """One penalty against the grid, then one for each feature."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--degree", type=int, default=3, help="of the polynomials with a penalty each")
    arguments = parser.parse_args()
    figure, axes = panels(3)
    (A, V, _), (b, v, _) = data(1)
    m = len(b)

    def validation(x: torch.Tensor) -> torch.Tensor:
        return (V @ x - v).square().mean()

    def ridge(p: torch.Tensor) -> torch.Tensor:
        model = Ridge(alpha=float(torch.exp(p)) * m, fit_intercept=False, solver="cholesky")
        return torch.tensor(model.fit(A.numpy(), b.numpy()).coef_)

    def lasso(p: torch.Tensor) -> torch.Tensor:
        model = Lasso(alpha=float(torch.exp(p)), fit_intercept=False, tol=1e-12, max_iter=200000)
        return torch.tensor(model.fit(A.numpy(), b.numpy()).coef_)

    step = 1.0 / float(torch.linalg.matrix_norm(A, 2) ** 2 / m)

    def prox(x: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        """A step of proximal gradient descent: its fixed points are the LASSO's solutions."""
        moved = x - step * A.T @ (A @ x - b) / m
        return torch.sign(moved) * torch.relu(moved.abs() - step * torch.exp(p))

    def objective(x: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        return 0.5 * (A @ x - b).square().mean() + 0.5 * torch.exp(p) * x.square().sum()

    solvers = {"ridge": implicit_argmin(objective, ridge), "LASSO": implicit_fixed_point(prox, lasso, tolerance=1e-4)}
    grid = torch.linspace(-7.0, 1.0, 33, dtype=torch.float64)
    for name, solve in solvers.items():
        with torch.no_grad():
            curve = [float(validation(solve(p))) for p in grid]
        start = torch.tensor(-5.0, dtype=torch.float64)
        p, history = descend(lambda p, solve=solve: validation(solve(p)), start, arguments.steps, 0.15)
        found = float(validation(solve(p)))
        print(f"{name}: grid {min(curve):.4f} with {len(grid)} fits, implicit gradient {found:.4f}")
        print(f"report of {name}: {solve.diagnose(p).verdict.value}")
        (line,) = axes[0].plot(grid, curve, label=name)
        axes[0].plot(float(p), found, "o", color=line.get_color())
    axes[0].set(title="validation loss: grid, and where gradients end", xlabel="log penalty")
    axes[0].legend(fontsize=8)

    (A, V, T), (b, v, t) = data(arguments.degree)
    n, m = A.shape[1], len(b)
    # A floor under the penalties bounds the condition, so that the series converges at a known rate.
    floor, largest = 0.05, float(torch.linalg.matrix_norm(A, 2) ** 2 / m)

    def own(p: torch.Tensor) -> torch.Tensor:
        return floor + torch.exp(p)

    def fit(p: torch.Tensor) -> torch.Tensor:
        return torch.linalg.solve(A.T @ A / m + torch.diag(own(p)), A.T @ b / m)

    series = Neumann(terms=200, scale=1.0 / (largest + floor + 5.0))
    each = implicit_argmin(
        lambda x, p: 0.5 * (A @ x - b).square().mean() + 0.5 * own(p) @ x.square(), fit, linear_solver=series
    )
    exact = implicit_argmin(each.settings.function, fit, linear_solver="cholesky")
    ones = torch.ones(n, dtype=torch.float64)
    common = min(np.linspace(-6.0, 3.0, 30), key=lambda p: float((V @ fit(p * ones) - v).square().mean()))
    grads = []
    for solve in (each, exact):
        p = (common * ones).requires_grad_()
        grads.append(torch.autograd.grad((V @ solve(p) - v).square().mean(), p)[0])
    print(f"Neumann series against the exact gradient: {float((grads[0] - grads[1]).norm() / grads[1].norm()):.1e}")
    p, history = descend(lambda p: (V @ each(p) - v).square().mean(), common * ones, arguments.steps, 0.1)
    losses = {name: float((T @ fit(q) - t).square().mean()) for name, q in (("common", common * ones), ("own", p))}
    print(f"validation loss of {n} penalties from {history[0]:.4f} to {history[-1]:.4f}")
    print(f"test loss: common penalty {losses['common']:.4f}, own penalties {losses['own']:.4f}")
    print(f"report of {n} penalties: {exact.diagnose(p).verdict.value}")
    axes[1].plot(history)
    axes[1].set(title=f"validation loss, {n} penalties", xlabel="step")
    axes[2].plot(np.sort(p.numpy()))
    axes[2].axhline(common, color="#6b7280", linestyle="--", label="common penalty")
    axes[2].set(title="log penalties, sorted", xlabel="feature")
    axes[2].legend(fontsize=8)
    save(figure, "penalties")


if __name__ == "__main__":
    main()
