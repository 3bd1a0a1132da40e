"""A parameter at the end of its own domain has one side, and the derivative from it is given and called so."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import cvxift
from cvxift.errors import ProgramError

V = np.array([1.0, 2.0])
x, a = cp.Variable(2, name="x"), cp.Parameter(name="a", nonneg=True)
PENALTIES = {  # term, its derivative at V where x is free: dx/da = −½ of it
    "norm1": (cp.norm1(x), np.ones(2)),
    "norm2": (cp.norm(x), V / np.linalg.norm(V)),
    "pos": (cp.sum(cp.pos(x)), np.ones(2)),
    "max": (cp.max(x), np.array([0.0, 1.0])),
    "tv": (cp.tv(x), np.array([-1.0, 1.0])),
    "huber": (cp.sum(cp.huber(x)), np.array([2.0, 2.0])),
    "logistic": (cp.sum(cp.logistic(x)), 1.0 / (1.0 + np.exp(-V))),
    "exp": (cp.sum(cp.exp(x)), np.exp(V)),
    "fourth power": (cp.power(x[0], 4), np.array([4.0, 0.0])),
}


def penalized(term, constraints=()) -> cp.Problem:
    x.value, a.value = None, 0.0
    return cp.Problem(cp.Minimize(cp.sum_squares(x - V) + a * term), list(constraints))


@pytest.mark.parametrize("name", PENALTIES)
def test_a_weight_of_zero_has_the_derivative_of_its_side(name) -> None:
    term, gradient = PENALTIES[name]
    report = cvxift.diagnose(penalized(term))
    assert report.verdict is cvxift.Verdict.ONE_SIDED
    assert [f.cause for f in report.faults] == ["parameter at its bound"], str(report)
    assert report.faults[0].where == ("a >= 0 (nonneg=True)",)
    np.testing.assert_allclose(report.one_sided({a: 1.0})[x], -gradient / 2, atol=1e-6)
    with pytest.raises(ProgramError, match="a >= 0"):
        report.one_sided({a: -1.0})


def test_a_smooth_term_of_weight_zero_is_no_matter() -> None:
    assert cvxift.diagnose(penalized(cp.sum_squares(x))).verdict is cvxift.Verdict.APPLIES


def test_a_weight_of_zero_on_the_only_cost_leaves_other_solutions() -> None:
    x.value, a.value = None, 0.0
    report = cvxift.diagnose(cp.Problem(cp.Minimize(a * cp.sum_squares(x - V)), [x <= 5]))
    assert report.verdict is cvxift.Verdict.DOES_NOT_APPLY
    assert "parameter at its bound" not in {f.cause for f in report.faults}


def test_another_kink_at_a_weight_of_zero_is_told() -> None:
    t = cp.Parameter(2, name="t", value=V)
    x.value, a.value = None, 0.0
    report = cvxift.diagnose(
        cp.Problem(cp.Minimize(cp.sum_squares(x - t) + a * cp.sum_squares(x[1])), [x[0] >= 1, x[1] >= -1])
    )
    assert [f.cause for f in report.faults] == ["weakly active"]


def test_a_weight_inside_its_domain_is_none_of_this() -> None:
    problem = penalized(cp.norm1(x))
    a.value = 1e-3
    assert cvxift.diagnose(problem).verdict is cvxift.Verdict.APPLIES


def test_one_side_of_a_corner_whose_parameters_have_units_of_their_own() -> None:
    y, t, unit = cp.Variable(2), cp.Parameter(2, value=[1e-3, 0.0]), np.array([1e3, 1e-3])
    target = cp.multiply(unit, t)  # (1, 0): the corner of a right angle that opens along the first axis
    problem = cp.Problem(cp.Minimize(cp.sum_squares(y - target)), [cp.sum(y) >= 1, y[0] - y[1] >= 1])
    report = cvxift.diagnose(problem)
    for sign in (1.0, -1.0):  # onto the nearer side of the angle
        found = report.one_sided({t: np.array([0.5, sign]) / unit})[y]
        np.testing.assert_allclose(found, [0.75, 0.75 * sign], atol=1e-6)


def test_a_weight_of_zero_is_named_alone():
    """The data beside it may move to both sides; what they would say of a negative weight is the weight's matter."""
    rng = np.random.default_rng(0)
    a, X, y = cp.Variable(2, name="a"), cp.Parameter((9, 2), name="X"), cp.Parameter(9, name="y")
    weight, ridge = (cp.Parameter(nonneg=True, name=name) for name in ("weight", "ridge"))
    cost = cp.sum_squares(X @ a - y) + weight * cp.norm1(a) + ridge * cp.sum_squares(a)
    X.value, y.value, weight.value, ridge.value = rng.normal(size=(9, 2)), rng.normal(size=9), 0.0, 0.0
    s = cvxift.differentiate(cp.Problem(cp.Minimize(cost)))
    with pytest.warns(cvxift.ApplicabilityWarning, match="changes of weight to one side lead") as told:
        gradients = s.vjp({a: np.ones(2)})
    assert len(told) == 1
    pseudo = np.linalg.pinv(X.value)
    assert np.allclose(gradients[y], pseudo.T @ np.ones(2), atol=1e-9)
