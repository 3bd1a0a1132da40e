"""F, T, E, or the KKT conditions as one function of flat vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cvxift.errors import ProgramError
from cvxift.implicit.settings import Settings
from cvxift.implicit.trees import equation_of
from cvxift.torch.closures import with_values
from cvxift.torch.trees import Layout, flatten

Tensor = torch.Tensor


@dataclass(frozen=True, eq=False)
class Conditions:
    """The equations of one instance.

    Attributes:
        settings: the user's functions.
        layout: x's.
        rebuild: tensors of θ ↦ the arguments.
        count: number of θ's tensors.
        sizes: numbers of entries of G and H.
        found: tensors that the functions close over.
    """

    settings: Settings
    layout: Layout
    rebuild: Callable[[Sequence[Tensor]], tuple[Any, ...]]
    count: int
    sizes: tuple[int, int] = (0, 0)
    found: tuple[Tensor, ...] = ()

    def value(self, w: Tensor, *tensors: Tensor) -> Tensor:
        """F at w, of w's shape.

        Args:
            w: x, or with constraints (x, ν, λ) side by side.
            *tensors: θ's; with constraints the mask a of active rows; then what takes the place of `found`.
        """
        theta, rest = tensors[: self.count], tensors[self.count :]
        own, values = (rest[:1], rest[1:]) if self.settings.constrained else ((), rest)
        return with_values(self._value, self.found, values, (w, *own, *theta))

    def energy(self, x: Tensor, *tensors: Tensor) -> Tensor:
        """E at x."""
        return with_values(self._energy, self.found, tensors[self.count :], (x, *tensors[: self.count]))

    def constraints(self, x: Tensor, *tensors: Tensor) -> Tensor:
        """G and H at x, side by side."""
        return with_values(self._constraints, self.found, tensors[self.count :], (x, *tensors[: self.count]))

    def _value(self, w: Tensor, *tensors: Tensor) -> Tensor:
        settings, layout = self.settings, self.layout
        if settings.constrained:
            return self._kkt(w, tensors[0], tensors[1:])
        if settings.kind == "argmin":
            return gradient(lambda x: (self._energy(x, *tensors), ()), w)[0]
        name = f"What {getattr(settings.function, '__name__', 'the function')} returned"
        residual = layout.matching(name, settings.function(layout.unravel(w), *self.rebuild(tensors)))
        return w - residual if settings.kind == "fixed_point" else residual

    def _energy(self, x: Tensor, *theta: Tensor) -> Tensor:
        value = self.settings.function(self.layout.unravel(x), *self.rebuild(theta))
        if not isinstance(value, Tensor) or value.shape != () or not value.is_floating_point():
            got = f"shape {tuple(value.shape)}, {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
            raise ProgramError(f"The energy must be one real number, a tensor of shape (); got {got}.")
        return value.to(x.dtype)

    def _constraints(self, x: Tensor, *theta: Tensor) -> Tensor:
        arguments = (self.layout.unravel(x), *self.rebuild(theta))
        parts = [self.side(function, arguments, x.dtype) for function in self.sides if function is not None]
        return torch.cat(parts)

    @property
    def sides(self) -> tuple[Callable[..., Any] | None, Callable[..., Any] | None]:
        """G and H."""
        return self.settings.equality, self.settings.inequality

    def side(self, function: Callable[..., Any] | None, arguments: Sequence[Any], dtype: torch.dtype) -> Tensor:
        """A constraint's values as a vector."""
        if function is None:
            return torch.empty(0, dtype=dtype, device=self.layout.device)
        names, leaves, _ = flatten(getattr(function, "__name__", "constraint"), function(*arguments))
        for name, leaf in zip(names, leaves):
            if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
                got = leaf.dtype if isinstance(leaf, Tensor) else type(leaf).__name__
                raise ProgramError(f"The constraint {name} must be made of floating tensors; got {got}.")
        parts = [leaf.reshape(-1).to(dtype) for leaf in leaves]
        return torch.cat(parts) if parts else torch.empty(0, dtype=dtype, device=self.layout.device)

    def _kkt(self, w: Tensor, active: Tensor, theta: Sequence[Tensor]) -> Tensor:
        p, m = self.sizes
        x, nu, lam = w.split([self.layout.size, p, m])

        def lagrangian(x: Tensor) -> tuple[Tensor, Tensor]:
            values = self._constraints(x, *theta)
            G, H = values.split([p, m])
            return self._energy(x, *theta) + nu @ G + (active * lam) @ H, values

        stationarity, values = gradient(lagrangian, x)
        G, H = values.split([p, m])
        return torch.cat([stationarity, G, active * H + (1.0 - active) * lam])

    def entry(self, index: int) -> str:
        """Name of an equation."""
        return equation_of(self.layout, self.sizes[0], index)


def gradient(function: Callable[[Tensor], tuple[Tensor, Any]], x: Tensor) -> tuple[Tensor, Any]:
    """The gradient of a function's first result, differentiable, and its second result.

    Outside of ``torch.func`` by the engine itself: it is faster, and allows hooks on saved tensors (checkpointing).
    """
    if torch._C._functorch.maybe_current_level() is not None:  # type: ignore[attr-defined]
        return torch.func.grad(function, has_aux=True)(x)
    further = torch.is_grad_enabled()
    with torch.enable_grad():
        point = x if x.requires_grad else x.detach().requires_grad_()
        value, rest = function(point)
        if not value.requires_grad:
            return torch.zeros_like(x), rest
        (slope,) = torch.autograd.grad(value, point, create_graph=further, allow_unused=True, retain_graph=True)
    slope = torch.zeros_like(x) if slope is None else slope
    return slope, rest.detach() if isinstance(rest, Tensor) and not further else rest
