"""Following the advice of a finding makes the report ok."""

from __future__ import annotations

import cvxpy as cp
import numpy as np

import cvxift


def parts(target=(0.5, 0.5, 0.0)):
    x = cp.Variable(3, name="x")
    return x, cp.Parameter(3, name="theta", value=np.array(target, dtype=float))


def finding(report, cause):
    return next(f for f in report.findings if f.cause == cause)


def test_curvature_cures_a_flat_direction() -> None:
    x, c = parts((1.0, 1.0, 3.0))
    cost, constraints = c @ x, [cp.sum(x) == 1, x >= 0]
    report = cvxift.diagnose(cp.Problem(cp.Minimize(cost), constraints))
    assert not report.ok and "0.5 * eps * cp.sum_squares(x)" in finding(report, "flat direction").advice
    assert cvxift.diagnose(cp.Problem(cp.Minimize(cost + 0.5 * 0.1 * cp.sum_squares(x)), constraints)).ok
    assert "entropy" in finding(report, "flat direction").advice
    assert cvxift.diagnose(cp.Problem(cp.Minimize(cost - 0.1 * cp.sum(cp.entr(x))), constraints)).ok


def test_entropy_or_another_parameter_cures_a_kink() -> None:
    x, theta = parts()
    cost = cp.sum_squares(x - theta)
    report = cvxift.diagnose(cp.Problem(cp.Minimize(cost), [cp.sum(x) == 1, x >= 0]))
    assert not report.ok and "cp.entr" in finding(report, "weakly active").advice
    assert cvxift.diagnose(cp.Problem(cp.Minimize(cost - 0.1 * cp.sum(cp.entr(x))), [cp.sum(x) == 1])).ok
    assert "Move the parameters" in finding(report, "weakly active").advice
    theta.value = theta.value + np.array([0.01, 0.0, -0.02])
    assert cvxift.diagnose(cp.Problem(cp.Minimize(cost), [cp.sum(x) == 1, x >= 0])).ok


def test_removing_the_named_constraint_makes_the_multipliers_unique() -> None:
    x, theta = parts()
    constraints = [cp.sum(x) == 1, x[0] <= 7, x[0] - x[1] == 0, 2 * x[0] + x[2] == 1]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - theta)), constraints)
    told = finding(cvxift.diagnose(problem), "dependent constraints")
    assert "emove one that follows" in told.advice and "least_squares" in told.advice
    number = int(told.where[-1].split()[1])
    kept = [c for k, c in enumerate(constraints) if k != number]
    report = cvxift.diagnose(cp.Problem(problem.objective, kept), outputs=[kept[0].dual_variables[0]])
    assert report.verdict is cvxift.Verdict.APPLIES and report.ok


def test_least_squares_is_right_where_multipliers_are_not_unique() -> None:
    x, theta = parts()
    A = np.array([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [2.0, 0.0, 1.0]])  # the third row is the sum of the others
    dependent = cp.Problem(cp.Minimize(cp.sum_squares(x - theta)), [A[k] @ x == (1.0, 0.0, 1.0)[k] for k in range(3)])
    s = cvxift.differentiate(dependent, singular="least_squares")
    assert s.report.verdict is cvxift.Verdict.PRIMAL_ONLY
    np.testing.assert_allclose(s.jacobian(x, theta), np.eye(3) - np.linalg.pinv(A) @ A, atol=1e-9)


def test_removing_a_constraint_that_is_torn_apart() -> None:
    x, theta = cp.Variable(2, name="x"), cp.Parameter(2, name="theta", value=np.ones(2))
    constraints = [cp.sum(x) == theta[0], cp.sum(x) == theta[1]]
    told = finding(cvxift.diagnose(cp.Problem(cp.Minimize(cp.sum_squares(x)), constraints)), "torn apart")
    assert "emove one that follows" in told.advice and len(told.where) == 2
    assert cvxift.diagnose(cp.Problem(cp.Minimize(cp.sum_squares(x)), constraints[:1])).ok


def test_solving_again_cures_a_point_that_is_not_optimal() -> None:
    x, theta = parts((0.5, 0.4, -1.0))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - theta)), [cp.sum(x) == 1, x >= 0])
    problem.solve(solver="CLARABEL")
    theta.value = np.array([-1.0, 0.4, 0.5])
    report = cvxift.diagnose(problem)
    assert report.verdict is cvxift.Verdict.NOT_OPTIMAL and "solver='clarabel'" in report.faults[0].advice
    assert cvxift.diagnose(problem, solver="clarabel").ok


def test_relaxing_cures_infeasible_and_bounding_cures_unbounded() -> None:
    x, theta = parts((1.0, 0.5, 2.0))
    report = cvxift.diagnose(cp.Problem(cp.Minimize(cp.sum_squares(x - theta)), [x <= 0, cp.sum(x) == 1]))
    assert "Relax" in report.faults[0].advice
    assert cvxift.diagnose(cp.Problem(cp.Minimize(cp.sum_squares(x - theta)), [x <= 0.6, cp.sum(x) == 1])).ok
    report = cvxift.diagnose(cp.Problem(cp.Minimize(theta @ x), [x <= 1]))
    assert "bounds" in report.faults[0].advice
    assert cvxift.diagnose(cp.Problem(cp.Minimize(theta @ x), [x <= 1, x >= -1])).ok


def test_common_units_cure_a_row_that_its_units_hide() -> None:
    # A violated row of size 1e-6 beside rows of size 1e6 may pass a solver's test; it must not pass in silence.
    x, theta = cp.Variable(2, name="x"), cp.Parameter(2, name="theta", value=np.array([2.0, 3.0]))
    cost = cp.Minimize(cp.sum_squares(x - theta))
    report = cvxift.diagnose(cp.Problem(cost, [1e6 * x[0] <= 1e6, 1e-6 * x[1] <= 1e-6]))
    assert not report.ok or np.allclose(report.point.x[report.point.program.user_columns], 1.0)
    assert cvxift.diagnose(cp.Problem(cost, [x <= 1])).ok


def test_an_argument_kept_away_from_the_edge_of_its_domain() -> None:
    x, theta = parts((0.0, 60.0, -60.0))
    B = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
    problem = cp.Problem(cp.Maximize(theta @ x + cp.sum(cp.entr(B @ x))), [cp.sum(x) == 1, x >= -5])
    told = finding(cvxift.diagnose(problem), "domain edge")
    assert "keep the argument away from 0" in told.advice and {name[-3:] for name in told.where} == {"[1]", "[2]"}
    theta.value = theta.value / 60.0
    assert not any(f.cause == "domain edge" for f in cvxift.diagnose(problem).findings)


def test_a_constant_under_the_norm_takes_its_kink_away() -> None:
    x, theta = parts()
    smooth = cp.sum_squares(x - theta)
    told = finding(cvxift.diagnose(cp.Problem(cp.Minimize(smooth + cp.norm(x - theta)))), "domain edge")
    assert "Add ε² under the norm" in told.advice and "norm at zero" in told.text
    report = cvxift.diagnose(cp.Problem(cp.Minimize(smooth + cp.norm(cp.hstack([x - theta, 1e-2])))))
    assert report.ok and not any(f.cause == "domain edge" for f in report.findings)


def test_the_radius_says_how_near_a_kink_is() -> None:
    x, theta = parts((0.5, 0.5, -1e-5))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - theta)), [cp.sum(x) == 1, x >= 0])
    report = cvxift.diagnose(problem)
    told = finding(report, "near a kink")
    assert report.ok and "report.radius(...)" in told.advice
    direction = {theta: np.array([0.0, 0.0, 1.0])}
    reach = report.radius(direction).distance
    assert 0.0 < reach < 1e-4
    theta.value = theta.value + 2.0 * reach * direction[theta]  # over the kink, and as far behind it
    assert [row.state for row in cvxift.diagnose(problem, solver="clarabel").active_set][3] == "inactive"
    theta.value = theta.value - 0.3 * direction[theta]
    assert not any(f.cause == "near a kink" for f in cvxift.diagnose(problem, solver="clarabel").findings)


def test_smoothing_gives_the_derivative_of_the_central_path() -> None:
    # A kink and a linear program's vertices, smoothed: the derivative of argmin cost(x) − μ Σ log s(x).
    mu = 1e-2
    for linear in (False, True):
        x, theta = parts((1.0, 1.0, 3.0) if linear else (0.5, 0.5, 0.0))
        cost = theta @ x if linear else cp.sum_squares(x - theta)
        problem = cp.Problem(cp.Minimize(cost), [cp.sum(x) == 1, x >= 0])
        report = cvxift.diagnose(problem)
        assert not report.ok and "singular='smooth'" in report.faults[-1].advice
        problem = cp.Problem(cp.Minimize(cost), [cp.sum(x) == 1, x >= 0])
        J = cvxift.differentiate(problem, singular="smooth", mu=mu).jacobian(x, theta)
        path = cp.Problem(cp.Minimize(cost - mu * cp.sum(cp.log(x))), [cp.sum(x) == 1])
        s = cvxift.differentiate(path)
        assert s.report.ok
        np.testing.assert_allclose(J, s.jacobian(x, theta), atol=1e-7)


def test_a_parameter_gives_something_to_differentiate_by() -> None:
    x = cp.Variable(2, name="x")
    told = finding(cvxift.diagnose(cp.Problem(cp.Minimize(cp.sum_squares(x - 1)), [x >= 0])), "no parameters")
    assert "cp.Parameter" in told.advice
    theta = cp.Parameter(2, value=np.ones(2))
    report = cvxift.diagnose(cp.Problem(cp.Minimize(cp.sum_squares(x - theta)), [x >= 0]))
    assert report.ok and not any(f.cause == "no parameters" for f in report.findings)


def test_curvature_cures_bad_conditioning(monkeypatch) -> None:
    # Two columns that agree to 1e-4: a condition number of 1e9, which at full accuracy costs a gradient 1e-7.
    monkeypatch.setattr("cvxift.diagnostics.analysis.ERROR", 1e-8)
    x, b = cp.Variable(2, name="x"), cp.Parameter(2, name="b", value=np.array([1.0, 2.0]))
    A = np.array([[1.0, 1.0], [1.0, 1.0 + 1e-4]])
    cost = cp.sum_squares(A @ x - b)
    report = cvxift.diagnose(cp.Problem(cp.Minimize(cost)))
    told = finding(report, "ill-conditioned")
    assert "add a little curvature" in told.advice
    cured = cvxift.diagnose(cp.Problem(cp.Minimize(cost + 1e-3 * cp.sum_squares(x))))
    assert cured.ok and not any(f.cause == "ill-conditioned" for f in cured.findings)


def test_the_same_parameter_holds_constraints_together() -> None:
    x, theta = cp.Variable(2, name="x"), cp.Parameter(2, name="theta", value=np.ones(2))
    cost = cp.Minimize(cp.sum_squares(x))
    rows = [cp.sum(x) == theta[0], x[0] == x[1]]
    told = finding(cvxift.diagnose(cp.Problem(cost, [*rows, 2 * x[0] == theta[1]])), "torn apart")
    assert "depend on the same parameters" in told.advice
    together = cvxift.diagnose(cp.Problem(cost, [*rows, 2 * x[0] == theta[0]]))
    assert together.ok and together.verdict is cvxift.Verdict.PRIMAL_ONLY
