"""Entropic optimal transport in the log domain: Sinkhorn's sweeps with Newton's steps, on any array-API namespace.

    z = argmax { ⟨x, z⟩ − Σ z log z : z 1 = a, zᵀ1 = b, z ≥ 0 } = exp(x + f ⊕ g)

The state is the matrix L = x + f ⊕ g alone, rows always normalized (logsumexp_j L_ij = log a_i). Eliminating f so
leaves the concave semi-dual in g, with gradient r = b − zᵀ1 and Hessian −S, the Laplacian of `polytope.laplacian`. Its
third derivative is bounded by |D³[h, h, v]| ≤ range(v) · D²[h, h], so that the part ln(1 + d)/d of
Newton's step, d its range, always ascends and tends to the full step: no line search, quadratic convergence
(Sun & Tran-Dinh 2019, with ν = 2).

Where the scores' range is moderate and Sinkhorn's scalings of exp(x) contract fast, they come first: such a sweep costs
two products with a matrix, no exponentials and no factorization. P. Knight 2008 (their linear convergence).

Large scores (small temperatures) are reached by continuation: x/σ is solved for σ from the range of x down to 1. As L
holds the potentials, the change of σ is a multiplication of L, whose rounding stays relative to each entry: marginals
come out exact to rounding at any temperature. P. Knight & D. Ruiz 2013 (Newton for scaling); B. Schmitzer 2019 (the
continuation).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from cvxift._types import Array, namespace
from cvxift.argmax.loops import Loop, while_loop
from cvxift.argmax.polytope import laplacian, solve_laplacian

MAX_ITERATIONS = 500
SHRINK = 4.0  # factor of one step of the continuation
START = 8.0  # range of scores that needs none
BLOCK = 4  # scalings between two looks at the gap
FAST = 0.5  # what a block must multiply the gap by: else Newton's method costs less
NEAR = 1e-3  # gap from which Newton's method converges at once


class Plan(NamedTuple):
    """A transport plan and how well it was found."""

    z: Array  # (..., n, m)
    error: Array  # (...,) Σ_j |Σ_i z_ij − b_j| / Σ b, the rows being exact to rounding; inf before σ has come to 1
    iterations: Array  # () iterations taken
    level: Array  # (..., n, m) x + f ⊕ g; −inf where an entry is forbidden or without mass


def sinkhorn(
    x: Array,
    a: Array,
    b: Array,
    tol: float | None = None,
    max_iterations: int = MAX_ITERATIONS,
    loop: Loop = while_loop,
) -> Plan:
    """Entropic transport plan between the masses a and b.

    Args:
        x: scores over temperature, (..., n, m), float32 or float64; −∞ forbids an entry.
        a: row masses ≥ 0, (..., n).
        b: column masses ≥ 0, (..., m), of the same total.
        tol: bound on the plan's ``error``; None for 64 roundings of the dtype, the least that can be asked for.
        max_iterations: sweeps, each with one Newton step.
        loop: how to iterate, see `control`.

    Returns:
        The plan, its error and the number of iterations; look at the error: what does not converge (as where no plan
        exists within the allowed entries) is returned as it stands.

    Source: Cuturi 2013 (the problem); Knight & Ruiz 2013 (Newton).

    Example:
        >>> import numpy as np
        >>> half = np.array([0.5, 0.5])
        >>> plan = sinkhorn(np.array([[1.0, 0.0], [0.0, 1.0]]), half, half)
        >>> plan.z.round(4), bool(plan.error < 1e-14)
        (array([[0.3655, 0.1345],
               [0.1345, 0.3655]]), True)
    """
    xp = namespace(x, a, b)
    if x.shape[-1] > x.shape[-2]:  # the Laplacian is of the smaller side
        plan = sinkhorn(x.mT, b, a, tol, max_iterations, loop)
        return Plan(plan.z.mT, plan.error, plan.iterations, plan.level.mT)
    least = 64 * float(xp.finfo(x.dtype).eps)
    tol = least if tol is None else max(tol, least)
    total = _positive_or_one(xp, xp.sum(b, axis=-1))
    b = b * (xp.sum(a, axis=-1) / total)[..., None]  # equal but for rounding

    rows, columns = _log(xp, a), _log(xp, b)
    opened = ~xp.isinf(x) & (a > 0)[..., :, None] & (b > 0)[..., None, :]
    L = xp.where(opened, x, xp.full_like(x, -xp.inf))
    L = L - _finite(xp, xp.max(L, axis=-1, keepdims=True))
    spread = -xp.min(xp.where(opened, L, xp.zeros_like(L)), axis=(-2, -1))
    sigma = xp.clip(spread / START, min=1.0)
    # Potentials may be as large as the range of the scores on either side; their exponentials must be normal numbers.
    moderate = spread <= -0.4 * math.log(float(xp.finfo(x.dtype).smallest_normal))
    scaled, gap, blocks = _scale(xp, L, a, b, moderate, tol, max_iterations, loop)
    close = moderate & (gap <= NEAR)
    L = xp.where(close[..., None, None], scaled, _normalize(xp, L / sigma[..., None, None], rows, -1))
    sigma = xp.where(close, xp.ones_like(sigma), sigma)

    def gap_of(L: Array) -> Array:
        return xp.sum(xp.abs(b - xp.sum(xp.exp(L), axis=-2)), axis=-1) / total

    def sweep(L: Array, sigma: Array, done: Array) -> tuple[Array, Array, Array]:
        new = _normalize(xp, _normalize(xp, L, columns, -2), rows, -1)
        z = xp.exp(new)
        rest = b - xp.sum(z, axis=-2)
        dg = solve_laplacian(laplacian(z), xp.sum(z, axis=-2), rest)
        width = xp.max(dg, axis=-1, keepdims=True) - xp.min(dg, axis=-1, keepdims=True)
        damped = xp.where(width > 1e-3, xp.log1p(width) / _positive_or_one(xp, width), 1.0 - 0.5 * width)
        new = _normalize(xp, new + (damped * dg)[..., None, :], rows, -1)
        gap = gap_of(new)
        # Near the path of σ, also where little mass tells so, go on along it; at its end the gap is the plan's error.
        near = ((gap < NEAR) & (width[..., 0] < 1.0)) | (gap <= least)
        return new, gap, near

    error = xp.where(close, gap_of(L), xp.inf * sigma)
    left = max_iterations - blocks
    L, error, count = continued(sweep, lambda L: _normalize(xp, L, rows, -1), L, sigma, tol, left, loop, error)
    return Plan(xp.exp(L), error, blocks + count, L)


def _scale(
    xp: Any, L: Array, a: Array, b: Array, allowed: Array, tol: float, limit: int, loop: Loop
) -> tuple[Array, Array, Array]:
    """Sinkhorn's scalings of exp(L) by u and v, in blocks, while the gap falls fast.

    Args:
        xp: the namespace.
        L: scores, (..., n, m).
        a: row masses, (..., n).
        b: column masses, (..., m).
        allowed: whether an instance's exponentials are normal numbers, (...).
        tol: gap to stop at.
        limit: largest number of blocks.
        loop: how to iterate.

    Returns:
        L + log u ⊕ log v, whose rows sum to a; the gap that was seen last, and the number of blocks.
    """
    K = xp.exp(xp.where(allowed[..., None, None], L, xp.zeros_like(L)))
    # Lines without mass have no entries: their sums are zero, and so are their factors.
    no_row, no_column = (xp.astype(masses <= 0, L.dtype) for masses in (a, b))
    total = _positive_or_one(xp, xp.sum(a, axis=-1))

    def running(state: tuple[Array, ...]) -> Array:
        *_, going, count = state
        return xp.any(going) & (count < limit)

    def block(state: tuple[Array, ...]) -> tuple[Array, ...]:
        v, sums, gap, going, count = state
        new, own, u = v, sums, a
        for _ in range(BLOCK):
            u = a / (own + no_row)
            new = b / ((u[..., None, :] @ K)[..., 0, :] + no_column)
            own = (K @ new[..., None])[..., 0]
        left = xp.sum(xp.abs(u * own - a), axis=-1) / total
        on = going[..., None]
        fell = left <= FAST * gap
        return (
            xp.where(on, new, v),
            xp.where(on, own, sums),
            xp.where(going, left, gap),
            going & (left > tol) & fell,
            count + 1,
        )

    v = xp.ones_like(b)
    count = xp.zeros_like(total[(0,) * total.ndim])
    v, sums, gap, _, count = loop(running, block, (v, xp.sum(K, axis=-1), xp.inf * total, allowed, count))
    factors = (_log(xp, a / (sums + no_row))[..., :, None], _log(xp, v)[..., None, :])
    return L + sum(map(partial(_finite, xp), factors)), gap, count


def continued(
    sweep: Callable[[Array, Array, Array], tuple[Array, Array, Array]],
    settle: Callable[[Array], Array],
    L: Array,
    sigma: Array,
    tol: float | Array,
    max_iterations: int,
    loop: Loop,
    error: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Sweep while σ comes down to 1; instances within the tolerance stay as they are.

    Args:
        sweep: (L, σ, done) ↦ a better L at the same σ, its gap, and whether it is near enough to the path to go on.
        settle: makes an L of another scale fit the row masses.
        L: the start at σ, (..., n, m), or potentials that scale as it does, (..., 1, m).
        sigma: ≥ 1, (...,).
        tol: gap at σ = 1 to stop at, one or one for each instance.
        max_iterations: largest number of sweeps.
        loop: how to iterate, see `control`.
        error: the start's gap where it is known, infinite elsewhere, (...,); None if it is not known at all.

    Returns:
        L, its gap (...,), infinite before σ has come to 1, and the number of sweeps.
    """
    xp = namespace(L)

    def running(state: tuple[Array, ...]) -> Array:
        _, _, error, count = state
        return xp.any(error > tol) & (count < max_iterations)

    def iterate(state: tuple[Array, ...]) -> tuple[Array, ...]:
        L, sigma, error, count = state
        done = error <= tol
        new, gap, near = sweep(L, sigma, done)
        factor = xp.where(near, xp.clip(sigma, max=SHRINK), xp.ones_like(sigma))
        final = sigma == 1.0
        new = settle(new * factor[..., None, None])
        return (
            xp.where(done[..., None, None], L, new),
            xp.where(done, sigma, xp.where(factor == sigma, xp.ones_like(sigma), sigma / factor)),
            xp.where(done, error, xp.where(final, gap, xp.full_like(gap, xp.inf))),
            count + 1,
        )

    error = xp.full_like(sigma, xp.inf) if error is None else error
    start = (L, sigma, error, xp.zeros_like(sigma[(0,) * sigma.ndim]))
    L, _, error, count = loop(running, iterate, start)
    return L, error, count


def _normalize(xp: Any, L: Array, masses: Array, axis: int) -> Array:
    """Shift the lines of L along ``axis`` so that their exponentials sum to the masses, given by their logarithms."""
    top = _finite(xp, xp.max(L, axis=axis, keepdims=True))
    total = xp.sum(xp.exp(L - top), axis=axis, keepdims=True)
    shift = xp.expand_dims(masses, axis=axis) - xp.log(_positive_or_one(xp, total))
    return (L - top) + _finite(xp, shift)


def _log(xp: Any, masses: Array) -> Array:
    return xp.where(masses > 0, xp.log(_positive_or_one(xp, masses)), xp.full_like(masses, -xp.inf))


def _positive_or_one(xp: Any, x: Array) -> Array:
    return xp.where(x > 0, x, xp.ones_like(x))


def _finite(xp: Any, x: Array) -> Array:
    return xp.where(xp.isinf(x), xp.zeros_like(x), x)
