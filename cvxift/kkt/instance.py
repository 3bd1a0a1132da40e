"""One numeric program with its matrices laid out for fast products, dense arrays or CSC matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from cvxift._types import cached_property
from cvxift.cones.product import PlacedCones, on_host
from cvxift.kkt.backend import HOST
from cvxift.kkt.equilibration import Equilibration
from cvxift.kkt.residuals import Residuals, Scales, errors
from cvxift.program.structure import Data, Floats, Structure, constant

# Entries of [P; A] as dense arrays up to which they win whatever the sparsity, since calls cost more than sums.
# Measured on random programs of four entries a row, active sets met for the first time, forward: 79×175 half the
# time, 160×160 0.8, 250×250 level; entropy of 25 entries 0.6, nearest correlation matrix of order 12 0.7.
DENSE_ENTRIES = 50_000
DENSE_LIMIT = 4000  # rows + columns above which the dense path is not taken
KEPT_MATRICES = 2  # of constants, for each layout: of a program in units of its own and in others
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
            dense = structure.n * size <= DENSE_ENTRIES or (size <= DENSE_LIMIT and density >= DENSE_DENSITY)
        self.dense = dense
        # Matrices of constants, which come as the same arrays each time; replaced as a whole: threads read it as it is.
        self._kept: tuple[tuple[Floats, Floats, Matrices], ...] = ()
        self.systems: tuple[Any, ...] = ()  # see `cvxift.kkt.system.kept`
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

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": (), "systems": ()}  # a copy's constants are other arrays

    def instance(self, data: Data, moderate: bool = False) -> Instance:
        """The matrices of one unbatched program, `moderate` if its units are known to be (`cvxift.kkt.units`)."""
        known = next((own for P, A, own in self._kept if P is data.P and A is data.A), None)
        instance = Instance(self.structure, known or self._matrices(data), data, self.cones, moderate)
        if known is None and constant(data.P) and constant(data.A):
            known = instance.matrices
            self._kept = ((data.P, data.A, known), *self._kept[: KEPT_MATRICES - 1])
        instance.layout = None if known is None else self
        return instance

    def _matrices(self, data: Data) -> Matrices:
        s, values = self.structure, None
        if self.single is not None:
            values = np.zeros(s.m)
            values[self._single_rows] = data.A[self._single_at]
        if not self.dense:
            return Matrices(s.P_matrix(data.P), s.A_matrix(data.A), self.single, values)
        P = self._scatter(data.P, self._P_flat, self._P_full, s.n)
        return Matrices(P, self._scatter(data.A, self._A_flat, self._A_full, s.m), self.single, values)

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


class Matrices:
    """P (n, n) and A (m, n) of one program, dense arrays or CSC matrices, and what is made of them alone, once.

    Args:
        P: the cost's matrix.
        A: the constraints' matrix.
        single: the column of each row that has one entry, −1 for the others, shape (m,); None where no row has one.
        single_values: that entry, likewise.
    """

    def __init__(self, P: Any, A: Any, single: np.ndarray | None, single_values: Floats | None) -> None:
        self.P, self.A, self.single, self.single_values = P, A, single, single_values
        self.dense = isinstance(A, np.ndarray)
        self.AT = A.T if self.dense else A.T.tocsr()

    @cached_property
    def rows(self) -> Any:
        """A by its rows."""
        return self.A if self.dense else self.A.tocsr()

    @cached_property
    def magnitudes(self) -> tuple[Any, Any, Any]:
        """|P|, |A| and |A|ᵀ."""
        return abs(self.P), abs(self.A), abs(self.AT)


class Instance:
    """P (n, n), q (n,), A (m, n), Aᵀ, b (m,) of one program, dense arrays or CSC matrices (Aᵀ CSR).

    Args:
        structure: the program's structure.
        matrices: P and A.
        values: the same numbers on the structure's patterns.
        cones: K on NumPy's arrays.
        moderate: whether the units of rows, columns and cost are known to be of one size.

    Attributes:
        layout: the one that keeps the matrices for further instances; None where they are not kept.
    """

    layout: Layout | None = None

    def __init__(
        self, structure: Structure, matrices: Matrices, values: Data, cones: PlacedCones, moderate: bool = False
    ) -> None:
        self.structure, self.matrices, self.values, self.cones = structure, matrices, values, cones
        self.moderate = moderate
        self.P, self.A, self.AT = matrices.P, matrices.A, matrices.AT
        self.q, self.b = values.q, values.b
        self._scales: Scales | None = None

    @property
    def rows(self) -> Any:
        """A by its rows, which are what is selected of it: a dense array, or CSR; kept."""
        return self.matrices.rows

    @property
    def magnitudes(self) -> tuple[Any, Any, Any]:
        """|P|, |A| and |A|ᵀ; kept."""
        return self.matrices.magnitudes

    @property
    def dense(self) -> bool:
        """Whether the matrices are dense arrays."""
        return self.matrices.dense

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
