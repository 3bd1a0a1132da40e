"""Programs as solvers want them: dense, with bounds apart from rows, P's upper triangle, rows in another order.

A row of the nonneg cone with a single stored entry, a·x_j ≤ b, is a bound: x_j ≤ b/a if a > 0, x_j ≥ b/a if a < 0.
Which of the two is known only with the numbers; a = 0 makes the row void (or, with b < 0, the program infeasible).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from cvxift._types import Floats
from cvxift.program.structure import Structure

WORTH_DENSE = 2000.0


def singletons(structure: Structure) -> int:
    """Number of rows of the nonneg cone with a single stored entry."""
    return int(np.count_nonzero(_entries_per_row(structure)[structure.cones.zero :] == 1))


def very_sparse(structure: Structure) -> bool:
    """Whether columns of P and A hold six entries or fewer on average, bounds aside: little fill is to be expected."""
    return structure.nnzP + structure.nnzA - singletons(structure) <= 6 * structure.n


def _entries_per_row(structure: Structure) -> NDArray:
    return np.bincount(structure.A_rows, minlength=structure.m)


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
        every = np.arange(shape[0] * shape[1])
        self._by_rows = np.array_equal(flat, every)
        self._by_columns = np.array_equal(columnwise, every)
        self._flat = flat
        self._out = np.zeros(shape)
        self._out_flat = self._out.reshape(-1)
        self._out_columns = self._out.T

    def __call__(self, values: Floats) -> Floats:
        """The matrix of these values, shape `shape`: a view of them, or overwritten by the next call."""
        if self._by_rows:
            return values.reshape(self.shape)
        if self._by_columns:
            np.copyto(self._out_columns, values.reshape(self._out_columns.shape))
        else:
            self._out_flat[self._flat] = values
        return self._out

    def stack(self, values: Floats) -> Floats:
        """The matrices of a batch of values, shape (B, nnz), in an array of its own that may be written to."""
        if self._by_rows:
            matrices = values.reshape(len(values), *self.shape)
            return matrices if matrices.flags.writeable else matrices.copy()
        out = np.zeros((len(values), self._out.size))
        out[:, self._flat] = values
        return out.reshape(len(values), *self.shape)


class Limits(NamedTuple):
    """Bounds of variables, and how the rows they came from stand to them."""

    lower: Floats  # (size,), −∞ where there is none
    upper: Floats  # (size,), +∞ where there is none
    a: Floats  # (count,) the rows' coefficients, 1 in void rows
    up: NDArray[np.bool_]  # (count,) whether the row bounds from above
    binds: NDArray[np.bool_] | None  # (count,) whether the bound on that side is the row's; None if all are


class Bounds:
    """Splits the rows of the nonneg cone into bounds on single variables and general rows.

    At most two rows become bounds of the same variable; further ones stay general.

    Args:
        structure: a structure whose cones are zero and nonneg.
        worth: with fewer bounds than this divided by the number of variables, all rows stay general: sorting out a few
            bounds costs more than it saves.
    """

    def __init__(self, structure: Structure, worth: float = WORTH_DENSE) -> None:
        zero = structure.cones.zero
        counts = _entries_per_row(structure)
        entries = np.flatnonzero((counts[structure.A_rows] == 1) & (structure.A_rows >= zero))
        if len(entries) * structure.n < worth:
            entries = entries[:0]
        # Entries are ordered by column: the position within its column tells the first and second bound of a variable.
        cols = structure.A_cols[entries]
        order = np.arange(len(cols)) - np.searchsorted(cols, cols)
        entries = entries[order < 2]
        second = order[order < 2] == 1
        self.entries: NDArray = np.concatenate([entries[~second], entries[second]])  # into A's values
        self.rows: NDArray = structure.A_rows[self.entries]
        self.cols: NDArray = structure.A_cols[self.entries]
        self.count = len(self.entries)
        self.width = int(self.cols.max()) + 1 if self.count else 0
        """Bounds cover the variables 0 … width − 1."""
        firsts = int(np.count_nonzero(~second))
        self._first_cols = self.cols[:firsts]
        self._first, self._second = slice(0, firsts), slice(firsts, self.count)
        self._second_cols = self.cols[firsts:]
        self._partner = np.searchsorted(self._first_cols, self._second_cols)  # first row of the same variable
        general = np.ones(structure.m, dtype=bool)
        general[self.rows] = False
        self.general: NDArray = np.flatnonzero(general)
        """The rows that are no bounds: all of the zero cone, then the rest of the nonneg cone."""

    def evaluate(self, A: Floats, b: Floats, size: int) -> Limits | str:
        """Lower and upper bounds of the variables.

        Args:
            A: values of A's stored entries, shape (nnzA,).
            b: right-hand side, shape (m,).
            size: number of variables to give bounds for, at least `width`.

        Returns:
            The bounds; or, if no x satisfies them, why.
        """
        a, limit = A[self.entries], b[self.rows]
        lower, upper = np.full(size, -np.inf), np.full(size, np.inf)
        binds = None
        if not a.all():  # 0 ≤ b: void. Its multiplier is 0, and as an upper bound of +∞ it stays out of the way.
            void = a == 0.0
            if np.any(limit[void] < 0.0):
                return "a row without coefficients asks for 0 ≤ b with b < 0"
            a, limit, binds = np.where(void, 1.0, a), np.where(void, np.inf, limit), ~void
        up = a > 0.0
        value = limit / a
        above, below = np.where(up, value, np.inf), np.where(up, -np.inf, value)
        upper[self._first_cols] = above[self._first]
        lower[self._first_cols] = below[self._first]
        if self._second.start < self.count:
            cols, partner = self._second_cols, self._partner
            same = up[self._second] == up[partner]
            if same.any():  # two rows on one side: the tighter one binds
                new = value[self._second]
                tighter = np.where(up[partner], new < value[partner], new > value[partner])
                binds = np.ones(self.count, dtype=bool) if binds is None else binds
                binds[self._second] &= ~same | tighter
                binds[partner[same & tighter]] = False
            upper[cols] = np.minimum(upper[cols], above[self._second])
            lower[cols] = np.maximum(lower[cols], below[self._second])
            if np.any(lower > upper):
                return "two bounds of one variable contradict each other"
        return Limits(lower, upper, a, up, binds)

    def multipliers(self, limits: Limits, at_lower: Floats, at_upper: Floats) -> Floats:
        """Multipliers of the bound rows from those of the bounds.

        Args:
            limits: from `evaluate`.
            at_lower: multipliers of the lower bounds, ≥ 0, at least `width` of them.
            at_upper: multipliers of the upper bounds, ≥ 0.

        Returns:
            y of the rows `rows`: with x_j ≤ b/a and multiplier z of the bound, a·y = z.
        """
        y = np.where(limits.up, at_upper[self.cols], at_lower[self.cols]) / np.abs(limits.a)
        return y if limits.binds is None else np.where(limits.binds, y, 0.0)


def lower_columnwise(order: int) -> NDArray[np.intp]:
    """Where each entry of the lower triangle, column by column, stands in the upper triangle column by column.

    Args:
        order: the matrix's order n.

    Returns:
        Permutation of length n(n + 1)/2: entry k of the one order is entry `result[k]` of the other.

    Example:
        >>> lower_columnwise(3)          # (0,0) (1,0) (2,0) (1,1) (2,1) (2,2) among (0,0) (0,1) (1,1) (0,2) (1,2) (2,2)
        array([0, 1, 3, 2, 4, 5])
    """
    cols, rows = np.triu_indices(order)  # lower triangle column by column = upper triangle row by row, transposed
    return rows * (rows + 1) // 2 + cols


def upper_triangle(structure: Structure) -> tuple[NDArray[np.intp], sp.csc_matrix]:
    """Which of P's stored entries lie in its upper triangle, and that triangle, whose values are to be set, (n, n)."""
    n, entries = structure.n, np.flatnonzero(structure.P_rows <= structure.P_cols)
    rows, cols = structure.P_rows[entries], structure.P_cols[entries]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(cols, minlength=n))])
    return entries, sp.csc_matrix((np.zeros(len(rows)), rows, indptr), shape=(n, n))


class RowOrder:
    """The structure's rows in a solver's order.

    Args:
        structure: sizes, cones and patterns.
        rows: the structure's row that stands at each of the solver's rows, shape (m,).
    """

    def __init__(self, structure: Structure, rows: NDArray[np.intp]) -> None:
        self.rows = rows
        self._back = np.empty_like(rows)
        self._back[rows] = np.arange(len(rows))
        moved = self._back[structure.A_rows]
        self.identity = bool(np.array_equal(rows, np.arange(len(rows))))
        self.entries: NDArray[np.intp] = np.lexsort((moved, structure.A_cols))
        """The structure's entry of A that stands at each entry of the solver's A, column by column."""
        self.A_rows: NDArray[np.int32] = moved[self.entries].astype(np.int32)
        """Row indices of the solver's A."""

    def matrix(self, A: Floats) -> Floats:
        """Values of A in the solver's order of entries."""
        return A if self.identity else A[self.entries]

    def there(self, values: Floats) -> Floats:
        """A vector over the rows, in the solver's order."""
        return values if self.identity else values[..., self.rows]

    def back(self, values: Floats) -> Floats:
        """A vector over the solver's rows, in the structure's order."""
        return values if self.identity else values[..., self._back]
