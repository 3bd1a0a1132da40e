"""Batches of parametrized programs with curved cones, at regular points and at hard ones."""

from __future__ import annotations

from collections.abc import Callable

import cvxpy as cp
import numpy as np

from cvxift.kkt.solution_map import SolutionMap

Case = tuple[cp.Problem, list[cp.Parameter], list]  # the problem, its parameters, its outputs


def ball(n: int = 4) -> Case:
    """½‖Ax − b‖² over a ball and a half space, with the multipliers."""
    A, c = np.random.default_rng(0).standard_normal((6, n)), np.random.default_rng(1).standard_normal(n)
    x, b, r = cp.Variable(n), cp.Parameter(6), cp.Parameter(nonneg=True)
    constraints = [cp.SOC(r, x), c @ x <= 0.2]
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(A @ x - b)), constraints)
    return problem, [b, r], [x, constraints[1].dual_variables[0]]


def balls(n: int = 3) -> Case:
    """Second-order cones of unlike sizes, which are not in the order of their groups."""
    x, t, c = cp.Variable(n), cp.Parameter(n), cp.Parameter(4)
    D = np.random.default_rng(2).standard_normal((4, n))
    rows = [
        cp.SOC(1.0, x[:2] - 0.1 * t[:2]),
        cp.SOC(1.5 + 0.1 * c[3], D @ x + 0.1 * c),
        cp.SOC(0.8, x[1:] - 0.1 * c[:2]),
    ]
    return cp.Problem(cp.Minimize(cp.sum_squares(x - 2.0 * t) + c[:3] @ x), [*rows, x[0] >= -0.5]), [t, c], [x]


def matrix(order: int = 3) -> Case:
    """The nearest positive semidefinite matrix of unit diagonal, with its multipliers."""
    X, C = cp.Variable((order, order), symmetric=True), cp.Parameter((order, order))
    constraints = [X >> 0, cp.diag(X) == 1.0]
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(X - C)), constraints)
    return problem, [C], [X, constraints[1].dual_variables[0]]


def inequality(n: int = 3, order: int = 3) -> Case:
    """A linear matrix inequality F₀ + Σ xᵢ Fᵢ ≽ 0."""
    raw = np.random.default_rng(3).standard_normal((n, order, order))
    F = raw + np.swapaxes(raw, 1, 2)
    x, c, F0 = cp.Variable(n), cp.Parameter(n), cp.Parameter((order, order), symmetric=True)
    constraints = [F0 + sum(x[i] * F[i] for i in range(n)) >> 0]
    return cp.Problem(cp.Minimize(c @ x + 0.05 * cp.sum_squares(x)), constraints), [c, F0], [x]


def entropy(n: int = 4) -> Case:
    """Entropy over the simplex and a half space."""
    a, x = np.random.default_rng(4).standard_normal(n), cp.Variable(n)
    t, c = cp.Parameter(n), cp.Parameter()
    constraints = [cp.sum(x) == 1.0, a @ x <= c]
    problem = cp.Problem(cp.Maximize(t @ x + cp.sum(cp.entr(x))), constraints)
    return problem, [t, c], [x, constraints[0].dual_variables[0]]


def powers(n: int = 3) -> Case:
    """Power cones of unlike exponents."""
    x, y, t, u = cp.Variable(n), cp.Variable(n), cp.Parameter(n), cp.Parameter(n)
    alpha = np.linspace(0.3, 0.7, n)
    problem = cp.Problem(
        cp.Minimize(cp.sum_squares(x - t) + cp.sum_squares(y - u)), [cp.PowCone3D(x, np.full(n, 0.8), y, alpha)]
    )
    return problem, [t, u], [x, y]


def everything(n: int = 3) -> Case:
    """All kinds of cones in one program."""
    x, s, t = cp.Variable(n), cp.Variable(), cp.Parameter(n)
    M = cp.bmat([[1.0 + x[0], x[1]], [x[1], 1.0 - x[2]]])
    constraints = [
        cp.sum(x) == 0.1,
        x <= 0.9,
        cp.SOC(1.0, x - 0.1 * t),
        M >> 0,
        cp.PowCone3D(1.0 + x[0], 1.0 + x[1], x[2], 0.4),
        cp.ExpCone(x[0], 1.0, s),
    ]
    return cp.Problem(cp.Minimize(cp.sum_squares(x - t) + 0.3 * s), constraints), [t], [x]


CASES: dict[str, Callable[..., Case]] = {
    "ball": ball,
    "balls": balls,
    "matrix": matrix,
    "inequality": inequality,
    "entropy": entropy,
    "powers": powers,
    "everything": everything,
}
ON_DEVICE = ("ball", "balls", "matrix", "inequality")  # those without rows whose spectra the host computes


def curved(name: str, **options) -> SolutionMap:
    """The solution map of a case."""
    problem, parameters, outputs = CASES[name]()
    return SolutionMap(problem, parameters, outputs, **options)


def values(name: str, B: int, rng: np.random.Generator) -> np.ndarray:
    """θ of a batch at which the cones are at their curved boundaries, or slack, or tight, as they come."""
    if name == "ball":
        return np.concatenate([2.0 * rng.standard_normal((B, 6)), 0.2 + rng.random((B, 1))], axis=1)
    if name == "balls":
        return np.concatenate([1.5 * rng.standard_normal((B, 3)), 0.5 * rng.standard_normal((B, 4))], axis=1)
    if name == "matrix":
        return rng.standard_normal((B, 9))
    if name == "inequality":
        root = rng.standard_normal((B, 3, 3))
        F0 = root @ np.swapaxes(root, 1, 2) + np.eye(3)
        return np.concatenate([rng.standard_normal((B, 3)), F0.reshape(B, 9)], axis=1)
    if name == "entropy":
        return np.concatenate([rng.standard_normal((B, 4)), 0.1 + 0.3 * rng.random((B, 1))], axis=1)
    if name == "powers":
        return np.concatenate([rng.random((B, 3)), 2.0 + rng.standard_normal((B, 3))], axis=1)
    return 1.5 * rng.standard_normal((B, 3))
