"""Projection onto {l ≤ z ≤ u, Σ z = k} along the last axis, on any array-API namespace.

    z = clip(x − τ, l, u),  τ such that Σ z = k         (l = 0, k = 1: constrained sparsemax; u = ∞ besides: sparsemax)

First which entries stand at a bound, by a search without derivative; then z, affine in x, k and the bounds once that is
known, hence differentiable to any order by any framework. Entries at −∞ are masked: they stand at their lower bounds,
whatever the sum where a whole row is masked. Brucker 1984; Kiwiel 2008.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import array_api_compat
import numpy as np

from cvxift._types import Array
from cvxift.argmax.compaction import peaks, shorten
from cvxift.argmax.groups import ROWS, Groups
from cvxift.argmax.loops import LIMIT, Loop, while_loop

LONG = 200  # rows up to this length take longer to shorten than to search


class Sides(NamedTuple):
    """Which entries stand at their bounds; those between share one τ."""

    at_lower: Array  # booleans, (..., n)
    at_upper: Array  # booleans, (..., n)
    pivot: (
        Array  # a score from which τ is not farther than the bounds are from 0, one for each group: (..., 1) for rows
    )


def sides(x: Array, total: Array, lower: Array, upper: Array, loop: Loop = while_loop, groups: Groups = ROWS) -> Sides:
    """Find which entries stand at their bounds.

    The linear program (all weight to the largest scores) has one entry p with l ≤ z_p ≤ u whose larger ones are at u
    and smaller ones at l, and −max u ≤ τ − x_p ≤ −min l: at the ends all entries on one side of p are at bounds. So the
    score nearest to τ is not farther from it than the bounds are from 0, and measured from that score τ is found to the
    precision of the bounds, be the scores as large as they like. Which score that is, a first search tells, measured
    from the largest.

    Args:
        x: scores, (..., n), float64 where bounds must be met to its precision; −∞ masks.
        total: required sum of each group, within [Σ l, Σ u]; (..., 1) for rows.
        lower: finite bounds of x's shape, or (..., 1) for rows with bounds of their own, which is faster.
        upper: bounds ≥ lower, likewise; may be +∞.
        loop: how to iterate, see `cvxift.argmax.loops`.
        groups: of entries with a sum each; rows if nothing else is said.

    Returns:
        The sides.

    Example:
        >>> import numpy as np
        >>> x = np.array([3.0, 0.5, 0.4, -2.0])
        >>> found = sides(x, np.array([2.0]), np.zeros(4), np.ones(4))
        >>> found.at_lower, found.at_upper, value(x, np.array([2.0]), np.zeros(4), np.ones(4), found)
        (array([False, False, False,  True]), array([ True, False, False, False]), array([1.  , 0.55, 0.45, 0.  ]))
    """
    xp = array_api_compat.array_namespace(x)
    masked, nothing = x == -xp.inf, xp.zeros_like(x)
    own = groups is ROWS and lower.shape[-1] == upper.shape[-1] == 1 and x.shape[-1] > LONG
    given = lower, upper
    lower, upper = lower + nothing, upper + nothing
    rest = total - groups.sum(lower)
    own_rest = groups.spread(rest)
    room = xp.where(masked, nothing, xp.minimum(upper - lower, own_rest + nothing))
    cap = lower + room  # what z can be at most
    least, most = _finite(xp, -groups.max(-lower)), _finite(xp, groups.max(cap))
    top = groups.max(x)
    top = xp.where(top == -xp.inf, xp.zeros_like(top), top)
    d = xp.where(masked, nothing, x - groups.spread(top))
    low, high = _finite(xp, -groups.max(-d)) - most, -least
    start = 0.5 * (low + high)
    if own:  # a few of the largest entries reach the total at a τ below, often closely
        some = peaks(xp, x)
        hidden = some == -xp.inf
        few = xp.where(hidden, xp.zeros_like(some), some - top)
        floor = given[0] + xp.zeros_like(some)
        ceiling = floor + xp.where(hidden, xp.zeros_like(some), xp.minimum(given[1] - given[0], rest))
        need = total - (x.shape[-1] - some.shape[-1]) * given[0]
        start = _search(xp, few, need, floor, ceiling, start, low, high, loop, groups)
    tau = _search(xp, d, total, lower, cap, start, low, high, loop, groups)

    far = xp.where(masked, xp.full_like(x, xp.inf), xp.abs(d - groups.spread(tau)))
    nearest = far == groups.spread(-groups.max(-far))
    pivot = groups.max(xp.where(nearest & ~masked, x, xp.full_like(x, -xp.inf)))
    at = groups.max(xp.where(nearest & ~masked, d, xp.full_like(x, -xp.inf)))
    pivot, at = (xp.where(part == -xp.inf, xp.zeros_like(part), part) for part in (pivot, at))
    reach = xp.maximum(xp.abs(least), xp.abs(most))
    eps = float(xp.finfo(x.dtype).eps)
    # Only rounding of large scores can have led to a wrong entry.
    sure = 8 * eps * xp.abs(low) <= 1e-3 * reach
    pivot, *_ = loop(
        lambda state: xp.any(~state[1]) & (state[2] < LIMIT),
        lambda state: _neighbour(xp, x, masked, total, lower, cap, reach, state, groups),
        (pivot, sure, 0),
    )
    d = xp.where(masked, nothing, x - groups.spread(pivot))
    start = xp.where(sure, tau - at, xp.zeros_like(tau))
    tau = groups.spread(_search(xp, d, total, lower, cap, start, -reach, reach, loop, groups))
    # What takes all that there is, and less than it might, is free, though any smaller τ would serve as well; what is
    # left for the others is nothing, which rounding of such a τ must not blur.
    takes_all = (upper - lower > own_rest) & (d - tau >= cap)
    others = (groups.spread(groups.max(xp.astype(takes_all, x.dtype))) > 0) & ~takes_all
    blur = 8 * eps * (xp.abs(d) + xp.abs(tau) + xp.abs(lower))
    at_lower = (room <= 0) | (d - tau <= lower) | (others & (d - tau <= lower + blur))
    at_upper = ~at_lower & (d - tau >= upper) & (upper - lower <= own_rest)
    free = xp.where(at_lower | at_upper, xp.full_like(x, xp.inf), x)
    least = -groups.max(-free)
    return Sides(at_lower, at_upper, xp.where(least < xp.inf, least, pivot))


def rows(x: np.ndarray, total: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> tuple[Sides, np.ndarray]:
    """`sides` and `value` in NumPy; rows under bounds of their own, the same for all entries, are shortened first.

    A few entries reach the total at a smaller τ than all do, as others add to it. What stands at its lower bound at
    that τ does so at the larger one.

    Args:
        x: as for `sides`.
        total: as for `sides`.
        lower: as for `sides`; (..., 1) if rows have bounds of their own.
        upper: likewise.
    """
    n = x.shape[-1]
    uniform = lower.shape[-1] == upper.shape[-1] == 1 and n > LONG
    some = peaks(np, x) if uniform else x
    m = some.shape[-1]
    if m == n or not np.all(m * (upper - lower) > total - n * lower):
        found = sides(x, total, lower, upper)
        return found, value(x, total, lower, upper, found)
    bounds = np.broadcast_to(lower, some.shape), np.broadcast_to(upper, some.shape)
    most = total - (n - m) * lower
    found = sides(some, most, *bounds)
    free: Any = ~(found.at_lower | found.at_upper)
    edge = np.where(free, some - value(some, most, *bounds, found), np.inf).min(axis=-1, keepdims=True)
    held = np.where(found.at_upper, some - np.minimum(upper, most), np.inf).min(axis=-1, keepdims=True)
    edge = np.where(np.isfinite(edge), edge, held)
    slack = 1e-6 * (np.abs(edge) + np.abs(lower) + np.abs(upper))
    short, restore = shorten(np, x, x > edge + lower - slack)
    k = short.shape[-1]
    bounds = np.broadcast_to(lower, short.shape), np.broadcast_to(upper, short.shape)
    most = total - (n - k) * lower
    found = sides(short, most, *bounds)
    z = lower + restore(value(short, most, *bounds, found) - lower)
    return Sides(~restore(~found.at_lower), restore(found.at_upper), found.pivot), z


def _finite(xp: Any, extreme: Array) -> Array:
    """Extremes of groups, 0 of those that are empty."""
    return xp.where(xp.isinf(extreme), xp.zeros_like(extreme), extreme)


def _total(xp: Any, shifted: Array, lower: Array, cap: Array, groups: Groups) -> Array:
    return groups.sum(xp.minimum(xp.maximum(shifted, lower), cap))


def _search(
    xp: Any,
    d: Array,
    total: Array,
    lower: Array,
    cap: Array,
    tau: Array,
    low: Array,
    high: Array,
    loop: Loop,
    groups: Groups,
) -> Array:
    """τ between low and high with Σ clip(d − τ, lower, cap) = total, by Newton's method within the interval."""
    enough = 2 * float(xp.finfo(d.dtype).eps) * (xp.abs(low) + xp.abs(high))

    def running(state: tuple[Array, ...]) -> Array:
        *_, last, count = state
        return xp.any(last > enough) & (count < LIMIT)

    def iterate(state: tuple[Array, ...]) -> tuple[Array, ...]:
        tau, low, high, last, count = state
        shifted = d - groups.spread(tau)
        gap = _total(xp, shifted, lower, cap, groups) - total
        number = groups.sum(xp.astype((shifted > lower) & (shifted < cap), d.dtype))
        # Halve where the sum does not vary, where a step leaves the interval or is not half the one before.
        low, high = xp.where(gap >= 0, tau, low), xp.where(gap <= 0, tau, high)
        step = gap / xp.where(number > 0, number, xp.ones_like(number))
        new = tau + step
        halve = ((number == 0) & (gap != 0)) | ~((new >= low) & (new <= high)) | (2 * xp.abs(step) > last)
        new = xp.where(halve, 0.5 * (low + high), new)
        done = last <= enough
        return xp.where(done, tau, new), low, high, xp.where(done, last, xp.abs(new - tau)), count + 1

    return loop(running, iterate, (tau, low, high, xp.full_like(low, xp.inf), 0))[0]


def _neighbour(
    xp: Any,
    x: Array,
    masked: Array,
    total: Array,
    lower: Array,
    cap: Array,
    reach: Array,
    state: tuple[Array, ...],
    groups: Groups,
) -> tuple[Array, ...]:
    """The next score towards τ, if τ is not within reach of the pivot; whether it is, and the number of moves."""
    pivot, sure, count = state
    d = xp.where(masked, xp.zeros_like(x), x - groups.spread(pivot))
    down = ~sure & (_total(xp, d + groups.spread(reach), lower, cap, groups) < total)
    up = ~sure & (_total(xp, d - groups.spread(reach), lower, cap, groups) >= total)
    below = groups.max(xp.where(masked | (d >= 0), xp.full_like(x, -xp.inf), x))
    above = -groups.max(-xp.where(masked | (d <= 0), xp.full_like(x, xp.inf), x))
    down, up = down & (below > -xp.inf), up & (above < xp.inf)
    moved = xp.where(down, below, xp.where(up, above, pivot))
    return moved, ~(down | up), count + 1


def value(x: Array, total: Array, lower: Array, upper: Array, found: Sides, groups: Groups = ROWS) -> Array:
    """z from its sides: affine in x, the sum and the bounds."""
    xp = array_api_compat.array_namespace(x)
    free = ~(found.at_lower | found.at_upper)
    nothing = xp.zeros_like(x)
    fixed = xp.where(found.at_lower, lower, xp.where(free, nothing, upper))
    pivot = groups.spread(found.pivot)
    d = xp.where(free, x, pivot + nothing) - pivot
    number = groups.sum(xp.astype(free, x.dtype))
    rest = total - groups.sum(fixed)
    tau = (groups.sum(d) - rest) / xp.where(number > 0, number, xp.ones_like(number))
    return xp.where(free, d - groups.spread(tau), fixed)
