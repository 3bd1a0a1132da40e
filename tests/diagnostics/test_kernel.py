"""The null space and smallest singular value of a large K, by block inverse iteration, against dense decompositions."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp

import cvxift
from cvxift.kkt.regularity import kernel
from cvxift.kkt.regularity.nearest import nearest
from cvxift.kkt.regularity.repeats import Repeats
from tests.counting import calls


@pytest.mark.parametrize("null", [0, 1, 7, 60])
@pytest.mark.parametrize("cluster", [False, True])
def test_null_space_of_any_dimension(null, cluster) -> None:
    rng = np.random.default_rng(null)
    size, shift = 90, 1e-11
    Q = np.linalg.qr(rng.standard_normal((size, size)))[0]
    values = rng.uniform(0.5, 2.0, size) * rng.choice([-1.0, 1.0], size)
    values[:null] = 0.0
    if cluster:
        values[null : null + 20] = 1e-3 * (1.0 + 1e-6 * rng.standard_normal(20))
    K = (Q * values) @ Q.T
    found = nearest(lambda f: np.linalg.solve(K - shift * np.eye(size), f), size, shift, 1e-10)
    assert found.null.shape == (size, null)
    np.testing.assert_allclose(found.null.T @ found.null, np.eye(null), atol=1e-10)
    np.testing.assert_allclose(K @ found.null, 0.0, atol=1e-9)
    assert found.smallest == pytest.approx(np.abs(values[null:]).min(), rel=0.05)


def test_null_space_that_is_everything() -> None:
    found = nearest(lambda f: -f / 1e-11, 12, 1e-11, 1e-10)
    assert found.null.shape == (12, 12) and found.smallest is None


@pytest.mark.parametrize("seed", range(4))
def test_parallel_rows_are_merged_without_changing_the_spectrum(seed) -> None:
    rng = np.random.default_rng(seed)
    n, a = 12, rng.standard_normal((4, 12)) * (rng.uniform(size=(4, 12)) < 0.5)
    a[:, 0] = 1.0  # no empty rows
    A = np.concatenate([a, -2.0 * a[:2], a[:1], rng.standard_normal((2, n))])[rng.permutation(9)]
    K = np.block([[np.diag(rng.uniform(0.0, 1.0, n)), A.T], [A, np.zeros((9, 9))]])
    found = Repeats.of(sp.csc_array(K), n)
    assert found is not None and found.null.shape == (n + 9, 3)
    np.testing.assert_allclose(K @ found.null.toarray(), 0.0, atol=1e-13)
    np.testing.assert_allclose(K @ found.pairs.toarray(), 0.0, atol=1e-13)
    whole = np.concatenate([found.Q.toarray(), found.null.toarray()], axis=1)
    np.testing.assert_allclose(whole.T @ whole, np.eye(n + 9), atol=1e-13)
    merged = found.Q.T @ K @ found.Q.toarray()
    values = np.sort(np.concatenate([np.linalg.eigvalsh(merged), np.zeros(3)]))
    np.testing.assert_allclose(values, np.linalg.eigvalsh(K), atol=1e-12)
    assert Repeats.of(sp.csc_array(np.block([[np.eye(n), a.T], [a, np.zeros((4, 4))]])), n) is None


@pytest.mark.parametrize("kind", ["ball", "repeated rows", "flat and repeated"])
def test_large_and_small_agree(kind, monkeypatch) -> None:
    n = 30 if kind != "ball" else 220
    x, c = cp.Variable(n, name="x"), cp.Parameter(n, name="c", value=np.random.default_rng(0).standard_normal(n))
    if kind == "ball":
        problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [cp.norm(x) <= 3])
    elif kind == "repeated rows":
        problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [x >= 0, 2 * x >= 0, cp.sum(x) == 1, -cp.sum(x) == -1])
    else:
        problem = cp.Problem(cp.Minimize(cp.sum_squares(x[:20] - c[:20])), [x[:20] >= 0, 3 * x[:20] >= 0])
    monkeypatch.setattr("cvxift.kkt.regularity.kernel.ALL_EIGENVALUES", 10_000)
    small = cvxift.diagnose(problem)
    monkeypatch.setattr("cvxift.kkt.regularity.kernel.ALL_EIGENVALUES", 10)
    large = cvxift.diagnose(problem)
    assert small.analysis.kernel.exact and not large.analysis.kernel.exact
    assert large.verdict is small.verdict and {f.cause for f in large.findings} == {f.cause for f in small.findings}
    dependences = [report.analysis.kernel.dependent_rows().shape for report in (small, large)]
    assert dependences[0] == dependences[1]
    g, h = small.point.probes
    for one, other in zip(small.analysis.kernel.solve(g, h)[:2], large.analysis.kernel.solve(g, h)[:2], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)


@pytest.mark.parametrize("kind", ["ball", "dependent flow", "repeated bounds"])
def test_a_report_decomposes_nothing_large_and_visits_no_row_alone(kind, monkeypatch) -> None:
    work = []
    for n in (500, 1000):
        rng = np.random.default_rng(0)
        x, c = cp.Variable(n, name="x"), cp.Parameter(n, name="c", value=rng.standard_normal(n))
        cost = cp.Minimize(cp.sum_squares(x - c))
        if kind == "ball":
            problem = cp.Problem(cost, [cp.norm(x) <= 3])
        elif kind == "dependent flow":
            k = n // 5
            ends = (np.arange(n) % k, 1.0), ((np.arange(n) * 7 + 1) % k, -1.0)
            B = sum(sp.csr_array((np.full(n, sign), (end, np.arange(n))), shape=(k, n)) for end, sign in ends)
            problem = cp.Problem(cost, [B @ x == B @ rng.uniform(size=n), x >= -2, x <= 2])
        else:
            problem = cp.Problem(cost, [x >= 0, 2 * x >= 0, cp.sum(x) == 1, x <= 10])
        cvxift.diagnose(problem)  # imports, and what is built once
        for name in ("eigh", "svd", "qr"):
            made = getattr(np.linalg, name)
            monkeypatch.setattr(np.linalg, name, lambda a, *args, made=made, **kw: small(a) and made(a, *args, **kw))
        work.append(calls(lambda problem=problem: cvxift.diagnose(problem)))
        monkeypatch.undo()
    assert work[1] <= 1.5 * work[0]


def small(matrix) -> bool:
    assert min(matrix.shape[-2:]) <= kernel.ALL_EIGENVALUES
    return True
