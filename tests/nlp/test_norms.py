"""Euclidean norms: where they vanish at the solution, along axes, in standard deviations."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import cvxift

pytest.importorskip("unopy")
pytest.importorskip("cvxpy", minversion="1.9")

from differences import assert_close, differences  # beside this file

Q = np.array([1.0, 2.0, 3.3, 0.5])


def matrix(x):
    return cp.reshape(x, (2, 2), order="F")


COSTS = {
    "not at zero": lambda x, q: cp.norm(x - q) + cp.sum_squares(x - 1),
    "at zero": lambda x, q: 4 * cp.norm(x[:2] - 1) + cp.sum_squares(x - q),
    "rows, all at zero": lambda x, q: 3 * cp.sum(cp.norm(matrix(x) - 1, axis=1)) + cp.sum_squares(x - q),
    "columns, one at zero": lambda x, q: 2.5 * cp.sum(cp.norm(matrix(x) - 1, axis=0)) + cp.sum_squares(x - q),
    "kept dimensions": lambda x, q: (
        cp.sum(cp.norm(matrix(x) - matrix(q), axis=1, keepdims=True)) + cp.sum_squares(x - 1)
    ),
    "mixed": lambda x, q: cp.mixed_norm(matrix(x), 2, 1) + cp.sum_squares(x - q),
    "deviation": lambda x, q: cp.std(x) + cp.sum_squares(x - q),
    "deviation of zero": lambda x, q: 9 * cp.std(x) + cp.sum_squares(x - q),
    "deviations": lambda x, q: cp.sum(cp.std(matrix(x), axis=1)) + cp.sum_squares(x - q),
    "increasing function": lambda x, q: cp.exp(cp.norm(x) / 3) + cp.sum_squares(x - q),
    "twice": lambda x, q: cp.norm(x) + 4 * cp.norm(x[1:] - 2) + cp.sum_squares(x - q),
}


@pytest.mark.parametrize("solver", [None, "UNO"])
@pytest.mark.parametrize("name", COSTS)
def test_norms_give_the_conic_paths_gradient(name: str, solver: str | None) -> None:
    x, q = cp.Variable(4), cp.Parameter(4, value=Q)
    x.value = np.array([1.1, 2.2, 3.1, 0.8])
    problem = cp.Problem(cp.Minimize(COSTS[name](x, q)))
    conic = cvxift.differentiate(problem, check="raise")
    x.value = np.array([1.1, 2.2, 3.1, 0.8])
    s = cvxift.differentiate(problem, nlp=True, solver=solver, check="raise")
    np.testing.assert_allclose(s.value(x), conic.value(x), atol=1e-8)
    np.testing.assert_allclose(s.jacobian(x, q), conic.jacobian(x, q), atol=1e-8)
    assert_close(s.jacobian(x, q), differences(s, x, q))


@pytest.mark.parametrize("weight", [0.5, 4.0])  # on either side of where the norm vanishes
def test_a_norm_in_a_problem_that_is_not_convex(weight: float) -> None:
    x, q, w = cp.Variable(4), cp.Parameter(4, value=Q), cp.Parameter(pos=True, value=weight)
    cost = w * cp.square(w) * cp.norm(x[:2] - 1) + cp.sum(cp.nlp.cos(x)) + cp.sum_squares(x - q)
    problem = cp.Problem(cp.Minimize(cost), [cp.norm(x[1:]) <= 5])
    s = cvxift.differentiate(problem, nlp=True, check="raise")
    assert np.allclose(s.value(x)[:2], 1.0) == (weight == 4.0)
    for parameter in (q, w):
        assert_close(s.jacobian(x, parameter), differences(s, x, parameter))
    assert s.report.ok and s.report.audit().agrees


def test_the_kink_where_a_norm_begins_to_vanish_is_told() -> None:
    x, q = cp.Variable(2), cp.Parameter(2, value=np.array([0.0, 1.0]))
    problem = cp.Problem(cp.Minimize(2 * cp.norm(x) + cp.sum_squares(x - q)))
    report = cvxift.diagnose(problem, nlp=True)
    assert "weakly active" in {finding.cause for finding in report.findings} and not report.ok
    q.value = np.array([0.0, 0.9])
    assert cvxift.diagnose(problem, nlp=True).ok


@pytest.mark.parametrize(
    "f",
    [
        lambda x, q: cp.sum_squares(cp.cumsum(x) - q),
        lambda x, q: cp.sum_squares(cp.cumsum(matrix(x), axis=1) - matrix(q)),
        lambda x, q: cp.sum_squares(cp.cumsum(matrix(x), axis=-2) - matrix(q)),
        lambda x, q: cp.sum_squares(cp.cumsum(matrix(x), axis=None) - q),
        lambda x, q: -cp.sum(cp.log1p(cp.multiply(q, x))),
        lambda x, q: cp.norm(x - 3 * q, 4) + 9 * cp.sum_squares(x),
        lambda x, q: -cp.pnorm(x, 0.5) / 50 - cp.harmonic_mean(cp.multiply(q, x)) / 9,
        lambda x, q: cp.sum(cp.cummax(cp.multiply(q, x))) + cp.sum_squares(cp.cummax(cp.pos(matrix(x)), axis=1)),
        lambda x, q: cp.cvar(cp.multiply(q, x), 0.6) + cp.cvar(x - q, 0.1) + cp.sum_largest(x, 0.5),
        lambda x, q: cp.sum(cp.log_sum_exp(cp.multiply(matrix(q), matrix(x)), axis=1, keepdims=True)),
        lambda x, q: cp.sum(cp.log_sum_exp(matrix(x) + matrix(q), axis=0)),
        lambda x, q: cp.sum_squares(matrix(x) - cp.mean(cp.multiply(matrix(q), matrix(x)), axis=1, keepdims=True)),
    ],
)
def test_atoms_that_cvxpys_engine_lacks_are_written_by_others(f) -> None:
    x, q = cp.Variable(4), cp.Parameter(4, pos=True, value=Q)
    x.value = np.ones(4)
    problem = cp.Problem(cp.Minimize(f(x, q) + 0.1 * cp.sum_squares(x - q)))
    s = cvxift.differentiate(problem, nlp=True, solver="UNO", check="raise")
    value = s.value(x)
    assert_close(s.jacobian(x, q), differences(s, x, q))
    x.value = None  # with a value at hand CVXPY fails at sum_largest of a broken number
    problem.solve(solver="CLARABEL")
    np.testing.assert_allclose(value, x.value, atol=1e-4)


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_running_products_of_variables_and_of_parameters(axis: int | None) -> None:
    x, q = cp.Variable((2, 2)), cp.Parameter((2, 2), value=np.array([[1.2, 0.7], [0.9, 1.1]]))
    x.value = np.ones((2, 2))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(cp.cumprod(x, axis) - cp.cumprod(q, axis))))
    s = cvxift.differentiate(problem, nlp=True)
    np.testing.assert_allclose(s.value(x), q.value, atol=1e-9)
    np.testing.assert_allclose(s.jacobian(x, q).reshape(4, 4), np.eye(4), atol=1e-8)
