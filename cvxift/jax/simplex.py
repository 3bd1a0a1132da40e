"""Softmax, sparsemax and α-entmax on JAX arrays: exact, differentiable to any order, O(n) memory, under any transform.

Any shape; float16, bfloat16 (computed in float32), float32 and float64; masks by −∞ (fully masked rows give zeros).
With ``jax_enable_x64`` thresholds are found in float64 whatever the dtype, without in sums of two float32
(`double_single`): either way float32 values are exact to 1.5e-7 for all α ≤ 4. Derivatives are functions of the
value. Inside `jax.jit`, `jax.vmap` and `jax.grad` rows with NaN or +∞ give NaN instead of an error.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from cvxift.argmax import checks, tsallis
from cvxift.argmax import simplex as maps
from cvxift.errors import ProgramError
from cvxift.jax.arrays import doubles, floating, guarded, scores_of

Array = jax.Array


def _solve(x: Array, alpha: float | Array) -> Array:
    bad = ~(jnp.max(x, axis=-1, keepdims=True) < jnp.inf) | jnp.isnan(jnp.asarray(alpha))
    return jnp.where(bad, jnp.nan, maps.entmax(x, alpha, jax.lax.while_loop, wide=doubles()))


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _known(x: Array, alpha: float) -> Array:
    """The order is a number: it has no derivative, and shorter ways of its own."""
    return _solve(x, alpha)


@_known.defjvp
def _known_jvp(alpha: float, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    z = _known(primals[0], alpha)
    return z, tsallis.derivative(z, tangents[0], alpha)


@jax.custom_jvp
def _varying(x: Array, alpha: Array) -> Array:
    """The order is an array that broadcasts against the rows."""
    return _solve(x, alpha)


_varying.defjvps(
    lambda dx, z, x, alpha: tsallis.derivative(z, dx, alpha),
    lambda dalpha, z, x, alpha: dalpha * tsallis.order_derivative(z, alpha),
)
_known_compiled = jax.jit(lambda x, alpha: checks.spoiled(jnp, _known(x, alpha)), static_argnums=1)
_varying_compiled = jax.jit(lambda x, alpha: checks.spoiled(jnp, _varying(x, alpha)))


def entmax_last(x: Array, alpha: float | Array) -> Array:
    """α-entmax along the last axis of checked scores; alpha a float, or an array that broadcasts against the rows."""
    if x.size == 0:
        return x
    return _known_compiled(x, alpha) if isinstance(alpha, float) else _varying_compiled(x, alpha)


def order_of(name: str, alpha: float | Array, shape: tuple[int, ...], axis: int, like: Array) -> float | Array:
    """The order as `entmax_last` takes it; NaN where it is below 1 and cannot be looked at."""
    if isinstance(alpha, float | int):
        checks.check_number(name, checks.ORDER, alpha)
        return float(alpha)
    order = guarded(name, checks.ORDER, jnp.asarray(alpha, dtype=like.dtype))
    if order.ndim == 0:
        return order
    full = (1,) * (len(shape) - order.ndim) + order.shape
    if len(full) != len(shape) or any(mine not in (1, size) for mine, size in zip(full, shape)) or full[axis] != 1:
        raise ProgramError(
            f"{name} got alpha of shape {order.shape}; expected one that broadcasts to {shape} with size 1 along"
            f" axis = {axis}."
        )
    return jnp.moveaxis(order.reshape(full), axis, -1)


def entmax(x: Any, alpha: float | Array = 1.5, axis: int = -1, temperature: float | Array = 1.0) -> Array:
    """α-entmax: argmax over the simplex of xᵀz − temperature·Ω_α(z), Ω_α the negative Tsallis entropy.

    Args:
        x: scores of any shape; −∞ masks.
        alpha: order ≥ 1, a number (compiled in) or an array (differentiable) that broadcasts against x with size 1
            along ``axis``; 1 is softmax, 2 sparsemax.
        axis: the axis along which the distributions lie.
        temperature: > 0, a number or an array that broadcasts against x.

    Returns:
        Distributions of x's shape and dtype.

    Raises:
        ProgramError: α < 1, temperature ≤ 0, an integer dtype, no such axis, NaN or +∞ scores; where these values are
            traced, NaN instead.

    Source: Peters, Niculae, Martins 2019; ∂/∂α: Correia, Niculae, Martins 2019.

    Example:
        >>> import jax.numpy as jnp
        >>> from cvxift.jax import entmax
        >>> entmax(jnp.array([1.0, 1.0, -3.0, -jnp.inf])).round(4).tolist()
        [0.5, 0.5, 0.0, 0.0]
    """
    if isinstance(alpha, float | int) and alpha == 1:
        return softmax(x, axis, temperature)
    x = floating("entmax", x)
    scores = scores_of("entmax", x, axis, temperature)
    order = order_of("entmax", alpha, x.shape, axis, scores)
    return jnp.moveaxis(entmax_last(scores, order), -1, axis).astype(x.dtype)


def sparsemax(x: Any, axis: int = -1, temperature: float | Array = 1.0) -> Array:
    """Sparsemax: the Euclidean projection of x / temperature onto the simplex.

    Args:
        x: scores of any shape; −∞ masks.
        axis: the axis along which the distributions lie.
        temperature: > 0, a number or an array that broadcasts against x.

    Returns:
        Distributions of x's shape and dtype.

    Raises:
        ProgramError: as for `entmax`.

    Source: Martins & Astudillo 2016.

    Example:
        >>> import jax.numpy as jnp
        >>> from cvxift.jax import sparsemax
        >>> sparsemax(jnp.array([0.5, 0.5, -1.0])).tolist()
        [0.5, 0.5, 0.0]
    """
    x = floating("sparsemax", x)
    return jnp.moveaxis(entmax_last(scores_of("sparsemax", x, axis, temperature), 2.0), -1, axis).astype(x.dtype)


def softmax(x: Any, axis: int = -1, temperature: float | Array = 1.0) -> Array:
    """Softmax, with zeros for fully masked rows.

    Args:
        x: scores of any shape; −∞ masks.
        axis: the axis along which the distributions lie.
        temperature: > 0, a number or an array that broadcasts against x.

    Returns:
        Distributions of x's shape and dtype.

    Raises:
        ProgramError: as for `entmax`.

    Source: Boltzmann 1868.

    Example:
        >>> import jax.numpy as jnp
        >>> from cvxift.jax import softmax
        >>> softmax(jnp.array([[0.0, 0.0], [-jnp.inf, -jnp.inf]])).tolist()
        [[0.5, 0.5], [0.0, 0.0]]
    """
    x = floating("softmax", x)
    scores = scores_of("softmax", x, axis, temperature)
    if scores.size == 0:
        return jnp.zeros_like(x)
    masked = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)) == -jnp.inf
    z = jnp.where(masked, 0.0, jax.nn.softmax(jnp.where(masked, 0.0, scores), axis=-1))
    return jnp.moveaxis(checks.spoiled(jnp, z), -1, axis).astype(x.dtype)
