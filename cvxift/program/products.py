"""Matrix-vector products on vectors, on stacks of right-hand sides, and on batches of matrices, with one convention.

Vectors lie along the last axis. `apply(M, x)` is M x for x (n,); with one matrix and x (k, n) it is M x_k for every k;
with a batch of dense matrices M (B, m, n) and x (B, n) or (k, B, n) it is M_b x_b for every b. One matrix is NumPy's or
SciPy's; a batch may be an array of any namespace.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp

from cvxift.program.structure import Floats

Sparse: TypeAlias = sp.csr_array | sp.csc_array
Matrix: TypeAlias = Floats | Sparse


def apply(M: Any, x: Any) -> Any:
    """M x along the last axis.

    Args:
        M: dense array (m, n) or (B, m, n), or sparse (m, n).
        x: shape (n,), (k, n), (B, n) or (k, B, n).

    Returns:
        Shape (m,), (k, m), (B, m) or (k, B, m).
    """
    if M.ndim == 3:
        return (M @ x[..., None])[..., 0]
    if x.ndim == 1:
        return M @ x
    return x @ M.T if isinstance(M, np.ndarray) else (M @ x.T).T


def dense(M: Any) -> Any:
    """A dense array or a sparse matrix as a dense array."""
    return M.toarray() if sp.issparse(M) else M


def transposed(M: Any) -> Any:
    """Mᵀ of one matrix or of each of a batch, without copying."""
    return M.mT if M.ndim == 3 else M.T
