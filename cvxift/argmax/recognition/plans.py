"""Transport plans as allocations whose entries have two sums each, one of their row and one of their column.

    z_ij = φ(x_ij − u_i − v_j),   Σ_j z_ij = a_i,   Σ_i z_ij = b_j

The entries of one m × n plan lie in a row, shape (…, 1, mn), and so do its sums (a, b), shape (…, 1, m + n). What
`separable` says of a sum's multiplier τ holds of (u, v), with the weighted bipartite graph's Laplacian in S's place;
see `polytope`. φ is exp (Cuturi 2013) or the positive part (Blondel, Seguy, Rolet 2018).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, csgraph_from_dense, floyd_warshall

from cvxift.argmax.polytope import fit, potentials
from cvxift.argmax.quadratic_transport import quadratic_transport
from cvxift.argmax.recognition.separable import Allocation, Kind, Limits
from cvxift.argmax.sinkhorn import Plan, sinkhorn
from cvxift.program.structure import Floats

EQUAL = 1e-12  # relative difference of the totals up to which a plan exists
SOLVED = 64 * float(np.finfo(float).eps)  # error of a plan's sums, relative to the total, that passes for none
NEAR = 1e-6  # relative distance from a kink up to which other multipliers are looked for
ROUNDING = 1024 * float(np.finfo(float).eps)  # relative to what an entry may hold at most


@dataclass(eq=False)
class PlanAllocation(Allocation):
    """Solved plans.

    Attributes:
        size: (m, n).
        level: x − u ⊕ v, shape (…, 1, mn).
    """

    size: tuple[int, int] = (0, 0)
    level: Floats | None = None

    def _matrix(self, flat: Floats) -> Floats:
        """(…, 1, mn) to (…, m, n)."""
        return flat.reshape(*flat.shape[:-2], *self.size)

    def _sums(self, sums: Floats) -> tuple[Floats, Floats]:
        """(…, 1, m + n) to (…, m) and (…, n)."""
        return sums[..., 0, : self.size[0]], sums[..., 0, self.size[0] :]

    @staticmethod
    def _joined(u: Floats, v: Floats) -> Floats:
        return np.concatenate([u, v], axis=-1)[..., None, :]

    def spread(self, sums: Floats) -> Floats:
        """u ⊕ v, shape (…, 1, mn)."""
        u, v = self._sums(sums)
        both = u[..., :, None] + v[..., None, :]
        return both.reshape(*both.shape[:-2], 1, -1)

    def _fit(self, w: Floats) -> Floats:
        """(u, v) for which s ∘ (w − u ⊕ v) sums to zero in each row and column."""
        weights = self._matrix(self.slope)
        return self._joined(
            *fit(weights, np.broadcast_to(self._matrix(w), np.broadcast(weights, self._matrix(w)).shape))
        )

    def push(
        self, x: Floats, k: Floats | None = None, lower: Floats | None = None, upper: Floats | None = None
    ) -> tuple[Floats, Floats]:
        """See `Allocation`; bounds do not move."""
        x = x - self.spread(self._fit(x))
        if k is not None:
            x = x + self.spread(self._joined(*potentials(self._matrix(self.slope), *self._sums(k))))
        return self.slope * x, x

    def pull(self, bar: Floats) -> tuple[Floats, Floats, Floats]:
        """See `Allocation`."""
        m = self._fit(bar)
        bar = bar - self.spread(m)
        return self.slope * bar, bar, m

    def centre(self, r: Floats) -> tuple[Floats, Floats]:
        """See `Allocation`."""
        matrix = self._matrix(r)
        share = self._joined(*potentials(self._matrix(self.slope), matrix.sum(axis=-1), matrix.sum(axis=-2)))
        return r - self.slope * self.spread(share), share

    @property
    def pinned(self) -> bool:
        """Whether a plan's entries above zero leave its rows and columns in several parts, whose totals must agree."""
        return any(_parts(part)[0] > 1 for part in self._matrix(self.slope).reshape(-1, *self.size) > 0)

    def settle(self) -> None:
        """Leave no entry of a quadratic plan near a kink without need: Newton's method ends where one comes in."""
        assert self.level is not None and self.limits.k is not None
        plans, levels = self._matrix(self.z), self._matrix(self.level)
        a, b = (np.broadcast_to(sums, (*plans.shape[:-2], sums.shape[-1])) for sums in self._sums(self.limits.k))
        size = np.abs(levels)
        near = size.min(axis=(-2, -1)) <= NEAR * (1.0 + size.max(axis=(-2, -1)))
        for index in map(tuple, np.argwhere(near)):
            _settle(plans[index], levels[index], a[index], b[index])

    def multipliers(self, fixed: int) -> Floats:
        """(u, v) of one plan, with the given column's v at zero, shape (m + n,)."""
        assert self.level is not None and isinstance(self.kind, PlanKind)
        both = self._matrix(self.x - self.level - self.kind.unit)
        return np.concatenate([both[:, fixed], both[0] - both[0, fixed]])


def _parts(edges: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """How many pieces a bipartite graph, (m, n), has, and to which one each row and each column belongs."""
    m, n = edges.shape
    i, j = np.nonzero(edges)
    graph = coo_array((np.ones(len(i)), (i, m + j)), shape=(m + n, m + n))
    count, labels = connected_components(graph, directed=False)
    return count, labels[:m], labels[m:]


def _settle(z: Floats, level: Floats, a: Floats, b: Floats) -> None:
    """One plan and its level, (m, n), settled in place.

    Entries that hold no more than roundings are none of the plan's where the parts of its support balance without them.
    Then the parts are moved as far apart as the optimality conditions let them.
    """
    balance = SOLVED * a.sum()
    for support in (z > ROUNDING * np.minimum(a[:, None], b[None, :]), z > 0):
        count, rows, columns = _parts(support)
        rest = np.bincount(rows, a, count) - np.bincount(columns, b, count)
        if count == 1 or (np.abs(rest) <= balance).all():
            break
    if count > 1:
        z[rows[:, None] != columns[None, :]] = 0.0
        t = _apart(level, count, rows, columns)
        level += t[columns][None, :] - t[rows][:, None]


def _apart(level: Floats, count: int, rows: np.ndarray, columns: np.ndarray) -> Floats:
    """t to add to the parts' u, and to subtract from their v, so that the plan stays optimal, far from a kink.

    It does as long as t_d − t_c ≤ w_cd, the distance to zero of the largest level between the rows of c and the columns
    of d. Shortest distances from a part, or minus those to it, are such t. Their mean over all parts leaves each level
    strictly negative for which any t does: a constraint is tight for all of them only on a cycle of length zero, which
    holds it for every t.
    """
    largest = np.full((count, count), -np.inf)
    np.maximum.at(largest, (rows[:, None], columns[None, :]), level)
    distance = np.where(np.eye(count, dtype=bool), 0.0, np.maximum(-largest, 0.0))
    distance = floyd_warshall(csgraph_from_dense(distance, null_value=np.inf))  # a zero is an edge
    return 0.5 * (distance.mean(axis=0) - distance.mean(axis=1))


@dataclass(frozen=True)
class PlanKind(Kind):
    """Either regularizer.

    Attributes:
        size: (m, n).
        unit: Ω′(z) − φ⁻¹(z), a constant: Ω = z log z has the derivative 1 + log z.
    """

    size: tuple[int, int]
    name: str = "transport"
    unit: ClassVar[float] = 0.0

    def limits(self, k: Floats | None, lower: Floats | None, upper: Floats | None, n: int) -> Limits | None:
        """See `Kind`; None unless all masses are positive and their totals equal."""
        assert k is not None
        a, b = k[..., : self.size[0]].sum(axis=-1), k[..., self.size[0] :].sum(axis=-1)
        return Limits(k, lower) if (k > 0).all() and (np.abs(a - b) <= EQUAL * a).all() else None

    def _solve(self, x: Floats, limits: Limits, plan: Callable[..., Plan]) -> PlanAllocation | None:
        k = limits.k
        assert k is not None
        scores = x.reshape(*x.shape[:-2], *self.size)
        masses = np.broadcast_to(k[..., 0, :], (*x.shape[:-2], sum(self.size)))
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            found = plan(scores, masses[..., : self.size[0]], masses[..., self.size[0] :])
        if not (found.error <= SOLVED).all():
            return None
        z, level = found.z.reshape(x.shape), found.level.reshape(x.shape)
        return PlanAllocation(self, x, limits, z, size=self.size, level=level)


@dataclass(frozen=True)
class EntropicPlan(PlanKind):
    """z = exp(x − u ⊕ v)."""

    name: str = "entropic transport"
    unit = 1.0

    def solve(self, x: Floats, limits: Limits) -> PlanAllocation | None:
        """See `Kind`."""
        return self._solve(x, limits, sinkhorn)

    def slope(self, found: Allocation) -> Floats:
        """See `Kind`."""
        return found.z

    def bend(self, found: Allocation) -> Floats | None:
        """See `Kind`."""
        return found.z


@dataclass(frozen=True)
class QuadraticPlan(PlanKind):
    """z = [x − u ⊕ v]_+."""

    name: str = "quadratic transport"

    def solve(self, x: Floats, limits: Limits) -> PlanAllocation | None:
        """See `Kind`."""
        found = self._solve(x, limits, quadratic_transport)
        if found is not None:
            found.settle()
            found.at_lower = found.z <= 0.0
        return found

    def slope(self, found: Allocation) -> Floats:
        """See `Kind`."""
        return (found.z > 0).astype(float)

    def slacks(self, found: Allocation, stiffness: Floats, gain_lower: Floats, gain_upper: Floats) -> list[Floats]:
        """See `Kind`."""
        assert isinstance(found, PlanAllocation) and found.level is not None
        return [found.level * np.where(found.level > 0, gain_lower, stiffness / gain_lower)]
