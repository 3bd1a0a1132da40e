"""Autograd rules: the solve and its vector-Jacobian product.

Each has its own derivative, so that gradients can be differentiated once more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from cvxift.layer import Call, LayerCore


class Solve(torch.autograd.Function):
    """Parameters ↦ variables, solved in float64 on the CPU whatever the dtype and device of the tensors."""

    @staticmethod
    def forward(
        ctx: Any,
        core: LayerCore,
        solver_args: dict[str, Any] | None,
        warm_start: bool,
        differentiated: bool,
        *params: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Solve."""
        call, outputs = core.solve([to_numpy(p) for p in params], solver_args, warm_start)
        if differentiated:
            core.prepare(call)
        ctx.core, ctx.call = core, call
        ctx.save_for_backward(*params)
        like = params[0] if params else torch.empty(0, dtype=torch.get_default_dtype())
        return tuple(to_torch(output, like) for output in outputs)

    @staticmethod
    def backward(ctx: Any, *bars: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """One vector-Jacobian product, itself differentiable."""
        params = ctx.saved_tensors
        wanted = ctx.needs_input_grad[4:]
        if torch.is_grad_enabled():  # create_graph=True
            grads = VectorJacobian.apply(ctx.core, ctx.call, wanted, len(bars), *bars, *params)
        else:
            grads = _vjp(ctx.core, ctx.call, wanted, bars, params)
        return None, None, None, None, *grads


class VectorJacobian(torch.autograd.Function):
    """(cotangents, parameters) ↦ cotangents of the parameters; linear in the first, so its derivative has two terms."""

    @staticmethod
    def forward(
        ctx: Any, core: LayerCore, call: Call, wanted: tuple[bool, ...], count: int, *tensors: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        """Apply the transposed Jacobian."""
        ctx.core, ctx.call, ctx.count = core, call, count
        ctx.save_for_backward(*tensors)
        return _vjp(core, call, wanted, tensors[:count], tensors[count:])

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator is untyped
        ctx: Any, *dots: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        """A second-order product for the parameters, a Jacobian-vector product for the cotangents."""
        bars, params = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        tangents = [None if dot is None else to_numpy(dot) for dot in dots]
        wanted = ctx.needs_input_grad[4:]
        bar_grads: list[torch.Tensor | None] = [None] * len(bars)
        param_grads: list[torch.Tensor | None] = [None] * len(params)
        if any(wanted[: ctx.count]):
            outputs = ctx.core.jvp(ctx.call, tangents)
            bar_grads = [to_torch(out, bar) for out, bar in zip(outputs, bars, strict=True)]
        if any(wanted[ctx.count :]):
            second = ctx.core.second(ctx.call, [to_numpy(bar) for bar in bars], tangents)
            param_grads = [to_torch(out, param) for out, param in zip(second, params, strict=True)]
        return None, None, None, None, *bar_grads, *param_grads


def _vjp(
    core: LayerCore,
    call: Call,
    wanted: tuple[bool, ...],
    bars: tuple[torch.Tensor, ...],
    params: tuple[torch.Tensor, ...],
) -> tuple[torch.Tensor | None, ...]:
    grads = core.vjp(call, [to_numpy(bar) for bar in bars])
    return tuple(
        to_torch(grad, param) if want else None for grad, param, want in zip(grads, params, wanted, strict=True)
    )


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's values as a float64 array on the CPU; shares memory where it can."""
    tensor = tensor.detach()
    if tensor.dtype is not torch.float64 or not tensor.is_cpu:  # a `to` without effect costs as much as a small product
        tensor = tensor.to(device="cpu", dtype=torch.float64)
    return tensor.numpy()


def to_torch(array: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """An array as a tensor of the other's dtype and device."""
    tensor = torch.from_numpy(np.asarray(array, order="C"))
    if like.dtype is not torch.float64 or not like.is_cpu:
        tensor = tensor.to(device=like.device, dtype=like.dtype)
    return tensor
