"""Whether F = 0 at a point, entry by entry and relative to what balances there, at the price of two evaluations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, reduce
from typing import Any

import numpy as np

from cvxift.implicit.krylov import divided

Array = Any

STEP = 2.0**-10  # relative step of the probes: their own error does not matter, rounding at a small one would
SHARE = 0.1  # of the largest entry of x that smaller ones count for where constraints are: a bound x >= 0 has no size
BETTER = 0.1  # of F, that it may be at zero where zero is a better solution
ROUNDINGS_OF_ZERO = 1e4  # units of rounding of the largest entry, up to which an entry is zero whatever its unit
CURVED = 1e-3  # bend of F over half an entry; over less than 1e-6 of its unit a smooth F bends by about as little
GOLDEN = 0.6180339887498949


def tolerance_of(eps: float) -> float:
    """Relative residual up to which a point counts as a solution: 1e-6 in double, 3e-3 in single precision.

    The derivative at a point that is off by δ is off by about δ, so this is also the error that is passed in silence.
    """
    return eps**0.375


@lru_cache(maxsize=32)
def weights(n: int) -> np.ndarray:
    """n different weights in [½, 3/2]: no two terms of a row cancel in what a step along them changes."""
    return 0.5 + np.modf(GOLDEN * np.arange(1, n + 1))[0]


def solves(
    xp: Any,
    function: Callable[..., Array],
    x: Array,
    tensors: Sequence[Array],
    residual: Array,
    along: Sequence[Array],
    variables: int,
    parts: Sequence[int],
    limit: float,
) -> Array:
    """Whether every |F_i| is small beside what x balances alone, which is all that most calls need.

    For the arguments see `relative_residual`; ``limit`` is that of the ratios.

    Returns:
        One boolean; where it is false, `relative_residual` may still be small, or excused by `beside_zero`.
    """
    size, doubtful = _sizes(xp, x, variables, parts)
    there = function(x + STEP * size * along[0], *tensors)
    good = xp.all(xp.abs(residual) <= limit * _change(xp, there, residual))
    return good if variables else good & ~xp.any(doubtful)


def relative_residual(
    xp: Any,
    function: Callable[..., Array],
    x: Array,
    tensors: Sequence[Array],
    residual: Array,
    along: Sequence[Array],
    variables: int,
    parts: Sequence[int] = (),
    of_bounds: bool = False,
) -> Array:
    """|F_i| over what balances in F_i, shape (*batch, n).

    Args:
        xp: the arrays' namespace.
        function: (x, *tensors) ↦ residual.
        x: shape (*batch, n).
        tensors: θ.
        residual: F(x, θ), shape (*batch, n).
        along: `weights` of x and of each tensor, broadcastable to them; None for a tensor that has no floating entries.
        variables: number of entries of x that are no multipliers; 0 where there are no constraints.
        parts: numbers of entries of x's leaves, which may have units of their own; empty for one unit.
        of_bounds: whether F are constraints, at whose bounds all of x may be zero: θ has its unit, too.

    Returns:
        Ratios; infinite where F_i ≠ 0 changes with nothing, or is NaN.
    """
    size, doubtful = _sizes(xp, x, variables, parts, _common_unit(xp, x, tensors, along) if of_bounds else None)
    if not variables:  # a smooth F is straight over an entry that is nearly zero, not over one whose unit is small
        half = xp.where(doubtful, 0.5 * xp.abs(x), xp.zeros_like(x))
        plus, minus = function(x + half, *tensors), function(x - half, *tensors)
        bend = xp.abs(plus - residual + (minus - residual))
        bent = xp.any(bend > CURVED * xp.abs(plus - minus), axis=-1)[..., None]
        size = xp.where(doubtful & bent, xp.abs(x), size)
    balanced = _change(xp, function(x + STEP * size * along[0], *tensors), residual)
    if any(weight is not None for weight in along[1:]):
        balanced = balanced + _of_theta(xp, function, x, tensors, residual, along)
    ratio = divided(xp, xp.abs(residual), balanced)
    lost = xp.isnan(residual) | ((balanced == 0) & (residual != 0))
    return xp.where(lost, xp.full_like(ratio, xp.inf), ratio)


def beside_zero(
    xp: Any, function: Callable[..., Array], x: Array, tensors: Sequence[Array], residual: Array, ratio: Array
) -> Array:
    """Ratios without those of entries that are zero but for a solver's last digits, which have no size to compare with.

    There zero itself is a better solution. Where x is small because its unit is, it is a worse one. For the arguments
    see `relative_residual`, whose result ``ratio`` is.
    """
    small = xp.abs(x) <= tolerance_of(float(xp.finfo(x.dtype).eps))
    without = function(xp.where(small, xp.zeros_like(x), x), *tensors)
    better = small.any(-1)[..., None] & (xp.abs(without) <= BETTER * xp.abs(residual))
    return xp.where(better, xp.zeros_like(ratio), ratio)


def balance(
    xp: Any,
    function: Callable[..., Array],
    x: Array,
    tensors: Sequence[Array],
    value: Array,
    along: Sequence[Array],
    variables: int,
) -> Array:
    """What balances in each entry of F; see `relative_residual`, also for the arguments.

    Σⱼ |∂Fᵢ/∂xⱼ xⱼ| + Σⱼ |∂Fᵢ/∂θⱼ θⱼ| is read off F's change when all entries of x, and then of θ, grow by 0.1 % times
    weights that differ. It has F's units, whatever they are.
    """
    size, _ = _sizes(xp, x, variables, (), _common_unit(xp, x, tensors, along))
    own = _change(xp, function(x + STEP * size * along[0], *tensors), value)
    return own + _of_theta(xp, function, x, tensors, value, along)


def _common_unit(xp: Any, x: Array, tensors: Sequence[Array], along: Sequence[Array]) -> Array:
    """The largest entry of one instance's x and θ, at most 1; 1 where θ is zero, for x alone may be rounding."""
    floating = [t for t, weight in zip(tensors, along[1:], strict=True) if weight is not None and math.prod(t.shape)]
    theta = reduce(xp.maximum, [xp.astype(xp.max(xp.abs(t)), x.dtype) for t in floating] or [xp.zeros_like(x[0])])
    unit = xp.clip(xp.maximum(theta, xp.max(xp.abs(x))), max=1.0)
    return xp.where(theta > 0, unit, xp.ones_like(unit))


def _sizes(xp: Any, x: Array, variables: int, parts: Sequence[int], common: Array | None = None) -> tuple[Array, Array]:
    """What the entries of x count as: no less than a small part of their unit: `common`, or their leaf's largest entry.

    Returns:
        Sizes, and which entries are smaller than that but not zero: their unit is smaller, or they are nearly zero.
    """
    size, eps = xp.abs(x), float(xp.finfo(x.dtype).eps)
    lengths = [variables, x.shape[-1] - variables] if variables else list(parts) if len(parts) > 1 else [x.shape[-1]]
    whole = xp.clip(xp.max(size, axis=-1, keepdims=True), max=1.0)
    zero, floors, start = ROUNDINGS_OF_ZERO * eps * whole, [], 0
    for length in filter(None, lengths):
        own = size[..., start : start + length]
        start += length
        unit = xp.clip(xp.max(own, axis=-1, keepdims=True), max=1.0)
        if len(lengths) > 1:  # multipliers say nothing of the unit that variables have
            unit = unit if start == variables else xp.where(unit > zero, unit, whole)
        unit = unit + (unit == 0) if common is None else xp.zeros_like(unit) + common  # all zeros have no unit
        floor = tolerance_of(eps) * unit
        if variables and start == variables:
            floor = xp.maximum(floor, SHARE * xp.max(own, axis=-1, keepdims=True))
        floors.append(xp.broadcast_to(floor, own.shape))
    floor = xp.concat(floors, axis=-1) if len(floors) > 1 else floors[0]
    return xp.maximum(size, floor), (size < floor) & (size > zero)


def _of_theta(
    xp: Any, function: Callable[..., Array], x: Array, tensors: Sequence[Array], value: Array, along: Sequence[Array]
) -> Array:
    moved = [t if weight is None else t + STEP * t * weight for t, weight in zip(tensors, along[1:], strict=True)]
    return _change(xp, function(x, *moved), value)


def _change(xp: Any, there: Array, here: Array) -> Array:
    change = xp.abs(there - here) / STEP
    return xp.where(xp.isfinite(change), change, xp.zeros_like(change))  # a probe may leave F's domain
