"""Quadratically regularized transport by a primal-dual interior-point method, on any array-API namespace.

    z − w = L = x + f ⊕ g,   z 1 = a,   zᵀ1 = b,   z ∘ w = μ → 0,   z, w > 0

It needs some tens of steps whatever the masses and the scores are, and comes near the solution, not to rounding: it is
the start from which the semismooth Newton method, which may go astray among the supports, has two or three to make.
Newton's step here has the weights s = z/(z + w), between 0 and 1, in place of the support, and costs the same system;
Mehrotra's predictor chooses the target of μ. S. Mehrotra 1992.
"""

from __future__ import annotations

from typing import Any

from cvxift._types import Array
from cvxift.argmax.loops import Loop, repeat
from cvxift.argmax.polytope import fit, potentials

LIMIT = 80  # of steps
ENOUGH = 1e-24  # of z ∘ w, relative to the start


def approach(xp: Any, L: Array, a: Array, b: Array, opened: Array, limit: Any, loop: Loop) -> tuple[Array, Array]:
    """Potentials of the columns near the solution's.

    Args:
        xp: the namespace.
        L: scores plus any potentials, (..., n, m).
        a: row masses, (..., n).
        b: column masses of the same total, (..., m).
        opened: entries that may have mass, boolean, (..., n, m).
        limit: number of steps, at most, an integer or ().
        loop: how to iterate, see `control`.

    Returns:
        g, (..., 1, m), and the number of steps, ().
    """
    free = xp.astype(opened, L.dtype)
    number = xp.clip(xp.sum(free, axis=(-2, -1)), min=1.0)
    nothing, one = xp.zeros_like(L), xp.ones_like(L)
    held = xp.where(opened, L, nothing)
    spread = (xp.max(held, axis=(-2, -1)) - xp.min(held, axis=(-2, -1)))[..., None, None]
    mean = (xp.sum(b, axis=-1) / number)[..., None, None]
    mean = xp.where(mean > 0, mean, xp.ones_like(mean))

    def average(x: Array) -> Array:
        return xp.sum(free * x, axis=(-2, -1)) / number

    def longest(x: Array, dx: Array) -> Array:
        """The step at which the first entry comes to 0, at most 1."""
        falls = opened & (dx < 0)
        ratio = xp.where(falls, -x / xp.where(falls, dx, -one), one)
        return xp.clip(xp.min(ratio, axis=(-2, -1)), max=1.0)[..., None, None]

    def running(state: tuple[Array, ...]) -> Array:
        *_, finished, count = state
        return xp.any(~finished) & (count < limit) & (count < LIMIT)

    def iterate(state: tuple[Array, ...]) -> tuple[Array, ...]:
        L, z, w, first, finished, count = state
        s = free * z / (z + w)
        dual = z - w - L
        da, db = a - xp.sum(free * z, axis=-1), b - xp.sum(free * z, axis=-2)

        def direction(product: Array) -> tuple[Array, Array, Array]:
            """(dL, dz, dw) towards z ∘ w = product, to first order."""
            e = (product - z * w) / z - dual
            f, g = potentials(s, da - xp.sum(s * e, axis=-1), db - xp.sum(s * e, axis=-2), loop)
            dL = f[..., :, None] + g[..., None, :]
            dz = s * (dL + e)
            return dL, dz, (product - z * w - w * dz) / z

        mu = average(z * w)

        def predict(state: tuple[Array, ...]) -> tuple[Array, ...]:
            """A direction, and the product that the next one is towards."""
            dL, dz, dw = direction(state[0])
            ahead = average((z + longest(z, dz) * dz) * (w + longest(w, dw) * dw))
            target = (xp.clip(ahead / mu, max=1.0) ** 3 * mu)[..., None, None]
            return target - dz * dw, dL, dz, dw

        _, dL, dz, dw = repeat(2, predict, (nothing, nothing, nothing, nothing), loop)
        step = 0.995 * xp.minimum(longest(z, dz), longest(w, dw))
        new = (L + step * dL, z + step * dz, w + step * dw)
        finite = xp.all(xp.isfinite(new[0] + new[1] + new[2]) | ~opened, axis=(-2, -1))
        finished = finished | ~finite | (mu <= ENOUGH * first)
        stay = finished[..., None, None] | ~opened
        kept = tuple(xp.where(stay, old, now) for old, now in zip(state[:3], new))
        return *kept, first, finished, count + 1

    z, w = mean * one, (spread + mean) * one
    start = (held, z, w, average(z * w), ~xp.any(opened, axis=(-2, -1)), 0)
    found, *_, count = loop(running, iterate, start)
    # Parts with next to no weight between them have large potentials, whose rounding must not stay in L.
    _, g = fit(free, xp.where(opened, found - L, nothing), loop)
    return g[..., None, :], count
