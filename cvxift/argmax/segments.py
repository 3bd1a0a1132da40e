"""α-entmax, and projections onto budgets, over groups of entries of unequal length; O(N) memory.

What `simplex` does for rows, on any array-API namespace, and what `sorted_rows` does, in NumPy. There entries are left
out of α-entmax as soon as they cannot matter any more: those below the threshold found so far, and those of groups
whose threshold is known.
"""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np

from cvxift._types import Array, Floats
from cvxift.argmax import simplex
from cvxift.argmax.bounded import sides, value
from cvxift.argmax.groups import Groups, NumpySegments
from cvxift.argmax.loops import Loop, while_loop
from cvxift.argmax.sorted_rows import ATTAINED, SortedRows
from cvxift.argmax.tsallis import Order


def entmax(x: Array, alpha: Order, groups: Groups, loop: Loop = while_loop) -> Array:
    """α-entmax over each of many groups.

    Args:
        x: scores, (..., N); −∞ masks. What cancels is computed in float64 in NumPy, elsewhere in x's dtype.
        alpha: order ≥ 1, a float or an array of one for each group.
        groups: which entries are together.
        loop: how to iterate, see `cvxift.argmax.loops`.

    Returns:
        Distributions over the groups, of x's shape and dtype; zero for groups at −∞ throughout.

    Example:
        >>> entmax(np.array([0.5, 0.4, 3.0]), 2.0, NumpySegments(np.array([0, 0, 1]), 2))
        array([0.55, 0.45, 1.  ])
    """
    xp = array_api_compat.array_namespace(x)
    top = groups.max(x)
    top = xp.where(top == -xp.inf, xp.zeros_like(top), top)
    scores = x - groups.spread(top)
    if isinstance(alpha, float) and alpha == 1.0:
        weights = xp.exp(scores)
        total = groups.sum(weights)
        share = xp.where(total > 0, total, xp.ones_like(total))
        return weights * groups.spread(xp.astype(1.0 / share, x.dtype))
    if isinstance(groups, NumpySegments):
        z = np.zeros_like(x)
        some = np.flatnonzero(scores > simplex.reach(np, alpha, 0.0) if isinstance(alpha, float) else x > -np.inf)
        own = groups.only(some)
        wide = x.take(some).astype(np.float64) - own.spread(top)
        z[some] = simplex.values(np, wide, _threshold(wide, alpha, own), alpha, while_loop, own)
        return z
    c = simplex.threshold(xp, scores, alpha, xp.zeros_like(top), loop, groups=groups)
    return simplex.values(xp, scores, c, alpha, loop, groups)


def _threshold(scores: np.ndarray, alpha: Order, groups: NumpySegments) -> np.ndarray:
    """`simplex.threshold` in NumPy, of fewer entries from step to step where ε ≤ 1, for which c ascends."""
    c = np.zeros(groups.number)
    if not isinstance(alpha, float) or alpha > 2.0:
        return simplex.threshold(np, scores, alpha, c, while_loop, groups=groups)
    enough = simplex.last_step(np.finfo(np.float64).eps, alpha)
    for _ in range(simplex.LIMIT):
        step = simplex.newton_step(np, scores, alpha, c, groups)
        c += step
        moving = np.abs(step) > enough
        if not moving.any():
            break
        # What is at or below its reach is 0 from here on; groups without entries stay where they are.
        least = np.where(moving, simplex.reach(np, alpha, c), np.inf)
        some = np.flatnonzero(scores > groups.spread(least))
        scores, groups = scores.take(some), groups.only(some)
    return c


def above(x: Floats, rest: Floats, lower: Floats, groups: Groups) -> SortedRows | None:
    """`sorted_rows.above` over each of many groups.

    Args:
        x: scores, (..., N).
        rest: k − Σ l > 0 of each group.
        lower: l, broadcasts to x's shape.
        groups: which entries are together.

    Returns:
        The projection; None where scores are too large for what a group has to share.

    Example:
        >>> above(np.array([3.0, 0.5, 0.4]), np.ones(2), np.zeros(3), NumpySegments(np.array([0, 1, 1]), 2)).z
        array([1.  , 0.55, 0.45])
    """
    own = groups.spread(rest)
    with np.errstate(over="ignore", invalid="ignore"):
        part = entmax((x - lower) / own, 2.0, groups)
    if not np.isfinite(part.sum()):
        return None
    z = lower + own * part
    return SortedRows(z, part <= 0, None, groups.max(np.where(part <= 0, -np.inf, x - z)))


def budget(x: Floats, k: Floats, lower: Floats, upper: Floats, groups: Groups) -> SortedRows | None:
    """`sorted_rows.budget` over each of many groups.

    Args:
        x: scores, (..., N).
        k: sum of each group, strictly within (Σ l, Σ u).
        lower: finite bounds that broadcast to x's shape.
        upper: likewise, ≥ lower.
        groups: which entries are together.

    Returns:
        The projection; None where rounding leaves none on which the sums are attained.

    Example:
        >>> groups = NumpySegments(np.array([0, 0, 0, 1, 1]), 2)
        >>> budget(np.array([3.0, 0.5, 0.4, 0.0, 0.0]), np.array([2.0, 1.0]), np.zeros(5), np.ones(5), groups).z
        array([1.  , 0.55, 0.45, 0.5 , 0.5 ])
    """
    lower, upper = np.broadcast_to(lower, x.shape), np.broadcast_to(upper, x.shape)
    found = sides(x, k, lower, upper, groups=groups)
    z = value(x, k, lower, upper, found, groups)
    free: Any = ~(found.at_lower | found.at_upper)
    # Where bounds hold every entry τ may be anything between these two, and the middle is farthest from a change.
    least = groups.max(np.where(found.at_lower, x - lower, -np.inf))
    most = -groups.max(np.where(found.at_upper, upper - x, -np.inf))
    tau = groups.max(np.where(free, x - z, -np.inf))
    with np.errstate(invalid="ignore"):
        tau = np.where(np.isfinite(tau), tau, 0.5 * (least + most))
    size = 1.0 + np.abs(k) + groups.sum(np.abs(z))
    attained = (np.abs(groups.sum(z) - k) <= ATTAINED * size).all()
    return SortedRows(z, found.at_lower, found.at_upper, tau) if attained else None
