"""The program that is solved: without the columns that are fixed, nor those that only express a quadratic.

A column is fixed by an equality of its own, a x_j = b_i(θ), what `W == W_θ` and `x[0] == x₀` become. It is put into the
rest as `substitution` says, with B = 0: P_c = P_XX, A_c = A_RX. A row (a cone) that all of its columns would leave
keeps them: it would hold θ alone, and the system would be singular. Then `elimination` takes out the others. The
program that is differentiated stays the original one; what was taken out comes back in the solution and inside the KKT
solve.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from cvxift._types import Indices
from cvxift.program.elimination import AuxiliaryColumns
from cvxift.program.structure import Data, Floats, Structure, constant, frozen, numbered
from cvxift.program.substitution import WRITTEN_OUT, Parts, Split, Way, as_slice, pick, substituted


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
        blocks: C, P_x and P_y of `Substitution`, by name.
    """

    def __init__(self, structure: Structure, columns: Indices, at: Indices, A: Floats) -> None:
        E = structure.A_rows[at]
        X = np.setdiff1d(np.arange(structure.n), columns)
        R = np.setdiff1d(np.arange(structure.m), E)
        self.parts = Parts(Split(X, columns), Split(R, E), 1.0 / A[at])
        column = np.maximum(numbered(structure.n, X), numbered(structure.n, columns))
        row = np.maximum(numbered(structure.m, R), numbered(structure.m, E))
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

    def condense(self, data: Data) -> tuple[Data, Way]:
        """The smaller program's data and the way back.

        Args:
            data: the original program's data, with at most one leading dimension.
        """
        matrices = {name: block(data.A if name == "C" else data.P) for name, block in self.blocks.items()}
        q, b, way = substituted(self.parts, data.q, data.b, **matrices)
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


class Condensation:
    """A program without the columns that can be substituted, and the way there and back.

    Args:
        structure: the original program's structure.
        constant: for each stored entry of A, whether its value is the same for every θ, shape (nnzA,).
        A: values of A's stored entries; only the constant ones are read, shape (nnzA,).

    Attributes:
        structure: the condensed program's structure (the original one if nothing can be substituted).
        fixed: the fixed columns; None if there are none.
        auxiliary: the auxiliary columns of the program without those.
        parts: what is kept and what is substituted; None if nothing is.
        felt: the same, but for the fixed columns that kept rows have entries in, which count as kept, last.
        batches: whether `condense` takes batches.
    """

    def __init__(self, structure: Structure, constant: np.ndarray, A: Floats) -> None:
        constant = np.asarray(constant, dtype=bool)
        fixed = self.fixed = FixedColumns.of(structure, constant, A)
        if fixed is None:
            self.auxiliary = AuxiliaryColumns(structure, constant, A)
            self.parts = self.auxiliary.parts
        else:
            self.auxiliary = AuxiliaryColumns(fixed.structure, constant[fixed.A_at], np.asarray(A)[fixed.A_at])
            self.parts = _both(fixed.parts, self.auxiliary.parts)
        self.felt = self.parts
        if self.parts is not None and fixed is not None and len(fixed.blocks["C"].at):
            kept, other = self.parts.columns.indices
            held = fixed.parts.columns.indices[1]
            columns = Split(np.concatenate([kept, held]), np.setdiff1d(other, held))
            self.felt = Parts(columns, self.parts.rows, self.parts.inverse_a)
        self.structure = self.auxiliary.structure
        self.batches = self.auxiliary.batches and (fixed is None or fixed.batches)

    def condense(self, data: Data) -> tuple[Data, Way | None]:
        """The condensed program's data and the way back.

        Args:
            data: the original program's data; leading batch dimensions only if `batches`.

        Returns:
            Data on `self.structure`, but for the constant that substitution adds to `d`; and the way back, None if
            nothing is substituted.
        """
        return self.auxiliary.condense(*((data, None) if self.fixed is None else self.fixed.condense(data)))

    def restrict(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """The condensed part of an original point: x (|X|,), y (|R|,)."""
        return (x, y) if self.parts is None else self.parts.restrict(x, y)

    def lift(self, rows: Floats) -> Floats:
        """Values on the kept rows as values on the original rows, zero on the substituted ones."""
        return rows if self.parts is None else self.parts.rows.lift(rows)


def _both(outer: Parts, inner: Parts | None) -> Parts:
    """What two substitutions, one after the other, keep; only to restrict and to lift."""
    if inner is None:
        return outer

    def joined(first: Split, second: Split) -> Split:
        kept, other = first.indices
        return Split(kept[second.indices[0]], np.concatenate([other, kept[second.indices[1]]]))

    whole = np.concatenate([outer.inverse_a, inner.inverse_a])
    return Parts(joined(outer.columns, inner.columns), joined(outer.rows, inner.rows), whole)
