"""Autograd rules: the solve and its vector-Jacobian product, each with its own derivative, so that gradients can be
differentiated once more."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from cvxift.kkt.solution_map import Solved
from cvxift.layer import LayerCore


class Solve(torch.autograd.Function):
    """θ ↦ flat outputs, solved in float64 on the CPU whatever the dtype and device of θ."""

    @staticmethod
    def forward(
        ctx: Any, theta: torch.Tensor, core: LayerCore, solver_args: dict[str, Any] | None, warm_start: bool
    ) -> torch.Tensor:
        """Solve."""
        solved = core.solve(to_numpy(theta), solver_args, warm_start)
        ctx.core, ctx.solved = core, solved
        ctx.save_for_backward(theta)
        return like(solved.outputs, theta)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """One vector-Jacobian product, itself differentiable."""
        (theta,) = ctx.saved_tensors
        (bar,) = grads
        return VectorJacobian.apply(theta, bar, ctx.core, ctx.solved), None, None, None  # type: ignore[return-value]


class VectorJacobian(torch.autograd.Function):
    """(θ, cotangent) ↦ cotangent of θ; linear in the cotangent, so its derivative is a Jacobian-vector product and a
    second-order term."""

    @staticmethod
    def forward(ctx: Any, theta: torch.Tensor, bar: torch.Tensor, core: LayerCore, solved: Solved) -> torch.Tensor:
        """Apply the transposed Jacobian."""
        ctx.core, ctx.solved = core, solved
        ctx.save_for_backward(bar)
        return like(core.map.vjp(solved, to_numpy(bar)), theta)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """A second-order product for θ, a Jacobian-vector product for the cotangent."""
        (bar,) = ctx.saved_tensors
        dot = to_numpy(grads[0])
        theta_grad = bar_grad = None
        if ctx.needs_input_grad[0]:
            theta_grad = like(ctx.core.map.second(ctx.solved, to_numpy(bar), dot), grads[0])
        if ctx.needs_input_grad[1]:
            bar_grad = like(ctx.core.map.jvp(ctx.solved, dot), bar)
        return theta_grad, bar_grad, None, None


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's values as a float64 array on the CPU; shares memory where it can."""
    return tensor.detach().to(device="cpu", dtype=torch.float64).numpy()


def like(array: np.ndarray, tensor: torch.Tensor) -> torch.Tensor:
    """An array as a tensor of the other's dtype and device."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(device=tensor.device, dtype=tensor.dtype)
