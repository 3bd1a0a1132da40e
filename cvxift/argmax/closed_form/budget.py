"""Budgets and boxes: z = clip(x − τ, l, u), Σ z = k, or without the sum; see `kinds`.

Source: Held, Wolfe, Crowder 1974; Michelot 1986.
"""

from __future__ import annotations

import numpy as np

from cvxift._types import override
from cvxift.argmax.closed_form.derivative import Mask
from cvxift.argmax.closed_form.kinds import STRICT, Allocation, Kind, Limits, total_of
from cvxift.program.structure import Floats

ATTAINED = 1e-12  # relative error up to which a sum is attained
NEWTON = 60  # steps on the pieces of a budget; one or two are the rule


class Budget(Kind):
    """z = clip(x − τ, l, u)."""

    name = "budget"

    @override
    def limits(self, k: Floats | None, lower: Floats | None, upper: Floats | None, n: int) -> Limits | None:
        assert k is not None
        slack = STRICT * (1.0 + np.abs(k))
        if upper is None:
            assert lower is not None
            return Limits(k, lower) if (total_of(lower, n) < k - slack).all() else None
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

    @override
    def solve(self, x: Floats, limits: Limits) -> Allocation | None:
        return self._simplex(x, limits) if limits.high is None else self._clip(x, limits)

    def _simplex(self, x: Floats, limits: Limits) -> Allocation:
        # z = l + w, w ≥ 0 with Σ w = r: every head of the sorted scores gives a lower bound of τ, the support's is τ.
        k, low = limits.k, limits.lower
        assert k is not None and low is not None
        scores = x - low
        top = scores.max(axis=-1, keepdims=True)
        scores -= top
        sums = np.cumsum(np.sort(scores, axis=-1)[..., ::-1], axis=-1)
        sums -= k - total_of(low, x.shape[-1])
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

    @override
    def slope(self, found: Allocation) -> Floats:
        out = np.ones_like(found.z)
        for mask in found.held.values():
            if mask is not None:
                out[mask] = 0.0
        return out

    @override
    def slacks(self, found: Allocation, stiffness: Floats, gain_lower: Floats, gain_upper: Floats) -> list[Floats]:
        d, out = found.x - found.tau, []
        for bound, gain, sign in ((found.limits.lower, gain_lower, 1.0), (found.limits.upper, gain_upper, -1.0)):
            if bound is not None:
                inside = sign * (d - bound)
                out.append(inside * np.where(inside > 0, gain, stiffness / gain))
        return out


class Box(Budget):
    """z = clip(x, l, u)."""

    name = "box"

    @override
    def limits(self, k: Floats | None, lower: Floats | None, upper: Floats | None, n: int) -> Limits | None:
        empty = lower is not None and upper is not None and not (lower < upper).all()
        return None if empty else Limits(None, lower, upper)

    @override
    def solve(self, x: Floats, limits: Limits) -> Allocation | None:
        lower, upper = limits.lower, limits.upper
        at_lower = None if lower is None else x <= lower
        at_upper = None if upper is None else x >= upper
        z = x if lower is None else np.maximum(x, lower)
        return Allocation(self, x, limits, z if upper is None else np.minimum(z, upper), at_lower, at_upper)


def _sides(starts: Floats, ends: Floats, tau: Floats) -> tuple[Mask, Mask]:
    """Entries at their lower bounds, and those at their upper bounds alone."""
    at_lower = ends <= tau
    return at_lower, (starts >= tau) & ~at_lower
