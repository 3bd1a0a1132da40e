"""Layers that the JAX tests share, with values that keep them away from kinks, and what the tests look at them with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cvxift.jax import CvxpyLayer
from tests import layer_problems


def qp_layer(n: int = 4, m: int = 3, p: int = 2, **options: Any) -> CvxpyLayer:
    """See `layer_problems.qp`."""
    return CvxpyLayer(*layer_problems.qp(n, m, p), **options)


def qp_values(batch: tuple[int, ...] = (), n: int = 4, m: int = 3, p: int = 2, seed: int = 0) -> list[np.ndarray]:
    """Values for `qp_layer`."""
    rng = np.random.default_rng(seed)
    Q = rng.standard_normal((*batch, n, n)) + 2 * np.eye(n)
    G, A, x0 = (rng.standard_normal((*batch, *shape)) for shape in ((m, n), (p, n), (n,)))
    h = (G @ x0[..., None])[..., 0] + rng.random((*batch, m))
    return [Q, rng.standard_normal((*batch, n)), G, h, A, (A @ x0[..., None])[..., 0]]


def simplex_layer(n: int = 3, **options: Any) -> CvxpyLayer:
    """See `layer_problems.simplex`."""
    return CvxpyLayer(*layer_problems.simplex(n), **options)


def entropy_layer(n: int = 4, **options: Any) -> CvxpyLayer:
    """See `layer_problems.entropy`."""
    return CvxpyLayer(*layer_problems.entropy(n), **options)


def ball_layer(n: int = 3, **options: Any) -> CvxpyLayer:
    """See `layer_problems.ball`, with a radius."""
    return CvxpyLayer(*layer_problems.ball(n, radius=True), **options)


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
