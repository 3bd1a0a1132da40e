"""Following the advice on dependent constraints keeps the solution and takes the dependence away, by machine."""

from __future__ import annotations

import re

import cvxpy as cp
import numpy as np
import pytest

import cvxift

N = 4
x, c = cp.Variable(N, name="x"), cp.Parameter(N, name="c")
REMOVE = re.compile(r"^Remove .*?constraint (\d+) \(")
EQUALITIES = re.compile(r"^Write (.+) as equalities, and then remove one")

Row = tuple[np.ndarray, float, str]  # a, b and the sign of  aᵀx (<=, >=, ==) b


def problem(rows: list[Row]) -> cp.Problem:
    x.value = None
    signs = {"<=": lambda a, b: a @ x <= b, ">=": lambda a, b: a @ x >= b, "==": lambda a, b: a @ x == b}
    return cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [signs[sign](a, b) for a, b, sign in rows])


def user(report) -> np.ndarray:
    """The variables' entries at the report's point."""
    return report.point.x[report.point.program.user_columns].copy()


def dependent(seed: int) -> list[Row]:
    """Rows active at one point: independent ones, and some that depend on them, repeated, opposed or combined."""
    rng = np.random.default_rng(seed)
    c.value = rng.standard_normal(N)
    meet = rng.integers(-2, 3, N).astype(float)
    rows: list[Row] = []
    for _ in range(rng.integers(1, 4)):
        a = rng.integers(-2, 3, N).astype(float)
        if a.any():
            rows.append((a, float(a @ meet), str(rng.choice(["<=", ">=", "=="]))))
    for _ in range(rng.integers(1, 4)):
        chosen = rng.choice(len(rows), rng.integers(1, min(3, len(rows)) + 1), replace=False)
        a = np.sum([rng.choice([-2.0, -1.0, 1.0, 3.0]) * rows[k][0] for k in chosen], axis=0)
        if a.any():
            rows.append((a, float(a @ meet), str(rng.choice(["<=", ">=", "=="]))))
    return rows


def followed(rows: list[Row], finding) -> list[Row] | None:
    """The rows after the advice was followed; None where it says to keep them."""
    numbers = [int(name.split()[1]) for name in finding.where]
    if remove := REMOVE.match(finding.advice):
        return [row for k, row in enumerate(rows) if k != int(remove[1])]
    if finding.advice.startswith("Write them as one equality"):
        first, second = numbers
        return [(a, b, "==" if k == first else sign) for k, (a, b, sign) in enumerate(rows) if k != second]
    if write := EQUALITIES.match(finding.advice):
        tight = {int(number) for number in re.findall(r"constraint (\d+) \(", write[1])}
        return [(a, b, "==" if k in tight else sign) for k, (a, b, sign) in enumerate(rows)]
    assert "keep them all" in finding.advice, finding.advice
    return None


@pytest.mark.parametrize("seed", range(60))
def test_the_solution_stays_and_the_dependence_goes(seed) -> None:
    rows = dependent(seed)
    report = cvxift.diagnose(problem(rows))
    solution = user(report)
    kept: set[frozenset[str]] = set()
    for _ in range(2 * len(rows) + 2):
        findings = [f for f in report.findings if f.cause == "dependent constraints" and frozenset(f.where) not in kept]
        if not findings:
            break
        after = followed(rows, findings[0])
        if after is None:
            kept.add(frozenset(findings[0].where))
            continue
        rows = after
        report = cvxift.diagnose(problem(rows))
        np.testing.assert_allclose(user(report), solution, atol=1e-6)
    else:
        pytest.fail(f"the advice leads round in circles: {report}")


def test_what_nobody_can_remove_is_not_named() -> None:
    d = cp.Parameter(N, value=np.arange(4.0), name="d")
    for constraints in ([cp.norm(x) <= 0], [cp.abs(x) <= 0], [cp.sum_squares(x - 1) <= 0]):
        x.value = None
        report = cvxift.diagnose(cp.Problem(cp.Minimize(cp.sum_squares(x - d)), constraints))
        (told,) = [f for f in report.findings if f.cause == "dependent constraints"]
        assert "auxiliary" not in str(report) and "pins" in told.text
        assert "Remove" not in told.advice and "equality" in told.advice


def test_opposed_bounds_become_one_equality() -> None:
    y, t = cp.Variable(name="y"), cp.Parameter(name="t", value=1.0)
    report = cvxift.diagnose(cp.Problem(cp.Minimize(cp.square(y - 3)), [y >= t, y <= t]))
    assert report.ok and not any("Remove" in f.advice for f in report.findings)
    y.value = None
    s = cvxift.differentiate(cp.Problem(cp.Minimize(cp.square(y - 3)), [y == t]))
    assert s.value(y) == pytest.approx(1.0) and s.report.verdict is cvxift.Verdict.APPLIES


def test_facets_that_meet_are_kept() -> None:
    w = cp.Variable(3, name="w")
    sides = [w[2] + w[0] <= 1, w[2] - w[0] <= 1, w[2] + w[1] <= 1, w[2] - w[1] <= 1]
    report = cvxift.diagnose(cp.Problem(cp.Maximize(w[2] - 0.01 * cp.sum_squares(w)), sides))
    (told,) = [f for f in report.findings if f.cause == "dependent constraints"]
    assert "keep them all" in told.advice and len(told.where) == 4


def test_a_repeated_matrix_inequality_is_removed_as_a_whole() -> None:
    X, C = cp.Variable((3, 3), symmetric=True, name="X"), cp.Parameter((3, 3), symmetric=True, value=0.3 - np.eye(3))
    cost = cp.Minimize(cp.sum_squares(X - C))
    report = cvxift.diagnose(cp.Problem(cost, [X >> 0, X >> 0]))
    assert report.ok
    for told in (f for f in report.findings if f.cause == "dependent constraints"):  # none where it was resolved before
        assert told.where == ("constraint 0 (X >> 0)", "constraint 1 (X >> 0)") and "Remove" in told.advice
    X.value = None
    once = cvxift.diagnose(cp.Problem(cost, [X >> 0]))
    assert once.verdict is cvxift.Verdict.APPLIES
    np.testing.assert_allclose(user(once), user(report), atol=1e-7)


@pytest.mark.parametrize("dependent_on", [("t", "u"), ("t", "t")])
def test_what_the_parameters_move_apart_is_not_to_be_removed_without_a_condition(dependent_on) -> None:
    p = {name: cp.Parameter(name=name, value=1.0) for name in ("t", "u")}
    x, d = cp.Variable(3, name="x"), cp.Parameter(3, value=np.array([1.0, -2.0, 0.5]))
    rows = [cp.sum(x) == p[dependent_on[0]], x[0] == 0.5, x[1] + x[2] == p[dependent_on[1]] - 0.5]
    report = cvxift.diagnose(cp.Problem(cp.Minimize(cp.sum_squares(x - d)), rows))
    (told,) = [f for f in report.findings if f.cause == "dependent constraints"]
    assert ("same at every parameter" in told.advice) is not report.ok
    assert report.ok is (dependent_on == ("t", "t"))


@pytest.mark.parametrize(("n", "count", "repeated"), [(40, 20, 3), (300, 150, 30)])
def test_each_dependence_is_named_by_its_own_members(n, count, repeated) -> None:
    rng = np.random.default_rng(0)
    A, inside = rng.standard_normal((count, n)), rng.standard_normal(n)
    A = np.concatenate([A, A[: 2 * repeated : 2] + A[1 : 2 * repeated : 2]])
    x, c = cp.Variable(n, name="x"), cp.Parameter(n, value=rng.standard_normal(n))
    report = cvxift.diagnose(cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [a @ x == a @ inside for a in A]))
    groups = {tuple(int(name.split()[1]) for name in f.where) for f in report.findings if f.cause.startswith("dep")}
    assert groups and groups <= {(2 * k, 2 * k + 1, count + k) for k in range(repeated)}
    assert len(groups) == repeated
