"""What a report says, in which forms, and of which subjects."""

from __future__ import annotations

import json

import cvxpy as cp
import numpy as np
import pytest

import cvxift
from cvxift.errors import ProgramError


def simplex(target):
    x = cp.Variable(len(target), name="x")
    theta = cp.Parameter(len(target), name="theta", value=np.asarray(target, dtype=float))
    return cp.Problem(cp.Minimize(cp.sum_squares(x - theta)), [cp.sum(x) == 1, x >= 0])


def test_forms_agree() -> None:
    report = cvxift.diagnose(simplex([0.5, 0.5, 0.0]))
    told = json.loads(report.to_json())
    assert told["verdict"] == "one-sided" and told["ok"] is False
    assert told["findings"][-1]["cause"] == "weakly active" and "(2,)" in told["findings"][-1]["text"]
    for form in (str(report), report._repr_html_()):
        assert "one-sided" in form and "weakly active" in form
    assert "<script" not in report._repr_html_() and "&gt;=" in report._repr_html_()
    assert "\x1b" not in str(report)


def test_rich_prints_the_same_words() -> None:
    console = pytest.importorskip("rich.console").Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    report = cvxift.diagnose(simplex([0.5, 0.5, 0.0]))
    console.print(report)
    text = console.export_text()
    assert "one-sided" in text and "condition number" in text and "entry (2,)" in text


def test_plot_has_three_panels() -> None:
    pytest.importorskip("matplotlib")
    figure = cvxift.diagnose(simplex([0.5, 0.4, -1.0])).plot()
    assert [axes.get_title() for axes in figure.axes] == ["active set", "margins", "singular values"]


def test_active_set_and_residuals() -> None:
    report = cvxift.diagnose(simplex([0.5, 0.5, 0.0]))
    states = [row.state for row in report.active_set]
    assert states == ["equality", "inactive", "inactive", "weakly active"]
    assert max(report.residuals.values()) < 1e-10 and any("constraint 0" in name for name in report.residuals)


def test_sensitivity_carries_its_report() -> None:
    s = cvxift.differentiate(simplex([0.5, 0.4, -1.0]))
    assert s.report.ok and cvxift.diagnose(s) is s.report


def test_dependent_group_is_minimal_and_named() -> None:
    z, b = cp.Variable(4, name="z"), cp.Parameter(3, name="b", value=np.array([0.3, 0.2, 1.0]))
    A = np.array([[1.0, 2.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    problem = cp.Problem(cp.Minimize(cp.sum_squares(z)), [cp.sum(z) == 1, A @ z == b, z <= 9])
    report = cvxift.diagnose(problem)
    finding = next(f for f in report.findings if f.cause in ("dependent constraints", "torn apart"))
    assert len(finding.where) == 2
    assert finding.where[0].startswith("constraint 0") and finding.where[1].endswith("entry (2,)")


def test_flat_direction_names_the_entries() -> None:
    x, c = cp.Variable(3, name="x"), cp.Parameter(3, name="c", value=np.array([1.0, 1.0, 3.0]))
    report = cvxift.diagnose(cp.Problem(cp.Minimize(c @ x), [cp.sum(x) == 1, x >= 0]))
    finding = next(f for f in report.findings if f.cause == "flat direction")
    assert set(finding.where) == {"x[0]", "x[1]"}


def test_duals_that_are_asked_for_must_be_unique() -> None:
    x, theta = cp.Variable(2), cp.Parameter(2, value=np.array([0.2, 0.9]))
    dependent = [cp.sum(x) == 1, x[0] == x[1], 2 * x[0] == 1]  # the third is the sum of the others
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - theta)), dependent)
    assert cvxift.diagnose(problem).ok
    asked = cvxift.diagnose(problem, outputs=[x, dependent[0].dual_variables[0]])
    assert asked.verdict is cvxift.Verdict.PRIMAL_ONLY and not asked.ok


@pytest.mark.parametrize("seed", range(5))
def test_singular_values_are_those_of_numpy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, q = cp.Variable(8), cp.Parameter(8, value=rng.standard_normal(8))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x) + q @ x), [rng.standard_normal((3, 8)) @ x == 1])
    kernel = cvxift.diagnose(problem).analysis.kernel
    scaled = kernel.scale[:, None] * kernel.K.toarray() * kernel.scale
    values = np.linalg.svd(scaled, compute_uv=False)
    assert kernel.condition == pytest.approx(values[0] / values[-1], rel=1e-9)


@pytest.mark.parametrize("dependent", [False, True])
def test_large_and_small_paths_agree(dependent: bool, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    x, q = cp.Variable(30), cp.Parameter(30, value=rng.standard_normal(30))
    G = rng.standard_normal((8, 30))
    rows = [G @ x == 1] + ([G[:2].sum(axis=0) @ x == 2, cp.sum(G[2:4], axis=0) @ x == 2] if dependent else [])
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x) + q @ x), [*rows, x <= 0.8])
    small = cvxift.diagnose(problem)
    monkeypatch.setattr("cvxift.kkt.regularity.kernel.ALL_EIGENVALUES", 10)
    large = cvxift.diagnose(problem)
    assert small.analysis.kernel.exact and not large.analysis.kernel.exact
    assert large.verdict is small.verdict
    assert large.analysis.kernel.null.shape == small.analysis.kernel.null.shape
    assert large.analysis.kernel.smallest == pytest.approx(small.analysis.kernel.smallest, rel=1e-6)


@pytest.mark.parametrize("two", [{"nlp": True, "gp": True}, {"gp": True, "integers": "fixed"}])
def test_two_readings_of_a_problem_exclude_each_other(two) -> None:
    problem = simplex([0.5, 0.5, 0.0])
    with pytest.raises(ProgramError, match="exclude each other") as raised:
        cvxift.differentiate(problem, **two)
    assert cvxift.diagnose(problem, **two).faults[0].text == str(raised.value)


def test_bad_input_is_reported_not_raised() -> None:
    problem = simplex([0.5, 0.4, -1.0])
    assert "no tensors" in cvxift.diagnose(problem, np.ones(3)).faults[0].text
    with pytest.raises(ProgramError, match="Cannot diagnose an object of type int"):
        cvxift.diagnose(3)
    unsolved = cvxift.diagnose(
        cp.Problem(cp.Minimize(cp.sum_squares(cp.Variable(2, name="x"))), [cp.Parameter(name="a", value=1.0) <= 0])
    )
    assert unsolved.verdict is cvxift.Verdict.NOT_OPTIMAL
    with pytest.raises(ProgramError, match="no optimal point"):
        unsolved.system()
    with pytest.raises(ProgramError, match="choose 'full' or 'reduced'"):
        cvxift.diagnose(problem).system("half")


def test_multipliers_of_rows_that_leave_the_program_do_not_hide_the_others() -> None:
    S = cp.Parameter((4, 4), value=np.random.default_rng(0).standard_normal((4, 4)))
    P = cp.Variable((4, 4))
    sums = [cp.sum(P, axis=0) == 1, cp.sum(P, axis=1) == 1]  # dependent; P ≥ 0 holds by the entropy's domain
    problem = cp.Problem(cp.Maximize(cp.sum(cp.multiply(S, P)) + cp.sum(cp.entr(P)) / 2), [*sums, P >= 0])
    s = cvxift.differentiate(problem, check="off")
    with np.errstate(invalid="raise"):
        tangents = s.jvp({S: np.ones((4, 4))})
    assert np.abs(tangents[P]).max() < 1e-9 and s.report.verdict is cvxift.Verdict.PRIMAL_ONLY
