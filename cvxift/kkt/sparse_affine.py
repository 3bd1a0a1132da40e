"""Constant sparse maps by gathers alone, on any array namespace and device.

The array API standard has no sparse matrices. A row of M with k entries is a gather of k entries of v, a product with
its coefficients and a sum; rows are grouped by k rounded up to a power of two, so that each group is one such step and
at most twice M's entries are touched:

    group of width k:   out = Σ_j C[:, j] ∘ v[I[:, j]],    I (rows, k),   C (rows, k)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import scipy.sparse as sp

from cvxift.program.structure import Floats

if TYPE_CHECKING:
    from cvxift.kkt.backend import Arrays

Array: TypeAlias = Any


class Gather:
    """The map v ↦ c + Mv on arrays (..., N).

    Args:
        place: where the arrays live; the map's constants are put there once.
        matrix: M, shape (K, N).
        constant: c, shape (K,); zero if None.

    Example:
        >>> import numpy as np, scipy.sparse as sp
        >>> from cvxift.kkt.backend import Arrays
        >>> double_and_sum = Gather(Arrays(np), sp.csr_array(np.array([[2.0, 0.0], [1.0, 1.0]])))
        >>> double_and_sum(np.array([1.0, 3.0]))
        array([2., 4.])
    """

    def __init__(self, place: Arrays, matrix: sp.csr_array, constant: Floats | None = None) -> None:
        matrix = sp.csr_array(matrix)
        matrix.sum_duplicates()
        rows, columns = matrix.shape  # pyright: ignore[reportGeneralTypeIssues]  # the stub allows None
        self._place, self._size = place, rows
        entries = np.diff(matrix.indptr)
        width = np.where(entries > 0, 2 ** np.ceil(np.log2(np.maximum(entries, 1))).astype(int), 0)
        self._groups: list[tuple[int, Array, Array | None]] = []
        where, start = np.zeros(rows, dtype=np.int64), 1  # column 0 of the groups' results is zero: the empty rows
        for k in np.unique(width[width > 0]):
            members = np.flatnonzero(width == k)
            index = np.full((len(members), int(k)), columns)  # the padding reads a zero set behind v
            weight = np.zeros((len(members), int(k)))
            line = np.repeat(np.arange(len(members)), entries[members])
            at = np.concatenate([np.arange(matrix.indptr[i], matrix.indptr[i + 1]) for i in members])
            place_in_row = at - np.repeat(matrix.indptr[members], entries[members])
            index[line, place_in_row], weight[line, place_in_row] = matrix.indices[at], matrix.data[at]
            plain = bool(np.all(weight == 1.0))
            self._groups.append((int(k), place.put(index.ravel()), None if plain else place.put(weight)))
            where[members] = start + np.arange(len(members))
            start += len(members)
        alone = len(self._groups) == 1 and np.array_equal(where, 1 + np.arange(rows))
        self._where = None if alone else place.put(where)
        self._constant = None if constant is None or not np.any(constant) else place.put(np.asarray(constant))

    def __call__(self, v: Array) -> Array:
        """The value c + Mv.

        Args:
            v: shape (..., N), an array of the map's place.

        Returns:
            Shape (..., K).
        """
        xp, batch = self._place.xp, tuple(v.shape[:-1])
        zero = self._place.zeros(*batch, 1)
        padded = xp.concat([v, zero], axis=-1)
        parts = [] if self._where is None else [zero]
        for width, index, weight in self._groups:
            part = xp.take(padded, index, axis=-1)
            if width > 1 or weight is not None:
                part = xp.reshape(part, (*batch, index.shape[0] // width, width))
                part = part if weight is None else part * weight
                part = part[..., 0] if width == 1 else xp.sum(part, axis=-1)
            parts.append(part)
        out = parts[0] if len(parts) == 1 else xp.concat(parts, axis=-1)
        if self._where is not None:
            out = xp.take(out, self._where, axis=-1)
        return out if self._constant is None else out + self._constant
