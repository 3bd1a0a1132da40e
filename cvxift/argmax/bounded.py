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
FEW = 32  # entries of a row up to which all breakpoints at once take less than a search, if it is not compiled
PRECISE = 4.0  # size of τ, relative to what z can be, up to which bounds keep all but two bits of their precision


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
    from the largest, with which it ends if τ is close to that one.

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
    rest = total - groups.sum(lower + xp.zeros_like(x))
    own = groups is ROWS and lower.shape[-1] == upper.shape[-1] == 1
    # What z can be at most, but for masked entries, which stand at −∞ and therefore at their lower bounds.
    cap = lower + xp.minimum(upper - lower, groups.spread(rest))
    least, most = (_finite(xp, part) for part in (-groups.max(-lower), groups.max(cap)))
    reach = xp.maximum(xp.abs(least), xp.abs(most))
    top = _finite(xp, groups.max(x))
    d = x - groups.spread(top)
    low, high = _finite(xp, -groups.max(xp.where(d == -xp.inf, d, -d))) - most, -least
    start = 0.5 * (low + high)
    if own and x.shape[-1] > LONG:
        # A few of the largest entries reach the total, if they can, at a τ below, often closely.
        some = peaks(xp, x) - top
        few = some.shape[-1]
        need = xp.minimum(total - (x.shape[-1] - few) * lower, 0.5 * few * (lower + cap))
        start = _search(xp, some, need, lower, cap, reach, (start, low, high), loop, groups)
    if groups is ROWS and x.shape[-1] <= FEW and loop is while_loop:
        tau = _among_breakpoints(xp, d, total, lower, cap, low)
    else:
        tau = _search(xp, d, total, lower, cap, reach, (start, low, high), loop, groups)

    # Where scores are large beside the bounds, τ has the rounding of the scores: it is found again from one near to it.
    close = xp.abs(tau) <= PRECISE * reach

    def distant(state: tuple[Array, ...]) -> Array:
        return xp.any(~close) & (state[2] == 0)

    def approach(state: tuple[Array, ...]) -> tuple[Array, ...]:
        pivot, tau, count = state
        pivot, tau = _from_near(xp, x, (pivot, tau, close), (total, lower, cap, reach), low, loop, groups)
        return pivot, tau, count + 1

    pivot, tau, _ = loop(distant, approach, (top, tau, 0))
    d = x - groups.spread(pivot)
    shifted = d - groups.spread(tau)
    # The first to rise from its bound as τ falls takes all that there is, if it has room for more: τ may be any smaller
    # one, and it is free. Nothing is left for the others, whatever rounding the sum, and hence τ, has.
    own_rest = groups.spread(rest)
    roomy = upper - lower > own_rest
    if own:
        lead = xp.where(roomy, top - pivot - lower, xp.full_like(top, -xp.inf))
    else:
        lead = groups.max(xp.where(roomy, d - lower, xp.full_like(x, -xp.inf)))
    taken = groups.spread(lead - tau >= rest)
    at_lower = (cap <= lower) | (shifted <= lower) | (taken & ~(roomy & (d - lower >= groups.spread(lead))))
    at_upper = ~at_lower & (shifted >= upper) & ~roomy
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
    # If all stand at their lower bounds, they do so until the largest leaves it; masked rows have none that does.
    least = _finite(np, np.max(some, axis=-1, keepdims=True)) - lower
    edge = np.where(np.isfinite(edge), edge, np.where(np.isfinite(held), held, least))
    slack = 1e-6 * (np.abs(edge) + np.abs(lower) + np.abs(upper))
    keep = x > edge + lower - slack
    keep[..., 0] = True  # so that no row is empty
    short, restore = shorten(np, x, keep)
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


def _among_breakpoints(xp: Any, d: Array, total: Array, lower: Array, cap: Array, low: Array) -> Array:
    """τ of short rows, without iterations: the sum is linear in τ between two scores less a bound of theirs."""
    leaves, enters = d - lower, xp.maximum(d - cap, low)  # where an entry comes to its bounds as τ grows
    breaks = xp.concat([xp.maximum(leaves, low), enters], axis=-1)
    shifted = d[..., None, :] - breaks[..., :, None]
    sums = xp.sum(xp.minimum(xp.maximum(shifted, lower[..., None, :]), cap[..., None, :]), axis=-1)
    reached = sums >= total
    tau = xp.maximum(xp.max(xp.where(reached, breaks, low), axis=-1, keepdims=True), low)
    excess = xp.min(xp.where(reached, sums, xp.inf * xp.ones_like(sums)), axis=-1, keepdims=True) - total
    number = xp.sum(xp.astype((leaves > tau) & (enters <= tau), d.dtype), axis=-1, keepdims=True)
    sure = (number > 0) & (excess < xp.inf)
    return tau + xp.where(sure, excess, xp.zeros_like(excess)) / xp.where(sure, number, xp.ones_like(number))


def _search(
    xp: Any,
    d: Array,
    total: Array,
    lower: Array,
    cap: Array,
    reach: Array,
    start: tuple[Array, Array, Array],
    loop: Loop,
    groups: Groups,
) -> Array:
    """τ with Σ clip(d − τ, lower, cap) = total, by Newton's method within an interval: (τ, low, high) is the start."""
    eps = 2 * float(xp.finfo(d.dtype).eps)

    def enough(tau: Array) -> Array:
        return eps * (xp.abs(tau) + reach)

    def running(state: tuple[Array, ...]) -> Array:
        tau, _, _, last, count = state
        return xp.any(last > enough(tau)) & (count < LIMIT)

    def iterate(state: tuple[Array, ...]) -> tuple[Array, ...]:
        tau, low, high, last, count = state
        shifted = d - groups.spread(tau)
        gap = _total(xp, shifted, lower, cap, groups) - total
        gap = xp.where(xp.abs(gap) <= eps * xp.abs(total), xp.zeros_like(gap), gap)  # rounding of the sum
        number = groups.sum(xp.astype((shifted > lower) & (shifted < cap), d.dtype))
        # Halve where the sum does not vary, where a step leaves the interval, and every third time if it is not half
        # the one before.
        low, high = xp.where(gap >= 0, tau, low), xp.where(gap <= 0, tau, high)
        step = gap / xp.where(number > 0, number, xp.ones_like(number))
        new = tau + step
        slow = (2 * xp.abs(step) > last) & (count % 3 == 2)
        halve = ((number == 0) & (gap != 0)) | ~((new >= low) & (new <= high)) | slow
        new = xp.where(halve, 0.5 * (low + high), new)
        done = last <= enough(tau)
        return xp.where(done, tau, new), low, high, xp.where(done, last, xp.abs(new - tau)), count + 1

    tau, low, high = start
    return loop(running, iterate, (tau, low, high, xp.full_like(low, xp.inf), 0))[0]


def _from_near(
    xp: Any,
    x: Array,
    found: tuple[Array, Array, Array],
    given: tuple[Array, Array, Array, Array],
    low: Array,
    loop: Loop,
    groups: Groups,
) -> tuple[Array, Array]:
    """The score nearest to τ, and τ measured from it, where that is not close enough to the largest.

    Args:
        xp: the namespace.
        x: scores, (..., n).
        found: the largest score of each group, τ measured from it, and whether it is close enough.
        given: the sum, the least and the most that z can be, and their size.
        low: what τ is at least.
        loop: how to iterate.
        groups: of entries.
    """
    top, tau, close = found
    total, lower, cap, reach = given
    far = xp.abs(x - groups.spread(top) - groups.spread(tau))
    nearest = (far == groups.spread(-groups.max(-far))) & (far < xp.inf)
    pivot = groups.max(xp.where(nearest, x, xp.full_like(x, -xp.inf)))
    at = _finite(xp, pivot - top)
    # Only rounding of large scores can have led to a wrong entry.
    sure = close | (8 * float(xp.finfo(x.dtype).eps) * xp.abs(low) <= 1e-3 * reach)
    pivot, *_ = loop(
        lambda state: xp.any(~state[1]) & (state[2] < LIMIT),
        lambda state: _neighbour(xp, x, total, lower, cap, reach, state, groups),
        (_finite(xp, pivot), sure, 0),
    )
    d = x - groups.spread(pivot)
    start = xp.where(sure, tau - at, xp.zeros_like(tau))
    new = _search(xp, d, total, lower, cap, reach, (start, -reach, reach), loop, groups)
    return xp.where(close, top, pivot), xp.where(close, tau, new)


def _neighbour(
    xp: Any,
    x: Array,
    total: Array,
    lower: Array,
    cap: Array,
    reach: Array,
    state: tuple[Array, ...],
    groups: Groups,
) -> tuple[Array, ...]:
    """The next score towards τ, if τ is not within reach of the pivot; whether it is, and the number of moves."""
    pivot, sure, count = state
    d = x - groups.spread(pivot)
    down = ~sure & (_total(xp, d + groups.spread(reach), lower, cap, groups) < total)
    up = ~sure & (_total(xp, d - groups.spread(reach), lower, cap, groups) >= total)
    below = groups.max(xp.where(d >= 0, xp.full_like(x, -xp.inf), x))
    above = -groups.max(-xp.where(d <= 0, xp.full_like(x, xp.inf), x))
    down, up = down & (below > -xp.inf), up & (above < xp.inf)
    moved = xp.where(down, below, xp.where(up, above, pivot))
    return moved, ~(down | up), count + 1


def value(x: Array, total: Array, lower: Array, upper: Array, found: Sides, groups: Groups = ROWS) -> Array:
    """z from its sides: affine in x, the sum and the bounds."""
    xp = array_api_compat.array_namespace(x)
    free = ~(found.at_lower | found.at_upper)
    pivot = groups.spread(found.pivot)
    # Entries between the bounds measured from the pivot, the others as they are.
    known = xp.where(free, xp.where(free, x, pivot) - pivot, xp.where(found.at_lower, lower, upper))
    number = groups.sum(xp.astype(free, x.dtype))
    tau = (groups.sum(known) - total) / xp.where(number > 0, number, xp.ones_like(number))
    return known - xp.where(free, groups.spread(tau), xp.zeros_like(x))
