"""Whether F = 0 at a point, entry by entry and relative to what balances there, at the price of two evaluations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from cvxift.implicit.krylov import divided

Array = Any

STEP = 2.0**-10  # relative step of the probes: their own error does not matter, rounding at a small one would
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


def relative_residual(
    xp: Any,
    function: Callable[..., Array],
    x: Array,
    tensors: Sequence[Array],
    residual: Array,
    along: Sequence[Array],
    enough: Callable[[Array], bool] | None = None,
) -> Array:
    """|F_i| over what balances in F_i, shape (*batch, n).

    What balances there, Σⱼ |∂Fᵢ/∂xⱼ xⱼ| + Σⱼ |∂Fᵢ/∂θⱼ θⱼ|, is read off F's change when all entries of x, and then of θ,
    grow by 0.1 % times weights that differ. It has F's units, whatever they are.

    Args:
        xp: the arrays' namespace.
        function: (x, *tensors) ↦ residual.
        x: shape (*batch, n).
        tensors: θ.
        residual: F(x, θ), shape (*batch, n).
        along: `weights` of x and of each tensor, broadcastable to them; None for a tensor that has no floating entries.
        enough: whether ratios are small enough to leave it at that: what θ balances can but lower them. None to go on.

    Returns:
        Ratios; infinite where F_i ≠ 0 changes with nothing, or is NaN.
    """
    floor = tolerance_of(float(xp.finfo(x.dtype).eps))  # an x of all zeros has no size of its own
    size = xp.where(xp.abs(x) > floor, x, xp.full_like(x, floor))
    balance = _change(xp, function(x + STEP * size * along[0], *tensors), residual)
    if enough is not None or all(weight is None for weight in along[1:]):
        ratio = _ratio(xp, residual, balance)
        if enough is None or enough(ratio):
            return ratio
    moved = [t if weight is None else t + STEP * t * weight for t, weight in zip(tensors, along[1:], strict=True)]
    return _ratio(xp, residual, balance + _change(xp, function(x, *moved), residual))


def _ratio(xp: Any, residual: Array, balance: Array) -> Array:
    ratio = divided(xp, xp.abs(residual), balance)
    lost = xp.isnan(residual) | ((balance == 0) & (residual != 0))
    return xp.where(lost, xp.full_like(ratio, xp.inf), ratio)


def _change(xp: Any, there: Array, here: Array) -> Array:
    change = xp.abs(there - here) / STEP
    return xp.where(xp.isfinite(change), change, xp.zeros_like(change))  # a probe may leave F's domain
