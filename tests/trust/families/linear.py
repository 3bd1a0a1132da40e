"""Linear programs: vertices, degenerate vertices, ties, whole faces."""

from __future__ import annotations

import cvxpy as cp
import numpy as np

from ..kit import Kit
from . import family


@family
def lp_box(k: Kit) -> None:
    """A cost over a box and a budget, right-hand side and cost as parameters."""
    n = k.size(2, 5)
    x, c = k.variable("x", n), k.parameter("c", k.round(n, step=1.0))
    k.minimize(c @ x)
    k.ge(x, 0)
    k.le(x, k.parameter("u", np.ones(n)))
    k.le(cp.sum(x), k.parameter("budget", k.pick(1.0, 1.5, 2.0)))


@family
def lp_random(k: Kit) -> None:
    """A feasible, bounded LP whose optimal vertex is planted; degenerate: more rows meet there than variables."""
    n = k.size(2, 4)
    m = n + k.size(1, 3)
    G, vertex = k.round(m, n, step=1.0), k.round(n, step=1.0)
    slack = np.abs(k.data(m)) + 0.1
    slack[:n] = 0.0
    if k.degenerate:
        slack[n] = 0.0
    multipliers = np.zeros(m)
    multipliers[:n] = np.abs(k.data(n)) + 0.2
    G[:n] += 2.0 * np.eye(n)
    x = k.variable("x", n)
    k.minimize(k.parameter("c", -G.T @ multipliers) @ x)
    rows = k.le(G @ x, k.parameter("h", G @ vertex + slack))
    if not k.degenerate and k.flip():
        k.dual(rows)


@family
def lp_epigraph(k: Kit) -> None:
    """The largest of affine functions, or a sum of absolute values, over a box."""
    n, m = 2, k.size(3, 5)
    A = k.round(m, n, step=1.0)
    x, b = k.variable("x", n), k.parameter("b", k.round(m))
    k.minimize(k.pick(cp.max, cp.norm1, cp.norm_inf)(A @ x + b))
    k.le(cp.abs(x), 2)


@family
def basis_pursuit(k: Kit) -> None:
    """The smallest ℓ1 norm that explains data; equal columns tie."""
    A = k.round(2, 4, step=1.0)
    A[:, :2] += 2 * np.eye(2)
    x, b = k.variable("x", 4), k.parameter("b", k.round(2, step=1.0) + np.array([1.0, -1.0]))
    k.minimize(cp.norm1(x))
    k.eq(A @ x, b)


@family
def matrix_game(k: Kit) -> None:
    """The maximin strategy of a small game."""
    n = k.size(2, 3)
    p, v, A = k.variable("p", n), k.variable("v"), k.parameter("A", k.round(n, n, step=1.0))
    k.maximize(v)
    k.ge(A.T @ p, v)
    k.eq(cp.sum(p), 1)
    k.ge(p, 0)


@family
def equality_qp(k: Kit) -> None:
    """A strongly convex or singular quadratic with equalities, all data parameters."""
    n, m = k.size(2, 5), k.size(1, 2)
    x = k.variable("x", n)
    root = k.data(n, n) if not k.degenerate else k.data(n - 1, n)
    q = k.parameter("q", root.T @ k.data(len(root)))
    k.minimize(0.5 * cp.sum_squares(root @ x) + q @ x)
    rows = k.eq(k.parameter("A", k.data(m, n)) @ x, k.parameter("b", k.round(m)))
    if k.flip():
        k.dual(rows)


@family
def quadratic_parameter(k: Kit) -> None:
    """quad_form with a parameter P, over a simplex or rows."""
    n = k.size(2, 4)
    x = k.variable("x", n)
    root = k.data(n, n)
    P = k.parameter("P", root @ root.T + 0.3 * np.eye(n), PSD=True)
    q = k.parameter("q", k.round(n))
    k.minimize(0.5 * cp.quad_form(x, P) + q @ x)
    total = k.eq(cp.sum(x), 1) if k.flip() else None
    bounds = k.ge(x, 0 if k.flip(0.7) else -0.5)
    if not k.degenerate and k.flip():
        k.dual(bounds if total is None else total)
