"""JAX, as the argmax functions know a framework; see `cvxift.argmax.functions.framework`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from cvxift.jax.arrays import floating, guarded, look, visible, wider, widest
from cvxift.jax.chain_maps import best_path, log_partition, marginals
from cvxift.jax.row_maps import budget, capped_softmax, entmax, entmax_loss, envelope, softmax
from cvxift.jax.segment_maps import Segments as segments
from cvxift.jax.segment_maps import segment_budget, segment_entmax, segment_loss
from cvxift.jax.structured_maps import permutahedron, permutahedron_loss, transport, transport_loss

Array = jax.Array
xp = jnp
DIM: str = "axis"
KERNELS_LOOK: bool = False


def is_number(value: Any) -> bool:
    return isinstance(value, float | int)


def is_integer(x: Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.integer)


def is_half(x: Array) -> bool:
    return x.dtype in (jnp.float16, jnp.bfloat16)


def array(value: Any, like: Array) -> Array:
    return jnp.asarray(value, dtype=like.dtype)


def integers(value: Any, like: Array) -> Array:
    """Integers as an array, whose values can be seen where they are constants in a function that is being traced."""
    if not visible(value):
        return value
    with jax.ensure_compile_time_eval():
        return jnp.asarray(value)


def index(x: Array) -> Array:
    return x


def cast(x: Array, like: Array) -> Array:
    return x.astype(like.dtype)


def moveaxis(x: Array, source: int, destination: int) -> Array:
    return jnp.moveaxis(x, source, destination)


def take(values: Array, index: Array) -> Array:
    return jnp.take_along_axis(values, index, axis=-1)


def sort(x: Array) -> tuple[Array, Array]:
    order = jnp.argsort(x, axis=-1, descending=True, stable=True)
    return take(x, order), order


def eager(compute: Any, composed: Callable[[Array], Array], x: Array) -> Array:
    """The map as JAX composes it."""
    return composed(x)


def sigmoid(x: Array) -> Array:
    return jax.nn.sigmoid(x)


def arange(number: int, like: Array) -> Array:
    return jnp.arange(number, dtype=like.dtype)


def constant(x: Array) -> Array:
    return jax.lax.stop_gradient(x)
