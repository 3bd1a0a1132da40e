"""Projections and softmax under bounds along the last axis of JAX arrays: which entries stand at them, and the values.

Inside `jax.jit`, `jax.vmap` and `jax.grad` what would be refused gives NaN.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from cvxift.argmax import bounded, capped, checks
from cvxift.jax.arrays import look, widest

Array = jax.Array


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
