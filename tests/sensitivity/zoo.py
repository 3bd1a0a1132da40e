"""Problems over every cone, smooth at the given parameters, each with the outputs to differentiate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cvxpy as cp
import numpy as np


@dataclass
class Case:
    """A problem, the outputs to differentiate, and whether it is a geometric program."""

    problem: cp.Problem
    outputs: list[Any]
    gp: bool = False
    parameters: list[cp.Parameter] = field(init=False)

    def __post_init__(self) -> None:
        self.parameters = self.problem.parameters()


CASES: dict[str, Callable[[np.random.Generator], Case]] = {}


def case(function: Callable[[np.random.Generator], Case]) -> Callable[[np.random.Generator], Case]:
    """Register a maker of cases under its name."""
    CASES[function.__name__] = function
    return function


def parameter(value: Any, **attributes: Any) -> cp.Parameter:
    """A parameter that holds a value."""
    value = np.asarray(value, dtype=float)
    return cp.Parameter(value.shape, value=value, **attributes)


@case
def qp(rng):
    n = 6
    x = cp.Variable(n, name="x")
    Q, q = parameter(rng.standard_normal((n, n)) + 2 * np.eye(n)), parameter(rng.standard_normal(n))
    G, h = parameter(rng.standard_normal((4, n))), parameter(rng.random(4))
    A, b = parameter(rng.standard_normal((2, n))), parameter(0.1 * rng.standard_normal(2))
    inequality, equality = G @ x <= h, A @ x == b
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(Q @ x) + q @ x), [inequality, equality])
    return Case(problem, [x, inequality.dual_variables[0], equality.dual_variables[0]])


@case
def parametric_quad_form(rng):
    n = 4
    x = cp.Variable(n)
    root = rng.standard_normal((n, n))
    P, q = parameter(root @ root.T + np.eye(n), PSD=True), parameter(rng.standard_normal(n))
    return Case(cp.Problem(cp.Minimize(cp.quad_form(x, P) + q @ x), [cp.sum(x) == 1, x >= -0.5]), [x])


@case
def maximize_entropy(rng):
    z, theta = cp.Variable(5), parameter(rng.standard_normal(5))
    simplex = cp.sum(z) == 1
    problem = cp.Problem(cp.Maximize(theta @ z + cp.sum(cp.entr(z))), [simplex, z >= 0])
    return Case(problem, [z, simplex.dual_variables[0]])


@case
def linear_program(rng):
    x = cp.Variable(3)
    c = parameter([1.0, 2.0, 0.5])
    A, b = parameter(rng.random((5, 3)) + 0.2), parameter(1.0 + rng.random(5))
    return Case(cp.Problem(cp.Maximize(c @ x), [A @ x <= b, x >= 0]), [x])


@case
def second_order_cone(rng):
    x, theta = cp.Variable(4), parameter(3.0 * rng.standard_normal(4))
    r = parameter(1.0, nonneg=True)
    ball = cp.SOC(r, x)
    return Case(cp.Problem(cp.Minimize(cp.sum_squares(x - theta)), [ball]), [x, *ball.dual_variables])


@case
def slack_norm_constraint(rng):
    x, theta = cp.Variable(4), parameter(0.1 * rng.standard_normal(4))
    constraints = [cp.norm(x) <= 5, cp.norm1(x) <= 20, cp.max(x) <= 3, cp.quad_over_lin(x, 2.0) <= 9]
    return Case(cp.Problem(cp.Minimize(cp.sum_squares(x - theta) + cp.sum(x)), constraints), [x])


@case
def group_norms(rng):
    X, theta = cp.Variable((3, 4)), parameter(2.0 * rng.standard_normal((3, 4)))
    weight = parameter(0.4, nonneg=True)
    return Case(cp.Problem(cp.Minimize(cp.sum_squares(X - theta) + weight * cp.sum(cp.norm(X, axis=1)))), [X])


@case
def nearest_psd(rng):
    n = 3
    X = cp.Variable((n, n), PSD=True)
    theta = parameter(rng.standard_normal((n, n)))
    return Case(cp.Problem(cp.Minimize(cp.sum_squares(X - theta))), [X])


@case
def semidefinite_dual(rng):
    n = 3
    X = cp.Variable((n, n), symmetric=True)
    C = parameter(rng.standard_normal((n, n)))
    cone = X >> 0
    return Case(
        cp.Problem(cp.Minimize(cp.trace(C @ X) + cp.sum_squares(X)), [cone, cp.trace(X) == 1]),
        [X, cone.dual_variables[0]],
    )


@case
def log_det(rng):
    n = 3
    X = cp.Variable((n, n), symmetric=True)
    root = rng.standard_normal((n, n))
    S = parameter(root @ root.T + np.eye(n), symmetric=True)
    return Case(cp.Problem(cp.Maximize(cp.log_det(X) - cp.trace(S @ X))), [X])


@case
def logistic(rng):
    w, X, y = cp.Variable(3), parameter(rng.standard_normal((8, 3))), np.sign(rng.standard_normal(8))
    ridge = parameter(0.3, nonneg=True)
    loss = cp.sum(cp.logistic(cp.multiply(-y, X @ w))) + ridge * cp.sum_squares(w)
    return Case(cp.Problem(cp.Minimize(loss)), [w])


@case
def power_cone(rng):
    x, p = cp.Variable(3), parameter(0.5 + rng.random(3), nonneg=True)
    return Case(cp.Problem(cp.Minimize(cp.sum(cp.power(x, 1.7)) - p @ x), [cp.geo_mean(x) >= 0.1]), [x])


@case
def explicit_power_cone(rng):
    x, t = cp.Variable(3), parameter([1.0, 0.7, 0.2])
    cone = cp.PowCone3D(x[0], x[1], x[2], 0.3)
    return Case(cp.Problem(cp.Minimize(cp.sum_squares(x - t) - 2 * x[2]), [cone]), [x, *cone.dual_variables])


@case
def total_variation(rng):
    x, theta, weight = (
        cp.Variable(12),
        parameter(np.repeat([0.0, 2.0, 1.0], 4) + 0.1 * rng.standard_normal(12)),
        parameter(0.3, nonneg=True),
    )
    return Case(cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - theta) + weight * cp.tv(x))), [x])


@case
def lasso(rng):
    x, A, b = cp.Variable(5), parameter(rng.standard_normal((9, 5))), parameter(rng.standard_normal(9))
    weight = parameter(0.8, nonneg=True)
    return Case(cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b) + weight * cp.norm1(x))), [x])


@case
def huber(rng):
    x, A, b = cp.Variable(3), parameter(rng.standard_normal((10, 3))), parameter(3.0 * rng.standard_normal(10))
    return Case(cp.Problem(cp.Minimize(cp.sum(cp.huber(A @ x - b, 1.0)))), [x])


@case
def bounds_and_attributes(rng):
    x, y = cp.Variable(4, bounds=[-1.0, 0.5]), cp.Variable(3, nonneg=True)
    D = cp.Variable((3, 3), diag=True)
    theta = parameter(rng.standard_normal(7))
    objective = (
        cp.sum_squares(x - theta[:4])
        + cp.sum_squares(y - theta[4:])
        + cp.sum_squares(D - cp.diag(theta[4:]))
        + cp.sum(x) * 0.1
    )
    return Case(cp.Problem(cp.Minimize(objective), [cp.sum(x) + cp.sum(y) == 1]), [x, y, D])


@case
def geometric_program(rng):
    x, y, z = cp.Variable(pos=True), cp.Variable(pos=True), cp.Variable(pos=True)
    a, b, c = parameter(2.0, pos=True), parameter(1.0, pos=True), parameter(0.5)
    constraints = [a * (x * y + x * z + y * z) <= b, x >= y**c]
    return Case(cp.Problem(cp.Minimize(1 / (x * y * z)), constraints), [x, y, z], gp=True)


@case
def no_constraints(rng):
    x, theta = cp.Variable((2, 2)), parameter(rng.standard_normal((2, 2)))
    return Case(cp.Problem(cp.Minimize(cp.sum_squares(x - theta) + cp.sum(x))), [x])


@case
def redundant_rows(rng):
    x, theta, b = cp.Variable(3), parameter(rng.standard_normal(3)), parameter(1.0)
    return Case(
        cp.Problem(cp.Minimize(cp.sum_squares(x - theta)), [cp.sum(x) == b, 2 * cp.sum(x) == 2 * b, 0 * x <= 1]), [x]
    )


@case
def sum_largest_and_eigenvalue(rng):
    x, theta = cp.Variable(4), parameter(2.0 * rng.standard_normal(4))
    M = [np.diag(rng.standard_normal(3)) + (lambda r: r + r.T)(rng.standard_normal((3, 3))) for _ in range(4)]
    spectral = cp.lambda_max(sum(x[i] * M[i] for i in range(4)))
    return Case(cp.Problem(cp.Minimize(cp.sum_squares(x - theta) + 0.5 * cp.sum_largest(x, 2) + 0.2 * spectral)), [x])
