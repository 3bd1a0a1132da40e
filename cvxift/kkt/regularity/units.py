"""Units of an instance's columns and rows, read off the magnitudes of its entries.

    minimize over c > 0:   Σ over entries K_ij ≠ 0 of (log |K_ij| + log c_i + log c_j)²,      K = [ P  Aᵀ ; A  0 ]

The minimizer moves with the units: columns in another unit, x → Dx, have c → Dc, and nothing else changes. An
equilibration by largest entries has no such property, because smaller entries have no say in it.

Source: Curtis & Reid 1972, "On the automatic scaling of matrices for Gaussian elimination".
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla

from cvxift.program.structure import Floats

ACCURACY = 1e-3  # of the logarithms, relative; a unit is a matter of magnitude
ROUNDS = 60


def units(P: Any, A: Any) -> tuple[Floats, Floats]:
    """Units of columns and rows: diag(c) K diag(c) has entries near 1 in the geometric mean.

    Args:
        P: shape (n, n).
        A: shape (m, n).

    Returns:
        c on columns, shape (n,), and on rows, shape (m,); 1 for those without entries.

    Example:
        >>> columns, rows = units(np.diag([1e-8, 1.0]), np.zeros((0, 2)))
        >>> columns.round(6).tolist()
        [10000.0, 1.0]
    """
    P, A = sp.coo_array(P), sp.coo_array(A)
    n, size = P.shape[0], P.shape[0] + A.shape[0]
    rows = np.concatenate([P.row, A.row + n, A.col])
    cols = np.concatenate([P.col, A.col, A.row + n])
    values = np.abs(np.concatenate([P.data, A.data, A.data]))
    there = values > 0.0
    rows, cols, logs = rows[there], cols[there], np.log(values[there])
    count = np.bincount(rows, minlength=size).astype(float)
    # Normal equations: (number of entries) log c_i + Σ_j log c_j = −Σ_j log |K_ij|.
    pattern = sp.csr_array((np.ones(len(rows)), (rows, cols)), shape=(size, size))
    inverse = 1.0 / np.maximum(count, 1.0)
    normal: Any = sp.csr_array(sp.diags_array(np.maximum(count, 1.0)) + pattern)
    side = -np.bincount(rows, weights=logs, minlength=size)
    log_c, _ = sla.cg(normal, side, rtol=ACCURACY, maxiter=ROUNDS, M=sp.diags_array(inverse))
    c = np.exp(np.clip(log_c, -300.0, 300.0))
    return c[:n], c[n:]
