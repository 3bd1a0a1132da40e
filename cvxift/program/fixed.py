"""Columns that an equality of their own fixes: a x_j = b_i(θ), what `W == W_θ` and `x[0] == x₀` become.

With Y the fixed columns, E their rows, X and R the other columns and rows, and C = A_RY,

    x_Y = t = diag(a)⁻¹ b_E,      q_c = q_X + P_XY t,      b_c = b_R − C t,      P_c = P_XX,      A_c = A_RX
    multipliers of the fixing rows:  y_E = −diag(a)⁻¹ (P_YX x + P_YY t + q_Y + Cᵀy)

A row (a cone) that all of its columns would leave keeps them: it would hold θ alone, and the system would be singular.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from cvxift.program.products import apply, transposed
from cvxift.program.structure import Data, Floats, Structure, constant, frozen
from cvxift.program.substitution import WRITTEN_OUT, Array, Indices, Pair, Parts, Split, as_slice, pick


class Block:
    """Some entries of P or A as a matrix.

    Args:
        at: positions among the values.
        rows: their rows in the block.
        columns: their columns in the block.
        shape: of the block.
    """

    def __init__(self, at: Indices, rows: Indices, columns: Indices, shape: tuple[int, ...]) -> None:
        self.at, self.shape = at, shape
        self.flat = rows.astype(np.int64) * shape[1] + columns
        self.dense = shape[0] * shape[1] <= WRITTEN_OUT
        self._index = rows, columns
        self._kept: Any = None

    def __call__(self, values: Floats) -> Any:
        """The matrix, dense or sparse, or a dense one for each of a batch; None for a block without entries."""
        if not len(self.at):
            return None
        if self._kept is not None and self._kept[0] is values:
            return self._kept[1]
        if values.ndim > 1 and values.strides[0] == 0:  # the same for the whole batch
            return self(values[0])
        own = values.take(self.at, axis=-1)
        if values.ndim > 1 or self.dense:
            matrix: Any = np.zeros((*values.shape[:-1], self.shape[0] * self.shape[1]))
            matrix[..., self.flat] = own
            matrix = matrix.reshape(*values.shape[:-1], *self.shape)
        else:
            matrix = sp.csr_array((own, self._index), shape=self.shape)
        if constant(values):
            self._kept = values, matrix
        return matrix


@dataclass(frozen=True, eq=False)
class Fixed:
    """The way back from a program without its fixed columns, for one instance or a batch.

    Attributes:
        parts: what is kept and what is fixed.
        t: values of the fixed columns, shape (..., |Y|).
        q_y: their linear cost, shape (..., |Y|).
        C: their part in the kept rows, (..., |R|, |Y|); None if there is none.
        P_x: P_YX, (..., |Y|, |X|); likewise.
        P_y: P_YY, (..., |Y|, |Y|); likewise.
    """

    parts: Parts
    t: Array
    q_y: Array
    C: Any
    P_x: Any
    P_y: Any

    def expand(self, x: Array, s: Array, y: Array) -> tuple[Array, Array, Array]:
        """The original program's point; see `Substitution.expand`."""
        columns, rows = self.parts.columns, self.parts.rows
        own = self._minus(-self.q_y, x, self.t, y)
        return columns.join(x, self.t), rows.lift(s), rows.join(y, own * self.parts.inverse_a)

    def solve(self, inner: Callable[[Array, Array | None], Pair], g: Array, h: Array | None) -> Pair:
        """The original KKT system through the smaller one; see `Substitution.solve`.

        a u_Y = h_E,  the kept columns and rows see  g_X − P_XY u_Y  and  h_R − C u_Y,  and
        a w_E = g_Y − P_YX u_X − P_YY u_Y − Cᵀw_R.
        """
        columns, rows = self.parts.columns, self.parts.rows
        g_x, g_y = columns.kept(g), columns.other(g)
        if h is None:
            h_r, u_y = None, g_y * 0.0
        else:
            h_r, u_y = rows.kept(h), rows.other(h) * self.parts.inverse_a
            g_x = g_x if self.P_x is None else g_x - apply(transposed(self.P_x), u_y)
            h_r = h_r if self.C is None else h_r - apply(self.C, u_y)
        u_x, w_r = inner(g_x, h_r)
        own = self._minus(g_y, u_x, u_y, w_r)
        return columns.join(u_x, u_y), rows.join(w_r, own * self.parts.inverse_a)

    def _minus(self, g: Array, x: Array, x_y: Array, y: Array) -> Array:
        """g − P_YX x − P_YY x_Y − Cᵀy."""
        for matrix, vector in ((self.P_x, x), (self.P_y, x_y)):
            g = g if matrix is None else g - apply(matrix, vector)
        return g if self.C is None else g - apply(transposed(self.C), y)

    def __getitem__(self, index: int) -> Fixed:
        """One instance of a batch."""
        blocks = (M[index] if M is not None and M.ndim == 3 else M for M in (self.C, self.P_x, self.P_y))
        return Fixed(self.parts, self.t[index], self.q_y[index], *blocks)


def without_fixed(parts: Parts, q: Array, b: Array, C: Any, P_x: Any, P_y: Any) -> tuple[Array, Array, Fixed]:
    """q_c, b_c and the way back; arguments as those of `Fixed`, in any place."""
    columns, rows = parts.columns, parts.rows
    t, q_x, b_r = rows.other(b) * parts.inverse_a, columns.kept(q), rows.kept(b)
    q_c = q_x if P_x is None else q_x + apply(transposed(P_x), t)
    b_c = b_r if C is None else b_r - apply(C, t)
    return q_c, b_c, Fixed(parts, t, columns.other(q), C, P_x, P_y)


class FixedColumns:
    """A program without its fixed columns, and the way there and back.

    Args:
        structure: the original program's structure.
        columns: Y.
        at: for each of them, the position of the fixing entry among A's values.
        A: values of A's stored entries, those at `at` constant.

    Attributes:
        structure: the smaller program's structure.
        parts: what is kept and what is fixed.
        P_at, A_at: positions of its entries among the original's values.
        blocks: C, P_x and P_y of `Fixed`, by name.
    """

    def __init__(self, structure: Structure, columns: Indices, at: Indices, A: Floats) -> None:
        E = structure.A_rows[at]
        X = np.setdiff1d(np.arange(structure.n), columns)
        R = np.setdiff1d(np.arange(structure.m), E)
        self.parts = Parts(Split(X, columns), Split(R, E), 1.0 / A[at])
        column, row = np.empty(structure.n, dtype=np.int64), np.empty(structure.m, dtype=np.int64)
        column[X], column[columns] = np.arange(len(X)), np.arange(len(columns))
        row[R], row[E] = np.arange(len(R)), np.arange(len(E))
        fixed, fixing = np.zeros(structure.n, dtype=bool), np.zeros(structure.m, dtype=bool)
        fixed[columns], fixing[E] = True, True

        P_rows, P_cols, A_rows, A_cols = structure.places
        self.P_at = np.flatnonzero(~fixed[P_rows] & ~fixed[P_cols])
        self.A_at = np.flatnonzero(~fixing[A_rows] & ~fixed[A_cols])
        self.structure = Structure.from_patterns(
            len(X),
            replace(structure.cones, zero=structure.cones.zero - len(E)),
            P=(column[P_rows[self.P_at]], column[P_cols[self.P_at]]),
            A=(row[A_rows[self.A_at]], column[A_cols[self.A_at]]),
        )

        def block(mask: np.ndarray, rows: Indices, columns: Indices, *shape: int) -> Block:
            at = np.flatnonzero(mask)
            return Block(at, row[rows[at]] if rows is A_rows else column[rows[at]], column[columns[at]], shape)

        size = len(columns)
        self.blocks = {
            "C": block(~fixing[A_rows] & fixed[A_cols], A_rows, A_cols, len(R), size),
            "P_x": block(fixed[P_rows] & ~fixed[P_cols], P_rows, P_cols, size, len(X)),
            "P_y": block(fixed[P_rows] & fixed[P_cols], P_rows, P_cols, size, size),
        }
        self._P, self._A = as_slice(self.P_at), as_slice(self.A_at)
        self._kept: dict[str, tuple[Floats, Floats]] = {}

    @classmethod
    def of(cls, structure: Structure, constant: np.ndarray, A: Floats) -> FixedColumns | None:
        """The program without its fixed columns; None where there are none.

        Args:
            structure: the program's structure.
            constant: for each stored entry of A, whether its value is the same for every θ, shape (nnzA,).
            A: values of A's stored entries; only the constant ones are read, shape (nnzA,).
        """
        _, _, A_rows, A_cols = structure.places
        width = np.bincount(A_rows, minlength=structure.m)
        single = (A_rows < structure.cones.zero) & (width[A_rows] == 1) & constant & (A != 0.0)
        at = np.flatnonzero(single)
        columns, first = np.unique(A_cols[at], return_index=True)
        at = at[first]
        if not len(at):
            return None
        fixed, pivot = np.zeros(structure.n, dtype=bool), np.zeros(structure.nnzA, dtype=bool)
        fixed[columns], pivot[at] = True, True
        unit = structure.cones.unit_of_row[A_rows]
        held = np.zeros(structure.cones.units, dtype=bool)
        held[unit[~fixed[A_cols] | pivot]] = True
        needed = np.zeros(structure.n, dtype=bool)
        needed[A_cols[~held[unit]]] = True
        columns, at = columns[~needed[columns]], at[~needed[columns]]
        return cls(structure, columns, at, A) if 0 < len(columns) < structure.n else None

    def condense(self, data: Data) -> tuple[Data, Fixed]:
        """The smaller program's data and the way back.

        Args:
            data: the original program's data, with at most one leading dimension.
        """
        matrices = (self.blocks[name](data.A if name == "C" else data.P) for name in ("C", "P_x", "P_y"))
        q, b, way = without_fixed(self.parts, data.q, data.b, *matrices)
        return Data(self._picked("P", data.P), q, self._picked("A", data.A), b, data.d), way

    def _picked(self, name: str, values: Floats) -> Floats:
        """The kept entries of P or A; of a constant, the same array each time."""
        kept = self._kept.get(name)
        if kept is not None and kept[0] is values:
            return kept[1]
        own = pick(values, self._P if name == "P" else self._A)
        if constant(values):
            own = frozen(own)
            self._kept[name] = values, own
        return own

    @property
    def batches(self) -> bool:
        """Whether `condense` takes batches: the blocks are small enough to be written out for each instance."""
        return all(block.dense for block in self.blocks.values() if len(block.at))
