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

from cvxift.argmax.polytope import fit, potentials
from cvxift.argmax.quadratic_transport import quadratic_transport
from cvxift.argmax.recognition.separable import Allocation, Kind, Limits
from cvxift.argmax.sinkhorn import Plan, sinkhorn
from cvxift.program.structure import Floats

EQUAL = 1e-12  # relative difference of the totals up to which a plan exists
SOLVED = 64 * float(np.finfo(float).eps)  # error of a plan's sums, relative to the total, that passes for none


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
        return not all(_connected(part) for part in self._matrix(self.slope).reshape(-1, *self.size) > 0)

    def multipliers(self, fixed: int) -> Floats:
        """(u, v) of one plan, with the given column's v at zero, shape (m + n,)."""
        assert self.level is not None and isinstance(self.kind, PlanKind)
        both = self._matrix(self.x - self.level - self.kind.unit)
        return np.concatenate([both[:, fixed], both[0] - both[0, fixed]])


def _connected(edges: np.ndarray) -> bool:
    """Whether a bipartite graph, (m, n), is in one piece."""
    reached = np.zeros(edges.shape[0], dtype=bool)
    reached[0] = True
    while True:
        columns = edges[reached].any(axis=0)
        rows = edges[:, columns].any(axis=1)
        if (rows == reached).all():
            return bool(rows.all() and columns.all())
        reached = rows


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
            found.at_lower = found.z <= 0.0
        return found

    def slope(self, found: Allocation) -> Floats:
        """See `Kind`."""
        return (found.z > 0).astype(float)

    def slacks(self, found: Allocation, stiffness: Floats, gain_lower: Floats, gain_upper: Floats) -> list[Floats]:
        """See `Kind`."""
        assert isinstance(found, PlanAllocation) and found.level is not None
        return [found.level * np.where(found.level > 0, gain_lower, stiffness / gain_lower)]
