"""Closed forms of the argmax maps, on any array-API namespace, along the last axis.

    entmax      z = [(α−1)x − τ]_+^{1/(α−1)},  Σ z = 1         (α = 2: sparsemax)
    budget      z = clip(x − τ, l, u),  Σ z = k                 (box plus sum; l = 0, k = 1: constrained sparsemax)
    capped      z = min(u, exp(x − c)),  Σ z = 1                (constrained softmax)

Thresholds are found without sorting. Entries at −∞ are masked (z = 0); rows in which all are, are zero. Rows with a NaN
give NaN: the adapters refuse them by name. Peters, Niculae, Martins 2019; Michelot 1986; Martins & Kreutzer 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_compat

Array = Any


def entmax(x: Array, alpha: float, lead: Callable[[Array], Array] | None = None) -> Array:
    """α-entmax along the last axis, α > 1.

    Args:
        x: scores, (..., n), float32 or float64.
        alpha: order > 1.
        lead: given scores − max (scaled by α − 1), an array of rows that hold all entries > −1, where the threshold can
            be sought as well; a way to shorten rows by a framework's own means.

    Returns:
        Distributions of x's shape; zero for rows at −∞ throughout.

    Example:
        >>> import numpy as np
        >>> entmax(np.array([0.5, 0.4, -1.0]), 2.0)
        array([0.55, 0.45, 0.  ])
    """
    xp = array_api_compat.array_namespace(x)
    top = xp.max(x, axis=-1, keepdims=True)
    top = xp.where(xp.isinf(top) & (top < 0), xp.zeros_like(top), top)
    scores = x - top if alpha == 2 else (alpha - 1.0) * (x - top)
    # Σ [s − τ]_+^p ≥ 1 at τ = −1, where the largest entry alone gives 1.
    tau = -xp.ones_like(top)
    short = scores if lead is None else lead(scores)
    if alpha == 2:
        return _positive(xp, scores - _linear_threshold(xp, short, tau))
    power = 1.0 / (alpha - 1.0)
    if power < 1.0:
        return _normalized(xp, _positive(xp, scores - _bisect(xp, short, tau, power)) ** power)
    tau = _norm_threshold(xp, short, tau, power)
    z = _positive(xp, scores - tau)
    return _normalized(xp, z * z if power == 2.0 else z**power)


def _linear_threshold(xp: Any, scores: Array, tau: Array) -> Array:
    """Newton on the convex, piecewise linear Σ [s − τ]_+ − 1, from the left: ends in finitely many steps."""
    for _ in range(scores.shape[-1] + 2):
        part = _positive(xp, scores - tau)
        total = xp.sum(part, axis=-1, keepdims=True)
        count = xp.sum(xp.astype(part > 0, scores.dtype), axis=-1, keepdims=True)
        step = (total - 1.0) / xp.where(count > 0, count, xp.ones_like(count))
        grown = tau + xp.where((count > 0) & (step > 0), step, xp.zeros_like(step))
        if not bool(xp.any(grown > tau)):
            break
        tau = grown
    return tau


def _norm_threshold(xp: Any, scores: Array, tau: Array, power: float) -> Array:
    """Newton on ‖[s − τ]_+‖_p − 1, p ≥ 1, from the left: convex and nearly linear in τ, so a few steps do."""
    for _ in range(60):
        part = _positive(xp, scores - tau)
        lower = part if power == 2.0 else xp.where(part > 0, part, xp.zeros_like(part)) ** (power - 1.0)
        slope = xp.sum(lower, axis=-1, keepdims=True)
        total = xp.sum(lower * part, axis=-1, keepdims=True)
        # d/dτ f^{1/p} = −f^{1/p − 1} slope
        safe = xp.where(total > 0, total, xp.ones_like(total))
        norm = safe ** (1.0 / power)
        step = (norm - 1.0) * safe / (norm * xp.where(slope > 0, slope, xp.ones_like(slope)))
        grown = tau + xp.where((total > 0) & (step > 0), step, xp.zeros_like(step))
        if not bool(xp.any(grown - tau > 4 * xp.finfo(tau.dtype).eps)):
            return grown
        tau = grown
    return tau


def _bisect(xp: Any, scores: Array, low: Array, power: float) -> Array:
    high = xp.zeros_like(low)
    for _ in range(26 if xp.finfo(low.dtype).bits == 32 else 56):
        middle = 0.5 * (low + high)
        total = xp.sum(_positive(xp, scores - middle) ** power, axis=-1, keepdims=True)
        low, high = xp.where(total >= 1, middle, low), xp.where(total >= 1, high, middle)
    return low


def _positive(xp: Any, x: Array) -> Array:
    return xp.clip(x, min=0.0)


def _normalized(xp: Any, z: Array) -> Array:
    total = xp.sum(z, axis=-1, keepdims=True)
    return z / xp.where(total == 0, xp.ones_like(total), total)


def entmax_derivative(z: Array, dx: Array, alpha: float) -> Array:
    """Derivative of α-entmax in direction dx, from its value z alone; symmetric, so it is the vector-Jacobian product.

    J = diag(s) − s sᵀ / Σ s,  s_i = z_i^{2−α} on the support (Peters, Niculae, Martins 2019, Proposition 2).
    """
    xp = array_api_compat.array_namespace(z)
    s = support_weights(xp, z, alpha)
    total = xp.sum(s, axis=-1, keepdims=True)
    mean = xp.sum(s * dx, axis=-1, keepdims=True) / xp.where(total > 0, total, xp.ones_like(total))
    return s * (dx - mean)


def support_weights(xp: Any, z: Array, alpha: float) -> Array:
    """s = z^{2−α} on the support, 0 outside."""
    inside = z > 0
    safe = xp.where(inside, z, xp.ones_like(z))
    return xp.where(inside, safe ** (2.0 - alpha), xp.zeros_like(z))


def entmax_order_derivative(z: Array, alpha: float) -> Array:
    """∂z/∂α of α-entmax, α ≥ 1, from its value z.

    With ε = α − 1, L = log z: differentiate z^ε = εx − τ on the support; a constant drops out because Σ dz = 0:
    dz = s (φ − Σ sφ/Σs),  φ = (e^t (1 − t) − 1)/ε²,  t = εL,  which tends to −L²/2 at α = 1.
    """
    xp = array_api_compat.array_namespace(z)
    eps = alpha - 1.0
    s = support_weights(xp, z, alpha)
    log = xp.log(xp.where(z > 0, z, xp.ones_like(z)))
    t = eps * log
    small = xp.abs(t) < 2e-2
    series = -0.5 - t / 3 - t**2 / 8 - t**3 / 30 - t**4 / 144 - t**5 / 840 - t**6 / 5760
    safe = xp.where(small, xp.ones_like(t), t)
    phi = log**2 * xp.where(small, series, (xp.exp(safe) * (1 - safe) - 1) / safe**2)
    total = xp.sum(s, axis=-1, keepdims=True)
    mean = xp.sum(s * phi, axis=-1, keepdims=True) / xp.where(total > 0, total, xp.ones_like(total))
    return s * (phi - mean)


def budget_sides(x: Array, total: Array, lower: Array, upper: Array) -> tuple[Array, Array]:
    """Which entries of clip(x − τ, l, u), Σ = total, stand at their lower and upper bounds.

    Args:
        x: finite scores, (..., n).
        total: required sum, (..., 1), within [Σ l, Σ u].
        lower: bounds of x's shape.
        upper: bounds of x's shape, ≥ lower.

    Returns:
        Two boolean arrays of x's shape; the entries between bounds share one τ.
    """
    xp = array_api_compat.array_namespace(x)
    low = xp.min(x - upper, axis=-1, keepdims=True)  # all at their upper bounds
    high = xp.max(x - lower, axis=-1, keepdims=True)  # all at their lower bounds
    for _ in range(30 if xp.finfo(x.dtype).bits == 32 else 60):
        middle = 0.5 * (low + high)
        more = xp.sum(xp.minimum(xp.maximum(x - middle, lower), upper), axis=-1, keepdims=True) >= total
        low, high = xp.where(more, middle, low), xp.where(more, high, middle)
    return x - high <= lower, (x - low >= upper) & (upper > lower)


def budget_value(x: Array, total: Array, lower: Array, upper: Array, at_lower: Array, at_upper: Array) -> Array:
    """z from its sides: affine in x, the sum and the bounds, hence differentiable by any framework."""
    xp = array_api_compat.array_namespace(x)
    free = ~(at_lower | at_upper)
    fixed = xp.where(at_lower, lower, upper)
    number = xp.sum(xp.astype(free, x.dtype), axis=-1, keepdims=True)
    rest = total - xp.sum(xp.where(free, xp.zeros_like(x), fixed), axis=-1, keepdims=True)
    tau = (xp.sum(xp.where(free, x, xp.zeros_like(x)), axis=-1, keepdims=True) - rest) / xp.where(
        number > 0, number, xp.ones_like(number)
    )
    return xp.where(free, x - tau, fixed)


def caps(x: Array, upper: Array) -> Array:
    """Which entries of constrained softmax stand at their upper bounds (x finite, Σ u ≥ 1).

    The uncapped share the rest as a softmax; those that exceed their bound are capped in turn, and stay so.
    """
    xp = array_api_compat.array_namespace(x)
    capped = xp.zeros_like(x, dtype=xp.bool)
    for _ in range(x.shape[-1]):
        grown = capped | (capped_value(x, upper, capped) > upper)
        if not bool(xp.any(grown & ~capped)):
            break
        capped = grown
    return capped


def capped_value(x: Array, upper: Array, capped: Array) -> Array:
    """Constrained softmax from its capped entries, differentiable by any framework."""
    xp = array_api_compat.array_namespace(x)
    scores = xp.where(capped, xp.full_like(x, -xp.inf), x)
    top = xp.max(scores, axis=-1, keepdims=True)
    weights = xp.exp(scores - xp.where(xp.isinf(top), xp.zeros_like(top), top))
    rest = 1.0 - xp.sum(xp.where(capped, upper, xp.zeros_like(x)), axis=-1, keepdims=True)
    return xp.where(capped, upper, rest * _normalized(xp, weights))
