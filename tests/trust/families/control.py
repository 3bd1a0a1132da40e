"""Model predictive control with hard and soft constraints saturated at round numbers."""

from __future__ import annotations

import cvxpy as cp
import numpy as np

from ..kit import Kit
from . import family


@family
def mpc_hard(k: Kit) -> None:
    """A double or single integrator with bounded input and state."""
    steps, n = k.size(2, 4), k.pick(1, 2)
    A = np.array([[1.0, 0.5], [0.0, 1.0]])[-n:, -n:]
    B = np.array([0.125, 0.5])[-n:]
    x, u = k.variable("x", (steps + 1, n)), k.variable("u", steps)
    x0 = k.parameter("x0", k.round(n, step=0.5, most=2))
    k.minimize(cp.sum_squares(x) + k.pick(0.1, 1.0) * cp.sum_squares(u))
    k.eq(x[0], x0)
    k.eq(x[1:], x[:-1] @ A.T + cp.reshape(u, (steps, 1), order="C") @ B.reshape(1, n))
    k.le(cp.abs(u), k.parameter("umax", 1.0))
    if k.flip():
        k.le(x[1:, -1], 1.5)


@family
def mpc_soft(k: Kit) -> None:
    """Soft state limits with an exact penalty beside a quadratic one."""
    steps = k.size(2, 4)
    v, u, e = k.variable("v", steps + 1), k.variable("u", steps), k.variable("e", steps)
    v0 = k.parameter("v0", k.pick(0.7, 0.5, 0.6) if k.degenerate else float(0.5 + 0.3 * k.rng.random()))
    k.minimize(cp.sum_squares(v) + 0.1 * cp.sum_squares(u) + 100 * cp.sum_squares(e) + 2 * cp.sum(e))
    k.eq(v[0], v0)
    k.eq(v[1:], v[:-1] + 0.1 * u)
    k.le(cp.abs(u), 1)
    k.le(v[1:], 0.5 + e)
    k.ge(e, 0)


@family
def tracking(k: Kit) -> None:
    """A reference as a parameter, followed under rate limits at round numbers."""
    n = k.size(3, 6)
    x, r = k.variable("x", n), k.parameter("r", k.round(n))
    k.minimize(cp.sum_squares(x - r) + k.pick(0.0, 1.0) * cp.sum_squares(cp.diff(x)))
    k.le(cp.abs(cp.diff(x)), k.parameter("rate", k.pick(0.5, 1.0)))


@family
def dispatch(k: Kit) -> None:
    """Generators with limits and ramps that must meet a demand exactly."""
    n, T = k.size(2, 3), k.size(1, 3)
    g = k.variable("g", (n, T))
    demand = k.parameter("demand", np.round(1.0 + k.rng.random(T), 1) if k.degenerate else 1.0 + k.rng.random(T))
    cost = np.arange(1.0, n + 1)
    k.minimize(cp.sum(cost @ g) + 0.25 * cp.sum_squares(g))
    k.eq(cp.sum(g, axis=0), demand)
    k.ge(g, 0)
    k.le(g, k.parameter("limit", 1.0))
    if T > 1:
        k.le(cp.abs(g[:, 1:] - g[:, :-1]), 0.5)
