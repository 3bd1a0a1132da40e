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

from cvxift.kkt.units import centred
from cvxift.program.structure import Floats

ACCURACY = 1e-3  # of the logarithms; a unit is a matter of magnitude


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

    def sums(values: Floats) -> Floats:
        return np.asarray(np.bincount(rows, weights=values, minlength=size), dtype=float)

    log_c = centred(sums, lambda d: d[rows] + d[cols], np.ones(len(rows)), logs, ACCURACY)
    c = np.exp(np.clip(log_c, -300.0, 300.0))
    return c[:n], c[n:]
