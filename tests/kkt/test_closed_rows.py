"""Weak rows that multipliers which are not unique can make tight: no kink, one derivative, nothing is told."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest

import cvxift
from cvxift.errors import ApplicabilityWarning
from cvxift.kkt.solution_map import SolutionMap

SIDE = 4  # nodes along one side of a grid


def grid(k=SIDE):
    """Incidence matrix of a directed grid, and the flow of one unit from corner to corner."""
    node = lambda i, j: i * k + j  # noqa: E731
    edges = [(node(i, j), node(i, j + 1)) for i in range(k) for j in range(k - 1)]
    edges += [(node(i, j), node(i + 1, j)) for i in range(k - 1) for j in range(k)]
    M, d = np.zeros((k * k, len(edges))), np.zeros(k * k)
    for edge, (tail, head) in enumerate(edges):
        M[tail, edge], M[head, edge] = -1.0, 1.0
    d[0], d[-1] = -1.0, 1.0
    return M, d


def shortest_path(curvature=0.1):
    M, d = grid()
    x, c = cp.Variable(M.shape[1], name="x"), cp.Parameter(M.shape[1], name="c")
    problem = cp.Problem(cp.Minimize(c @ x + curvature * cp.sum_squares(x)), [M @ x == d, x >= 0, x <= 1])
    return problem, c, x


def test_shortest_paths_have_the_derivative_of_their_face():
    """Costs alone move; the flow's face is a subspace, whatever multipliers the solver has found."""
    problem, c, x = shortest_path()
    mapping = SolutionMap(problem, [c], [x])
    rng, asked, step = np.random.default_rng(0), 0, 1e-6
    for _ in range(8):
        theta = rng.uniform(1.0, 3.0, x.size)
        solved = mapping.solve(theta)
        account = mapping.account(solved.solutions[0])
        asked += not account.clear and len(account.local.weak) > 0
        with warnings.catch_warnings():
            warnings.simplefilter("error", ApplicabilityWarning)
            J = mapping.jacobian(solved.solutions[0], slice(None))
        for direction in rng.standard_normal((3, x.size)):
            ends = [mapping.solve(theta + sign * step * direction).outputs for sign in (1.0, -1.0)]
            np.testing.assert_allclose(J @ direction, (ends[0] - ends[1]) / (2 * step), atol=1e-6)
        assert len(account.pieces) == 1
    assert asked >= 4  # the solver's multipliers vanish on some rows


def test_duals_that_are_not_unique_are_told():
    problem, c, x = shortest_path()
    c.value = np.random.default_rng(0).uniform(1.0, 3.0, x.size)
    s = cvxift.differentiate(problem)
    with pytest.warns(ApplicabilityWarning):
        s.vjp({problem.constraints[1].dual_variables[0]: np.ones(x.size)})


def test_rows_that_theta_pulls_apart_are_not_closed():
    """x ≥ a and x ≥ b at a = b: the multiplier may be on either row, and a, b have one-sided derivatives."""
    x, a, b = cp.Variable(name="x"), cp.Parameter(name="a", value=1.0), cp.Parameter(name="b", value=1.0)
    problem = cp.Problem(cp.Minimize(cp.square(x)), [x >= a, x >= b])
    s = cvxift.differentiate(problem)
    with pytest.warns(ApplicabilityWarning, match="kink"):
        s.vjp({x: 1.0})
    assert not s.report.ok


def test_rows_that_no_multiplier_makes_tight_are_not_closed():
    """x₁ ≥ 0 at a minimum that lies there by itself, beside rows that depend on each other."""
    x, c = cp.Variable(3, name="x"), cp.Parameter(3, name="c", value=[0.0, 2.0, 2.0])
    objective = 0.5 * cp.sum_squares(x) + c @ x
    problem = cp.Problem(cp.Minimize(objective), [x >= 0, x[1] + x[2] >= 0, x[1] >= -x[2] / 2])
    s = cvxift.differentiate(problem)
    with pytest.warns(ApplicabilityWarning, match="kink"):
        s.vjp({x: np.ones(3)})
