"""Epigraph columns that a bound holds leave the program, and nothing else changes: values, multipliers, derivatives."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest
from reference_solve import TIGHT

import cvxift
from cvxift.kkt.solution_map import SolutionMap
from cvxift.program import Program

N = 4


def bounded(kind: str, x: cp.Variable, X: cp.Variable, r: cp.Parameter) -> cp.Constraint:
    """A convex function of variables under a bound, or a concave one above."""
    return {
        "norm": lambda: cp.norm(x) <= r,
        "affine": lambda: 2 * cp.norm(3 * x[:3] - 1) <= 1 + r + x[3] - 0.5 * x[0],
        "constant": lambda: cp.norm(x - r) <= 2.5,
        "squares": lambda: cp.sum_squares(x) <= r,
        "fixed squares": lambda: cp.sum_squares(x - 0.05 * r) <= 1.5,
        "over": lambda: cp.quad_over_lin(x[:3], 4 + x[3]) <= r,
        "abs": lambda: cp.abs(x) <= r,
        "largest": lambda: cp.norm_inf(x) <= r,
        "max": lambda: cp.max(x) <= r - 0.5 * x[0],
        "min": lambda: cp.min(x) >= -r,
        "exp": lambda: cp.exp(x) <= r,
        "logarithm": lambda: cp.log(x + 5) >= -0.3 * r + 1,
        "log_sum_exp": lambda: cp.log_sum_exp(x) <= r,
        "eigenvalue": lambda: cp.lambda_max(X) <= r,
        "singular": lambda: cp.sigma_max(X) <= r,
    }[kind]()


KINDS = (
    "norm", "affine", "constant", "squares", "fixed squares", "over", "abs", "largest", "max", "min", "exp",
    "logarithm", "log_sum_exp", "eigenvalue", "singular",
)  # fmt: skip


def problem_of(kind: str):
    x, X = cp.Variable(N), cp.Variable((2, 2), symmetric=True)
    c, r = cp.Parameter(N), cp.Parameter()
    cost = 0.5 * cp.sum_squares(x - c) + 0.5 * cp.sum_squares(X - cp.diag(c[:2]))
    return cp.Problem(cp.Minimize(cost), [bounded(kind, x, X, r)]), (x, X), (c, r)


def size(problem: cp.Problem) -> int:
    """Columns of the program without those of the cost."""
    return Program(problem).structure.n - Program(cp.Problem(problem.objective)).structure.n


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("r", [1.2, 30.0], ids=["tight", "slack"])
def test_values_and_multipliers_are_those_of_the_problem(kind: str, r: float) -> None:
    problem, variables, parameters = problem_of(kind)
    parameters[0].value, parameters[1].value = np.array([1.5, -2.0, 0.7, 1.1]), np.array(r)
    dual = problem.constraints[0].dual_variables[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = cvxift.differentiate(problem)
        gradient = found.vjp({variables[0]: np.arange(1.0, N + 1)})[parameters[0]]
    values = [found.value(v) for v in (*variables, dual)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # at these tolerances Clarabel may call a solution inaccurate
        problem.solve(solver=cp.CLARABEL, **TIGHT)
    for ours, theirs in zip(values, (*(v.value for v in variables), problem.constraints[0].dual_value), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5)
    mapping = SolutionMap(problem, list(parameters), list(variables[:1]))
    theta = np.concatenate([parameters[0].value, [r]])
    step, weight = 1e-5, np.arange(1.0, N + 1)
    ends = [mapping.solve(theta + sign * step * np.eye(N + 1)[:N]).outputs @ weight for sign in (1.0, -1.0)]
    np.testing.assert_allclose(gradient, (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["norm", "affine", "constant", "fixed squares"])
def test_no_column_is_left_between_a_function_and_its_bound(kind: str) -> None:
    problem, _, _ = problem_of(kind)
    assert size(problem) == 0, [label.text for label in Program(problem).column_labels]


def test_columns_that_a_bound_does_not_hold_stay() -> None:
    x, t, r = cp.Variable(3), cp.Variable(), cp.Parameter()
    cost = cp.sum_squares(x - 1) + cp.square(t - 1)
    cases = {
        "of the user's": ([cp.SOC(t, x), t <= r], 0),
        "in the cost": ([], 1),
        "two under one bound": ([cp.norm(x) + cp.norm(x - 1) <= r], 2),
        "two bounds": ([cp.norm(x) <= r, cp.norm(x) <= t], 1),
        "times a parameter": ([r * cp.norm(x) <= 1], 1),
    }
    base = Program(cp.Problem(cp.Minimize(cost))).structure.n
    parameter = cp.Parameter(nonneg=True)
    for name, (constraints, left) in cases.items():
        objective = cost + cp.norm(x) if name == "in the cost" else cost
        if name == "times a parameter":
            constraints = [parameter * cp.norm(x) <= 1]
        assert Program(cp.Problem(cp.Minimize(objective), constraints)).structure.n - base == left, name


@pytest.mark.parametrize("kind", ["norm", "squares", "abs", "exp", "log_sum_exp", "eigenvalue", "min"])
@pytest.mark.parametrize("batch", [False, True])
def test_an_infinite_bound_binds_nothing(kind: str, batch: bool) -> None:
    problem, variables, parameters = problem_of(kind)
    mapping = SolutionMap(problem, list(parameters), list(variables))
    c = np.array([1.5, -2.0, 0.7, 1.1])
    theta = np.append(c, np.inf)
    theta = np.stack([theta, np.append(c, 1.2)]) if batch else theta
    solved = mapping.solve(theta, check=True)
    first = solved.outputs[0] if batch else solved.outputs
    np.testing.assert_allclose(first, [*c, c[0], 0.0, 0.0, c[1]], rtol=0, atol=1e-9)
    pulled = mapping.vjp(solved, np.ones_like(solved.outputs))
    expected = np.array([2.0, 2.0, 1.0, 1.0, 0.0])
    np.testing.assert_allclose(pulled[0] if batch else pulled, expected, rtol=0, atol=1e-9)


def test_an_infinite_bound_leaves_the_domain() -> None:
    """The divisor of a ratio remains positive."""
    x, y, a, r = cp.Variable(), cp.Variable(), cp.Parameter(value=-1.0), cp.Parameter(value=np.inf)
    for limit, least in (
        (cp.inv_pos(x) <= r, 0.0),
        (cp.quad_over_lin(y, x) <= r, 0.0),
        (cp.quad_over_lin(y, 2 * x - 1) <= r - y, 0.5),
    ):
        s = cvxift.differentiate(cp.Problem(cp.Minimize(cp.square(x - a) + cp.square(y - 1)), [limit]), check="off")
        assert s.value(x) == pytest.approx(least, abs=1e-3)


def test_rows_without_a_bound_are_no_kink() -> None:
    x, r, a = cp.Variable(2), cp.Parameter(value=np.inf), cp.Parameter(2, value=[1.0, 2.0])
    for limit in (x[0] <= r, cp.norm(x) <= r, cp.norm1(x) <= r):
        problem = cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [limit])
        with warnings.catch_warnings():
            warnings.simplefilter("error", cvxift.ApplicabilityWarning)
            np.testing.assert_allclose(cvxift.differentiate(problem).jacobian(x, a), np.eye(2), atol=1e-9)


def test_a_slack_norm_leaves_the_system_regular() -> None:
    """The column between the norm and its bound had made it singular."""
    x, c, r = cp.Variable(N), cp.Parameter(N), cp.Parameter()
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [cp.norm(x[:3] - 1) <= r + 0.1 * x[3]])
    mapping = SolutionMap(problem, [c, r], [x])
    theta = np.append(np.random.default_rng(0).standard_normal((16, N)), np.full((16, 1), 9.0), axis=1)
    solved = mapping.solve(theta)
    assert not solved.solutions.near_kinks.any() and not solved.solutions.singles
