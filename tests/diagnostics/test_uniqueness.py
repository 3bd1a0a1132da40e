"""A solution is called not unique only where another one exists, and infinite speed is not called one-sided."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import cvxift
from cvxift import Verdict

x, c = cp.Variable(2, name="x"), cp.Parameter(2, name="c", value=np.array([0.3, 0.4]))
y, t = cp.Variable(name="y"), cp.Parameter(name="t", value=0.0)
X, C = cp.Variable((2, 2), name="X", symmetric=True), cp.Parameter((2, 2), name="C", value=np.eye(2))


def causes(report) -> set[str]:
    return {finding.cause for finding in report.faults}


def fresh(objective, constraints=()) -> cp.Problem:
    for variable in (x, y, X):
        variable.value = None
    return cp.Problem(cp.Minimize(objective), list(constraints))


@pytest.mark.parametrize("q", [1.5, 1.7, 2, 2.5, 3, 4, 6])
def test_a_sum_of_powers_has_one_solution(q) -> None:
    report = cvxift.diagnose(fresh(cp.sum(cp.power(cp.abs(x - c), q))))
    assert "flat direction" not in causes(report)
    assert report.to_dict()["unique"]["primal"]
    if q > 2:  # the second-order condition fails: dx/dc = I, which no linear system at the point tells
        assert report.verdict is Verdict.DOES_NOT_APPLY
        assert "vanishing curvature" in causes(report) and "curvature vanishes" in str(report)


FLAT = {
    "a line of solutions": lambda: fresh(cp.square(cp.sum(x) - t)),
    "a face of a linear program": lambda: fresh(cp.sum(x), [x >= 0, cp.sum(x) >= 1]),
    "free inside a ball": lambda: fresh(cp.square(x[0] - c[0]), [cp.norm(x) <= 2]),
    "a power of one entry alone": lambda: fresh(cp.power(x[0] - c[0], 4)),
    "a power beside a flat entry": lambda: fresh(cp.power(x[0] - x[1], 4) + cp.square(y - t)),
    "a face of a semidefinite cone": lambda: fresh(cp.trace(X), [X >> 0, cp.trace(X) >= 1, cp.trace(C) * y == 1]),
    "the flat part of a hinge": lambda: fresh(cp.sum(cp.pos(x - c)), [x >= -5]),
    "the flat part of a squared hinge": lambda: fresh(cp.sum_squares(cp.pos(x - c)), [x >= -5]),
}


@pytest.mark.parametrize("name", FLAT)
def test_another_solution_is_seen(name) -> None:
    problem = FLAT[name]()
    report = cvxift.diagnose(problem)
    assert report.verdict is Verdict.DOES_NOT_APPLY and "flat direction" in causes(report), str(report)
    assert not report.to_dict()["unique"]["primal"]


INFINITE = {  # problem, and dy/dt on the side where t grows
    "a fourth power": (lambda: fresh(cp.power(y, 4) - t * y), np.inf),
    "a cube": (lambda: fresh(cp.power(cp.abs(y), 3) - t * y), np.inf),
    "a power of 2.5": (lambda: fresh(cp.power(cp.abs(y), 2.5) + t * y), -np.inf),
    "the edge of feasibility": (lambda: fresh(y, [cp.square(y) <= t]), -np.inf),
    "the edge of a power's": (lambda: fresh(y, [cp.power(cp.abs(y), 1.5) <= t]), -np.inf),
}


@pytest.mark.parametrize("name", INFINITE)
def test_infinite_speed_is_not_one_sided(name) -> None:
    make, truth = INFINITE[name]
    report = cvxift.diagnose(make())
    assert report.verdict is Verdict.DOES_NOT_APPLY and "flat direction" not in causes(report)
    assert report.one_sided({t: 1.0})[y] == truth
    assert "derivative is right" not in str(report)


@pytest.mark.parametrize("apart", [False, True])
def test_dependent_constraints_are_harmless_only_where_nothing_moves_them_apart(apart) -> None:
    report = cvxift.diagnose(
        fresh(cp.sum_squares(x - c), [cp.sum(x) <= t, cp.sum(x) >= 0.0] if apart else [cp.norm_inf(x) <= 0.0])
    )
    assert ("derivative is right" in str(report)) == report.ok == (not apart), str(report)


FINITE = {
    "a hinge": (lambda: fresh(cp.square(y - t), [y >= 0]), 1.0),
    "a ball that opens": (lambda: fresh(cp.sum(x), [cp.norm(x) <= t]), None),
    "a power of 1.5": (lambda: fresh(cp.power(cp.abs(y), 1.5) - t * y), 0.0),
    "a smooth point": (lambda: fresh(cp.exp(y) - (1 + t) * y), 1.0),
}


@pytest.mark.parametrize("name", FINITE)
def test_finite_speed_is_not_called_infinite(name) -> None:
    make, truth = FINITE[name]
    report = cvxift.diagnose(make())
    found = report.one_sided({t: 1.0})
    if truth is None:
        np.testing.assert_allclose(found[x], -np.sqrt([0.5, 0.5]), atol=1e-5)
    else:  # NaN says that the neighbours' points are too inaccurate to tell
        assert (
            np.isnan(found[y])
            if name == "a power of 1.5" and np.isnan(found[y])
            else found[y] == pytest.approx(truth, abs=1e-5)
        )
    assert "infinite speed" not in causes(report)


@pytest.mark.parametrize("unit", [1.0, 1e-4, 1e-5, 1e4])
@pytest.mark.parametrize("place", [[0.6, 0.8, 1.0], [1.0, 0.0, 1.0], [-0.6, -0.8, -1.0]])
def test_a_curved_kink_is_one_in_every_unit(unit, place) -> None:
    z, place = cp.Variable(3), cp.Parameter(3, value=place)  # on the boundary of the cone, or of its polar
    problem = cp.Problem(cp.Minimize(cp.sum_squares(unit * z - place)), [cp.norm(z[:2]) <= z[2]])
    report = cvxift.diagnose(problem)
    assert report.verdict is Verdict.ONE_SIDED and report.margin < 1e-7, str(report)


@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e4])
def test_one_side_of_a_norm_that_just_vanishes(unit) -> None:
    z, place = cp.Variable(2), cp.Parameter(2, value=[0.5, 0.0])
    report = cvxift.diagnose(cp.Problem(cp.Minimize(cp.sum_squares(unit * z - place) + cp.norm(unit * z))))
    for direction, slope in (([1.0, 0.0], [1.0, 0.0]), ([-1.0, 0.0], [0.0, 0.0]), ([0.0, 1.0], [0.0, 0.0])):
        found = report.one_sided({place: np.array(direction)})[z] * unit
        np.testing.assert_allclose(found, slope, atol=1e-5)


@pytest.mark.parametrize("unit", [1.0, 1e4, 1e6])
def test_rounding_that_grows_is_no_infinite_speed(unit):
    # x = λ_max(1 − 11ᵀ − D): 0 on one side of D = 0 along e₁e₁ᵀ, two eigenvalues of 1 being left, and 2/3 on the other.
    x, D = cp.Variable(), cp.Parameter((3, 3), symmetric=True, value=np.zeros((3, 3)))
    matrix = x * np.eye(3) + np.ones((3, 3)) - np.eye(3) + D
    report = cvxift.diagnose(cp.Problem(cp.Minimize(x), [unit * matrix >> 0]))
    for sign, expected in ((1.0, 0.0), (-1.0, 2 / 3)):
        found = report.one_sided({D: sign * np.diag([1.0, 0.0, 0.0])})[x]
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("cost", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("power", [0.25, 0.5, 2 / 3])
def test_a_solution_that_leaves_like_a_power_has_a_derivative_of_zero_from_each_side(power, cost) -> None:
    """y = max(t, 0) ** (1/power)."""
    report = cvxift.diagnose(fresh(cost * y, [cp.power(y, power) >= t]))
    for sign in (1.0, -1.0):
        np.testing.assert_allclose(report.one_sided({t: sign})[y], 0.0, atol=1e-7)


@pytest.mark.parametrize(
    "form",
    [
        lambda e: cp.square(cp.norm(e)),
        lambda e: cp.power(cp.norm(e), 2),
        lambda e: cp.quad_over_lin(cp.norm(e), 1),
        lambda e: cp.sum(cp.square(cp.norm(cp.reshape(e, (2, 2), order="F"), axis=1))),
        lambda e: cp.sum_squares(cp.abs(e)),
    ],
    ids=["square", "power", "quad_over_lin", "axis", "abs"],
)
@pytest.mark.parametrize("radius", [None, 1.0])
def test_the_square_of_a_norm_is_a_sum_of_squares(form, radius):
    """At the minimum, where the norm has a kink; and as a ball, on which c is projected."""
    x, c = cp.Variable(4), cp.Parameter(4, value=np.array([1.0, 2.0, -3.0, 0.5]))
    ball = [] if radius is None else [form(x) <= radius**2]
    problem = cp.Problem(cp.Minimize(form(x - c)), ball)
    report = cvxift.diagnose(problem)
    assert report.ok
    assert not any("norm at zero" in finding.text for finding in report.findings)
    size = np.linalg.norm(c.value)
    u = c.value / size
    right = np.eye(4) if radius is None else radius * (np.eye(4) - np.outer(u, u)) / size
    np.testing.assert_allclose(cvxift.differentiate(problem, check="raise").jacobian(x, c), right, atol=1e-7)


def test_squares_of_many_norms_are_each_their_own():
    """Σᵢ i ‖xᵢ‖² ≤ 1 beside Σᵢ ‖xᵢ − cᵢ‖², stated by norms and by sums of squares."""
    c0 = np.arange(1.0, 13.0).reshape(6, 2)
    found = []
    for square in (lambda e: cp.square(cp.norm(e)), cp.sum_squares):
        x, c = cp.Variable((6, 2)), cp.Parameter((6, 2), value=c0)
        cost = sum(square(x[i] - c[i]) for i in range(6))
        problem = cp.Problem(cp.Minimize(cost), [sum((i + 1) * square(x[i]) for i in range(6)) <= 1])
        sensitivity = cvxift.differentiate(problem)
        found.append((x.value, sensitivity.vjp({x: np.ones((6, 2))})[c]))
        assert not [finding for finding in cvxift.diagnose(problem).findings if "norm at zero" in finding.text]
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-8)
