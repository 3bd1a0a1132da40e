"""Elimination of the auxiliary columns that canonicalization adds only to express a quadratic.

CVXPY turns ‖Bx − c‖² into  yᵀy  with  Bx + a·y = b_E  (a = ±1). Such a column y_i meets one zero row with a constant
coefficient and is otherwise seen by a diagonal entry of P alone, so that it can be put into the rest as `substitution`
says, with C = 0 and P_YX = 0:

    P_c = P_XX + Sᵀ W S,    W = P_YY diagonal,    A_c = A_RX

This is decided once, from the sparsity alone, and only where P_c has no more entries than what it replaces: then both
the solver's program and the KKT system are smaller.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from cvxift._types import Indices
from cvxift.program.products import apply, transposed
from cvxift.program.structure import Data, Floats, Structure, constant, frozen, numbered
from cvxift.program.substitution import WRITTEN_OUT, Parts, Split, Way, as_slice, pick, substituted

THREADED = 250_000  # multiplications from which OpenBLAS uses threads
WORTH_THREADS = 8_000_000  # multiplications from which threads are worth their risk
MAX_PAIRS = 20_000_000  # entries of SᵀWS written out as products; more would cost more memory than the KKT system saves
DENSE_SHARE = 0.25  # share of entries from which S, or its columns that have entries, are taken for a dense array
GRAM_FILL = 1.5  # P_c may hold this many entries per entry that the substitution removes


@dataclass(frozen=True)
class _Selection:
    """Where the kept and substituted entries stand in the original program's value arrays."""

    X: Indices
    Y: Indices
    E: Indices
    R: Indices
    a: Floats  # (|Y|,) the constant coefficients
    W: Indices  # positions in P's values of P_yy's diagonal
    P_xx: Indices  # positions in P's values
    B: Indices  # positions in A's values of the entries of A_EX
    B_row: Indices  # their row, counted in E's order
    B_col: Indices  # their column, counted in X's order
    A_c: Indices  # positions in A's values of A_RX


class AuxiliaryColumns:
    """A program with the substitutable auxiliaries removed, and the way there and back.

    Args:
        structure: the original program's structure.
        constant: for each stored entry of A, whether its value is the same for every θ, shape (nnzA,).
        A: values of A's stored entries; only the constant ones are read, shape (nnzA,).

    Attributes:
        structure: the condensed program's structure (the original one if nothing can be substituted).
        parts: what is kept and what is substituted; None if nothing is.
    """

    def __init__(self, structure: Structure, constant: np.ndarray, A: Floats) -> None:
        self.original = structure
        k = _select(structure, np.asarray(constant, dtype=bool), A)
        self.selection = k
        self._kept: Any = None
        self.parts: Parts | None = None
        if k is None:
            self.structure = structure
            return
        nx, ne = len(k.X), len(k.Y)
        new_col, new_row = numbered(structure.n, k.X), numbered(structure.m, k.R)

        # Dense columns of S: one matrix product per instance. Sparse S: every product s_ei·s_ej of a row's entries,
        # summed by one constant matrix.
        self.dense = len(k.B_row) >= DENSE_SHARE * nx * ne
        touched = np.unique(k.B_col)
        self._touched = as_slice(touched)
        self._block = len(k.B_row) >= DENSE_SHARE * len(touched) * ne
        rows = structure.P_rows[k.P_xx]
        cols = structure.P_cols[k.P_xx]
        xx_key = new_col[cols].astype(np.int64) * nx + new_col[rows]
        if self._block:
            pair_key = (touched[:, None] * nx + touched).ravel()
        else:
            self._left, self._right = _pairs(k.B_row)
            self._pair_row = k.B_row[self._left]
            pair_key = k.B_col[self._right].astype(np.int64) * nx + k.B_col[self._left]
        keys, where = np.unique(np.concatenate([xx_key, pair_key]), return_inverse=True)
        self._xx_at, pair_at = where[: len(xx_key)], where[len(xx_key) :]
        self._nnzP = len(keys)
        if self._block:
            self._block_at = as_slice(pair_at)
            self._block_flat = k.B_row.astype(np.intp) * len(touched) + np.searchsorted(touched, k.B_col)
            self._block_shape = (ne, len(touched))
        else:
            ones = np.ones(len(pair_at))
            self._sum_pairs = sp.csr_array((ones, (pair_at, np.arange(len(pair_at)))), shape=(len(keys), len(pair_at)))
        cones = replace(structure.cones, zero=structure.cones.zero - ne)
        self.structure = Structure.from_patterns(
            nx,
            cones,
            P=(keys % nx, keys // nx),
            A=(new_row[structure.A_rows[k.A_c]], new_col[structure.A_cols[k.A_c]]),
        )
        self._shape = (ne, nx)
        self.parts = Parts(Split(k.X, k.Y), Split(k.R, k.E), 1.0 / k.a)
        self._minus_inverse_a_of_B = -self.parts.inverse_a[k.B_row]
        self._B_flat = k.B_row.astype(np.intp) * nx + k.B_col
        self._csr_order = np.lexsort((k.B_col, k.B_row))
        self._csr_columns = k.B_col[self._csr_order]
        self._csr_indptr = np.concatenate([[0], np.cumsum(np.bincount(k.B_row, minlength=ne))])
        self._W, self._P_xx, self._B, self._A_c = map(as_slice, (k.W, k.P_xx, k.B, k.A_c))

    def condense(self, data: Data, further: Way | None = None) -> tuple[Data, Way | None]:
        """The condensed program's data, but for the constant that substitution adds to `d`, and the way back.

        Args:
            data: the original program's data; leading batch dimensions only if `batches`.
            further: the way from that program; returned where nothing is substituted.
        """
        if self.parts is None:
            return data, further
        W, S, P, A = self._matrices(data.P, data.A, data.batch_shape)
        q, b, way = substituted(self.parts, data.q, data.b, further, S=S, W=W)
        return Data(P, q, A, b, data.d), way

    def _matrices(self, P_data: Floats, A_data: Floats, batch: tuple[int, ...]) -> tuple[Floats, Any, Floats, Floats]:
        """W, S, and the condensed P and A; those of constants, which come as the same arrays each time, are kept."""
        kept = self._kept
        if kept is not None and kept[0] is P_data and kept[1] is A_data:
            return kept[2]
        k = self.selection
        assert k is not None
        W = pick(P_data, self._W)
        S_values = pick(A_data, self._B) * self._minus_inverse_a_of_B
        P = np.zeros((*batch, self._nnzP))
        if len(self._xx_at):
            P[..., self._xx_at] = pick(P_data, self._P_xx)
        if self.dense or batch:  # a batch's S are dense arrays in any case; `batches` keeps them small
            S = np.zeros((*batch, self._shape[0] * self._shape[1]))
            S[..., self._B_flat] = S_values
            S = S.reshape(*batch, *self._shape)
        else:
            S = sp.csr_array((S_values[self._csr_order], self._csr_columns, self._csr_indptr), shape=self._shape)
        if self._block:
            P[..., self._block_at] += _gram(self._columns(S, S_values), W).reshape(*batch, -1)
        else:
            pairs = pick(S_values, self._left) * pick(S_values, self._right) * pick(W, self._pair_row)
            P += apply(self._sum_pairs, pairs)
        found = W, S, P, pick(A_data, self._A_c)
        if constant(P_data) and constant(A_data):
            found = W, S, frozen(P), frozen(found[3])
            self._kept = P_data, A_data, found
        return found

    def _columns(self, S: Any, values: Floats) -> Floats:
        """The columns of S that have entries, as a dense array."""
        if isinstance(S, np.ndarray):
            return pick(S, self._touched)
        block = np.zeros(self._block_shape)
        block.reshape(-1)[self._block_flat] = values
        return block

    @property
    def batches(self) -> bool:
        """Whether `condense` takes batches: nothing is substituted, or S is small enough to be written out."""
        return self.selection is None or self.dense or self._shape[0] * self._shape[1] <= WRITTEN_OUT


def _gram(S: Floats, W: Floats) -> Floats:
    """SᵀWS of one dense S or of a batch.

    One product of moderate size is cut into column blocks too small for BLAS to spread over threads: on a busy machine
    its threads wait for each other a hundred times longer than the product takes.
    """
    ST, WS = transposed(S), W[..., :, None] * S
    rows, columns = S.shape[-2:]
    if S.ndim == 3 or not THREADED < rows * columns**2 <= WORTH_THREADS:
        return ST @ WS
    width = max(1, THREADED // (rows * columns))
    out = np.empty((columns, columns))
    for start in range(0, columns, width):
        np.matmul(ST, WS[:, start : start + width], out=out[:, start : start + width])
    return out


def _pairs(rows: Indices) -> tuple[Indices, Indices]:
    """All ordered pairs of positions that share a row."""
    order = np.argsort(rows, kind="stable")
    counts = np.bincount(rows) if len(rows) else np.zeros(0, dtype=int)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]) if len(counts) else np.zeros(0, dtype=int)
    squares = counts**2
    total = int(squares.sum())
    row_of = np.repeat(np.arange(len(counts)), squares)
    local = np.arange(total) - np.repeat(np.cumsum(squares) - squares, squares)
    left = order[starts[row_of] + local // np.maximum(counts[row_of], 1)]
    right = order[starts[row_of] + local % np.maximum(counts[row_of], 1)]
    return left, right


def _gram_entries(structure: Structure, entry: np.ndarray, xx: np.ndarray) -> float:
    """Number of entries of P_xx + BᵀB, or infinity where writing its products out would take too much memory."""
    rows, cols = structure.A_rows[entry], structure.A_cols[entry]
    width = np.bincount(rows, minlength=structure.m).astype(float)
    touched = np.zeros(structure.n, dtype=bool)
    touched[cols] = True
    size = np.count_nonzero(touched)
    if len(rows) >= DENSE_SHARE * size * np.count_nonzero(width):
        inside = touched[structure.P_rows[xx]] & touched[structure.P_cols[xx]]
        return float(size) ** 2 + np.count_nonzero(~inside)
    if np.sum(width**2) > MAX_PAIRS:
        return np.inf
    B = sp.csr_array((np.ones(len(rows)), (rows, cols)), shape=(structure.m, structure.n))
    P = sp.csr_array(
        (np.ones(xx.sum()), (structure.P_rows[xx], structure.P_cols[xx])), shape=(structure.n, structure.n)
    )
    return float((B.T @ B + P).nnz)


def _select(structure: Structure, constant: np.ndarray, A: Floats) -> _Selection | None:
    """Choose the columns to substitute, or None."""
    n, m, zero = structure.n, structure.m, structure.cones.zero
    if not zero or not structure.nnzA:
        return None
    column_count = np.diff(structure.A_indptr)
    singles = np.flatnonzero(column_count == 1)
    at = structure.A_indptr[singles]
    rows = structure.A_rows[at]
    good = (rows < zero) & constant[at] & (A[at] != 0.0)
    # P may touch a substituted column on its diagonal only
    off = structure.P_rows != structure.P_cols
    coupled = np.zeros(n, dtype=bool)
    coupled[structure.P_cols[off]] = True
    has_diagonal = np.zeros(n, dtype=bool)
    has_diagonal[structure.P_cols[~off]] = True
    good &= ~coupled[singles] & has_diagonal[singles]
    singles, rows, at = singles[good], rows[good], at[good]
    rows, first = np.unique(rows, return_index=True)  # one substituted column a row
    Y, at = singles[first], at[first]
    if not len(Y):
        return None

    # Entries of each candidate row other than its own column; a row whose other columns are also candidates keeps those
    # as X.
    is_Y = np.zeros(n, dtype=bool)
    is_Y[Y] = True
    width = np.bincount(structure.A_rows, minlength=m)[rows] - 1
    # A candidate column may appear in no other row (it is a singleton), so B's columns are never candidates of another
    # row.
    narrow = width <= 2
    chosen = narrow.copy()
    wide = np.flatnonzero(~narrow)
    if len(wide):
        mask = np.zeros(m, dtype=bool)
        mask[rows[wide]] = True
        entry = mask[structure.A_rows] & ~is_Y[structure.A_cols]
        xx = ~is_Y[structure.P_cols]
        removed = GRAM_FILL * (2 * entry.sum() + 3 * len(wide)) + xx.sum()
        chosen[wide] = _gram_entries(structure, entry, xx) <= removed
    if not chosen.any():
        return None
    E, Y, at = rows[chosen], Y[chosen], at[chosen]

    kept_col = np.ones(n, dtype=bool)
    kept_col[Y] = False
    kept_row = np.ones(m, dtype=bool)
    kept_row[E] = False
    X, R = np.flatnonzero(kept_col), np.flatnonzero(kept_row)
    if not len(X):
        return None
    W = np.full(n, -1)
    diagonal = np.flatnonzero(~off)
    W[structure.P_cols[diagonal]] = diagonal
    in_E, in_X = ~kept_row[structure.A_rows], kept_col[structure.A_cols]
    B_at = np.flatnonzero(in_E & in_X)
    return _Selection(
        X=X,
        Y=Y,
        E=E,
        R=R,
        a=np.asarray(A, dtype=float)[at],
        W=W[Y],
        P_xx=np.flatnonzero(kept_col[structure.P_cols]),
        B=B_at,
        B_row=numbered(m, E)[structure.A_rows[B_at]],
        B_col=numbered(n, X)[structure.A_cols[B_at]],
        A_c=np.flatnonzero(~in_E & in_X),
    )
