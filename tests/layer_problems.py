"""Problems that layers of both frameworks are tested with, each with its parameters and outputs in a layer's order."""

from __future__ import annotations

from typing import Any

import cvxpy as cp

Parts = tuple[cp.Problem, list[cp.Parameter], list[Any]]


def qp(n: int = 4, m: int = 3, p: int = 2) -> Parts:
    """A dense quadratic program with every datum a parameter; its solution and the inequalities' multipliers."""
    x = cp.Variable(n, name="x")
    Q, q = cp.Parameter((n, n), name="Q"), cp.Parameter(n, name="q")
    G, h = cp.Parameter((m, n), name="G"), cp.Parameter(m, name="h")
    A, b = cp.Parameter((p, n), name="A"), cp.Parameter(p, name="b")
    inequality = G @ x <= h
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(Q @ x) + q @ x), [inequality, A @ x == b])
    return problem, [Q, q, G, h, A, b], [x, inequality.dual_variables[0]]


def entropy(n: int = 4) -> Parts:
    """softmax(θ/t) as a problem with exponential cones."""
    z, theta, t = cp.Variable(n), cp.Parameter(n, name="theta"), cp.Parameter(pos=True, name="t")
    return cp.Problem(cp.Maximize(theta @ z + t * cp.sum(cp.entr(z))), [cp.sum(z) == 1]), [theta, t], [z]


def ball(n: int = 3, radius: bool = False) -> Parts:
    """Projection onto the unit ball, or one whose radius is a parameter: a second-order cone program."""
    x, point, r = cp.Variable(n), cp.Parameter(n, name="point"), cp.Parameter(nonneg=True, name="r")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - point)), [cp.norm(x) <= (r if radius else 1)])
    return problem, [point, r] if radius else [point], [x]


def simplex(n: int = 3) -> Parts:
    """Projection of `target` onto the simplex of size `total`: cheap, with one shared scalar."""
    x = cp.Variable(n, name="x")
    target, total = cp.Parameter(n, name="target"), cp.Parameter(nonneg=True, name="total")
    return cp.Problem(cp.Minimize(cp.sum_squares(x - target)), [cp.sum(x) == total, x >= 0]), [target, total], [x]


def failing() -> Parts:
    """Projection onto lower ≤ Σx ≤ 1: infeasible where `lower` > 1."""
    x, c, lower = cp.Variable(2), cp.Parameter(2, name="c"), cp.Parameter(name="lower")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [cp.sum(x) <= 1, cp.sum(x) >= lower])
    return problem, [c, lower], [x]
