"""Reports on nonlinear programs: the labelled corpus, and what else a report answers."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import cvxift
from cvxift import cli

pytest.importorskip("unopy")
pytest.importorskip("cvxpy", minversion="1.9")

from nlp_corpus import CORPUS  # beside this file


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CORPUS)
def test_corpus(name: str) -> None:
    build, verdict, cause = CORPUS[name]
    report = cvxift.diagnose(build(), nlp=True)
    causes = [finding.cause for finding in report.findings]
    assert report.verdict.value == verdict, causes
    assert not report.faults if cause is None else cause in causes, causes
    assert str(report) and report.to_dict()["verdict"] == verdict


def test_a_saddle_is_told_in_the_users_variables() -> None:
    report = cvxift.diagnose(CORPUS["saddle_of_an_unconstrained_function"][0](), nlp=True)
    assert "along +1 in variable x[0]" in report.findings[0].text


def test_dependent_groups_are_minimal() -> None:
    x, p = cp.Variable(3, name="x"), cp.Parameter(3, value=[2.0, 2.0, 0.5])
    x.value = np.array([0.9, 0.1, 0.1])
    problem = cp.Problem(
        cp.Minimize(cp.sum_squares(x - p)),
        [cp.sum_squares(x[:2]) <= 1, x[2] == 0.1 * p[2], 3 * cp.sum_squares(x[:2]) <= 3],
    )
    (finding,) = [f for f in cvxift.diagnose(problem, nlp=True).findings if f.cause == "dependent constraints"]
    assert len(finding.where) == 2
    assert "constraint 0" in finding.where[0] and "constraint 2" in finding.where[1]


def test_a_reports_numbers() -> None:
    x, p = cp.Variable(2, name="x"), cp.Parameter(2, name="p", value=[1.0, 2.0])
    x.value = np.array([1.0, 1.0])
    problem = cp.Problem(cp.Minimize(-p @ x), [cp.sum_squares(x) <= 1, x[0] >= -1])
    report = cvxift.differentiate(problem, nlp=True).report
    assert report.ok and report.audit().agrees
    curvature = next(check for check in report.checks if check.name == "reduced Hessian")
    assert curvature.passed and curvature.value > 0.5
    states = [row.state for row in report.active_set]
    assert states == ["active", "inactive"]
    assert all(value <= 1e-12 for value in report.residuals.values())
    # The multiplier ‖p‖/2 vanishes at p = 0, a distance ‖p‖ away; to first order the same.
    assert report.radii["p"].distance == pytest.approx(np.sqrt(5.0), rel=1e-6)


def test_one_sided_derivatives_at_a_weakly_active_bound() -> None:
    report = cvxift.diagnose(CORPUS["weakly_active_bound"][0](), nlp=True)
    (p,) = report.map.parameters
    (x,) = report.map.program.problem.variables()
    assert report.one_sided({p: 1.0})[x] == pytest.approx(1.0, abs=1e-4)
    assert report.one_sided({p: -1.0})[x] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.filterwarnings("ignore:The point is accurate only")
@pytest.mark.parametrize("name", ["quartic_minimum", "sixth_power", "flat_along_an_equality", "weakly_active_bound"])
def test_products_say_where_there_is_no_derivative(name: str) -> None:
    problem = CORPUS[name][0]()
    s = cvxift.differentiate(problem, nlp=True)
    (x,), (p,) = problem.variables(), problem.parameters()
    with pytest.warns(cvxift.ApplicabilityWarning, match="no derivative|kink|not to second order"):
        s.vjp({x: np.ones(x.shape)})
    s = cvxift.differentiate(problem, nlp=True, check="off")
    assert np.isfinite(s.vjp({x: np.ones(x.shape)})[p]).all()


def test_a_saddle_is_left_when_solving() -> None:
    x, p = cp.Variable(2), cp.Parameter(value=1.0)
    x.value = np.zeros(2)
    problem = cp.Problem(cp.Minimize(cp.square(cp.square(x[0]) - 1) + p * cp.square(x[1])))
    s = cvxift.differentiate(problem, nlp=True)
    np.testing.assert_allclose(np.abs(s.value(x)), [1.0, 0.0], atol=1e-9)


def test_best_of_several_starts() -> None:
    x, p = cp.Variable(name="x"), cp.Parameter(value=0.2)
    x.value = 0.9
    problem = cp.Problem(cp.Minimize(cp.square(cp.square(x) - 1) + p * x))
    assert cvxift.differentiate(problem, nlp=True).value(x) > 0.0
    x.value = 0.9
    with pytest.raises(cvxift.ProgramError, match="sample_bounds"):
        cvxift.differentiate(problem, nlp=True, solver_args={"best_of": 5})
    x.sample_bounds = (-2.0, 2.0)
    assert cvxift.differentiate(problem, nlp=True, solver_args={"best_of": 8}).value(x) < 0.0


def test_command_line(tmp_path, capsys) -> None:
    script = tmp_path / "model.py"
    script.write_text(
        "import cvxpy as cp\n"
        "x, p = cp.Variable(name='x'), cp.Parameter(value=0.3, name='p')\n"
        "x.value = 0.5\n"
        "problem = cp.Problem(cp.Minimize(cp.nlp.cos(x) + p * cp.square(x)))\n"
    )
    assert cli.main(["check", "--nlp", f"{script}:problem"]) == 0
    assert "applies" in capsys.readouterr().out
    assert cli.main(["check", f"{script}:problem"]) == 1
