"""What diagnosing leaves out so that it stays cheap; `python -m tests.benchmarks.diagnosis` measures how cheap."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp

import cvxift
from cvxift.layers.core import LayerCore


class _NotAllowed(AssertionError):
    pass


def forbid(*_args, **_kwargs):
    raise _NotAllowed


def core(cone: str, check="warn") -> LayerCore:
    x, t = cp.Variable(10, name="x"), cp.Parameter(10, name="t")
    constraints = [cp.sum(x) == 1, x >= 0] if cone == "polyhedral" else [cp.norm(x) <= 1]
    return LayerCore(cp.Problem(cp.Minimize(cp.sum_squares(x - t)), constraints), [t], [x], check=check)


@pytest.mark.parametrize("batch", [(), (32,)])
@pytest.mark.parametrize("cone", ["polyhedral", "second-order"])
def test_a_call_away_from_kinks_is_neither_factorized_nor_analysed(batch, cone, monkeypatch) -> None:
    layer = core(cone)
    theta = np.random.default_rng(0).standard_normal((*batch, 10))
    layer.solve([theta], None, False)  # builds what is built once
    monkeypatch.setattr("cvxift.kkt.regularity.account.LocalPoint", forbid)
    monkeypatch.setattr("cvxift.kkt.engine.Solution.linearization", forbid)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer._look(layer.solve([theta], None, False)[0].solved)


def test_a_kink_is_judged_once(monkeypatch) -> None:
    layer = core("polyhedral")
    theta = np.r_[0.5, 0.5, np.zeros(1), -np.ones(7)]
    with pytest.warns(cvxift.ApplicabilityWarning, match="weakly active"):
        layer.solve([theta], None, False)
    monkeypatch.setattr("cvxift.diagnostics.call_check.differs_somewhere", forbid)
    layer.solve([theta], None, False)
    with pytest.raises(_NotAllowed):
        layer.solve([np.roll(theta, 1)], None, False)


def test_a_large_report_takes_no_dense_decomposition(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    n, m = 1000, 500
    G = sp.random(m, n, density=0.005, random_state=0, format="csr")
    x, q = cp.Variable(n), cp.Parameter(n, value=rng.standard_normal(n))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x) + q @ x), [G @ x <= rng.uniform(0.05, 0.5, m), x >= -1, x <= 1])
    for name in ("eigh", "eigvalsh", "svd"):
        original = getattr(np.linalg, name)

        def small(matrix, *args, _original=original, **kwargs):
            assert max(np.shape(matrix)) <= 400, "a dense decomposition of a large matrix"
            return _original(matrix, *args, **kwargs)

        monkeypatch.setattr(f"numpy.linalg.{name}", small)
    report = cvxift.diagnose(problem, solver="clarabel")
    assert report.ok and not report.analysis.kernel.exact


def test_a_null_space_is_found_in_blocks_of_about_its_size(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    A = sp.random(200, 1000, density=0.005, random_state=0, format="csr")
    A = sp.csr_array(sp.vstack([A, A[:70] + A[70:140]]))
    x, q = cp.Variable(1000), cp.Parameter(1000, value=rng.standard_normal(1000))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x) + q @ x), [A @ x == 0, x >= -3])
    widths, original = [], np.linalg.qr

    def qr(matrix, *args, **kwargs):
        widths.append(min(np.shape(matrix)))
        return original(matrix, *args, **kwargs)

    monkeypatch.setattr("numpy.linalg.qr", qr)
    report = cvxift.diagnose(problem)
    null = report.analysis.kernel.null.shape[1]
    assert null > 60
    assert max(widths) <= 2 * null and sum(width > null // 2 for width in widths) <= 6
