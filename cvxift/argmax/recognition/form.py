"""What a recognized program is made of: the allocation's inputs as affine functions of θ, and where its parts stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from cvxift.argmax.recognition.separable import Kind
from cvxift.program.structure import Floats

if TYPE_CHECKING:
    from cvxift.argmax.recognition.power_trees import PowerTrees

SAME = 1e-12  # relative difference up to which two coefficients are the same
Indices = NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class Affine:
    """Rows that are affine in θ: c + Mθ, M by its rows.

    Attributes:
        indptr: where each row of M starts, shape (K + 1,).
        indices: column of each entry.
        data: value of each entry.
        constant: c, shape (K,).
    """

    indptr: Indices
    indices: Indices
    data: Floats
    constant: Floats

    @classmethod
    def fixed(cls, constant: Floats) -> Affine:
        """Rows that do not depend on θ."""
        none = np.zeros(0, dtype=np.intp)
        return cls(np.zeros(len(constant) + 1, dtype=np.intp), none, np.zeros(0), constant)

    @property
    def counts(self) -> Indices:
        """Entries of M in each row, shape (K,)."""
        return np.diff(self.indptr)

    @property
    def varies(self) -> bool:
        """Whether any row depends on θ."""
        return len(self.data) > 0

    def block(self, start: int, stop: int) -> Affine:
        """Consecutive rows."""
        a, b = self.indptr[start], self.indptr[stop]
        return Affine(self.indptr[start : stop + 1] - a, self.indices[a:b], self.data[a:b], self.constant[start:stop])

    def equals(self, pairs: Indices) -> bool:
        """Whether the two rows of each pair, shape (k, 2), are the same."""
        left, right = pairs[:, 0], pairs[:, 1]
        if not np.allclose(self.constant[left], self.constant[right], rtol=SAME, atol=0.0):
            return False
        counts = self.counts
        if not self.varies:
            return True
        if np.any(counts[left] != counts[right]):
            return False
        a, b = (self._places(rows) for rows in (left, right))
        same = np.array_equal(self.indices[a], self.indices[b])
        return same and np.allclose(self.data[a], self.data[b], rtol=SAME, atol=0.0)

    def _places(self, rows: Indices) -> Indices:
        """Positions of the entries of some rows, one row after the other."""
        counts = self.counts[rows]
        local = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.repeat(self.indptr[rows], counts) + local

    def scaled(self, rows: Indices, weight: Floats | None = None) -> tuple[Indices, Indices, Floats, Floats]:
        """Some rows times weights: row, column and value of M's entries, and c."""
        at, count = self._places(rows), self.counts[rows]
        row = np.repeat(np.arange(len(rows)), count)
        if weight is None:
            return row, self.indices[at], self.data[at], self.constant[rows]
        return row, self.indices[at], self.data[at] * weight[row], self.constant[rows] * weight


def combine(
    pieces: tuple[tuple[sp.csr_array, Floats], ...], place: Indices, entry: Indices, weight: Floats, rows: int
) -> Affine:
    """Constant combinations of the program's data, as functions of θ.

    Args:
        pieces: data as (M, c), one after the other.
        place: row of the result that each summand belongs to.
        entry: data entry that it takes, counted through the pieces.
        weight: its coefficient.
        rows: number of rows.

    Returns:
        The rows.
    """
    constant = np.concatenate([c for _, c in pieces])
    total = np.asarray(np.bincount(place, weight * constant[entry], minlength=rows), dtype=float)
    counts = np.concatenate([np.diff(M.indptr) for M, _ in pieces])
    data = Affine(
        np.concatenate([[0], np.cumsum(counts)]),
        np.concatenate([M.indices for M, _ in pieces]),
        np.asarray(np.concatenate([M.data for M, _ in pieces]), dtype=float),
        constant,
    )
    taken, column, value, _ = data.scaled(entry, weight)
    if not len(value):
        return Affine.fixed(total)
    # Summands of one row and column come together, and are added up.
    width = int(column.max()) + 1
    key = place[taken] * width + column
    order = np.argsort(key, kind="stable")
    key, value = key[order], value[order]
    first = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
    key, value = key[first], np.add.reduceat(value, first)
    key, value = key[value != 0.0], value[value != 0.0]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(key // width, minlength=rows))])
    return Affine(indptr, key % width, value, total)


@dataclass(frozen=True, eq=False)
class Squares:
    """Columns e = S z + t that only carry a quadratic term.

    Attributes:
        rows: their zero rows.
        columns: themselves.
        gain: their coefficients there.
    """

    rows: Indices
    columns: Indices
    gain: Floats

    def place(self, P: Floats, q: Floats, x: Floats, s: Floats, y: Floats) -> None:
        """Their values from the slacks s that are left without them, and their rows' multipliers."""
        x[self.columns] = s[self.rows] / self.gain
        y[self.rows] = -(P[self.columns] * x[self.columns] + q[self.columns]) / self.gain


@dataclass(frozen=True, eq=False)
class Omega:
    """One column ω ≥ Σ weight · t, in whose place the objective has the epigraphs t.

    Attributes:
        row: the inequality.
        column: its column.
        gain: its coefficient, < 0.
        weight: coefficients of the t.
    """

    row: int
    column: int
    gain: float
    weight: Floats


@dataclass(frozen=True, eq=False)
class Epigraphs:
    """Cones whose first row has one column t of its own, or trees of second-order cones in their place.

    Attributes:
        rows: first rows of the cones.
        columns: columns t; with trees all their auxiliaries.
        gain: coefficients of t.
        omega: the column that bounds the sum of all t, if there is one.
        trees: the trees.
    """

    rows: Indices
    columns: Indices
    gain: Floats
    omega: Omega | None = None
    trees: PowerTrees | None = None

    @classmethod
    def none(cls) -> Epigraphs:
        """No cones."""
        empty = np.zeros(0, dtype=np.intp)
        return cls(empty, empty, np.zeros(0))

    @property
    def count(self) -> int:
        """Number of columns."""
        return len(self.columns) + (self.omega is not None)


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the parts of the form stand in the canonical program; i counts z's entries in the output's order.

    Attributes:
        columns: column of each entry, shape (K,).
        groups: entries of each group, shape (G, n); single entries where there are no sums.
        sum_rows: the groups' zero rows, shape (G,); None without sums.
        sum_gain: coefficient in them, shape (G,).
        lower_rows: the row of each entry's lower bound, −1 where it has none or one that never matters, (K,).
        upper_rows: likewise.
        squares: auxiliaries of the squares.
        epigraphs: the cones' columns.
    """

    columns: Indices
    groups: Indices
    sum_rows: Indices | None
    sum_gain: Floats
    lower_rows: Indices
    upper_rows: Indices
    squares: Squares
    epigraphs: Epigraphs


@dataclass(frozen=True, eq=False)
class Form:
    """A recognized program.

    Attributes:
        kind: which allocation.
        name: what to call it.
        score: −q with what the cones add, K rows in the output's order.
        stiffness: c, G rows.
        total: k, G rows; None without sums.
        lower: bounds, K rows; None without.
        upper: likewise.
        gain_lower: sizes of the coefficients in the bounds' rows, shape (K,).
        gain_upper: likewise.
        layout: where its parts stand.
        prior: p, K rows, of entropies relative to one that depends on θ; None without.
    """

    kind: Kind
    name: str
    score: Affine
    stiffness: Affine
    total: Affine | None
    lower: Affine | None
    upper: Affine | None
    gain_lower: Floats
    gain_upper: Floats
    layout: Layout
    prior: Affine | None = None
