"""Separable closed forms: one scalar function an entry, and at most one multiplier that makes a group's entries sum up.

    z_i = φ(x_i − τ), clipped to [l_i, u_i],     Σ z_i = k          (without a sum: τ = 0)

    softmax      φ(d) = exp(d)                      bounds above only
    entmax       φ(d) = [(α−1) d]_+^{1/(α−1)}       no bounds but z ≥ 0
    budget       φ(d) = d                           sparsemax: l = 0
    box          φ(d) = d, no sum
    sigmoid      φ(d) = 1/(1 + exp(−d)), no sum

Sparsemax, capped softmax and budgets sort: for the few entries of a layer that is two to forty times as fast on the
host as the searches of `cvxift.argmax.bounded` and `capped`, which compile. Arrays are (…, G, n).

Source: Held, Wolfe, Crowder 1974 and Michelot 1986 (budgets); Martins & Kreutzer 2017 (capped softmax); Peters,
Niculae, Martins 2019 (entmax).
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from scipy.special import expit

from cvxift.argmax import simplex
from cvxift.argmax.closed_form.derivative import Argmax, GroupSums, Mask, Sums
from cvxift.program.structure import Floats

STRICT = 1e-9  # relative slack with which sums must lie between the bounds' own sums
ATTAINED = 1e-12  # relative error up to which a sum is attained
NEWTON = 60  # steps on the pieces of a budget; one or two are the rule


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
    def slope(self) -> Floats:
        """See `Argmax`."""
        return self.kind.slope(self)

    @cached_property
    def bend(self) -> Floats | None:
        """See `Argmax`."""
        return self.kind.bend(self)

    @cached_property
    def sums(self) -> Sums | None:
        """See `Argmax`."""
        return None if self.limits.k is None else GroupSums(self.slope)

    @property
    def pinned(self) -> bool:
        """Whether bounds hold every entry of a group with a sum."""
        return isinstance(self.sums, GroupSums) and bool((self.sums.inverse == 0.0).any())

    @property
    def tau(self) -> Floats:
        """τ, from the largest entry where it was not found along with z; zero without sums."""
        if self._tau is not None or self.limits.k is None:
            return np.zeros_like(self.z[..., :1]) if self._tau is None else self._tau
        largest = np.argmax(self.z, axis=-1)[..., None]
        x, z = (np.take_along_axis(a, largest, axis=-1) for a in (np.broadcast_to(self.x, self.z.shape), self.z))
        return x - self.kind.inverse(z)

    def margins(self, stiffness: Floats, gain_lower: Floats, gain_upper: Floats) -> Floats:
        """Smallest slack minus multiplier of the bounds, as the problem's own rows have them, relative to the largest.

        Args:
            stiffness: the objective's curvature c > 0, broadcasts to (…, G, 1).
            gain_lower: size of the coefficient in each lower bound's row, (G, n).
            gain_upper: of each upper bound's row.

        Returns:
            The leading shape (…); infinite where no bound matters.
        """
        lead = self.z.shape[:-2]
        least, most = np.full(lead, np.inf), np.zeros(lead)
        for v in self.kind.slacks(self, stiffness, gain_lower, gain_upper):
            size = np.abs(v)
            least = np.minimum(least, size.min(axis=(-2, -1)))
            most = np.maximum(most, size.max(axis=(-2, -1), where=np.isfinite(size), initial=0.0))  # or absent bounds
        return least / (1.0 + most)


class Kind(abc.ABC):
    """One φ.

    Attributes:
        name: what users know the map as.
        unit: Ω′(z) − φ⁻¹(z), a constant: Ω = z log z has the derivative 1 + log z.
    """

    name: str
    unit: ClassVar[float] = 0.0

    def limits(self, k: Floats | None, lower: Floats | None, upper: Floats | None, n: int) -> Limits | None:
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

    def slacks(self, found: Allocation, stiffness: Floats, gain_lower: Floats, gain_upper: Floats) -> list[Floats]:
        """Slack minus multiplier of each kind of bound, shapes (…, G, n)."""
        return []


@dataclass(frozen=True)
class Softmax(Kind):
    """z = exp(x − τ), capped by upper bounds."""

    name: str = "softmax"
    unit = 1.0

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
        k, high = limits.k, limits.high
        assert k is not None
        if high is not None:
            return self._capped(x, limits, k, np.broadcast_to(high, x.shape))
        z = x - x.max(axis=-1, keepdims=True)
        np.exp(z, out=z)
        z *= k / z.sum(axis=-1, keepdims=True)
        return Allocation(self, x, limits, z)

    def _capped(self, x: Floats, limits: Limits, k: Floats, upper: Floats) -> Allocation:
        # Entries are capped in the order of u_i exp(−x_i). After the first j the others are λ exp(x_i), where
        # λ = (k − Σ_{i<j} u_i)/Σ_{i≥j} exp(x_i); the right j is the first that leaves them all below their bounds.
        ratio = np.log(upper) - x
        order = np.argsort(ratio, axis=-1)
        ratio_s, x_s, u_s = (np.take_along_axis(a, order, axis=-1) for a in (ratio, x, upper))
        rest = np.logaddexp.accumulate(x_s[..., ::-1], axis=-1)[..., ::-1]
        room = k - (np.cumsum(u_s, axis=-1) - u_s)
        log_scale = np.log(np.maximum(room, 1e-300)) - rest
        fits = (room > 0) & (log_scale <= ratio_s)
        fits[..., -1] = True
        first = np.argmax(fits, axis=-1)[..., None]
        tau = -np.take_along_axis(log_scale, first, axis=-1)
        capped = ratio < np.take_along_axis(ratio_s, first, axis=-1)
        held = np.where(capped, upper, 0.0)
        scores = np.where(capped, -np.inf, x)
        z = np.exp(scores - scores.max(axis=-1, keepdims=True))
        z *= (k - held.sum(axis=-1, keepdims=True)) / z.sum(axis=-1, keepdims=True)
        return Allocation(self, x, limits, z + held, None, capped, tau)

    def inverse(self, z: Floats) -> Floats:
        """See `Kind`."""
        return np.log(z)

    def slope(self, found: Allocation) -> Floats:
        """See `Kind`."""
        capped = found.held["upper"]
        return found.z if capped is None else np.where(capped, 0.0, found.z)

    def bend(self, found: Allocation) -> Floats | None:
        """See `Kind`."""
        return found.slope

    def slacks(self, found: Allocation, stiffness: Floats, gain_lower: Floats, gain_upper: Floats) -> list[Floats]:
        """See `Kind`."""
        upper = found.limits.high
        if upper is None:
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
        z = simplex.entmax(x if unit else x / k ** (self.alpha - 1.0), self.alpha)
        return Allocation(self, x, limits, z if unit else k * z)

    def inverse(self, z: Floats) -> Floats:
        """See `Kind`."""
        return z ** (self.alpha - 1.0) / (self.alpha - 1.0)

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
        z = found.z
        return [np.where(z > 0, z * gain_lower, (found.x - found.tau) * stiffness / gain_lower)]


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
        k, low = limits.k, limits.lower
        assert k is not None and low is not None
        scores = x - low
        top = scores.max(axis=-1, keepdims=True)
        scores -= top
        sums = np.cumsum(np.sort(scores, axis=-1)[..., ::-1], axis=-1)
        sums -= k - _total(low, x.shape[-1])
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
        at_lower, at_upper = _sides(starts, ends, tau)
        for _ in range(NEWTON):
            free = ~(at_lower | at_upper)
            number = free.sum(axis=-1, keepdims=True)
            known = np.where(free, scores, np.where(at_lower, lower, upper)).sum(axis=-1, keepdims=True)
            tau = np.where(number > 0, (known - k) / np.maximum(number, 1), tau)
            was = at_lower, at_upper
            at_lower, at_upper = _sides(starts, ends, tau)
            if (at_lower == was[0]).all() and (at_upper == was[1]).all():
                break
        free = ~(at_lower | at_upper)
        number = free.sum(axis=-1, keepdims=True)
        fixed = np.where(at_lower, lower, upper)
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
        for mask in found.held.values():
            if mask is not None:
                out[mask] = 0.0
        return out

    def slacks(self, found: Allocation, stiffness: Floats, gain_lower: Floats, gain_upper: Floats) -> list[Floats]:
        """See `Kind`."""
        d, out = found.x - found.tau, []
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
        at_lower = None if lower is None else x <= lower
        at_upper = None if upper is None else x >= upper
        z = x if lower is None else np.maximum(x, lower)
        return Allocation(self, x, limits, z if upper is None else np.minimum(z, upper), at_lower, at_upper)


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


def _sides(starts: Floats, ends: Floats, tau: Floats) -> tuple[Mask, Mask]:
    """Entries at their lower bounds, and those at their upper bounds alone."""
    at_lower = ends <= tau
    return at_lower, (starts >= tau) & ~at_lower


def _total(bound: Floats, n: int) -> Floats:
    """Σ over n entries of bounds that may be one for all of them."""
    return bound.sum(axis=-1, keepdims=True) if bound.shape[-1] == n else n * bound
