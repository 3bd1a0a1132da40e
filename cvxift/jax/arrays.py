"""What the closed forms on JAX arrays share: arguments checked and laid out along the last axis.

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


def scores_of(name: str, x: Array, axis: int, temperature: float | Array = 1.0, shift: bool = True) -> Array:
    """Scores over temperature with ``axis`` last, in float32 at least; NaN where the temperature is not positive.

    Args:
        name: of the function, for messages.
        x: scores.
        axis: axis of the rows.
        temperature: > 0, a number or an array that broadcasts against x.
        shift: subtract the rows' maxima first, where that changes nothing but keeps large scores from overflowing.

    Raises:
        ProgramError: no such axis, temperature not positive, NaN or +∞ scores.
    """
    if isinstance(axis, bool) or not isinstance(axis, int) or not -x.ndim <= axis < x.ndim:
        raise ProgramError(f"{name} got axis = {axis}, but the scores have shape {x.shape}.")
    scores = wider(x)
    look(lambda scores: checks.check_scores(name, jnp.moveaxis(scores, axis, -1)), scores)
    if isinstance(temperature, float | int) and temperature == 1:
        return jnp.moveaxis(scores, axis, -1)
    warmth = temperature_of(name, temperature, scores)
    if shift and x.shape[axis]:
        top = jax.lax.stop_gradient(jnp.max(scores, axis=axis, keepdims=True))
        scores = scores - jnp.where(top == -jnp.inf, 0.0, top)
    return jnp.moveaxis(scores / warmth, axis, -1)


def temperature_of(name: str, temperature: float | Array, scores: Array, shape: tuple[int, ...] | None = None) -> Array:
    """The temperature in the scores' dtype; see `checks.guarded`. It broadcasts to the shape, None for the scores'."""
    if isinstance(temperature, float | int):
        checks.check_number(name, checks.TEMPERATURE, temperature)
    warmth = jnp.asarray(temperature, dtype=scores.dtype)
    broadcastable(name, "temperature", warmth, scores.shape if shape is None else shape)
    return guarded(name, checks.TEMPERATURE, warmth)


def guarded(name: str, allowed: checks.Range, value: Array) -> Array:
    """`checks.guarded`, a constant in a function that is being traced having values too."""
    if visible(value):
        with jax.ensure_compile_time_eval():
            return checks.guarded(jnp, name, allowed, value, True)
    return checks.guarded(jnp, name, allowed, value, False)


def bound_of(name: str, argument: str, bound: float | Array, scores: Array, shape: tuple[int, ...], axis: int) -> Array:
    """A bound broadcast to the scores' own shape, ``axis`` last."""
    array = jnp.asarray(bound, dtype=scores.dtype)
    broadcastable(name, argument, array, shape)
    full = jnp.broadcast_to(array, shape)
    return jnp.moveaxis(full, axis, -1) if shape else full


def broadcastable(name: str, argument: str, array: Array, shape: tuple[int, ...]) -> None:
    """Refuse what does not broadcast to the shape."""
    sizes = zip(reversed(array.shape), reversed(shape))
    if array.ndim > len(shape) or any(mine not in (1, size) for mine, size in sizes):
        raise ProgramError(f"{name}: {argument} has shape {array.shape}, which does not broadcast to {shape}.")


def wider(x: Array) -> Array:
    """x in float32 at least."""
    return x if x.dtype in (jnp.float32, jnp.float64) else x.astype(jnp.float32)


def doubles() -> bool:
    """Whether float64 is to be had."""
    return bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]  # JAX defines it at run time


def look(check: Callable[..., None], *arrays: Any) -> None:
    """Run a check on arrays that have values, constants in a function that is being traced too."""
    if visible(*arrays):
        with jax.ensure_compile_time_eval():
            check(*arrays)


def visible(*arrays: Any) -> bool:
    """Whether the arrays have values to look at."""
    return not any(isinstance(array, Tracer) for array in arrays)
