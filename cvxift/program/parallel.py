"""Linear rows that say the same thing, more than another says, or together an equality.

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

from cvxift.program.affine_rows import SAME_ROUNDINGS, SUMS, AffineRows, runs
from cvxift.program.structure import Floats

ZERO, NONNEG, IMPLIED = 0, 1, 2  # what is known of a row's slack: it is 0; it is stated ≥ 0; another cone makes it ≥ 0


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
