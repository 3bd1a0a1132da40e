"""The NumPy sensitivities on a zoo of problems, against finite differences of tight solves by another solver."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest
from zoo import CASES

import cvxift

TIGHT = {"tol_gap_abs": 1e-13, "tol_gap_rel": 1e-13, "tol_feas": 1e-13, "max_iter": 500}


@pytest.fixture(params=sorted(CASES))
def case(request):
    return CASES[request.param](np.random.default_rng(7))


def directions(case, rng):
    """A random direction for every parameter that its attributes admit."""
    out = {}
    for p in case.parameters:
        d = rng.standard_normal(p.shape)
        out[p] = 0.5 * (d + d.T) if p.is_symmetric() and p.ndim == 2 and p.size > 1 else d
    return out


def moved(case, start, direction, step):
    """Outputs of the problem solved at start + step · direction, polished by Newton from a solver's own point."""
    for p in case.parameters:
        p.value = start[p] + step * direction[p]
    s = cvxift.differentiate(case.problem, gp=case.gp, solver="clarabel", solver_args=TIGHT)
    assert s.residuals.worst < 1e-12
    return [np.asarray(s.value(out)) for out in case.outputs]


def test_jvp_agrees_with_finite_differences(case):
    rng = np.random.default_rng(1)
    start, direction = {p: p.value for p in case.parameters}, directions(case, rng)
    s = cvxift.differentiate(case.problem, gp=case.gp)
    exact = s.jvp(direction)
    size = 1e-5
    up, down = moved(case, start, direction, size), moved(case, start, direction, -size)
    for out, high, low in zip(case.outputs, up, down, strict=True):
        expected = (high - low) / (2 * size)
        np.testing.assert_allclose(exact[out], expected, atol=3e-7 * (1.0 + np.abs(expected).max()))


def test_value_gradient_agrees_with_finite_differences(case):
    rng = np.random.default_rng(2)
    start, direction = {p: p.value for p in case.parameters}, directions(case, rng)
    s = cvxift.differentiate(case.problem, gp=case.gp)
    objective = case.problem.objective
    exact = s.jvp(direction)[objective]
    values = []
    for sign in (1, -1):
        for p in case.parameters:
            p.value = start[p] + sign * 3e-5 * direction[p]
        values.append(
            cvxift.differentiate(case.problem, gp=case.gp, solver="clarabel", solver_args=TIGHT).value(objective)
        )
    assert exact == pytest.approx((values[0] - values[1]) / 6e-5, rel=1e-6, abs=1e-6)


def test_vjp_and_jacobian_agree_with_jvp(case):
    rng = np.random.default_rng(3)
    s = cvxift.differentiate(case.problem, gp=case.gp)
    direction = directions(case, rng)
    cotangents = {out: rng.standard_normal(out.shape) for out in case.outputs}
    tangent, gradient = s.jvp(direction), s.vjp(cotangents)
    left = sum(np.sum(cotangents[out] * tangent[out]) for out in case.outputs)
    right = sum(np.sum(gradient[p] * direction[p]) for p in case.parameters)
    assert left == pytest.approx(right, rel=1e-9, abs=1e-10)
    out = case.outputs[0]
    total = sum(
        np.tensordot(s.jacobian(out, p), direction[p], axes=p.ndim) if p.ndim else s.jacobian(out, p) * direction[p]
        for p in case.parameters
    )
    np.testing.assert_allclose(total, tangent[out], atol=1e-9 * (1.0 + np.abs(tangent[out]).max()))


@pytest.mark.parametrize("solver", ["CLARABEL", "SCS"])
def test_starts_from_the_point_that_the_problem_holds(case, solver):
    reference = cvxift.differentiate(case.problem, gp=case.gp, solver="clarabel", solver_args=TIGHT)
    for variable in case.problem.variables():
        variable.save_value(None)
    options = {"eps": 1e-7, "max_iters": 20000} if solver == "SCS" else {}
    case.problem.solve(solver=solver, gp=case.gp, **options)
    held = [np.copy(v.value.toarray() if hasattr(v.value, "toarray") else v.value) for v in case.problem.variables()]
    s = cvxift.differentiate(case.problem, gp=case.gp)
    assert s.solution.solver == "cvxpy"
    for variable, value in zip(case.problem.variables(), held, strict=True):  # the solver's values, made accurate
        now = variable.value.toarray() if hasattr(variable.value, "toarray") else variable.value
        np.testing.assert_allclose(now, value, atol=1e-3 * (1.0 + np.abs(value).max()))
        np.testing.assert_allclose(now, s.value(variable), atol=1e-12 * (1.0 + np.abs(value).max()))
    for p in case.parameters:
        expected = reference.jacobian(case.outputs[0], p)
        np.testing.assert_allclose(s.jacobian(case.outputs[0], p), expected, atol=1e-7 * (1.0 + np.abs(expected).max()))


def test_an_outdated_point_is_solved_again():
    z, theta = cp.Variable(3), cp.Parameter(3, value=np.array([3.0, 0.0, 0.0]))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(z - theta)), [cp.sum(z) == 1, z >= 0])
    problem.solve(solver="CLARABEL")
    theta.value = np.array([0.2, 0.4, 0.1])
    s = cvxift.differentiate(problem)
    np.testing.assert_allclose(s.value(z), theta.value + 0.1, atol=1e-12)
    np.testing.assert_allclose(s.jacobian(z, theta), np.eye(3) - 1 / 3, atol=1e-12)


def test_the_optimal_value_has_a_kink_where_multipliers_are_not_unique() -> None:
    # value(t1, t2) = (min(t1, t2) - 5)²: slopes in t1 are −8 on the left and 0 on the right of t1 = t2.
    x, t1, t2 = cp.Variable(), cp.Parameter(name="t1", value=1.0), cp.Parameter(name="t2", value=1.0)
    problem = cp.Problem(cp.Minimize(cp.square(x - 5)), [x <= t1, x <= t2])
    s = cvxift.differentiate(problem)
    with pytest.warns(cvxift.ApplicabilityWarning, match="t1, t2"):
        gradient = s.vjp({problem.objective: 1.0})
    assert sorted(np.round([float(gradient[t1]), float(gradient[t2])], 8)) == [-8.0, 0.0]
    with pytest.raises(cvxift.ApplicabilityError):
        cvxift.differentiate(problem, check="raise").jacobian(problem.objective, t1)
    silent = cvxift.differentiate(problem, check="off")
    assert np.isnan(silent.jvp({t1: 1.0})[problem.objective])
    assert silent.jvp({t1: 1.0, t2: 1.0})[problem.objective] == pytest.approx(-8.0)
    t1.value = 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert float(cvxift.differentiate(problem).vjp({problem.objective: 1.0})[t1]) == pytest.approx(-9.0)
