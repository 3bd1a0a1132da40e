"""What CVXPY 1.9's own nonlinear path gets wrong, and what cvxift does about each."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import cvxift

pytest.importorskip("unopy")
pytest.importorskip("cvxpy", minversion="1.9")

from differences import assert_close, differences  # beside this file


def test_bounds_and_starts_follow_the_variables() -> None:
    # The lowered problem lists y before x, the user's x before y.
    t, x, y = cp.Variable(name="t"), cp.Variable(bounds=[-1, 1], name="x"), cp.Variable(bounds=[5, 6], name="y")
    p = cp.Parameter(value=1.0)
    t.value, x.value, y.value = 3.0, 0.5, 5.5
    problem = cp.Problem(cp.Minimize(p * t), [x <= t + y])
    s = cvxift.differentiate(problem, nlp=True, solver="UNO")
    assert (s.value(x), s.value(y), s.value(t)) == pytest.approx((-1.0, 6.0, -7.0))


@pytest.mark.parametrize("solver", [None, "UNO"])
@pytest.mark.parametrize(
    ("objective", "constraints", "status"),
    [
        (lambda x: x, lambda x: [cp.square(x) == -1], "infeasible"),
        (lambda x: -cp.exp(x), lambda x: [], "unbounded"),
        (lambda x: x, lambda x: [x >= 1, x <= 0], "infeasible"),
        (lambda x: cp.square(x), lambda x: [cp.nlp.sin(x) == 2], "infeasible"),
        (lambda x: -cp.square(x), lambda x: [], "unbounded"),
        (lambda x: x**3, lambda x: [], "unbounded"),  # from 0.5 a solver stops near 0, where the slope vanishes
    ],
)
def test_no_solution_is_said(objective, constraints, status: str, solver: str | None) -> None:
    x = cp.Variable()
    x.value = 0.5
    problem = cp.Problem(cp.Minimize(objective(x)), constraints(x))
    with pytest.raises(cvxift.SolveError, match=status):
        cvxift.differentiate(problem, nlp=True, solver=solver)
    assert problem.status == status


@pytest.mark.parametrize("constrained", [False, True])
def test_a_flat_point_is_a_minimum_only_where_the_cost_grows(constrained: bool) -> None:
    x, y = cp.Variable(name="x"), cp.Variable(name="y")

    def found(cost, bounds=()) -> float:
        x.value, y.value = 0.7, 0.49
        rows = [*bounds, x + y == 1.19] if constrained else list(bounds)
        problem = cp.Problem(cp.Minimize(cost(x) + (cp.square(y - 0.49) if not constrained else 0.0)), rows)
        return float(cvxift.differentiate(problem, nlp=True, solver="UNO", check="off").value(x))

    assert abs(found(lambda x: x**4)) < 1e-2
    assert abs(found(lambda x: x**3, [x >= 0])) < 1e-2
    with pytest.raises(cvxift.SolveError):
        found(lambda x: x**3)
    with pytest.raises(cvxift.SolveError):  # its infimum is nowhere
        found(lambda x: cp.exp(x))


@pytest.mark.parametrize("tilt", [39.9, 40.1])  # from 40 on the cost falls for ever
def test_far_out_a_small_part_of_large_numbers_is_no_solution(tilt: float) -> None:
    x, p = cp.Variable(), cp.Parameter(value=tilt)
    x.value = 2.0
    problem = cp.Problem(cp.Minimize(cp.nlp.cos(40 * x) + p * x))
    if tilt < 40:
        s = cvxift.differentiate(problem, nlp=True)
        assert abs(-40 * np.sin(40 * s.value(x)) + tilt) < 1e-6
        return
    with pytest.raises(cvxift.SolveError):
        cvxift.differentiate(problem, nlp=True)


def test_saddles_one_after_the_other_are_left() -> None:
    x = cp.Variable(3)
    x.value = np.zeros(3)
    problem = cp.Problem(cp.Minimize(-cp.sum_squares(x)), [cp.square(x) <= 1])
    s = cvxift.differentiate(problem, nlp=True, solver="UNO")
    np.testing.assert_allclose(np.abs(s.value(x)), 1.0)


@pytest.mark.parametrize(
    "f",
    [
        lambda x, q: cp.quad_over_lin(x, q[0]),
        lambda x, q: cp.sum(cp.rel_entr(x, q)),
        lambda x, q: cp.sum(cp.kl_div(x, q)),
        lambda x, q: cp.norm(q) * x[0] + cp.sum_squares(x - 1),
        lambda x, q: cp.sum(cp.abs(q)) * x[0] + cp.sum_squares(x - 1),
        lambda x, q: cp.max(q) * x[0] + cp.sum_squares(x - 1),
        lambda x, q: cp.sum_squares(q) * x[0] + cp.sum_squares(x - 1),
    ],
)
def test_parameters_are_followed_and_differentiated(f) -> None:
    a = np.array([3.0, 4.0])
    x, q = cp.Variable(2), cp.Parameter(2, pos=True, value=a)
    problem = cp.Problem(cp.Minimize(f(x, q) + 0.1 * cp.sum_squares(x - a)))

    q.value = 1.5 * a
    cvxift.differentiate(problem, nlp=True, solver="UNO")
    q.value = a
    s = cvxift.differentiate(problem, nlp=True, solver="UNO")
    assert_close(s.jacobian(x, q), differences(s, x, q))
    problem.solve(solver="CLARABEL")
    np.testing.assert_allclose(s.value(x), x.value, atol=1e-3)


@pytest.mark.parametrize(
    ("f", "shape", "of"),
    [
        (lambda x, q: cp.norm_inf(q - 5) * x[0] - cp.norm(q, "inf") * x[1], 2, 2),
        (lambda x, q: cp.sum_squares(q, axis=0) @ x, (3, 2), 2),
        (lambda x, q: cp.max(cp.sum_squares(x - q, axis=1, keepdims=True)), (3, 2), (3, 2)),
        (lambda x, q: cp.sum_squares(cp.convolve(q, x) - 1), 3, 2),
        (lambda x, q: cp.sum_squares(cp.convolve(cp.exp(q / 4), 2 * x - 1) - 1), 3, 2),
        (lambda x, q: cp.sum_squares(cp.convolve(q, q)[:2] - x), 3, 2),
        (lambda x, q: cp.sum_squares(cp.kron(q, x) - 1), (2, 3), (2, 2)),
        (lambda x, q: cp.sum_squares(cp.kron(x, q) - 1), (2, 3), (2, 2)),
        (lambda x, q: cp.sum_squares(cp.kron(np.ones((2, 1)), x) - cp.sum(q)), 2, (2, 2)),
    ],
)
def test_atoms_without_a_derivative_of_cvxpys_are_written_out(f, shape, of) -> None:
    x, q = cp.Variable(of), cp.Parameter(shape, value=1.0 + np.arange(np.prod(shape)).reshape(shape))
    problem = cp.Problem(cp.Minimize(f(x, q) + 0.1 * cp.sum_squares(x - 1) + 0.01 * cp.sum(cp.exp(x))))
    s = cvxift.differentiate(problem, nlp=True, solver="UNO")
    assert_close(s.jacobian(x, q), differences(s, x, q))
    problem.solve(solver="CLARABEL")
    np.testing.assert_allclose(s.value(x), x.value, atol=1e-3)


def test_atoms_without_a_derivative_are_refused_by_name() -> None:
    x, q = cp.Variable(2), cp.Parameter(2, value=np.array([1.0, 2.0]))
    with pytest.raises(cvxift.ProgramError, match=r"takes constants alone.*dotsort\("):
        cvxift.differentiate(cp.Problem(cp.Minimize(cp.dotsort(x, q) + cp.sum_squares(x))), nlp=True)
    Q = cp.Parameter((2, 2), PSD=True, value=np.eye(2))
    s = cvxift.differentiate(cp.Problem(cp.Minimize(cp.sum_squares(x - cp.condition_number(Q)))), nlp=True)
    with pytest.raises(cvxift.ProgramError, match=r"no derivative of condition_number"):
        s.jacobian(x, Q)


def test_parametric_bounds_are_constraints() -> None:
    p = cp.Parameter(value=0.3, name="p")
    x = cp.Variable(2, bounds=[p, 5], name="x")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x + 1)))
    for value in (0.3, 0.5, 0.7):
        p.value, x.value = value, None
        s = cvxift.differentiate(problem, nlp=True, solver="UNO")
        np.testing.assert_allclose(s.value(x), value)
        np.testing.assert_allclose(s.jacobian(x, p), np.ones(2))
    assert any("x[0] >= p (bounds)" in s.program.row_labels[i].text for i in range(s.program.structure.m))


@pytest.mark.parametrize("solver", [None, "UNO"])
@pytest.mark.parametrize(
    ("low", "value", "slope"),
    [(lambda p: p * p, 0.49, 1.4), (cp.exp, np.exp(0.7), np.exp(0.7)), (lambda p: cp.abs(p) - 2, -1.3, 1.0)],
)  # fmt: skip
def test_bounds_may_be_nonlinear_in_parameters(low, value: float, slope: float, solver: str | None) -> None:
    p = cp.Parameter(value=0.7, name="p")
    x = cp.Variable(2, bounds=[low(p), 5], name="x")
    s = cvxift.differentiate(cp.Problem(cp.Minimize(cp.sum_squares(x + 3))), nlp=True, solver=solver)
    np.testing.assert_allclose(s.value(x), value)
    np.testing.assert_allclose(s.jacobian(x, p), slope)


def test_division_by_what_may_be_negative() -> None:
    x, q = cp.Variable(2), cp.Parameter(value=-2.0)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x) + cp.sum(x) / q + x[0] / -4.0))
    s = cvxift.differentiate(problem, nlp=True, solver="UNO")
    np.testing.assert_allclose(s.value(x), [0.25 + 0.125, 0.25], atol=1e-10)
    np.testing.assert_allclose(s.jacobian(x, q), 0.5 / 4.0 * np.ones(2), atol=1e-10)


def test_every_elementwise_kind_of_constraint_counts() -> None:
    x, p = cp.Variable(3), cp.Parameter(value=2.0)
    objective = cp.Minimize(cp.sum_squares(x))
    problem = cp.Problem(objective, [cp.NonNeg(x[0] - p), cp.Zero(x[1] - p), cp.NonPos(p - x[2])])
    s = cvxift.differentiate(problem, nlp=True, solver="UNO")
    np.testing.assert_allclose(s.value(x), 2.0)
    for constraint in problem.constraints:
        assert abs(s.value(constraint.dual_variables[0])) == pytest.approx(4.0)


def variables_of_kind(**kind) -> cp.Problem:
    X, c = cp.Variable((2, 2), **kind), cp.Parameter((2, 2), value=np.eye(2))
    return cp.Problem(cp.Minimize(cp.sum_squares(X - c)))


REFUSED = {
    "integer": (lambda: cp.Problem(cp.Minimize(cp.square(cp.Variable(integer=True, name="k")))), "'k' is integer"),
    "symmetric": (lambda: variables_of_kind(symmetric=True, name="X"), "'X' is declared symmetric"),
    "PSD": (lambda: variables_of_kind(PSD=True, name="X"), "'X' is declared PSD"),
    "diag": (lambda: variables_of_kind(diag=True, name="X"), "'X' is declared diag"),
    "cone": (lambda: cone_problem(), "nonlinear programs|PSD"),
    "log_det": (lambda: log_det_problem(), "log_det"),
    "pnorm": (lambda: pnorm_problem(), "norm"),
    "exponent": (lambda: exponent_problem(), "'p'"),
    "nonsmooth equality": (lambda: equality_problem(), r"abs\(x\)"),
}


def cone_problem() -> cp.Problem:
    X = cp.Variable((2, 2))
    return cp.Problem(cp.Minimize(cp.sum_squares(X)), [X >> np.eye(2)])


def log_det_problem() -> cp.Problem:
    X = cp.Variable((2, 2))
    return cp.Problem(cp.Minimize(-cp.log_det(X) + cp.sum_squares(X)))


def pnorm_problem() -> cp.Problem:
    x = cp.Variable(3)
    return cp.Problem(cp.Minimize(cp.pnorm(x - 1, 3)))


def exponent_problem() -> cp.Problem:
    x, p = cp.Variable(3), cp.Parameter(pos=True, value=2.0, name="p")
    return cp.Problem(cp.Minimize(cp.sum(cp.power(x, p))))


def equality_problem() -> cp.Problem:
    x = cp.Variable(3, name="x")
    return cp.Problem(cp.Minimize(cp.sum(x)), [cp.abs(x) == 1])


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_refused_by_name(name: str) -> None:
    build, words = REFUSED[name]
    with pytest.raises(cvxift.ProgramError, match=words):
        cvxift.differentiate(build(), nlp=True)


def test_parameters_outside_a_domain_are_told() -> None:
    x, p = cp.Variable(name="x"), cp.Parameter(value=-1.0, name="p")
    problem = cp.Problem(cp.Minimize(cp.square(x - cp.log(p))))
    with pytest.raises(cvxift.SolveError, match=r"log\(p\) has no finite value"):
        cvxift.differentiate(problem, nlp=True)


@pytest.mark.parametrize(
    ("f", "value", "slopes"),
    [
        (cp.abs, [0.0, 1.0], None),
        (lambda q: cp.hstack([cp.norm(q), 0.0]), [0.0, 0.0], None),
        (lambda q: cp.hstack([cp.max(q), 0.0]), [1.0, 1.0], None),
        (lambda q: cp.hstack([cp.max(q), 0.0]), [1.0, 1.0 + 1e-4], [[0.0, 1.0], [0.0, 0.0]]),
        (cp.abs, [-0.1, 1e-6], [[-1.0, 0.0], [0.0, 1.0]]),
        (lambda q: cp.square(cp.abs(q)), [0.0, 1.0], [[0.0, 0.0], [0.0, 2.0]]),
        (cp.huber, [1.0, 0.5], [[2.0, 0.0], [0.0, 1.0]]),
    ],
)
def test_kinks_of_what_depends_on_parameters_alone(f, value: list[float], slopes: list | None) -> None:
    x, q = cp.Variable(2, name="x"), cp.Parameter(2, name="q", value=value)
    s = cvxift.differentiate(cp.Problem(cp.Minimize(cp.sum_squares(x - f(q)))), nlp=True, check="raise")
    if slopes is None:
        with pytest.raises(cvxift.ApplicabilityError, match=r"\(q.*\) has a kink at the parameters' values"):
            s.jacobian(x, q)
        with pytest.raises(cvxift.ApplicabilityError, match="has a kink"):
            s.jvp({q: np.ones(2)})
    else:
        assert np.allclose(s.jacobian(x, q), slopes, atol=1e-9)


@pytest.mark.parametrize("size", [1e-2, 1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize("far", [1.0, 1e6])
def test_rounding_of_a_large_value_is_no_kink_of_small_parameters(size: float, far: float) -> None:
    x, q = cp.Variable(2, name="x"), cp.Parameter(2, name="q", value=[size, -size])
    away = far * np.array([0.6, 0.8])
    f = cp.hstack([cp.norm(q - away), far + cp.abs(q[0])])
    s = cvxift.differentiate(cp.Problem(cp.Minimize(cp.sum_squares(x - f))), nlp=True, check="raise")
    assert np.allclose(s.jacobian(x, q), [[-0.6, -0.8], [1.0, 0.0]], atol=2.0 * size / far + 1e-9)


def test_a_convex_solvers_infeasible_is_not_the_last_word() -> None:
    # To the cone solver a box of 1e-5 is empty.
    x, q = cp.Variable(2, name="x", bounds=[0, 1e-5]), cp.Parameter(2, name="q", value=[0.5, 2.0])
    s = cvxift.differentiate(cp.Problem(cp.Minimize(cp.sum_squares(1e5 * x - q))), nlp=True)
    assert np.allclose(s.jacobian(x, q), np.diag([1e-5, 0.0]), atol=1e-14)


def test_solvers_and_options_are_checked_by_name() -> None:
    x = cp.Variable(bounds=[0, 1])
    problem = cp.Problem(cp.Minimize(cp.square(x - 0.5) + cp.nlp.sin(x)))
    with pytest.raises(cvxift.ProgramError, match="CLARABEL"):
        cvxift.differentiate(problem, nlp=True, solver="CLARABEL")
    with pytest.raises(cvxift.ProgramError, match="best_of"):
        cvxift.differentiate(problem, nlp=True, solver_args={"best_of": 0})
    with pytest.raises(cvxift.ProgramError, match="no_such_option"):
        cvxift.differentiate(problem, nlp=True, solver_args={"no_such_option": 1.0})
    y = cp.Variable(2)
    y.value = np.array([1.0, 0.5])
    far = cp.Problem(
        cp.Minimize(cp.sum_squares(y - np.array([0.3, 0.9])) + 0.9 * y[0] * y[1]), [cp.sum_squares(y) == 2]
    )
    with pytest.raises(cvxift.SolveError, match="limit"):
        cvxift.differentiate(far, nlp=True, solver_args={"max_iterations": 0})


def test_the_refusal_of_a_convex_problem_names_the_way() -> None:
    w, a, b = cp.Variable(2), cp.Parameter(nonneg=True, value=2.0), cp.Parameter(nonneg=True, value=3.0)
    problem = cp.Problem(cp.Minimize(a * b * cp.sum_squares(w) - cp.sum(w)))
    with pytest.raises(cvxift.ProgramError, match="nlp=True"):
        cvxift.differentiate(problem)
    s = cvxift.differentiate(problem, nlp=True)
    np.testing.assert_allclose(s.value(w), 1.0 / 12.0)
    np.testing.assert_allclose(s.jacobian(w, a), -1.0 / 24.0)
    nonconvex = cp.Problem(cp.Minimize(cp.nlp.sin(w[0]) + a * cp.sum_squares(w)))
    with pytest.raises(cvxift.ProgramError, match="nlp=True"):
        cvxift.differentiate(nonconvex)


def test_a_slack_norm_leaves_the_point_accurate() -> None:
    # Its epigraph's rows are tight without a multiplier: Newton's full step is worse once, then exact.
    rng = np.random.default_rng(0)
    F = 0.3 * rng.standard_normal((5, 5))
    returns, held = 0.3 * rng.standard_normal((12, 5)), rng.dirichlet(np.ones(5), 12)
    w, mu, a = cp.Variable(5), cp.Parameter(5), cp.Parameter(pos=True)
    for k in range(12):
        cost = 0.6 * a * cp.quad_form(w, F @ F.T + 0.05 * np.eye(5)) + 0.3 * cp.sum_squares(w - held[k])
        problem = cp.Problem(cp.Minimize(cost - mu @ w), [cp.sum(w) == 1, cp.norm1(w) <= 1 + 1 / a])
        for a.value in (1.0, 1.5):
            mu.value = returns[k]
            s = cvxift.differentiate(problem, nlp=True)
            assert s.residuals.worst < 1e-9
            assert_close(s.jacobian(w, a), differences(s, w, a))


def test_rounding_of_a_bound_far_away_is_no_error_of_the_point() -> None:
    x, q = cp.Variable(2, name="x"), cp.Parameter(2, name="q", value=[1.0, 2.0])
    cost = cp.sum_squares(x - q[0] * q[1]) + 0.1 * cp.sum(cp.exp(x))
    problem = cp.Problem(cp.Minimize(cost), [x <= 1e7])
    for k in range(4):
        q.value = np.array([1.0, 2.0]) + (-1) ** k * 2e-5 * np.eye(2)[k // 2]
        s = cvxift.differentiate(problem, nlp=True)
        curvature = 2.0 + 0.1 * np.exp(s.value(x))
        assert np.allclose(s.jacobian(x, q), 2.0 * q.value[::-1] / curvature[:, None], rtol=1e-9)
