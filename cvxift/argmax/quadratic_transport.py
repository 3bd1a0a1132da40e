"""Quadratically regularized transport by a semismooth Newton method, on any array-API namespace.

    z = argmax { ⟨x, z⟩ − ½‖z‖² : z 1 = a, zᵀ1 = b, z ≥ 0 } = [x + f ⊕ g]_+

As in `sinkhorn`, f is eliminated: every row of L = x + f ⊕ g is shifted so that its positive part sums to a_i. What
remains is to minimize the convex, piecewise quadratic φ(g) = ½‖[L]_+‖² − ⟨a, f⟩ − ⟨b, g⟩, whose gradient is zᵀ1 − b and
whose generalized Hessian is the Laplacian of the graph of z's support. Newton's step, shifted in proportion to the
gradient as the Laplacian may be singular, ends near φ's minimum on its ray; a sweep over the columns precedes it. Large
scores are reached by the same continuation. D. Lorenz, P. Manns, C. Meyer 2021.

Newton's method may go astray among the supports, where masses differ by orders of magnitude: what it has not solved in
some sweeps starts anew from where `interior_transport` ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cvxift._types import Array, namespace
from cvxift.argmax.interior_transport import approach
from cvxift.argmax.loops import Loop, while_loop
from cvxift.argmax.polytope import laplacian, solve_laplacian
from cvxift.argmax.sinkhorn import MAX_ITERATIONS, START, Plan, continued

SEARCH = 60  # trials of a step's length
FIRST = 40  # sweeps of Newton's method before another start
NEAR = 1e-3  # gap from which Newton's method converges at once


def quadratic_transport(
    x: Array,
    a: Array,
    b: Array,
    tol: float | None = None,
    max_iterations: int = MAX_ITERATIONS,
    loop: Loop = while_loop,
    interior: Callable[..., tuple[Array, Array]] = approach,
) -> Plan:
    """Quadratically regularized plan between the masses a and b; sparse.

    Arguments and result are as for `sinkhorn`; `interior` is `approach`, or what computes the same elsewhere.

    Source: Blondel, Seguy, Rolet 2018; Lorenz, Manns, Meyer 2021.

    Example:
        >>> import numpy as np
        >>> half = np.array([0.5, 0.5])
        >>> quadratic_transport(np.array([[1.0, 0.0], [0.0, 1.0]]), half, half).z
        array([[0.5, 0. ],
               [0. , 0.5]])
    """
    xp = namespace(x, a, b)
    if x.shape[-1] > x.shape[-2]:
        plan = quadratic_transport(x.mT, b, a, tol, max_iterations, loop, interior)
        return Plan(plan.z.mT, plan.error, plan.iterations, plan.level.mT)
    least = 64 * float(xp.finfo(x.dtype).eps)
    tol = least if tol is None else max(tol, least)
    total = xp.sum(b, axis=-1)
    unit = xp.where(total > 0, total, xp.ones_like(total))
    b = b * (xp.sum(a, axis=-1) / unit)[..., None]  # equal but for rounding

    opened = ~xp.isinf(x) & (a > 0)[..., :, None] & (b > 0)[..., None, :]
    scores = xp.where(opened, x, xp.full_like(x, -xp.inf))
    top = xp.max(scores, axis=-1, keepdims=True)
    scores = scores - xp.where(xp.isinf(top), xp.zeros_like(top), top)

    seen = loop is while_loop
    rows, columns = Lines(xp, a, scores, seen), Lines(xp, b, scores.mT, seen)

    def gap_of(L: Array) -> Array:
        return xp.sum(xp.abs(b - xp.sum(rows.positive(L), axis=-2)), axis=-1) / unit

    def newton(scores: Array, G: Array, sigma: Array, tol: Array, limit: Any, error: Any) -> tuple[Array, ...]:
        """Potentials of the columns, (..., 1, m), from others, the gap, and the number of sweeps."""

        def sweep(G: Array, sigma: Array, done: Array) -> tuple[Array, Array, Array]:
            x = scores / sigma[..., None, None]
            L = rows.fill(x + G)
            G = G - columns.level(L.mT).mT
            z = rows.positive(rows.fill(x + G))
            s = xp.astype(z > 0, z.dtype)
            rest = b - xp.sum(z, axis=-2)
            before = xp.sum(xp.abs(rest), axis=-1) / unit
            S, weights, shift = laplacian(s), xp.sum(s, axis=-2), 1e-2 * xp.clip(before, max=1.0)
            # Parts of the graph whose masses differ by no more than the tolerance have nothing to exchange. It is the
            # shift alone that holds them, and near the end they would move by more than the gap.
            near = xp.any(1e-2 * before**2 < tol)

            def unsolved(state: tuple[Array, ...]) -> Array:
                *_, count = state
                return (count < 1) | (near & (count < 2))

            def solve(state: tuple[Array, ...]) -> tuple[Array, ...]:
                right, _, count = state
                dg = solve_laplacian(S, weights, right, shift)
                apart = rest - xp.sum(S * dg[..., None, :], axis=-1)
                held = xp.abs(apart) <= (tol * unit)[..., None] / apart.shape[-1]
                return rest - xp.where(held, apart, xp.zeros_like(apart)), dg, count + 1

            _, dg, _ = loop(unsolved, solve, (rest, xp.zeros_like(rest), 0))
            G = _descend(rows, x, G, dg, rest, b, done, loop)
            G = G - xp.mean(G, axis=-1, keepdims=True)
            gap = gap_of(rows.fill(x + G))
            return G, gap, gap < 1e-3

        return continued(sweep, lambda G: G, G, sigma, tol, limit, loop, error)

    # A sum of scores and potentials has the rounding of the scores: so far can the sums come this way. The rest of the
    # way is from scores that are small where the plan has mass, which costs the scores one rounding.
    spread = -xp.min(xp.where(opened, scores, xp.zeros_like(scores)), axis=(-2, -1))
    reach = 8 * sum(x.shape[-2:]) * float(xp.finfo(x.dtype).eps) * spread / unit
    reach = xp.clip(reach, min=tol, max=max(tol, NEAR))
    size = xp.max(a, axis=-1)
    sigma = xp.clip(spread / (START * xp.where(size > 0, size, xp.ones_like(size))), min=1.0)
    one, far = xp.ones_like(sigma), xp.inf * xp.ones_like(sigma)

    # A compiled program has each part of this once, whatever the stages: 0 and 2 are Newton's method from scores and
    # from L, 1 and 3 the same anew, from an interior, for what these have not solved.
    def unfinished(state: tuple[Array, ...]) -> Array:
        *_, stage, _ = state
        return stage < 4

    def advance(state: tuple[Array, ...]) -> tuple[Array, ...]:
        scores, G, sigma, error, lost, stage, count = state
        enough = xp.where(stage < 2, reach, tol * one)

        def needed(inner: tuple[Array, ...]) -> Array:
            *_, steps = inner
            return xp.any(lost) & (steps == 0)

        def enter(inner: tuple[Array, ...]) -> tuple[Array, ...]:
            G, _ = inner
            start, steps = interior(xp, scores, a, b, opened & lost[..., None, None], max_iterations - count, loop)
            return xp.where(lost[..., None, None], start, G), 0 * count + 1 + steps

        # A loop of one turn or none: a compiled program has no other way to leave this out.
        G, steps = loop(needed, enter, (G, 0 * count))
        left = max_iterations - count - steps
        limit = xp.where(left < FIRST, left, FIRST + 0 * left)
        G, error, more = newton(scores, G, sigma, enough, limit, error)
        lost = (stage % 2 == 0) & ~(error <= enough)
        again, L = xp.any(lost), rows.fill(scores + G)
        return (
            xp.where(again, scores, L),
            xp.where(again, G, 0 * G),
            one,
            xp.where(again, xp.where(lost, far, error), xp.where(stage < 2, gap_of(L), error)),
            lost,
            xp.where(again, stage + 1, stage + 2 - stage % 2),
            count + steps + more,
        )

    nothing = xp.zeros_like(one[(0,) * one.ndim])
    start = (scores, xp.zeros_like(scores[..., :1, :]), sigma, far, far < 0, nothing, nothing)
    L, _, _, error, _, _, count = loop(unfinished, advance, start)
    # What is less than a rounding of its row or its column joins parts of the support that have nothing to exchange.
    z, size = rows.positive(L), xp.minimum(a[..., :, None], b[..., None, :])
    return Plan(xp.where(z <= least * size, xp.zeros_like(z), z), error, count, L)


def _descend(rows: Lines, x: Array, G: Array, dg: Array, rest: Array, b: Array, done: Array, loop: Loop) -> Array:
    """The step along dg at whose end φ's slope is, in size, at most half of that at the start: near the ray's minimum.

    φ is convex, so its slope tells where the minimum lies, without the rounding of differences of φ. The full step is
    tried first. Where parts of the graph are joined by no edge but their masses differ, the slope stays as it is until
    an edge comes in, at steps of any size, and may then change within a millionth of it: so steps grow fourfold, and
    between two of them the next is where a straight line through the slopes is zero, or every third time the middle.
    """
    xp = rows.xp
    initial = xp.sum(dg * rest, axis=-1)  # minus the slope at the start

    def moved(step: Array) -> Array:
        return G + (step[..., None] * dg)[..., None, :]

    def along(G: Array) -> Array:
        return xp.sum(dg * xp.sum(rows.positive(rows.fill(x + G)), axis=-2), axis=-1)

    target = xp.sum(dg * b, axis=-1)
    rounding = 8 * float(xp.finfo(G.dtype).eps) * xp.sum(xp.abs(dg) * b, axis=-1)
    enough = xp.where(initial > 2 * rounding, 0.5 * initial, rounding)
    one = xp.ones_like(initial)

    def running(state: tuple[Array, ...]) -> Array:
        *_, found, count = state
        return xp.any(~found) & (count < SEARCH)

    def search(state: tuple[Array, ...]) -> tuple[Array, ...]:
        step, low, at_low, high, at_high, found, count = state
        slope = along(moved(step)) - target
        found = found | (xp.abs(slope) <= enough)
        short = slope < 0
        low, at_low = xp.where(short, step, low), xp.where(short, slope, at_low)
        high, at_high = xp.where(short, high, step), xp.where(short, at_high, slope)
        within = xp.where(xp.isinf(high), 4.0 * low, high)
        line = low - at_low * (within - low) / xp.where(at_high > at_low, at_high - at_low, one)
        middle = 0.5 * (low + within)
        inner = xp.where((line > low) & (line < within) & (count % 3 != 2), line, middle)
        step = xp.where(found, step, xp.where(xp.isinf(high), 4.0 * step, inner))
        return step, low, at_low, high, at_high, found, count + 1

    start = (one, 0 * one, -initial, xp.inf * one, 0 * one, done | ~(initial > rounding), 0)
    step, low, *_, found, _ = loop(running, search, start)
    return moved(xp.where(found, step, low))


class Lines:
    """Lines along the last axis, shifted so that their positive parts have given sums: what a sweep does most.

    On small arrays the number of operations counts, so what stays the same from call to call is computed once.

    Args:
        xp: the namespace.
        masses: ≥ 0, (..., n).
        like: an array whose lines they are, (..., n, m).
        seen: whether values may be looked at, to leave out what serves masked entries and lines without mass.
    """

    def __init__(self, xp: Any, masses: Array, like: Array, seen: bool) -> None:
        self.xp, self.masses = xp, masses[..., :, None]
        self._some = self.masses > 0
        self._zero, self._one = (fill(like[(0,) * like.ndim]) for fill in (xp.zeros_like, xp.ones_like))
        self._index = xp.cumulative_sum(xp.ones_like(like[(0,) * (like.ndim - 1)]), axis=-1)
        self._masked = not seen or bool(xp.any(xp.isinf(like)))
        self._idle = not seen or not bool(xp.all(self._some))

    def positive(self, L: Array) -> Array:
        """[L]_+; NaN stays."""
        return self.xp.where(L <= 0, self._zero, L)

    def level(self, L: Array) -> Array:
        """What to subtract from each line, (..., n, 1), so that its positive part sums to the mass."""
        top = self._top(L)
        return top + self._below(L - top)

    def fill(self, L: Array) -> Array:
        """The lines shifted; lines of −∞ stay."""
        xp = self.xp
        shifted = L - self._top(L)
        shifted = shifted - self._below(shifted)
        # Once more from zero, where sums of large scores have left a remainder, as entries may come and go by it.
        for _ in range(2):
            positive = self.positive(shifted)
            lack = self.masses - xp.sum(positive, axis=-1, keepdims=True)
            shifted = shifted + lack / self._number(positive > 0)
        return shifted

    def _top(self, L: Array) -> Array:
        top = self.xp.max(L, axis=-1, keepdims=True)
        return self.xp.where(self.xp.isinf(top), self._zero, top) if self._masked else top

    def _below(self, L: Array) -> Array:
        """`level` of lines whose largest entries are zero, beside which no mass is too small to count."""
        xp = self.xp
        order = xp.flip(xp.sort(L, axis=-1), axis=-1)
        finite = xp.where(xp.isinf(order), self._zero, order) if self._masked else order
        inside = self._index * order > xp.cumulative_sum(finite, axis=-1) - self.masses
        held = xp.sum(xp.where(inside, order, self._zero), axis=-1, keepdims=True)
        level = (held - self.masses) / self._number(inside)
        return xp.where(self._some, level, self._zero) if self._idle else level

    def _number(self, marks: Array) -> Array:
        """The number of marks in each line, at least 1."""
        return self.xp.maximum(self.xp.sum(self.xp.astype(marks, self._one.dtype), axis=-1, keepdims=True), self._one)
