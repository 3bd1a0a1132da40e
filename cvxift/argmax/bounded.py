"""Projection onto {l ≤ z ≤ u, Σ z = k} along the last axis, on any array-API namespace.

    z = clip(x − τ, l, u),  τ such that Σ z = k         (l = 0, k = 1: constrained sparsemax; u = ∞ besides: sparsemax)

First which entries stand at a bound, by a search without derivative; then z, affine in x, k and the bounds once that is
known, hence differentiable to any order by any framework. Entries at −∞ are masked: they stand at their lower bounds,
whatever the sum where a whole row is masked. Brucker 1984; Kiwiel 2008.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import array_api_compat

from cvxift.argmax.control import Loop, while_loop
from cvxift.argmax.rows import gather

Array = Any
LIMIT = 200


class Sides(NamedTuple):
    """Which entries stand at their bounds; those between share one τ."""

    at_lower: Array  # booleans, (..., n)
    at_upper: Array  # booleans, (..., n)
    pivot: Array  # a score from which τ is not farther than the bounds are from 0, (..., 1)


def sides(x: Array, total: Array, lower: Array, upper: Array, loop: Loop = while_loop) -> Sides:
    """Find which entries stand at their bounds.

    The linear program (all weight to the largest scores) has one entry p with l ≤ z_p ≤ u whose larger ones are at u
    and smaller ones at l. There −max u ≤ τ − x_p ≤ −min l: at the ends all entries on one side of p are at bounds. So
    measured from x_p, τ is found to the precision of the bounds, be the scores as large as they like.

    Args:
        x: scores, (..., n), float64 where bounds must be met to its precision; −∞ masks.
        total: required sum, (..., 1), within [Σ l, Σ u].
        lower: finite bounds of x's shape.
        upper: bounds of x's shape, ≥ lower; may be +∞.
        loop: how to iterate, see `control`.

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
    masked = x == -xp.inf
    rest = total - xp.sum(lower, axis=-1, keepdims=True)
    room = xp.where(masked, xp.zeros_like(x), xp.minimum(upper - lower, rest + xp.zeros_like(x)))
    order = xp.argsort(x, axis=-1, descending=True, stable=True)
    n = x.shape[-1]
    heads = xp.cumulative_sum(gather(xp, room, order), axis=-1)
    index = xp.sum(xp.astype(heads < rest, order.dtype), axis=-1, keepdims=True)
    pivot = gather(xp, x, gather(xp, order, xp.clip(index, max=n - 1)))
    pivot = xp.where(pivot == -xp.inf, xp.max(x, axis=-1, keepdims=True), pivot)
    pivot = xp.where(pivot == -xp.inf, xp.zeros_like(pivot), pivot)
    d = xp.where(masked, xp.zeros_like(x), x - pivot)
    upper = xp.where(masked, lower, upper)
    low, high = -xp.max(lower + room, axis=-1, keepdims=True), -xp.min(lower, axis=-1, keepdims=True)
    eps = float(xp.finfo(x.dtype).eps)
    enough = 2 * eps * (xp.abs(low) + xp.abs(high))

    def running(state: tuple[Array, ...]) -> Array:
        *_, last, count = state
        return xp.any(last > enough) & (count < LIMIT)

    def iterate(state: tuple[Array, ...]) -> tuple[Array, ...]:
        tau, low, high, last, count = state
        shifted = d - tau
        gap = xp.sum(xp.minimum(xp.maximum(shifted, lower), upper), axis=-1, keepdims=True) - total
        number = xp.sum(xp.astype((shifted > lower) & (shifted < upper), x.dtype), axis=-1, keepdims=True)
        # Halve where the sum does not vary, where a step leaves the interval or is not half the one before.
        low, high = xp.where(gap >= 0, tau, low), xp.where(gap <= 0, tau, high)
        step = gap / xp.where(number > 0, number, xp.ones_like(number))
        new = tau + step
        halve = ((number == 0) & (gap != 0)) | ~((new >= low) & (new <= high)) | (2 * xp.abs(step) > last)
        new = xp.where(halve, 0.5 * (low + high), new)
        done = last <= enough
        return xp.where(done, tau, new), low, high, xp.where(done, last, xp.abs(new - tau)), count + 1

    tau = loop(running, iterate, (0.5 * (low + high), low, high, xp.full_like(low, xp.inf), 0))[0]
    at_lower = (room <= 0) | (d - tau <= lower)
    return Sides(at_lower, ~at_lower & (d - tau >= upper), pivot)


def value(x: Array, total: Array, lower: Array, upper: Array, found: Sides) -> Array:
    """z from its sides: affine in x, the sum and the bounds."""
    xp = array_api_compat.array_namespace(x)
    free = ~(found.at_lower | found.at_upper)
    nothing = xp.zeros_like(x)
    fixed = xp.where(found.at_lower, lower, xp.where(free, nothing, upper))
    d = xp.where(free, x, found.pivot + nothing) - found.pivot
    number = xp.sum(xp.astype(free, x.dtype), axis=-1, keepdims=True)
    rest = total - xp.sum(fixed, axis=-1, keepdims=True)
    tau = (xp.sum(d, axis=-1, keepdims=True) - rest) / xp.where(number > 0, number, xp.ones_like(number))
    return xp.where(free, d - tau, fixed)
