"""Affine expressions of a CVXPY problem as coefficient arrays: in its variables, and in its parameters θ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from cvxpy.cvxcore.python import canonInterface
from cvxpy.lin_ops.lin_op import CONSTANT_ID
from cvxpy.settings import COO_CANON_BACKEND
from numpy.typing import NDArray

from cvxift._types import Indices
from cvxift.argmax.closed_form.tree import Unknown, need
from cvxift.program.attributes import read
from cvxift.program.structure import Floats

SAME_COEFFICIENT = 1e-12  # relative difference up to which two coefficients are the same
Sparse = Any  # a sp.csr_array, of which the stubs know neither shape nor data


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows that are affine in θ: c + Mθ.

    Attributes:
        M: shape (K, N).
        c: shape (K,).
    """

    M: Sparse
    c: Floats

    @classmethod
    def fixed(cls, c: Floats, N: int) -> Rows:
        """Rows that do not depend on θ."""
        return cls(sp.csr_array((len(c), N)), np.asarray(c, dtype=float))

    @property
    def varies(self) -> NDArray[np.bool_]:
        """Which rows depend on θ, shape (K,)."""
        return np.diff(self.M.indptr) > 0

    @property
    def moving(self) -> bool:
        """Whether any does."""
        return self.M.nnz > 0

    @property
    def numbers(self) -> Floats | None:
        """The rows, if none does."""
        return None if self.moving else self.c

    def __getitem__(self, rows: Any) -> Rows:
        return Rows(self.M[rows] if self.moving else sp.csr_array((len(self.c[rows]), self.M.shape[1])), self.c[rows])

    def times(self, weight: Rows | Floats | float) -> Rows:
        """Each row times its weight; of a row and its weight one at most may depend on θ.

        Raises:
            Unknown: both do.
        """
        if not isinstance(weight, Rows):
            if not self.moving:
                return Rows(self.M, self.c * weight)
            M, each = self.M, np.broadcast_to(weight, self.c.shape)
            data = M.data * np.repeat(each, np.diff(M.indptr))
            M = sp.csr_array((data, M.indices, M.indptr), shape=M.shape)
            if not each.all():
                M = M.copy()
                M.eliminate_zeros()
            return Rows(M, self.c * weight)
        if not (self.moving and weight.moving):
            return self.times(weight.c) if self.moving else Rows(weight.times(self.c).M, self.c * weight.c)
        need(not (self.varies & weight.varies).any(), "a product of parameters")
        both = self.times(weight.c).M + weight.times(self.c).M
        return Rows(sp.csr_array(both), self.c * weight.c)

    def alike(self, left: Indices, right: Indices) -> bool:
        """Whether the rows at `left` are the same functions of θ as those at `right`."""
        if not np.allclose(self.c[left], self.c[right], rtol=SAME_COEFFICIENT, atol=0.0):
            return False
        if not self.moving:
            return True
        a, b = self.M[left], self.M[right]
        same = np.array_equal(a.indptr, b.indptr) and np.array_equal(a.indices, b.indices)
        return same and np.allclose(a.data, b.data, rtol=SAME_COEFFICIENT, atol=0.0)


def gathered(size: int, N: int, parts: Sequence[tuple[Indices, Rows]]) -> Rows:
    """Sums of rows by place.

    Args:
        size: number of places.
        N: length of θ.
        parts: places of rows, and the rows.
    """
    c, moving = np.zeros(size), []
    for place, rows in parts:
        c += np.bincount(place, rows.c, minlength=size)
        if rows.moving:
            put = sp.csr_array((np.ones(len(place)), (place, np.arange(len(place)))), (size, len(place)))
            moving.append(put @ rows.M)
    if not moving:
        return Rows.fixed(c, N)
    M = sp.csr_array(sum(moving[1:], moving[0]))
    M.sum_duplicates()
    M.sort_indices()
    M.eliminate_zeros()
    return Rows(M, c)


class Coefficients:
    """The coefficients of affine expressions, entry by entry in Fortran order, one expression after the other.

    Args:
        expressions: affine in the variables, with coefficients affine in the parameters.
        variables: in the order of x; entries of each in Fortran order.
        offsets: where each parameter stands in θ.
        backend: CVXPY's canonicalization backend.

    Raises:
        Unknown: CVXPY has no affine form for one of them.

    Attributes:
        N: length of θ.
    """

    def __init__(
        self,
        expressions: Sequence[Any],
        variables: Sequence[cp.Variable],
        offsets: Mapping[cp.Parameter, slice],
        backend: str = COO_CANON_BACKEND,
    ) -> None:
        starts = np.cumsum([0, *(v.size for v in variables)])
        self.n, self.N = int(starts[-1]), sum(p.size for p in offsets)
        self.size = sum(e.size for e in expressions)
        columns, count = {}, 0
        sizes = {CONSTANT_ID: 1}
        inner, own, weights = [np.zeros(0, dtype=int)], [np.zeros(0, dtype=int)], [np.zeros(0)]
        for p, place in offsets.items():
            columns[p.id], sizes[p.id] = count, p.size
            positions, entries, weight = read(p, is_reduced=False)
            inner.append(positions + count)
            own.append(entries + place.start)
            weights.append(weight)
            count += p.size
        columns[CONSTANT_ID] = count
        try:
            forms = [e.canonical_form for e in expressions]
        except NotImplementedError:
            raise Unknown("an expression is affine only by means of further variables") from None
        need(not any(constraints for _, constraints in forms), "an affine expression brings constraints")
        tensor = canonInterface.get_problem_matrix(
            [form for form, _ in forms],
            self.n,
            {v.id: int(start) for v, start in zip(variables, starts, strict=False)},
            sizes,
            columns,
            self.size,
            backend,
        )
        places = np.concatenate(inner), np.concatenate(own)
        self._to_theta: Sparse = sp.csr_array((np.concatenate(weights), places), shape=(count, self.N))
        tensor = sp.coo_array(tensor)
        row, column, moves = tensor.row % self.size, tensor.row // self.size, tensor.col < count
        self._moving = row[moves], column[moves], tensor.col[moves], tensor.data[moves]
        self._fixed = row[~moves], column[~moves], tensor.data[~moves]

    def matrix(self, rows: slice) -> Sparse:
        """Coefficients of x in some rows; none may depend on θ.

        Raises:
            Unknown: one does.
        """
        row, column, _, value = self._moving
        inside = (row >= rows.start) & (row < rows.stop) & (column < self.n)
        need(not value[inside].any(), "a coefficient depends on a parameter")
        row, column, value = self._fixed
        inside = (row >= rows.start) & (row < rows.stop) & (column < self.n) & (value != 0.0)
        shape = (rows.stop - rows.start, self.n)
        return sp.csr_array((value[inside], (row[inside] - rows.start, column[inside])), shape=shape)

    def offset(self, rows: slice) -> Rows:
        """What some rows have beside x."""
        masks = [(r >= rows.start) & (r < rows.stop) & (c == self.n) for r, c in (self._moving[:2], self._fixed[:2])]
        return self._rows(masks, self._moving[0] - rows.start, self._fixed[0] - rows.start, rows.stop - rows.start)

    def of_row(self, row: int) -> Rows:
        """Coefficients of x in one row, shape (n,)."""
        masks = [(r == row) & (c < self.n) for r, c in (self._moving[:2], self._fixed[:2])]
        return self._rows(masks, self._moving[1], self._fixed[1], self.n)

    def _rows(self, masks: Sequence[Any], moving: Indices, fixed: Indices, size: int) -> Rows:
        """The coefficients where the masks say so, at their places."""
        at, entry, value = moving[masks[0]], self._moving[2][masks[0]], self._moving[3][masks[0]]
        M = sp.csr_array((value, (at, entry)), shape=(size, self._to_theta.shape[0])) @ self._to_theta
        M = sp.csr_array(M)
        M.eliminate_zeros()
        M.sort_indices()
        return Rows(M, np.asarray(np.bincount(fixed[masks[1]], self._fixed[2][masks[1]], minlength=size), dtype=float))
