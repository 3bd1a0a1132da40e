"""Bounds and rows that repeat, oppose or pin: by construction degenerate."""

from __future__ import annotations

import cvxpy as cp
import numpy as np

from ..kit import Kit
from . import family


def _curved(k: Kit, x: object, n: int) -> None:
    k.minimize(cp.sum_squares(x - k.parameter("c", k.round(n, step=1.0))))


@family
def box(k: Kit) -> None:
    """Bounds at round numbers, as rows or as attributes."""
    n = k.size(2, 5)
    way = k.pick("rows", "attribute", "nonneg")
    if way == "attribute":
        x = k.variable("x", n, bounds=[np.full(n, -1.0), np.full(n, 1.0)])
    elif way == "nonneg":
        x = k.variable("x", n, nonneg=True)
    else:
        x = k.variable("x", n)
        k.le(x, k.parameter("high", np.full(n, 1.0)))
        k.ge(x, -1)
    k.minimize(cp.sum_squares(x - k.parameter("c", k.round(n))) + k.pick(0.0, 0.5) * cp.square(cp.sum(x)))


@family
def opposed(k: Kit) -> None:
    """Two inequalities that pin a sum, moved together or apart."""
    n = k.size(2, 4)
    x = k.variable("x", n)
    a = k.pick(np.ones(n), k.data(n))
    k.minimize(cp.sum_squares(x - k.pick(0.5, 1.0 / n, 2.0)) + k.pick(0.0, 1.0) * x[0])
    t = k.parameter("t", 1.0)
    k.le(a @ x, t)
    k.ge(a @ x, t if k.flip(0.7) else k.parameter("u", 1.0 if k.degenerate else 0.4))


@family
def pinned(k: Kit) -> None:
    """Bounds that meet, equal equalities, or the smaller of two equal bounds."""
    x = k.variable("x", 2)
    t1, t2 = k.parameter("t1", 1.0), k.parameter("t2", 1.0 if k.degenerate else 1.5)
    k.minimize(cp.sum_squares(x - k.pick(5.0, 1.0, 0.0)) + k.parameter("q", k.data(2)) @ x)
    kind = k.pick("both above", "twice equal", "around", "sums", "shared")
    if kind == "both above":
        k.le(x[0], t1)
        k.le(x[0], t2)
    elif kind == "twice equal":
        k.eq(cp.sum(x), t1)
        k.eq(x[0] - x[1] if not k.degenerate else cp.sum(x), t2)
    elif kind == "around":
        k.ge(x[0], t1)
        k.le(x[0], t2)
    elif kind == "sums":
        k.le(cp.sum(x), t1)
        k.le(2 * cp.sum(x), 2 * t2)
    else:
        k.eq(x[0], t1)
        k.le(x[0], t1 + (t2 - 1.0))


@family
def repeated_rows(k: Kit) -> None:
    """Rows written twice, at once or in multiples, with right-hand sides that move together."""
    n = k.size(2, 4)
    x = k.variable("x", n)
    _curved(k, x, n)
    G = k.round(2, n, step=1.0, most=1)
    h = k.parameter("h", np.abs(k.round(2)))
    for times in range(k.size(2, 3)):
        k.le((times + 1) * (G @ x), (times + 1) * h)
    if k.flip(0.4):
        a = k.data(n)
        t = k.parameter("t", 0.5)
        k.eq(a @ x, t)
        k.eq(2 * a @ x, 2 * t)


@family
def dependent_rows(k: Kit) -> None:
    """Active rows that sum to others, each with a right-hand side of its own: θ can tear them."""
    x = k.variable("x", 3)
    k.minimize(cp.sum_squares(x - np.array([2.0, 3.0, 1.0 + float(k.rng.random())])))
    h = k.parameter("h", np.array([1.0, 1.0, 2.0]) if k.degenerate else np.array([1.0, 1.3, 1.7]))
    k.le(x[0], h[0])
    k.le(x[1], h[1])
    k.le(x[0] + x[1], h[2])


@family
def free_variable(k: Kit) -> None:
    """A variable that nothing looks at, not asked for."""
    n = k.size(2, 3)
    x, z = k.variable("x", n), k.variable("z", 2, ask=False)
    _curved(k, x, n)
    k.ge(x, 0)
    k.ge(z, 0)
    k.le(z, 1)


@family
def free_direction(k: Kit) -> None:
    """A cost that is flat along a direction; constraints may pin it, and another output may not feel it."""
    x, y = k.variable("x", 2), k.variable("y", 2, ask=k.flip(0.6))
    t = k.parameter("t", 1.0)
    k.minimize(cp.sum_squares(x - t) + cp.square(cp.sum(y) - t))
    if k.flip():
        k.eq(y[0] - y[1], k.parameter("gap", 0.3))
    k.le(cp.abs(y), 5)


@family
def tied_maximum(k: Kit) -> None:
    """The largest of tied entries, sums of the largest, and distances to them."""
    n = k.size(2, 5)
    x = k.variable("x", n)
    kind = k.pick(cp.max, cp.norm_inf, lambda z: cp.sum_largest(z, min(2, n)), lambda z: cp.max(z) - cp.min(z))
    c = k.parameter("c", k.round(n))
    if k.flip(0.6):
        k.minimize(0.5 * cp.sum_squares(x - c) + k.pick(0.5, 1.0) * kind(x))
    else:
        k.minimize(0.5 * cp.sum_squares(x - c))
        k.le(kind(x), k.parameter("t", 0.5))


@family
def simplex(k: Kit) -> None:
    """Projection onto the simplex: the closed form that cvxift knows, at its kinks."""
    n = k.size(2, 6)
    x, c = k.variable("x", n), k.parameter("c", k.round(n))
    k.minimize(k.pick(0.5, 1.0) * cp.sum_squares(x - c))
    k.eq(cp.sum(x), 1)
    k.ge(x, 0)
    if k.flip(0.3):
        k.le(x, k.pick(0.5, 1.0))


@family
def knapsack(k: Kit) -> None:
    """Capped entries with a budget at a round number."""
    n = k.size(3, 6)
    x, c = k.variable("x", n), k.parameter("c", k.round(n))
    k.minimize(0.5 * cp.sum_squares(x - c))
    (k.eq if k.flip() else k.le)(cp.sum(x), k.parameter("budget", k.pick(1.0, 2.0)))
    k.ge(x, 0)
    k.le(x, 1)
