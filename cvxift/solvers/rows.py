"""Programs as some solvers want them: P's upper triangle, A's rows in the order of their cones and triangles."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from cvxift._types import Floats
from cvxift.program.structure import Structure


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
