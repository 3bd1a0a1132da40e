"""Losses that are differences of an optimal value and a given score: the derivative is that of an envelope.

L(x) = max_z {⟨x, z⟩ − Ω(z)} − ⟨x, y⟩ + Ω(y),

the gradient is z − y, prediction minus target, and the second derivative ∂z/∂x.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


@partial(jax.custom_jvp, nondiff_argnums=(4,))
def envelope(x: Array, z: Array, y: Array, value: Array, axes: int) -> Array:
    """A Fenchel–Young loss, given its value: ∇ = z − y in x alone, the prediction z being differentiated but once more.

    Args:
        x: scores.
        z: their prediction, of x's shape, differentiable in whatever x is.
        y: target of x's shape.
        value: the loss, of x's shape without the last ``axes`` axes.
        axes: how many axes a prediction has.

    Returns:
        The value.
    """
    return value


@envelope.defjvp
def _envelope_jvp(axes: int, primals: Any, tangents: Any) -> Any:
    _, z, y, value = primals
    return value, jnp.sum((z - y) * tangents[0], axis=tuple(range(-axes, 0)))
