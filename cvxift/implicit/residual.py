"""Whether F = 0 at a point, entry by entry and relative to what balances there, at the price of two evaluations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from cvxift.implicit.krylov import divided

Array = Any

STEP = 2.0**-10  # relative step of the probes: their own error does not matter, rounding at a small one would
SHARE = 0.1  # of the largest entry of x that smaller ones count for where constraints are: a bound x >= 0 has no size
BETTER = 0.1  # of F, that it may be at zero where zero is a better solution
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
    limit: float,
) -> Array:
    """Whether every |F_i| is small beside what x balances alone, which is all that most calls need; see the next.

    Args:
        xp: the arrays' namespace.
        function: (x, *tensors) ↦ residual.
        x: shape (*batch, n).
        tensors: θ.
        residual: F(x, θ), shape (*batch, n).
        along: as for `relative_residual`.
        variables: likewise.
        limit: of the ratios.

    Returns:
        One boolean; where it is false, `relative_residual` may still be small, or excused by `beside_zero`.
    """
    return xp.all(xp.abs(residual) <= limit * _of_x(xp, function, x, tensors, residual, along[0], variables))


def relative_residual(
    xp: Any,
    function: Callable[..., Array],
    x: Array,
    tensors: Sequence[Array],
    residual: Array,
    along: Sequence[Array],
    variables: int,
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
        of_bounds: whether F are constraints, at whose bounds x may be zero in any unit.

    Returns:
        Ratios; infinite where F_i ≠ 0 changes with nothing, or is NaN.
    """
    balanced = _of_x(xp, function, x, tensors, residual, along[0], variables, of_bounds)
    if any(weight is not None for weight in along[1:]):
        balanced = balanced + _of_theta(xp, function, x, tensors, residual, along)
    ratio = divided(xp, xp.abs(residual), balanced)
    lost = xp.isnan(residual) | ((balanced == 0) & (residual != 0))
    return xp.where(lost, xp.full_like(ratio, xp.inf), ratio)


def beside_zero(
    xp: Any, function: Callable[..., Array], x: Array, tensors: Sequence[Array], residual: Array, ratio: Array
) -> Array:
    """Ratios without those of entries that are zero but for a solver's last digits, which have no size to compare with.

    There zero itself is a better solution. Where x is small because its unit is, it is a worse one.

    Args:
        xp: the arrays' namespace.
        function: (x, *tensors) ↦ residual.
        x: shape (*batch, n).
        tensors: θ.
        residual: F(x, θ), shape (*batch, n).
        ratio: what `relative_residual` gave.
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
    own = _of_x(xp, function, x, tensors, value, along[0], variables, True)
    return own + _of_theta(xp, function, x, tensors, value, along)


def _of_x(
    xp: Any,
    function: Callable[..., Array],
    x: Array,
    tensors: Sequence[Array],
    value: Array,
    along: Array,
    n: int,
    of_bounds: bool = False,
) -> Array:
    size, least = xp.abs(x), tolerance_of(float(xp.finfo(x.dtype).eps))
    if not of_bounds:
        unit = xp.clip(xp.max(size, axis=-1, keepdims=True), max=1.0)
        least = least * (unit + (unit == 0))  # an x of all zeros has no size of its own
    if n:
        share = SHARE * xp.max(size[..., :n], axis=-1, keepdims=True)
        own = xp.maximum(size[..., :n], xp.clip(share, min=least))
        size = xp.concat([own, xp.clip(size[..., n:], min=least)], axis=-1)
    else:
        size = xp.clip(size, min=least)
    return _change(xp, function(x + STEP * size * along, *tensors), value)


def _of_theta(
    xp: Any, function: Callable[..., Array], x: Array, tensors: Sequence[Array], value: Array, along: Sequence[Array]
) -> Array:
    moved = [t if weight is None else t + STEP * t * weight for t, weight in zip(tensors, along[1:], strict=True)]
    return _change(xp, function(x, *moved), value)


def _change(xp: Any, there: Array, here: Array) -> Array:
    change = xp.abs(there - here) / STEP
    return xp.where(xp.isfinite(change), change, xp.zeros_like(change))  # a probe may leave F's domain
