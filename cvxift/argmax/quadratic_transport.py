"""Quadratically regularized transport by a semismooth Newton method, on any array-API namespace.

    z = argmax { ⟨x, z⟩ − ½‖z‖² : z 1 = a, zᵀ1 = b, z ≥ 0 } = [x + f ⊕ g]_+

As in `sinkhorn`, f is eliminated: every row of L = x + f ⊕ g is shifted so that its positive part sums to a_i. What
remains is to minimize the convex, piecewise quadratic φ(g) = ½‖[L]_+‖² − ⟨a, f⟩ − ⟨b, g⟩, whose gradient is zᵀ1 − b and
whose generalized Hessian is the Laplacian of the graph of z's support. Newton's step, shifted in proportion to the
gradient as the Laplacian may be singular, ends near φ's minimum on its ray; a sweep over the columns precedes it. Two
or three such steps are enough from where `interior_transport` ends, whatever the scores and the masses are.
D. Lorenz, P. Manns, C. Meyer 2021.
"""

from __future__ import annotations

from typing import Any

import array_api_compat

from cvxift.argmax.control import Loop, while_loop
from cvxift.argmax.interior_transport import approach
from cvxift.argmax.polytope import laplacian, solve_laplacian
from cvxift.argmax.sinkhorn import MAX_ITERATIONS, Plan, continued

Array = Any
SEARCH = 60  # trials of a step's length


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

    opened = ~xp.isinf(x) & (a > 0)[..., :, None] & (b > 0)[..., None, :]
    L = xp.where(opened, x, xp.full_like(x, -xp.inf))
    top = xp.max(L, axis=-1, keepdims=True)
    L = L - xp.where(xp.isinf(top), xp.zeros_like(top), top)

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

    def settle(L: Array) -> Array:
        return _fill(xp, L, a)

    L, steps = approach(xp, L, a, b, opened, max_iterations, loop)
    one, rest = xp.ones_like(total), max_iterations - steps
    L, error, count = continued(sweep, settle, settle(L), one, tol, rest, loop)
    count = count + steps
    return Plan(xp.clip(L, min=0.0), error, count, L)


def _descend(xp: Any, L: Array, dg: Array, rest: Array, a: Array, done: Array, loop: Loop) -> Array:
    """The step along dg at whose end φ's slope is, in size, at most half of that at the start: near the ray's minimum.

    φ is convex, so its slope tells where the minimum lies, without the rounding of differences of φ. The full step is
    tried first. Where parts of the graph are joined by no edge but their masses differ, the slope stays as it is until
    an edge comes in, at steps of any size, and may then change within a millionth of it: so steps grow fourfold, and
    between two of them the next is where a straight line through the slopes is zero, or every third time the middle.
    """
    initial = xp.sum(dg * rest, axis=-1)  # minus the slope at the start

    def moved(step: Array) -> Array:
        return _fill(xp, L + (step[..., None] * dg)[..., None, :], a)

    def along(new: Array) -> Array:
        return xp.sum(dg * xp.sum(xp.clip(new, min=0.0), axis=-2), axis=-1)

    target = initial + along(L)  # Σ dg b
    one = xp.ones_like(initial)

    def running(state: tuple[Array, ...]) -> Array:
        *_, found, count = state
        return xp.any(~found) & (count < SEARCH)

    def search(state: tuple[Array, ...]) -> tuple[Array, ...]:
        step, new, low, at_low, high, at_high, found, count = state
        slope = along(new) - target
        found = found | (xp.abs(slope) <= 0.5 * xp.abs(initial))
        short = slope < 0
        low, at_low = xp.where(short, step, low), xp.where(short, slope, at_low)
        high, at_high = xp.where(short, high, step), xp.where(short, at_high, slope)
        within = xp.where(xp.isinf(high), 4.0 * low, high)
        line = low - at_low * (within - low) / xp.where(at_high > at_low, at_high - at_low, one)
        middle = 0.5 * (low + within)
        inner = xp.where((line > low) & (line < within) & (count % 3 != 2), line, middle)
        step = xp.where(found, step, xp.where(xp.isinf(high), 4.0 * step, inner))
        return step, moved(step), low, at_low, high, at_high, found, count + 1

    start = (one, moved(one), 0 * one, -initial, xp.inf * one, 0 * one, done | ~(initial > 0), 0)
    return loop(running, search, start)[1]


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
