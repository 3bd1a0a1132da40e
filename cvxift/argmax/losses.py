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

from cvxift._types import Array
from cvxift.argmax import tsallis
from cvxift.argmax.groups import ROWS, Groups
from cvxift.errors import ProgramError

OFF = 2.0**-7  # by which a target's sum may differ from the prediction's: one rounding of bfloat16


def fenchel_young(theta: Array, y: Array, z: Array, alpha: tsallis.Order, groups: Groups = ROWS) -> Array:
    """The loss of scores θ at target y, given the prediction z = entmax(θ, α).

    Args:
        theta: scores, (..., n); −∞ masks: it carries no weight, and a target on it costs +∞.
        y: targets, (..., n), with the same sums as z.
        z: predictions, (..., n).
        alpha: order ≥ 1, a float or an array of one for each group.
        groups: of entries, rows if nothing else is said.

    Returns:
        Losses ≥ 0, one for each group: (..., 1) for rows.

    Example:
        >>> import numpy as np
        >>> fenchel_young(np.zeros(2), np.array([1.0, 0.0]), np.array([0.5, 0.5]), 1.0).round(6)
        array([0.693147])
    """
    xp = array_api_compat.array_namespace(theta)
    nothing = xp.zeros_like(theta)
    # Measured from the groups' maxima, which change nothing: large scores would cancel to little.
    if not theta.shape[-1]:
        return groups.sum(theta)
    top = groups.max(theta)
    d = theta - groups.spread(xp.where(top == -xp.inf, xp.zeros_like(top), top))
    if isinstance(alpha, float) and alpha in (1.0, 1.5, 2.0):
        return groups.sum(terms(xp, d, y, z, alpha, groups))
    linear = xp.where(z > 0, d, nothing) * z - xp.where(y > 0, d, nothing) * y
    value = groups.sum(linear) + tsallis.entropy(y, alpha, groups) - tsallis.entropy(z, alpha, groups)
    return xp.where(value < 0, xp.zeros_like(value), value)


def off_simplex(xp: Any, theta: Array, y: Array, groups: Groups = ROWS) -> Array:
    """Groups whose target is no distribution: the loss, which takes its sum for z's, would not have the gradient z − y.

    Args:
        xp: the namespace.
        theta: scores, (..., n); where all of a group are −∞, or it is empty, the target must be zero.
        y: targets, (..., n).
        groups: of entries.
    """
    mass = xp.astype(groups.max(theta) > -xp.inf, y.dtype)
    return ~(xp.abs(groups.sum(y) - mass) <= OFF) | (groups.max(-y) > OFF)


def check_targets(theta: Array, y: Array, groups: Groups = ROWS) -> None:
    """Refuse targets that are no distributions; see `off_simplex`."""
    xp = array_api_compat.array_namespace(theta, y)
    if bool(xp.any(off_simplex(xp, theta, y, groups))):
        raise ProgramError(
            "fenchel_young_loss got targets that are no distributions: they must be ≥ 0 and sum to 1, and be 0 where"
            " all scores are masked. Normalize them; for targets of another sum see argmax_loss."
        )


def terms(xp: Any, d: Array, y: Array, z: Array, alpha: float, groups: Groups = ROWS) -> Array:
    """The loss' terms from scores d less their maximum, whose entry's z fixes the threshold; each ≥ 0."""
    if alpha == 1.0:
        log = d - xp.log(groups.spread(groups.sum(xp.exp(d))))
        return kullback_leibler(xp, y, z, log)
    most = groups.spread(groups.max(z))
    if alpha == 2.0:
        apart, below = 0.5 * (y - z) ** 2, d + most
    else:
        p, q = xp.sqrt(z), xp.sqrt(y)
        apart, below = (p - q) ** 2 * (p + 2.0 * q) * (2 / 3), d + 2.0 * xp.sqrt(most)
    return apart - xp.where((y > 0) & (below < 0), below, xp.zeros_like(d)) * y


def kullback_leibler(xp: Any, y: Array, z: Array, log: Array) -> Array:
    """The terms y log(y/z) − y + z ≥ 0 of a divergence, given log z, which may be finite where z is 0 to rounding."""
    some = ~(y <= 0)  # or NaN
    t = xp.where(some, log - xp.log(xp.where(some, y, xp.ones_like(y))), xp.zeros_like(y))
    return xp.where(some, y * (xp.expm1(t) - t), z)


def order_derivative(y: Array, z: Array, alpha: tsallis.Order, groups: Groups = ROWS) -> Array:
    """∂L/∂α, one for each group."""
    return tsallis.entropy_order_derivative(y, alpha, groups) - tsallis.entropy_order_derivative(z, alpha, groups)
