"""Projection onto a permutahedron, hence soft sorting and ranking, by isotonic regression.

The permutahedron of w is the convex hull of its permutations. With s and w sorted decreasingly, the projections are

    quadratic   argmin ½‖μ − s‖²                       = s − mean_B(s) + mean_B(w)
    entropic    log argmin KL(μ, e^s), μ in that of e^w  = s − lse_B(s) + lse_B(w),     lse = log Σ exp,

with the blocks B of consecutive entries on which the decreasing isotonic regression of s on w is constant. The blocks
do not vary near almost every point, and given them the value is a formula that any framework differentiates, to any
order, in O(n). Only finding the blocks (pooling adjacent violators) is done here in NumPy, in float64, on the host.

M. Blondel, O. Teboul, Q. Berthet, J. Djolonga, "Fast differentiable sorting and ranking", ICML 2020, Propositions 3, 4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import array_api_compat
import numpy as np

from cvxift._types import Array

Regularizer = Literal["quadratic", "entropic"]
SegmentSum = Callable[[Array, Array], Array]
Take = Callable[[Array, Array], Array]
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
    s, w = np.broadcast_arrays(np.asarray(s, dtype=np.float64), np.asarray(w, dtype=np.float64))
    n = s.shape[-1]
    if s.size == 0:
        return np.zeros(s.shape, dtype=np.int64)
    # All rows as one, with barriers between: what a block knows of itself are two sums and its length.
    own, target = s.ravel(), w.ravel()
    length = np.ones(own.size)
    begin = np.arange(own.size)
    add = np.add if regularizer == "quadratic" else np.logaddexp
    for _ in range(ROUNDS):
        violated = _violated(own, target, length, regularizer) & (begin[1:] % n != 0)
        if not violated.any():
            break
        # Neighbours in a run of violations violate each other still when two of them are pooled, so all are.
        keep = np.flatnonzero(np.concatenate([[True], ~violated]))
        own, target = add.reduceat(own, keep), add.reduceat(target, keep)
        length, begin = np.add.reduceat(length, keep), begin[keep]
    else:
        begin = _one_by_one(own, target, length, begin, n, regularizer)
    first = np.zeros(s.size, dtype=np.int64)
    first[begin] = begin
    return (np.maximum.accumulate(first) % n).reshape(s.shape)


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
