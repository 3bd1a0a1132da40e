"""α-entmax to the last digit of float32 where there is no float64: sums of two floats for what cancels.

At the edge of the support z = (ε q)^{1/ε} takes the root of q = 1/ε + (x − max x) − c, the small difference of large
numbers. Each is held as an unevaluated sum of two floats, so that q has its own relative rounding, and c is improved
until the values sum to one. Only additions need be exact here, so that a compiler may fuse products with sums (XLA
does); none may regroup sums (XLA does not, PyTorch neither). As all values move with c in one direction, Σ z = 1 ± δ
says that none is off by more than δ.

T. Dekker 1971; D. Knuth, "The Art of Computer Programming", vol. 2, section 4.2.2 (`two_sum`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cvxift._types import Array
from cvxift.argmax.loops import Loop

Pair = tuple[Array, Array]
FAR = -1e30  # for what is masked
LIMIT = 100  # of iterations
GROUP = 16
WIDTH = 0.01  # within which c is known


def two_sum(a: Array, b: Array) -> Pair:
    """a + b exactly, as the rounded sum and what it lacks.

    Example:
        >>> import numpy as np
        >>> two_sum(np.float32(1), np.float32(2.0**-30)) == (1, 2.0**-30)
        True
    """
    s = a + b
    share = s - a
    return s, (a - (s - share)) + (b - share)


def careful_sum(xp: Any, x: Array) -> Pair:
    """Σ x along the last axis as a pair, (..., 1): sixteen at a time, the last of them exactly."""
    while x.shape[-1] > GROUP:
        size = x.shape[-1] // GROUP
        tail = x[..., GROUP * size :]
        x = xp.sum(xp.reshape(x[..., : GROUP * size], (*x.shape[:-1], GROUP, size)), axis=-2)
        x = xp.concat([x, tail], axis=-1) if tail.shape[-1] else x
    rest = xp.zeros_like(x[..., :1])
    while x.shape[-1] > 1:
        half, tail = x.shape[-1] // 2, x[..., 2 * (x.shape[-1] // 2) :]
        x, lack = two_sum(x[..., :half], x[..., half : 2 * half])
        rest = rest + xp.sum(lack, axis=-1, keepdims=True)
        x = xp.concat([x, tail], axis=-1) if tail.shape[-1] else x
    return x, rest


def reciprocal(xp: Any, eps: Any) -> tuple[Any, Any]:
    """1/ε as a pair: of a number by float64, of a float32 array by the exact product of its halves."""
    if isinstance(eps, float):
        high = float(np.float32(1.0 / eps))
        return high, 1.0 / eps - high
    safe = xp.where(eps > 0, eps, xp.ones_like(eps))
    high = 1.0 / safe

    def parted(a: Array) -> Pair:
        large = 4096.0 * a
        head = (a + large) - large
        return head, a - head

    (a, b), (c, d) = parted(high), parted(safe)
    # Products of 12 digits are exact.
    lack = ((1.0 - a * c) - (a * d + b * c)) - b * d
    return high, lack * high


def entmax(xp: Any, x: Array, top: Array, c: Array, alpha: Any, loop: Loop) -> Array:
    """α-entmax from its threshold to the rounding of float32.

    Args:
        xp: the namespace.
        x: scores, (..., n), float32; −∞ masks.
        top: the rows' maxima, 0 in masked rows, (..., 1).
        c: the threshold as `simplex.threshold` gives it, to rounding, (..., 1).
        alpha: order, a float > 1 or an array ≥ 1, (..., 1).
        loop: how to iterate, see `control`.

    Returns:
        z of x's shape.
    """
    eps = alpha - 1.0
    masked = x == -xp.inf
    d, d_low = two_sum(xp.where(masked, top, x), -top)
    near = ~masked & (d > FAR)
    d, d_low = xp.where(near, d, xp.full_like(d, FAR)), xp.where(near, d_low, xp.zeros_like(d))
    r, r_low = reciprocal(xp, eps)
    q, q_low = two_sum(d, r + xp.zeros_like(d))
    q_low = q_low + (d_low + r_low)

    def terms(delta: Array, delta_low: Array) -> tuple[Array, Array]:
        """z and its slope in −c at c + δ."""
        moved, moved_low = two_sum(c, delta)
        moved_low = moved_low + delta_low
        head, lack = two_sum(q, -moved)
        u = eps * (head + (lack + (q_low - moved_low)))
        head, lack = two_sum(d, -moved)
        v = head + (lack + (d_low - moved_low))
        return _power(xp, u, v, eps)

    empty = ~xp.any(near, axis=-1, keepdims=True)
    delta = _correction(xp, terms, empty, xp.zeros_like(c), loop)
    # What is left of Σ z − 1 is of the order of rounding, and shared out to first order.
    z, slope = terms(*delta)
    total, lack = careful_sum(xp, z)
    step = ((total - 1.0) + lack) / _positive_or_one(xp, xp.sum(slope, axis=-1, keepdims=True))
    z = xp.clip(z - step * slope, min=0.0)
    return xp.where(xp.isnan(top), top + z, z)


def _power(xp: Any, u: Array, v: Array, eps: Any) -> tuple[Array, Array]:
    """z = u^{1/ε} and z/u, where u = 1 + εv; by whichever of both has more digits."""
    t = eps * v
    inside = u > 0
    safe = xp.where(inside, u, xp.ones_like(u))
    close = t > -0.5
    if isinstance(eps, float) and eps == 0.5:
        t = xp.where(close, t, xp.zeros_like(t))
        z = xp.where(close, 1.0 + t * (2.0 + t), safe * safe)
    else:
        number = eps if isinstance(eps, float) else xp.where(eps > 0, eps, xp.ones_like(eps))
        log = xp.where(close, xp.log1p(xp.where(close, t, xp.zeros_like(t))), xp.log(safe)) / number
        if not isinstance(eps, float):
            log, inside = xp.where(eps > 0, log, v), inside | (eps == 0)
            safe = xp.where(eps > 0, safe, xp.ones_like(safe))
        z = xp.exp(log)
    nothing = xp.zeros_like(z)
    return xp.where(inside, z, nothing), xp.where(inside, z / safe, nothing)


def _positive_or_one(xp: Any, x: Array) -> Array:
    return xp.where(x > 0, x, xp.ones_like(x))


def _correction(xp: Any, terms: Any, empty: Array, zero: Array, loop: Loop) -> Pair:
    """δ with Σ z = 1, by Newton's method in an interval, which it halves where a step leaves it or gains little."""
    enough = 2 * float(xp.finfo(zero.dtype).eps)

    def running(state: tuple[Array, ...]) -> Array:
        *_, done, count = state
        return xp.any(~done) & (count < LIMIT)

    def iterate(state: tuple[Array, ...]) -> tuple[Array, ...]:
        delta, rest, low, high, before, done, count = state
        z, slope = terms(delta, rest)
        total, lack = careful_sum(xp, z)
        gap = (total - 1.0) + lack
        low, high = xp.where(gap >= 0, delta, low), xp.where(gap <= 0, delta, high)
        new, new_rest = two_sum(delta, rest + gap / _positive_or_one(xp, xp.sum(slope, axis=-1, keepdims=True)))
        slow = ~((new >= low) & (new <= high)) | (2 * xp.abs(gap) > before)
        middle = 0.5 * (low + high)
        slow = slow & (middle != delta)  # else Newton's steps are all that is left
        new, new_rest = xp.where(slow, middle, new), xp.where(slow, xp.zeros_like(rest), new_rest)
        done = done | ~(xp.abs(gap) > enough) | ((new == delta) & (new_rest == rest))
        new, new_rest = xp.where(done, delta, new), xp.where(done, rest, new_rest)
        return new, new_rest, low, high, xp.abs(gap), done, count + 1

    width = xp.full_like(zero, WIDTH)
    state = (zero, zero, -width, width, xp.full_like(zero, xp.inf), empty, 0)
    return loop(running, iterate, state)[:2]
