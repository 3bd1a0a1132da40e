"""Fenchel–Young losses of α-entmax along the last axis, from the prediction; on any array-API namespace.

    L(θ; y) = Ω*(θ) + Ω(y) − ⟨θ, y⟩ = ⟨θ, z − y⟩ + Ω(y) − Ω(z),   z = argmax ⟨θ, z⟩ − Ω(z)
    ∂L/∂θ = z − y,   ∂L/∂α = ∂Ω_α(y)/∂α − ∂Ω_α(z)/∂α              (envelope theorem: z counts as constant)

The differences would cancel where y is near z. As Σ y = Σ z, any threshold τ may be taken from θ, and with z's own
the loss is a sum over the entries of D(y, z) = ω(y) − ω(z) − ω′(z)(y − z) ≥ 0, the Bregman divergence of ω = Σ ω(z_i),
and of y_i times how far θ_i − τ lies below ω′(0) where z_i = 0:

    Shannon  D = z − y − y log(z/y)     Gini  D = ½(y − z)²     α = 1.5  D = ⅔(√y − √z)²(2√y + √z)

Blondel, Martins, Niculae 2020, Definition 2 and Proposition 2.
"""

from __future__ import annotations

from typing import Any

import array_api_compat

from cvxift.argmax import tsallis

Array = Any


def fenchel_young(theta: Array, y: Array, z: Array, alpha: tsallis.Order) -> Array:
    """The loss of scores θ at target y, given the prediction z = entmax(θ, α).

    Args:
        theta: scores, (..., n); −∞ masks: it carries no weight, and a target on it costs +∞.
        y: targets, (..., n), with the same sums as z.
        z: predictions, (..., n).
        alpha: order ≥ 1, a float or an array (..., 1).

    Returns:
        Losses ≥ 0, (...).

    Example:
        >>> import numpy as np
        >>> float(fenchel_young(np.zeros(2), np.array([1.0, 0.0]), np.array([0.5, 0.5]), 1.0).round(6))
        0.693147
    """
    xp = array_api_compat.array_namespace(theta)
    nothing = xp.zeros_like(theta)
    # Measured from the rows' maxima, which change nothing: large scores would cancel to little.
    top = xp.max(theta, axis=-1, keepdims=True) if theta.shape[-1] else xp.zeros_like(theta[..., :0])
    d = theta - xp.where(top == -xp.inf, xp.zeros_like(top), top) if theta.shape[-1] else theta
    if isinstance(alpha, float) and alpha in (1.0, 1.5, 2.0) and theta.shape[-1]:
        return xp.sum(terms(xp, d, y, z, alpha), axis=-1)
    linear = xp.where(z > 0, d, nothing) * z - xp.where(y > 0, d, nothing) * y
    gap = tsallis.entropy(y, alpha) - tsallis.entropy(z, alpha)
    value = xp.sum(linear, axis=-1) + gap[..., 0]
    return xp.where(value < 0, xp.zeros_like(value), value)


def terms(xp: Any, d: Array, y: Array, z: Array, alpha: float) -> Array:
    """The loss' terms from scores d less their maximum, whose entry's z fixes the threshold; each ≥ 0."""
    if alpha == 1.0:
        log = d - xp.log(xp.sum(xp.exp(d), axis=-1, keepdims=True))
        return kullback_leibler(xp, y, z, log)
    most = xp.max(z, axis=-1, keepdims=True)
    if alpha == 2.0:
        apart, below = 0.5 * (y - z) ** 2, d + most
    else:
        p, q = xp.sqrt(z), xp.sqrt(y)
        apart, below = (p - q) ** 2 * (p + 2.0 * q) * (2 / 3), d + 2.0 * xp.sqrt(most)
    return apart - xp.where((y > 0) & (below < 0), below, xp.zeros_like(d)) * y


def kullback_leibler(xp: Any, y: Array, z: Array, log: Array) -> Array:
    """The terms y log(y/z) − y + z ≥ 0 of a divergence, given log z, which may be finite where z is 0 to rounding."""
    some = y > 0
    t = xp.where(some, log - xp.log(xp.where(some, y, xp.ones_like(y))), xp.zeros_like(y))
    return xp.where(some, y * (xp.expm1(t) - t), z)


def order_derivative(y: Array, z: Array, alpha: tsallis.Order) -> Array:
    """∂L/∂α, (..., 1)."""
    return tsallis.entropy_order_derivative(y, alpha) - tsallis.entropy_order_derivative(z, alpha)
