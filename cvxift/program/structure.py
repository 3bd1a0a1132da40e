"""The canonical program's constant part (sizes, cones, sparsity) and its numeric part (value arrays on that sparsity).

    minimize   ½ xᵀPx + qᵀx + d
    subject to Ax + s = b,  s ∈ K                         K = zero × nonneg × soc… × psd… × exp… × pow…

P is symmetric and both of its triangles are stored. Patterns are column-compressed (CSC): entries are ordered by
column, and by row within a column, and each (row, column) pair occurs once. An entry of the pattern may be zero at some
θ.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from cvxift._types import Floats, Ints, cached_property
from cvxift.program.cones import Cones

__all__ = ["Cones", "Data", "Floats", "Ints", "Structure"]


@dataclass(frozen=True, eq=False)
class Structure:
    """Sizes, cones and sparsity patterns of a canonical program; the same for every θ.

    Args:
        n: number of columns (canonical variables x).
        m: number of rows (slacks s and multipliers y).
        cones: the product cone K; its rows are A's rows, in the same order.
        P_rows: row index of each stored entry of P, shape (nnzP,); both triangles.
        P_cols: column index of each stored entry of P, shape (nnzP,).
        P_indptr: CSC column pointers of P, shape (n + 1,).
        A_rows: row index of each stored entry of A, shape (nnzA,).
        A_cols: column index of each stored entry of A, shape (nnzA,).
        A_indptr: CSC column pointers of A, shape (n + 1,).
        nnzP, nnzA: numbers of their stored entries.

    Example:
        >>> structure = Structure.from_patterns(1, Cones(nonneg=1), P=([0], [0]), A=([0], [0]))
        >>> structure.nnzP, structure.nnzA
        (1, 1)
    """

    n: int
    m: int
    cones: Cones
    P_rows: Ints  # (nnzP,)
    P_cols: Ints  # (nnzP,)
    P_indptr: Ints  # (n + 1,)
    A_rows: Ints  # (nnzA,)
    A_cols: Ints  # (nnzA,)
    A_indptr: Ints  # (n + 1,)
    nnzP: int = field(init=False)
    nnzA: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "nnzP", len(self.P_rows))
        object.__setattr__(self, "nnzA", len(self.A_rows))

    @classmethod
    def from_patterns(
        cls,
        n: int,
        cones: Cones,
        P: tuple[NDArray[np.integer], NDArray[np.integer]],
        A: tuple[NDArray[np.integer], NDArray[np.integer]],
    ) -> Structure:
        """Build a structure from (rows, columns) pairs that are already in CSC order without repetition.

        Args:
            n: number of columns.
            cones: the product cone; it sets the number of rows.
            P: rows and columns of P's entries, both triangles.
            A: rows and columns of A's entries.

        Returns:
            The structure, with the column pointers computed.

        Raises:
            ValueError: if a pattern is out of range, out of order, or repeats an entry.
        """
        P_rows, P_cols, P_indptr = _column_compress("P", P, (n, n))
        A_rows, A_cols, A_indptr = _column_compress("A", A, (cones.m, n))
        return cls(n, cones.m, cones, P_rows, P_cols, P_indptr, A_rows, A_cols, A_indptr)

    @cached_property
    def places(self) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
        """P_rows, P_cols, A_rows, A_cols as NumPy's own index type, which it gathers by without converting first."""
        P_rows, P_cols, A_rows, A_cols = (
            index.astype(np.intp) for index in (self.P_rows, self.P_cols, self.A_rows, self.A_cols)
        )
        return P_rows, P_cols, A_rows, A_cols

    def P_matrix(self, values: Floats) -> sp.csc_array:
        """The matrix P of one instance.

        Args:
            values: P's stored entries, shape (nnzP,).

        Returns:
            Sparse matrix of shape (n, n) that shares `values` and the pattern.
        """
        return sp.csc_array((values, self.P_rows, self.P_indptr), shape=(self.n, self.n))

    def A_matrix(self, values: Floats) -> sp.csc_array:
        """The matrix A of one instance.

        Args:
            values: A's stored entries, shape (nnzA,).

        Returns:
            Sparse matrix of shape (m, n) that shares `values` and the pattern.
        """
        return sp.csc_array((values, self.A_rows, self.A_indptr), shape=(self.m, self.n))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Structure):
            return NotImplemented
        return (self.n, self.m, self.cones) == (other.n, other.m, other.cones) and all(
            np.array_equal(getattr(self, name), getattr(other, name))
            for name in ("P_rows", "P_cols", "A_rows", "A_cols")
        )


def numbered(size: int, chosen: NDArray[np.integer]) -> NDArray[np.int64]:
    """The place of each of `size` positions among the chosen ones; −1 for the others."""
    place = np.full(size, -1)
    place[chosen] = np.arange(len(chosen))
    return place


def frozen(array: Floats) -> Floats:
    """A copy that nobody writes to: of a constant, which may be told by its identity."""
    array = np.array(array)
    array.flags.writeable = False
    return array


def constant(array: Floats) -> bool:
    """Whether an array is one that `frozen` made, or no less safe from writing."""
    return not array.flags.writeable and array.base is None


@dataclass(frozen=True, eq=False)
class Data:
    """Numeric values of one canonical program, or of a batch of them, on a structure's patterns.

    The same type carries a tangent (what `Program.jvp` returns) and a cotangent (what `Program.vjp` takes).

    Args:
        P: values of P's stored entries, shape (..., nnzP).
        q: linear cost, shape (..., n).
        A: values of A's stored entries, shape (..., nnzA).
        b: right-hand side, shape (..., m).
        d: constant of the objective, shape (...).

    Example:
        >>> import numpy as np
        >>> batch = Data(P=np.ones((2, 1)), q=np.zeros((2, 1)), A=np.ones((2, 1)), b=np.ones((2, 1)), d=np.zeros(2))
        >>> batch.batch_shape, batch[0].q.shape
        ((2,), (1,))
    """

    P: Floats  # (..., nnzP)
    q: Floats  # (..., n)
    A: Floats  # (..., nnzA)
    b: Floats  # (..., m)
    d: Floats  # (...)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading dimensions."""
        return np.shape(self.q)[:-1]

    def __getitem__(self, index) -> Data:
        """The instance, or the sub-batch, at `index` of the leading dimensions."""
        return Data(self.P[index], self.q[index], self.A[index], self.b[index], self.d[index])


def _column_compress(name, pattern, shape):
    """Check a CSC-ordered pattern and compute its column pointers."""
    rows, cols = (np.asarray(part, dtype=np.int64) for part in pattern)
    if len(rows) != len(cols):
        raise ValueError(f"Pattern of {name}: {len(rows)} row indices but {len(cols)} column indices.")
    if len(rows):
        if rows.min() < 0 or cols.min() < 0 or rows.max() >= shape[0] or cols.max() >= shape[1]:
            raise ValueError(f"Pattern of {name} has an index outside its shape {shape}.")
        if np.any(np.diff(cols * shape[0] + rows) <= 0):
            raise ValueError(f"Pattern of {name} is not in column order, or repeats an entry.")
    indptr = np.zeros(shape[1] + 1, dtype=np.int32)
    np.cumsum(np.bincount(cols, minlength=shape[1]), out=indptr[1:])
    return rows.astype(np.int32), cols.astype(np.int32), indptr
