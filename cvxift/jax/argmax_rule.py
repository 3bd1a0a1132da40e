"""The rule of every argmax map: its kernel is run, and its derivative is a formula of what the call keeps.

JAX transposes the formula for reverse mode; `cvxift.argmax.derivatives` has it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from cvxift.argmax.derivatives import Derivative

Array = jax.Array


def differentiable(
    kernel: Callable[..., tuple[Array, ...]], derivative: Derivative
) -> Callable[..., tuple[Array, ...]]:
    """A kernel with the derivative of its first outputs; the others have none.

    Args:
        kernel: (arrays, options) ↦ tuple of arrays; no derivative passes through it.
        derivative: of the map.

    Returns:
        The function (arrays, options) ↦ tuple of arrays, differentiable to any order; options are hashable.
    """

    @partial(jax.custom_jvp, nondiff_argnums=(1,))
    def apply(arrays: tuple[Array, ...], options: tuple[Any, ...] = ()) -> tuple[Array, ...]:
        return kernel(*arrays, *options)

    @apply.defjvp
    def _(options: tuple[Any, ...], primals: Any, tangents: Any) -> Any:
        (arrays,), (moves,) = primals, tangents
        outputs = apply(arrays, options)
        kept = outputs[: derivative.outputs] if derivative.keep_outputs else ()
        dots = derivative.push((*kept, *(arrays[i] for i in derivative.keep_inputs)), moves, options)
        return outputs, (*dots, *map(jnp.zeros_like, outputs[derivative.outputs :]))

    return apply
