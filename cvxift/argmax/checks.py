"""Refusals of bad input to the closed forms, in the words of their arguments.

What can be seen is refused. What cannot, in a program that is being traced or mapped, becomes NaN: `guarded` spoils an
argument, `spoiled` a result, both by a product, so that all derivatives are NaN too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import array_api_compat

from cvxift._types import Array
from cvxift.argmax.groups import ROWS, Groups
from cvxift.errors import ProgramError

SLACK = 1e-6  # relative rounding allowed between a sum and what the bounds allow


class Range(NamedTuple):
    """What an argument may be."""

    argument: str
    words: str
    least: float
    inclusive: bool  # whether the least is allowed; +∞ never is

    def holds(self, value: Any) -> Any:
        """Whether a number, or each of an array's, lies within."""
        above = value >= self.least if self.inclusive else value > self.least
        return above & (value < float("inf"))


ORDER = Range("alpha", "a finite number ≥ 1 (1 softmax, 2 sparsemax)", 1.0, True)
TEMPERATURE = Range("temperature", "> 0 and finite", 0.0, False)


def check_number(name: str, allowed: Range, value: Any) -> None:
    """Refuse a number out of its range."""
    if isinstance(value, bool) or not allowed.holds(value):
        raise ProgramError(f"{name} got {allowed.argument} = {value}; it must be {allowed.words}.")


def guarded(xp: Any, name: str, allowed: Range, value: Array, seen: bool) -> Array:
    """An array of a range; out of it, refused where it can be seen, else NaN with its derivatives.

    Args:
        xp: the namespace.
        name: the function that was called.
        allowed: what the argument may be.
        value: the argument.
        seen: whether its values can be looked at.

    Raises:
        ProgramError: a value that can be seen lies outside.
    """
    good = allowed.holds(value)
    if not seen:
        return spoiled(xp, value, ~good)
    if not bool(xp.all(good)):
        raise ProgramError(f"{name} got {allowed.argument} = {value}; it must be {allowed.words}.")
    return value


def spoiled(xp: Any, z: Array, bad: Array | None = None) -> Array:
    """z, NaN where ``bad`` (None: where z is NaN), and there its derivatives are NaN, which ``where`` would drop.

    An input that is spoiled has NaN for its gradient whatever becomes of it, a result only where its formula passes on.

    Example:
        >>> import numpy as np
        >>> spoiled(np, np.array([1.0, 2.0]), np.array([False, True]))
        array([ 1., nan])
    """
    bad = xp.isnan(z) if bad is None else bad
    nothing = xp.zeros_like(bad, dtype=z.dtype)
    return z * xp.where(bad, nothing + xp.nan, nothing + 1.0)


def check_scores(name: str, x: Array) -> None:
    """Refuse rows that hold NaN or +∞, naming the first."""
    xp = array_api_compat.array_namespace(x)
    if 0 in x.shape:
        return
    good = xp.max(x, axis=-1) < xp.inf  # false for NaN
    if not bool(xp.all(good)):
        raise ProgramError(
            f"{name} got scores with NaN or +∞{_first(xp, ~good)}; −∞ alone is a mask. (A temperature out of its range"
            " gives NaN where it cannot be seen.)"
        )


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


def check_bounds_of_groups(name: str, x: Array, total: Array, lower: Array, upper: Array, groups: Groups) -> None:
    """`check_bounds` for groups of entries."""
    xp = array_api_compat.array_namespace(x)
    crossed = ~((lower <= upper) & (xp.abs(lower) < xp.inf))
    if bool(xp.any(crossed)):
        where = int(xp.argmax(xp.astype(crossed, xp.int32)))
        raise ProgramError(f"{name}: lower must be finite and at most upper, but not at entry {where}.")
    least, most, empty = sums_allowed(xp, x, total, lower, upper, groups)
    if bool(xp.any(empty)):
        worst = int(xp.argmax(xp.astype(empty, xp.int32)))
        low, high, asked = (float(part[worst]) for part in (least, most, total))
        raise ProgramError(
            f"{name}: the set of group {worst} is empty: within the bounds, masked entries at their lower ones, z sums"
            f" to between {low:g} and {high:g}, never to {asked:g}."
        )


def sums_allowed(
    xp: Any, x: Array, total: Array, lower: Array, upper: Array, groups: Groups = ROWS
) -> tuple[Array, Array, Array]:
    """Least and largest sum within the bounds, and whether the total is beyond them, one for each group."""
    masked = x == -xp.inf
    nothing = xp.zeros_like(x)
    least = groups.sum(lower + nothing)
    most = groups.sum(xp.where(masked, lower, upper))
    size = groups.sum(xp.maximum(xp.abs(lower), xp.where(upper < xp.inf, xp.abs(upper), lower)) + nothing)
    slack = SLACK * xp.maximum(size, xp.abs(total))
    inside = (least - slack <= total) & (total <= most + slack)
    some = groups.max(x) > -xp.inf
    return least, most, ~inside & some


def check_box(name: str, x: Array, lower: Array, upper: Array) -> None:
    """Refuse NaN scores and bounds that cross or are not finite."""
    xp = array_api_compat.array_namespace(x)
    if bool(xp.any(xp.isnan(x))):
        raise ProgramError(f"{name} got scores with NaN.")
    if bool(xp.any(out_of_box(xp, x, lower, upper))):
        raise ProgramError(f"{name}: the bounds must be finite, lower at most upper; the box is empty or unbounded.")


def out_of_box(xp: Any, x: Array, lower: Array, upper: Array) -> Array:
    """Where `check_box` would refuse."""
    return xp.isnan(x) | ~(lower <= upper) | ~(xp.abs(lower) < xp.inf) | ~(xp.abs(upper) < xp.inf)


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
