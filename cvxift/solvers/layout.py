"""What a quadratic program's structure says about its rows: dense layout, and rows that are bounds on one variable.

A row of the nonneg cone with a single stored entry, a·x_j ≤ b, is a bound: x_j ≤ b/a if a > 0, x_j ≥ b/a if a < 0.
Which of the two is known only with the numbers; a = 0 makes the row void (or, with b < 0, the program infeasible).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cvxift.program.structure import Structure

Floats = NDArray[np.float64]


def only_linear_cones(structure: Structure) -> str | None:
    """The reason why a QP solver cannot take these cones, or None."""
    if structure.cones.polyhedral:
        return None
    kinds = sorted({block.kind for block in structure.cones.blocks()} - {"zero", "nonneg"})
    return f"it solves quadratic programs, and the problem has cones of kind {', '.join(kinds)}"


class Dense:
    """Turns value arrays on a fixed pattern into dense row-major matrices.

    Args:
        rows: row index of each entry, shape (nnz,).
        cols: column index of each entry, shape (nnz,).
        shape: the matrix's shape.
    """

    def __init__(self, rows: NDArray, cols: NDArray, shape: tuple[int, int]) -> None:
        self.shape = shape
        flat = rows.astype(np.intp) * shape[1] + cols
        columnwise = cols.astype(np.intp) * shape[0] + rows
        self._full = len(flat) == shape[0] * shape[1] and bool(np.all(columnwise == np.arange(len(flat))))
        self._flat = flat
        self._out = np.zeros(shape)
        self._out_flat = self._out.reshape(-1)

    def __call__(self, values: Floats) -> Floats:
        """The matrix of these values, shape `shape`; overwritten by the next call."""
        if self._full:
            np.copyto(self._out, values.reshape(self.shape[1], self.shape[0]).T)
        else:
            self._out_flat[self._flat] = values
        return self._out


class Bounds:
    """Splits the rows of the nonneg cone into bounds on single variables and general rows.

    At most two rows become bounds of the same variable; further ones stay general.

    Args:
        structure: a structure whose cones are zero and nonneg.
    """

    def __init__(self, structure: Structure) -> None:
        zero = structure.cones.zero
        counts = np.bincount(structure.A_rows, minlength=structure.m)
        entries = np.flatnonzero((counts[structure.A_rows] == 1) & (structure.A_rows >= zero))
        # Entries are ordered by column: the position within its column tells the first and second bound of a variable.
        cols = structure.A_cols[entries]
        order = np.arange(len(cols)) - np.searchsorted(cols, cols)
        entries = entries[order < 2]
        second = order[order < 2] == 1
        self.entries: NDArray = np.concatenate([entries[~second], entries[second]])  # into A's values
        self.rows: NDArray = structure.A_rows[self.entries]
        self.cols: NDArray = structure.A_cols[self.entries]
        self._first = slice(0, int(np.count_nonzero(~second)))
        self._second = slice(self._first.stop, len(self.entries))
        self.count = len(self.entries)
        self.width = int(self.cols.max()) + 1 if self.count else 0
        """Bounds cover the variables 0 … width − 1."""
        general = np.ones(structure.m, dtype=bool)
        general[self.rows] = False
        self.general: NDArray = np.flatnonzero(general)
        """The rows that are no bounds: all of the zero cone, then the rest of the nonneg cone."""

    def evaluate(self, A: Floats, b: Floats, size: int) -> tuple[Floats, Floats, NDArray[np.bool_]] | str:
        """Lower and upper bounds of the variables.

        Args:
            A: values of A's stored entries, shape (nnzA,).
            b: right-hand side, shape (m,).
            size: number of variables to give bounds for, at least `width`.

        Returns:
            Lower and upper bounds, shape (size,), infinite where there is none, and for each bound row (in the order of
            `rows`) whether it is the one that binds on its side; or, if no x satisfies the bounds, why.
        """
        a, limit = A[self.entries], b[self.rows]
        lower, upper = np.full(size, -np.inf), np.full(size, np.inf)
        up, down = a > 0.0, a < 0.0
        if not a.all():
            if np.any(limit[a == 0.0] < 0.0):
                return "a row without coefficients asks for 0 ≤ b with b < 0"
            a = np.where(a == 0.0, 1.0, a)
        value = limit / a
        first, second = self._first, self._second
        upper[self.cols[first]] = np.where(up[first], value[first], np.inf)
        lower[self.cols[first]] = np.where(down[first], value[first], -np.inf)
        binds = np.ones(self.count, dtype=bool)
        if second.start < second.stop:
            cols = self.cols[second]
            tighter_up = up[second] & (value[second] < upper[cols])
            tighter_down = down[second] & (value[second] > lower[cols])
            both = np.isfinite(upper[cols]) & up[second] | np.isfinite(lower[cols]) & down[second]
            binds[second] = tighter_up | tighter_down
            partner = np.searchsorted(self.cols[first], cols)
            binds[partner[both & binds[second]]] = False
            upper[cols] = np.where(tighter_up, value[second], upper[cols])
            lower[cols] = np.where(tighter_down, value[second], lower[cols])
            if np.any(lower > upper):
                return "two bounds of one variable contradict each other"
        return lower, upper, binds

    def multipliers(self, A: Floats, at_lower: Floats, at_upper: Floats, binds: NDArray[np.bool_]) -> Floats:
        """Multipliers of the bound rows from those of the bounds.

        Args:
            A: values of A's stored entries.
            at_lower: multipliers of the lower bounds, ≥ 0, at least `width` of them.
            at_upper: multipliers of the upper bounds, ≥ 0.
            binds: which row binds, from `evaluate`.

        Returns:
            y of the rows `rows`: x_j ≤ b/a has z ≥ 0 in Px + q + … + z = 0, hence a·y = z.
        """
        a = A[self.entries]
        z = np.where(a > 0.0, at_upper[self.cols], np.where(a < 0.0, at_lower[self.cols], 0.0))
        return np.where(binds, z, 0.0) / np.where(a == 0.0, 1.0, np.abs(a))
