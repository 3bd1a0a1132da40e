"""F, T, ∇E, or the KKT conditions as one function of flat vectors, for either framework.

    min E(x) s.t. G(x) = 0, H(x) <= 0:    F(x, ν, λ) = [ ∇E + G_xᵀν + H_xᵀ(aλ) ;  G ;  a H + (1 − a) λ ]

with a the mask of active rows of H; see `cvxift.implicit.multipliers`.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from cvxift.errors import ProgramError
from cvxift.implicit.settings import Settings
from cvxift.implicit.trees import equation_of

Array = Any


@dataclass(frozen=True, eq=False)
class Equations(abc.ABC):
    """The equations of one instance.

    Attributes:
        word: what the framework calls its arrays.
        settings: the user's functions.
        layout: x's.
        rebuild: arrays of θ ↦ the arguments.
        sizes: numbers of entries of G and H.
    """

    word: ClassVar[str]
    settings: Settings
    layout: Any
    rebuild: Callable[[Sequence[Array]], tuple[Any, ...]]
    sizes: tuple[int, int] = (0, 0)

    @abc.abstractmethod
    def _gradient(self, function: Callable[[Array], tuple[Array, Any]], x: Array) -> tuple[Array, Any]:
        """The gradient of a function's first result, differentiable, and its second result."""

    @abc.abstractmethod
    def _flatten(self, name: str, value: Any) -> tuple[Sequence[str], Sequence[Any]]:
        """Names and leaves of a structure; None is a leaf."""

    @abc.abstractmethod
    def _got(self, leaf: Any) -> tuple[tuple[int, ...] | None, Any]:
        """A floating array's shape, else None; and its dtype or type, for messages."""

    @abc.abstractmethod
    def _vector(self, parts: Sequence[Array], like: Array) -> Array:
        """Arrays side by side, of the dtype of another vector."""

    def _value(self, w: Array, *operands: Array) -> Array:
        """F at w: x, or (x, ν, λ) with the mask of active rows as the first operand; then θ's arrays."""
        settings, layout = self.settings, self.layout
        if settings.constrained:
            return self._kkt(w, operands[0], operands[1:])
        if settings.kind == "argmin":
            return self._gradient(lambda x: (self._energy(x, *operands), ()), w)[0]
        name = f"What {getattr(settings.function, '__name__', 'the function')} returned"
        residual = layout.matching(name, settings.function(layout.unravel(w), *self.rebuild(operands)))
        return w - residual if settings.kind == "fixed_point" else residual

    def _kkt(self, w: Array, active: Array, theta: Sequence[Array]) -> Array:
        n, (p, _) = self.layout.size, self.sizes
        x, nu, lam = w[:n], w[n : n + p], w[n + p :]

        def lagrangian(x: Array) -> tuple[Array, tuple[Array, Array]]:
            G, H = self.sides(x, *theta)
            return self._energy(x, *theta) + nu @ G + (active * lam) @ H, (G, H)

        stationarity, (G, H) = self._gradient(lagrangian, x)
        return self._vector([stationarity, G, active * H + (1.0 - active) * lam], w)

    def _energy(self, x: Array, *theta: Array) -> Array:
        value = self.settings.function(self.layout.unravel(x), *self.rebuild(theta))
        shape, kind = self._got(value)
        if shape != ():
            got = kind if shape is None else f"shape {shape}, {kind}"
            raise ProgramError(f"The energy must be one real number, of shape (); got {got}.")
        return self._vector([value], x)[0]

    def sides(self, x: Array, *theta: Array) -> tuple[Array, Array]:
        """G and H at x, each a vector."""
        arguments = (self.layout.unravel(x), *self.rebuild(theta))
        return self._side(self.settings.equality, arguments, x), self._side(self.settings.inequality, arguments, x)

    def _side(self, function: Callable[..., Any] | None, arguments: Sequence[Any], x: Array) -> Array:
        if function is None:
            return x[:0]
        names, leaves = self._flatten(getattr(function, "__name__", "constraint"), function(*arguments))
        for name, leaf in zip(names, leaves, strict=True):
            shape, kind = self._got(leaf)
            if shape is None:
                raise ProgramError(f"The constraint {name} must be made of floating {self.word}s; got {kind}.")
        return self._vector(leaves, x)

    def entry(self, index: int) -> str:
        """Name of an equation."""
        return equation_of(self.layout, self.sizes[0], index)
