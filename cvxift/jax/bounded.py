"""Argmax maps under bounds on JAX arrays: budget, constrained sparsemax, constrained softmax, box.

Which entries stand at their bounds is found without a derivative; given that, the maps are affine or a softmax, and
their derivatives, of any order and in the scores, bounds and sums, are JAX's own. With ``jax_enable_x64`` computed in
float64 whatever the dtype. Inside `jax.jit`, `jax.vmap` and `jax.grad` what would be refused gives NaN.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from cvxift.argmax import bounded, capped, checks
from cvxift.errors import ProgramError
from cvxift.jax.arrays import bound_of, doubles, floating, look, scores_of, temperature_of, wider

Array = jax.Array


@jax.jit
def _budget(x: Array, total: Array, lower: Array, upper: Array) -> Array:
    still = jax.lax.stop_gradient
    found = bounded.sides(still(x), still(total), still(lower), still(upper), jax.lax.while_loop)
    lower, upper = jnp.broadcast_to(lower, x.shape), jnp.broadcast_to(upper, x.shape)
    bad = _bad(x, total, lower, upper)
    x, total, lower, upper = (checks.spoiled(jnp, part, bad) for part in (x, total, lower, upper))
    return bounded.value(x, total, lower, upper, found)


@jax.jit
def _capped(x: Array, upper: Array) -> Array:
    found = capped.caps(jax.lax.stop_gradient(x), jax.lax.stop_gradient(upper))
    bad = _bad(x, jnp.ones_like(x[..., :1]), jnp.zeros_like(x), upper)
    return capped.value(checks.spoiled(jnp, x, bad), checks.spoiled(jnp, upper, bad), found)


def _bad(x: Array, total: Array, lower: Array, upper: Array) -> Array:
    """Rows that would be refused, (..., 1)."""
    empty = checks.sums_allowed(jnp, x, total, lower, upper)[2]
    wrong = ~(x < jnp.inf) | ~(lower <= upper) | ~(jnp.abs(lower) < jnp.inf)
    return empty | jnp.any(wrong, axis=-1, keepdims=True)


def _wide(x: Array) -> Array:
    return x.astype(jnp.float64) if doubles() else x


def budget(
    x: Any,
    total: float | Array = 1.0,
    lower: float | Array = 0.0,
    upper: float | Array = 1.0,
    axis: int = -1,
    temperature: float | Array = 1.0,
) -> Array:
    """Projection of x / temperature onto {l ≤ z ≤ u, Σ z = total}: soft choice of ``total`` entries, within bounds.

    Args:
        x: scores of any shape; an entry at −∞ is masked: it stands at its lower bound, and so do all, whatever the
            total, where a whole row is masked.
        total: required sum; a number, or an array of x's shape with size one along ``axis``.
        lower: finite lower bounds, broadcast against x.
        upper: upper bounds, broadcast against x; may be +∞.
        axis: the axis that is summed.
        temperature: > 0, a number or an array that broadcasts against x.

    Returns:
        z of x's shape; differentiable in x, total, the bounds and the temperature.

    Raises:
        ProgramError: the set is empty, bounds cross, temperature ≤ 0, an integer dtype, NaN or +∞ scores; where these
            values are traced, NaN instead.

    Source: Brucker 1984 (continuous quadratic knapsack).

    Example:
        >>> import jax.numpy as jnp
        >>> from cvxift.jax import budget
        >>> budget(jnp.array([3.0, 0.5, 0.5, -2.0]), total=2.0).tolist()
        [1.0, 0.5, 0.5, 0.0]
    """
    x = floating("budget", x)
    scores = _wide(scores_of("budget", x, axis, temperature))
    low = bound_of("budget", "lower", lower, scores, x.shape, axis)
    high = bound_of("budget", "upper", upper, scores, x.shape, axis)
    whole = list(x.shape)
    whole[axis] = 1
    need = bound_of("budget", "total", total, scores, tuple(whole), axis)
    if scores.size == 0:
        return jnp.zeros_like(x)
    look(partial(checks.check_bounds, "budget"), scores, need, low, high)
    if jnp.ndim(lower) == jnp.ndim(upper) == 0:
        low, high = low[..., :1], high[..., :1]
    return jnp.moveaxis(_budget(scores, need, low, high), -1, axis).astype(x.dtype)


def constrained_sparsemax(x: Any, upper: float | Array, axis: int = -1, temperature: float | Array = 1.0) -> Array:
    """Sparsemax under upper bounds: argmax over {0 ≤ z ≤ u, Σ z = 1} of xᵀz − ½ temperature·‖z‖².

    Args:
        x: scores; −∞ masks.
        upper: upper bounds, broadcast against x.
        axis: the axis along which the distributions lie.
        temperature: > 0, a number or an array that broadcasts against x.

    Returns:
        Distributions of x's shape; zero for fully masked rows; differentiable in x, the bounds and the temperature.

    Raises:
        ProgramError: the bounds sum to less than 1; otherwise as for `budget`.

    Source: Malaviya, Ferreira, Martins 2018.

    Example:
        >>> import jax.numpy as jnp
        >>> from cvxift.jax import constrained_sparsemax
        >>> constrained_sparsemax(jnp.array([3.0, 1.0, 0.0]), 0.5).tolist()
        [0.5, 0.5, 0.0]
    """
    return budget(x, 1.0, 0.0, upper, axis, temperature)


def constrained_softmax(x: Any, upper: float | Array, axis: int = -1, temperature: float | Array = 1.0) -> Array:
    """Softmax under upper bounds: argmax over {0 ≤ z ≤ u, Σ z = 1} of xᵀz − temperature·Σ z log z.

    Args:
        x: scores; −∞ masks.
        upper: nonnegative upper bounds, broadcast against x; may be +∞.
        axis: the axis along which the distributions lie.
        temperature: > 0, a number or an array that broadcasts against x.

    Returns:
        Distributions of x's shape; zero for fully masked rows; differentiable in x, the bounds and the temperature.

    Raises:
        ProgramError: the bounds are negative or sum to less than 1; otherwise as for `budget`.

    Source: Martins & Kreutzer 2017.

    Example:
        >>> import jax.numpy as jnp
        >>> from cvxift.jax import constrained_softmax
        >>> constrained_softmax(jnp.array([3.0, 0.0, 0.0]), 0.5).tolist()
        [0.5, 0.25, 0.25]
    """
    x = floating("constrained_softmax", x)
    scores = _wide(scores_of("constrained_softmax", x, axis, temperature))
    high = bound_of("constrained_softmax", "upper", upper, scores, x.shape, axis)
    if scores.size == 0:
        return jnp.zeros_like(x)
    one, nothing = jnp.ones_like(scores[..., :1]), jnp.zeros_like(scores)
    look(partial(checks.check_bounds, "constrained_softmax"), scores, one, nothing, high)
    return jnp.moveaxis(_capped(scores, high), -1, axis).astype(x.dtype)


def box(
    x: Any,
    lower: float | Array = 0.0,
    upper: float | Array = 1.0,
    temperature: float | Array = 1.0,
    regularizer: Literal["entropic", "quadratic"] = "entropic",
) -> Array:
    """Argmax over a box of xᵀz − temperature·Ω(z): sigmoids, or clipped scores.

    Args:
        x: scores of any shape; −∞ gives the lower bound, +∞ the upper.
        lower: finite lower bounds, broadcast against x.
        upper: finite upper bounds ≥ lower, broadcast against x.
        temperature: > 0, a number or an array that broadcasts against x.
        regularizer: ``"entropic"``, Ω = Σ (z−l) log(z−l) + (u−z) log(u−z), or ``"quadratic"``, Ω = ½‖z‖².

    Returns:
        z = l + (u − l)/(1 + exp(−x/temperature)), or clip(x/temperature, l, u); of x's shape and dtype.

    Raises:
        ProgramError: bounds cross, temperature ≤ 0, an integer dtype, NaN scores, an unknown regularizer.

    Source: Blondel, Martins, Niculae 2020, section 6.

    Example:
        >>> import jax.numpy as jnp
        >>> from cvxift.jax import box
        >>> box(jnp.array([0.0])).tolist(), box(jnp.array([0.25, 2.0]), regularizer="quadratic").tolist()
        ([0.5], [0.25, 1.0])
    """
    if regularizer not in ("entropic", "quadratic"):
        raise ProgramError(f"box got regularizer = {regularizer!r}; expected 'entropic' or 'quadratic'.")
    x = floating("box", x)
    wide = wider(x)
    scores = wide / temperature_of("box", temperature, wide)
    low = bound_of("box", "lower", lower, scores, x.shape, -1)
    high = bound_of("box", "upper", upper, scores, x.shape, -1)
    look(partial(checks.check_box, "box"), scores, low, high)
    z = low + (high - low) * jax.nn.sigmoid(scores)
    if regularizer == "quadratic":
        z = jnp.minimum(jnp.maximum(scores, low), high)
    return checks.spoiled(jnp, z, checks.out_of_box(jnp, scores, low, high)).astype(x.dtype)
