"""α-entmax along the last axis, α ≥ 1, on any array-API namespace: softmax, 1.5-entmax, sparsemax and all between.

    z = argmax over the simplex of ⟨x, z⟩ − Ω_α(z) = e_ε(x − max x − c),   c ≥ 0 such that Σ z = 1   (see `tsallis`)

In this scale c's own relative rounding is z's, however near α is to 1. No row is sorted. Entries at −∞ are masked
(z = 0); rows in which all are, are zero. Rows with NaN or +∞ give NaN: the adapters refuse them by name.
Peters, Niculae, Martins 2019; Martins & Astudillo 2016; Michelot 1986 (Newton's method for ε = 1).
"""

from __future__ import annotations

import math
from typing import Any

import array_api_compat

from cvxift._types import Array
from cvxift.argmax import double_single, tsallis
from cvxift.argmax.compaction import peaks, shorten
from cvxift.argmax.groups import ROWS, Groups
from cvxift.argmax.loops import LIMIT, Loop, while_loop
from cvxift.argmax.tsallis import Order

FIRST, SECOND = (4, 8), (2, 4)  # iterations for a bound alone, ε ≤ 1 and > 1: of some entries, of all
LOST = 1e-3  # power of the largest value below which a threshold's rounding, relative to it, is 1000 times as large
LARGE = 1 << 15  # number of scores from which the first iterations are made in the scores' own dtype


def entmax(x: Array, alpha: Order, loop: Loop = while_loop, wide: bool = True) -> Array:
    """α-entmax along the last axis.

    Args:
        x: scores, (..., n), float32 or float64.
        alpha: order ≥ 1, a float or an array (..., 1).
        loop: how to iterate, see `control`; with Python's, rows are shortened to the entries that can matter.
        wide: find the threshold in float64 whatever x's dtype. For α > 2 the map is Hölder continuous alone, with
            exponent 1/ε, and the rounding of x − max x would show. Without, sums of two float32 take its place.

    Returns:
        Distributions of x's shape; zero for rows at −∞ throughout.

    Example:
        >>> import numpy as np
        >>> entmax(np.array([0.5, 0.4, -1.0]), 2.0)
        array([0.55, 0.45, 0.  ])
    """
    xp = array_api_compat.array_namespace(x)
    if x.shape[-1] == 0:
        return x
    alpha = float(alpha) if isinstance(alpha, (float, int)) else xp.astype(alpha, x.dtype)
    some = peaks(xp, x)
    top = xp.max(some, axis=-1, keepdims=True)
    top = xp.where(top == -xp.inf, xp.zeros_like(top), top)
    # The threshold of some entries bounds that of all from below, often closely, and what lies 1/ε below it is zero.
    start = xp.zeros_like(top)
    if some.shape[-1] < x.shape[-1]:
        start = (1 - 1e-5) * threshold(xp, some - top, alpha, start, loop, rough=FIRST)
    scores, restore = x - top, _same
    if loop is while_loop:
        scores, restore = shorten(xp, scores, scores > reach(xp, alpha, start))
    if wide:
        large = x.dtype != xp.float64 and math.prod(scores.shape) > LARGE
        return restore(_wide(xp, scores, start, alpha, loop, large))
    c = threshold(xp, scores, alpha, start, loop)
    if x.dtype == xp.float32 and not (isinstance(alpha, float) and alpha in (1.0, 1.5, 2.0)):
        return double_single.entmax(xp, x, top, c, alpha, loop)
    return restore(tsallis.exponential(xp, scores, c, alpha))


def _wide(xp: Any, scores: Array, start: Array, alpha: Order, loop: Loop, large: bool) -> Array:
    """z, its threshold found in float64; of many scores the first iterations are made in their own dtype."""
    own, restore = scores.dtype, _same
    if large:
        # Where a value costs two logarithms, what was no help to the rows at first may be after a few iterations.
        if loop is while_loop and not (isinstance(alpha, float) and alpha in (1.5, 2.0)):
            start = threshold(xp, scores, alpha, start, loop, rough=SECOND)
            scores, restore = shorten(xp, scores, scores > reach(xp, alpha, (1 - 1e-5) * start))
        start = threshold(xp, scores, alpha, start, loop)
    if large and isinstance(alpha, float) and alpha == 2.0:
        return restore(_shifted(xp, scores, start))
    scores, start = xp.astype(scores, xp.float64), xp.astype(start, xp.float64)
    if large and isinstance(alpha, float) and alpha <= 1.5:
        return restore(xp.astype(_corrected(xp, scores, alpha, start), own))
    alpha = alpha if isinstance(alpha, float) else xp.astype(alpha, xp.float64)
    c = threshold(xp, scores, alpha, start, loop, 1e-3 * float(xp.finfo(own).eps))
    return restore(xp.astype(values(xp, scores, c, alpha, loop), own))


def values(xp: Any, scores: Array, c: Array, alpha: Order, loop: Loop, groups: Groups = ROWS) -> Array:
    """e_ε(scores − c), whose rows sum to 1 where ε > 1 too.

    There the largest value t, t^ε = 1 − εc, can be so small a power that c's rounding is all of it, as where many
    scores are equal. Then Σ [t^ε + ε scores]_+^{1/ε} = 1 is solved for t itself, between 1/n and 1.

    Args:
        xp: the namespace.
        scores: (..., n) with maximum 0, or −∞ in rows that are masked.
        c: what `threshold` found.
        alpha: order ≥ 1.
        loop: how to iterate.
        groups: of entries with a c each.
    """
    z = tsallis.exponential(xp, scores, groups.spread(c), tsallis.of_entries(alpha, groups))
    if isinstance(alpha, float) and alpha <= 2.0:
        return z
    one, rounding = xp.ones_like(c), float(xp.finfo(scores.dtype).eps)
    eps = xp.clip((alpha - 1.0) * one, min=1.0)
    power = 1.0 - eps * c
    lost = (power < LOST) & ((alpha - 1.0) * one > 1.0)
    if loop is while_loop and not bool(xp.any(lost)):
        return z
    each = groups.spread(eps)

    def of(t: Array) -> Array:
        u = groups.spread(t**eps) + each * scores
        tail = xp.where(u > 0, xp.where(u > 0, u, xp.ones_like(u)) ** (1.0 / each), xp.zeros_like(u))
        return xp.where(scores == 0, groups.spread(t), tail)

    def running(state: tuple[Array, ...]) -> Array:
        t, *_, last, count = state
        return xp.any(last > 2 * rounding * t) & (count < LIMIT)

    def iterate(state: tuple[Array, ...]) -> tuple[Array, ...]:
        t, low, high, last, count = state
        z = of(t)
        ratio = groups.spread(t) / xp.where(z > 0, z, xp.ones_like(z))
        slope = groups.sum(xp.where(z > 0, ratio ** (each - 1.0), xp.zeros_like(z)))
        lack = 1.0 - groups.sum(z)
        low, high = xp.where(lack >= 0, t, low), xp.where(lack <= 0, t, high)
        step = lack / xp.where(slope > 0, slope, one)
        new = t + step
        slow = ~((new >= low) & (new <= high)) | (2 * xp.abs(step) > last)
        new = xp.where(slow, 0.5 * (low + high), new)
        done = last <= 2 * rounding * t
        return xp.where(done, t, new), low, high, xp.where(done, last, xp.abs(new - t)), count + 1

    least = one / scores.shape[-1]
    start = xp.clip(xp.clip(power, min=0.0) ** (1.0 / eps), min=least)
    state = (start, least, one, xp.where(lost, xp.full_like(one, xp.inf), xp.zeros_like(one)), 0)
    t, *_ = loop(running, iterate, state)
    return xp.where(groups.spread(lost), of(t), z)


def _corrected(xp: Any, scores: Array, alpha: float, c: Array) -> Array:
    """z after one more step of Newton's, to first order: the second is beyond float32, c being exact to float32."""
    z, slope = tsallis.value_and_slope(xp, scores, c, alpha - 1.0)
    step = _newton(xp, alpha, xp.sum(z, axis=-1, keepdims=True), xp.sum(slope, axis=-1, keepdims=True))
    return tsallis.at_least(xp, z - step * slope, 0.0)


def _shifted(xp: Any, scores: Array, c: Array) -> Array:
    """Sparsemax after one more step, by differences that have the values' own rounding: so have their sums."""
    u = scores + (1.0 - c)
    z = tsallis.at_least(xp, u, 0.0)
    number = xp.sum(xp.astype(z > 0, z.dtype), axis=-1, keepdims=True)
    return tsallis.at_least(xp, u - _newton(xp, 2.0, xp.sum(z, axis=-1, keepdims=True), number), 0.0)


def _same(z: Array) -> Array:
    return z


def reach(xp: Any, alpha: Order, start: Array) -> Array:
    """Scores, less their maximum, at or below which z = 0 if c is at least ``start``; a little less, for rounding."""
    eps = alpha - 1.0
    if isinstance(eps, float):
        return start - ((1 + 1e-6) / eps if eps > 0 else xp.inf)
    width = (1 + 1e-6) / xp.where(eps == 0, xp.ones_like(eps), eps)
    return xp.where(eps == 0, xp.full_like(start, -xp.inf), start - width)


def threshold(
    xp: Any,
    scores: Array,
    alpha: Order,
    start: Array,
    loop: Loop,
    accuracy: float | None = None,
    rough: tuple[int, int] | None = None,
    groups: Groups = ROWS,
) -> Array:
    """c with F(c) = Σ e_ε(scores − c) = 1, by Newton's method on log_ε F.

    One step is exact for softmax and for equal scores. Where ε ≤ 1, F^ε is a norm (p = 1/ε), hence convex in c, and
    from the left the iterates ascend to c. Orders in an array, and ε > 1, keep an interval besides.

    Args:
        xp: the namespace.
        scores: (..., n) with maximum 0, or −∞ in rows that are masked.
        alpha: order ≥ 1.
        start: where to start, (..., 1).
        loop: how to iterate.
        accuracy: of the values z that follow from c, where the map is smooth; None for the scores' rounding.
        rough: how many steps to make, for ε ≤ 1 and > 1, for a lower bound of c, which ``start`` must be then.
        groups: of entries with a c each.

    Returns:
        c, one for each group: (..., 1) for rows.
    """
    if 0 in start.shape:
        return start
    eps = alpha - 1.0
    if not isinstance(eps, float) or eps > 1.0:
        return _bracketed(xp, scores, alpha, start, loop, rough, groups)
    rounding = float(xp.finfo(scores.dtype).eps)
    enough = last_step(max(rounding if accuracy is None else accuracy, rounding), alpha)

    def running(state: tuple[Array, Array, Any]) -> Array:
        _, last, count = state
        return (last > enough) & (count < (rough[0] if rough else LIMIT))

    def iterate(state: tuple[Array, Array, Any]) -> tuple[Array, Array, Any]:
        c, _, count = state
        step = newton_step(xp, scores, alpha, c, groups)
        return c + step, xp.max(xp.abs(step)), count + 1

    return loop(running, iterate, (start, xp.max(start) + xp.inf, 0))[0]


def last_step(accuracy: float, alpha: float) -> float:
    """The step after which values have an accuracy, ε ≤ 1.

    After a step δ the rest is of order δ^min(2, p): where an entry leaves the support, e_ε has p derivatives.
    """
    return accuracy ** max(0.5, alpha - 1.0)


def _bracketed(
    xp: Any, scores: Array, alpha: Order, start: Array, loop: Loop, rough: tuple[int, int] | None, groups: Groups
) -> Array:
    """Newton's method that halves the interval wherever a step leaves it or does not halve the one before."""
    enough = float(xp.finfo(scores.dtype).eps)
    most = tsallis.logarithm(xp, xp.full_like(start, float(scores.shape[-1])), alpha) * (1 + 1e-6)

    def running(state: tuple[Array, ...]) -> Array:
        *_, last, count = state
        return xp.any(last > enough) & (count < (rough[1] if rough else LIMIT))

    def iterate(state: tuple[Array, ...]) -> tuple[Array, ...]:
        c, low, high, last, count = state
        step = newton_step(xp, scores, alpha, c, groups)
        low, high = xp.where(step >= 0, c, low), xp.where(step <= 0, c, high)
        new = c + step
        slow = ~((new >= low) & (new <= high)) | (2 * xp.abs(step) > last)
        new = xp.where(slow, 0.5 * (low + high), new)
        done = last <= enough
        return xp.where(done, c, new), low, high, xp.where(done, last, xp.abs(new - c)), count + 1

    state = (start, xp.zeros_like(start), most, xp.full_like(start, xp.inf), 0)
    c, low, *_ = loop(running, iterate, state)
    return low if rough else c


def newton_step(xp: Any, scores: Array, alpha: Order, c: Array, groups: Groups) -> Array:
    """Newton's step log_ε F · F / −F′ at c; 0 in masked rows."""
    return _newton(xp, alpha, *tsallis.sums(xp, scores, c, alpha, groups))


def _newton(xp: Any, alpha: Order, F: Array, S: Array) -> Array:
    F, S = xp.where(F > 0, F, xp.ones_like(F)), xp.where(S > 0, S, xp.ones_like(S))
    if isinstance(alpha, float) and alpha == 2.0:
        return (F - 1.0) / S
    return tsallis.logarithm(xp, F, alpha) * F / S
