"""Separable allocations: one scalar function an entry, and at most one multiplier that makes the entries sum up.

    z_i = φ(x_i − τ), clipped to [l_i, u_i],     Σ z_i = k          (without a sum: τ = 0)

Which φ are known, and how z is found, is in `kinds`; derivatives are the same for all. With s = φ′ at the entries that
are free and 0 at those held by a bound, S = Σ s, e = φ″, and β̇ the motion of the bound where one holds,

    ż = s(ẋ − τ̇) + β̇,    τ̇ = (Σ sẋ + Σ β̇ − k̇)/S        x̄ = s(z̄ − m),  β̄ = z̄ − m,  k̄ = m,   m = Σ s z̄/S

and s moves by e(ẋ − τ̇). Arrays are (…, G, n): G groups of n entries, each with its own sum.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cvxift.program.structure import Floats

Mask = np.ndarray


@dataclass(frozen=True, eq=False)
class Limits:
    """The set that an allocation lies in.

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


@dataclass(eq=False)
class Allocation:
    """Solved entries.

    Attributes:
        kind: which φ.
        x: scores over temperature, shape (…, G, n).
        limits: the set.
        z: entries, shape (…, G, n).
        at_lower: entries that their lower bound holds; None without lower bounds.
        at_upper: entries that their upper bound holds, and not the lower one; None without upper bounds.
        tau: the sums' multipliers, shape (…, G, 1); None without a sum.
    """

    kind: Kind
    x: Floats
    limits: Limits
    z: Floats
    at_lower: Mask | None = None
    at_upper: Mask | None = None
    tau: Floats | None = None

    @cached_property
    def slope(self) -> Floats:
        """s, shape (…, G, n)."""
        return self.kind.slope(self)

    @cached_property
    def inverse_sum(self) -> Floats:
        """1/S, shape (…, G, 1); 0 where every entry is held."""
        total = self.slope.sum(axis=-1, keepdims=True)
        return np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)

    @property
    def pinned(self) -> bool:
        """Whether bounds hold every entry of a group with a sum."""
        return self.limits.k is not None and bool((self.inverse_sum == 0.0).any())

    @cached_property
    def bend(self) -> Floats | None:
        """e, shape (…, G, n); None where φ is straight."""
        return self.kind.bend(self)

    def _held(self, lower: Floats | None, upper: Floats | None) -> Floats | None:
        """β̇ from the bounds' tangents."""
        out = None
        for mask, part in ((self.at_lower, lower), (self.at_upper, upper)):
            if part is not None and mask is not None:
                held = np.where(mask, part, 0.0)
                out = held if out is None else out + held
        return out

    def push(
        self, x: Floats, k: Floats | None = None, lower: Floats | None = None, upper: Floats | None = None
    ) -> tuple[Floats, Floats]:
        """Tangent of z, and ẋ − τ̇, for tangents of the inputs; None does not move."""
        held = self._held(lower, upper)
        if self.limits.k is not None:
            moved = np.einsum("...i,...i->...", self.slope, x)[..., None]
            if held is not None:
                moved = moved + held.sum(axis=-1, keepdims=True)
            x = x - (moved if k is None else moved - k) * self.inverse_sum
        z = self.slope * x
        return (z if held is None else z + held), x

    def pull(self, bar: Floats) -> tuple[Floats, Floats, Floats]:
        """x̄, z̄ − m and m for a cotangent of z."""
        if self.limits.k is None:
            return self.slope * bar, bar, np.zeros((*bar.shape[:-1], 1))
        m = np.einsum("...i,...i->...", self.slope, bar)[..., None] * self.inverse_sum
        bar = bar - m
        return self.slope * bar, bar, m

    def curve(self, weight: Floats, tangent: Floats) -> tuple[Floats, Floats, Floats]:
        """Cotangents through s alone, of Σ s_i weight_i tangent_i; as `pull` gives them. φ is not straight.

        Args:
            weight: z̄ − m.
            tangent: ẋ − τ̇.
        """
        assert self.bend is not None
        r, share = self.centre(self.bend * weight * tangent)
        return r, -self.spread(share), share

    def spread(self, sums: Floats) -> Floats:
        """A number for each sum, at the entries that it counts; broadcasts to (…, G, n)."""
        return sums

    def centre(self, r: Floats) -> tuple[Floats, Floats]:
        """r − s ∘ share, which sums to zero, and the share."""
        if self.limits.k is None:
            return r, np.zeros((*r.shape[:-1], 1))
        share = r.sum(axis=-1, keepdims=True) * self.inverse_sum
        return r - share * self.slope, share

    def margins(self, stiffness: Floats, gain_lower: Floats, gain_upper: Floats) -> tuple[Floats, Floats]:
        """Slack minus multiplier of the bounds, as the program's own rows have them: smallest and largest size.

        Args:
            stiffness: the objective's curvature c > 0 in units of x, broadcasts to (…, G, 1).
            gain_lower: size of the coefficient in each lower bound's row, (G, n).
            gain_upper: of each upper bound's row.

        Returns:
            Both of the leading shape (…); infinite and 0 where no bound matters.
        """
        lead = self.z.shape[:-2]
        least, most = np.full(lead, np.inf), np.zeros(lead)
        for v in self.kind.slacks(self, stiffness, gain_lower, gain_upper):
            size = np.abs(v)
            least = np.minimum(least, size.min(axis=(-2, -1)))
            largest = size.max(axis=(-2, -1))
            if not np.isfinite(largest).all():  # absent bounds
                largest = size.max(axis=(-2, -1), where=np.isfinite(size), initial=0.0)
            most = np.maximum(most, largest)
        return least, most


class Kind(abc.ABC):
    """One φ.

    Attributes:
        name: what users know the map as.
    """

    name: str

    def limits(self, k: Floats | None, lower: Floats | None, upper: Floats | None, n: int) -> Limits | None:
        """The set, checked; None where it has no strictly feasible point, or is out of the form's range."""
        return Limits(k, lower, upper)

    @abc.abstractmethod
    def solve(self, x: Floats, limits: Limits) -> Allocation | None:
        """The allocation for scores (…, G, n); None where rounding leaves no answer that can be trusted."""

    @abc.abstractmethod
    def slope(self, found: Allocation) -> Floats:
        """φ′ at the free entries, 0 at the others."""

    def bend(self, found: Allocation) -> Floats | None:
        """φ″ at the free entries, 0 at the others; None if it vanishes."""
        return None

    def slacks(self, found: Allocation, stiffness: Floats, gain_lower: Floats, gain_upper: Floats) -> list[Floats]:
        """Slack minus multiplier of each kind of bound, shapes (…, G, n)."""
        return []
