"""Problems without a solution, or with one that the problem's parameters may not reach: an error is right."""

from __future__ import annotations

import cvxpy as cp
import numpy as np

from ..kit import Kit
from . import family


@family
def infeasible(k: Kit) -> None:
    """Contradicting rows, by much or by little."""
    n = 2
    x = k.variable("x", n)
    by = k.pick(1.0, 0.1, 1e-3, 1e-4)
    k.minimize(cp.sum_squares(x - k.parameter("c", k.round(n))))
    t = k.parameter("t", 1.0)
    kind = k.pick("rows", "equalities", "ball", "sum")
    if kind == "rows":
        k.le(cp.sum(x), t)
        k.ge(cp.sum(x), t + by)
    elif kind == "equalities":
        k.eq(cp.sum(x), t)
        k.eq(2 * cp.sum(x), 2 * t + by)
    elif kind == "ball":
        k.le(cp.norm(x), t)
        k.ge(x[0], 1.0 + by)
    else:
        k.ge(x, 0.5)
        k.le(cp.sum(x), t - by)


@family
def unbounded(k: Kit) -> None:
    """A cost that falls for ever."""
    x = k.variable("x", 2)
    k.minimize(k.parameter("c", np.array([1.0, 0.5])) @ x)
    k.le(x, k.parameter("t", 1.0))


@family
def boundary_of_feasibility(k: Kit) -> None:
    """Feasible at one point alone: no change of the parameters in some directions is."""
    x = k.variable("x", 2)
    k.minimize(cp.sum_squares(x - k.parameter("c", k.round(2))))
    s = k.parameter("s", np.ones(2))
    k.ge(x, s)
    k.le(cp.sum(x), k.parameter("t", 2.0 if k.degenerate else 3.0))


@family
def fast(k: Kit) -> None:
    """Solutions that move infinitely fast, or smoothly through a point where curvature vanishes."""
    x, t = k.variable("x"), k.parameter("t", 0.0 if k.degenerate else 0.5)
    kind = k.pick("quartic", "square", "smooth quartic")
    if kind == "quartic":
        k.minimize(cp.power(x, 4) - t * x)
    elif kind == "square":
        k.minimize(x)
        k.le(cp.square(x), t)
    else:
        k.minimize(cp.power(x - t, 4) + 0.0 * x)
