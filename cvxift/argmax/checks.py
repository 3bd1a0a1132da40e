"""Refusals of bad input to the closed forms, in the words of their arguments, for arrays whose values can be seen."""

from __future__ import annotations

from typing import Any

import array_api_compat

from cvxift.errors import ProgramError

Array = Any
SLACK = 1e-6  # relative rounding allowed between a sum and what the bounds allow


def check_order(name: str, alpha: Any) -> None:
    """Refuse an order, a number, below 1 or not finite."""
    if isinstance(alpha, bool) or not 1 <= alpha < float("inf"):
        raise ProgramError(f"{name} got alpha = {alpha}; expected a finite number ≥ 1 (1 softmax, 2 sparsemax).")


def check_temperature(name: str, temperature: Any) -> None:
    """Refuse a temperature, a number, that is not positive and finite."""
    if not 0 < temperature < float("inf"):
        raise ProgramError(f"{name} got temperature = {temperature}; it must be > 0 and finite.")


def check_scores(name: str, x: Array) -> None:
    """Refuse rows that hold NaN or +∞, naming the first."""
    xp = array_api_compat.array_namespace(x)
    if 0 in x.shape:
        return
    good = xp.max(x, axis=-1) < xp.inf  # false for NaN
    if not bool(xp.all(good)):
        raise ProgramError(f"{name} got scores with NaN or +∞{_first(xp, ~good)}; −∞ alone is a mask.")


def check_bounds(name: str, x: Array, total: Array, lower: Array, upper: Array) -> None:
    """Refuse an empty set {l ≤ z ≤ u, Σ z = total}; masked entries stand at l, fully masked rows are left alone."""
    xp = array_api_compat.array_namespace(x)
    if 0 in x.shape[:-1]:
        return
    good = (lower <= upper) & (xp.abs(lower) < xp.inf)
    if not bool(xp.all(good)):
        row = ~xp.all(good, axis=-1)
        raise ProgramError(
            f"{name}: lower must be finite and at most upper{_first(xp, row)}; the set is empty or unbounded."
        )
    least, most, empty = sums_allowed(xp, x, total, lower, upper)
    if bool(xp.any(empty)):
        empty = xp.reshape(empty, (-1,))
        worst = int(xp.argmax(xp.astype(empty, xp.int32)))
        low, high, asked = (float(xp.reshape(v, (-1,))[worst]) for v in (least, most, total))
        raise ProgramError(
            f"{name}: the set is empty{_first(xp, xp.reshape(empty, x.shape[:-1]))}: within the bounds, masked entries"
            f" at their lower ones, z sums to between {low:g} and {high:g}, never to {asked:g}."
        )


def sums_allowed(xp: Any, x: Array, total: Array, lower: Array, upper: Array) -> tuple[Array, Array, Array]:
    """Least and largest sum within the bounds, and whether the total is beyond them, each (..., 1)."""
    masked = x == -xp.inf
    least = xp.sum(lower, axis=-1, keepdims=True)
    most = xp.sum(xp.where(masked, lower, upper), axis=-1, keepdims=True)
    size = xp.sum(xp.maximum(xp.abs(lower), xp.where(upper < xp.inf, xp.abs(upper), lower)), axis=-1, keepdims=True)
    slack = SLACK * xp.maximum(size, xp.abs(total))
    inside = (least - slack <= total) & (total <= most + slack)
    return least, most, ~inside & ~xp.all(masked, axis=-1, keepdims=True)


def check_box(name: str, x: Array, lower: Array, upper: Array) -> None:
    """Refuse NaN scores and bounds that cross or are not finite."""
    xp = array_api_compat.array_namespace(x)
    if bool(xp.any(xp.isnan(x))):
        raise ProgramError(f"{name} got scores with NaN.")
    if not bool(xp.all((lower <= upper) & (xp.abs(lower) < xp.inf) & (xp.abs(upper) < xp.inf))):
        raise ProgramError(f"{name}: the bounds must be finite, lower at most upper; the box is empty or unbounded.")


def _first(xp: Any, bad: Array) -> str:
    """Which row is the first of a boolean array, in words; nothing where there is but one."""
    if not bad.ndim:
        return ""
    flat = int(xp.argmax(xp.astype(xp.reshape(bad, (-1,)), xp.int32)))
    index = []
    for size in reversed(bad.shape):
        flat, place = divmod(flat, size)
        index.append(place)
    return f", first in row {tuple(reversed(index)) if len(index) > 1 else index[0]}"
