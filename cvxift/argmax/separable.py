"""Separable allocations: one scalar function an entry, and at most one multiplier that makes the entries sum up.

    z_i = φ(x_i − τ), clipped to [l_i, u_i],     Σ z_i = k          (without a sum: τ = 0)

    softmax      φ(d) = exp(d)                      bounds above only
    entmax       φ(d) = [(α−1) d]_+^{1/(α−1)}       no bounds but z ≥ 0
    budget       φ(d) = d                           sparsemax: l = 0
    box          φ(d) = d, no sum
    sigmoid      φ(d) = 1/(1 + exp(−d)), no sum

Derivatives are the same for all. With s = φ′ at the entries that are free and 0 at those held by a bound, S = Σ s,
e = φ″, and β̇ the motion of the bound where one holds,

    ż = s(ẋ − τ̇) + β̇,    τ̇ = (Σ sẋ + Σ β̇ − k̇)/S        x̄ = s(z̄ − m),  β̄ = z̄ − m,  k̄ = m,   m = Σ s z̄/S

and s moves by e(ẋ − τ̇). Arrays are (…, G, n): G groups of n entries, each with its own sum.

Source: Held, Wolfe, Crowder 1974 and Michelot 1986 (budgets); Martins & Kreutzer 2017 (capped softmax); Peters,
Niculae, Martins 2019 (entmax).
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import expit

from cvxift.argmax import closed
from cvxift.program.structure import Floats

Mask = np.ndarray
STRICT = 1e-9  # relative slack with which sums must lie between the bounds' own sums
ATTAINED = 1e-12  # relative error up to which a sum is attained
NEWTON = 60  # steps on the pieces of a budget; one or two are the rule


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
            moved = (self.slope * x).sum(axis=-1, keepdims=True)
            if held is not None:
                moved = moved + held.sum(axis=-1, keepdims=True)
            x = x - (moved if k is None else moved - k) * self.inverse_sum
        z = self.slope * x
        return (z if held is None else z + held), x

    def pull(self, bar: Floats) -> tuple[Floats, Floats, Floats]:
        """x̄, z̄ − m and m for a cotangent of z."""
        if self.limits.k is None:
            return self.slope * bar, bar, np.zeros((*bar.shape[:-1], 1))
        m = (self.slope * bar).sum(axis=-1, keepdims=True) * self.inverse_sum
        bar = bar - m
        return self.slope * bar, bar, m

    def curve(self, weight: Floats, tangent: Floats) -> tuple[Floats, Floats]:
        """Cotangents of x (…, G, n) and of −Σβ + k (…, G, 1) through s alone, of Σ s_i weight_i tangent_i.

        Args:
            weight: z̄ − m.
            tangent: ẋ − τ̇.
        """
        if self.bend is None:
            return np.zeros_like(weight * tangent), np.zeros((*np.shape(weight * tangent)[:-1], 1))
        r = self.bend * weight * tangent
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


@dataclass(frozen=True)
class Softmax(Kind):
    """z = exp(x − τ), capped by upper bounds."""

    name: str = "softmax"

    def limits(self, k: Floats | None, lower: Floats | None, upper: Floats | None, n: int) -> Limits | None:
        """See `Kind`."""
        assert k is not None
        if not (k > 0).all():
            return None
        if upper is None:
            return Limits(k)
        high = np.minimum(upper, 2.0 * k)
        if not ((high > 0).all() and (_total(high, n) > (1.0 + STRICT) * k).all()):
            return None
        return Limits(k, None, upper, None, high)

    def solve(self, x: Floats, limits: Limits) -> Allocation | None:
        """See `Kind`."""
        if limits.high is not None:
            return self._capped(x, limits)
        z = np.exp(x - x.max(axis=-1, keepdims=True))
        z *= limits.k / z.sum(axis=-1, keepdims=True)
        return Allocation(self, x, limits, z)

    def _capped(self, x: Floats, limits: Limits) -> Allocation | None:
        # Entries are capped in the order of u_i exp(−x_i). After the first j the others are λ exp(x_i), where
        # λ = (k − Σ_{i<j} u_i)/Σ_{i≥j} exp(x_i); the right j is the first that leaves them all below their bounds.
        k, upper = limits.k, np.broadcast_to(limits.high, x.shape)  # type: ignore[arg-type]  # there are caps
        log_upper = np.log(upper)
        ratio = log_upper - x
        order = np.argsort(ratio, axis=-1)
        ratio_s, x_s, u_s = (np.take_along_axis(a, order, axis=-1) for a in (ratio, x, upper))
        rest = np.logaddexp.accumulate(x_s[..., ::-1], axis=-1)[..., ::-1]
        room = k - (np.cumsum(u_s, axis=-1) - u_s)
        log_scale = np.log(np.maximum(room, 1e-300)) - rest
        fits = (room > 0) & (log_scale <= ratio_s)
        fits[..., -1] = True
        first = np.argmax(fits, axis=-1)[..., None]
        log_scale = np.take_along_axis(log_scale, first, axis=-1)
        capped = ratio < np.take_along_axis(ratio_s, first, axis=-1)
        held = np.where(capped, upper, 0.0)
        scores = np.where(capped, -np.inf, x)
        z = np.exp(scores - scores.max(axis=-1, keepdims=True))
        z *= (k - held.sum(axis=-1, keepdims=True)) / z.sum(axis=-1, keepdims=True)
        return Allocation(self, x, limits, z + held, None, capped, -log_scale)

    def slope(self, found: Allocation) -> Floats:
        """See `Kind`."""
        return found.z if found.at_upper is None else np.where(found.at_upper, 0.0, found.z)

    def bend(self, found: Allocation) -> Floats | None:
        """See `Kind`."""
        return found.slope

    def slacks(self, found: Allocation, stiffness: Floats, gain_lower: Floats, gain_upper: Floats) -> list[Floats]:
        """See `Kind`."""
        upper = found.limits.high
        if upper is None or found.tau is None:
            return []
        beyond = found.x - found.tau - np.log(upper)
        return [np.where(beyond > 0, beyond * stiffness / gain_upper, (upper - found.z) * gain_upper)]


@dataclass(frozen=True)
class Entmax(Kind):
    """z = [(α−1)(x − τ)]_+^{1/(α−1)}, α > 1 and not 2."""

    alpha: float = 1.5
    name: str = "entmax"

    def limits(self, k: Floats | None, lower: Floats | None, upper: Floats | None, n: int) -> Limits | None:
        """See `Kind`."""
        assert k is not None
        return Limits(k) if (k > 0).all() else None

    def solve(self, x: Floats, limits: Limits) -> Allocation | None:
        """See `Kind`."""
        k = limits.k
        assert k is not None
        # Σ [(α−1)(x − τ)]^{1/(α−1)} = k  ⇔  the same with x / k^{α−1} sums to one
        unit = bool((k == 1.0).all())
        z = closed.entmax(x if unit else x / k ** (self.alpha - 1.0), self.alpha)
        return Allocation(self, x, limits, z if unit else k * z)

    def slope(self, found: Allocation) -> Floats:
        """See `Kind`."""
        return self._power(found.z, 2.0 - self.alpha)

    def bend(self, found: Allocation) -> Floats | None:
        """See `Kind`."""
        return (2.0 - self.alpha) * self._power(found.z, 3.0 - 2.0 * self.alpha)

    @staticmethod
    def _power(z: Floats, exponent: float) -> Floats:
        return np.power(z, exponent, out=np.zeros_like(z), where=z > 0)

    def slacks(self, found: Allocation, stiffness: Floats, gain_lower: Floats, gain_upper: Floats) -> list[Floats]:
        """See `Kind`; for α < 2 the map is continuously differentiable where an entry leaves the support."""
        if self.alpha < 2:
            return []
        x, z = found.x, found.z
        top = z.max(axis=-1, keepdims=True)
        tau = np.max(x, axis=-1, keepdims=True) - top ** (self.alpha - 1.0) / (self.alpha - 1.0)
        return [np.where(z > 0, z * gain_lower, (x - tau) * stiffness / gain_lower)]


@dataclass(frozen=True)
class Budget(Kind):
    """z = clip(x − τ, l, u)."""

    name: str = "budget"

    def limits(self, k: Floats | None, lower: Floats | None, upper: Floats | None, n: int) -> Limits | None:
        """See `Kind`."""
        assert k is not None
        slack = STRICT * (1.0 + np.abs(k))
        if upper is None:
            assert lower is not None
            return Limits(k, lower) if (_total(lower, n) < k - slack).all() else None
        low, high = np.broadcast_arrays(np.full(n, -np.inf) if lower is None else lower, upper)
        # Beyond what the sum and the bounds on the other side imply, a bound may stand anywhere.
        all_low, all_high = low.sum(axis=-1, keepdims=True), high.sum(axis=-1, keepdims=True)
        with np.errstate(invalid="ignore"):
            least = np.where(np.isfinite(all_high), high - (all_high - k) - 1.0, -np.inf)
            most = np.where(np.isfinite(all_low), low + (k - all_low) + 1.0, np.inf)
        low, high = np.maximum(low, least), np.minimum(high, most)
        all_low, all_high = low.sum(axis=-1, keepdims=True), high.sum(axis=-1, keepdims=True)
        inside = (low <= high).all() and (all_low < k - slack).all() and (k + slack < all_high).all()
        return Limits(k, lower, upper, low, high) if inside and np.isfinite(all_high - all_low).all() else None

    def solve(self, x: Floats, limits: Limits) -> Allocation | None:
        """See `Kind`."""
        return self._simplex(x, limits) if limits.high is None else self._clip(x, limits)

    def _simplex(self, x: Floats, limits: Limits) -> Allocation:
        # z = l + w, w ≥ 0 with Σ w = r: every head of the sorted scores gives a lower bound of τ, the support's is τ.
        low = limits.lower
        assert low is not None
        scores = x - low
        top = scores.max(axis=-1, keepdims=True)
        scores -= top
        sums = np.cumsum(np.sort(scores, axis=-1)[..., ::-1], axis=-1)
        sums -= limits.k - _total(low, x.shape[-1])
        sums /= np.arange(1.0, x.shape[-1] + 1.0)
        tau = sums.max(axis=-1, keepdims=True)
        scores -= tau
        z = np.maximum(scores, 0.0)
        z += low
        return Allocation(self, x, limits, z, scores <= 0.0, None, tau + top)

    def _clip(self, x: Floats, limits: Limits) -> Allocation | None:
        # Σ clip(x − τ, l, u) falls from Σu to Σl, linear between the breakpoints x − u and x − l.
        k, lower, upper = limits.k, limits.low, limits.high
        assert k is not None and lower is not None and upper is not None
        n = x.shape[-1]
        top = x.max(axis=-1, keepdims=True)
        scores = x - top
        starts, ends = scores - upper, scores - lower
        points = np.concatenate([starts, ends], axis=-1)
        order = np.argsort(points, axis=-1)
        points = np.sort(points, axis=-1)
        falling = np.cumsum(np.where(order < n, 1.0, -1.0), axis=-1)
        sums = np.cumsum(falling[..., :-1] * (points[..., 1:] - points[..., :-1]), axis=-1)
        above = upper.sum(axis=-1, keepdims=True) - sums >= k
        right = np.min(points[..., 1:], axis=-1, keepdims=True, where=~above, initial=np.inf)
        left = np.max(points[..., 1:], axis=-1, keepdims=True, where=above, initial=-np.inf)
        tau = 0.5 * (np.maximum(left, points[..., :1]) + np.minimum(right, points[..., -1:]))
        # The breakpoints next to τ are known up to the sums' rounding; Newton on the pieces themselves removes it.
        at_lower, at_upper = ends <= tau, starts >= tau
        for _ in range(NEWTON):
            at_upper &= ~at_lower
            free = ~(at_lower | at_upper)
            number = free.sum(axis=-1, keepdims=True)
            fixed = np.where(at_lower, lower, upper)
            rest = np.where(free, scores, fixed).sum(axis=-1, keepdims=True)  # Σ scores + Σ fixed
            tau = np.where(number > 0, (rest - k) / np.maximum(number, 1), tau)
            was = at_lower, at_upper
            at_lower, at_upper = ends <= tau, starts >= tau
            if (at_lower == was[0]).all() and ((at_upper & ~at_lower) == was[1]).all():
                break
        at_upper &= ~at_lower
        if not number.all():
            # Every entry is held: τ may be anything between these two, and the middle is farthest from a change.
            highest = np.min(starts, axis=-1, keepdims=True, where=at_upper, initial=np.inf)
            lowest = np.max(ends, axis=-1, keepdims=True, where=at_lower, initial=-np.inf)
            tau = np.where((number == 0) & np.isfinite(highest - lowest), 0.5 * (highest + lowest), tau)
        # Free entries measured from one of them lose nothing to far scores and far thresholds.
        near = np.max(scores, axis=-1, keepdims=True, where=free, initial=-np.inf)
        near = np.where(number > 0, near, tau)
        offsets = np.where(free, scores - near, 0.0)
        room = k - np.where(free, 0.0, fixed).sum(axis=-1, keepdims=True)
        level = (room - offsets.sum(axis=-1, keepdims=True)) / np.maximum(number, 1)
        z = np.where(free, np.minimum(np.maximum(offsets + level, lower), upper), fixed)
        # A piece of the map on which every entry is held fits only a sum that the bounds attain.
        size = 1.0 + np.abs(k) + np.abs(z).sum(axis=-1, keepdims=True)
        if not (np.abs(z.sum(axis=-1, keepdims=True) - k) <= ATTAINED * size).all():
            return None
        return Allocation(self, x, limits, z, at_lower, at_upper, tau + top)

    def slope(self, found: Allocation) -> Floats:
        """See `Kind`."""
        out = np.ones_like(found.z)
        for mask in (found.at_lower, found.at_upper):
            if mask is not None:
                out[mask] = 0.0
        return out

    def slacks(self, found: Allocation, stiffness: Floats, gain_lower: Floats, gain_upper: Floats) -> list[Floats]:
        """See `Kind`."""
        d = found.x if found.tau is None else found.x - found.tau
        out = []
        for bound, gain, sign in ((found.limits.lower, gain_lower, 1.0), (found.limits.upper, gain_upper, -1.0)):
            if bound is not None:
                inside = sign * (d - bound)
                out.append(inside * np.where(inside > 0, gain, stiffness / gain))
        return out


@dataclass(frozen=True)
class Box(Budget):
    """z = clip(x, l, u)."""

    name: str = "box"

    def limits(self, k: Floats | None, lower: Floats | None, upper: Floats | None, n: int) -> Limits | None:
        """See `Kind`."""
        empty = lower is not None and upper is not None and not (lower < upper).all()
        return None if empty else Limits(None, lower, upper)

    def solve(self, x: Floats, limits: Limits) -> Allocation | None:
        """See `Kind`."""
        lower, upper = limits.lower, limits.upper
        z, at_lower, at_upper = x, None, None
        if lower is not None:
            at_lower = x <= lower
            z = np.maximum(z, lower)
        if upper is not None:
            at_upper = x >= upper
            z = np.minimum(z, upper)
        return Allocation(self, x, limits, z, at_lower, at_upper)


@dataclass(frozen=True)
class Sigmoid(Kind):
    """z = 1/(1 + exp(−x))."""

    name: str = "sigmoid"

    def solve(self, x: Floats, limits: Limits) -> Allocation | None:
        """See `Kind`."""
        return Allocation(self, x, limits, expit(x))

    def slope(self, found: Allocation) -> Floats:
        """See `Kind`."""
        return found.z * expit(-found.x)

    def bend(self, found: Allocation) -> Floats | None:
        """See `Kind`."""
        return found.slope * (1.0 - 2.0 * found.z)


def _total(bound: Floats, n: int) -> Floats:
    """Σ over n entries of bounds that may be one for all of them."""
    return bound.sum(axis=-1, keepdims=True) if bound.shape[-1] == n else n * bound
