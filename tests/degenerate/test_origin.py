"""At a solution of zero the point has no size: the pieces that meet there are found all the same."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import cvxift


@pytest.mark.parametrize("solver", ["daqp", "clarabel", "scs"])
def test_smallest_l1_norm_without_data_gives_one_piece(solver: str) -> None:
    A = np.array([[1.0, 1.0, 0.0, -1.0], [3.0, 4.0, -3.0, 3.0]])
    x, b = cp.Variable(4, name="x"), cp.Parameter(2, name="b", value=np.zeros(2))
    problem = cp.Problem(cp.Minimize(cp.norm1(x)), [A @ x == b])
    s = cvxift.differentiate(problem, solver=solver, check="off")
    found = np.array([s.vjp({x: row})[b] for row in np.eye(4)])
    # Near b = 0, two entries carry all of b and the others stay zero. An average of pieces moves all four.
    carrying = np.flatnonzero(np.abs(found).max(axis=1) > 1e-7)
    assert len(carrying) == 2
    piece = np.zeros((4, 2))
    piece[carrying] = np.linalg.inv(A[:, carrying])
    np.testing.assert_allclose(found, piece, atol=1e-7)


@pytest.mark.parametrize("solver", [None, "daqp", "clarabel"])
@pytest.mark.parametrize("size", [1.0, 1e-4, 1e4])
def test_threshold_of_a_lasso_at_zero_is_told(solver: str | None, size: float) -> None:
    x, b = cp.Variable(3, name="x"), cp.Parameter(3, name="b", value=size * np.array([0.5, -1.0, -0.5]))
    a = cp.Parameter(nonneg=True, name="a", value=size)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - b) + a * cp.norm1(x)))
    with pytest.warns(cvxift.ApplicabilityWarning, match="kink"):
        found = cvxift.differentiate(problem, solver=solver, check="warn").jacobian(x, b)
    # Soft thresholding: the entry at the threshold moves with b on one side, and on the other it does not.
    assert np.abs(found - np.diag(np.diag(found))).max() < 1e-7
    assert min(abs(found[1, 1]), abs(found[1, 1] - 1.0)) < 1e-7 and abs(found[0, 0]) + abs(found[2, 2]) < 1e-7
