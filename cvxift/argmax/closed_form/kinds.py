"""Separable closed forms: one scalar function an entry, and at most one multiplier that makes a group's entries sum up.

    z_i = φ(x_i − τ), clipped to [l_i, u_i],     Σ z_i = k          (without a sum: τ = 0)

    softmax      φ(d) = exp(d)                      bounds above only
    entmax       φ(d) = [(α−1) d]_+^{1/(α−1)}       no bounds but z ≥ 0
    budget       φ(d) = d                           sparsemax: l = 0
    box          φ(d) = d, no sum
    sigmoid      φ(d) = 1/(1 + exp(−d)), no sum

How z is found is the business of `cvxift.argmax.simplex` and `sorted_rows`, for groups of unequal length of
`segments` and `bounded`. Arrays are (…, G, n), with unequal groups side by side (…, 1, n), what groups have (…, 1, G).
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import expit

from cvxift._types import override
from cvxift.argmax import segments, simplex, sorted_rows
from cvxift.argmax.closed_form.derivative import Argmax, GroupSums, Mask, Sums
from cvxift.argmax.groups import ROWS, Groups
from cvxift.program.structure import Floats

STRICT = 1e-9  # relative slack with which sums must lie between the bounds' own sums


@dataclass(frozen=True, eq=False)
class Limits:
    """The set that z lies in.

    Attributes:
        k: sums, shape (…, G, 1); None without a sum.
        lower: lower bounds that broadcast to (…, G, n); None without.
        upper: upper bounds, likewise.
        low: finite lower bounds that the others and the sum imply at the latest; None where not needed.
        high: upper ones, likewise.
    """

    k: Floats | None = None
    lower: Floats | None = None
    upper: Floats | None = None
    low: Floats | None = None
    high: Floats | None = None


class Allocation(Argmax):
    """z of one kind.

    Args:
        kind: which φ.
        x: scores over temperature, shape (…, G, n).
        limits: the set.
        z: entries, shape (…, G, n).
        at_lower: entries that their lower bound holds; None without lower bounds.
        at_upper: entries that their upper bound holds, and not the lower one; None without upper bounds.
        tau: the sums' multipliers, shape (…, G, 1), where they are known.
    """

    def __init__(
        self,
        kind: Kind,
        x: Floats,
        limits: Limits,
        z: Floats,
        at_lower: Mask | None = None,
        at_upper: Mask | None = None,
        tau: Floats | None = None,
    ) -> None:
        self.kind, self.x, self.limits, self.z = kind, x, limits, z
        self.held = {"lower": at_lower, "upper": at_upper}
        self._tau = tau

    @cached_property
    @override
    def slope(self) -> Floats:
        return self.kind.slope(self)

    @cached_property
    @override
    def bend(self) -> Floats | None:
        return self.kind.bend(self)

    @cached_property
    @override
    def sums(self) -> Sums | None:
        return None if self.limits.k is None else GroupSums(self.slope, self.kind.groups)

    @property
    def pinned(self) -> bool:
        """Whether bounds hold every entry of a group with a sum."""
        return isinstance(self.sums, GroupSums) and bool((self.sums.inverse == 0.0).any())

    @property
    def tau(self) -> Floats:
        """τ of each entry, from its group's largest where it was not found along with z; zero without sums."""
        groups, z = self.kind.groups, self.z
        if self._tau is not None or self.limits.k is None:
            return np.zeros_like(z[..., :1]) if self._tau is None else groups.spread(self._tau)
        largest = z == groups.spread(groups.max(z))
        return groups.spread(
            groups.max(np.where(largest, self.x - self.kind.inverse(np.where(largest, z, 1.0)), -np.inf))
        )

    def margins(self, stiffness: Floats) -> Floats:
        """Smallest slack, or multiplier where a bound holds, relative to the largest.

        Args:
            stiffness: the objective's curvature c > 0, broadcasts to (…, G, 1).

        Returns:
            The leading shape (…); infinite where no bound matters.
        """
        lead, sides = self.z.shape[:-2], ((1.0, self.limits.lower), (-1.0, self.limits.upper))
        bounds = [(side, bound) for side, bound in sides if bound is not None]
        least, most = np.full(lead, np.inf), np.zeros(lead)
        if not bounds:
            return least
        d = self.x - self.tau
        for side, bound in bounds:
            inside = side * (d - self.kind.inverse(bound))
            slack = inside if self.kind.straight else side * (self.z - bound)
            size = np.abs(np.where(inside > 0, slack, inside * stiffness))
            least = np.minimum(least, size.min(axis=(-2, -1)))
            # Absent bounds are at infinity.
            most = np.maximum(most, size.max(axis=(-2, -1), where=np.isfinite(size), initial=0.0))
        return least / (1.0 + most)


class Kind(abc.ABC):
    """One φ.

    Attributes:
        name: what users know the map as.
        unit: Ω′(z) − φ⁻¹(z), a constant: Ω = z log z has the derivative 1 + log z.
        straight: whether φ(d) = d.
        groups: the entries that have a sum together.
    """

    name: str
    unit: float = 0.0
    straight = False
    groups: Groups = ROWS

    def limits(self, k: Floats | None, lower: Floats | None, upper: Floats | None) -> Limits | None:
        """The set, checked; None where it has no strictly feasible point, or is out of the form's range."""
        return Limits(k, lower, upper)

    @abc.abstractmethod
    def solve(self, x: Floats, limits: Limits) -> Allocation | None:
        """z for scores (…, G, n); None where rounding leaves no answer that can be trusted."""

    def inverse(self, z: Floats) -> Floats:
        """φ⁻¹(z)."""
        return z

    @abc.abstractmethod
    def slope(self, found: Allocation) -> Floats:
        """φ′ at the free entries, 0 at the others."""

    def bend(self, found: Allocation) -> Floats | None:
        """φ″ at the free entries, 0 at the others; None if it vanishes."""
        return None


class Tsallis(Kind):
    """z = [(α−1)(x − τ)]_+^{1/(α−1)}, α not 2; α = 1 is exp(x − τ), which upper bounds may cap."""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha
        self.name = "softmax" if alpha == 1.0 else f"{alpha:.6g}-entmax"
        self.unit = 1.0 if alpha == 1.0 else 0.0

    @override
    def limits(self, k: Floats | None, lower: Floats | None, upper: Floats | None) -> Limits | None:
        assert k is not None
        if not (k > 0).all():
            return None
        if upper is None:  # for α < 2 the map is continuously differentiable where an entry leaves the support
            return Limits(k, np.zeros(1) if self.alpha > 2 else None)
        high = np.minimum(upper, 2.0 * self.groups.spread(k))
        if not ((high > 0).all() and (self.groups.sum(high) > (1.0 + STRICT) * k).all()):
            return None
        return Limits(k, None, upper, None, high)

    @override
    def solve(self, x: Floats, limits: Limits) -> Allocation | None:
        k, high, groups = limits.k, limits.high, self.groups
        assert k is not None
        if self.alpha != 1.0:
            # Σ [(α−1)(x − τ)]^{1/(α−1)} = k  ⇔  the same with x / k^{α−1} sums to one
            own, rows = groups.spread(k), groups is ROWS
            with np.errstate(over="ignore", invalid="ignore"):
                scores = x if (k == 1.0).all() else x / own ** (self.alpha - 1.0)
                z = simplex.entmax(scores, self.alpha) if rows else segments.entmax(scores, self.alpha, groups)
            if scores is x:
                return Allocation(self, x, limits, z)
            return Allocation(self, x, limits, own * z) if np.isfinite(z.sum()) else None
        if high is not None:
            return Allocation(self, x, limits, *sorted_rows.capped(x, k, np.broadcast_to(high, x.shape)))
        z = x - groups.spread(groups.max(x))
        np.exp(z, out=z)
        z *= groups.spread(k / groups.sum(z))
        return Allocation(self, x, limits, z)

    @override
    def inverse(self, z: Floats) -> Floats:
        return np.log(z) if self.alpha == 1.0 else z ** (self.alpha - 1.0) / (self.alpha - 1.0)

    @override
    def slope(self, found: Allocation) -> Floats:
        if self.alpha != 1.0:
            return self._power(found.z, 2.0 - self.alpha)
        capped = found.held["upper"]
        return found.z if capped is None else np.where(capped, 0.0, found.z)

    @override
    def bend(self, found: Allocation) -> Floats | None:
        if self.alpha == 1.0:
            return found.slope
        return (2.0 - self.alpha) * self._power(found.z, 3.0 - 2.0 * self.alpha)

    @staticmethod
    def _power(z: Floats, exponent: float) -> Floats:
        return np.power(z, exponent, out=np.zeros_like(z), where=z > 0)


class Sigmoid(Kind):
    """z = 1/(1 + exp(−x))."""

    name = "sigmoid"

    @override
    def solve(self, x: Floats, limits: Limits) -> Allocation | None:
        return Allocation(self, x, limits, expit(x))

    @override
    def slope(self, found: Allocation) -> Floats:
        return found.z * expit(-found.x)

    @override
    def bend(self, found: Allocation) -> Floats | None:
        return found.slope * (1.0 - 2.0 * found.z)


class Budget(Kind):
    """z = clip(x − τ, l, u)."""

    name = "budget"
    straight = True

    @override
    def limits(self, k: Floats | None, lower: Floats | None, upper: Floats | None) -> Limits | None:
        assert k is not None
        slack, sum_of, spread = STRICT * (1.0 + np.abs(k)), self.groups.sum, self.groups.spread
        if upper is None:
            assert lower is not None
            return Limits(k, lower) if (sum_of(lower) < k - slack).all() else None
        low, high = np.broadcast_arrays(-np.inf if lower is None else lower, upper)
        # Beyond what the sum and the bounds on the other side imply, a bound may stand anywhere.
        all_low, all_high = sum_of(low), sum_of(high)
        with np.errstate(invalid="ignore"):
            least = np.where(spread(np.isfinite(all_high)), high - spread(all_high - k) - 1.0, -np.inf)
            most = np.where(spread(np.isfinite(all_low)), low + spread(k - all_low) + 1.0, np.inf)
        low, high = np.maximum(low, least), np.minimum(high, most)
        all_low, all_high = sum_of(low), sum_of(high)
        inside = (low <= high).all() and (all_low < k - slack).all() and (k + slack < all_high).all()
        return Limits(k, lower, upper, low, high) if inside and np.isfinite(all_high - all_low).all() else None

    @override
    def solve(self, x: Floats, limits: Limits) -> Allocation | None:
        k, lower = limits.k, limits.lower
        assert k is not None
        rows = self.groups is ROWS
        if limits.low is not None and limits.high is not None:
            bounds = limits.low, limits.high
            found = sorted_rows.budget(x, k, *bounds) if rows else segments.budget(x, k, *bounds, self.groups)
        else:
            assert lower is not None
            rest = k - self.groups.sum(lower)
            found = sorted_rows.above(x, rest, lower) if rows else segments.above(x, rest, lower, self.groups)
        return None if found is None else Allocation(self, x, limits, *found)

    @override
    def slope(self, found: Allocation) -> Floats:
        out = np.ones_like(found.z)
        for mask in found.held.values():
            if mask is not None:
                out[mask] = 0.0
        return out


class Box(Budget):
    """z = clip(x, l, u)."""

    name = "box"

    @override
    def limits(self, k: Floats | None, lower: Floats | None, upper: Floats | None) -> Limits | None:
        empty = lower is not None and upper is not None and not (lower < upper).all()
        return None if empty else Limits(None, lower, upper)

    @override
    def solve(self, x: Floats, limits: Limits) -> Allocation | None:
        lower, upper = limits.lower, limits.upper
        at_lower = None if lower is None else x <= lower
        at_upper = None if upper is None else x >= upper
        z = x if lower is None else np.maximum(x, lower)
        return Allocation(self, x, limits, z if upper is None else np.minimum(z, upper), at_lower, at_upper)
