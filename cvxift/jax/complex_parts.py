"""Complex arrays as pairs of real ones, by JAX's own operations, so that gradients follow its convention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cvxift.layers.interop import refused
from cvxift.program.split_leaves import SplitProblem


def split(parts: SplitProblem, params: Sequence[Any]) -> tuple[Any, ...]:
    """Real arrays for the real problem's parameters.

    Args:
        parts: the layer's.
        params: an array for each of the user's parameters; a real one, or a number, serves for a complex parameter.
    """

    def take(leaf: Any, value: Any) -> tuple[Any, Any]:
        if isinstance(value, bool) or not isinstance(value, (jax.Array, np.ndarray, np.generic, int, float, complex)):
            raise refused(leaf.name(), value, "a JAX or NumPy array", "jnp.asarray")
        if isinstance(value, (int, float, complex)):
            return float(value.real), float(value.imag)
        return (value.real, value.imag) if jnp.iscomplexobj(value) else (value, jnp.zeros_like(value))

    return parts.split_call(params, take)


def joined(parts: SplitProblem, outputs: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    """The layer's outputs, complex where the variable is, from the real layer's."""
    return parts.join_call(
        outputs, jax.lax.complex, jnp.zeros_like, lambda array, like: jnp.asarray(array, dtype=like.dtype)
    )
