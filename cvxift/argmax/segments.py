"""α-entmax over groups of entries of unequal length, on any array-API namespace; O(N) memory.

What `simplex` does for rows. In NumPy entries are left out as soon as they cannot matter any more: those below the
threshold found so far, and those of groups whose threshold is known.
"""

from __future__ import annotations

import array_api_compat
import numpy as np

from cvxift._types import Array
from cvxift.argmax import simplex, tsallis
from cvxift.argmax.groups import Groups, NumpySegments
from cvxift.argmax.loops import Loop, while_loop
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
        c = own.spread(_threshold(wide, alpha, own))
        z[some] = tsallis.exponential(np, wide, c, tsallis.of_entries(alpha, own))
        return z
    c = simplex.threshold(xp, scores, alpha, xp.zeros_like(top), loop, groups=groups)
    return tsallis.exponential(xp, scores, groups.spread(c), tsallis.of_entries(alpha, groups))


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
