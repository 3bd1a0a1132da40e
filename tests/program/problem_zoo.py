"""Problems that together use every cone, attribute and corner of the canonicalization, with parameter values."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

VERSION = tuple(int(part) for part in cp.__version__.split(".")[:3])
OLD = VERSION < (1, 9)
# What CVXPY 1.8 does not accept, or gets wrong itself.
NEEDS_1_9 = {
    "parametric_quadratic_form",
    "weighted_quadratic_forms",
    "parametric_concave_form",
    "parametric_bounds",
    "batch_of_semidefinite_variables",
    "single_power_cone_of_many_factors",
}


@dataclass
class Case:
    """A problem, a feasible value for each parameter, and whether it is a geometric program."""

    problem: cp.Problem
    values: dict[cp.Parameter, Any] = field(default_factory=dict)
    gp: bool = False

    def set(self) -> Case:
        for parameter, value in self.values.items():
            if parameter.attributes["sparsity"]:
                rows_cols = parameter.sparse_idx
                parameter.value_sparse = sp.coo_array((value[rows_cols], rows_cols), shape=parameter.shape)
            else:
                parameter.value = value
        return self


ZOO: dict[str, Callable[[np.random.Generator], Case]] = {}


def case(make):
    ZOO[make.__name__] = make
    return make


@case
def dense_qp(rng):
    n, m, p = 6, 5, 2
    Q, q, G, h, A, b = (cp.Parameter(s) for s in ((n, n), n, (m, n), m, (p, n), p))
    x = cp.Variable(n, name="x")
    x0, V, W = rng.normal(size=n), rng.normal(size=(m, n)), rng.normal(size=(p, n))
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(Q @ x) + q @ x + 3), [G @ x <= h, A @ x == b])
    return Case(
        problem, {Q: rng.normal(size=(n, n)), q: rng.normal(size=n), G: V, h: V @ x0 + rng.random(m), A: W, b: W @ x0}
    )


@case
def maximize(rng):
    c, x = cp.Parameter(4), cp.Variable(4)
    return Case(
        cp.Problem(cp.Maximize(c @ x - cp.sum_squares(x) + 1), [cp.sum(x) == 1, x >= 0]), {c: rng.normal(size=4)}
    )


@case
def maximize_entropy(rng):
    c, x = cp.Parameter(5), cp.Variable(5)
    return Case(cp.Problem(cp.Maximize(c @ x + cp.sum(cp.entr(x))), [cp.sum(x) == 1]), {c: rng.normal(size=5)})


@case
def linear_program(rng):
    c, x = cp.Parameter(3), cp.Variable(3)
    return Case(cp.Problem(cp.Minimize(c @ x), [cp.norm1(x) <= 1, cp.norm_inf(x) <= 0.7]), {c: rng.normal(size=3)})


@case
def no_constraints(rng):
    b, x = cp.Parameter(3), cp.Variable(3)
    return Case(cp.Problem(cp.Minimize(cp.sum_squares(x - b))), {b: rng.normal(size=3)})


@case
def no_parameters(rng):
    x = cp.Variable(3)
    return Case(cp.Problem(cp.Minimize(cp.sum_squares(x - rng.normal(size=3))), [x >= 0]))


@case
def constant_objective(rng):
    b, x = cp.Parameter(2), cp.Variable(2)
    return Case(cp.Problem(cp.Minimize(2), [x == b]), {b: rng.normal(size=2)})


@case
def parametric_constant_objective(rng):
    b, x = cp.Parameter(2), cp.Variable(2)
    return Case(cp.Problem(cp.Minimize(cp.sum(b)), [x == b]), {b: rng.normal(size=2)})


@case
def zero_and_duplicate_rows(rng):
    b, x = cp.Parameter(3), cp.Variable(3)
    A = np.vstack([np.ones(3), np.ones(3)])
    return Case(
        cp.Problem(
            cp.Minimize(cp.sum_squares(x - b)), [np.zeros((2, 3)) @ x <= 1, A @ x == np.ones(2), x[0] <= 5, x[0] <= 5]
        ),
        {b: rng.normal(size=3)},
    )


@case
def same_constraint_twice(rng):
    b, x = cp.Parameter(3), cp.Variable(3)
    constraint = x <= b
    return Case(cp.Problem(cp.Minimize(-cp.sum(x)), [constraint, constraint]), {b: rng.normal(size=3)})


@case
def constraint_without_variables(rng):
    b, x = cp.Parameter(2, nonneg=True), cp.Variable(2)
    return Case(cp.Problem(cp.Minimize(cp.sum_squares(x - 1)), [b >= -1, x <= b]), {b: rng.random(2)})


@case
def matrices_and_order(rng):
    B, C, X = cp.Parameter((2, 3)), cp.Parameter((3, 2)), cp.Variable((2, 3))
    y = cp.reshape(X, (3, 2), order="C") + cp.reshape(X, (3, 2), order="F")
    return Case(
        cp.Problem(
            cp.Minimize(cp.sum_squares(X - B) + cp.sum(cp.multiply(C, y))), [X.T >= C - 5, X[:, 1:] == B[:, :2] * 0.5]
        ),
        {B: rng.normal(size=(2, 3)), C: rng.normal(size=(3, 2))},
    )


@case
def scalar_everything(rng):
    a, x = cp.Parameter(), cp.Variable()
    return Case(cp.Problem(cp.Minimize(x**2 + a * x), [x >= 1]), {a: rng.normal()})


@case
def many_dimensions(rng):
    B, X = cp.Parameter((2, 3, 4)), cp.Variable((2, 3, 4))
    return Case(
        cp.Problem(cp.Minimize(cp.sum_squares(X - B)), [cp.sum(X, axis=1) <= 1, X >= -2]),
        {B: rng.normal(size=(2, 3, 4))},
    )


@case
def sparse_constants(rng):
    A = sp.random_array((8, 20), density=0.2, rng=rng, format="csc")
    b, x = cp.Parameter(8), cp.Variable(20)
    return Case(cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b) + cp.norm1(x))), {b: rng.normal(size=8)})


@case
def huber_abs_max(rng):
    A, b, x = cp.Parameter((6, 3)), cp.Parameter(6), cp.Variable(3)
    objective = cp.sum(cp.huber(A @ x - b, 0.5)) + cp.sum(cp.abs(x)) + cp.max(x) + cp.sum(cp.maximum(x, 0.3))
    return Case(cp.Problem(cp.Minimize(objective)), {A: rng.normal(size=(6, 3)), b: rng.normal(size=6)})


@case
def ridge_with_weight(rng):
    lam, b, x = cp.Parameter(nonneg=True), cp.Parameter(3), cp.Variable(3)
    return Case(
        cp.Problem(cp.Minimize(cp.sum_squares(x - b) + lam * cp.sum_squares(x))), {lam: 0.7, b: rng.normal(size=3)}
    )


@case
def second_order_cones(rng):
    A, b, c, x = cp.Parameter((3, 4)), cp.Parameter(3), cp.Parameter(4), cp.Variable(4)
    constraints = [cp.norm(A @ x + b) <= 4, cp.SOC(2 + x[0], x[1:]), cp.norm(x) <= 1]
    return Case(
        cp.Problem(cp.Minimize(c @ x), constraints),
        {A: rng.normal(size=(3, 4)), b: rng.normal(size=3), c: rng.normal(size=4)},
    )


@case
def packed_second_order_cones(rng):
    B, t, X, Y = cp.Parameter((3, 4)), cp.Variable(4), cp.Variable((3, 4)), cp.Variable((4, 2))
    constraints = [cp.SOC(t, X), cp.SOC(t + 1, Y, axis=1), X == B, Y[:, 0] >= 1, cp.SOC(t[0], t[1])]
    return Case(cp.Problem(cp.Minimize(cp.sum(t) + cp.sum(Y)), constraints), {B: rng.normal(size=(3, 4))})


@case
def quad_over_lin(rng):
    b, x, y = cp.Parameter(3), cp.Variable(3), cp.Variable()
    return Case(cp.Problem(cp.Minimize(cp.quad_over_lin(x - b, y) + y), [y <= 2, x >= 0]), {b: rng.normal(size=3)})


@case
def parametric_quadratic_form(rng):
    n = 4
    P, c, x = cp.Parameter((n, n), PSD=True), cp.Parameter(n), cp.Variable(n)
    L = rng.normal(size=(n, n))
    return Case(
        cp.Problem(cp.Minimize(cp.quad_form(x, P) + c @ x), [x <= 1, cp.sum(x) == 0]),
        {P: L @ L.T, c: rng.normal(size=n)},
    )


@case
def weighted_quadratic_forms(rng):
    n = 3
    P, w, x, y = cp.Parameter((n, n), PSD=True), cp.Parameter(nonneg=True), cp.Variable(n), cp.Variable((n, n))
    L, fixed = rng.normal(size=(2, n, n))
    objective = (
        cp.quad_form(y @ np.ones(n), P) + w * cp.quad_form(x, fixed @ fixed.T) + cp.quad_form(x, 2 * P + np.eye(n))
    )
    constraints = [x == y[:, 0], cp.sum(y) == 1]
    return Case(cp.Problem(cp.Minimize(objective + cp.sum_squares(y)), constraints), {P: L @ L.T, w: 0.3})


@case
def quadratic_form_of_parametric_argument(rng):
    p, x = cp.Parameter(3), cp.Variable(3)
    L = rng.normal(size=(3, 3))
    form = cp.quad_form(cp.multiply(p, x), L @ L.T, assume_PSD=True)
    return Case(cp.Problem(cp.Minimize(form + cp.sum(x)), [x >= -2]), {p: rng.normal(size=3)})


@case
def parametric_concave_form(rng):
    P, x = cp.Parameter((3, 3), NSD=True), cp.Variable(3)
    L = rng.normal(size=(3, 3))
    return Case(cp.Problem(cp.Maximize(2 * cp.quad_form(x - 1, P) + cp.sum(x)), [x <= 0.5]), {P: -L @ L.T})


@case
def semidefinite(rng):
    C, b, X = cp.Parameter((3, 3), symmetric=True), cp.Parameter(2), cp.Variable((3, 3), symmetric=True)
    S = rng.normal(size=(3, 3))
    return Case(
        cp.Problem(cp.Minimize(cp.trace(C @ X)), [X >> 0, cp.trace(X) == 1, X[0, :2] <= b, np.eye(3) >> X]),
        {C: S + S.T, b: rng.random(2)},
    )


@case
def semidefinite_attribute(rng):
    C, X, Y = cp.Parameter((3, 3)), cp.Variable((3, 3), PSD=True), cp.Variable((2, 2), NSD=True)
    return Case(
        cp.Problem(cp.Minimize(cp.sum_squares(X - C) + cp.sum_squares(Y - C[:2, 1:])), [X[0, 1] == 0.3]),
        {C: rng.normal(size=(3, 3))},
    )


@case
def unsymmetric_semidefinite_constraint(rng):
    C, X = cp.Parameter((3, 3)), cp.Variable((3, 3))
    return Case(
        cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [X + 0.1 * np.triu(np.ones((3, 3)), 1) >> 0]),
        {C: rng.normal(size=(3, 3))},
    )


@case
def attributes(rng):
    b, u, v = cp.Parameter(4), cp.Variable(4, nonneg=True), cp.Variable(4, nonpos=True)
    w, z = cp.Variable(4, bounds=[-0.2, np.array([0.1, np.inf, 0.3, np.inf])]), cp.Variable((2, 2), diag=True)
    objective = sum(cp.sum_squares(item - b) for item in (u, v, w)) + cp.sum_squares(
        z - cp.reshape(b, (2, 2), order="C")
    )
    return Case(cp.Problem(cp.Minimize(objective)), {b: rng.normal(size=4)})


@case
def attributes_together(rng):
    B, S = cp.Parameter((3, 3)), cp.Variable((3, 3), symmetric=True, bounds=[-0.5, np.ones((3, 3))])
    D, N = cp.Variable((3, 3), diag=True, nonneg=True), cp.Variable((2, 2), nonneg=True, PSD=True)
    objective = cp.sum_squares(S - B) + cp.sum_squares(D - B) + cp.sum_squares(N - B[:2, :2])
    return Case(cp.Problem(cp.Minimize(objective)), {B: rng.normal(size=(3, 3))})


@case
def batch_of_semidefinite_variables(rng):
    C, X, u = cp.Parameter((3, 2, 2)), cp.Variable((3, 2, 2), PSD=True), cp.Variable(2)
    return Case(cp.Problem(cp.Minimize(cp.sum_squares(X - C) + cp.sum_squares(u))), {C: rng.normal(size=(3, 2, 2))})


@case
def parametric_bounds(rng):
    low, high, c, x = cp.Parameter(3), cp.Parameter(), cp.Parameter(3), cp.Variable(3, bounds=[-1, 1])
    y = cp.Variable(3, bounds=[low, high])
    return Case(
        cp.Problem(cp.Minimize(cp.sum_squares(x - y) + c @ x + cp.sum(y))),
        {low: -rng.random(3), high: 0.8, c: rng.normal(size=3)},
    )


@case
def sparse_variable_and_parameter(rng):
    where = (np.array([0, 1, 2, 2]), np.array([1, 0, 0, 2]))
    B, X = cp.Parameter((3, 3), sparsity=where), cp.Variable((3, 3), sparsity=where)
    value = np.zeros((3, 3))
    value[where] = rng.normal(size=4)
    C = cp.Parameter((3, 3))
    return Case(
        cp.Problem(cp.Minimize(cp.sum_squares(X + B) + cp.sum(cp.multiply(C, X))), [X <= 1]),
        {B: value, C: rng.normal(size=(3, 3))},
    )


@case
def diagonal_parameter(rng):
    D, x = cp.Parameter((3, 3), diag=True), cp.Variable(3)
    return Case(cp.Problem(cp.Minimize(cp.sum_squares(D @ x - 1) + cp.sum(x))), {D: np.diag(rng.random(3) + 0.5)})


@case
def exponential_cones(rng):
    a, x = cp.Parameter(4), cp.Variable(4)
    constraints = [cp.log_sum_exp(x - a) <= 1, cp.sum(cp.exp(x)) <= 6, cp.sum(cp.log(x + 3)) >= 0.1]
    return Case(cp.Problem(cp.Minimize(cp.sum_squares(x - a) - cp.sum(x)), constraints), {a: rng.normal(size=4)})


@case
def relative_entropy(rng):
    q, x = cp.Parameter(4, nonneg=True), cp.Variable(4)
    return Case(
        cp.Problem(cp.Minimize(cp.sum(cp.kl_div(x, q))), [cp.sum(x) == 1, x[0] >= 0.4]), {q: rng.random(4) + 0.1}
    )


@case
def explicit_exponential_cone(rng):
    a = cp.Parameter((2, 2))
    x, y, z = cp.Variable((2, 2)), cp.Variable((2, 2)), cp.Variable((2, 2))
    return Case(
        cp.Problem(cp.Minimize(cp.sum(z) - cp.sum(cp.multiply(a, x))), [cp.ExpCone(x, y, z), y == 1, x <= 2]),
        {a: rng.random((2, 2)) + 0.5},
    )


@case
def power_cones(rng):
    a, x = cp.Parameter(3), cp.Variable((3,))
    y, z = cp.Variable(3), cp.Variable(3)
    return Case(
        cp.Problem(cp.Maximize(cp.sum(z) + a @ x), [cp.PowCone3D(x, y, z, [0.3, 0.5, 0.8]), x + y == 2]),
        {a: 0.3 * rng.normal(size=3)},
    )


@case
def power_cone_of_many_factors(rng):
    a, W, z = cp.Parameter(4), cp.Variable((4, 2)), cp.Variable(2)
    alpha = np.array([[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.4, 0.1]]).T
    constraints = [cp.PowConeND(W, z, alpha), cp.sum(W, axis=0) <= 3, W[:, 0] <= a]
    return Case(cp.Problem(cp.Maximize(cp.sum(z)), constraints), {a: rng.random(4) + 0.3})


@case
def power_cone_of_rows(rng):
    a, W, z = cp.Parameter(2), cp.Variable((2, 3)), cp.Variable(2)
    alpha = np.array([[0.2, 0.3, 0.5], [0.25, 0.35, 0.4]])
    return Case(
        cp.Problem(cp.Maximize(cp.sum(z)), [cp.PowConeND(W, z, alpha, axis=1), cp.sum(W, axis=1) <= a]),
        {a: rng.random(2) + 0.3},
    )


@case
def single_power_cone_of_many_factors(rng):
    a, W, z = cp.Parameter(5), cp.Variable(5), cp.Variable()
    constraints = [cp.PowConeND(W, z, np.array([0.1, 0.2, 0.3, 0.25, 0.15])), a >= W]
    return Case(cp.Problem(cp.Maximize(z), constraints), {a: rng.random(5) + 0.3})


@case
def powers_and_means(rng):
    a, x = cp.Parameter(3), cp.Variable(3)
    objective = cp.sum(cp.power(x, 1.5)) + cp.pnorm(x - a, 3) + cp.sum(cp.inv_pos(x))
    return Case(
        cp.Problem(cp.Minimize(objective), [cp.geo_mean(x) >= 0.8, cp.sqrt(x[0]) >= 0.5]), {a: rng.normal(size=3)}
    )


@case
def eigenvalues(rng):
    C, X = cp.Parameter((3, 3), symmetric=True), cp.Variable((3, 3), symmetric=True)
    S = rng.normal(size=(3, 3))
    constraints = [cp.lambda_min(X) >= 0.2, cp.trace(X) <= 3]
    return Case(cp.Problem(cp.Minimize(cp.lambda_max(X + C) - cp.log_det(X)), constraints), {C: S + S.T})


@case
def sum_of_largest(rng):
    a, x = cp.Parameter(6), cp.Variable(6)
    return Case(cp.Problem(cp.Minimize(cp.sum_largest(x, 3) + cp.sum_squares(x - a))), {a: rng.normal(size=6)})


@case
def every_elementary_constraint(rng):
    a, x = cp.Parameter(3), cp.Variable(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NonPos is deprecated, and still accepted
        old_style = cp.NonPos(x - 2 - a)
    constraints = [cp.Zero(x[0] - 1 - a[0]), cp.NonNeg(x - a), old_style, x[1] + 1 <= 2 + a[1], x[2] == 1 + a[2]]
    return Case(cp.Problem(cp.Minimize(cp.sum_squares(x - 4)), constraints), {a: rng.normal(size=3)})


@case
def infinite_constant_bounds(rng):
    a, x = cp.Parameter(4), cp.Variable(4)
    high = np.array([0.5, np.inf, 0.2, np.inf])
    return Case(
        cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [x <= high, x >= -np.inf, x[1] <= 3]), {a: rng.normal(size=4)}
    )


@case
def geometric(rng):
    a, b, x, y, z = cp.Parameter(pos=True), cp.Parameter(pos=True), *(cp.Variable(pos=True) for _ in range(3))
    constraints = [4 * x * y * z + 2 * x * z <= a, x <= b * y, y <= b * x, z >= 1]
    return Case(cp.Problem(cp.Maximize(x * y * z), constraints), {a: 10.0, b: 2.0 + rng.random()}, gp=True)


@case
def geometric_vectors(rng):
    a, p, x = cp.Parameter(3, pos=True), cp.Parameter(value=0.5), cp.Variable(3, pos=True)
    return Case(
        cp.Problem(cp.Minimize(cp.sum(cp.multiply(a, x)) + cp.prod(x**-1)), [cp.power(x[0], p) * x[1] <= 2]),
        {a: rng.random(3) + 0.5, p: 0.7},
        gp=True,
    )


@case
def complex_constants(rng):
    C = rng.normal(size=(3, 2)) + 1j * rng.normal(size=(3, 2))
    b, x = cp.Parameter(2), cp.Variable(2)
    return Case(cp.Problem(cp.Minimize(cp.sum_squares(x - b) + cp.norm(C @ x)), [x >= -1]), {b: rng.normal(size=2)})
