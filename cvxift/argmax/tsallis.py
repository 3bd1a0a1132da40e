"""Tsallis' exponential, logarithm and entropy of order α, and the derivatives of the argmax that they define.

    e_ε(v) = [1 + ε v]_+^{1/ε},   log_ε(F) = (1 − F^{−ε})/ε,   ε = α − 1;   ε → 0 gives exp and log
    Ω_α(z) = Σ (z^α − z) / (α (α − 1));   α → 1 gives Σ z log z (Shannon), α = 2 is ½ Σ (z² − z) (Gini)

An order is a float ≥ 1, or an array of floats, one for each group of entries: (..., 1) for rows.
"""

from __future__ import annotations

import math
from typing import Any

import array_api_compat

from cvxift._types import Array
from cvxift.argmax.groups import ROWS, Groups

Order = Any
SMALL = 1e-2  # ε below which 1 + εv would lose digits of v
TERMS = 17  # of a power series in |t| < 1/2


def exponential(xp: Any, scores: Array, c: Array, alpha: Order) -> Array:
    """e_ε(scores − c), exactly 0 where 1 + ε (scores − c) ≤ 0."""
    eps = alpha - 1.0
    if not isinstance(eps, float):
        return value_and_slope(xp, scores, c, eps)[0]
    if eps == 0.0:
        return xp.exp(scores - c)
    t = eps * (scores - c)
    u = at_least(xp, 1.0 + t, 0.0)
    if eps == 1.0:
        return u
    narrow = xp.finfo(u.dtype).bits < 64  # keep the digits of v that 1 + εv loses where z is large
    if eps == 0.5:
        return xp.where(t > -0.5, 1.0 + t * (2.0 + t), u * u) if narrow else u * u
    log = xp.log(_least(xp, u, 0.0))
    if narrow or eps < SMALL:
        log = xp.where(t > -0.5, xp.log1p(xp.clip(t, min=-0.5)), log)
    return xp.where(u <= 0, xp.zeros_like(u), xp.exp(log * (1.0 / eps)))


def sums(xp: Any, scores: Array, c: Array, alpha: Order, groups: Groups = ROWS) -> tuple[Array, Array]:
    """Σ z and Σ z^{2−α} over each group, z = e_ε(scores − c): a function of c and minus its derivative."""
    eps = of_entries(alpha, groups) - 1.0
    z, slope = value_and_slope(xp, scores, groups.spread(c), eps)
    total = groups.sum(z)
    return total, total if slope is z else groups.sum(slope)


def of_entries(alpha: Order, groups: Groups) -> Order:
    """The order of each entry."""
    return alpha if isinstance(alpha, float) else groups.spread(alpha)


def value_and_slope(xp: Any, scores: Array, c: Array, eps: Any) -> tuple[Array, Array]:
    """z and z^{2−α} = z / u, u = 1 + εv; up to quantities that count for nothing in their sums, for speed."""
    if not isinstance(eps, float):
        # An array of orders may hold 1 itself.
        v = scores - c
        safe = xp.where(eps == 0, xp.ones_like(eps), eps)
        u = xp.clip(1.0 + eps * v, min=0.0)
        log = xp.where(eps == 0, v, xp.log1p(xp.clip(safe * v, min=-1 + float(xp.finfo(v.dtype).eps) / 2)) / safe)
        z = xp.where(u <= 0, xp.zeros_like(u), xp.exp(log))
        return z, z / xp.where(u <= 0, xp.ones_like(u), u)
    if eps == 0.0:
        z = xp.exp(scores - c)
        return z, z
    if eps == 1.0:
        u = at_least(xp, scores + (1.0 - c), 0.0)
        return u, _inside(xp, u)
    u = 1.0 + eps * (scores - c)
    if eps == 0.5:
        u = at_least(xp, u, 0.0)
        return u * u, u
    if eps < SMALL:
        t = at_least(xp, eps * (scores - c), -0.9)
        z = xp.exp(xp.log1p(t) * (1.0 / eps))
        return z, z / (1.0 + t)
    if eps < 0.75:
        # Powers of the least number are nothing, but no denormals, which are slow.
        u = _least(xp, u, eps)
        z = xp.exp(xp.log(u) * (1.0 / eps))
        return z, z / u
    inside = _inside(xp, at_least(xp, u, 0.0))
    u = _least(xp, u, 0.0)
    z = xp.exp(xp.log(u) * (1.0 / eps)) * inside
    return z, z / u


def _inside(xp: Any, u: Array) -> Array:
    """1 where u > 0, 0 where u = 0, for u that are sums with numbers around 1."""
    return xp.minimum(u * 2.0**100, _number(xp, u, 1.0))


def at_least(xp: Any, x: Array, bound: float) -> Array:
    """max(x, bound): what `clip` does, without the detours that it takes on tensors."""
    return xp.maximum(x, _number(xp, x, bound))


def _number(xp: Any, like: Array, value: float) -> Array:
    return xp.asarray(value, dtype=like.dtype, device=array_api_compat.device(like))


def _least(xp: Any, u: Array, eps: float) -> Array:
    """u, at least the number whose power 1/ε is just above the smallest normal one."""
    return at_least(xp, u, float(xp.finfo(u.dtype).smallest_normal) ** max(0.95 * eps, 0.0 if eps else 1.0))


def logarithm(xp: Any, F: Array, alpha: Order) -> Array:
    """log_ε(F) for F > 0."""
    eps = alpha - 1.0
    log = xp.log(F)
    if isinstance(eps, float):
        return -xp.expm1(-eps * log) / eps if eps else log
    safe = xp.where(eps == 0, xp.ones_like(eps), eps)
    return xp.where(eps == 0, log, -xp.expm1(-safe * log) / safe)


def derivative(z: Array, dx: Array, alpha: Order, groups: Groups = ROWS) -> Array:
    """Derivative of α-entmax in direction dx, from its value z alone; symmetric, so it is the vector-Jacobian product.

    J = diag(s) − s sᵀ / Σ s,  s_i = z_i^{2−α} on the support (Peters, Niculae, Martins 2019, Proposition 2).
    """
    xp = array_api_compat.array_namespace(z)
    s = support_weights(xp, z, of_entries(alpha, groups))
    return _centred(xp, s, dx, groups)


def _centred(xp: Any, s: Array, direction: Array, groups: Groups) -> Array:
    """s (direction − its mean under s); zero where s is, whatever the direction: −∞ and NaN count for nothing there."""
    still = s == 0
    direction = xp.where(still, xp.zeros_like(s), direction)
    total = groups.sum(s)
    mean = groups.sum(s * direction) / xp.where(total > 0, total, xp.ones_like(total))
    mean = mean + 0.0 * mean  # ±∞ has no finite differences from others: NaN
    return xp.where(still, xp.zeros_like(s), s * (direction - groups.spread(mean)))


def support_weights(xp: Any, z: Array, alpha: Order) -> Array:
    """s = z^{2−α} on the support, 0 outside, NaN where z is."""
    if isinstance(alpha, float) and alpha in (1.0, 2.0):
        return z if alpha == 1.0 else xp.where(z > 0, xp.ones_like(z), 0.0 * z)
    inside = z > 0
    safe = xp.where(inside, z, xp.ones_like(z))
    power = xp.sqrt(safe) if isinstance(alpha, float) and alpha == 1.5 else safe ** (2.0 - alpha)
    return xp.where(inside, power, 0.0 * z)


def order_derivative(z: Array, alpha: Order, groups: Groups = ROWS) -> Array:
    """∂z/∂α of α-entmax, α ≥ 1, from its value z.

    With L = log z: differentiate z^ε = ε (x − c) + 1 on the support; what is constant along the row drops out because
    Σ dz = 0. So dz = s (φ − Σ sφ/Σs),  φ = −L² ψ′(εL),  ψ(t) = (eᵗ − 1)/t, which has no gap at ε = 0
    (Correia, Niculae, Martins 2019, Proposition 1, where it is given for ε > 0 alone).
    """
    xp = array_api_compat.array_namespace(z)
    log = xp.log(xp.where(z > 0, z, xp.ones_like(z)))
    alpha = of_entries(alpha, groups)
    slope = _psi_slope(xp, (alpha - 1.0) * log)
    return _centred(xp, support_weights(xp, z, alpha), -(log**2) * slope, groups)


def entropy(z: Array, alpha: Order, groups: Groups = ROWS) -> Array:
    """Ω_α(z) = Σ (z^α − z)/(α (α − 1)) over each group, z ≥ 0, as z L ψ(εL)/α with L and ψ as above."""
    xp = array_api_compat.array_namespace(z)
    if isinstance(alpha, float) and alpha == 2.0:
        return 0.5 * groups.sum(z * (z - 1.0))
    log = xp.log(xp.where(z > 0, z, xp.ones_like(z)))
    if isinstance(alpha, float) and alpha == 1.0:
        return groups.sum(z * log)
    alpha = of_entries(alpha, groups)
    return groups.sum(z * log * _psi(xp, (alpha - 1.0) * log) / alpha)


def entropy_order_derivative(z: Array, alpha: Order, groups: Groups = ROWS) -> Array:
    """∂Ω_α(z)/∂α = Σ z L (L ψ′(εL) − ψ(εL)/α)/α over each group."""
    xp = array_api_compat.array_namespace(z)
    alpha = of_entries(alpha, groups)
    log = xp.log(xp.where(z > 0, z, xp.ones_like(z)))
    t = (alpha - 1.0) * log
    return groups.sum(z * log * (log * _psi_slope(xp, t) - _psi(xp, t) / alpha) / alpha)


def _psi(xp: Any, t: Array) -> Array:
    """(eᵗ − 1)/t = Σ tᵏ/(k + 1)!."""
    close, far, near = _parted(xp, t)
    series = 0.0 * close
    for k in range(TERMS - 1, -1, -1):
        series = series * close + 1.0 / math.factorial(k + 1)
    return xp.where(near, series, (xp.exp(far) - 1.0) / far)


def _psi_slope(xp: Any, t: Array) -> Array:
    """((t − 1) eᵗ + 1)/t² = Σ (k + 1) tᵏ/(k + 2)!."""
    close, far, near = _parted(xp, t)
    series = 0.0 * close
    for k in range(TERMS - 1, -1, -1):
        series = series * close + (k + 1) / math.factorial(k + 2)
    return xp.where(near, series, ((far - 1.0) * xp.exp(far) + 1.0) / far**2)


def _parted(xp: Any, t: Array) -> tuple[Array, Array, Array]:
    """t where |t| < 1/2, else 0; t elsewhere, else 1; and where which."""
    near = xp.abs(t) < 0.5
    return xp.where(near, t, xp.zeros_like(t)), xp.where(near, xp.ones_like(t), t), near
