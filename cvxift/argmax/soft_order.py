"""Soft ranks and soft sorting of NumPy rows, with their vector-Jacobian products, in few calls.

They are projections of s onto the permutahedron of w as in `isotonic`; of sorted rows, with the blocks B,

    quadratic   z = s − mean_B(s) + mean_B(w)      dz = ds − Σ_B p ds + Σ_B q dw,   p = q = 1/|B|
    entropic    z = s − lse_B(s) + lse_B(w)        the same,                        p = e^s / Σ_B e^s, q = e^w / Σ_B e^w

and a cotangent z̄ of the sorted result becomes s̄ = z̄ − p Σ_B z̄, w̄ = q Σ_B z̄.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from cvxift._types import Floats
from cvxift.argmax import isotonic
from cvxift.argmax.isotonic import Regularizer

Pull = Callable[[np.ndarray], np.ndarray]  # cotangent of the result ↦ cotangent of the argument


def ranks(
    x: np.ndarray, pulled: bool, temperature: float, regularizer: Regularizer, descending: bool
) -> tuple[np.ndarray, Pull] | None:
    """Projection of ±x / temperature onto the permutahedron of 1, …, n.

    Args:
        x: float32 or float64, (..., n), not empty.
        pulled: see `values`; here it takes nothing more.
        temperature: > 0.
        regularizer: as of `isotonic`.
        descending: whether the sign is minus.

    Returns:
        Values of x's shape and dtype, and their vector-Jacobian product; None where a score is not finite.

    Example:
        >>> z, pull = ranks(np.array([0.5, 0.0, 0.25]), True, 1.0, "quadratic", False)
        >>> z.tolist(), pull(np.array([3.0, 0.0, 0.0])).tolist()
        ([2.25, 1.75, 2.0], [2.0, -1.0, -1.0])
    """
    rows = x.reshape(-1, x.shape[-1])
    place = _places((rows if descending else -rows).argsort())
    s = rows.take(place).astype(np.float64)
    s /= -temperature if descending else temperature
    blocks = _blocks(s, _countdown(s), regularizer, x.dtype, isotonic.largest(s), float(s.shape[-1]))
    if blocks is None:
        return None
    z = np.empty(x.shape, x.dtype)
    z.reshape(-1)[place] = blocks.projection()

    def pull(bar: np.ndarray) -> np.ndarray:
        moved = bar.take(place)
        moved -= blocks.shared(moved, s)
        moved /= -temperature if descending else temperature
        result = np.empty(x.shape, bar.dtype)
        result.reshape(-1)[place] = moved
        return result

    return z, pull


def values(
    x: np.ndarray, pulled: bool, temperature: float, regularizer: Regularizer, descending: bool
) -> tuple[np.ndarray, Pull] | None:
    """Projection of (n, …, 1) / temperature onto the permutahedron of each row (or the mirror image of that).

    Args:
        x: float32 or float64, (..., n), not empty.
        pulled: whether the product will be asked for, which takes the order of the entries.
        temperature: > 0.
        regularizer: as of `isotonic`.
        descending: whether without the minus: the largest comes first.

    Returns:
        As `ranks`.

    Example:
        >>> values(np.array([3.0, 1.0, 2.0]), False, 0.125, "quadratic", False)[0].tolist()
        [1.0, 2.0, 3.0]
    """
    rows = x.reshape(-1, x.shape[-1])
    rows = rows if descending else -rows
    place = _places((-rows).argsort()) if pulled else None
    w = (np.sort(rows)[:, ::-1] if place is None else rows.take(place)).astype(np.float64)
    s = _countdown(w) / temperature
    blocks = _blocks(s, w, regularizer, x.dtype, w.shape[-1] / temperature, isotonic.largest(w))
    if blocks is None:
        return None
    if place is not None:
        _order_ties(place, w)

    def pull(bar: np.ndarray) -> np.ndarray:
        result = np.empty(x.shape, bar.dtype)
        result.reshape(-1)[place] = blocks.shared(bar.reshape(w.shape), w)
        return result

    z = blocks.projection()
    return (z if descending else -z).astype(x.dtype, copy=False).reshape(x.shape), pull


class _Blocks:
    """Blocks of the regression of s on w, and sums over them."""

    def __init__(self, s: Floats, w: Floats, mean: bool, begin: np.ndarray) -> None:
        self._s, self._w, self._mean, self._begin = s, w, mean, begin
        self._size = isotonic.sizes(begin, s.size)

    def projection(self) -> Floats:
        """The projection of s, sorted."""
        if self._size.size == self._s.size:
            return self._w.copy()
        if self._mean:
            own, target = self._sum(self._s) / self._size, self._sum(self._w) / self._size
            return (self._s - self._spread(own)) + self._spread(target)
        # Sorted, so that the first entry of a block is its largest.
        s, w = self._below_first(self._s), self._below_first(self._w)
        level = np.log(self._sum(np.exp(w)) / self._sum(np.exp(s))) + self._w.take(self._begin)
        return s + self._spread(level)

    def shared(self, bar: np.ndarray, of: Floats) -> np.ndarray:
        """Weights of s, or of w, times the sums over blocks of a cotangent of the sorted result."""
        total = self._sum(bar.astype(np.float64))
        if self._mean:
            return self._spread(total / self._size)
        weights = np.exp(self._below_first(of))
        return weights * self._spread(total / self._sum(weights))

    def _below_first(self, part: Floats) -> Floats:
        return part - self._spread(part.take(self._begin))

    def _sum(self, part: Floats) -> Floats:
        return np.add.reduceat(part.ravel(), self._begin)

    def _spread(self, of_blocks: Floats) -> Floats:
        return of_blocks.repeat(self._size).reshape(self._s.shape)


def _blocks(
    s: Floats, w: Floats, regularizer: Regularizer, dtype: np.dtype, own: float, target: float
) -> _Blocks | None:
    """The blocks of sorted rows, see `isotonic.beginnings`; None where an entry is not finite."""
    if not math.isfinite(own + target):
        return None
    begin = isotonic.beginnings(s, w, regularizer, isotonic.rounding_of(dtype), own, target)
    return _Blocks(s, w, regularizer == "quadratic", begin)


def _places(order: np.ndarray) -> np.ndarray:
    """Indices into all rows one after another from those into each."""
    rows, n = order.shape
    return order + n * np.arange(rows)[:, None] if rows > 1 else order


def _order_ties(place: np.ndarray, ordered: Floats) -> None:
    """Put equal entries of sorted rows in the order of their places."""
    tied = ordered[:, 1:] == ordered[:, :-1]
    if tied.any():
        run = np.cumsum(np.pad(~tied, ((0, 0), (1, 0)), constant_values=True)).reshape(place.shape)
        some = np.pad(tied, ((0, 0), (1, 0))) | np.pad(tied, ((0, 0), (0, 1)))
        place[some] = place[some][np.lexsort((place[some], run[some]))]


def _countdown(like: Floats) -> Floats:
    """n, …, 1 in each row."""
    down = np.empty(like.shape)
    down[...] = np.arange(like.shape[-1], 0.0, -1.0)
    return down
