"""Projection onto a permutahedron, hence soft sorting and ranking, by isotonic regression.

The permutahedron of w is the convex hull of its permutations. With s and w sorted decreasingly, the projections are

    quadratic   argmin ½‖μ − s‖²                       = s − mean_B(s) + mean_B(w)
    entropic    log argmin KL(μ, e^s), μ in that of e^w  = s − lse_B(s) + lse_B(w),     lse = log Σ exp,

with the blocks B of consecutive entries on which the decreasing isotonic regression of s on w is constant. The blocks
do not vary near almost every point, and given them the value is a formula that any framework differentiates, to any
order, in O(n). Only the blocks (pooling adjacent violators) are found on the host, in float64, by SciPy.

M. Blondel, O. Teboul, Q. Berthet, J. Djolonga, "Fast differentiable sorting and ranking", ICML 2020, Propositions 3, 4.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import array_api_compat
import numpy as np
from scipy.optimize import isotonic_regression

from cvxift._types import EPS, Array

Regularizer = Literal["quadratic", "entropic"]
SegmentSum = Callable[[Array, Array], Array]
Take = Callable[[Array, Array], Array]
RANGE = 300.0  # of scores and of targets, up to which products of their exponentials are normal numbers in float64
ROUNDS = 32  # rounds in which all violators are pooled at once, before they are pooled one by one


def blocks(s: np.ndarray, w: np.ndarray, regularizer: Regularizer = "quadratic") -> np.ndarray:
    """Blocks of the decreasing isotonic regression of s on w, in O(n) a row.

    Args:
        s: finite rows sorted decreasingly, (..., n).
        w: likewise, broadcast against s.
        regularizer: whether a block takes the value mean(s) − mean(w) or lse(s) − lse(w).

    Returns:
        For each entry the index at which its block begins, (..., n).

    Example:
        >>> blocks(np.array([3.0, 3.0, 1.0]), np.array([3.0, 2.0, 1.0])).tolist()
        [0, 0, 2]
    """
    shape = np.broadcast_shapes(s.shape, w.shape)
    if 0 in shape:
        return np.zeros(shape, dtype=np.int64)
    rounding = max(rounding_of(part.dtype) for part in (s, w))
    s, w = (np.broadcast_to(part, shape).reshape(-1, shape[-1]).astype(np.float64) for part in (s, w))
    begin = beginnings(s, w, regularizer, rounding, largest(s), largest(w))
    # SciPy pools equal values. Where equal scores stand on equal targets, the projection does not depend on them.
    end = begin + sizes(begin, s.size) - 1
    level = (begin < end) & (s.flat[begin] == s.flat[end]) & (w.flat[begin] == w.flat[end])
    for i, j in zip(begin[level].tolist(), end[level].tolist()):
        begin = np.union1d(begin, np.arange(i, j + 1))
    return (begin.repeat(sizes(begin, s.size)) % shape[-1]).reshape(shape)


def sizes(begin: np.ndarray, total: int) -> np.ndarray:
    """Lengths of the blocks that begin there, of so many entries."""
    length = np.empty_like(begin)
    np.subtract(begin[1:], begin[:-1], out=length[:-1])
    length[-1] = total - begin[-1]
    return length


def largest(rows: np.ndarray) -> float:
    """The largest absolute value of an entry of sorted rows; not finite where an entry is not."""
    return float(np.maximum(np.maximum.reduce(rows[:, 0]), -np.minimum.reduce(rows[:, -1])))


@lru_cache
def rounding_of(dtype: np.dtype) -> float:
    """Of numbers of that dtype, relative."""
    return float(np.finfo(dtype).eps)


def beginnings(
    s: np.ndarray, w: np.ndarray, regularizer: Regularizer, rounding: float, own: float, target: float
) -> np.ndarray:
    """Where blocks begin, as indices into all rows one after another.

    Args:
        s: see `blocks`; float64, (b, n), not empty.
        w: likewise.
        regularizer: see `blocks`.
        rounding: of the dtype that the result will have, relative.
        own: the largest absolute value of an entry of s.
        target: likewise of w.
    """
    # Neighbours pooled for their differences' rounding are as far from the projection as that rounding.
    exact = regularizer == "entropic" or own * EPS <= 16 * rounding * target
    begin = _compiled(s, w, regularizer) if exact else None
    return _pooled(s, w, regularizer) if begin is None else begin


def _compiled(s: np.ndarray, w: np.ndarray, regularizer: Regularizer) -> np.ndarray | None:
    """`beginnings` by SciPy, which pools by the rounded differences s − w; None where exponentials fail.

    An entropic block's lse(s) − lse(w) is the logarithm of the mean of e^(s − w), weighted by e^w.
    """
    rows, n = s.shape
    weights = None
    # All rows as one, with NaN between, which compares with nothing: so no block has parts of two.
    values = np.full((rows, n + 1), np.nan)
    if regularizer == "quadratic":
        np.subtract(s, w, out=values[:, :n])
    else:
        if not max((part[:, 0] - part[:, -1]).max() for part in (s, w)) <= RANGE:
            return None
        weights = np.zeros_like(values)
        low = np.subtract(w, w[:, :1], out=weights[:, :n])
        np.exp(s - s[:, :1] - low, out=values[:, :n])
        weights = np.exp(weights, out=weights).ravel()[:-1]
    found = isotonic_regression(values.ravel()[:-1], weights=weights, increasing=False)
    begins = np.zeros(rows * (n + 1), dtype=bool)
    begins[found.blocks[:-1]] = True
    begins = begins.reshape(rows, n + 1)
    if rows > 1 and not np.logical_and.reduce(begins[1:, 0] & begins[:-1, n]):
        return None
    return begins[:, :n].ravel().nonzero()[0]


def _pooled(s: np.ndarray, w: np.ndarray, regularizer: Regularizer) -> np.ndarray:
    """`beginnings` by sums of s and w apart, so that large ties cancel exactly."""
    n = s.shape[-1]
    # All rows as one, with barriers between: what a block knows of itself are two sums and its length.
    own, target = s.ravel(), w.ravel()
    length = np.ones(own.size)
    begin = np.arange(own.size)
    add = np.add if regularizer == "quadratic" else np.logaddexp
    for _ in range(ROUNDS):
        violated = _violated(own, target, length, regularizer) & (begin[1:] % n != 0)
        if not violated.any():
            return begin
        # Neighbours in a run of violations violate each other still when two of them are pooled, so all are.
        keep = np.flatnonzero(np.concatenate([[True], ~violated]))
        own, target = add.reduceat(own, keep), add.reduceat(target, keep)
        length, begin = np.add.reduceat(length, keep), begin[keep]
    return _one_by_one(own, target, length, begin, n, regularizer)


def _violated(own: np.ndarray, target: np.ndarray, length: np.ndarray, regularizer: Regularizer) -> np.ndarray:
    """Where a block's value is less than the next one's; differences of s first, so that large ties cancel exactly."""
    if regularizer == "quadratic":
        own, target = own / length, target / length
    return own[:-1] - own[1:] < target[:-1] - target[1:]


def _one_by_one(
    own: np.ndarray, target: np.ndarray, length: np.ndarray, begin: np.ndarray, n: int, regularizer: Regularizer
) -> np.ndarray:
    """Beginnings of the blocks by the sequential algorithm, which takes linear time whatever the order of events."""
    mean = regularizer == "quadratic"
    stack: list[tuple[float, float, float, int]] = []
    for block in zip(own.tolist(), target.tolist(), length.tolist(), begin.tolist()):
        while stack and block[3] % n != 0:
            s, w, size, start = stack[-1]
            if mean:
                gap = s / size - block[0] / block[2] - (w / size - block[1] / block[2])
            else:
                gap = s - block[0] - (w - block[1])
            if gap >= 0:
                break
            stack.pop()
            if mean:
                block = (s + block[0], w + block[1], size + block[2], start)
            else:
                block = (float(np.logaddexp(s, block[0])), float(np.logaddexp(w, block[1])), size + block[2], start)
        stack.append(block)
    return np.array([block[3] for block in stack])


def project(
    s: Array, w: Array, first: Array, regularizer: Regularizer, segment_sum: SegmentSum, take: Take | None = None
) -> Array:
    """The projection of s onto the permutahedron of w, both sorted decreasingly, from its blocks.

    Args:
        s: (..., n).
        w: of s's shape.
        first: their `blocks`.
        regularizer: see the module.
        segment_sum: (values, indices) ↦ sums of the values by index along the last axis, of the same shape.
        take: (values, indices) ↦ values at the indices along the last axis; None for the namespace's own.

    Returns:
        The projection, decreasing; (..., n).
    """
    xp = array_api_compat.array_namespace(s, w)

    def of_block(values: Array) -> Array:
        return xp.take_along_axis(values, first, axis=-1) if take is None else take(values, first)

    if regularizer == "quadratic":
        count = segment_sum(xp.ones_like(s), first)
        count = xp.where(count > 0, count, xp.ones_like(count))
        return (s - of_block(segment_sum(s, first) / count)) + of_block(segment_sum(w, first) / count)
    # Sorted, so that the first entry of a block is its largest.
    top_s, top_w = of_block(s), of_block(w)
    total_s, total_w = of_block(segment_sum(xp.exp(s - top_s), first)), of_block(segment_sum(xp.exp(w - top_w), first))
    return (s - top_s) - xp.log(total_s) + xp.log(total_w) + top_w


def loss(s: Array, z: Array, y: Array, take: Take | None = None) -> Array:
    """½‖s − y‖² − ½‖s − z‖² for the projection z of s onto the permutahedron and another point y of it, (...).

    It is ½‖z − y‖² + ⟨s − z, z − y⟩. In the order of s, s − z decreases and the partial sums of z − y are ≥ 0, so that
    by summation by parts the second term is a sum of products ≥ 0, none of which suffers cancellation.

    Args:
        s: scores in any order, (..., n).
        z: their projection.
        y: the other point.
        take: as for `project`.
    """
    xp = array_api_compat.array_namespace(s, z, y)
    apart = z - y
    value = 0.5 * xp.sum(apart * apart, axis=-1)
    if s.shape[-1] < 2:
        return value
    order = xp.argsort(s, axis=-1, descending=True, stable=True)
    take = take or (lambda part, order: xp.take_along_axis(part, order, axis=-1))
    s, z, apart = (take(part, order) for part in (s, z, apart))
    falls = (s[..., :-1] - s[..., 1:]) - (z[..., :-1] - z[..., 1:])
    ahead = xp.cumulative_sum(apart, axis=-1)[..., :-1]
    nothing = xp.zeros_like(falls)
    # NaN stays.
    return value + xp.sum(xp.where(falls < 0, nothing, falls) * xp.where(ahead < 0, nothing, ahead), axis=-1)


def segment_sum(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Sums of values by index along the last axis, for NumPy.

    Example:
        >>> segment_sum(np.array([1.0, 2.0, 4.0]), np.array([0, 0, 2]))
        array([3., 0., 4.])
    """
    n = values.shape[-1]
    rows = np.arange(values.size // max(n, 1))[:, None] * n
    flat = np.bincount((index.reshape(-1, n) + rows).ravel(), weights=values.ravel(), minlength=values.size)
    return flat.reshape(values.shape)
