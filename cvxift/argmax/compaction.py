"""Rows made shorter: some of their largest entries, and all of those that can matter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_compat

from cvxift._types import Array

GROUPS = 32


def peaks(xp: Any, x: Array) -> Array:
    """Distinct entries of each row with its maximum among them: the maxima of up to 33 groups, (..., ≤ 33 or n)."""
    n = x.shape[-1]
    size = n // GROUPS
    if size < 2:
        return x
    even = xp.max(xp.reshape(x[..., : GROUPS * size], (*x.shape[:-1], size, GROUPS)), axis=-2)
    if n == GROUPS * size:
        return even
    return xp.concat([even, xp.max(x[..., GROUPS * size :], axis=-1, keepdims=True)], axis=-1)


def shorten(xp: Any, x: Array, keep: Array) -> tuple[Array, Callable[[Array], Array]]:
    """Pack the kept entries of each row to the left, where that shortens the rows by much.

    Args:
        xp: the namespace, one with integer indexing (NumPy, PyTorch).
        x: rows, (..., n).
        keep: booleans of x's shape.

    Returns:
        Rows filled up with −∞, and the function that puts such rows' values back in place, 0 elsewhere.
        Where most is kept: x itself, and the identity.

    Example:
        >>> import numpy as np
        >>> x = np.array([[5.0, 1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 7.0, 0.0]])
        >>> short, restore = shorten(np, x, x > 1)
        >>> short
        array([[  5.,   2.],
               [  7., -inf]])
        >>> restore(short)[1]
        array([0., 0., 0., 7., 0.])
    """
    n = x.shape[-1]
    counts = xp.sum(keep, axis=-1, dtype=xp.int32)
    longest = int(xp.max(counts)) if n and array_api_compat.size(counts) else n
    if 5 * longest > 3 * n:
        return x, lambda z: z
    counts = xp.astype(xp.reshape(counts, (-1,)), xp.int64)
    (where,) = xp.nonzero(xp.reshape(keep, (-1,)))
    row = where // n
    place = xp.arange(where.shape[0], device=array_api_compat.device(x)) - (xp.cumulative_sum(counts) - counts)[row]
    at = row * longest + place
    packed = _filled(xp, x, counts.shape[0] * longest, -xp.inf)
    packed[at] = xp.reshape(x, (-1,))[where]

    def restore(z: Array) -> Array:
        full = _filled(xp, z, counts.shape[0] * n, 0.0)
        full[where] = xp.reshape(z, (-1,))[at]
        return xp.reshape(full, x.shape)

    return xp.reshape(packed, (*x.shape[:-1], longest)), restore


def _filled(xp: Any, like: Array, size: int, value: float) -> Array:
    return xp.full((size,), value, dtype=like.dtype, device=array_api_compat.device(like))
