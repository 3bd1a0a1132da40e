"""Random problems whose solution map is smooth with probability one: nothing may be reported of them.

A strongly convex cost in a random parameter over an intersection of random sets with a common interior point; the
canonical form of most has auxiliary columns that are not unique.
"""

from __future__ import annotations

import cvxpy as cp
import numpy as np


def _linear(rng, x, x0):
    G = rng.standard_normal((3, x.size))
    return [G @ x <= G @ x0 + rng.uniform(0.1, 2.0, 3)]


def _equality(rng, x, x0):
    a = rng.standard_normal((1, x.size))
    return [a @ x == a @ x0]


def _bounds(rng, x, x0):
    return [x >= x0 - rng.uniform(0.1, 2.0, x.size), x <= x0 + rng.uniform(0.1, 2.0, x.size)]


def _norm(rng, x, x0):
    return [cp.norm(rng.standard_normal((3, x.size)) @ (x - x0)) <= rng.uniform(0.3, 4.0)]


def _norm1(rng, x, x0):
    return [cp.norm1(x - x0 - 0.05 * rng.standard_normal(x.size)) <= rng.uniform(0.6, 4.0)]


def _max(rng, x, x0):
    return [cp.max(x) <= x0.max() + rng.uniform(0.1, 2.0), cp.max(cp.abs(x)) <= np.abs(x0).max() + rng.uniform(0.1, 2)]


def _quad_over_lin(rng, x, x0):
    return [cp.quad_over_lin(x - x0, 1.5) <= rng.uniform(0.2, 6.0)]


def _log_sum_exp(rng, x, x0):
    return [cp.log_sum_exp(x) <= np.log(np.exp(x0).sum()) + rng.uniform(0.1, 2.0)]


def _exp(rng, x, x0):
    return [cp.exp(x[0]) + x[1] <= np.exp(x0[0]) + x0[1] + rng.uniform(0.1, 2.0)]


def _power(rng, x, x0):
    return [cp.sum(cp.power(cp.pos(x - x0 + 0.1), 3)) <= rng.uniform(0.3, 4.0) + 0.001 * x.size]


def _psd(rng, x, x0):
    parts = [rng.standard_normal((3, 3)) for _ in range(x.size)]
    sym = [part + part.T for part in parts]
    return [sum((x[k] - x0[k]) * sym[k] for k in range(x.size)) + rng.uniform(0.5, 4.0) * np.eye(3) >> 0]


def _lambda_max(rng, x, x0):
    part = rng.standard_normal((3, 3))
    return [cp.lambda_max((x[0] - x0[0]) * (part + part.T) + np.diag(rng.standard_normal(3))) <= 6.0]


SETS = {
    "linear": _linear,
    "equality": _equality,
    "bounds": _bounds,
    "norm": _norm,
    "norm1": _norm1,
    "max": _max,
    "quad_over_lin": _quad_over_lin,
    "log_sum_exp": _log_sum_exp,
    "exp": _exp,
    "power": _power,
    "psd": _psd,
    "lambda_max": _lambda_max,
}


def well_posed(seed: int) -> cp.Problem:
    """The random problem of a seed: every set occurs in turn, with up to two others."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 6))
    x, theta = cp.Variable(n, name="x"), cp.Parameter(n, name="theta")
    x0 = rng.standard_normal(n)
    theta.value = x0 + 2.0 * rng.standard_normal(n)
    names = [list(SETS)[seed % len(SETS)], *rng.choice(list(SETS), size=int(rng.integers(0, 3)), replace=False)]
    constraints = [c for name in dict.fromkeys(names) for c in SETS[str(name)](rng, x, x0)]
    cost = cp.sum_squares(x - theta)
    if seed % 5 == 0:
        cost = cost + 0.3 * cp.norm1(x - x0) + cp.sum(cp.huber(x))
    return cp.Problem(cp.Minimize(cost), constraints)
