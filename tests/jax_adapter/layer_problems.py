"""Layers that the JAX tests share, with values that keep them away from kinks, and what the tests look at them with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cvxpy as cp
import numpy as np

from cvxift.jax import CvxpyLayer


def qp_layer(n: int = 4, m: int = 3, p: int = 2, **options: Any) -> CvxpyLayer:
    """A dense quadratic program with every datum a parameter; returns the solution and the inequalities' duals."""
    x = cp.Variable(n, name="x")
    Q, q = cp.Parameter((n, n), name="Q"), cp.Parameter(n, name="q")
    G, h = cp.Parameter((m, n), name="G"), cp.Parameter(m, name="h")
    A, b = cp.Parameter((p, n), name="A"), cp.Parameter(p, name="b")
    inequality = G @ x <= h
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(Q @ x) + q @ x), [inequality, A @ x == b])
    return CvxpyLayer(problem, [Q, q, G, h, A, b], [x, inequality.dual_variables[0]], **options)


def qp_values(batch: tuple[int, ...] = (), n: int = 4, m: int = 3, p: int = 2, seed: int = 0) -> list[np.ndarray]:
    """Values for `qp_layer`."""
    rng = np.random.default_rng(seed)
    Q = rng.standard_normal((*batch, n, n)) + 2 * np.eye(n)
    G, A, x0 = (rng.standard_normal((*batch, *shape)) for shape in ((m, n), (p, n), (n,)))
    h = (G @ x0[..., None])[..., 0] + rng.random((*batch, m))
    return [Q, rng.standard_normal((*batch, n)), G, h, A, (A @ x0[..., None])[..., 0]]


def simplex_layer(n: int = 3, **options: Any) -> CvxpyLayer:
    """Projection of `target` onto the simplex of size `total`: cheap, with one shared scalar."""
    x = cp.Variable(n, name="x")
    target, total = cp.Parameter(n, name="target"), cp.Parameter(nonneg=True, name="total")
    return CvxpyLayer(
        cp.Problem(cp.Minimize(cp.sum_squares(x - target)), [cp.sum(x) == total, x >= 0]),
        [target, total],
        [x],
        **options,
    )


def entropy_layer(n: int = 4, **options: Any) -> CvxpyLayer:
    """softmax(θ/t) as a problem with exponential cones."""
    z, theta, t = cp.Variable(n), cp.Parameter(n, name="theta"), cp.Parameter(pos=True, name="t")
    problem = cp.Problem(cp.Maximize(theta @ z + t * cp.sum(cp.entr(z))), [cp.sum(z) == 1])
    return CvxpyLayer(problem, [theta, t], [z], **options)


def ball_layer(n: int = 3, **options: Any) -> CvxpyLayer:
    """Projection of a point onto the ball of radius r, a second-order cone program."""
    x, point, r = cp.Variable(n), cp.Parameter(n, name="point"), cp.Parameter(nonneg=True, name="r")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - point)), [cp.norm(x) <= r])
    return CvxpyLayer(problem, [point, r], [x], **options)


def directions_like(values: Sequence[Any], seed: int) -> list[np.ndarray]:
    """A random direction for each value."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(np.shape(value)) for value in values]


def difference(function: Callable[..., Any], values: Sequence[Any], direction: Sequence[Any], step: float = 1e-4):
    """Directional derivative of a list-valued function by central differences of fourth order."""

    def at(scale: float) -> list[np.ndarray]:
        moved = function(*(value + scale * step * dot for value, dot in zip(values, direction, strict=True)))
        return [np.asarray(out) for out in moved]

    near, far = (at(1.0), at(-1.0)), (at(2.0), at(-2.0))
    return [(8 * (a - b) - (c - d)) / (12 * step) for a, b, c, d in zip(near[0], near[1], far[0], far[1], strict=True)]
