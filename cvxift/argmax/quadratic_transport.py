"""Quadratically regularized transport by a semismooth Newton method, on any array-API namespace.

    z = argmax { ⟨x, z⟩ − ½‖z‖² : z 1 = a, zᵀ1 = b, z ≥ 0 } = [x + f ⊕ g]_+

As in `sinkhorn`, f is eliminated: every row of L = x + f ⊕ g is shifted so that its positive part sums to a_i. What
remains is to minimize the convex, piecewise quadratic φ(g) = ½‖[L]_+‖² − ⟨a, f⟩ − ⟨b, g⟩, whose gradient is zᵀ1 − b and
whose generalized Hessian is the Laplacian of the graph of z's support. Newton's step, shifted in proportion to the
gradient as the Laplacian may be singular, is halved until φ falls; a sweep over the columns precedes it. Large scores
are reached by the same continuation. D. Lorenz, P. Manns, C. Meyer 2021.
"""

from __future__ import annotations

from typing import Any

import array_api_compat

from cvxift.argmax.control import Loop, while_loop
from cvxift.argmax.polytope import laplacian, solve_laplacian
from cvxift.argmax.sinkhorn import MAX_ITERATIONS, START, Plan, continued

Array = Any


def quadratic_transport(
    x: Array,
    a: Array,
    b: Array,
    tol: float | None = None,
    max_iterations: int = MAX_ITERATIONS,
    loop: Loop = while_loop,
) -> Plan:
    """Quadratically regularized plan between the masses a and b; sparse (arguments and result as for `sinkhorn`).

    Source: Blondel, Seguy, Rolet 2018; Lorenz, Manns, Meyer 2021.

    Example:
        >>> import numpy as np
        >>> half = np.array([0.5, 0.5])
        >>> quadratic_transport(np.array([[1.0, 0.0], [0.0, 1.0]]), half, half).z
        array([[0.5, 0. ],
               [0. , 0.5]])
    """
    xp = array_api_compat.array_namespace(x, a, b)
    if x.shape[-1] > x.shape[-2]:
        plan = quadratic_transport(xp.matrix_transpose(x), b, a, tol, max_iterations, loop)
        return Plan(xp.matrix_transpose(plan.z), plan.error, plan.iterations, xp.matrix_transpose(plan.level))
    least = 64 * float(xp.finfo(x.dtype).eps)
    tol = least if tol is None else max(tol, least)
    total = xp.sum(b, axis=-1)
    unit = xp.where(total > 0, total, xp.ones_like(total))
    b = b * (xp.sum(a, axis=-1) / unit)[..., None]  # equal but for rounding
    size = xp.max(a, axis=-1)
    size = xp.where(size > 0, size, xp.ones_like(size))

    opened = ~xp.isinf(x) & (a > 0)[..., :, None] & (b > 0)[..., None, :]
    L = xp.where(opened, x, xp.full_like(x, -xp.inf))
    top = xp.max(L, axis=-1, keepdims=True)
    L = L - xp.where(xp.isinf(top), xp.zeros_like(top), top)
    spread = -xp.min(xp.where(opened, L, xp.zeros_like(L)), axis=(-2, -1))
    sigma = xp.clip(spread / (START * size), min=1.0)
    L = _fill(xp, L / sigma[..., None, None], a)

    def sweep(L: Array, done: Array) -> tuple[Array, Array, Array]:
        new = xp.matrix_transpose(_fill(xp, xp.matrix_transpose(L), b))
        new = _fill(xp, new, a)
        z = xp.clip(new, min=0.0)
        s = xp.astype(z > 0, z.dtype)
        rest = b - xp.sum(z, axis=-2)
        before = xp.sum(xp.abs(rest), axis=-1) / unit
        dg = solve_laplacian(laplacian(s), xp.sum(s, axis=-2), rest, 1e-2 * xp.clip(before, max=1.0))
        new = _descend(xp, new, dg, rest, a, done, loop)
        gap = xp.sum(xp.abs(b - xp.sum(xp.clip(new, min=0.0), axis=-2)), axis=-1) / unit
        return new, gap, gap < 1e-3

    L, error, count = continued(sweep, lambda L: _fill(xp, L, a), L, sigma, tol, max_iterations, loop)
    return Plan(xp.clip(L, min=0.0), error, count, L)


def _descend(xp: Any, L: Array, dg: Array, rest: Array, a: Array, done: Array, loop: Loop) -> Array:
    """The longest of the steps 1, ½, ¼, … along dg at which φ still falls: where its slope is not yet positive.

    φ is convex, so a slope ≤ 0 at the end of the step proves descent, without the rounding of differences of φ.
    """
    initial = xp.sum(dg * rest, axis=-1)  # minus the slope at the start

    def moved(step: Array) -> Array:
        return _fill(xp, L + (step[..., None] * dg)[..., None, :], a)

    def overshoots(new: Array) -> Array:
        return xp.sum(dg * xp.sum(xp.clip(new, min=0.0), axis=-2), axis=-1)

    target = initial + overshoots(L)  # Σ dg b

    def too_far(state: tuple[Array, Array]) -> Array:
        step, new = state
        return ~done & (overshoots(new) - target > 0.5 * xp.abs(initial)) & (step > 1e-6)

    def halve(state: tuple[Array, Array]) -> tuple[Array, Array]:
        step, _ = state
        step = xp.where(too_far(state), 0.5 * step, step)
        return step, moved(step)

    first = xp.ones_like(initial)
    _, new = loop(lambda state: xp.any(too_far(state)), halve, (first, moved(first)))
    return new


def _fill(xp: Any, L: Array, masses: Array) -> Array:
    """Shift the rows of L so that their positive parts sum to the masses (rows of −∞ stay)."""
    order = xp.sort(L, axis=-1, descending=True)
    index = xp.ones_like(L[(0,) * (L.ndim - 1)])
    index = xp.cumulative_sum(index, axis=-1)
    heads = xp.cumulative_sum(xp.where(xp.isinf(order), xp.zeros_like(order), order), axis=-1) - masses[..., :, None]
    inside = (index * order > heads) & ~xp.isinf(order)
    number = xp.clip(xp.sum(xp.astype(inside, L.dtype), axis=-1, keepdims=True), min=1.0)
    level = xp.sum(xp.where(inside, order, xp.zeros_like(order)), axis=-1, keepdims=True) - masses[..., :, None]
    level = level / number
    top = order[..., :1]
    top = xp.where(xp.isinf(top), xp.zeros_like(top), top)
    shifted = L - xp.where((masses > 0)[..., :, None], level, top)
    # Once more from zero, where sums of large scores have left a remainder.
    positive = xp.clip(shifted, min=0.0)
    held = xp.astype(positive > 0, L.dtype)
    lack = masses[..., :, None] - xp.sum(positive, axis=-1, keepdims=True)
    return shifted + lack / xp.clip(xp.sum(held, axis=-1, keepdims=True), min=1.0)
