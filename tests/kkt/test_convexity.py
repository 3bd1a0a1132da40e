"""A cost that was said to be convex: saddles are refused, minima and costs convex on the equalities are not."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp

import cvxift
from cvxift.errors import ApplicabilityError, ApplicabilityWarning, SolveError
from cvxift.kkt.convexity import NEGATIVE, semidefinite
from cvxift.kkt.solution_map import SolutionMap


def vouched(n: int, constraints=lambda x: [], nonsmooth=lambda x: 0.0):
    x, P, q = cp.Variable(n, name="x"), cp.Parameter((n, n), name="P"), cp.Parameter(n, name="q")
    cost = 0.5 * cp.quad_form(x, P, assume_PSD=True) + q @ x + nonsmooth(x)
    return cp.Problem(cp.Minimize(cost), constraints(x)), P, q, x


def theta(P, q) -> np.ndarray:
    return np.concatenate([np.ravel(P), np.ravel(q)])


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "sparse"])
@pytest.mark.parametrize("n", [1, 5, 30])
def test_semidefinite_up_to_rounding_in_any_units(rng, n, dense):
    laid = np.array if dense else sp.csc_array
    for _ in range(10):
        B, units = rng.standard_normal((n, max(1, n // 2))), 10.0 ** rng.uniform(-6, 6, n)
        low, w = B @ B.T, rng.standard_normal(n)
        w /= np.linalg.norm(w)
        scale = np.outer(units, units)
        assert semidefinite(laid(low * scale))
        assert semidefinite(laid((low + np.eye(n)) * scale))
        w -= B @ np.linalg.lstsq(B, w, rcond=None)[0]  # a direction that B leaves flat
        if n > 1:
            bent = low - 1e3 * NEGATIVE * np.abs(np.diag(low)).max() * np.outer(w, w) / (w @ w)
            assert not semidefinite(laid(bent * scale))
    assert semidefinite(laid(np.zeros((n, n)))) and not semidefinite(laid(-np.eye(n)))


@pytest.mark.parametrize("solver", [None, "daqp", "piqp", "osqp", "clarabel", "scs"])
def test_a_saddle_is_refused(solver):
    problem, P, q, x = vouched(3, (lambda x: [cp.sum(x) <= 9]) if solver == "scs" else (lambda x: []))
    mapping = SolutionMap(problem, [P, q], [x], solver=solver)
    good = theta(np.diag([1.0, 1.0, 2.0]), [0.3, -0.2, 0.5])
    np.testing.assert_allclose(mapping.solve(good).outputs, [-0.3, 0.2, -0.25], atol=1e-9)
    with pytest.raises(SolveError, match=r"not a minimum|unbounded"):
        mapping.solve(theta(np.diag([1.0, 1.0, -1.0]), [0.3, -0.2, 0.5]))
    turned = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    with pytest.raises(SolveError):
        mapping.solve(theta(turned, [0.3, -0.2, 0.5]))


def test_the_message_names_the_direction_and_diagnose_says_it():
    problem, P, q, _ = vouched(3)
    P.value, q.value = np.diag([1.0, 1.0, -1.0]), np.array([0.3, -0.2, 0.5])
    with pytest.raises(SolveError, match=r"saddle: P is indefinite.*x\[2\].*assume_PSD") as caught:
        cvxift.differentiate(problem)
    assert caught.value.status == "not a minimum"
    report = cvxift.diagnose(problem)
    assert not report.ok and "P is indefinite" in report.faults[0].text and "x[2]" in report.faults[0].text


def test_one_saddle_of_a_batch_is_refused_alone():
    problem, P, q, x = vouched(2, lambda x: [x >= -5.0, x <= 5.0])
    batch = np.stack([theta(np.diag(d), [0.5, -0.5]) for d in ([1.0, 2.0], [1.0, -1.0], [4.0, 1.0])])
    with pytest.raises(SolveError) as caught:
        SolutionMap(problem, [P, q], [x], solver="osqp").solve(batch)
    assert list(caught.value.failures) == [(1,)] or not caught.value.failures
    np.testing.assert_allclose(caught.value.solutions[[0, 2]], [[-0.5, 0.25], [-0.125, 0.5]], atol=1e-8)


@pytest.mark.parametrize("solver", [None, "clarabel"])
def test_a_cost_convex_on_the_equalities_is_no_saddle(solver):
    # P = diag(1, −1/2), x₁ = x₂ + 1: ½x₁² − ¼(x₁ − 1)² + … is convex in x₁.
    problem, P, q, x = vouched(2, lambda x: [x[0] - x[1] == 1.0])
    solved = SolutionMap(problem, [P, q], [x], solver=solver).solve(theta(np.diag([1.0, -0.5]), [0.0, 0.0]))
    np.testing.assert_allclose(solved.outputs, [-1.0, -2.0], atol=1e-8)  # x₁ − ½(x₁ − 1) = 0


def test_a_psd_matrix_of_any_rank_passes(rng):
    problem, P, q, x = vouched(6, lambda x: [x >= -1.0, x <= 1.0], lambda x: cp.sum_squares(x[:2]))
    mapping = SolutionMap(problem, [P, q], [x])
    for rank in range(1, 7):
        B = rng.standard_normal((6, rank)) * 10.0 ** rng.uniform(-3, 3, (6, 1))
        solved = mapping.solve(theta(B @ B.T, rng.standard_normal(6)))
        assert solved.ok and solved.solutions[0].descent is None


INDEFINITE = {  # where a minimum of ½ xᵀ diag(1, −1) x + qᵀx may be one of several; on the equality the cost is convex
    "an equality": (lambda x: [x[1] == 0.5], False),
    "a ball": (lambda x: [cp.norm(x) <= 1.0], True),
    "one bound": (lambda x: [x[1] <= 2.0, x[1] >= -1.0, cp.sum(x) <= 9.0], True),
}


@pytest.mark.parametrize("name", INDEFINITE)
def test_a_minimum_that_may_be_local_is_told(name):
    constraints, local = INDEFINITE[name]
    problem, P, q, x = vouched(2, constraints)
    P.value, q.value = np.diag([1.0, -1.0]), np.array([0.3, 0.1])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        cvxift.differentiate(problem)
    assert any("local minimum" in str(w.message) for w in said) == local
    assert ("local minimum" in str(cvxift.diagnose(problem))) == local
    if local:
        with pytest.raises(ApplicabilityError, match="local minimum"):
            cvxift.differentiate(problem, check="raise")
    mapping = SolutionMap(problem, [P, q], [x], check="warn")
    batch = np.stack([theta(np.eye(2), [0.3, 0.1]), theta(P.value, q.value)])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        mapping.solve(batch)
    assert any("Instance 1 of the batch: The point is a local" in str(w.message) for w in said) == local
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mapping.solve(batch[0])


@pytest.mark.parametrize("kind", ["constant", "sparse", "wrapped", "parameter"])
@pytest.mark.parametrize("lowest", [1.0, -1e-3, -1.0])
def test_a_diagonal_that_was_vouched_for_is_looked_at(kind, lowest):
    x, q, d = cp.Variable(3), cp.Parameter(3, value=np.array([0.3, -0.2, 0.5])), np.array([1.0, 1.0, lowest])
    form = {
        "constant": lambda: cp.quad_form(x, np.diag(d), assume_PSD=True),
        "sparse": lambda: cp.quad_form(x, sp.csc_array(sp.diags_array(d)), assume_PSD=True),
        "wrapped": lambda: cp.quad_form(x, cp.psd_wrap(np.diag(d))),
        "parameter": lambda: cp.quad_form(x, cp.Parameter((3, 3), diag=True, value=np.diag(d)), assume_PSD=True),
    }[kind]()
    problem = cp.Problem(cp.Minimize(0.5 * form + q @ x))
    if lowest > 0.0:
        np.testing.assert_allclose(cvxift.differentiate(problem).value(x), -q.value, atol=1e-9)
    else:
        with pytest.raises(SolveError, match=r"not a minimum|unbounded"):
            cvxift.differentiate(problem)


def test_a_minimum_of_a_large_program_that_may_be_local_is_told():
    n = 2100
    x = cp.Variable(n)
    form = cp.quad_form(x, cp.psd_wrap(sp.csc_array(sp.diags_array([1.0] * (n - 1) + [-1.0]))))
    with pytest.warns(ApplicabilityWarning, match="local minimum"):
        cvxift.differentiate(cp.Problem(cp.Minimize(form - 2.0 * cp.sum(x)), [x <= 1.0, x[-1] >= -0.5]))
