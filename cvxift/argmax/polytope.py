"""Derivatives of the argmax over a transport polytope, from its value alone; on any array-API namespace.

With the entropic regularizer z = exp(x + f ⊕ g), with the quadratic one z = [x + f ⊕ g]_+. Both have

    dz = s ∘ (dx + df ⊕ dg),   s = z (entropic) or 1{z > 0} (quadratic),   dz 1 = da,  dzᵀ1 = db,

so that (−df, −dg) for fixed masses is the weighted least-squares fit of dx by row plus column terms. The map x ↦ z has
a symmetric Jacobian, hence the same fit (u, v) of a cotangent z̄ gives all products of it with the transposed Jacobian:

    x̄ = s ∘ (z̄ − u ⊕ v),   ā = u,   b̄ = v.

Masses vary with equal totals, so (ā, b̄) is fixed up to (c, −c); we give the one of least norm. The fit comes from the
Laplacian of the weighted bipartite graph s, one side eliminated: memory O(nm), one solve of order min(n, m).
"""

from __future__ import annotations

from typing import Any

import array_api_compat

from cvxift._types import Array
from cvxift.argmax.loops import Loop, repeat, while_loop
from cvxift.argmax.losses import kullback_leibler


def laplacian(s: Array) -> Array:
    """diag(sᵀ1) − sᵀ diag(s1)⁻¹ s for weights s ≥ 0, (..., n, m): the graph's Laplacian with its rows eliminated.

    Its diagonal is computed as the sum of the other entries, none of which suffers cancellation.
    """
    xp = array_api_compat.array_namespace(s)
    rows = xp.sum(s, axis=-1, keepdims=True)
    joint = s.mT @ (s / _nonzero(xp, rows))
    off = joint * (1.0 - _eye(xp, s))
    return _diagonal(xp, xp.sum(off, axis=-1)) - off


def solve_laplacian(S: Array, weights: Array, r: Array, shift: Array | None = None) -> Array:
    """A solution v of S v = r, r summing to zero on every connected part of the graph.

    Args:
        S: Laplacian, (..., m, m).
        weights: sᵀ1, (..., m), which scale the system; where zero, v is zero.
        r: right-hand side, (..., m).
        shift: relative to the weights, what is added to the diagonal, (...); None for a few roundings.

    Returns:
        v with Σ weights v = 0. Parts joined by weights below rounding are held by the shift: it moves them against each
        other, which s ∘ (u ⊕ v) does not see.
    """
    xp = array_api_compat.array_namespace(S, weights, r)
    empty = weights <= 0
    root = xp.sqrt(xp.where(empty, xp.ones_like(weights), weights))
    held = xp.where(empty, xp.zeros_like(root), root)
    ground = (
        held[..., :, None] * held[..., None, :] / xp.sum(xp.where(empty, 1e-300, weights), axis=-1)[..., None, None]
    )
    scaled = S / (root[..., :, None] * root[..., None, :]) + ground
    least = 16 * float(xp.finfo(S.dtype).eps)
    added = least * xp.ones_like(weights) + (0.0 if shift is None else shift[..., None])
    scaled = scaled + _diagonal(xp, xp.where(empty, xp.ones_like(weights), added))
    right = xp.where(empty, xp.zeros_like(r), r) / root
    return xp.linalg.solve(scaled, right[..., None])[..., 0] / root


def fit(s: Array, w: Array, loop: Loop = while_loop) -> tuple[Array, Array]:
    """Row and column terms (u, v) that minimize Σ s_ij (w_ij − u_i − v_j)², weights s ≥ 0.

    Args:
        s: weights, (..., n, m).
        w: what is fitted, (..., n, m).
        loop: how to iterate; Python's can be differentiated.

    Returns:
        u (..., n) and v (..., m), zero for lines without weight, otherwise with Σ u = Σ v.
    """
    xp = array_api_compat.array_namespace(s, w)
    if s.shape[-1] > s.shape[-2]:
        v, u = fit(s.mT, w.mT, loop)
        return u, v
    rows, columns = xp.sum(s, axis=-1), xp.sum(s, axis=-2)
    S = laplacian(s)

    def solve(state: tuple[Array, ...]) -> tuple[Array, ...]:
        u, v = state
        rest = w - u[..., :, None] - v[..., None, :]
        mean = xp.sum(s * rest, axis=-1) / _nonzero(xp, rows)
        dv = solve_laplacian(S, columns, xp.sum(s * (rest - mean[..., None]), axis=-2))
        du = mean - (s @ dv[..., None])[..., 0] / _nonzero(xp, rows)
        return u + du, v + dv

    # The second time is iterative refinement.
    u, v = repeat(2, solve, (xp.zeros_like(rows), xp.zeros_like(columns)), loop)
    return _balanced(xp, u, v, rows > 0, columns > 0)


def loss(regularizer: str, y: Array, z: Array, level: Array) -> Array:
    """Fenchel–Young loss of a plan y at scores x whose plan between the same masses is z, (...).

    ⟨x, z − y⟩ + Ω(y) − Ω(z), where level = x + f ⊕ g may take the place of x: a divergence of the entries, each ≥ 0.

    Args:
        regularizer: Ω, ``"entropic"`` or ``"quadratic"``.
        y: the target, (..., n, m).
        z: the plan.
        level: x + f ⊕ g, log z (entropic), or z in its positive part (quadratic).
    """
    xp = array_api_compat.array_namespace(y, z, level)
    if regularizer == "entropic":
        terms = kullback_leibler(xp, y, z, level)
    else:
        below = (y > 0) & (level < 0)
        terms = 0.5 * (z - y) ** 2 - xp.where(below, level, xp.zeros_like(y)) * y
    return xp.sum(terms, axis=(-2, -1))


def pullback(s: Array, bar: Array) -> tuple[Array, Array, Array]:
    """Products of a cotangent of z with the transposed Jacobian: (x̄, ā, b̄), see the module."""
    xp = array_api_compat.array_namespace(s, bar)
    still, nothing = s == 0, xp.zeros_like(s)
    bar = xp.where(still, nothing, bar)  # what does not move counts for nothing, be it −∞ or NaN
    u, v = fit(s, bar)
    return xp.where(still, nothing, s * (bar - u[..., :, None] - v[..., None, :])), u, v


def pushforward(s: Array, dx: Array, da: Array, db: Array) -> Array:
    """Derivative of z in the direction (dx, da, db); of the masses' only the part that keeps their totals equal."""
    xp = array_api_compat.array_namespace(s, dx)
    u, v = fit(s, dx)
    dz = s * (dx - u[..., :, None] - v[..., None, :])
    rows, columns = xp.sum(s, axis=-1), xp.sum(s, axis=-2)
    number = _count(xp, rows) + _count(xp, columns)
    surplus = (xp.sum(da * (rows > 0), axis=-1) - xp.sum(db * (columns > 0), axis=-1)) / _nonzero(xp, number)
    da = xp.where(rows > 0, da - surplus[..., None], xp.zeros_like(da))
    db = xp.where(columns > 0, db + surplus[..., None], xp.zeros_like(db))
    f, g = potentials(s, da, db)
    return dz + s * (f[..., :, None] + g[..., None, :])


def potentials(s: Array, da: Array, db: Array, loop: Loop = while_loop) -> tuple[Array, Array]:
    """(f, g) for which s ∘ (f ⊕ g) has row sums da and column sums db of equal totals, weights s ≥ 0."""
    xp = array_api_compat.array_namespace(s, da, db)
    if s.shape[-1] > s.shape[-2]:
        g, f = potentials(s.mT, db, da, loop)
        return f, g
    rows, columns = xp.sum(s, axis=-1), xp.sum(s, axis=-2)
    S = laplacian(s)

    def solve(state: tuple[Array, ...]) -> tuple[Array, ...]:
        f, g, da, db = state
        own = da / _nonzero(xp, rows)
        dg = solve_laplacian(S, columns, db - (s.mT @ own[..., None])[..., 0])
        df = own - (s @ dg[..., None])[..., 0] / _nonzero(xp, rows)
        dz = s * (df[..., :, None] + dg[..., None, :])
        return f + df, g + dg, da - xp.sum(dz, axis=-1), db - xp.sum(dz, axis=-2)

    return repeat(2, solve, (xp.zeros_like(da), xp.zeros_like(db), da, db), loop)[:2]


def _balanced(xp: Any, u: Array, v: Array, rows: Array, columns: Array) -> tuple[Array, Array]:
    u, v = xp.where(rows, u, xp.zeros_like(u)), xp.where(columns, v, xp.zeros_like(v))
    number = _nonzero(xp, _count(xp, xp.astype(rows, u.dtype)) + _count(xp, xp.astype(columns, v.dtype)))
    c = ((xp.sum(v, axis=-1) - xp.sum(u, axis=-1)) / number)[..., None]
    return xp.where(rows, u + c, u), xp.where(columns, v - c, v)


def _count(xp: Any, weights: Array) -> Array:
    return xp.sum(xp.astype(weights > 0, weights.dtype), axis=-1)


def _nonzero(xp: Any, x: Array) -> Array:
    return xp.where(x > 0, x, xp.ones_like(x))


def _eye(xp: Any, like: Array) -> Array:
    """The identity of the last axis' length, on the array's own device and in its dtype."""
    index = xp.cumulative_sum(xp.ones_like(like[(0,) * (like.ndim - 1)]), axis=0)
    return xp.astype(index[:, None] == index[None, :], like.dtype)


def _diagonal(xp: Any, entries: Array) -> Array:
    return entries[..., :, None] * _eye(xp, entries)
