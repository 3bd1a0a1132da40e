"""Roots of many scalar functions at once: Newton's steps, kept inside brackets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cvxift._types import Floats

MOST_TRIALS = 100  # met only where subnormal data leave a function no root
NEAR_END = 1e-3  # how near to the end of its bracket a step that leaves it is taken


def descend(
    evaluate: Callable[..., tuple[Floats, Floats]],
    x: Floats,
    lo: Floats,
    hi: Floats,
    *data: Floats,
    value_tolerance: float,
    step_tolerance: float,
) -> Floats:
    """Roots of functions that are positive below their root and negative above it.

    A step beyond an end of its bracket is first taken almost to that end, because roots near the ends are what Newton's
    method overshoots; every third such step halves the bracket instead (in asinh x). Towards an unbounded side the
    distance from the start is tripled.

    Args:
        evaluate: from x and the data, the values and the points that Newton's method would go to, each of shape (N,).
        x: starting points inside the brackets, shape (N,).
        lo: lower ends, shape (N,); may be −inf.
        hi: upper ends, shape (N,); may be inf.
        *data: arguments of the functions, last axis N.
        value_tolerance: a function whose |value| is at most this is done.
        step_tolerance: a function whose step is at most this, relative to 1 + |x|, is done.

    Returns:
        The roots, shape (N,); NaN data end at once.

    Example:
        >>> def halve(x, target):
        ...     return target - x**2, 0.5 * (x + target / x)
        >>> target, low = np.array([2.0, 3.0]), np.zeros(2)
        >>> descend(halve, target, low, target, target, value_tolerance=0.0, step_tolerance=1e-9).round(6)
        array([1.414214, 1.732051])
    """
    found, active, start = x.copy(), np.arange(x.size), x
    for trial in range(MOST_TRIALS):
        value, target = evaluate(x, *data)
        lo, hi = np.where(value > 0.0, x, lo), np.where(value < 0.0, x, hi)
        inside = (target > lo) & (target < hi)
        if not inside.all():
            target = np.where(inside, target, _fallback(x, value, lo, hi, start, halve=trial % 3 == 2))
        busy = np.abs(value) > value_tolerance  # false for NaN too
        target = np.where(busy, target, x)
        busy &= np.abs(target - x) > step_tolerance * (1.0 + np.abs(x))
        x = found[active] = target
        left = np.count_nonzero(busy)
        if left == 0:
            break
        if 2 * left <= busy.size:  # go on with the others alone
            active, x, lo, hi, start = active[busy], x[busy], lo[busy], hi[busy], start[busy]
            data = tuple(item[..., busy] for item in data)
    return found


def _fallback(x: Floats, value: Floats, lo: Floats, hi: Floats, start: Floats, *, halve: bool) -> Floats:
    """Points inside the brackets, on the side of x where the root lies."""
    up = value > 0.0
    end = np.where(up, hi, lo)
    unbounded = np.isinf(end)
    away = x + np.where(up, 2.0, -2.0) * np.maximum(1.0, np.abs(x - start))
    if halve:
        with np.errstate(invalid="ignore"):
            step = np.sinh(0.5 * (np.arcsinh(x) + np.arcsinh(end)))
    else:
        step = end - NEAR_END * np.where(unbounded, 0.0, end - x)
    return np.where(unbounded, away, step)
