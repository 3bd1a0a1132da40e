"""Affine maps θ ↦ c + Mθ with a constant sparse M, made to be evaluated in microseconds.

Most entries of a canonical program are one parameter entry times a coefficient, or a constant. Those rows are a gather:

    out_k = coef_k · v̂[source_k],     v̂ = (v, 1)  for the affine map,   v̂ = (v, 0)  for its linear part;

a constant row reads the last entry of v̂. Rows that combine several entries are a sparse product. Where their terms
cancel, what rounding leaves of them is zero: a cost of 10⁻¹⁷ would give a program that has none a unit. Columns without
entries are left out of v first where a sparse parameter has many.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse as sp

from cvxift._types import EPS
from cvxift.program.structure import Floats

SUM_ROUNDING = 8.0 * EPS  # part of the terms' magnitudes under which their sum is rounding
SPARE = 4  # columns for each entry from which those without entries are left out
LARGE_MAP = 2048  # rows; a batch of larger maps is evaluated instance by instance, which keeps each in the cache


class AffineMap:
    """The map v ↦ c + Mv on vectors or on batches of them.

    Args:
        matrix: M, shape (K, N).
        constant: c, shape (K,); zero if None.

    Example:
        >>> import numpy as np, scipy.sparse as sp
        >>> double_and_shift = AffineMap(sp.csr_array(np.diag([2.0, 2.0])), np.array([0.0, 1.0]))
        >>> double_and_shift(np.array([1.0, 2.0]))
        array([2., 5.])
    """

    def __init__(self, matrix: sp.csr_array, constant: Floats | None = None) -> None:
        matrix = sp.csr_array(matrix)
        matrix.sum_duplicates()
        self._shape: Any = matrix.shape
        self._columns, matrix = _filled(matrix)
        rows, self._size = matrix.shape  # pyright: ignore[reportGeneralTypeIssues]  # the stub allows None
        constant = np.zeros(rows) if constant is None else np.asarray(constant, dtype=float)
        entries = np.diff(matrix.indptr)
        single = (entries == 1) & (constant == 0)
        mixed = np.flatnonzero((entries > 0) & ~single)
        self._source = np.full(rows, self._size, dtype=np.intp)
        coefficient = constant.copy()
        self._one = float(np.any(constant))  # what constant rows read
        if not self._one:
            coefficient[entries == 0] = 1.0
        first = matrix.indptr[:-1][single]
        self._source[single] = matrix.indices[first]
        coefficient[single] = matrix.data[first]
        coefficient[mixed] = 0.0
        self._coefficient = None if np.all(coefficient == 1.0) else coefficient
        self._plain = bool(np.all(self._source < self._size))  # every row reads an entry of v
        self._mixed: slice | np.ndarray | None = None
        if len(mixed):
            consecutive = mixed[-1] - mixed[0] + 1 == len(mixed)
            self._mixed = slice(int(mixed[0]), int(mixed[-1]) + 1) if consecutive else mixed
            self._mixed_matrix = matrix[mixed]
            self._mixed_constant = constant[mixed] if np.any(constant[mixed]) else None
            self._sizes = abs(self._mixed_matrix), np.abs(constant[mixed])
            self._most = float(self._sizes[0].sum(axis=1).max()), float(self._sizes[1].max())

    def __call__(self, v: Floats) -> Floats:
        """The value c + Mv.

        Args:
            v: shape (..., N).

        Returns:
            A new array of shape (..., K).
        """
        return self._apply(v if self._columns is None else v.take(self._columns, axis=-1), self._one)

    def linear(self, v: Floats) -> Floats:
        """The linear part Mv.

        Args:
            v: shape (..., N).

        Returns:
            A new array of shape (..., K).
        """
        return self._apply(v if self._columns is None else v.take(self._columns, axis=-1), 0.0)

    def parts(self) -> tuple[sp.csr_array, Floats]:
        """M, shape (K, N), and c, shape (K,), put together again."""
        rows = np.arange(len(self._source))
        weight = np.ones(len(rows)) if self._coefficient is None else self._coefficient
        single = self._source < self._size
        constant = np.where(single, 0.0, self._one * weight)
        matrix = sp.csr_array((weight[single], (rows[single], self._source[single])), shape=(len(rows), self._size))
        if self._mixed is not None:
            at = rows[self._mixed]
            constant[at] = 0.0 if self._mixed_constant is None else self._mixed_constant
            spread = sp.csr_array((np.ones(len(at)), (at, np.arange(len(at)))), shape=(len(rows), len(at)))
            matrix = sp.csr_array(matrix + spread @ self._mixed_matrix)
        if self._columns is not None:
            matrix = sp.csr_array((matrix.data, self._columns[matrix.indices], matrix.indptr), shape=self._shape)
        return matrix, constant

    def _apply(self, v: Floats, one: float) -> Floats:
        if v.ndim == 1:
            out = self._gather(v, one)
        elif self._plain and len(self._source) < LARGE_MAP:
            out = v.take(self._source, axis=-1)
            if self._coefficient is not None:
                out *= self._coefficient
        elif len(self._source) < LARGE_MAP:
            extended = np.empty((*v.shape[:-1], self._size + 1))
            extended[..., :-1] = v
            extended[..., -1] = one
            out = extended.take(self._source, axis=-1)
            if self._coefficient is not None:
                out *= self._coefficient
        else:
            out = np.empty((*v.shape[:-1], len(self._source)))
            for index in np.ndindex(v.shape[:-1]):
                self._gather(v[index], one, out[index])
        if self._mixed is not None:
            if v.ndim == 1:
                value = self._mixed_matrix @ v
            else:
                batch = v.shape[:-1]
                value = (self._mixed_matrix @ v.reshape(math.prod(batch), self._size).T).T
                value = value.reshape(*batch, value.shape[1])
            if one:
                if self._mixed_constant is not None:
                    value += self._mixed_constant
                value = self._without_rounding(value, v)
            out[..., self._mixed] = value
        return out

    def _without_rounding(self, value: Floats, v: Floats) -> Floats:
        """Rows of several terms, shape (..., k): zero where the terms cancel but for rounding."""
        size = np.abs(value)
        slope, constant = self._most
        most = slope * max(float(np.max(v, initial=0.0)), -float(np.min(v, initial=0.0))) + constant
        if float(np.min(size, initial=np.inf)) > SUM_ROUNDING * most or not math.isfinite(most):
            return value
        flat = np.abs(v).reshape(-1, self._size)
        magnitude = (self._sizes[0] @ flat.T).T + self._sizes[1]
        return np.where(size <= SUM_ROUNDING * magnitude.reshape(size.shape), 0.0, value)

    def _gather(self, v: Floats, one: float, out: Floats | None = None) -> Floats:
        """The rows of at most one entry, for one instance."""
        if self._plain and out is None:
            out = v.take(self._source)
            return out if self._coefficient is None else out * self._coefficient
        extended = np.empty(self._size + 1)
        extended[:-1] = v
        extended[-1] = one
        if out is None:
            out = extended.take(self._source)
        else:
            extended.take(self._source, out=out, mode="clip")  # any mode but "raise" writes without a copy
        if self._coefficient is not None:
            out *= self._coefficient
        return out


class Adjoint:
    """The map w ↦ Mᵀw.

    Args:
        matrix: M, shape (K, N).
    """

    def __init__(self, matrix: sp.csr_array) -> None:
        shape: Any = matrix.shape
        self._size = int(shape[1])
        self._columns, matrix = _filled(matrix)
        self._map = AffineMap(sp.csr_array(matrix.T))

    def __call__(self, w: Floats) -> Floats:
        """Mᵀw, shape (..., N), for w of shape (..., K)."""
        value = self._map(w)
        if self._columns is None:
            return value
        out = np.zeros((*value.shape[:-1], self._size))
        out[..., self._columns] = value
        return out


def _filled(matrix: sp.csr_array) -> tuple[np.ndarray | None, sp.csr_array]:
    """The columns that have entries, and the matrix of these; None and the matrix where others are not many more."""
    rows, size = matrix.shape  # pyright: ignore[reportGeneralTypeIssues]  # the stub allows None
    if SPARE * matrix.nnz >= size:
        return None, matrix
    columns, at = np.unique(matrix.indices, return_inverse=True)
    return columns, sp.csr_array((matrix.data, at, matrix.indptr), shape=(rows, len(columns)))
