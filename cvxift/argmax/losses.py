"""Fenchel–Young losses of α-entmax along the last axis, from the prediction; on any array-API namespace.

    L(θ; y) = Ω*(θ) + Ω(y) − ⟨θ, y⟩ = ⟨θ, z − y⟩ + Ω(y) − Ω(z),   z = argmax ⟨θ, z⟩ − Ω(z)
    ∂L/∂θ = z − y,   ∂L/∂α = ∂Ω_α(y)/∂α − ∂Ω_α(z)/∂α              (envelope theorem: z counts as constant)

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
        Losses ≥ 0 up to rounding, (...).

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
    linear = xp.where(z > 0, d, nothing) * z - xp.where(y > 0, d, nothing) * y
    gap = tsallis.entropy(y, alpha) - tsallis.entropy(z, alpha)
    return xp.sum(linear, axis=-1) + gap[..., 0]


def order_derivative(y: Array, z: Array, alpha: tsallis.Order) -> Array:
    """∂L/∂α, (..., 1)."""
    return tsallis.entropy_order_derivative(y, alpha) - tsallis.entropy_order_derivative(z, alpha)
