"""Rows  b(θ) − A(θ)x  of a canonical program as affine maps, compared with each other up to rounding and scale.

A row is the list of its coefficients: of x_j and of x_j θ_k (the normal), of θ_k and of 1 (the right-hand side). Rows
are compared through random sums of their coefficients, which are linear in the row, so that a multiple of a row has the
multiple of its sum; rows whose sums agree are then compared coefficient by coefficient. All of it takes a time
proportional to the number of coefficients, but for one sort of the rows.

`redundant` finds rows that say the same thing as another, less than another, or together with another an equality.

Rows aᵀx ≤ b, aᵀx = b whose normals are multiples of each other and whose right-hand sides differ by constants are put
in the form  âᵀx ≤ c + b̂(θ),  ≥  or  =,  with one â and one b̂; then

    = c and = c           one of them stays
    = e and ≤ c, e ≤ c    the equality stays (≥ likewise)
    ≤ c and ≤ c′, c ≤ c′  the first stays (≥ likewise); also where another cone, and no row, implies ≤ c
    ≤ c and ≥ c           act as the equality that they are: the upper row becomes a row of the zero cone

What stays describes the same set for every θ. The multiplier of a row that leaves is zero. Two opposed rows y₁ (a₁ᵀx −
b₁) + y₂ (a₂ᵀx − b₂) with a₂ = −a₁/r, b₂ = −b₁/r  have (y₁ − y₂/r)(a₁ᵀx − b₁), so that the equality's multiplier y is
y₁ − y₂/r, and the smallest pair that gives it is y₁ = max(y, 0), y₂ = r max(−y, 0).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from cvxift._types import EPS
from cvxift.program.structure import Floats, Structure
from cvxift.program.tensors import Stack

SAME_ROUNDINGS = 16 * EPS  # relative difference of coefficients that are the same: two roundings of a product
ZERO, NONNEG, IMPLIED = 0, 1, 2  # what is known of a row's slack: it is 0; it is stated ≥ 0; another cone makes it ≥ 0
SUMS = 1e-11  # so far two sums of the same coefficients may lie apart, relative to the sum of their moduli


@dataclass(frozen=True)
class AffineRows:
    """Coefficients of rows, ordered by row, then by column of x, then by entry of θ.

    Args:
        start: first coefficient of each row, and the end of the last, shape (rows + 1,).
        column: column of x of each coefficient; n for the right-hand side.
        parameter: entry of θ of each coefficient; N for what does not depend on θ.
        value: the coefficients.
        n: number of columns of x.
        N: length of θ.
    """

    start: np.ndarray
    column: np.ndarray
    parameter: np.ndarray
    value: Floats
    n: int
    N: int

    def __len__(self) -> int:
        return len(self.start) - 1

    @property
    def row(self) -> np.ndarray:
        """Row of each coefficient."""
        return np.repeat(np.arange(len(self)), np.diff(self.start))

    def take(self, rows: np.ndarray) -> AffineRows:
        """Some of the rows, in the order given."""
        length = np.diff(self.start)[rows]
        start = np.concatenate([[0], np.cumsum(length)])
        at = np.arange(start[-1]) + np.repeat(self.start[:-1][rows] - start[:-1], length)
        return AffineRows(start, self.column[at], self.parameter[at], self.value[at], self.n, self.N)

    def sums(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Random sums of each row's normal and of its b's coefficients of θ, each followed by the sum of moduli."""
        rng = np.random.default_rng(20240229)
        used, parameter = np.unique(self.parameter, return_inverse=True)  # few of them where θ is a sparse matrix
        by_column, by_parameter = rng.uniform(0.5, 2.0, self.n + 1), rng.uniform(0.5, 2.0, len(used))
        by_column *= rng.choice([-1.0, 1.0], self.n + 1)
        term = self.value * by_column[self.column] * by_parameter[parameter]
        normal = self.column < self.n
        moving = ~normal & (self.parameter < self.N)
        row, size = self.row, len(self)
        return tuple(  # pyright: ignore[reportReturnType]  # a comprehension has no length
            np.bincount(row[part], weights[part], minlength=size).astype(float)
            for part in (normal, moving)
            for weights in (term, np.abs(term))
        )

    def at_random(self) -> tuple[Floats, Floats]:
        """Each row's value at a random x and θ, and the sum of the moduli of its terms."""
        normal, normal_size, moving, moving_size = self.sums()
        constant = self.constant()
        return normal + 3.1 * moving + 1.7 * constant, normal_size + 3.1 * moving_size + 1.7 * np.abs(constant)

    def leading(self) -> Floats:
        """Each row's first coefficient of x, with its sign; 0 for a row without."""
        first = np.zeros(len(self))
        filled = np.flatnonzero(np.diff(self.start) > 0)
        at = self.start[:-1][filled]
        first[filled] = np.where(self.column[at] < self.n, self.value[at], 0.0)
        return first

    def constant(self) -> Floats:
        """Each row's right-hand side at θ = 0."""
        at = (self.column == self.n) & (self.parameter == self.N)
        return np.bincount(self.row[at], self.value[at], minlength=len(self)).astype(float)

    def without_constants(self) -> AffineRows:
        """The rows without what stands on the right for θ = 0."""
        kept = (self.column < self.n) | (self.parameter < self.N)
        start = np.concatenate([[0], np.cumsum(kept)])[self.start]
        return AffineRows(start, self.column[kept], self.parameter[kept], self.value[kept], self.n, self.N)

    def same(self, first: np.ndarray, second: np.ndarray, ratio: Floats) -> np.ndarray:
        """Whether row first[k] is ratio[k] times row second[k], for every k."""
        equal = np.diff(self.start)[first] == np.diff(self.start)[second]
        at = np.flatnonzero(equal)
        one, two = self.take(first[at]), self.take(second[at])
        differs = (one.column != two.column) | (one.parameter != two.parameter)
        differs |= ~(np.abs(one.value - ratio[at][two.row] * two.value) <= SAME_ROUNDINGS * np.abs(one.value))
        equal[at] = np.bincount(one.row[differs], minlength=len(at)) == 0
        return equal


def affine_rows(structure: Structure, stacked: Stack) -> AffineRows:
    """The rows of a program.

    Args:
        structure: its structure.
        stacked: its data as affine functions of θ.

    Returns:
        One row for each row of A.
    """
    n, N = structure.n, stacked.theta_size
    A, b = stacked.slices["A"], stacked.slices["b"]
    entry, parameter, value = _coefficients(stacked, A)
    row, k, right = _coefficients(stacked, b)
    rows = np.concatenate([structure.A_rows[entry].astype(np.int64), row])
    columns = np.concatenate([structure.A_cols[entry].astype(np.int64), np.full(len(row), n)])
    return collect(rows, columns, np.concatenate([parameter, k]), np.concatenate([value, right]), structure.m, n, N)


def collect(
    rows: np.ndarray, columns: np.ndarray, parameters: np.ndarray, values: Floats, size: int, n: int, N: int
) -> AffineRows:
    """Rows from coefficients in any order, equal places summed; sums that are rounding errors are left out."""
    if not len(rows):
        empty = np.zeros(0, dtype=np.int64)
        return AffineRows(np.zeros(size + 1, dtype=np.int64), empty, empty, np.zeros(0), n, N)
    order = np.lexsort((parameters, columns, rows))
    rows, columns, parameters, values = rows[order], columns[order], parameters[order], values[order]
    new = np.ones(len(rows), dtype=bool)
    new[1:] = (np.diff(rows) != 0) | (np.diff(columns) != 0) | (np.diff(parameters) != 0)
    first = np.flatnonzero(new)
    summed, moduli = np.add.reduceat(values, first), np.add.reduceat(np.abs(values), first)
    kept = first[np.abs(summed) > SAME_ROUNDINGS * moduli]
    value = summed[np.abs(summed) > SAME_ROUNDINGS * moduli]
    start = np.searchsorted(rows[kept], np.arange(size + 1))
    return AffineRows(start, columns[kept], parameters[kept], value, n, N)


def joined(first: AffineRows, second: AffineRows) -> AffineRows:
    """The rows of both, one after the other."""
    return AffineRows(
        np.concatenate([first.start, first.start[-1] + second.start[1:]]),
        np.concatenate([first.column, second.column]),
        np.concatenate([first.parameter, second.parameter]),
        np.concatenate([first.value, second.value]),
        first.n,
        first.N,
    )


def runs(value: Floats, tolerance: Floats, *earlier: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort by earlier keys, then by value, and cut where the value jumps by more than the tolerance.

    Args:
        value: the values.
        tolerance: for each, how far a same one may lie.
        *earlier: integer keys that must be equal, the most significant last.

    Returns:
        The order, and in that order the number of the run that each belongs to.
    """
    order = np.lexsort((value, *earlier))
    jump = np.zeros(len(order), dtype=bool)
    if len(order):
        jump[1:] = np.diff(value[order]) > np.maximum(tolerance[order][1:], tolerance[order][:-1])
        for key in earlier:
            jump[1:] |= np.diff(key[order]) != 0
    return order, np.cumsum(jump)


def _coefficients(stacked: Stack, where: slice) -> tuple[np.ndarray, np.ndarray, Floats]:
    """Entry of the piece, entry of θ (N for the constant) and value of each non-zero coefficient."""
    matrix = sp.coo_array(stacked.matrix[where])
    constant = stacked.constant[where]
    held = np.flatnonzero(constant)
    entry = np.concatenate([matrix.coords[0].astype(np.int64), held])
    parameter = np.concatenate([matrix.coords[1].astype(np.int64), np.full(len(held), stacked.theta_size)])
    value = np.concatenate([np.asarray(matrix.data, dtype=float), constant[held]])
    kept = value != 0
    return entry[kept], parameter[kept], value[kept]


@dataclass(frozen=True)
class Pairs:
    """Opposed rows.

    Args:
        first: the row that becomes an equality.
        second: the row that leaves.
        ratio: r ≥ 0 in  y₂ = r max(−y, 0).
    """

    first: np.ndarray
    second: np.ndarray
    ratio: Floats


def redundant(rows: AffineRows, kind: np.ndarray, rank: np.ndarray) -> tuple[np.ndarray, Pairs]:
    """The rows that others make superfluous.

    Args:
        rows: the rows.
        kind: `ZERO`, `NONNEG` or `IMPLIED`, for each.
        rank: which of two same rows stays: the one of the lower rank, then the earlier one.

    Returns:
        A mask of the rows that leave, among them the second rows of pairs; and the pairs.
    """
    gone = _empty(rows, kind)
    lead = rows.leading()
    live = np.flatnonzero(lead != 0)
    if len(live) < 2:
        return gone, _pairs([])
    subset, scale = rows.take(live), lead[live]
    normal, normal_size, moving, moving_size = subset.sums()
    order, run = runs(normal / scale, SUMS * normal_size / np.abs(scale))
    group = np.empty(len(live), dtype=np.int64)
    group[order] = run
    order, run = runs(moving / scale, SUMS * moving_size / np.abs(scale), group)
    group[order] = run
    c = subset.constant() / scale
    crowded = np.flatnonzero(np.bincount(group)[group] > 1)
    if not len(crowded):
        return gone, _pairs([])
    parts = _Parts(subset.without_constants(), live, scale, c, group, kind[live], rank[live], gone)
    return parts.judge(crowded)


def _pairs(found: list[tuple[np.ndarray, np.ndarray, Floats]]) -> Pairs:
    empty = np.zeros(0, dtype=np.int64)
    first, second, ratio = zip(*found, strict=True) if found else ((empty,), (empty,), (np.zeros(0),))
    return Pairs(np.concatenate(first), np.concatenate(second), np.concatenate(ratio))


def _empty(rows: AffineRows, kind: np.ndarray) -> np.ndarray:
    """Rows  0 = 0  and  0 ≤ b  with a constant b ≥ 0."""
    empty = rows.leading() == 0
    moving = np.bincount(rows.row[rows.parameter < rows.N], minlength=len(rows)) > 0
    b = rows.constant()
    return empty & ~moving & np.where(kind == ZERO, b == 0, b >= 0) & (kind != IMPLIED)


@dataclass(frozen=True)
class _Parts:
    """The rows that have a normal, in normal form."""

    rows: AffineRows  # without constants
    index: np.ndarray  # their place among all rows
    scale: Floats  # first coefficient: the row is scale · (normal form), reversed where it is negative
    c: Floats
    group: np.ndarray
    kind: np.ndarray
    rank: np.ndarray
    gone: np.ndarray  # mask over all rows, written

    def judge(self, members: np.ndarray) -> tuple[np.ndarray, Pairs]:
        """Decide among rows that are not alone in their group."""
        fixed, stated = self.kind == ZERO, self.kind == NONNEG
        upper = self.scale > 0
        equality = self._best(members[fixed[members]], np.zeros(len(self.c)))
        self._drop(members, equality, fixed, lambda c, best: np.abs(c - best) <= _near(c, best))
        self._drop(members, equality, stated & upper, lambda c, best: c >= best - _near(c, best))
        self._drop(members, equality, stated & ~upper, lambda c, best: c <= best + _near(c, best))
        tightest = {}
        for side, sign in ((upper, 1.0), (~upper, -1.0)):
            for source in (self.kind == IMPLIED, stated):
                open_ = members[(side & source)[members] & ~self.gone[self.index[members]]]
                best = self._best(open_, sign * self.c)
                self._drop(members, best, stated & side, lambda c, b, k=sign: k * c >= k * b - _near(c, b))
            open_ = members[(side & stated)[members] & ~self.gone[self.index[members]]]
            tightest[sign] = self._best(open_, sign * self.c)
        return self.gone, self._opposed(tightest[1.0], tightest[-1.0], equality)

    def _best(self, members: np.ndarray, value: Floats) -> np.ndarray:
        """For each group, its member of the lowest value; −1 where it has none. Ties go by rank, then by place."""
        best = np.full(len(self.group) and int(self.group.max()) + 1, -1)
        order = members[np.lexsort((members, self.rank[members], value[members], self.group[members]))]
        group = self.group[order]
        first = np.ones(len(order), dtype=bool)
        first[1:] = np.diff(group) != 0
        best[group[first]] = order[first]
        return best

    def _drop(self, members, best, which, rule) -> None:
        """Take out the rows of a kind that the best of their group makes superfluous by a rule on c."""
        by = best[self.group[members]]
        at = (by >= 0) & (by != members) & which[members] & ~self.gone[self.index[members]]
        rows, by = members[at], by[at]
        met = rule(self.c[rows], self.c[by])
        rows, by = rows[met], by[met]
        if not len(rows):
            return
        same = self.rows.same(rows, by, self.scale[rows] / self.scale[by])
        self.gone[self.index[rows[same]]] = True

    def _opposed(self, upper: np.ndarray, lower: np.ndarray, equality: np.ndarray) -> Pairs:
        both = np.flatnonzero((upper >= 0) & (lower >= 0) & (equality < 0))
        one, two = upper[both], lower[both]
        met = np.abs(self.c[one] - self.c[two]) <= _near(self.c[one], self.c[two])
        one, two = one[met], two[met]
        if not len(one):
            return _pairs([])
        same = self.rows.same(one, two, self.scale[one] / self.scale[two])
        one, two = one[same], two[same]
        swap = (self.rank[two] < self.rank[one]) | ((self.rank[two] == self.rank[one]) & (two < one))
        one, two = np.where(swap, two, one), np.where(swap, one, two)
        self.gone[self.index[two]] = True
        ratio = np.abs(self.scale[one] / self.scale[two])
        return _pairs([(self.index[one], self.index[two], ratio)])


def _near(c: Floats, other: Floats) -> Floats:
    return SAME_ROUNDINGS * np.maximum(np.abs(c), np.abs(other))
