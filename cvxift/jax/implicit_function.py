"""The conditions of implicit functions on JAX's arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from cvxift.implicit.conditions import Equations
from cvxift.jax.trees import flatten, floating, is_array

Array = Any


@dataclass(frozen=True, eq=False)
class Conditions(Equations):
    """The equations."""

    word = "array"

    def value(self, w: Array, *operands: Array) -> Array:
        """F at w, of w's shape; the mask of active rows is the first operand where there are constraints."""
        return self._value(w, *operands)

    def energy(self, x: Array, *theta: Array) -> Array:
        """E at x."""
        return self._energy(x, *theta)

    def constraints(self, x: Array, *theta: Array) -> Array:
        """G and H at x, side by side."""
        return jnp.concatenate(self.sides(x, *theta))

    def _gradient(self, function: Callable[[Array], tuple[Array, Any]], x: Array) -> tuple[Array, Any]:
        return jax.grad(function, has_aux=True)(x)

    def _flatten(self, name: str, value: Any) -> tuple[Sequence[str], Sequence[Any]]:
        return ([name], [None]) if value is None else flatten(name, value)[:2]

    def _got(self, leaf: Any) -> tuple[tuple[int, ...] | None, Any]:
        kind = jnp.result_type(leaf) if is_array(leaf) else type(leaf).__name__
        return (jnp.shape(leaf) if floating(leaf) else None), kind

    def _vector(self, parts: Sequence[Array], like: Array) -> Array:
        parts = [jnp.ravel(jnp.asarray(part, dtype=like.dtype)) for part in parts]
        return jnp.concatenate(parts) if parts else like[:0]
