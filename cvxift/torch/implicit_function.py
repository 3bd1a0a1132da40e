"""The conditions of implicit functions on tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cvxift.errors import ProgramError
from cvxift.implicit.conditions import Equations
from cvxift.implicit.voice import RANDOM
from cvxift.torch.closures import with_values
from cvxift.torch.trees import flatten

Tensor = torch.Tensor


@dataclass(frozen=True, eq=False)
class Conditions(Equations):
    """The equations of one instance.

    Attributes:
        count: number of θ's tensors.
        found: tensors that the functions close over.
    """

    word = "tensor"
    count: int = 0
    found: tuple[Tensor, ...] = ()

    def value(self, w: Tensor, *tensors: Tensor) -> Tensor:
        """F at w, of w's shape.

        Args:
            w: x, or with constraints (x, ν, λ) side by side.
            *tensors: θ's; with constraints the mask a of active rows; then what takes the place of `found`.
        """
        theta, rest = tensors[: self.count], tensors[self.count :]
        own, values = (rest[:1], rest[1:]) if self.settings.constrained else ((), rest)
        try:
            return with_values(self._value, self.found, values, (w, *own, *theta))
        except RuntimeError as error:
            if "random operation" not in str(error):  # of torch.func.vmap
                raise
            raise ProgramError(f"{self.settings.title}: {RANDOM}") from error

    def energy(self, x: Tensor, *tensors: Tensor) -> Tensor:
        """E at x."""
        return with_values(self._energy, self.found, tensors[self.count :], (x, *tensors[: self.count]))

    def constraints(self, x: Tensor, *tensors: Tensor) -> Tensor:
        """G and H at x, side by side."""
        return with_values(self._constraints, self.found, tensors[self.count :], (x, *tensors[: self.count]))

    def _constraints(self, x: Tensor, *theta: Tensor) -> Tensor:
        return torch.cat(self.sides(x, *theta))

    def _gradient(self, function: Callable[[Tensor], tuple[Tensor, Any]], x: Tensor) -> tuple[Tensor, Any]:
        return gradient(function, x)

    def _flatten(self, name: str, value: Any) -> tuple[Sequence[str], Sequence[Any]]:
        return flatten(name, value)[:2]

    def _got(self, leaf: Any) -> tuple[tuple[int, ...] | None, Any]:
        if not isinstance(leaf, Tensor):
            return None, type(leaf).__name__
        return (tuple(leaf.shape) if leaf.is_floating_point() else None), leaf.dtype

    def _vector(self, parts: Sequence[Tensor], like: Tensor) -> Tensor:
        return torch.cat([part.reshape(-1).to(like.dtype) for part in parts]) if parts else like[:0]


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
    return slope, rest if further else tuple(part.detach() for part in rest)
