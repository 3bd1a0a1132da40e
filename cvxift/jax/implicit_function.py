"""F, T, E, or the KKT conditions as one function of flat vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from cvxift.errors import ProgramError
from cvxift.implicit.settings import Settings
from cvxift.implicit.trees import equation_of
from cvxift.jax.trees import Layout, flatten, floating, is_array

Array = Any


@dataclass(frozen=True, eq=False)
class Conditions:
    """The equations.

    Attributes:
        settings: the user's functions.
        layout: x's.
        rebuild: arrays of θ ↦ the arguments.
        sizes: numbers of entries of G and H.
    """

    settings: Settings
    layout: Layout
    rebuild: Callable[[Sequence[Array]], tuple[Any, ...]]
    sizes: tuple[int, int] = (0, 0)

    def value(self, w: Array, *operands: Array) -> Array:
        """F at w, of w's shape.

        Args:
            w: x, or with constraints (x, ν, λ) side by side.
            *operands: with constraints the mask a of active rows first; θ's arrays.
        """
        settings, layout = self.settings, self.layout
        if settings.constrained:
            return self._kkt(w, operands[0], operands[1:])
        if settings.kind == "argmin":
            return jax.grad(self.energy)(w, *operands)
        name = f"What {getattr(settings.function, '__name__', 'the function')} returned"
        residual = layout.matching(name, settings.function(layout.unravel(w), *self.rebuild(operands)))
        return w - residual if settings.kind == "fixed_point" else residual

    def energy(self, x: Array, *theta: Array) -> Array:
        """E at x."""
        value = self.settings.function(self.layout.unravel(x), *self.rebuild(theta))
        if not floating(value) or jnp.shape(value) != ():
            got = f"shape {jnp.shape(value)}, {jnp.result_type(value)}" if is_array(value) else type(value).__name__
            raise ProgramError(f"The energy must be one real number, an array of shape (); got {got}.")
        return jnp.asarray(value, dtype=x.dtype)

    def constraints(self, x: Array, *theta: Array) -> Array:
        """G and H at x, side by side."""
        return jnp.concatenate(self.sides(x, *theta))

    def sides(self, x: Array, *theta: Array) -> list[Array]:
        """G and H at x, each a vector."""
        arguments = (self.layout.unravel(x), *self.rebuild(theta))
        out = []
        for function in (self.settings.equality, self.settings.inequality):
            if function is None:
                out.append(jnp.zeros(0, x.dtype))
                continue
            value = function(*arguments)
            own = getattr(function, "__name__", "constraint")
            names, leaves, _ = ([own], [None], None) if value is None else flatten(own, value)
            for name, leaf in zip(names, leaves):
                if not floating(leaf):
                    got = jnp.result_type(leaf) if is_array(leaf) else type(leaf).__name__
                    raise ProgramError(f"The constraint {name} must be made of floating arrays; got {got}.")
            parts = [jnp.ravel(jnp.asarray(leaf, dtype=x.dtype)) for leaf in leaves]
            out.append(jnp.concatenate(parts) if parts else jnp.zeros(0, x.dtype))
        return out

    def _kkt(self, w: Array, active: Array, theta: Sequence[Array]) -> Array:
        n, (p, _) = self.layout.size, self.sizes
        x, nu, lam = w[:n], w[n : n + p], w[n + p :]

        def lagrangian(x: Array) -> tuple[Array, tuple[Array, Array]]:
            G, H = self.sides(x, *theta)
            return self.energy(x, *theta) + nu @ G + (active * lam) @ H, (G, H)

        stationarity, (G, H) = jax.grad(lagrangian, has_aux=True)(x)
        return jnp.concatenate([stationarity, G, active * H + (1.0 - active) * lam])

    def entry(self, index: int) -> str:
        """Name of an equation."""
        return equation_of(self.layout, self.sizes[0], index)
