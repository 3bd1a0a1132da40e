"""Validity radius, one-sided derivatives, and the finite-difference audit."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import cvxift
from cvxift.errors import ProgramError


def random_qp(seed: int):
    rng = np.random.default_rng(seed)
    n, m = 5, 7
    x = cp.Variable(n, name="x")
    q, h = (
        cp.Parameter(n, name="q", value=3 * rng.standard_normal(n)),
        cp.Parameter(m, name="h", value=rng.uniform(0.2, 2, m)),
    )
    root = rng.standard_normal((n, n))
    inequality = rng.standard_normal((m, n)) @ x <= h
    problem = cp.Problem(cp.Minimize(0.5 * cp.quad_form(x, root @ root.T + np.eye(n)) + q @ x), [inequality])
    return problem, q, h, {q: rng.standard_normal(n), h: rng.standard_normal(m)}


def active(problem: cp.Problem) -> list[bool]:
    report = cvxift.diagnose(problem, solver="clarabel")
    return [row.state == "active" for row in report.active_set]


@pytest.mark.parametrize("seed", range(12))
def test_the_active_set_changes_at_the_radius(seed: int) -> None:
    problem, q, h, direction = random_qp(seed)
    report = cvxift.diagnose(problem)
    t = report.radius(direction)
    if t.distance == np.inf:  # nothing changes on this side
        direction = {p: -value for p, value in direction.items()}
        t = report.radius(direction)
    assert 0.0 < t.distance < np.inf and t.limit.startswith("constraint 0")
    start, before = {p: p.value for p in (q, h)}, active(problem)
    for factor, same in ((0.99, True), (1.01, False)):
        for p in (q, h):
            p.value = start[p] + factor * t.distance * direction[p]
        assert (active(problem) == before) is same, f"at {factor} of the radius"


@pytest.mark.parametrize("seed", range(6))
def test_the_ball_holds_the_active_set(seed: int) -> None:
    problem, q, _, _ = random_qp(seed)
    radii, before = cvxift.diagnose(problem).radii, active(problem)
    start, rng = q.value, np.random.default_rng(100 + seed)
    for _ in range(4):
        step = rng.standard_normal(q.size)
        q.value = start + 0.99 * radii["q"].distance * step / np.linalg.norm(step)
        assert active(problem) == before


def test_gradient_is_one_sided_at_a_kink() -> None:
    x, t = cp.Variable(2, name="x"), cp.Parameter(2, name="t", value=np.array([0.0, 1.0]))
    report = cvxift.diagnose(cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [x >= 0]))
    e = np.array([1.0, 0.0])
    assert report.radius({t: e}).distance == 0.0 and report.radii["t"].distance == 0.0
    np.testing.assert_allclose(report.one_sided({t: e})[x], [1.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(report.one_sided({t: -e})[x], [0.0, 0.0], atol=1e-9)


def test_a_bad_direction_is_refused() -> None:
    problem, q, _, _ = random_qp(0)
    report = cvxift.diagnose(problem)
    with pytest.raises(ProgramError, match=r"direction of parameter 'q' has shape \(2,\); expected \(5,\)"):
        report.radius({q: np.ones(2)})
    with pytest.raises(ProgramError, match="'other' is not in the problem"):
        report.radius({cp.Parameter(name="other"): 1.0})


def test_audit_agrees_where_the_theorem_applies_and_explains_where_not() -> None:
    problem, *_ = random_qp(3)
    assert cvxift.diagnose(problem).audit().agrees
    x, t = cp.Variable(2, name="x"), cp.Parameter(2, name="t", value=np.array([0.0, 1.0]))
    told = cvxift.diagnose(cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [x >= 0])).audit()
    assert not told.agrees and "one-sided" in told.explanation
    t.value = np.array([1e-5, 1.0])
    told = cvxift.diagnose(cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [x >= 0])).audit()
    assert not told.agrees and "active set changes" in told.explanation


@pytest.mark.parametrize("apart", [0.0, 0.1])
def test_audit_sees_a_tie_whose_central_difference_is_the_mean_of_both_sides(apart: float) -> None:
    x, a = cp.Variable(name="x"), cp.Parameter(2, name="a", value=np.array([1.0, 1.0 + apart]))
    told = cvxift.diagnose(cp.Problem(cp.Minimize(cp.square(x)), [x >= a[0], x >= a[1]])).audit()  # x = max(a)
    assert told.agrees is bool(apart), told


@pytest.mark.parametrize("unit", [1.0, 1e3, 1e6])
def test_audit_sees_a_kink_of_an_output_in_a_large_unit(unit: float) -> None:
    # The entry on its kink is 1/unit in the variable's units, beside one of 100.
    columns, x, c = np.array([unit, 1e-2]), cp.Variable(2, name="x"), cp.Parameter(2, name="c")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(cp.multiply(columns, x) - c)), [unit * x[0] <= 1])
    for first, agrees in ((1.0, False), (1.3, True)):
        c.value, x.value = np.array([first, 2.0]), None
        told = cvxift.diagnose(problem).audit()
        assert told.agrees is agrees, told


@pytest.mark.parametrize("maker", ["entropy", "ball", "gp"])
def test_audit_over_curved_problems(maker: str) -> None:
    x, c = cp.Variable(3, name="x", pos=maker == "gp"), cp.Parameter(3, value=np.array([0.3, 0.5, 0.9]), pos=True)
    problem = {
        "entropy": lambda: cp.Problem(cp.Maximize(c @ x + cp.sum(cp.entr(x))), [cp.sum(x) == 1]),
        "ball": lambda: cp.Problem(cp.Minimize(c @ x), [cp.norm(x) <= 1]),
        "gp": lambda: cp.Problem(cp.Minimize(c[0] / x[0] + c[1] / x[1] + x[0] * x[1] * x[2] + c[2] / x[2])),
    }[maker]()
    told = cvxift.diagnose(problem, gp=maker == "gp").audit()
    assert told.agrees, told
