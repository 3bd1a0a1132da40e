"""Matrix-vector products on vectors, on stacks of right-hand sides, and on batches of matrices, with one convention.

Vectors lie along the last axis. `apply(M, x)` is M x for x (n,); with one matrix and x (k, n) it is M x_k for every k;
with a batch of dense matrices M (B, m, n) and x (B, n) it is M_b x_b for every b.
"""

from __future__ import annotations

from typing import TypeAlias, overload

import numpy as np
import scipy.sparse as sp

from cvxift.program.structure import Floats

Sparse: TypeAlias = sp.csr_array | sp.csc_array
Matrix: TypeAlias = Floats | Sparse


def apply(M: Matrix, x: Floats) -> Floats:
    """M x along the last axis.

    Args:
        M: dense array (m, n) or (B, m, n), or sparse (m, n).
        x: shape (n,), (k, n) or (B, n).

    Returns:
        Shape (m,), (k, m) or (B, m).
    """
    if isinstance(M, np.ndarray):
        if M.ndim == 3:
            return (M @ x[..., None])[..., 0]
        return M @ x if x.ndim == 1 else x @ M.T
    return M @ x if x.ndim == 1 else (M @ x.T).T


@overload
def transposed(M: Floats) -> Floats: ...


@overload
def transposed(M: Sparse) -> Sparse: ...


def transposed(M: Matrix) -> Matrix:
    """Mᵀ of one matrix or of each of a batch, without copying."""
    return np.swapaxes(M, -1, -2) if isinstance(M, np.ndarray) else M.T
