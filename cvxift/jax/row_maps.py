"""α-entmax and its losses, and maps under bounds, along the last axis of JAX arrays.

With ``jax_enable_x64`` thresholds are found in float64 whatever the dtype, without in sums of two float32
(`double_single`): either way float32 values are exact to 1.5e-7 for all α ≤ 4. Inside `jax.jit`, `jax.vmap` and
`jax.grad` rows with NaN or +∞ give NaN instead of an error.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from cvxift.argmax import bounded, capped, checks, derivatives, losses
from cvxift.argmax import simplex as maps
from cvxift.jax.argmax_rule import differentiable
from cvxift.jax.arrays import doubles, look, widest

Array = jax.Array


def _solve(x: Array, alpha: float | Array) -> tuple[Array]:
    bad = ~(jnp.max(x, axis=-1, keepdims=True) < jnp.inf) | jnp.isnan(jnp.asarray(alpha))
    return (jnp.where(bad, jnp.nan, maps.entmax(x, alpha, jax.lax.while_loop, wide=doubles())),)


# An order that is a number has no derivative, and shorter ways of its own.
_known, _varying = (differentiable(_solve, derivatives.of_entmax(order)) for order in (False, True))
_known_compiled = jax.jit(lambda x, alpha: checks.spoiled(jnp, _known((x,), (alpha,))[0]), static_argnums=1)
_varying_compiled = jax.jit(lambda x, alpha: checks.spoiled(jnp, _varying((x, alpha))[0]))


def entmax(x: Array, alpha: float | Array) -> Array:
    if x.size == 0:
        return x
    return _known_compiled(x, alpha) if isinstance(alpha, float) else _varying_compiled(x, alpha)


def softmax(x: Array) -> Array:
    if x.size == 0:
        return x
    masked = jax.lax.stop_gradient(jnp.max(x, axis=-1, keepdims=True)) == -jnp.inf
    return checks.spoiled(jnp, jnp.where(masked, 0.0, jax.nn.softmax(jnp.where(masked, 0.0, x), axis=-1)))


def _loss(theta: Array, y: Array, alpha: float | Array) -> tuple[Array]:
    return (losses.fenchel_young(theta, y, entmax(theta, alpha), alpha),)


_loss_of_known = differentiable(_loss, derivatives.of_entmax_loss(entmax, order=False))
_loss_of_varying = differentiable(_loss, derivatives.of_entmax_loss(entmax, order=True))


def entmax_loss(theta: Array, y: Array, alpha: float | Array) -> Array:
    look(losses.check_targets, theta, y)
    y = checks.spoiled(jnp, y, losses.off_simplex(jnp, theta, y))
    if isinstance(alpha, float):
        return _loss_of_known((theta, y), (alpha,))[0][..., 0]
    return _loss_of_varying((theta, y, alpha))[0][..., 0]


_envelope = differentiable(lambda x, z, y, value, axes: (value,), derivatives.ENVELOPE)


def envelope(x: Array, z: Array, y: Array, value: Array, axes: int) -> Array:
    return _envelope((x, z, y, value), (axes,))[0]


def budget(x: Array, total: Array, lower: Array, upper: Array) -> Array:
    x = widest(x)
    look(partial(_check, "budget"), x, total, lower, upper)
    return _budget(x, total, lower, upper)


def capped_softmax(x: Array, upper: Array) -> Array:
    one, nothing = jnp.ones_like(x[..., :1]), jnp.zeros_like(x[..., :1])
    look(partial(_check, "constrained_softmax"), x, one, nothing, upper)
    return _capped(x, upper)


def _check(name: str, x: Array, total: Array, lower: Array, upper: Array) -> None:
    full = (jnp.broadcast_to(bound, x.shape) for bound in (lower, upper))
    checks.check_bounds(name, x, total, *full)


@jax.jit
def _budget(x: Array, total: Array, lower: Array, upper: Array) -> Array:
    # XLA would evaluate what follows from constant bounds while it compiles, entry by entry: seconds for large arrays.
    lower, upper = jax.lax.optimization_barrier((lower, upper))
    still = jax.lax.stop_gradient
    found = bounded.sides(still(x), still(total), still(lower), still(upper), jax.lax.while_loop)
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
    wrong = ~(lower <= upper) | ~(jnp.abs(lower) < jnp.inf)
    high = ~(jnp.max(x, axis=-1, keepdims=True) < jnp.inf)  # or NaN
    return empty | high | jnp.any(wrong, axis=-1, keepdims=True)
