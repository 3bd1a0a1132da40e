"""The harness measures, compares and survives what contenders do; nothing here depends on how long anything takes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from . import claims, report
from .cases import EVERY_SOLVER, QUICK, maros, table
from .cases.qp import DenseQP
from .contenders import TABLE
from .measure import Effort, measure
from .model import Reference, errors, relative_error

CASE = DenseQP(None, 4, 3, 1)
EFFORT = Effort(rounds=2, turn=0.02, limit=20.0, reference_limit=60.0)


class Exact:
    """Answers with the reference itself."""

    def __init__(self, case):
        """Solve every draw beforehand."""
        self.references = [case.reference(draw) for draw in range(case.draws)]

    def build(self):
        """Nothing to do."""

    def forward(self, draw):
        """Return the reference."""
        return self.references[draw].x

    def backward(self, draw):
        """Return its gradients."""
        return self.references[draw].gradients


class Wrong(Exact):
    """The last gradient is 1 % too large, on one draw only."""

    def backward(self, draw):
        """Return the gradients, spoiled."""
        gradients = list(super().backward(draw))
        if draw == 2:
            gradients[-1] = gradients[-1] * 1.01
        return gradients


class Raises(Exact):
    """Fails in the backward."""

    def backward(self, draw):
        """Raise."""
        raise ZeroDivisionError("no\nderivative")


class Hangs(Exact):
    """Never returns from the forward."""

    def forward(self, draw):
        """Wait."""
        time.sleep(600)


class Dies(Exact):
    """Takes the process with it."""

    def forward(self, draw):
        """Exit as a crash in compiled code would."""
        os._exit(7)


def test_a_case_from_start_to_report(tmp_path: Path) -> None:
    """Good and bad contenders side by side; each gets its own verdict and none harms the others."""
    contenders = {"cvxift": Exact, "wrong": Wrong, "raises": Raises, "dies": Dies, "clarabel": TABLE["clarabel"]}
    record = measure(CASE, contenders, EFFORT, tmp_path / "cache")
    rows = record["contenders"]
    assert record["reference"]["regular"]
    assert rows["cvxift"]["status"] == "ok" and claims.gradient_error(rows["cvxift"]) == 0
    assert claims.gradient_error(rows["wrong"]) == pytest.approx(0.01)
    assert rows["raises"]["status"] == "error" and rows["raises"]["message"] == "ZeroDivisionError: no derivative"
    assert "forward" in rows["raises"]
    assert rows["dies"]["status"] == "crash"
    assert rows["clarabel"]["status"] == "ok" and rows["clarabel"]["errors"]["x"] < 1e-5
    assert {"x", "Q", "q", "G", "h", "A", "b"} == set(rows["cvxift"]["errors"])
    assert rows["cvxift"]["forward"]["calls"] >= 2 and rows["cvxift"]["peak"] > 0

    data = {"machine": _machine(), "cases": [record]}
    report.write(data, tmp_path)
    text = (tmp_path / "benchmark.md").read_text(encoding="utf-8")
    assert CASE.name in text and "crash" in text and "ZeroDivisionError" in text
    assert (tmp_path / "benchmark.png").stat().st_size > 1000


def test_a_hanging_contender_costs_its_limit_and_no_more(tmp_path: Path) -> None:
    """It is stopped and said to have been in the forward."""
    effort = Effort(rounds=1, turn=0.02, limit=1.0)
    row = measure(CASE, {"hangs": Hangs}, effort, tmp_path)["contenders"]["hangs"]
    assert row["status"] == "timeout" and "in forward" in row["message"]


def test_cvxpylayers_runs(tmp_path: Path) -> None:
    """The default peer, where it is installed."""
    pytest.importorskip("cvxpylayers")
    row = measure(CASE, {"cvxpylayers": TABLE["cvxpylayers"]}, EFFORT, tmp_path)["contenders"]["cvxpylayers"]
    assert row["status"] == "ok", row
    assert claims.gradient_error(row) < 0.1


def test_errors_are_the_worst_instance_and_see_zero_references() -> None:
    """One bad instance is not averaged away, and a spurious gradient where none should be is measured by the whole."""
    reference = np.array([[3.0, 4.0], [0.0, 0.0]])
    value = np.array([[3.0, 4.0], [0.0, 0.5]])
    assert relative_error(value, reference, np.array([5.0, 10.0])) == pytest.approx(0.05)
    assert relative_error(value, value, np.zeros(2)) == 0
    with pytest.raises(ValueError, match="shape"):
        relative_error(value[:1], reference, np.zeros(2))
    zeros = tuple(np.zeros(p.shape) for p in CASE.formulate().parameters)
    ones = Reference(np.zeros(4), tuple(np.ones_like(g) for g in zeros))
    assert errors(CASE, ones, np.zeros(4), list(zeros))["Q"] == pytest.approx(1.0)


def test_table_is_consistent() -> None:
    """Names are unique and those of the selections exist; values depend on case and draw alone."""
    cases = table()
    have_data = maros.folder().is_dir()
    assert all(name in cases for name in (*QUICK, *EVERY_SOLVER) if have_data or not name.startswith("maros"))
    again = table()["qp_10_10_5"]
    for left, right in zip(cases["qp_10_10_5"].values(1), again.values(1), strict=True):
        np.testing.assert_array_equal(left, right)
    assert not np.array_equal(again.values(0)[0], again.values(1)[0])


@pytest.mark.parametrize("missing", ["cvxift", "cvxpylayers"])
def test_claims_without_data_are_not_passed(missing: str) -> None:
    """A promise that was not measured is neither kept nor broken."""
    record = {"name": "tv_10000", "group": "x", "reference": {"regular": True, "note": ""}, "contenders": {}}
    for claim in claims.check({"cases": [record]}):
        assert claim.passed is None, claim


@pytest.mark.skipif(not maros.folder().is_dir(), reason="the Maros–Mészáros data are not beside the repository")
def test_maros_problem_is_judged() -> None:
    """A right answer is solved and agrees with the difference quotient, a spoiled gradient does not, nor a moved x."""
    case = maros.MarosMeszaros(problem="DUAL2")
    reference = case.reference(0)
    assert reference.regular, reference.note
    found = {"x_0": reference.x} | {f"g{i}_0": g for i, g in enumerate(reference.gradients)}
    assert case.judge(reference, found)["solved"] and case.judge(reference, found)["agrees"]
    assert not case.judge(reference, found | {"g0_0": 1.01 * reference.gradients[0]})["agrees"]
    assert not case.judge(reference, found | {"x_0": reference.x + 1e-4})["solved"]


def _machine() -> dict[str, object]:
    from .machine import describe

    return describe()


@pytest.mark.skipif(not maros.folder().is_dir(), reason="the Maros–Mészáros data are not beside the repository")
@pytest.mark.parametrize(("name", "n", "m"), [("CVXQP2_S", 100, 25), ("CVXQP1_M", 1000, 500)])
def test_the_generated_family_is_that_of_the_files(name: str, n: int, m: int) -> None:
    made, read = maros.cvxqp(n, m), maros.load(name)
    assert (made.P != read.P).nnz == 0
    rows = [sp.csr_array(qp.A)[np.flatnonzero(qp.l == qp.u)] for qp in (made, read)]
    assert (rows[0] != rows[1]).nnz == 0 and rows[0].shape == (m, n)
    for qp in (made, read):
        single = qp.l != qp.u
        assert set(qp.l[single]) <= {0.1, -np.inf} and set(qp.u[single]) <= {10.0, np.inf}
        np.testing.assert_array_equal(qp.l[~single], 6.0)
        np.testing.assert_array_equal(qp.q, 0.0)
