"""The report at regular points and at each kind of failure, with the same words in both frameworks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from implicit_faces import Face

import cvxift
from cvxift.diagnostics import Report


def circle(face: Face) -> Any:
    return face.implicit.implicit_root(lambda x, t: t**2 + x**2 - 1.0, lambda t: face.xp.sqrt(1.0 - t**2))


def test_a_regular_point(face: Face) -> None:
    report = circle(face).diagnose(face.array(0.6))
    assert cvxift.diagnose(circle(face), face.array(0.6)).to_dict() == report.to_dict()
    assert isinstance(report, Report) and report.ok and report.verdict.value == "applies"
    assert {check.name for check in report.checks} == {"residual", "smoothness", "condition", "error bound"}
    assert abs(report.spectrum.smallest) > 0.0 and report.condition == pytest.approx(1.0)
    assert report.audit().agrees and "applies" in str(report) and report.to_dict()["ok"]


def test_where_the_circle_is_vertical(face: Face) -> None:
    report = circle(face).diagnose(face.array(1.0))
    assert report.verdict.value == "does not apply" and report.faults[0].cause == "singular Jacobian"
    assert report.faults[0].where == ("x",)


def test_a_point_that_is_no_solution(face: Face) -> None:
    solve = face.implicit.implicit_root(lambda x, t: 1e-9 * (x - t), lambda t: t * face.array([1.0, 1.001, 1.0]))
    report = solve.diagnose(face.array([1.0, 2.0, 3.0]))
    assert report.verdict.value == "point not optimal" and report.faults[0].where == ("x[1]",)


def test_a_kink_is_named(face: Face) -> None:
    # x = |t| + … has a kink at t₁ = 0.
    solve = face.implicit.implicit_root(lambda x, t: x - face.xp.abs(t) - t, lambda t: face.xp.abs(t) + t)
    report = solve.diagnose(face.array([0.5, 0.0, -0.3]))
    assert report.verdict.value == "one-sided" and report.faults[0].cause == "kink"
    assert report.faults[0].where == ("theta[0][1]", "x[1]")
    assert solve.diagnose(face.array([0.5, 0.1, -0.3])).ok


def test_strong_curvature_is_no_kink(face: Face) -> None:
    solve = face.implicit.implicit_root(lambda x, t: x - face.xp.tanh(50.0 * t), lambda t: face.xp.tanh(50.0 * t))
    assert solve.diagnose(face.array([0.0, 0.01])).verdict.value == "applies"


def test_a_maximum(face: Face) -> None:
    solve = face.implicit.implicit_argmin(lambda x, t: -((x - t) ** 2).sum(), lambda t: t * 1.0)
    report = solve.diagnose(face.array([1.0, 2.0]))
    assert report.verdict.value == "point not optimal" and report.faults[0].cause == "no minimum"


def test_constraints_multipliers_and_weak_rows(face: Face) -> None:
    solve = face.implicit.implicit_argmin(
        lambda x, t: 0.5 * ((x - t) ** 2).sum(), lambda t: np.maximum(np.asarray(t), 0.0), inequality=lambda x, t: -x
    )
    report = solve.diagnose(face.array([-1.0, 2.0]))
    assert report.ok and report.active == ("inequality[0]",)
    assert report.multipliers == pytest.approx({"inequality[0]": 1.0, "inequality[1]": 0.0})
    assert report.audit().agrees
    weak = solve.diagnose(face.array([0.0, 2.0]))
    assert weak.verdict.value == "one-sided" and weak.faults[0].where == ("inequality[0]",)


def test_dependent_constraints(face: Face) -> None:
    solve = face.implicit.implicit_argmin(
        lambda x, t: ((x - t) ** 2).sum(), lambda t: np.array([0.5, 0.5]) + (np.asarray(t) - np.mean(np.asarray(t))),
        equality=lambda x, t: [x.sum() - 1.0, 2.0 * x.sum() - 2.0],
    )  # fmt: skip
    assert solve.diagnose(face.array([1.0, 2.0])).verdict.value == "applies to the primal only"


def test_a_solver_of_another_problem_fails_the_audit(face: Face) -> None:
    solve = face.implicit.implicit_root(lambda x, t: x**2 - t**2, lambda t: face.xp.abs(t) * (t * 0.0 + 1.0))
    assert solve.diagnose(face.array([1.0])).audit().agrees
    wrong = face.implicit.implicit_root(lambda x, t: (x - 2.0) * (x - t), lambda t: t * 0.0 + 2.0)
    report = wrong.diagnose(face.array([1.0]))
    assert report.ok and report.audit().agrees  # the branch x = 2
    stale = face.implicit.implicit_root(lambda x, t: x - t, lambda t: t * 0.0 + 1.0)
    assert not stale.diagnose(face.array([1.0])).audit().agrees


def test_large_systems_by_lanczos(face: Face) -> None:
    diagonal = np.linspace(1.0, 50.0, 700)
    solve = face.implicit.implicit_argmin(
        lambda x, t: 0.5 * (face.array(diagonal) * x * x).sum() - (x * t).sum(), lambda t: t / face.array(diagonal)
    )
    report = solve.diagnose(face.array(np.ones(700)))
    assert report.ok and report.spectrum.largest == pytest.approx(50.0, rel=2e-2)
    assert 0.9 < report.spectrum.smallest < 2.0
