"""What `differentiate` refuses, in words that name the object; and odd problems that it must take."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import cvxift
from cvxift import ProgramError, SolveError


@pytest.fixture
def parts():
    x, c = cp.Variable(2, name="x"), cp.Parameter(2, name="c", value=np.array([0.3, 2.0]))
    return x, c, cp.Minimize(cp.sum_squares(x - c))


def jacobian(x, c, objective, constraints, **options):
    return cvxift.differentiate(cp.Problem(objective, constraints), **options).jacobian(x, c)


def test_cotangents_and_tangents(parts):
    x, c, objective = parts
    s = cvxift.differentiate(cp.Problem(objective, [x >= 0]))
    foreign, other = cp.Variable(2, name="w"), cp.Parameter(2, name="g")
    for product, given, message in (
        (s.vjp, {x: np.ones(3)}, r"'x' has shape \(3,\); expected \(2,\)"),
        (s.vjp, {foreign: np.ones(2)}, "'w' is not in the problem"),
        (s.vjp, {cp.Minimize(0): 1.0}, "not the problem's"),
        (s.vjp, {c: np.ones(2)}, "got Parameter"),
        (s.jvp, {c: np.ones((2, 1))}, r"'c' has shape \(2, 1\); expected \(2,\)"),
        (s.jvp, {other: np.ones(2)}, "'g' is not in the problem; its parameters are: c"),
        (s.jvp, {"c": np.ones(2)}, "each a cp.Parameter; got str"),
    ):
        with pytest.raises(ProgramError, match=message):
            product(given)
    with pytest.raises(ProgramError, match="'g' is not in the problem"):
        s.jacobian(x, other)


def test_problems_that_are_refused(parts):
    x, c, _ = parts
    empty, scale = cp.Parameter(2, name="empty"), cp.Parameter(2, name="scale", value=np.ones(2))
    whole = cp.Variable(2, integer=True, name="whole")
    for objective, message in (
        (cp.sum_squares(x - empty), "'empty' has no value"),
        (cp.sum_squares(x) + cp.multiply(scale, c) @ x, "not DPP"),
        (cp.sum_squares(whole - c), "'whole' is integer"),
    ):
        with pytest.raises(ProgramError, match=message):
            cvxift.differentiate(cp.Problem(cp.Minimize(objective)))


def test_rules_are_told_beside_a_matrix_cone(parts):
    """CVXPY has no rule of nonlinear programs for it."""
    x, c, _ = parts
    matrix = cp.Variable((2, 2), symmetric=True)
    for objective, message in (
        (cp.sum_squares(x) + c[0] * c[1] * x[0], "not DPP"),
        (cp.sqrt(x[0]), "rules of convexity"),
    ):
        with pytest.raises(ProgramError, match=message):
            cvxift.differentiate(cp.Problem(cp.Minimize(objective), [matrix >> 0]))


def test_problems_without_a_solution(parts):
    x, c, objective = parts
    for goal, constraints, status in (
        (objective, [x >= 1, x <= 0], "infeasible"),
        (cp.Minimize(cp.sum(x) + 0 * c[0]), [], "unbounded"),
    ):
        with pytest.raises(SolveError, match=f"was not solved: {status}") as caught:
            cvxift.differentiate(cp.Problem(goal, constraints))
        assert caught.value.status == status
        assert caught.value.failures[()][0] == status


def test_bounds_at_infinity_constrain_nothing(parts):
    x, c, objective = parts
    for solver in (None, "clarabel", "daqp"):
        upper = jacobian(x, c, objective, [x <= np.array([1.0, np.inf])], solver=solver)
        np.testing.assert_allclose(upper, np.eye(2), atol=1e-12)
        lower = jacobian(x, c, objective, [x >= -np.inf, x <= 1], solver=solver)
        np.testing.assert_allclose(lower, np.diag([1.0, 0.0]), atol=1e-12)


def test_rows_of_zeros_and_rows_that_repeat(parts):
    x, c, objective = parts
    np.testing.assert_allclose(jacobian(x, c, objective, [0 * x[0] <= 0, 0 * x[1] == 0]), np.eye(2), atol=1e-12)
    twice = jacobian(x, c, objective, [cp.sum(x) == 1, cp.sum(x) == 1])
    np.testing.assert_allclose(twice, np.eye(2) - 0.5, atol=1e-12)


def test_no_parameters_and_no_objective(parts):
    x, c, _ = parts
    assert cvxift.differentiate(cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= 1])).vjp({x: np.ones(2)}) == {}
    np.testing.assert_allclose(jacobian(x, c, cp.Minimize(0), [x == c]), np.eye(2), atol=1e-12)
