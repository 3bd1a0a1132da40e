"""Constrained softmax along the last axis: argmax of ⟨x, z⟩ − Σ z log z over {0 ≤ z ≤ u, Σ z = 1}.

    z = min(u, exp(x − c)),  c such that Σ z = 1:   entries with x − log u ≥ c are at their caps

Once the caps are known, the others share the rest as a softmax: differentiable to any order by any framework. Entries
at −∞ are masked; rows in which all are, are zero. Martins & Kreutzer 2017 (who cap one set after another; here one
search among the n possible sets, of log₂ n steps).
"""

from __future__ import annotations

from typing import NamedTuple

import array_api_compat

from cvxift._types import Array


class Caps(NamedTuple):
    """Which entries stand at their upper bounds."""

    capped: Array  # booleans, (..., n)
    top: Array  # the largest score of the others, (..., 1)


def caps(x: Array, upper: Array) -> Caps:
    """Find which entries stand at their upper bounds.

    Args:
        x: scores, (..., n); −∞ masks.
        upper: bounds ≥ 0 of x's shape, which sum to at least 1 over what is not masked; may be +∞.

    Returns:
        The caps. No derivative passes through them.

    Example:
        >>> import numpy as np
        >>> x, upper = np.array([3.0, 0.0, 0.0]), np.array([0.5, 0.5, 0.5])
        >>> value(x, upper, caps(x, upper))
        array([0.5 , 0.25, 0.25])
    """
    xp = array_api_compat.array_namespace(x)
    n = x.shape[-1]
    masked = x == -xp.inf
    none = xp.full_like(x, -xp.inf)
    bound = xp.where(upper > 0, upper, xp.ones_like(upper))
    # c at which an entry leaves its cap: always for u = 0 (which is no choice at all), never for u = ∞ or a mask.
    leaves = xp.where(masked | (upper == xp.inf), none, xp.where(upper > 0, x - xp.log(bound), -none))
    ordered = xp.sort(leaves, axis=-1, descending=True)

    def excess(c: Array) -> Array:
        """Σ min(u, exp(x − c)) > 1, that is, the threshold is larger."""
        at_cap = leaves >= c
        finite = xp.where(c == -xp.inf, xp.zeros_like(c), c)
        z = xp.where(at_cap, upper, xp.exp(xp.where(at_cap | masked, none, x) - finite))
        return (xp.sum(z, axis=-1, keepdims=True) > 1) | (c == -xp.inf)

    # The number of entries with leaves ≥ threshold, found by halving: Σ z falls as c grows.
    low = xp.zeros_like(x[..., :1], dtype=xp.arange(1).dtype)
    high = low + n
    for _ in range(n.bit_length()):
        middle = (low + high) // 2
        inside = middle < high
        c = xp.take_along_axis(ordered, xp.clip(middle, max=n - 1), axis=-1)
        infinite = c == xp.inf
        more = inside & (infinite | ~excess(xp.where(infinite, xp.zeros_like(c), c)))
        low, high = xp.where(more, middle + 1, low), xp.where(inside & ~more, middle, high)
    last = xp.take_along_axis(ordered, xp.clip(low - 1, min=0), axis=-1)
    capped = (leaves >= last) & (low > 0) & ~masked
    top = xp.max(xp.where(capped, none, x), axis=-1, keepdims=True)
    return Caps(capped, xp.where(top == -xp.inf, xp.zeros_like(top), top))


def value(x: Array, upper: Array, found: Caps) -> Array:
    """z from its caps."""
    xp = array_api_compat.array_namespace(x)
    capped, top = found
    nothing = xp.zeros_like(x)
    weights = xp.exp(xp.where(capped, xp.full_like(x, -xp.inf), x) - top)
    total = xp.sum(weights, axis=-1, keepdims=True)
    rest = 1.0 - xp.sum(xp.where(capped, upper, nothing), axis=-1, keepdims=True)
    share = weights * (rest / xp.where(total > 0, total, xp.ones_like(total)))
    return xp.where(capped, upper, share)
