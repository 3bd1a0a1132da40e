"""The reduced KKT matrix as one sparse matrix, and its symmetric scaling.

K = [ P   A_rᵀ ;  A_r   0 ] + diag(h),        diag(c) K diag(c) with rows of largest magnitude near 1
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from cvxift.program.products import Matrix
from cvxift.program.structure import Floats


def equilibrate(K: Matrix, rounds: int = 4) -> Floats:
    """Scale c with every row of diag(c) K diag(c) of largest magnitude near 1; 1 for zero rows.

    Source: Ruiz 2001, "A scaling algorithm to equilibrate both rows and columns norms in matrices".

    Args:
        K: symmetric dense array or sparse matrix, shape (N, N).
        rounds: number of passes.

    Returns:
        The scale, shape (N,).

    Example:
        >>> c = equilibrate(np.diag([1e-8, 4e6]))
        >>> (c * np.array([1e-8, 4e6]) * c).round(6)
        array([1., 1.])
    """
    if isinstance(K, np.ndarray):
        scale, magnitude = np.ones(len(K)), np.abs(K)
        for _ in range(rounds):
            largest = scale * (magnitude * scale[None, :]).max(axis=1, initial=0.0)
            scale /= np.sqrt(np.where(largest > 0, largest, 1.0))
        return scale
    scale, values = np.ones(len(K.indptr) - 1), np.abs(K.data)
    filled = np.flatnonzero(np.diff(K.indptr))
    starts = K.indptr[filled]
    for _ in range(rounds):
        largest = np.zeros_like(scale)
        if len(filled):
            largest[filled] = np.maximum.reduceat(values * scale[K.indices], starts)
        largest *= scale
        scale /= np.sqrt(np.where(largest > 0, largest, 1.0))
    return scale


def entry_columns(K: sp.csc_array) -> NDArray[np.intp]:
    """The column of every stored entry, shape (nnz,)."""
    return np.repeat(np.arange(len(K.indptr) - 1), np.diff(K.indptr))


def scale_symmetric(K: sp.csc_array, scale: Floats) -> sp.csc_array:
    """diag(scale) K diag(scale), as CSC."""
    return sp.csc_array((K.data * scale[K.indices] * scale[entry_columns(K)], K.indices, K.indptr), shape=K.shape)


def kkt_matrix(P: sp.csc_array, A_r: sp.csr_array, diagonal: Floats) -> sp.csc_array:
    """[ P  A_rᵀ ; A_r  0 ] + diag(diagonal), with every diagonal entry stored, zeros too.

    Put together from the parts' own arrays, which is several times faster than a block constructor.

    Args:
        P: symmetric, CSC, shape (n, n).
        A_r: CSR, shape (r, n).
        diagonal: shape (n + r,).

    Returns:
        CSC matrix of shape (n + r, n + r).
    """
    n, r, by_column = len(P.indptr) - 1, len(A_r.indptr) - 1, A_r.tocsc()
    size = n + r
    counts = np.concatenate([np.diff(P.indptr) + np.diff(by_column.indptr) + 1, np.diff(A_r.indptr) + 1])
    indptr = np.concatenate([[0], np.cumsum(counts)])
    indices, data = np.empty(indptr[-1], dtype=np.int32), np.empty(indptr[-1])

    def put(part: Any, first_column: int, offset: np.ndarray | int, shift: int) -> None:
        """Write the part's (compressed) columns at an offset inside each of K's columns."""
        length = np.diff(part.indptr)
        start = indptr[first_column : first_column + len(length)] + offset - part.indptr[:-1]
        at = np.arange(part.indptr[-1]) + np.repeat(start, length)
        indices[at], data[at] = part.indices + shift, part.data

    put(P, 0, 0, 0)
    put(by_column, 0, np.diff(P.indptr), n)
    put(A_r, n, 0, 0)  # the rows of A_r are the columns of A_rᵀ
    last = indptr[1:] - 1
    indices[last], data[last] = np.arange(size), diagonal
    K = sp.csc_array((data, indices, indptr), shape=(size, size))
    K.sum_duplicates()
    return K
