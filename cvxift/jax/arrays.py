"""Kinds of arrays: which are floating, how wide, and which have values to look at.

Values are looked at where there are any; what cannot be refused inside `jax.jit`, `jax.vmap` or `jax.grad` gives NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from cvxift.argmax import checks
from cvxift.errors import ProgramError

Array = jax.Array


def floating(name: str, x: Any, what: str = "scores") -> Array:
    """The scores as an array, refused if they are not floating."""
    array = jnp.asarray(x)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ProgramError(f"{name} got {what} of type {array.dtype}; expected a floating dtype. Use .astype(float).")
    return array


def guarded(name: str, allowed: checks.Range, value: Array) -> Array:
    """`checks.guarded`, a constant in a function that is being traced having values too."""
    if visible(value):
        with jax.ensure_compile_time_eval():
            return checks.guarded(jnp, name, allowed, value, True)
    return checks.guarded(jnp, name, allowed, value, False)


def wider(x: Array) -> Array:
    """x in float32 at least."""
    return x if x.dtype in (jnp.float32, jnp.float64) else x.astype(jnp.float32)


def widest(x: Array) -> Array:
    """x in float64, where that is to be had."""
    return x.astype(jnp.float64) if doubles() else x


def doubles() -> bool:
    """Whether float64 is to be had."""
    return bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]  # JAX defines it at run time


def look(check: Callable[..., None], *arrays: Any) -> bool:
    """Run a check on arrays that have values, constants in a function that is being traced too; whether they have."""
    if not visible(*arrays):
        return False
    with jax.ensure_compile_time_eval():
        check(*arrays)
    return True


def visible(*arrays: Any) -> bool:
    """Whether the arrays have values to look at."""
    return not any(isinstance(array, Tracer) for array in arrays)
