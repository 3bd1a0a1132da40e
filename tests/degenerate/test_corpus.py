"""The verdict is right on every labelled problem, and no well-posed problem raises an alarm."""

from __future__ import annotations

import warnings

import pytest
from corpus import CASES
from well_posed import SETS, well_posed

import cvxift


def test_the_corpus_is_large_enough() -> None:
    assert len(CASES) >= 40
    assert {case.verdict for case in CASES.values()} == {verdict.value for verdict in cvxift.Verdict}


@pytest.mark.parametrize("name", CASES)
def test_verdict(name: str) -> None:
    case = CASES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a solver says that it stopped early, as it was asked to
        problem = case.build()
    report = cvxift.diagnose(problem, gp=case.gp)
    assert report.verdict.value == case.verdict, f"{case.why}\n{report}"
    if case.verdict not in ("applies", "applies to the primal only"):
        assert not report.ok and report.faults, str(report)
        assert all(finding.text for finding in report.faults)


def test_an_entropy_at_zero_is_noted() -> None:
    report = cvxift.diagnose(CASES["softmax_far"].build())
    assert report.ok
    note = next(finding for finding in report.findings if finding.cause == "domain edge")
    assert note.where == ("x[1]", "x[2]") and not note.fault


@pytest.mark.parametrize("first", range(0, 200, len(SETS)))
def test_no_false_alarm(first: int) -> None:
    for seed in range(first, min(200, first + len(SETS))):
        report = cvxift.diagnose(well_posed(seed))
        assert report.verdict is cvxift.Verdict.APPLIES and report.ok, f"seed {seed}\n{report}"
