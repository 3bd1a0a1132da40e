"""Random compositions: atoms of affine maps in the cost, random constraints around a common interior point."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np

from ..kit import Kit
from . import family


def _affine(k: Kit, x: Any, n: int, rows: int) -> Any:
    """An affine map of x through several of CVXPY's affine atoms, which may carry parameters."""
    kind = k.pick("matrix", "parameter", "stack", "conv", "reshape", "index", "kron", "cumsum")
    if kind == "parameter":
        return k.parameter(f"A{len(k.parameters)}", k.data(rows, n)) @ x
    if kind == "stack":
        return k.data(rows, 2 * n) @ cp.hstack([x, 2 * x])
    if kind == "conv":
        return (k.data(rows, n + 1)) @ cp.conv(np.array([1.0, -0.5]), x)
    if kind == "reshape":
        return k.data(rows, n) @ cp.vec(cp.reshape(x, (n, 1), order="F"), order="F")
    if kind == "index":
        return k.data(rows, n) @ x[::-1]
    if kind == "kron":
        return k.data(rows, 2 * n) @ cp.vec(
            cp.kron(np.array([[1.0], [0.5]]), cp.reshape(x, (n, 1), order="F")), order="F"
        )
    if kind == "cumsum":
        return k.data(rows, n) @ cp.cumsum(x)
    return k.data(rows, n) @ x


ATOMS = (
    lambda z: cp.norm1(z),
    lambda z: cp.norm(z),
    lambda z: cp.norm_inf(z),
    lambda z: cp.sum(cp.huber(z)),
    lambda z: cp.sum(cp.pos(z)),
    lambda z: cp.max(z),
    lambda z: cp.log_sum_exp(z),
    lambda z: cp.sum(cp.logistic(z)),
    lambda z: cp.sum(cp.exp(z)),
    lambda z: cp.sum_largest(z, 2),
    lambda z: cp.pnorm(z, 3),
    lambda z: cp.sum(cp.power(cp.pos(z), 1.5)),
    lambda z: cp.sum(cp.maximum(z, 2 * z - 1)),
    lambda z: cp.quad_over_lin(z, 2.0),
    lambda z: cp.sum(cp.cummax(z)),
    lambda z: cp.dotsort(z, np.array([0.2, 1.0, 0.5])),
    lambda z: cp.cvar(z, 0.6),
    lambda z: cp.sum(cp.square(z)),
    lambda z: cp.tv(z),
    lambda z: cp.sum(cp.scalene(z, 1.0, 0.4)),
)


def _constraint(k: Kit, x: Any, x0: np.ndarray) -> None:
    """A constraint that holds strictly at x0."""
    n, room = len(x0), float(k.rng.uniform(0.3, 2.0))
    kind = k.size(0, 8)
    if kind == 0:
        G = k.data(2, n)
        k.le(G @ x, k.parameter(f"h{len(k.parameters)}", G @ x0 + k.rng.uniform(0.1, 1.0, 2)))
    elif kind == 1:
        a = k.data(n)
        k.eq(a @ x, k.parameter(f"b{len(k.parameters)}", float(a @ x0)))
    elif kind == 2:
        k.le(cp.norm(k.data(3, n) @ (x - x0)), room)
    elif kind == 3:
        k.le(cp.norm1(x - x0 - 0.05 * k.data(n)), room + 0.5)
    elif kind == 4:
        k.le(cp.max(x), x0.max() + room)
    elif kind == 5:
        k.le(cp.log_sum_exp(x), float(np.log(np.exp(x0).sum())) + room)
    elif kind == 6:
        k.le(cp.exp(x[0]) + x[1], float(np.exp(x0[0]) + x0[1]) + room)
    elif kind == 7:
        k.ge(cp.geo_mean(x - x0 + 1.0), 0.3)
    else:
        parts = [(lambda a: a + a.T)(k.data(2, 2)) for _ in range(n)]
        k.psd(sum((x[i] - x0[i]) * parts[i] for i in range(n)) + room * np.eye(2))


@family
def regular(k: Kit) -> None:
    """Strongly convex, data without structure: smooth with probability one."""
    n = k.size(2, 4)
    x, x0 = k.variable("x", n), k.data(n)
    cost = cp.sum_squares(x - k.parameter("c", x0 + k.data(n)))
    for _ in range(k.size(0, 2)):
        cost = cost + float(k.rng.uniform(0.2, 1.0)) * ATOMS[k.size(0, len(ATOMS) - 1)](_affine(k, x, n, 3))
    k.minimize(cost)
    for _ in range(k.size(0, 2)):
        _constraint(k, x, x0)


@family
def rounded(k: Kit) -> None:
    """The same atoms on round data: their kinks coincide."""
    n = k.size(2, 3)
    x = k.variable("x", n)
    z = k.round(3, n, step=1.0, most=1) @ x - k.parameter("b", k.round(3))
    cost = k.pick(0.5, 1.0) * cp.sum_squares(x - k.parameter("c", k.round(n)))
    k.minimize(cost + k.pick(0.5, 1.0) * ATOMS[k.size(0, len(ATOMS) - 1)](z))
    if k.flip():
        k.le(cp.abs(x), 1)


@family
def several_variables(k: Kit) -> None:
    """Scalars, vectors and matrices in one problem, parameters of every shape."""
    a, x, X = k.variable("a"), k.variable("x", 2), k.variable("X", (2, 2))
    k.minimize(
        cp.square(a - k.parameter("t", float(k.round())))
        + cp.sum_squares(x - k.parameter("c", k.round(2)))
        + cp.sum_squares(X - k.parameter("C", k.round(2, 2)))
        + 0.5 * cp.square(a + cp.sum(x) + cp.trace(X))
    )
    k.le(X @ np.ones(2), x + 1)
    k.ge(a, x[0])
    if k.flip():
        k.ge(X, 0)
