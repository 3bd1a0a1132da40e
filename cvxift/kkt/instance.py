"""One numeric program with its matrices laid out for fast products, dense arrays or CSC matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from cvxift._types import cached_property
from cvxift.cones.product import PlacedCones, on_host
from cvxift.kkt.backend import HOST
from cvxift.kkt.equilibration import Equilibration
from cvxift.kkt.residuals import Residuals, Scales, errors
from cvxift.program.structure import Data, Floats, Structure, constant

DENSE_ALWAYS = 100  # rows + columns up to which dense arrays win whatever the sparsity (call overhead rules)
DENSE_LIMIT = 4000  # rows + columns above which the dense path is not taken
DENSE_DENSITY = 0.08  # density of the KKT system from which dense wins below that limit


class Layout:
    """How the instances of one structure are laid out: dense arrays or CSC matrices, decided once.

    Args:
        structure: sizes and patterns.
        dense: force the choice; by default by size and density.
    """

    def __init__(self, structure: Structure, dense: bool | None = None) -> None:
        self.structure = structure
        size = structure.n + structure.m
        if dense is None:
            density = (structure.nnzP + 2 * structure.nnzA) / max(1, size * size)
            dense = size <= DENSE_ALWAYS or (size <= DENSE_LIMIT and density >= DENSE_DENSITY)
        self.dense = dense
        self._kept: Any = None  # constants, which come as the same arrays each time, and their matrices
        self.cones = on_host(structure.cones)
        n, m = structure.n, structure.m
        # Rows with one entry (bounds) and its column: where tight, they fix that column and both leave the KKT system.
        count = np.bincount(structure.A_rows, minlength=m)[:m]
        self.single: np.ndarray | None = None
        if np.any(count == 1):
            self.single = np.full(m, -1)
            at = np.flatnonzero(count[structure.A_rows] == 1)
            self.single[structure.A_rows[at]] = structure.A_cols[at]
            self._single_at, self._single_rows = at, structure.A_rows[at]
        self._P_full = structure.nnzP == n * n
        self._A_full = structure.nnzA == m * n
        self._P_flat = structure.P_rows.astype(np.intp) * n + structure.P_cols
        self._A_flat = structure.A_rows.astype(np.intp) * n + structure.A_cols

    def instance(self, data: Data, moderate: bool = False) -> Instance:
        """The matrices of one unbatched program, `moderate` if its units are known to be (`cvxift.kkt.units`)."""
        s = self.structure
        values = None
        if self.single is not None:
            values = np.zeros(s.m)
            values[self._single_rows] = data.A[self._single_at]
        P, A = self._matrices(data)
        return Instance(s, P, data.q, A, data.b, data, self.cones, self.single, values, moderate)

    def _matrices(self, data: Data) -> tuple[Any, Any]:
        """P and A; those of constants, which come as the same arrays each time, are kept."""
        s, kept = self.structure, self._kept
        if not self.dense:
            return s.P_matrix(data.P), s.A_matrix(data.A)
        if kept is not None and kept[0] is data.P and kept[1] is data.A:
            return kept[2:]
        P = self._scatter(data.P, self._P_flat, self._P_full, s.n)
        A = self._scatter(data.A, self._A_flat, self._A_full, s.m)
        if constant(data.P) and constant(data.A):
            self._kept = data.P, data.A, P, A
        return P, A

    def stack(self, data: Data) -> tuple[Floats, Floats]:
        """Dense P (B, n, n) and A (B, m, n) of a batch."""
        s = self.structure
        P, A = np.zeros((*data.batch_shape, s.n * s.n)), np.zeros((*data.batch_shape, s.m * s.n))
        P[..., self._P_flat], A[..., self._A_flat] = data.P, data.A
        return P.reshape(*data.batch_shape, s.n, s.n), A.reshape(*data.batch_shape, s.m, s.n)

    def _scatter(self, values: Floats, flat, full: bool, rows: int) -> Floats:
        n = self.structure.n
        if full:
            return values.reshape(n, rows).T
        out = np.zeros(rows * n)
        out[flat] = values
        return out.reshape(rows, n)


@dataclass(eq=False)
class Instance:
    """P (n, n), q (n,), A (m, n), b (m,) of one program, dense arrays or CSC matrices.

    `values` are the same numbers on the structure's patterns, `cones` is K on NumPy's arrays. `single` holds the column
    of each row that has one entry, −1 for the others, and `single_values` that entry, both shape (m,); None where no
    row has one. `moderate` says that the units of rows, columns and cost are known to be of one size.
    """

    structure: Structure
    P: Floats | sp.csc_array
    q: Floats
    A: Floats | sp.csc_array
    b: Floats
    values: Data
    cones: PlacedCones
    single: np.ndarray | None = None
    single_values: Floats | None = None
    moderate: bool = False
    _scales: Scales | None = None

    @cached_property
    def AT(self):
        """Aᵀ, kept because every residual and every solve needs it."""
        return self.A.T if isinstance(self.A, np.ndarray) else self.A.T.tocsr()

    @cached_property
    def rows(self) -> Any:
        """A by its rows, which are what is selected of it: a dense array, or CSR; kept."""
        return self.A if isinstance(self.A, np.ndarray) else self.A.tocsr()

    @property
    def dense(self) -> bool:
        """Whether the matrices are dense arrays."""
        return isinstance(self.A, np.ndarray)

    @property
    def scales(self) -> Scales:
        """What rows and columns balance, which residuals are relative to."""
        if self._scales is None:
            units = None if self.moderate else Equilibration(self.structure)(self.values)
            self._scales = Scales(self, self.cones, HOST, units)
        return self._scales

    def errors(self, x: Floats, s: Floats, y: Floats) -> tuple[Floats, Floats, Residuals]:
        """Dual error (n,), primal error (m,) and their relative sizes at a point.

        s and y must be complementary members of the cones.

        Args:
            x: columns, shape (n,).
            s: slacks, shape (m,).
            y: multipliers, shape (m,).
        """
        scales = self.scales
        dual, primal = errors(self, x, s, y)
        primal_size, dual_size = scales.measure(primal, dual, x, s, y)
        return dual, primal, Residuals(float(primal_size), float(dual_size))
